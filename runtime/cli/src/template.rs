//! `trit-run template`: the prompt that a bundle's chat template makes of messages.

use crate::failure::{DONE, Failure};
use crate::tokenize::print_text;
use crate::{interrupt, json_file, mistaken};
use clap::Args;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use trit_runtime::Texts;
use trit_runtime::text::template::{TemplateInput, Value};

#[derive(Debug, Args)]
pub struct Template {
    /// The .trit bundle whose chat template it is.
    pub bundle: PathBuf,
    /// JSON file with a list of messages, or an object with "messages" and perhaps "tools", "documents",
    /// "add_generation_prompt" and "chat_template_kwargs"; - is standard input.
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
    messages: List,
    tools: Option<List>,
    documents: Option<List>,
    add_generation_prompt: Option<bool>,
    /// Further variables of the template, such as `enable_thinking`.
    chat_template_kwargs: Option<BTreeMap<String, Value>>,
}

/// A file of tools that is no bare list.
#[derive(Deserialize)]
struct Tools {
    tools: List,
}

/// A value that is a list.
struct List(Value);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List, D::Error> {
        deserializer.deserialize_seq(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<List, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(items)).map(List)
    }
}

/// Runs the command: prints the prompt byte for byte, without a line break of its own where that is no terminal.
pub fn run(args: &Template) -> Result<u8, Failure> {
    let bundle = &args.bundle;
    mistaken::expect_bundle(bundle)?;
    let texts = Texts::open(bundle).map_err(|e| Failure::runtime(bundle, e))?;
    let failed = |e| Failure::text(bundle, e);
    let template = texts.chat_template().map_err(failed)?;
    let missing = || Failure::usage(format_args!("{}: has no chat template", bundle.display()));
    let template = template.ok_or_else(missing)?;
    let as_request = |messages| Request {
        messages,
        tools: None,
        documents: None,
        add_generation_prompt: None,
        chat_template_kwargs: None,
    };
    let request = read(&args.messages, as_request)?;
    let tools = match &args.tools {
        Some(path) => Some(read(path, |tools| Tools { tools })?.tools),
        None => request.tools,
    };
    let input = TemplateInput {
        messages: request.messages.0,
        tools: tools.map(|list| list.0),
        documents: request.documents.map(|list| list.0),
        add_generation_prompt: !args.no_generation_prompt && request.add_generation_prompt.unwrap_or(true),
        variables: request.chat_template_kwargs.unwrap_or_default().into_iter().collect(),
    };
    let stoppable = interrupt::stoppable();
    let prompt = template.render_input(&input, &|| stoppable.requested());
    print_text(&prompt.map_err(failed)?)?;
    Ok(DONE)
}

/// A JSON file: an object, or the list that is the most important of its members.
fn read<T: DeserializeOwned>(path: &Path, of_list: impl Fn(List) -> T) -> Result<T, Failure> {
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
