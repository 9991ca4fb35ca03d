//! `trit-run tokenize`: the ids of a text, or the text of ids.

use crate::failure::{DONE, Failure, print, print_json};
use crate::{generate, mistaken, values};
use clap::Args;
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use trit_runtime::Texts;
use trit_runtime::text::Tokenizer;
use trit_runtime::text::printable::TerminalFilter;

#[derive(Debug, Args)]
pub struct Tokenize {
    /// The .trit bundle whose tokenizer it is.
    pub bundle: PathBuf,
    /// Text to tokenize [default: standard input, without its last line break].
    #[arg(allow_hyphen_values = true, conflicts_with_all = ["file", "decode"])]
    pub text: Option<String>,
    /// File with text to tokenize, without its last line break; - is standard input.
    #[arg(short, long, conflicts_with = "decode")]
    pub file: Option<PathBuf>,
    /// Print the text of these ids instead.
    #[arg(long, value_delimiter = ',', value_name = "1,2,3", allow_negative_numbers = true, value_parser = values::id)]
    pub decode: Option<Vec<u32>>,
    /// Add no special tokens around a text; leave those among ids out of theirs.
    #[arg(long)]
    pub no_special: bool,
    /// Print one JSON object with ids, their pieces of the vocabulary, and the text.
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ids: &'a [u32],
    /// As they stand in the vocabulary: bytes and spaces may be spelled with other characters there.
    pieces: Vec<String>,
    text: &'a str,
}

/// Runs the command. Ids are printed as `trit-run --ids` takes them.
pub fn run(args: &Tokenize) -> Result<u8, Failure> {
    let bundle = &args.bundle;
    mistaken::expect_bundle(bundle)?;
    let texts = Texts::open(bundle).map_err(|e| Failure::runtime(bundle, e))?;
    let missing =
        || Failure::usage(format_args!("{}: has no tokenizer and takes token ids only", bundle.display()));
    let failed = |e| Failure::text(bundle, e);
    let tokenizer = &texts.tokenizer().map_err(failed)?.ok_or_else(missing)?;
    let (ids, text) = match &args.decode {
        Some(ids) => {
            pieces(tokenizer, ids).map_err(|id| {
                Failure::usage(format_args!("{}: the vocabulary has no token {id}", bundle.display()))
            })?;
            (ids.clone(), tokenizer.decode(ids, args.no_special).map_err(failed)?)
        }
        None => {
            let text = match &args.text {
                Some(text) => text.clone(),
                None => generate::read_text(args.file.as_deref())?,
            };
            (tokenizer.encode(&text, !args.no_special).map_err(failed)?, text)
        }
    };
    if args.json {
        let pieces = pieces(tokenizer, &ids).map_err(|id| {
            Failure::internal(format_args!("the tokenizer gave {id}, which it does not have"))
        })?;
        print_json(&Report { ids: &ids, pieces, text: &text })?;
    } else if args.decode.is_some() {
        print_text(&text)?;
    } else {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        print(format_args!("{}\n", ids.join(",")))?;
    }
    Ok(DONE)
}

/// The tokens as they stand in the vocabulary, or the first id that has none.
fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Vec<String>, u32> {
    ids.iter().map(|&id| tokenizer.token_of(id).ok_or(id)).collect()
}

/// Prints text byte for byte. On a terminal, what a terminal would obey is made visible, and a line break follows.
///
/// # Errors
/// [`Failure::stdout`].
pub fn print_text(text: &str) -> Result<(), Failure> {
    match io::stdout().is_terminal() {
        true => print(format_args!("{}\n", TerminalFilter.piece(text))),
        false => print(text),
    }
}
