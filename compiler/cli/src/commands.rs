//! What each command does: parsed arguments enter, text for standard output leaves.

mod inspect;
mod path;
mod ship;

use crate::arguments::{
    ActivationsOption, Arguments, Command, Compile, EmitOption, Emitting, I2sLayoutOption, QuantizeOption,
    Reading,
};
use crate::bar::Bar;
use crate::failure::{CommandError, Failure};
use crate::{scripts, words};
use path::expect_file;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use trit_command::names::names;
use trit_command::signals::{self, Interrupts};
use trit_format::target::Target;
use trit_text::output::Unfinished;
use trit_text::printable::{escape, escape_json};
use tritc::bundle::program::{self, Stub};
use tritc::bundle::{Bundle, trust};
use tritc::compile::{Compiled, compile, compile_program, targets};
use tritc::inspect::{disasm, report, report_json, size, verify};
use tritc::load::{self, ActivationChoice, I2sLayout, LoadOptions};
use tritc::model::Model;

/// Runs a command.
pub fn run(arguments: Arguments) -> Result<String, Failure> {
    let text = match arguments.command {
        Command::Compile(arguments) => {
            let unfinished = unfinished();
            let threads = arguments.threads.unwrap_or(0).into();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.map_err(CommandError::Threads)?;
            pool.install(|| run_compile(&arguments, &unfinished))?
        }
        Command::Retarget(arguments) => ship::retarget(&arguments, &unfinished())?,
        Command::Extract { program, output } => ship::extract(&program, output, &unfinished())?,
        Command::Keygen { path } => ship::keygen(&path, &unfinished())?,
        Command::Sign { bundle, key } => ship::sign(&bundle, &key, &unfinished())?,
        Command::Inspect(arguments) => inspect::run(&arguments)?,
        Command::Disasm { bundle, target, kernel } => {
            disasm::disasm(&open(&bundle)?, target, kernel.as_deref())?
        }
        Command::Verify { bundle: path, rebuild, key } => {
            let bundle = open(&path)?;
            let verified = verify::verify(&bundle, rebuild)?;
            let signed = key.map(|key| bundle.expect_signer(&key)).transpose()?;
            let signed = signed.map_or_else(String::new, |key| format!(", and it is signed by {key}"));
            let rebuilt =
                if verified.rebuilt { ", code and planes are what this tritc generates" } else { "" };
            format!(
                "{}: ok: {} sections and {} kernels match their digests{rebuilt}{signed}\n",
                path.display(),
                verified.sections,
                verified.kernels
            )
        }
        Command::Completions { shell } => scripts::completions(shell),
        Command::Man { command } => scripts::man(command.as_deref())?,
    };
    Ok(text)
}

/// Files that are being written, which are removed where the process is told to end.
fn unfinished() -> Unfinished {
    let unfinished = Unfinished::default();
    signals::clean_up_when_killed(Interrupts::Too, &unfinished, || signals::Told::Ends);
    unfinished
}

/// The runtime that a program is to begin with; `None` where a bundle is to be written.
fn stub(emitting: &Emitting, targets: &[Target]) -> Result<Option<Stub>, CommandError> {
    match (emitting.emit, &emitting.stub) {
        (EmitOption::Bundle, None) => Ok(None),
        (EmitOption::Bundle, Some(_)) => {
            Err(CommandError::Usage("--stub is for programs; add --emit exe".to_owned()))
        }
        (EmitOption::Exe, stub) => {
            let arch = program::arch_of(targets)?;
            let stub = stub
                .as_ref()
                .map_or_else(|| Stub::beside_this_program(arch), |path| Stub::open(path, arch))?;
            if stub.is_dynamic() {
                warn(&format!(
                    "{}: needs libraries of the system, so that the program runs only where they are; a static one is in the \
                     releases",
                    stub.path().display()
                ));
            }
            Ok(Some(stub))
        }
    }
}

/// Refuses an output that would replace something of another kind.
fn check_output(out: &Path, stub: Option<&Stub>) -> Result<(), CommandError> {
    match stub {
        None => tritc::bundle::check_output(out)?,
        Some(_) => program::check_program_output(out)?,
    }
    Ok(())
}

fn warn(warning: &str) {
    // Where standard error is closed there is nobody to warn.
    let _ = writeln!(std::io::stderr(), "{}: warning: {}", names().compiler, escape(warning));
}

/// One line of JSON. What a terminal would obey is escaped inside its strings, the only place where it can be.
fn json_line(value: &serde_json::Value) -> String {
    escape_json(&value.to_string()) + "\n"
}

/// How a checkpoint is to be read.
fn load_options(reading: &Reading) -> LoadOptions {
    LoadOptions {
        name: None,
        ignore_config_keys: reading.ignore_config_key.clone(),
        activations: match reading.activations {
            ActivationsOption::Auto => ActivationChoice::Auto,
            ActivationsOption::Int8 => ActivationChoice::Int8,
            ActivationsOption::F32 => ActivationChoice::F32,
        },
        quantize: reading.quantize.map(|QuantizeOption::Absmean| load::Quantize::Absmean),
        tolerance: reading.tolerance,
        without_tokenizer: reading.no_tokenizer,
        without_draft: reading.no_draft,
        i2s_layout: reading.i2s_layout.map(|layout| match layout {
            I2sLayoutOption::X86 => I2sLayout::X86,
            I2sLayoutOption::Arm => I2sLayout::Arm,
            I2sLayoutOption::FourRows => I2sLayout::FourRows,
        }),
        context: reading.context,
    }
}

