//! What the library's errors and warnings say on a command line: their own words, and what to do in this program's
//! options.

use trit_command::names::{Names, names};
use tritc::{Choice, CompileError, ErrorKind, Warning};

/// The message of an error, without its causes.
pub fn message(error: &CompileError) -> String {
    match error {
        CompileError::Choice { choice: Choice::Rounding, problem } => {
            format!("--quantize absmean {problem}; leave it away")
        }
        CompileError::Choice { choice, problem } => match option(choice) {
            Some(option) => format!("{option}: {problem}"),
            None => error.to_string(),
        },
        CompileError::Output(output) => trit_command::remedy::output(output),
        CompileError::NoStub { arch, .. } => format!(
            "{error}; put the static {} of a release beside {} under one of these names, or name it with --stub (for \
             another architecture than this machine's, it is trit-run-{arch})",
            names().runtime,
            names().compiler
        ),
        CompileError::Stub { .. } => format!("{error}; name another with --stub"),
        CompileError::TwoArchitectures { .. } => {
            format!("{error}; name those of one with --target, and make a program for each")
        }
        CompileError::NoSuchKernel { kernels, .. } if kernels.is_empty() => {
            format!("{error}; it was compiled with --target portable")
        }
        CompileError::NotABundle { path, may_be_checkpoint: true } => {
            let compiler = names().compiler;
            format!("{error}; if it is a checkpoint, compile it: {compiler} compile {}", path.display())
        }
        CompileError::NotABundle { .. } => {
            format!("{error}; {} compile makes one from a checkpoint", names().compiler)
        }
        CompileError::IsABundle { .. } => {
            let Names { compiler, runtime } = names();
            format!("{error}; run it with {runtime}, or look into it with {compiler} inspect")
        }
        CompileError::UnusableTokenizer { .. } => {
            format!("{error}; --no-tokenizer makes a bundle that takes and gives token ids only")
        }
        CompileError::NotTernary { .. } => format!(
            "{error}; or have them rounded with --quantize absmean, which gives a model that was not trained for it \
             nothing but noise"
        ),
        CompileError::UndecidedLayout { .. } => format!(
            "{error}; say it with --i2s-layout: x86 for files of Microsoft and of converters in Python, arm or 1x4 for \
             some that others made. A wrong layout gives a model that writes noise"
        ),
        CompileError::NearlyTernary { worst, .. } => {
            format!("{error}; --tolerance {} has them rounded, and the bundle says so", tolerance(*worst))
        }
        CompileError::AlreadyTernary { .. } => format!("{error}; leave away --quantize absmean"),
        CompileError::UnknownKey { key, changes_arithmetic: false, .. } => {
            format!("{error}; if it does not, compile with --ignore-config-key {key}")
        }
        CompileError::UnsupportedTarget { target: Some(_), .. } => format!("--{error}"),
        CompileError::UnsupportedTarget { .. } => {
            format!("--target native: {error}; name those to compile for, or --target portable")
        }
        _ => error.to_string(),
    }
}

/// A tolerance that accepts an error, with no more digits than it takes.
fn tolerance(error: f32) -> f64 {
    (f64::from(error) * 1000.0).ceil() / 1000.0
}

/// The option by which something is chosen, as it was given.
fn option(choice: &Choice) -> Option<String> {
    match choice {
        Choice::Name(name) => Some(format!("--name {name}")),
        Choice::Context(context) => Some(format!("--context {context}")),
        Choice::IgnoredKey(key) => Some(format!("--ignore-config-key {key}")),
        Choice::I2sLayout(layout) => Some(format!("--i2s-layout {layout}")),
        Choice::Rounding => Some("--quantize absmean".to_owned()),
        Choice::Tolerance(tolerance) => Some(format!("--tolerance {tolerance}")),
        _ => None,
    }
}

/// A warning.
pub fn warning(warning: &Warning) -> String {
    match warning {
        Warning::ShortFactors { change, longest } => format!(
            "{warning}. For longer texts compile with the long ones: --context N with N above {change}, up to {longest}"
        ),
        Warning::LongFactors { .. } => format!("{warning}; without --context it has the short ones"),
        Warning::NoKnownResult => {
            format!("{warning}, and {} selftest checks only its kernels", names().runtime)
        }
        _ => warning.to_string(),
    }
}

/// The exit code of a process that an error ends.
pub fn exit_code(error: &CompileError) -> u8 {
    match error.kind() {
        ErrorKind::Defect => 1,
        ErrorKind::Choice => 2,
        ErrorKind::Input => 3,
        ErrorKind::Unsupported => 4,
        ErrorKind::NotTrusted => 5,
        ErrorKind::Interrupted => trit_command::signals::INTERRUPTED,
    }
}
