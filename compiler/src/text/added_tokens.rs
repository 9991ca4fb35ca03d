//! Tokens that `tokenizer_config.json` and `special_tokens_map.json` name, and `tokenizer.json` does not list among
//! its added tokens: a text must not be split inside them. transformers adds them when it loads a tokenizer
//! (`PreTrainedTokenizerFast.__init__`); here they are written into the bundle's `tokenizer.json`, and no other byte
//! of it changes.

use crate::error::{CompileError, Warnings};
use crate::files::model_files::ModelFiles;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use trit_text::Tokenizer;

/// The keys that name one special token each.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// The keys that name several.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// A token as configurations write it: its text, or an object with `content`.
struct Named {
    content: String,
    /// What an object has.
    flags: Option<Map<String, Value>>,
}

/// Gives `json` with the tokens that its configuration names, or `None` where it already has them all. `tokenizer`
/// was made from `json`.
///
/// # Errors
/// Two tokens with the same id.
pub(crate) fn completed(
    path: &Path,
    json: &[u8],
    tokenizer: &Tokenizer,
    model_files: &ModelFiles,
    vocab_size: u32,
    warnings: &mut Warnings,
) -> Result<Option<Vec<u8>>, CompileError> {
    let invalid = |path: &Path, problem: String| CompileError::Invalid { path: path.to_owned(), problem };
    let special = special(model_files);
    let decoder = decoder(model_files)?;
    if special.is_empty() && decoder.is_empty() {
        return Ok(None);
    }
    let listed = listed(json).map_err(|e| invalid(path, e.to_string()))?;
    let mut tokens = listed.clone();
    let mut places: HashMap<String, usize> = tokens
        .iter()
        .enumerate()
        .filter_map(|(at, token)| Some((token.get("content")?.as_str()?.to_owned(), at)))
        .collect();
    let mut new_ids: BTreeMap<u32, String> = BTreeMap::new();

    for (config, id, named) in &decoder {
        let content = &named.content;
        let is_special = special.iter().any(|(_, token)| token.content == *content);
        let known = tokenizer.id_of(content);
        if let Some(known) = known.filter(|known| known != id) {
            warnings.push(format!(
                "{}: added_tokens_decoder gives {content:?} the id {id}, but in {} it has {known}, which is used",
                config.display(),
                path.display()
            ));
        }
        let other = tokenizer.token_of(*id).or_else(|| new_ids.get(id).cloned());
        if let (None, Some(other)) = (known, other.filter(|other| other != content)) {
            return Err(invalid(
                config,
                format!(
                    "added_tokens_decoder gives {content:?} the id {id}, which is that of {other:?}; correct one of them"
                ),
            ));
        }
        let token = added(known.unwrap_or(*id), named, is_special);
        new_ids.insert(known.unwrap_or(*id), content.clone());
        match places.get(content) {
            Some(at) => tokens[*at] = token,
            None => {
                places.insert(content.clone(), tokens.len());
                tokens.push(token);
            }
        }
    }
    for (config, named) in special.iter().filter(|(_, named)| !named.content.is_empty()) {
        if places.contains_key(&named.content) {
            continue;
        }
        // The new tokens come after all others, as in transformers.
        let next = tokenizer.end().max(new_ids.last_key_value().map_or(0, |(id, _)| id.saturating_add(1)));
        let id = tokenizer.id_of(&named.content).unwrap_or(next);
        if id == next && id >= vocab_size {
            warnings.push(format!(
                "{}: names the special token {:?}, which the tokenizer does not have and the model has no room for; it \
                 is left out",
                config.display(),
                named.content
            ));
            continue;
        }
        places.insert(named.content.clone(), tokens.len());
        new_ids.insert(id, named.content.clone());
        tokens.push(added(id, named, true));
    }
    if tokens == listed {
        return Ok(None);
    }
    tokens.sort_by_key(|token| token.get("id").and_then(Value::as_u64));
    let tokens =
        serde_json::to_vec(&tokens).map_err(|e| CompileError::Internal(format!("added_tokens: {e}")))?;
    Ok(Some(spliced(json, &tokens)))
}

/// `added_tokens` as they stand in the file.
fn listed(json: &[u8]) -> serde_json::Result<Vec<Value>> {
    #[derive(Deserialize)]
    struct File {
        added_tokens: Option<Vec<Value>>,
    }
    Ok(serde_json::from_slice::<File>(json)?.added_tokens.unwrap_or_default())
}

