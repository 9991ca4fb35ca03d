//! Byte-level BPE (`gpt2` in metadata): tokens of bytes, spelled with one character each, and merges in order.

use super::metadata::Metadata;
use super::tokenizer::Vocabulary;
use crate::error::{CompileError, Warnings};
use serde_json::{Value, json};
use std::collections::HashSet;

/// How text is split before merges apply, `tokenizer.ggml.pre`. Metadata has a name only; the patterns are those of the
/// tokenizers that llama.cpp knows by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Splitter {
    /// Llama 3, and Falcon 3: words, up to three digits.
    Llama3,
    /// Qwen 2 and 3: words, single digits; text is composed (NFC).
    Qwen2,
    /// Qwen 3.5: the same, but words may have combining marks.
    Qwen35,
    /// GPT-2: words, digits.
    Gpt2,
    /// SmolLM, StarCoder: GPT-2 with single digits.
    SingleDigits,
    /// What llama.cpp does with files that say nothing better.
    Default,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Splitter {
    /// Takes `tokenizer.ggml.pre`.
    ///
    /// # Errors
    /// A name that is not known: the ids of texts depend on it.
    pub(super) fn take(
        metadata: &mut Metadata,
        vocabulary: &Vocabulary,
        warnings: &mut Warnings,
    ) -> Result<Splitter, CompileError> {
        let key = "tokenizer.ggml.pre";
        let Some(name) = metadata.text(key)? else {
            // Microsoft's file of BitNet b1.58 2B-4T has Llama 3's tokenizer and does not say so.
            if vocabulary.id("<|begin_of_text|>").is_some() && vocabulary.id("<|eot_id|>").is_some() {
                warnings.push(format!(
                    "metadata key {key} is missing; the tokenizer is taken for Llama 3's, whose special tokens it has"
                ));
                return Ok(Splitter::Llama3);
            }
            return Err(metadata.invalid(
                key,
                "is missing, and the ids of texts depend on it; convert the model again, or use its safetensors \
                 checkpoint",
            ));
        };
        Ok(match name.as_str() {
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" => Splitter::Llama3,
            "qwen2" | "deepseek-r1-qwen" | "megrez" => Splitter::Qwen2,
            "qwen35" => Splitter::Qwen35,
            "gpt-2" | "phi-2" | "mpt" | "olmo" => Splitter::Gpt2,
            "smollm" | "starcoder" | "refact" => Splitter::SingleDigits,
            "default" => Splitter::Default,
            _ => {
                return Err(metadata.unsupported(
                    key,
                    format!(
                        "is {name:?}, which is not known, and the ids of texts depend on it (known are llama-bpe, \
                         falcon3, qwen2, qwen35, gpt-2, smollm, default and a few of the same); use the model's safetensors \
                         checkpoint, which has its tokenizer.json"
                    ),
                ));
            }
        })
    }

    /// Whether texts start with the bos token where metadata does not say.
    pub(super) fn adds_bos(self) -> bool {
        self == Splitter::Llama3
    }

    fn normalizer(self) -> Value {
        match self {
            Splitter::Qwen2 | Splitter::Qwen35 => json!({"type": "NFC"}),
            _ => Value::Null,
        }
    }

    fn pre_tokenizer(self) -> Value {
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        // GPT-2's own pattern comes with the last step.
        let bytes = |with_pattern: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": with_pattern});
        let steps = match self {
            Splitter::Llama3 => vec![split(LLAMA3), bytes(false)],
            Splitter::Qwen2 => vec![split(QWEN2), bytes(false)],
            Splitter::Qwen35 => vec![split(QWEN35), bytes(false)],
            Splitter::Gpt2 => vec![bytes(true)],
            Splitter::SingleDigits => vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)],
            Splitter::Default => vec![
                split(r"[\p{P}\$\+<=>\^~\|]+"),
                split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
                split(r"\p{N}+"),
                split("[0-9][0-9][0-9]"),
                bytes(false),
            ],
        };
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

/// The `tokenizer.json`.
///
/// # Errors
/// Merges that are missing, or of tokens that are not there.
pub(super) fn tokenizer(
    metadata: &mut Metadata,
    vocabulary: &Vocabulary,
    splitter: Splitter,
) -> Result<Value, CompileError> {
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": splitter.normalizer(),
        "pre_tokenizer": splitter.pre_tokenizer(),
        "post_processor": vocabulary.post_processor(),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            // Llama 3 takes a word that is a token as it is, whether or not merges lead to it.
            "ignore_merges": splitter == Splitter::Llama3,
            "vocab": vocabulary.ids(),
            "merges": merges(metadata, vocabulary)?,
        },
    }))
}

fn merges(metadata: &mut Metadata, vocabulary: &Vocabulary) -> Result<Vec<Value>, CompileError> {
    let key = "tokenizer.ggml.merges";
    let list = metadata.array(key)?;
    let list = metadata.required(key, list)?;
    let lines = list.strings().map_err(|e| metadata.invalid(key, e))?;
    let tokens: HashSet<&str> = vocabulary.used().map(|(_, token, _)| token).collect();
    let mut merges = Vec::with_capacity(lines.len());
    for (index, line) in lines.into_iter().enumerate() {
        // Tokens spell a space as another character, so that the first space divides the two.
        let pair = line.split_once(' ').filter(|(left, right)| {
            tokens.contains(left)
                && tokens.contains(right)
                && tokens.contains(format!("{left}{right}").as_str())
        });
        let Some((left, right)) = pair else {
            let problem =
                format!("holds {line:?} as merge {index}, which is not of two tokens that make a third");
            return Err(metadata.invalid(key, problem));
        };
        merges.push(json!([left, right]));
    }
    Ok(merges)
}
