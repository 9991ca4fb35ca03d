//! What a `tokenizer.json` must be before the tokenizers library sees any of it. That library trusts its files. On malformed
//! ones it panics, asks for memory without end, or makes texts grow without end.
//!
//! | module | checks |
//! |---|---|
//! | here | vocabulary, merges, added tokens |
//! | [`steps`] | normalizer, pre-tokenizer, post-processor, decoder |
//! | `pattern` | regular expressions |
//! | `charsmap` | SentencePiece's table of characters |

mod charsmap;
mod pattern;
pub(crate) mod steps;

use crate::file::{AddedToken, MAX_TOKEN, Merge, ModelFile, TokenizerFile, Tokens};
use std::collections::HashMap;
use steps::{Around, Steps};

/// Most tokens that a text is split at: twenty times the largest number in use.
const MAX_ADDED: usize = 1 << 17;
/// Most bytes of all of them together. The automaton that finds them takes some fifty bytes for each of those.
const MAX_ADDED_BYTES: usize = 4 << 20;
/// Longest prefix or suffix of tokens inside words, in bytes.
const MAX_AFFIX: usize = 64;
/// Longest token with a score, in bytes: each prefix of it that is a token costs a copy at each place of a text.
const MAX_SCORED: usize = 512;
/// Longest word that is looked up piece by piece, in characters. The time for it grows with the square of its length.
const MAX_WORD: u64 = 256;
/// How far ids may lie beyond the model's table.
const MAX_BEYOND: u32 = 1 << 16;

/// A file that holds what it should.
pub(crate) struct Checked {
    pub(crate) vocabulary: Vocabulary,
    /// In order.
    pub(crate) added: Vec<AddedToken>,
    pub(crate) normalizer: Steps,
    pub(crate) pre_tokenizer: Steps,
    pub(crate) decoder: Steps,
    pub(crate) around: Around,
    /// Every token's id.
    pub(crate) ids: HashMap<String, u32>,
    /// What people should know, a line each.
    pub(crate) warnings: Vec<String>,
}

/// A vocabulary of one of four types.
pub(crate) enum Vocabulary {
    Bpe(Bpe),
    WordPiece { tokens: Vec<(String, u32)>, unknown: String, prefix: String, longest: usize },
    WordLevel { tokens: Vec<(String, u32)>, unknown: String },
    Unigram { tokens: Vec<(String, f64)>, unknown: Option<usize>, byte_fallback: bool },
}

/// Tokens and the pairs that become one.
pub(crate) struct Bpe {
    pub(crate) tokens: Vec<(String, u32)>,
    pub(crate) merges: Vec<(String, String)>,
    pub(crate) unknown: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) suffix: Option<String>,
    pub(crate) fuse_unknown: bool,
    pub(crate) byte_fallback: bool,
    pub(crate) ignore_merges: bool,
}

/// Checks a file for a model whose table has `vocab_size` rows.
///
/// # Errors
/// What is wrong, and in which part.
pub(crate) fn check(file: TokenizerFile, vocab_size: u32) -> Result<Checked, String> {
    let (mut vocabulary, mut ids) = vocabulary(file.model)?;
    let added = file.added_tokens.map(|list| list.0).unwrap_or_default();
    let mut warnings = Vec::new();
    number(&added, &mut vocabulary, &mut ids, &mut warnings)?;
    beyond(&ids, vocab_size, &mut warnings)?;
    let (normalizer, growth) = steps::normalizer(file.normalizer.0)?;
    let pre_tokenizer = steps::pre_tokenizer(file.pre_tokenizer.0, growth)?;
    let decoder = steps::decoder(file.decoder.0)?;
    let known: std::collections::HashSet<u32> = ids.values().copied().collect();
    let around = steps::post_processor(file.post_processor.0, &|id| known.contains(&id))?;
    if let Some(id) = around.before.iter().chain(&around.after).find(|id| **id >= vocab_size) {
        return Err(format!(
            "post_processor: puts id {id} around every text, but the model has {vocab_size} tokens"
        ));
    }
    Ok(Checked { vocabulary, added, normalizer, pre_tokenizer, decoder, around, ids, warnings })
}