/// An entry of `added_tokens`.
fn added(id: u32, named: &Named, is_special: bool) -> Value {
    let flag = |name: &str| named.flags.as_ref().and_then(|flags| flags.get(name)?.as_bool());
    let special = is_special || flag("special") == Some(true);
    json!({
        "id": id,
        "content": named.content,
        "single_word": flag("single_word").unwrap_or(false),
        "lstrip": flag("lstrip").unwrap_or(false),
        "rstrip": flag("rstrip").unwrap_or(false),
        "normalized": flag("normalized").unwrap_or(!special),
        "special": special,
    })
}

fn named(value: &Value) -> Option<Named> {
    match value {
        Value::String(content) => Some(Named { content: content.clone(), flags: None }),
        Value::Object(flags) => {
            Some(Named { content: flags.get("content")?.as_str()?.to_owned(), flags: Some(flags.clone()) })
        }
        _ => None,
    }
}

/// Special tokens by name, with the file that names them. `tokenizer_config.json` wins.
fn special(model_files: &ModelFiles) -> Vec<(&Path, Named)> {
    let mut tokens = Vec::new();
    let files = [model_files.tokenizer_config(), model_files.special_tokens_map()];
    for name in NAMES {
        let found = files.iter().flatten().find_map(|(path, map)| Some((*path, named(map.get(name)?)?)));
        tokens.extend(found);
    }
    for (path, map) in files.into_iter().flatten() {
        for list in LISTS.iter().filter_map(|key| map.get(*key)) {
            match list {
                Value::Array(list) => tokens.extend(list.iter().filter_map(named).map(|token| (path, token))),
                Value::Object(list) => {
                    tokens.extend(list.values().filter_map(named).map(|token| (path, token)))
                }
                _ => {}
            }
        }
    }
    tokens
}

/// `added_tokens_decoder`, by id.
fn decoder(model_files: &ModelFiles) -> Result<Vec<(&Path, u32, Named)>, CompileError> {
    let Some((path, map)) = model_files.tokenizer_config() else { return Ok(Vec::new()) };
    let Some(Value::Object(entries)) = map.get("added_tokens_decoder") else { return Ok(Vec::new()) };
    let mut tokens = Vec::new();
    for (id, token) in entries {
        match (id.parse(), named(token)) {
            (Ok(id), Some(named)) if !named.content.is_empty() => tokens.push((path, id, named)),
            _ => {
                return Err(CompileError::Invalid {
                    path: path.to_owned(),
                    problem: format!(
                        "added_tokens_decoder holds {id:?}: {token}, expected an id and a token"
                    ),
                });
            }
        }
    }
    tokens.sort_by_key(|(_, id, _)| *id);
    Ok(tokens)
}

/// Puts `tokens` in place of the value of `added_tokens` in `json`, an object.
fn spliced(json: &[u8], tokens: &[u8]) -> Vec<u8> {
    let (before, after, key) = match value_of(json, b"\"added_tokens\"") {
        Some(range) => (&json[..range.start], &json[range.end..], &b""[..]),
        // The object is not empty, so something follows.
        None => {
            let start = json.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
            (&json[..start], &json[start..], &b"\"added_tokens\":"[..])
        }
    };
    let comma: &[u8] = if key.is_empty() { b"" } else { b"," };
    [before, key, tokens, comma, after].concat()
}

/// Where the value of a key of the outermost object stands. `json` is known to be well formed.
fn value_of(json: &[u8], key: &[u8]) -> Option<std::ops::Range<usize>> {
    let (mut depth, mut at, mut start) = (0, 0, None);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                let begin = at;
                at += 1;
                while *json.get(at)? != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                let colon = json[at + 1..].iter().position(|byte| !byte.is_ascii_whitespace());
                let colon = colon.map(|skip| at + 1 + skip).filter(|at| json[*at] == b':');
                if let Some(colon) = colon.filter(|_| depth == 1 && &json[begin..=at] == key) {
                    start = Some(colon + 1);
                    at = colon;
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        let ends = match byte {
            b',' => depth == 1,
            b'}' => depth == 0,
            _ => false,
        };
        if let Some(start) = start.filter(|_| ends) {
            return Some(start..at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_changes() {
        let spliced = |json: &str| String::from_utf8(spliced(json.as_bytes(), b"[1]")).unwrap();
        assert_eq!(
            spliced(r#"{"a": {"added_tokens": 0}, "added_tokens" : [{"b": "],\"}"}] , "c": "d"}"#),
            r#"{"a": {"added_tokens": 0}, "added_tokens" :[1], "c": "d"}"#
        );
        assert_eq!(
            spliced(r#"{"model": "added_tokens", "added_tokens":null}"#),
            r#"{"model": "added_tokens", "added_tokens":[1]}"#
        );
        assert_eq!(spliced(r#"{"model": {}}"#), r#"{"added_tokens":[1],"model": {}}"#);
    }
}
