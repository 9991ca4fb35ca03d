//! `tritc inspect`, on bundles and on checkpoints.

use crate::bar::Bar;
use crate::cli::Inspect;
use crate::commands::path::{expect_file, is_bundle, is_checkpoint};
use crate::commands::{Failure, json_line, load_options, open};
use std::path::Path;
use tritc::ingest;
use tritc::{CompileError, inspect, survey, trust};

pub fn run(arguments: &Inspect) -> Result<String, Failure> {
    let path = &arguments.path;
    expect_file(path)?;
    match (is_bundle(path), is_checkpoint(path)) {
        (false, true) => checkpoint(arguments),
        (true, _) => Ok(bundle(arguments)?),
        // Named like a bundle: what is wrong with it shows when it is opened.
        _ if path.extension().is_some_and(|extension| extension == "trit") => Ok(bundle(arguments)?),
        (false, false) => Err(neither(path).into()),
    }
}

fn bundle(arguments: &Inspect) -> Result<String, CompileError> {
    trust::check_environment()?;
    let bundle = open(&arguments.path)?;
    let plan = arguments.plan.then(|| trit_format::text::plan(bundle.manifest()));
    Ok(match (arguments.json, plan) {
        (false, None) => inspect::describe(&bundle),
        (false, Some(plan)) => plan,
        (true, plan) => {
            let mut object = inspect::json(&bundle);
            if let Some(plan) = plan {
                object["plan"] = plan.into();
            }
            json_line(&object)
        }
    })
}

/// What is known of a checkpoint goes to standard output even where it is refused in the end.
fn checkpoint(arguments: &Inspect) -> Result<String, Failure> {
    let path = &arguments.path;
    if arguments.plan {
        let problem =
            format!("--plan: {} is a checkpoint; only a bundle has a plan, compile it first", path.display());
        return Err(CompileError::Usage(problem).into());
    }
    let bar = Bar::new(false, &trit_text::output::Unfinished::default());
    let mut survey = ingest::survey(path, &load_options(&arguments.reading));
    drop(bar);
    let text = match arguments.json {
        true => json_line(&survey::json(&survey)),
        false => survey::describe(&survey),
    };
    match survey.refusal.take() {
        None => Ok(text),
        Some(error) => Err(Failure { error, text }),
    }
}

fn neither(path: &Path) -> CompileError {
    let problem = "is neither a bundle nor a checkpoint; give a .trit file, a model's directory, model.safetensors, \
                   model.safetensors.index.json or a GGUF file";
    CompileError::Unsupported { path: path.to_owned(), problem: problem.to_owned() }
}
