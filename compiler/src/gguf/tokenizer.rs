//! The tokenizer in metadata becomes a `tokenizer.json`, as the model's checkpoint would have.

use super::bpe;
use super::metadata::Metadata;
use super::sentencepiece;
use super::template;
use super::value::Array;
use crate::error::{CompileError, Warnings};
use serde_json::{Map, Value, json};

/// Tokens that end a turn or a text, by the names they have in the models that use them.
const ENDS: [&str; 11] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<EOT>",
    "</s>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// What metadata says about text.
#[derive(Default)]
pub(super) struct TextMetadata {
    /// Bytes of a `tokenizer.json`; `None` where the file has no vocabulary.
    pub(super) tokenizer: Option<Vec<u8>>,
    /// As `tokenizer_config.json`: special tokens and the chat template.
    pub(super) config: Map<String, Value>,
    /// Tokens that end generation, by id.
    pub(super) stop: Vec<u64>,
    pub(super) bos: Option<u64>,
}

/// Types of tokens, by their numbers in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Normal,
    Unknown,
    /// Stands for no text: the start, the end of a turn.
    Control,
    /// Text that is never split.
    UserDefined,
    /// Fills up the vocabulary.
    Unused,
    /// One byte of a text that no other tokens make up.
    Byte,
}

/// The vocabulary and what is added to every text.
pub(super) struct Vocabulary<'a> {
    pub(super) tokens: Vec<&'a str>,
    pub(super) kinds: Vec<TokenKind>,
    /// The token before every text, by id.
    pub(super) before: Option<u64>,
    /// The token after every text, by id.
    pub(super) after: Option<u64>,
}

impl Vocabulary<'_> {
    /// The id of the first token that is `text`.
    pub(super) fn id(&self, text: &str) -> Option<u64> {
        self.tokens.iter().position(|token| *token == text).map(|id| id as u64)
    }

    /// The tokens that can be in a text, with their ids.
    pub(super) fn used(&self) -> impl Iterator<Item = (usize, &str, TokenKind)> {
        let tokens = self.tokens.iter().zip(&self.kinds).enumerate();
        tokens
            .filter(|(_, (_, kind))| **kind != TokenKind::Unused)
            .map(|(id, (token, kind))| (id, *token, *kind))
    }

    /// Some files type special tokens as ordinary text. This makes tokens of that kind unsplittable: those that end a
    /// turn, by name, and those in the chat template that look like tokens. Otherwise a rendered conversation would
    /// be split inside them.
    fn correct(&mut self, template: &str, warnings: &mut Warnings) {
        let mut corrected = Vec::new();
        for (token, kind) in
            self.tokens.iter().zip(&mut self.kinds).filter(|(_, kind)| **kind == TokenKind::Normal)
        {
            let marked = |open: &str, close: &str| {
                token.len() > open.len() + close.len() && token.starts_with(open) && token.ends_with(close)
            };
            let control = marked("<|", "|>") || marked("<\u{ff5c}", "\u{ff5c}>");
            *kind = match (ENDS.contains(token), template.contains(token)) {
                (true, _) => TokenKind::Control,
                (false, true) if control => TokenKind::Control,
                // Other words in brackets may be meant as text.
                (false, true) if marked("<", ">") || marked("[", "]") => TokenKind::UserDefined,
                _ => continue,
            };
            corrected.push(format!("{token:?}"));
        }
        if !corrected.is_empty() {
            warnings.push(format!(
                "metadata key tokenizer.ggml.token_type says that {} are ordinary text; they are taken for tokens that \
                 are never split, by their names and the chat template",
                corrected.join(", ")
            ));
        }
    }

    /// `vocab` of a `tokenizer.json`.
    pub(super) fn ids(&self) -> Map<String, Value> {
        self.used().map(|(id, token, _)| (token.to_owned(), id.into())).collect()
    }

    /// `added_tokens`: a text is split at these first.
    pub(super) fn added(&self) -> Vec<Value> {
        let added = self.used().filter(|(_, _, kind)| {
            matches!(kind, TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown)
        });
        added
            .map(|(id, token, kind)| {
                json!({
                    "id": id, "content": token, "special": kind != TokenKind::UserDefined, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false,
                })
            })
            .collect()
    }

    /// `post_processor`: the tokens before and after every text.
    pub(super) fn post_processor(&self) -> Value {
        let (mut template, mut special) = (Vec::new(), Map::new());
        let mut add = |id: Option<u64>| {
            let id = id?;
            let token = *self.tokens.get(usize::try_from(id).ok()?)?;
            special.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
            Some(json!({"SpecialToken": {"id": token, "type_id": 0}}))
        };
        let (before, after) = (add(self.before), add(self.after));
        template.extend(before);
        template.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        template.extend(after);
        if special.is_empty() {
            return Value::Null;
        }
        let mut pair = template.clone();
        pair.push(json!({"Sequence": {"id": "B", "type_id": 1}}));
        json!({"type": "TemplateProcessing", "single": template, "pair": pair, "special_tokens": special})
    }
}

