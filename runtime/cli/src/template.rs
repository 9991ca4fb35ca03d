//! `trit-run template`: the prompt that a bundle's chat template makes of messages.

use crate::failure::Failure;
use crate::tokenize::print_text;
use crate::{json_file, mistaken};
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trit_runtime::Texts;
use trit_runtime::text::template::Value;

#[derive(Debug, Args)]
pub struct Template {
    /// The .trit bundle whose chat template it is.
    pub bundle: PathBuf,
    /// JSON file with a list of messages, or {"messages": [...], "tools": [...]}; - is standard input.
    #[arg(long, value_name = "FILE.json")]
    pub messages: PathBuf,
    /// JSON file with a list of tools, or {"tools": [...]}.
    #[arg(long, value_name = "FILE.json")]
    pub tools: Option<PathBuf>,
    /// Do not end the prompt where the model is to answer.
    #[arg(long)]
    pub no_generation_prompt: bool,
}

/// A file of messages that is no bare list: what is sent to servers.
#[derive(Deserialize)]
struct Request {
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
}

/// A file of tools that is no bare list.
#[derive(Deserialize)]
struct Tools {
    tools: Vec<Value>,
}

/// Runs the command: prints the prompt byte for byte, without a line break of its own where that is no terminal.
pub fn run(args: &Template) -> Result<ExitCode, Failure> {
    let bundle = &args.bundle;
    mistaken::expect_bundle(bundle)?;
    let texts = Texts::open(bundle).map_err(|e| Failure::runtime(bundle, e))?;
    let failed = |e| Failure::text(bundle, e);
    let template = texts.chat_template().map_err(failed)?;
    let missing = || Failure::usage(format_args!("{}: has no chat template", bundle.display()));
    let template = template.ok_or_else(missing)?;
    let as_request = |messages| Request { messages, tools: None };
    let Request { messages, mut tools } = read(&args.messages, as_request)?;
    if let Some(path) = &args.tools {
        tools = Some(read(path, |tools| Tools { tools })?.tools);
    }
    print_text(&template.render_values(messages, tools, !args.no_generation_prompt).map_err(failed)?)?;
    Ok(ExitCode::SUCCESS)
}

/// A JSON file: an object, or the list that is the most important of its members.
fn read<T: DeserializeOwned>(path: &Path, of_list: impl Fn(Vec<Value>) -> T) -> Result<T, Failure> {
    let (name, bytes) = if path == Path::new("-") {
        (Path::new("standard input"), json_file::bytes(io::stdin().lock()))
    } else {
        (path, File::open(path).map_err(|e| e.to_string()).and_then(json_file::bytes))
    };
    let json = bytes.map_err(|e| Failure::invalid(name, e))?;
    let parsed = match json.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(&json).map(of_list),
        _ => serde_json::from_slice(&json),
    };
    parsed.map_err(|e| {
        Failure::invalid(name, format_args!("is no list of this kind, nor an object with one: {e}"))
    })
}
