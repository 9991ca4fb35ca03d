//! `trit-run template`: the prompt that a bundle's chat template makes of messages.

use crate::failure::{DONE, Failure};
use crate::tokenize::print_text;
use crate::{interrupt, json_file, mistaken};
use clap::Args;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use trit_runtime::Texts;
use trit_runtime::text::TemplateInput;

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

/// Runs the command: prints the prompt byte for byte, without a line break of its own where that is no terminal.
pub fn run(args: &Template) -> Result<u8, Failure> {
    let bundle = &args.bundle;
    mistaken::expect_bundle(bundle)?;
    let texts = Texts::open(bundle).map_err(|e| Failure::runtime(bundle, e))?;
    let failed = |e| Failure::text(bundle, e);
    let template = texts.chat_template().map_err(failed)?;
    let missing = || Failure::usage(format_args!("{}: has no chat template", bundle.display()));
    let template = template.ok_or_else(missing)?;
    let mut input = read(&args.messages, TemplateInput::from_json)?;
    if let Some(path) = &args.tools {
        input.tools = Some(read(path, TemplateInput::tools_from_json)?);
    }
    input.add_generation_prompt &= !args.no_generation_prompt;
    let stoppable = interrupt::stoppable();
    let prompt = template.render_input(&input, &|| stoppable.requested());
    print_text(&prompt.map_err(failed)?)?;
    Ok(DONE)
}

/// What `parse` makes of a JSON file.
fn read<T>(path: &Path, parse: impl Fn(&[u8]) -> Result<T, serde_json::Error>) -> Result<T, Failure> {
    let (name, bytes) = if path == Path::new("-") {
        (Path::new("standard input"), json_file::bytes(io::stdin().lock()))
    } else {
        (path, File::open(path).map_err(|e| e.to_string()).and_then(json_file::bytes))
    };
    let json = bytes.map_err(|e| Failure::invalid(name, e))?;
    parse(&json).map_err(|e| {
        Failure::invalid(name, format_args!("is no list of this kind, nor an object with one: {e}"))
    })
}