/// Takes every key of the tokenizer. `vocab_size` is that of the embedding.
///
/// # Errors
/// A kind of tokenizer or of splitting that is not known, and lists that do not go together, by key and index.
pub(super) fn text(
    metadata: &mut Metadata,
    vocab_size: usize,
    warnings: &mut Warnings,
) -> Result<TextMetadata, CompileError> {
    let model = metadata.text("tokenizer.ggml.model")?;
    let list = metadata.array("tokenizer.ggml.tokens")?;
    let (Some(model), Some(list)) = (model, list) else {
        return Ok(TextMetadata::default());
    };
    let key = "tokenizer.ggml.tokens";
    // Padding may lie beyond the table. No other token may, because texts could contain it.
    if list.len() > vocab_size + (vocab_size / 16).max(256) {
        let problem = format!("lists {} tokens, but token_embd.weight has {vocab_size} rows", list.len());
        return Err(metadata.invalid(key, problem));
    }
    let tokens = list.strings().map_err(|e| metadata.invalid(key, e))?;
    let kinds = kinds(metadata, tokens.len())?;
    let mut vocabulary = Vocabulary { tokens, kinds, before: None, after: None };
    refuse_twins(metadata, &vocabulary)?;
    let ids = SpecialIds::take(metadata, vocabulary.tokens.len(), warnings)?;
    let template = template::chat_template(metadata, &vocabulary, warnings)?;
    // Some converters write every token as normal. Without this, special tokens would then be split like any text.
    for id in ids.stop().into_iter().chain(ids.bos) {
        let kind = usize::try_from(id).ok().and_then(|id| vocabulary.kinds.get_mut(id));
        kind.into_iter()
            .filter(|kind| **kind == TokenKind::Normal)
            .for_each(|kind| *kind = TokenKind::Control);
    }
    vocabulary.correct(template.as_deref().unwrap_or_default(), warnings);
    let add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?;
    let add_eos = metadata.bool("tokenizer.ggml.add_eos_token")?;
    vocabulary.after = ids.eos.filter(|_| add_eos == Some(true));
    let json = match model.as_str() {
        "gpt2" => {
            let splitter = bpe::Splitter::take(metadata, &vocabulary, warnings)?;
            vocabulary.before = ids.first(metadata, add_bos.unwrap_or(splitter.adds_bos()))?;
            bpe::tokenizer(metadata, &vocabulary, splitter)?
        }
        "llama" => {
            vocabulary.before = ids.first(metadata, add_bos.unwrap_or(true))?;
            sentencepiece::tokenizer(metadata, &vocabulary, ids.unknown)?
        }
        other => {
            let problem = format!("is {other:?}, which is not supported (only \"gpt2\" and \"llama\")");
            return Err(metadata.unsupported("tokenizer.ggml.model", problem));
        }
    };
    let mut config = ids.tokens(&vocabulary);
    config.extend(template.map(|template| ("chat_template".to_owned(), template.into())));
    let tokenizer =
        serde_json::to_vec(&json).map_err(|e| CompileError::Internal(format!("tokenizer.json: {e}")))?;
    Ok(TextMetadata { tokenizer: Some(tokenizer), config, stop: ids.stop(), bos: ids.bos })
}

/// Takes the ids alone, for a model of `vocab_size` tokens.
///
/// # Errors
/// Ids that are no integers.
pub(super) fn ids_alone(
    metadata: &mut Metadata,
    vocab_size: usize,
    warnings: &mut Warnings,
) -> Result<TextMetadata, CompileError> {
    let ids = SpecialIds::take(metadata, vocab_size, warnings)?;
    Ok(TextMetadata { stop: ids.stop(), bos: ids.bos, ..TextMetadata::default() })
}

