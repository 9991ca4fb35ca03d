//! SentencePiece BPE (`llama` in metadata): tokens of text with scores, the space spelled as U+2581, and bytes for what
//! no token spells.
//!
//! SentencePiece merges the neighbours whose union has the highest score. `tokenizer.json` has merges in order instead;
//! they follow from the scores, as in transformers' `convert_slow_tokenizer.py` (`generate_merges`, `LlamaConverter`).

use super::metadata::Metadata;
use super::tokenizer::{TokenKind, Vocabulary, numbers};
use crate::error::CompileError;
use serde_json::{Value, json};
use std::collections::HashMap;

/// How a space is spelled.
const SPACE: &str = "\u{2581}";

/// Longest token that is taken apart, in bytes: each of its divisions is looked up.
const MAX_TOKEN: usize = 4096;

/// The `tokenizer.json`.
///
/// # Errors
/// Scores that are missing or no numbers, tokens that are too long, a setting that is not supported.
pub(super) fn tokenizer(
    metadata: &mut Metadata,
    vocabulary: &Vocabulary,
    unknown: Option<u64>,
) -> Result<Value, CompileError> {
    let key = "tokenizer.ggml.remove_extra_whitespaces";
    if metadata.bool(key)? == Some(true) {
        return Err(metadata
            .unsupported(key, "is true, which is not supported; use the model's safetensors checkpoint"));
    }
    let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let merges = merges(metadata, vocabulary)?;
    let unknown = unknown.and_then(|id| vocabulary.tokens.get(usize::try_from(id).ok()?).copied());
    let unknown = unknown
        .or(vocabulary.used().find(|(_, _, kind)| *kind == TokenKind::Unknown).map(|(_, token, _)| token));
    let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let normalizers = match prefix {
        true => vec![json!({"type": "Prepend", "prepend": SPACE}), space],
        false => vec![space],
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": vocabulary.post_processor(),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": vocabulary.kinds.contains(&TokenKind::Byte),
            "ignore_merges": false,
            "vocab": vocabulary.ids(),
            "merges": merges,
        },
    }))
}

/// One way to make a token of two.
struct Merge<'a> {
    score: f64,
    left: &'a str,
    right: &'a str,
    ids: (usize, usize),
}

/// Every division of every token into two others, by falling score.
fn merges(metadata: &mut Metadata, vocabulary: &Vocabulary) -> Result<Vec<Value>, CompileError> {
    let key = "tokenizer.ggml.scores";
    let list = metadata.array(key)?;
    let list = metadata.required(key, list)?;
    let scores = numbers(metadata, key, &list, vocabulary.tokens.len())?;
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        return Err(metadata.invalid(key, format!("says NaN of token {id}")));
    }
    // Merges neither make tokens of other kinds nor use them.
    let normal = || vocabulary.used().filter(|(_, _, kind)| *kind == TokenKind::Normal);
    let ids: HashMap<&str, usize> = normal().map(|(id, token, _)| (token, id)).collect();
    let mut merges = Vec::new();
    for (id, token, _) in normal() {
        if token.len() > MAX_TOKEN {
            let problem =
                format!("lists token {id} of {} bytes, expected no more than {MAX_TOKEN}", token.len());
            return Err(metadata.invalid("tokenizer.ggml.tokens", problem));
        }
        let first = merges.len();
        let divisions = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        merges.extend(divisions.filter_map(|(left, right)| {
            let ids = (*ids.get(left)?, *ids.get(right)?);
            Some(Merge { score: scores[id], left, right, ids })
        }));
        merges[first..].sort_by_key(|merge| merge.ids);
    }
    let chars = |text: &str| text.chars().count();
    merges.sort_by(|a, b| {
        let by_length = |merge: &Merge| (chars(merge.left), chars(merge.right));
        b.score.total_cmp(&a.score).then_with(|| by_length(b).cmp(&by_length(a)))
    });
    Ok(merges.into_iter().map(|merge| json!([merge.left, merge.right])).collect())
}
