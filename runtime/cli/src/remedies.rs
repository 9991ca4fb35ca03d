//! What a user of this command can do about what the library says: the library gives data, and the options and other
//! commands are named here.

use std::fmt::Write;
use trit_command::names::names;
use trit_runtime::format::FormatError;
use trit_runtime::format::saved::SavedError;
use trit_runtime::{CodeLimit, KernelNote, KernelReport, NoKernels, NotTrusted, RuntimeError};

/// What helps where a bundle's context is too short, whatever is asked for when it is run.
fn longer_bundle() -> String {
    let compiler = names().compiler;
    format!(
        "`{compiler} compile --context N` makes a bundle for longer texts where the model has positions for them"
    )
}

/// The exit code of an error: 2 usage, 3 invalid input, 4 unsupported by this program or refused by this machine, 5
/// untrusted, 130 interrupted; 1 for an error that this command does not know.
pub fn exit_code(error: &RuntimeError) -> u8 {
    match error {
        RuntimeError::Io { .. }
        | RuntimeError::Changed { .. }
        | RuntimeError::Format { .. }
        | RuntimeError::Saved { .. }
        | RuntimeError::Text { .. }
        | RuntimeError::NotFinite { .. }
        | RuntimeError::Guide(_)
        | RuntimeError::Suppressed { .. } => 3,
        RuntimeError::Input(_)
        | RuntimeError::TrustFolder(_)
        | RuntimeError::Output(_)
        | RuntimeError::Context { .. }
        | RuntimeError::ContextFull { .. } => 2,
        RuntimeError::Kernels { .. }
        | RuntimeError::SequenceMemory { .. }
        | RuntimeError::Threads { .. }
        | RuntimeError::System(_) => 4,
        RuntimeError::Untrusted { .. } => 5,
        RuntimeError::Interrupted => trit_command::signals::INTERRUPTED,
        _ => 1,
    }
}

/// What to do about an error, where there is something that its words do not say.
pub fn of_error(error: &RuntimeError) -> Option<String> {
    let remedy = match error {
        RuntimeError::Changed { .. } => {
            "run it again, and replace bundles by renaming, not by writing into them"
        }
        RuntimeError::Format { source: FormatError::Magic { .. }, .. } => {
            return Some(format!("make one with `{} compile`", names().compiler));
        }
        RuntimeError::Saved { source: SavedError::Type { found, what: "KV cache", .. }, .. } => {
            return Some(format!("pass --kv {found}, or name another file with --prompt-cache"));
        }
        RuntimeError::Saved { source: SavedError::Type { found, .. }, .. } => {
            return Some(format!("pass --state {found}, or name another file with --prompt-cache"));
        }
        RuntimeError::Saved { .. } => "remove it, or name another file with --prompt-cache",
        RuntimeError::Untrusted { why, .. } => of_trust(why),
        RuntimeError::ContextFull { context, longest, .. } if context < longest => {
            "shorten the prompt, or allow a longer context with -c"
        }
        RuntimeError::Context { .. } => return Some(longer_bundle()),
        RuntimeError::ContextFull { .. } => return Some(format!("shorten the prompt; {}", longer_bundle())),
        RuntimeError::SequenceMemory { .. } => "try a shorter context with -c",
        RuntimeError::Threads { .. } => "try fewer with -t",
        RuntimeError::Kernels { problem, .. } => return of_kernels(problem).map(str::to_owned),
        _ => return None,
    };
    Some(remedy.to_owned())
}

fn of_trust(why: &NotTrusted) -> &'static str {
    match why {
        NotTrusted::NotSigned => {
            "its signature is a file beside it, whose name ends in .sig: ask for it where the bundle comes from"
        }
        NotTrusted::Signer(_) => "if you trust that key, name its file with --key",
        NotTrusted::Signature(_) | NotTrusted::SignatureFile(_) => "copy the bundle and its signature again",
        _ => "pass --trust if you know where it comes from, or --kernels jit to regenerate the code here",
    }
}

fn of_kernels(problem: &NoKernels) -> Option<&'static str> {
    match problem {
        NoKernels::OtherCpu { .. } => Some("compile with --target, or pass --kernels auto"),
        NoKernels::NotGenerated { limit: Some(limit), .. }
        | NoKernels::NoneFor { limit: Some(limit), .. } => Some(of_limit(*limit)),
        NoKernels::NoTier => Some("use --kernels portable"),
        NoKernels::Generation { .. } | NoKernels::Memory(_) => Some("try --kernels portable"),
        _ => None,
    }
}

fn of_limit(limit: CodeLimit) -> &'static str {
    match limit {
        CodeLimit::StoredInFile => {
            "that is because of --mmap or for want of memory: run it without --mmap, or compile the model with --target all"
        }
        _ => "compile the model with --target all",
    }
}