fn run_compile(arguments: &Compile, unfinished: &Unfinished) -> Result<String, CommandError> {
    let start = Instant::now();
    trust::check_environment()?;
    let targets = targets::resolve(&arguments.target)?;
    expect_file(&arguments.path)?;
    let stub = stub(&arguments.emitting, &targets)?;
    if let Some(out) = &arguments.output {
        check_output(out, stub.as_ref())?;
    }
    let bar = Bar::new(arguments.verbose, unfinished);
    let options = LoadOptions { name: arguments.name.clone(), ..load_options(&arguments.reading) };
    let model = load::load(&arguments.path, &options)?;
    if arguments.verbose {
        bar.lines(&report(&model.report));
    }
    let out = match &arguments.output {
        Some(out) => out.clone(),
        None if stub.is_some() => tritc::bundle::file_of(&model.info.name).with_extension(""),
        None => tritc::bundle::file_of(&model.info.name),
    };
    check_output(&out, stub.as_ref())?;
    let compiled = match &stub {
        None => compile(&model, &out, &targets, &bar)?,
        Some(stub) => compile_program(&model, &out, stub, &targets, &bar)?,
    };
    let trusted = trust::record(&compiled.fingerprint);

    let mut warnings: Vec<String> =
        model.warnings.iter().chain(&bar.warnings()).map(words::warning).collect();
    if let Err(e) = &trusted {
        warnings.push(format!(
            "{}: cannot be recorded as trusted ({e}); {} will not run its code without --trust",
            out.display(),
            names().runtime
        ));
    }
    warnings.iter().for_each(|warning| warn(warning));
    let elapsed = start.elapsed();
    Ok(match arguments.json {
        false => summary(&model, &out, stub.is_some(), &compiled, &targets, elapsed),
        true => {
            let object = json!({
                "bundle": out.display().to_string(),
                "name": model.info.name,
                "architecture": model.info.architecture,
                "bytes": compiled.bytes(),
                "fingerprint": compiled.fingerprint,
                "trusted": trusted.is_ok(),
                "ternary_weights": compiled.weights,
                "ternary_bytes": compiled.weight_bytes(),
                "bits_per_weight": compiled.bits_per_weight(),
                "targets": targets.iter().map(|t| t.name()).collect::<Vec<_>>(),
                "kernels": compiled.kernels,
                "tensors": report_json(&model.report),
                "warnings": warnings,
                "seconds": elapsed.as_secs_f64(),
            });
            json_line(&object)
        }
    })
}

fn summary(
    model: &Model,
    out: &Path,
    is_program: bool,
    compiled: &Compiled,
    targets: &[Target],
    elapsed: Duration,
) -> String {
    let names: Vec<&str> = targets.iter().map(|t| t.name()).collect();
    let kernels = match names.is_empty() {
        true => "none (portable)".to_owned(),
        false => format!("{} for {}", compiled.kernels, names.join(", ")),
    };
    let (weights, bits) = (compiled.weights as f64 / 1e6, compiled.bits_per_weight());
    let (name, architecture) = (&model.info.name, &model.info.architecture);
    format!(
        "{}: {}\nmodel    {name} ({architecture})\nternary  {weights:.1} M weights, {bits:.3} bits each\n\
         kernels  {kernels}\ntime     {:.1} s\nrun      {}\n",
        out.display(),
        size(compiled.bytes()),
        elapsed.as_secs_f64(),
        next_command(out, is_program, model),
    )
}

/// The command that runs the bundle: a chat where it has a template, else a text or ids to go on from.
fn next_command(out: &Path, is_program: bool, model: &Model) -> String {
    let path = out.display().to_string();
    // What begins with a dash would be an option, and a program is looked for elsewhere if no folder is named.
    let path = if path.starts_with('-') || is_program && out.parent() == Some(Path::new("")) {
        format!("./{path}")
    } else {
        path
    };
    let plain = |c: char| c.is_alphanumeric() || "-_./+=:,@".contains(c) || cfg!(windows) && c == '\\';
    let path = match path.chars().all(plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', "'\\''")),
    };
    let path = if is_program { path } else { format!("{} {path}", names().runtime) };
    match (&model.tokenizer, &model.text.chat_template) {
        (Some(_), Some(_)) => path,
        (Some(_), None) => format!("{path} -p \"Once upon a time\""),
        (None, _) => format!("{path} --ids 1,2,3"),
    }
}

fn open(path: &Path) -> Result<Bundle, CommandError> {
    expect_file(path)?;
    Ok(Bundle::open(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_nothing_that_a_terminal_obeys_and_reads_back_the_same() {
        let value = json!({"name": "a\u{7f}\u{9b}31m\u{202e}\u{2028}\u{1b}[2J\n", "é": ["日本", "\\"]});
        let line = json_line(&value);
        assert!(line.ends_with('\n') && escape(line.trim_end()) == line.trim_end(), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
        assert_eq!(json_line(&json!({"a": "é"})), "{\"a\":\"é\"}\n");
    }
}