/// Checks the vocabulary by itself; gives every token's id besides.
fn vocabulary(file: ModelFile) -> Result<(Vocabulary, HashMap<String, u32>), String> {
    let kind = kind(&file)?;
    let affix = |name: &str, text: &Option<String>| match text {
        Some(text) if text.len() > MAX_AFFIX => {
            Err(format!("model: {name} has {} bytes, expected no more than {MAX_AFFIX}", text.len()))
        }
        _ => Ok(()),
    };
    affix("continuing_subword_prefix", &file.continuing_subword_prefix)?;
    affix("end_of_word_suffix", &file.end_of_word_suffix)?;
    if file.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err(
            "model: dropout is not 0: the same text would get other ids each time; remove it".to_owned()
        );
    }
    let tokens = match file.vocab {
        Tokens::Scored(tokens) => {
            if kind != "Unigram" {
                return Err(format!("model: vocab is a list, expected tokens with their ids for {kind}"));
            }
            let unknown = file.unk_id.map(|id| usize::try_from(id).unwrap_or(usize::MAX));
            return unigram(tokens, unknown, file.byte_fallback.unwrap_or(false));
        }
        Tokens::Ids(tokens) => tokens,
    };
    if kind == "Unigram" {
        return Err("model: vocab is no list of tokens with their scores".to_owned());
    }
    let ids: HashMap<String, u32> = tokens.into_iter().collect();
    twins(&ids)?;
    let mut tokens: Vec<(String, u32)> = ids.iter().map(|(token, id)| (token.clone(), *id)).collect();
    tokens.sort_unstable_by_key(|(_, id)| *id);
    let unknown = file.unk_token;
    let needed = |name: &str| format!("model: {name} is missing for {kind}");
    let vocabulary = match kind {
        "BPE" => {
            let merges = file.merges.ok_or_else(|| needed("merges"))?.0;
            Vocabulary::Bpe(Bpe {
                merges: merges_of(merges, file.continuing_subword_prefix.as_deref().unwrap_or(""), &ids)?,
                tokens,
                unknown,
                prefix: file.continuing_subword_prefix,
                suffix: file.end_of_word_suffix,
                fuse_unknown: file.fuse_unk.unwrap_or(false),
                byte_fallback: file.byte_fallback.unwrap_or(false),
                ignore_merges: file.ignore_merges.unwrap_or(false),
            })
        }
        "WordPiece" => {
            let longest = file.max_input_chars_per_word.unwrap_or(100);
            if longest > MAX_WORD {
                return Err(format!(
                    "model: max_input_chars_per_word is {longest}, expected no more than {MAX_WORD}"
                ));
            }
            Vocabulary::WordPiece {
                tokens,
                unknown: unknown.ok_or_else(|| needed("unk_token"))?,
                prefix: file.continuing_subword_prefix.ok_or_else(|| needed("continuing_subword_prefix"))?,
                longest: longest as usize,
            }
        }
        _ => Vocabulary::WordLevel { tokens, unknown: unknown.ok_or_else(|| needed("unk_token"))? },
    };
    Ok((vocabulary, ids))
}

/// The type of a vocabulary. The first files did not say it.
fn kind(file: &ModelFile) -> Result<&'static str, String> {
    const KINDS: [&str; 4] = ["BPE", "WordPiece", "WordLevel", "Unigram"];
    match file.kind.as_deref() {
        Some(kind) => KINDS
            .into_iter()
            .find(|known| *known == kind)
            .ok_or_else(|| format!("model: type is {kind:?}, expected one of {}", KINDS.join(", "))),
        None if matches!(file.vocab, Tokens::Scored(_)) => Ok("Unigram"),
        None if file.merges.is_some() => Ok("BPE"),
        None if file.max_input_chars_per_word.is_some() => Ok("WordPiece"),
        None => Ok("WordLevel"),
    }
}

type Found = Result<(Vocabulary, HashMap<String, u32>), String>;

fn unigram(tokens: Vec<(String, f64)>, unknown: Option<usize>, byte_fallback: bool) -> Found {
    if let Some(id) = unknown.filter(|id| *id >= tokens.len()) {
        return Err(format!("model: unk_id is {id}, but vocab has {} tokens", tokens.len()));
    }
    if let Some((token, _)) = tokens.iter().find(|(_, score)| !score.is_finite()) {
        return Err(format!("model: the score of {token:?} is no number"));
    }
    if let Some((token, _)) = tokens.iter().find(|(token, _)| token.len() > MAX_SCORED) {
        let len = token.len();
        return Err(format!("model: vocab holds a token of {len} bytes, expected no more than {MAX_SCORED}"));
    }
    let ids = tokens.iter().map(|(token, _)| token.clone()).zip(0..).collect();
    Ok((Vocabulary::Unigram { tokens, unknown, byte_fallback }, ids))
}

/// Refuses two tokens with one id, because the library would decide anew each time which of them the id is.
fn twins(ids: &HashMap<String, u32>) -> Result<(), String> {
    let mut tokens: HashMap<u32, &str> = HashMap::with_capacity(ids.len());
    for (token, id) in ids {
        if let Some(other) = tokens.insert(*id, token) {
            let (a, b) =
                if other < token.as_str() { (other, token.as_str()) } else { (token.as_str(), other) };
            return Err(format!("model: vocab gives {a:?} and {b:?} the same id {id}"));
        }
    }
    Ok(())
}

