//! `trit-run perplexity`: how well the model predicts a text.

use crate::args::Perplexity;
use crate::failure::{DONE, Failure, print, print_json};
use crate::open;
use serde::{Deserialize, Serialize};
use std::path::Path;
use trit_runtime::{Model, perplexity};

/// What `--ids` reads.
#[derive(Debug, Deserialize)]
struct IdsFile {
    ids: Vec<u32>,
    /// Tokens of a window; by default as long as the context.
    window: Option<usize>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    /// Sum of negative log-likelihoods, in nats.
    nll_sum: f64,
    /// Tokens that were predicted.
    tokens: u64,
    /// `exp(nll_sum / tokens)`.
    ppl: f64,
}

/// Scores windows independently; the first token of each is given.
pub fn run(args: &Perplexity) -> Result<u8, Failure> {
    let model = open::model(&args.bundle, &args.session.load, false)?;
    let (file, IdsFile { ids, window }) = input(args, &model)?;
    let mut session = open::session(&model, &args.session)?;
    let context = session.context_length();
    let window = window.unwrap_or(context);
    if window < 2 || window > context {
        let problem =
            format_args!("a window of {window} tokens is not possible; the context takes 2 to {context}");
        return Err(Failure::invalid(file, problem));
    }
    let vocab = model.manifest().hyperparameters.vocab_size;
    if let Some(id) = ids.iter().find(|&&id| id >= vocab) {
        return Err(Failure::invalid(
            file,
            format_args!("token id {id} is outside the vocabulary of {vocab}"),
        ));
    }
    if ids.len() < 2 {
        return Err(Failure::invalid(file, "has fewer than two tokens; there is nothing to predict"));
    }
    let progress = open::progress(ids.len() as u64, "perplexity");
    let score = perplexity::score(&mut session, &ids, window, &mut |done| progress.set_position(done as u64));
    let score = score.map_err(|e| Failure::runtime(&args.bundle, e))?;
    progress.finish_and_clear();
    open::tell_widened(session.widened());
    let report = Report { nll_sum: score.nll_sum, tokens: score.tokens, ppl: score.perplexity() };
    if !report.ppl.is_finite() {
        let problem =
            "the text is too improbable for this model: its perplexity is no number that f64 can hold";
        return Err(Failure::invalid(&args.bundle, problem));
    }
    if args.json {
        print_json(&report)?;
    } else {
        let Report { nll_sum, tokens, ppl } = report;
        let mean = nll_sum / tokens as f64;
        print(format_args!("perplexity {ppl:.4}, {mean:.5} nats a token over {tokens} tokens\n"))?;
    }
    Ok(DONE)
}

/// The ids to score, and the file they are from.
fn input<'a>(args: &'a Perplexity, model: &Model) -> Result<(&'a Path, IdsFile), Failure> {
    let file = args.file.as_deref().or(args.ids.as_deref());
    let file = file.ok_or_else(|| Failure::usage("give --file or --ids"))?;
    let bytes = std::fs::read(file).map_err(|e| Failure::invalid(file, e))?;
    if args.ids.is_some() {
        let ids = serde_json::from_slice(&bytes);
        let expected =
            |e| Failure::invalid(file, format_args!(r#"is not {{"ids": [...], "window": N}}: {e}"#));
        return ids.map(|ids| (file, ids)).map_err(expected);
    }
    let text =
        String::from_utf8(bytes).map_err(|e| Failure::invalid(file, format_args!("is no text: {e}")))?;
    let tokenizer = open::tokenizer(model, "--ids")?;
    let ids = tokenizer.encode(&text, true).map_err(|e| Failure::text(&args.bundle, e))?;
    Ok((file, IdsFile { ids, window: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_files_need_ids_but_no_window() {
        assert!(serde_json::from_str::<IdsFile>(r#"{"ids":[1,2]}"#).unwrap().window.is_none());
        assert!(serde_json::from_str::<IdsFile>(r#"{"window":4}"#).is_err());
        assert!(serde_json::from_str::<IdsFile>(r#"{"ids":[-1]}"#).is_err());
    }
}
