//! What each command does: parsed arguments enter, text for standard output leaves.

use crate::bar::Bar;
use crate::cli::{Activations, Arguments, Command, Compile, Quantize};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trit_format::target::Target;
use tritc::bundle::Bundle;
use tritc::compile::Compiled;
use tritc::ingest::{ActivationChoice, LoadOptions};
use tritc::{CompileError, compile, disasm, ingest, inspect, targets, trust, verify};

/// Runs a command.
pub fn run(arguments: Arguments) -> Result<String, CompileError> {
    match arguments.command {
        Command::Compile(arguments) => {
            stop_cleanly();
            let threads = arguments.threads.unwrap_or(0).into();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.map_err(|e| CompileError::Internal(format!("threads cannot be started: {e}")))?;
            pool.install(|| run_compile(&arguments))
        }
        Command::Inspect { bundle, json, plan } => run_inspect(&bundle, json, plan),
        Command::Disasm { bundle, target, kernel } => {
            disasm::disasm(&open(&bundle)?, target, kernel.as_deref())
        }
        Command::Verify { bundle, rebuild } => {
            let verified = verify::verify(&open(&bundle)?, rebuild)?;
            let rebuilt =
                if verified.rebuilt { ", code and planes are what this tritc generates" } else { "" };
            Ok(format!(
                "{}: ok: {} sections and {} kernels match their digests{rebuilt}\n",
                bundle.display(),
                verified.sections,
                verified.kernels
            ))
        }
    }
}

/// On Ctrl-C, no unfinished file stays behind.
fn stop_cleanly() {
    // 128 + SIGINT, as shells report it. Without a handler Ctrl-C still ends the process.
    let _ = ctrlc::set_handler(|| tritc::abandon_and_exit(130));
}

fn run_compile(arguments: &Compile) -> Result<String, CompileError> {
    let start = Instant::now();
    let targets = targets::resolve(&arguments.target)?;
    expect_file(&arguments.path)?;
    if let Some(out) = &arguments.output {
        tritc::check_output(out)?;
    }
    let bar = Bar::new(arguments.verbose);
    let options = LoadOptions {
        name: arguments.name.clone(),
        ignore_config_keys: arguments.ignore_config_key.clone(),
        activations: match arguments.activations {
            Activations::Auto => ActivationChoice::Auto,
            Activations::Int8 => ActivationChoice::Int8,
            Activations::F32 => ActivationChoice::F32,
        },
        quantize: arguments.quantize.map(|Quantize::Absmean| ingest::Quantize::Absmean),
        context: arguments.context,
    };
    let model = ingest::load(&arguments.path, &options)?;
    if arguments.verbose {
        bar.lines(&inspect::report(&model.report));
    }
    let out = match &arguments.output {
        Some(out) => out.clone(),
        None => default_output(&model.info.name),
    };
    tritc::check_output(&out)?;
    let compiled = compile::compile(&model, &out, &targets, &bar)?;
    let trusted = trust::record(&compiled.fingerprint);

    let mut warnings = model.warnings.clone();
    warnings.extend(bar.warnings());
    if let Err(e) = &trusted {
        warnings.push(format!(
            "{}: cannot be recorded as trusted ({e}); trit-run will not run its code without --trust",
            out.display()
        ));
    }
    for warning in &warnings {
        eprintln!("tritc: warning: {warning}");
    }
    let elapsed = start.elapsed();
    Ok(match arguments.json {
        false => summary(&model.info.name, &model.info.architecture, &out, &compiled, &targets, elapsed),
        true => {
            let object = json!({
                "bundle": out,
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
                "tensors": inspect::report_json(&model.report),
                "warnings": warnings,
                "seconds": elapsed.as_secs_f64(),
            });
            format!("{object}\n")
        }
    })
}

fn summary(
    name: &str,
    architecture: &str,
    out: &Path,
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
    format!(
        "{}: {}\nmodel    {name} ({architecture})\nternary  {weights:.1} M weights, {bits:.3} bits each\n\
         kernels  {kernels}\ntime     {:.1} s\n",
        out.display(),
        inspect::size(compiled.bytes()),
        elapsed.as_secs_f64(),
    )
}

/// The model's name as a file in the current directory; names may hold anything.
fn default_output(name: &str) -> PathBuf {
    let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let stem: String = name.chars().map(safe).collect();
    // Not hidden, and not `.trit` alone.
    let stem = stem.trim_start_matches('.');
    PathBuf::from(format!("{}.trit", if stem.is_empty() { "model" } else { stem }))
}

fn run_inspect(path: &Path, json: bool, plan: bool) -> Result<String, CompileError> {
    let bundle = open(path)?;
    let plan = plan.then(|| trit_format::text::plan(bundle.manifest()));
    Ok(match (json, plan) {
        (false, None) => inspect::describe(&bundle),
        (false, Some(plan)) => plan,
        (true, plan) => {
            let mut object = inspect::json(&bundle);
            if let Some(plan) = plan {
                object["plan"] = plan.into();
            }
            format!("{object}\n")
        }
    })
}

fn open(path: &Path) -> Result<Bundle, CompileError> {
    expect_file(path)?;
    Bundle::open(path)
}

/// Says early and helpfully that there is nothing at `path`.
fn expect_file(path: &Path) -> Result<(), CompileError> {
    // Whatever else is wrong shows when it is opened.
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        _ => return Ok(()),
    }
    let missing = path.ancestors().skip(1).find(|p| !p.as_os_str().is_empty() && !p.exists());
    let problem = match (missing, similar(path)) {
        (Some(folder), _) => format!("no such file; there is no folder {}", folder.display()),
        (None, Some(other)) => format!("no such file; did you mean {}?", other.display()),
        (None, None) => "no such file".to_owned(),
    };
    Err(CompileError::Invalid { path: path.to_owned(), problem })
}

/// The file beside `path` whose name is most like its own, if any is.
fn similar(path: &Path) -> Option<PathBuf> {
    let wanted = path.file_name()?.to_string_lossy().to_lowercase();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let likeness = |name: &OsStr| strsim::jaro_winkler(&wanted, &name.to_string_lossy().to_lowercase());
    let names = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let best = names.map(|name| (likeness(&name), name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.85).then(|| path.with_file_name(best.1))
}