/// Checks that each merge is of two tokens that make a third.
fn merges_of(
    merges: Vec<Merge>,
    prefix: &str,
    ids: &HashMap<String, u32>,
) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::with_capacity(merges.len());
    let mut union = String::new();
    for (index, Merge(left, right)) in merges.into_iter().enumerate() {
        // A remark that the first files began with.
        if left == "#version:" {
            continue;
        }
        let wrong = |problem: &str| format!("model.merges[{index}]: {left:?} and {right:?} {problem}");
        if !ids.contains_key(&left) || !ids.contains_key(&right) {
            return Err(wrong("are not both in the vocabulary"));
        }
        let Some(end) = right.strip_prefix(prefix) else {
            return Err(wrong("do not go together: the second has no continuing_subword_prefix"));
        };
        union.clear();
        union.extend([left.as_str(), end]);
        if !ids.contains_key(&union) {
            return Err(wrong("make a token that is not in the vocabulary"));
        }
        pairs.push((left, right));
    }
    Ok(pairs)
}

/// Gives added tokens their ids.
///
/// The library gives tokens that the vocabulary does not hold numbers of its own, one after the other behind the vocabulary,
/// whatever the file says. Where those are not the file's ids, the tokens are put into the vocabulary with the file's ids.
fn number(
    added: &[AddedToken],
    vocabulary: &mut Vocabulary,
    ids: &mut HashMap<String, u32>,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    let bytes: usize = added.iter().map(|token| token.content.len()).sum();
    if added.len() > MAX_ADDED || bytes > MAX_ADDED_BYTES {
        return Err(format!(
            "added_tokens: has {} tokens of {bytes} bytes, expected no more than {MAX_ADDED} of {MAX_ADDED_BYTES}",
            added.len()
        ));
    }
    let mut taken: HashMap<u32, String> = ids.iter().map(|(token, id)| (*id, token.clone())).collect();
    let mut next = match vocabulary {
        Vocabulary::Unigram { tokens, .. } => tokens.len(),
        _ => ids.len(),
    };
    let mut new = Vec::new();
    let mut in_order = true;
    for token in added.iter().filter(|token| !token.content.is_empty()) {
        let AddedToken { id, content, .. } = token;
        if content.len() > MAX_TOKEN {
            let len = content.len();
            return Err(format!("added_tokens: a token of {len} bytes, expected no more than {MAX_TOKEN}"));
        }
        if let Some(known) = ids.get(content) {
            if known != id {
                warnings.push(format!(
                    "added_tokens: {content:?} is listed with id {id}, but has {known}, which is used"
                ));
            }
            continue;
        }
        if let Some(other) = taken.insert(*id, content.clone()) {
            return Err(format!("added_tokens: {content:?} has id {id}, which is that of {other:?}"));
        }
        in_order &= next == *id as usize;
        next += 1;
        ids.insert(content.clone(), *id);
        new.push((content.clone(), *id));
    }
    match vocabulary {
        _ if in_order => {}
        Vocabulary::Bpe(Bpe { tokens, .. })
        | Vocabulary::WordPiece { tokens, .. }
        | Vocabulary::WordLevel { tokens, .. } => tokens.extend(new),
        Vocabulary::Unigram { .. } => {
            return Err(format!(
                "added_tokens: the ids of {:?} and those after it do not follow the vocabulary",
                new.first().map(|(token, _)| token.as_str()).unwrap_or_default()
            ));
        }
    }
    Ok(())
}

/// Tokens that the model has no row for. They are padding, which nothing uses, or belong to another model.
fn beyond(ids: &HashMap<String, u32>, vocab_size: u32, warnings: &mut Vec<String>) -> Result<(), String> {
    if ids.is_empty() {
        return Err("model: has an empty vocabulary".to_owned());
    }
    let outside = ids.iter().filter(|(_, id)| **id >= vocab_size);
    // The highest, and among several the first by name, so that the message is always the same.
    let Some((token, id)) = outside.clone().max_by_key(|(token, id)| (**id, std::cmp::Reverse(*token)))
    else {
        return Ok(());
    };
    let count = outside.count();
    let says = format!("token {token:?} has id {id}, but the model's vocab_size is {vocab_size}");
    if count > (vocab_size as usize / 16).max(256) || *id >= vocab_size.saturating_add(MAX_BEYOND) {
        return Err(format!(
            "{says}, and {count} tokens are beyond it; the tokenizer belongs to another model"
        ));
    }
    warnings.push(match count {
        1 => format!("{says}; a text that has it in it is refused"),
        _ => {
            format!("{says}, and {count} tokens are beyond it; a text that has one of them in it is refused")
        }
    });
    Ok(())
}
