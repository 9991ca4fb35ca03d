//! Byte-level BPE (`gpt2` in metadata): tokens of bytes, spelled with one character each, and merges in order.

use super::metadata::Metadata;
use super::patterns;
use super::tokenizer::Vocabulary;
use crate::error::{CompileError, Warnings};
use serde_json::{Value, json};
use std::collections::HashSet;

/// How text is split before merges apply, `tokenizer.ggml.pre`. Metadata has a name only; the patterns are those of the
/// tokenizers that llama.cpp knows by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Splitter {
    /// Llama 3, Falcon 3 and Falcon-E: words, up to three digits.
    Llama3,
    /// Qwen 2 and 3: words, single digits; text is composed (NFC).
    Qwen2,
    /// Qwen 3.5: the same, but words may have combining marks.
    Qwen35,
    /// MiniCPM 5: Llama 3 with digits first.
    Minicpm5,
    /// GPT-4o: words that begin anew at capitals, up to three digits.
    Gpt4o,
    /// Tekken: words that begin anew at capitals, single digits.
    Tekken,
    /// GPT-2: words, digits.
    Gpt2,
    /// SmolLM, StarCoder, Command R: GPT-2 with single digits.
    SingleDigits,
    /// The first Falcon: punctuation apart, three digits.
    Falcon,
    DeepseekLlm,
    DeepseekCoder,
    /// DeepSeek V3, Hunyuan's dense models: up to three digits, East Asian text, words with one sign before them.
    DeepseekV3,
    /// What llama.cpp does with files that say nothing better.
    Default,
}

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
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon_e" | "falcon-h1" => Splitter::Llama3,
            "qwen2" | "deepseek-r1-qwen" | "megrez" => Splitter::Qwen2,
            "qwen35" => Splitter::Qwen35,
            "minicpm5" => Splitter::Minicpm5,
            "gpt-4o" => Splitter::Gpt4o,
            "tekken" => Splitter::Tekken,
            "falcon" => Splitter::Falcon,
            "deepseek-llm" => Splitter::DeepseekLlm,
            "deepseek-coder" => Splitter::DeepseekCoder,
            "deepseek-v3" | "hunyuan-dense" => Splitter::DeepseekV3,
            "gpt-2" | "phi-2" | "mpt" | "olmo" => Splitter::Gpt2,
            "smollm" | "starcoder" | "refact" | "command-r" => Splitter::SingleDigits,
            "default" => Splitter::Default,
            _ => {
                return Err(metadata.unsupported(
                    key,
                    format!(
                        "is {name:?}, which is not known, and the ids of texts depend on it (known are llama-bpe, \
                         falcon, falcon3, falcon_e, qwen2, qwen35, minicpm5, gpt-2, gpt-4o, tekken, command-r, smollm, \
                         deepseek-llm, deepseek-coder, deepseek-v3, hunyuan-dense, default and a few of the same); use the model's safetensors \
                         checkpoint, which has its tokenizer.json"
                    ),
                ));
            }
        })
    }

    /// Whether texts start with the bos token where metadata does not say.
    pub(super) fn adds_bos(self) -> bool {
        matches!(self, Splitter::Llama3 | Splitter::Tekken)
    }

    /// Whether a word that is a token is taken as it is, whether or not merges lead to it.
    fn ignores_merges(self) -> bool {
        matches!(self, Splitter::Llama3 | Splitter::Tekken | Splitter::Minicpm5)
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
        let patterns: &[&str] = match self {
            Splitter::Llama3 => &[patterns::LLAMA3],
            Splitter::Qwen2 => &[patterns::QWEN2],
            Splitter::Qwen35 => &[patterns::QWEN35],
            Splitter::Minicpm5 => &patterns::MINICPM5,
            Splitter::Gpt4o => &[patterns::GPT4O],
            Splitter::Tekken => &[patterns::TEKKEN],
            Splitter::Falcon => &patterns::FALCON,
            Splitter::DeepseekLlm => &patterns::DEEPSEEK_LLM,
            Splitter::DeepseekCoder => &patterns::DEEPSEEK_CODER,
            Splitter::DeepseekV3 => &patterns::DEEPSEEK_V3,
            Splitter::Default => &patterns::DEFAULT,
            Splitter::Gpt2 | Splitter::SingleDigits => &[],
        };
        let mut steps: Vec<Value> = patterns.iter().map(|pattern| split(pattern)).collect();
        if self == Splitter::SingleDigits {
            steps.push(json!({"type": "Digits", "individual_digits": true}));
        }
        steps.push(bytes(patterns.is_empty()));
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
            "ignore_merges": splitter.ignores_merges(),
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