/// `tokenizer.ggml.token_type`, or all normal.
fn kinds(metadata: &mut Metadata, count: usize) -> Result<Vec<TokenKind>, CompileError> {
    let key = "tokenizer.ggml.token_type";
    let Some(list) = metadata.array(key)? else { return Ok(vec![TokenKind::Normal; count]) };
    numbers(metadata, key, &list, count)?
        .into_iter()
        .enumerate()
        .map(|(id, number)| match number {
            // 0 is "undefined" there, and its tokens are read as any other.
            0.0 | 1.0 => Ok(TokenKind::Normal),
            2.0 => Ok(TokenKind::Unknown),
            3.0 => Ok(TokenKind::Control),
            4.0 => Ok(TokenKind::UserDefined),
            5.0 => Ok(TokenKind::Unused),
            6.0 => Ok(TokenKind::Byte),
            other => Err(metadata.invalid(key, format!("says {other} of token {id}, expected 0 to 6"))),
        })
        .collect()
}

/// Numbers for each of `count` tokens.
pub(super) fn numbers(
    metadata: &Metadata,
    key: &str,
    list: &Array,
    count: usize,
) -> Result<Vec<f64>, CompileError> {
    if list.len() != count {
        return Err(metadata.invalid(key, format!("has {} elements for {count} tokens", list.len())));
    }
    list.numbers().map_err(|e| metadata.invalid(key, e))
}

/// Two ids have the same text. Only one of them could ever be read.
fn refuse_twins(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<(), CompileError> {
    let mut first = std::collections::HashMap::new();
    for (id, token, _) in vocabulary.used() {
        if let Some(other) = first.insert(token, id) {
            let problem = format!("lists {token:?} as {other} and as {id}");
            return Err(metadata.invalid("tokenizer.ggml.tokens", problem));
        }
    }
    Ok(())
}

/// Ids of tokens with a task.
struct SpecialIds {
    bos: Option<u64>,
    eos: Option<u64>,
    /// The ends of a turn and of a message. Both end generation.
    ends: [Option<u64>; 2],
    unknown: Option<u64>,
    padding: Option<u64>,
    /// What is wrong with the first.
    wrong_bos: Option<String>,
}

impl SpecialIds {
    /// Ids that no token has are ignored, because they stand for "none": -1, or the same as an unsigned integer.
    fn take(
        metadata: &mut Metadata,
        count: usize,
        warnings: &mut Warnings,
    ) -> Result<SpecialIds, CompileError> {
        let mut wrong_bos = None;
        let mut id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(id) = metadata.number(&key)? else { return Ok(None) };
            if id.fract() != 0.0 {
                return Err(metadata.invalid(&key, format!("is {id}, expected an integer")));
            }
            if (0.0..count as f64).contains(&id) {
                return Ok(Some(id as u64));
            }
            let problem = format!("is {id}, but there are {count} tokens");
            warnings.push(format!("metadata key {key} {problem}; it is ignored"));
            if name == "bos" {
                wrong_bos = Some(problem);
            }
            Ok(None)
        };
        let (bos, eos, ends) = (id("bos")?, id("eos")?, [id("eot")?, id("eom")?]);
        let (unknown, padding) = (id("unknown")?, id("padding")?);
        Ok(SpecialIds { bos, eos, ends, unknown, padding, wrong_bos })
    }

    /// The token before every text, if one is to be `added`.
    fn first(&self, metadata: &Metadata, added: bool) -> Result<Option<u64>, CompileError> {
        match &self.wrong_bos {
            Some(problem) if added => {
                let problem = format!("{problem}, and every text is to begin with it");
                Err(metadata.invalid("tokenizer.ggml.bos_token_id", problem))
            }
            _ => Ok(self.bos.filter(|_| added)),
        }
    }

    /// Every token that ends generation.
    fn stop(&self) -> Vec<u64> {
        self.eos.into_iter().chain(self.ends.into_iter().flatten()).collect()
    }

    /// As `tokenizer_config.json` names them.
    fn tokens(&self, vocabulary: &Vocabulary) -> Map<String, Value> {
        let named = [("bos", self.bos), ("eos", self.eos), ("unk", self.unknown), ("pad", self.padding)];
        let text = |id: u64| vocabulary.tokens.get(usize::try_from(id).ok()?).copied();
        let token = |(name, id): (&str, Option<u64>)| Some((format!("{name}_token"), text(id?)?.into()));
        named.into_iter().filter_map(token).collect()
    }
}
