//! Which targets a bundle gets code for.

use crate::error::CompileError;
use std::str::FromStr;
use trit_format::target::Target;

/// A way to say which targets a bundle gets code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetChoice {
    /// The best tier of this machine that has an emitter.
    Native,
    /// No code: every machine uses the runtime's portable kernels, or generates its own.
    Portable,
    /// Every target that has an emitter.
    All,
    /// That one.
    Named(Target),
}

impl TargetChoice {
    /// Every name that is understood.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ["native", "portable", "all"].into_iter().chain(Target::ALL.into_iter().map(Target::name))
    }
}

impl FromStr for TargetChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<TargetChoice, String> {
        match name {
            "native" => Ok(TargetChoice::Native),
            "portable" => Ok(TargetChoice::Portable),
            "all" => Ok(TargetChoice::All),
            _ => Target::from_name(name).map(TargetChoice::Named).ok_or_else(|| {
                format!("expected one of {}", TargetChoice::names().collect::<Vec<_>>().join(", "))
            }),
        }
    }
}

/// The targets that `choices` stand for, each once, in the order of [`Target::ALL`].
///
/// # Errors
/// [`CompileError::UnsupportedTarget`] for a target without an emitter, and for `native` on a machine that has none
/// of the others.
pub fn resolve(choices: &[TargetChoice]) -> Result<Vec<Target>, CompileError> {
    let supported = trit_codegen::supported();
    let unsupported = |target| CompileError::UnsupportedTarget { target, supported: supported.to_vec() };
    let mut wanted = Vec::new();
    for &choice in choices {
        match choice {
            TargetChoice::Portable => {}
            TargetChoice::All => wanted.extend_from_slice(supported),
            TargetChoice::Named(target) if supported.contains(&target) => wanted.push(target),
            TargetChoice::Native if let Some(target) = native() => wanted.push(target),
            TargetChoice::Named(target) => return Err(unsupported(Some(target))),
            TargetChoice::Native => return Err(unsupported(None)),
        }
    }
    Ok(Target::ALL.into_iter().filter(|t| wanted.contains(t)).collect())
}

/// The most capable target with an emitter whose features this CPU has.
pub fn native() -> Option<Target> {
    trit_codegen::supported().iter().copied().filter(|t| t.on_this_cpu()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_resolved_in_order_and_once() {
        let choices: Vec<TargetChoice> =
            ["aarch64", "x86-64-v2", "portable", "aarch64"].map(|n| n.parse().unwrap()).into();
        assert_eq!(resolve(&choices).unwrap(), [Target::X86_64V2, Target::Aarch64]);
        assert_eq!(resolve(&[TargetChoice::All]).unwrap(), trit_codegen::supported());
        assert_eq!(resolve(&[TargetChoice::Portable]).unwrap(), []);
        assert!("x86-64-v9".parse::<TargetChoice>().is_err());
    }

    #[test]
    fn targets_without_an_emitter_are_refused_by_name() {
        for target in Target::ALL.into_iter().filter(|t| !trit_codegen::supported().contains(t)) {
            let error = resolve(&[TargetChoice::Named(target)]).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains(target.name()) && text.contains("x86-64-v3"), "{text}");
        }
    }
}