/// Which kernels run, and why, and what to do where they are not what one would expect.
pub fn kernels(report: &KernelReport) -> String {
    let mut text = report.name();
    for (i, note) in report.notes.iter().enumerate() {
        let remedy = match note {
            KernelNote::Untrusted(NotTrusted::Signature(_) | NotTrusted::SignatureFile(_)) => {
                "; copy the bundle and its signature again"
            }
            KernelNote::Untrusted(_) => "; --trust runs it",
            KernelNote::OtherCpu { cpu: Some(cpu), .. } => {
                &format!("; `{} retarget BUNDLE --target {cpu}` makes one that has them", names().compiler)
            }
            KernelNote::Slow(Some(CodeLimit::StoredInFile)) => {
                "; that is because of --mmap or for want of memory: run it without --mmap, or compile the model with \
                 --target all"
            }
            KernelNote::Slow(Some(_)) => "; compile the model with --target all",
            _ => "",
        };
        // Writing to a string succeeds.
        let _ = write!(text, "{}{note}{remedy}", if i == 0 { " (" } else { "; " });
    }
    if !report.notes.is_empty() {
        text.push(')');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use trit_runtime::format::signature::SignatureError;
    use trit_runtime::format::target::Target;
    use trit_runtime::source::Change;
    use trit_runtime::{KernelSource, Place};

    fn full(context: usize, longest: usize) -> String {
        of_error(&RuntimeError::ContextFull { tokens: 70, context, longest }).unwrap()
    }

    #[test]
    fn only_a_limit_that_c_sets_is_said_to_be_raised_by_c() {
        assert!(full(64, 1024).contains("with -c"), "{}", full(64, 1024));
        let own = full(64, 64);
        assert!(!own.contains("with -c") && own.contains("tritc compile --context"), "{own}");
    }

    #[test]
    fn exit_codes_are_as_documented_and_remedies_name_options() {
        let path = || "a.trit".into();
        let kernels = |problem| RuntimeError::Kernels { path: path(), problem };
        let limit = Some(CodeLimit::StoredInFile);
        let saved = |source| RuntimeError::Saved { path: path(), source };
        for (error, code, option) in [
            (RuntimeError::Io { path: path(), source: io::Error::other("no luck") }, 3, ""),
            (RuntimeError::Changed { path: path(), how: Change::Written }, 3, "renaming"),
            (
                RuntimeError::Format { path: path(), source: FormatError::Magic { found: [0; 8] } },
                3,
                "tritc compile",
            ),
            (saved(SavedError::Magic), 3, "--prompt-cache"),
            (saved(SavedError::Type { what: "KV cache", found: "int8", wanted: "f16" }), 3, "--kv int8"),
            (
                saved(SavedError::Type { what: "recurrent state", found: "f16", wanted: "f32" }),
                3,
                "--state f16",
            ),
            (RuntimeError::NotFinite { place: Place::Head, position: 1, token: 2 }, 3, ""),
            (RuntimeError::Suppressed { tokens: 3 }, 3, ""),
            (RuntimeError::Input("0 threads".into()), 2, ""),
            (RuntimeError::Context { asked: 9, longest: 8 }, 2, "tritc compile --context"),
            (RuntimeError::ContextFull { tokens: 9, context: 4, longest: 8 }, 2, "-c"),
            (kernels(NoKernels::OtherCpu { bundle: vec![], cpu: vec![] }), 4, "--kernels auto"),
            (kernels(NoKernels::NoneFor { wanted: Target::X86_64V3, limit }), 4, "--mmap"),
            (kernels(NoKernels::NoneFor { wanted: Target::X86_64V3, limit }), 4, "--target all"),
            (kernels(NoKernels::Memory(io::Error::other("no luck"))), 4, "--kernels portable"),
            (kernels(NoKernels::WithoutJit), 4, ""),
            (RuntimeError::SequenceMemory { what: "keys".into(), rows: 1, row_bytes: 2 }, 4, "-c"),
            (RuntimeError::Threads { count: 9, problem: "no".into() }, 4, "-t"),
            (RuntimeError::System("no memory".into()), 4, ""),
            (RuntimeError::Untrusted { path: path(), why: NotTrusted::Nothing }, 5, "--trust"),
            (RuntimeError::Untrusted { path: path(), why: NotTrusted::NotSigned }, 5, ".sig"),
            (
                RuntimeError::Untrusted { path: path(), why: NotTrusted::Signature(SignatureError::Form) },
                5,
                "again",
            ),
            (RuntimeError::Interrupted, 130, ""),
        ] {
            assert_eq!(exit_code(&error), code, "{error}");
            let remedy = of_error(&error).unwrap_or_default();
            assert!(remedy.contains(option) && remedy.is_empty() == option.is_empty(), "{error}: {remedy}");
            // The library's own words name no option.
            assert!(!error.to_string().contains(" -") && !error.to_string().contains("tritc"), "{error}");
        }
    }

    #[test]
    fn notes_about_kernels_carry_what_to_type() {
        let report = |notes| KernelReport {
            source: KernelSource::Portable,
            target: None,
            code: None,
            notes,
            shapes: 0,
            timed: 0,
        };
        assert_eq!(kernels(&report(vec![])), "portable");
        let untrusted = kernels(&report(vec![KernelNote::Untrusted(NotTrusted::NotRecorded)]));
        assert!(untrusted.ends_with("by this user on this machine; --trust runs it)"), "{untrusted}");
        let cpu = Some(Target::X86_64V3);
        let other = kernels(&report(vec![KernelNote::OtherCpu { bundle: vec![Target::Aarch64], cpu }]));
        assert!(other.contains("for aarch64 and none") && other.contains("--target x86-64-v3`"), "{other}");
        let both = report(vec![KernelNote::Slow(Some(CodeLimit::Stored)), KernelNote::StoredAnew]);
        let text = kernels(&both);
        assert!(text.contains("--target all; the bundle's weights") && text.ends_with(')'), "{text}");
    }
}
