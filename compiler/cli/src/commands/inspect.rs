//! `tritc inspect`, on bundles and on checkpoints.

use crate::arguments::Inspect;
use crate::bar::Bar;
use crate::commands::path::expect_file;
use crate::commands::{json_line, load_options, open};
use crate::failure::{CommandError, Failure};
use crate::words;
use serde_json::json;
use std::path::Path;
use tritc::bundle::{is_bundle, trust};
use tritc::inspect::{self, survey};
use tritc::load::{self, is_checkpoint};

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

fn bundle(arguments: &Inspect) -> Result<String, CommandError> {
    trust::check_environment()?;
    let bundle = open(&arguments.path)?;
    let draft = || bundle.draft().map(|draft| format!("\ndraft\n{}", trit_format::text::plan(draft)));
    let plan =
        arguments.plan.then(|| trit_format::text::plan(bundle.manifest()) + &draft().unwrap_or_default());
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
        return Err(CommandError::Usage(problem).into());
    }
    let bar = Bar::new(false, &trit_text::output::Unfinished::default());
    let mut survey = load::survey(path, &load_options(&arguments.reading));
    drop(bar);
    let text = match arguments.json {
        true => {
            let mut object = survey::json(&survey);
            object["warnings"] = survey.warnings.iter().map(words::warning).collect();
            object["refused"] = match &survey.refusal {
                None => serde_json::Value::Null,
                Some(error) => {
                    json!({ "message": words::message(error), "exit_code": words::exit_code(error) })
                }
            };
            json_line(&object)
        }
        false => survey::describe(&survey, words::warning),
    };
    match survey.refusal.take() {
        None => Ok(text),
        Some(error) => Err(Failure { error: Box::new(error.into()), text }),
    }
}

fn neither(path: &Path) -> CommandError {
    let problem = "is neither a bundle nor a checkpoint; give a .trit file, a model's directory, model.safetensors, \
                   model.safetensors.index.json or a GGUF file";
    CommandError::WrongFile { path: path.to_owned(), problem: problem.to_owned() }
}
