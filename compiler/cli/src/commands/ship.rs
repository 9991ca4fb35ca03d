//! What is done to a bundle before it goes to others: other targets, signatures, programs of one file.

use crate::arguments::{EmitOption, Retarget};
use crate::bar::Bar;
use crate::commands::path::expect_file;
use crate::commands::{check_output, json_line, open, stub, warn};
use crate::failure::CommandError;
use serde_json::json;
use std::path::{Path, PathBuf};
use trit_format::signature::beside;
use trit_text::output::Unfinished;
use tritc::bundle::{program, sign as keys, trust};
use tritc::compile::retarget::targets_of;
use tritc::compile::{retarget, targets};
use tritc::inspect::size;

/// `tritc retarget`.
pub fn retarget(arguments: &Retarget, unfinished: &Unfinished) -> Result<String, CommandError> {
    trust::check_environment()?;
    let bundle = open(&arguments.bundle)?;
    let targets = match arguments.target.is_empty() {
        true => targets_of(&bundle),
        false => targets::resolve(&arguments.target)?,
    };
    let stub = stub(&arguments.emitting, &targets)?;
    let out = match (&arguments.output, arguments.emitting.emit) {
        (Some(out), _) => out.clone(),
        (None, EmitOption::Exe) if bundle.is_program() => arguments.bundle.clone(),
        (None, EmitOption::Exe) => arguments.bundle.with_extension(""),
        (None, EmitOption::Bundle) if bundle.is_program() => arguments.bundle.with_extension("trit"),
        (None, EmitOption::Bundle) => arguments.bundle.clone(),
    };
    check_output(&out, stub.as_ref())?;
    // Its signature would be of another bundle.
    let signature = beside(&out);
    if stub.is_none() && signature.symlink_metadata().is_ok() {
        return Err(CommandError::Usage(format!(
            "{}: is signed, and {} would not fit the new bundle; name another file with -o, or remove the signature and sign \
             the new bundle",
            out.display(),
            signature.display()
        )));
    }
    let was_signed = bundle.signature()?.is_some();
    let bar = Bar::new(false, unfinished);
    let made = retarget::retarget(&bundle, &out, stub.as_ref(), &targets, &bar)?;
    drop(bar);
    if was_signed {
        warn(&format!("{}: is not signed, as the bundle was that it was made of", out.display()));
    }
    let trusted = trust::record(&made.fingerprint);
    if let Err(problem) = &trusted {
        warn(&format!("{}: cannot be recorded as trusted ({problem})", out.display()));
    }
    let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
    Ok(match arguments.json {
        true => json_line(&json!({
            "bundle": out.display().to_string(),
            "bytes": made.bytes(),
            "fingerprint": made.fingerprint,
            "trusted": trusted.is_ok(),
            "targets": names,
            "kernels": made.kernels,
        })),
        false => {
            let for_what = if names.is_empty() { "portable".to_owned() } else { names.join(", ") };
            format!("{}: {}, {} kernels for {for_what}\n", out.display(), size(made.bytes()), made.kernels)
        }
    })
}

/// `tritc extract`.
pub fn extract(
    program: &Path,
    output: Option<PathBuf>,
    unfinished: &Unfinished,
) -> Result<String, CommandError> {
    let bundle = open(program)?;
    let out = output.unwrap_or_else(|| program.with_extension("trit"));
    program::extract(&bundle, &out, unfinished)?;
    let signed = if bundle.signature()?.is_some() { ", with its signature beside it" } else { "" };
    Ok(format!("{}: {}{signed}\n", out.display(), size(bundle.bytes().len() as u64)))
}

/// `tritc keygen`.
pub fn keygen(path: &Path, unfinished: &Unfinished) -> Result<String, CommandError> {
    let key = keys::keygen(path, unfinished)?;
    let public = keys::public_file(path);
    Ok(format!(
        "{}: the private key; keep it to yourself\n{}: the public key, {key}\n",
        path.display(),
        public.display()
    ))
}

/// `tritc sign`.
pub fn sign(bundle: &Path, key: &Path, unfinished: &Unfinished) -> Result<String, CommandError> {
    expect_file(key)?;
    let (public, out) = keys::sign(&open(bundle)?, key, unfinished)?;
    Ok(format!("{}: signed by {public}\n", out.display()))
}
