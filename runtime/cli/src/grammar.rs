//! What an answer must be like: a JSON schema, a grammar or a regular expression that the user gave.

use crate::args::Generate;
use crate::failure::Failure;
use crate::json_file;
use clap::Args;
use std::fs::File;
use std::path::{Path, PathBuf};
use trit_runtime::Model;
use trit_runtime::generate::guide::{Guide, GuideError};
use trit_runtime::guide::{Grammar, GuideFactory};

/// What the answer must be like.
#[derive(Clone, Debug, Default, Args)]
pub struct GrammarArgs {
    /// Answer with JSON that fits the schema in this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["grammar", "regex"])]
    pub json_schema: Option<PathBuf>,
    /// Answer with a text of the grammar in this file, in Lark's notation, which begins with the rule `start`.
    #[arg(long, value_name = "FILE", conflicts_with = "regex")]
    pub grammar: Option<PathBuf>,
    /// Answer with a text that matches this regular expression as a whole.
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub regex: Option<String>,
    /// Before that, let the model say what it wants up to and including this text, such as the mark at the end of its thoughts.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub after: Option<String>,
}

/// Makes guides for answers.
pub struct Guides {
    factory: GuideFactory,
    grammar: Grammar,
    after: Option<String>,
}

impl Guides {
    /// What the user asked for; `None` where answers are free.
    ///
    /// # Errors
    /// An invalid input where a file cannot be read, or what it holds cannot be followed.
    pub fn new(args: &Generate, model: &Model) -> Result<Option<Guides>, Failure> {
        let GrammarArgs { json_schema, grammar, regex, after } = &args.grammar;
        let bundle = model.path();
        let (grammar, source) = if let Some(file) = json_schema {
            let read = File::open(file).map_err(|e| e.to_string()).and_then(json_file::bytes);
            let read = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()));
            (Grammar::JsonSchema(read.map_err(|e| Failure::invalid(file, e))?), file.as_path())
        } else if let Some(file) = grammar {
            let read = std::fs::read_to_string(file).map_err(|e| Failure::invalid(file, e))?;
            (Grammar::Lark(read), file.as_path())
        } else if let Some(regex) = regex {
            (Grammar::Regex(regex.clone()), Path::new("--regex"))
        } else if after.is_some() {
            return Err(Failure::usage(
                "--after needs --json-schema, --grammar or --regex, which say what follows",
            ));
        } else {
            return Ok(None);
        };
        let factory = GuideFactory::new(model).map_err(|e| Failure::invalid(bundle, e))?;
        let guides = Guides { factory, grammar, after: after.clone() };
        // What is wrong with a grammar is said before anything runs.
        guides.guide().map_err(|e| Failure::invalid(source, e))?;
        Ok(Some(guides))
    }

    /// A guide for the next answer.
    ///
    /// # Errors
    /// As [`GuideFactory::guide`].
    pub fn guide(&self) -> Result<Box<dyn Guide>, GuideError> {
        self.factory.guide(&self.grammar, self.after.as_deref())
    }
}
