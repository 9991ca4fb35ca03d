//! `trit-run template`: the prompt that a bundle's chat template makes of messages.

use crate::failure::Failure;
use crate::tokenize::print_text;
use crate::{interrupt, mistaken};
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trit_runtime::Texts;
use trit_runtime::text::template::{TemplateInput, Value};

/// Larger files are no conversations that anybody had, in bytes.
const LARGEST: u64 = 64 << 20;

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
    messages: Value,
    tools: Option<Value>,
}

/// A file of tools that is no bare list.
#[derive(Deserialize)]
struct Tools {
    tools: Value,
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
    let input = TemplateInput {
        messages,
        tools,
        documents: None,
        add_generation_prompt: !args.no_generation_prompt,
        variables: Vec::new(),
    };
    let stoppable = interrupt::stoppable();
    let prompt = template.render_input(&input, &|| stoppable.requested());
    print_text(&prompt.map_err(failed)?)?;
    Ok(ExitCode::SUCCESS)
}

/// A JSON file: an object, or the list that is the most important of its members.
fn read<T: DeserializeOwned>(path: &Path, of_list: impl Fn(Value) -> T) -> Result<T, Failure> {
    let mut bytes = Vec::new();
    let (name, read) = if path == Path::new("-") {
        (Path::new("standard input"), io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes))
    } else {
        (path, File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)))
    };
    read.map_err(|e| Failure::invalid(name, e))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::invalid(
            name,
            format_args!("has more than {LARGEST} bytes, and no conversation has"),
        ));
    }
    // Some editors begin a file with a byte order mark.
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let parsed = match json.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(json).map(of_list),
        _ => serde_json::from_slice(json),
    };
    parsed.map_err(|e| {
        Failure::invalid(name, format_args!("is no list of this kind, nor an object with one: {e}"))
    })
}
