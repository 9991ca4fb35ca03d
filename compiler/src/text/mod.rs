//! Everything besides tensors: the tokenizer, its special tokens, the chat template, stop ids, sampling defaults.

mod added_tokens;
mod generation;

use crate::error::{CompileError, Warnings};
use crate::files::model_files::ModelFiles;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use trit_format::manifest::{SamplingDefaults, TextInfo};
use trit_text::{ChatTemplate, TextError, Tokenizer};

/// Tokens that end a turn in the chat templates that use them.
const END_OF_TURN: [&str; 2] = ["<|eot_id|>", "<|im_end|>"];

/// What a bundle says about text.
pub(crate) struct Text {
    pub(crate) info: TextInfo,
    /// The bytes of a `tokenizer.json` that was tried out.
    pub(crate) tokenizer: Option<Vec<u8>>,
}

/// Reads what the model's files say about text for a model of `vocab_size` tokens. `without_tokenizer` is for bundles
/// that take and give token ids only.
///
/// # Errors
/// Files of the wrong form, and a tokenizer that cannot be used.
pub(crate) fn text(
    model_files: &ModelFiles,
    vocab_size: u32,
    without_tokenizer: bool,
    warnings: &mut Warnings,
) -> Result<Text, CompileError> {
    let (tokenizer, json) = match without_tokenizer {
        true => (None, None),
        false => tokenizer(model_files, vocab_size, warnings)?.unzip(),
    };
    let special = if without_tokenizer { BTreeMap::new() } else { special_tokens(model_files) };
    let (template_source, chat_template) = match without_tokenizer {
        true => (None, None),
        false => chat_template(model_files, &special, warnings)?,
    };
    // The tokenizer has warned already of ids that the model does not have.
    let id_of_token = |token: &str| tokenizer.as_ref()?.id_of(token).filter(|id| *id < vocab_size);
    let id_of = |name: &str| special.get(name).and_then(|content| id_of_token(content));

    let mut stop = BTreeSet::new();
    let mut bos = id_of("bos_token");
    for (path, map) in [model_files.config(), model_files.generation_config()].into_iter().flatten() {
        stop.extend(ids(path, map, "eos_token_id", vocab_size, warnings)?);
        for id in ids(path, map, "bos_token_id", vocab_size, warnings)? {
            if let Some(other) = bos.filter(|&other| other != id) {
                warnings.push(format!("{}: bos_token_id is {id}, but {other} is used", path.display()));
            }
            bos.get_or_insert(id);
        }
    }
    stop.extend(id_of("eos_token"));
    if let Some(template) = &template_source {
        stop.extend(END_OF_TURN.iter().filter(|t| template.contains(**t)).filter_map(|t| id_of_token(t)));
    }
    if stop.is_empty() {
        warnings.push("no stop token is known; generation ends only at its length limit".to_owned());
    }
    let info = TextInfo {
        chat_template,
        special_tokens: special.into_iter().collect(),
        bos,
        stop: stop.into_iter().collect(),
        sampling: sampling(model_files, vocab_size, warnings)?,
    };
    Ok(Text { info, tokenizer: json })
}

/// The tokenizer with all tokens that the model's files name, and its `tokenizer.json`; `None` where there is none.
fn tokenizer(
    model_files: &ModelFiles,
    vocab_size: u32,
    warnings: &mut Warnings,
) -> Result<Option<(Tokenizer, Vec<u8>)>, CompileError> {
    let Some((path, bytes)) = model_files.file("tokenizer.json") else {
        warnings.push(match model_files.has_sentencepiece {
            true => "tokenizer.model is not read, and there is no tokenizer.json: the bundle takes and gives token \
                     ids only. To convert it: python -c \"from transformers import AutoTokenizer as T; \
                     T.from_pretrained('DIR').save_pretrained('DIR')\" with the model's directory as DIR"
                .to_owned(),
            false => "there is no tokenizer.json: the bundle takes and gives token ids only".to_owned(),
        });
        return Ok(None);
    };
    let unusable = |error: TextError| {
        let problem = match error {
            TextError::Tokenizer(problem) => problem,
            other => other.to_string(),
        };
        CompileError::UnusableTokenizer { path: path.to_owned(), problem }
    };
    // What else the bundle says matters only to chat templates.
    let info = TextInfo {
        chat_template: None,
        special_tokens: Vec::new(),
        bos: None,
        stop: Vec::new(),
        sampling: SamplingDefaults::default(),
    };
    let mut tokenizer = Tokenizer::new(bytes, &info, vocab_size).map_err(unusable)?;
    let mut json = bytes.to_vec();
    if let Some(completed) =
        added_tokens::completed(path, bytes, &tokenizer, model_files, vocab_size, warnings)?
    {
        tokenizer = Tokenizer::new(&completed, &info, vocab_size).map_err(unusable)?;
        json = completed;
    }
    let said = tokenizer.try_out().map_err(unusable)?;
    warnings.extend(said.into_iter().map(|warning| format!("{}: {warning}", path.display())));
    Ok(Some((tokenizer, json)))
}

/// An id, or a list of them; null and absent are none. Ids that the model does not have are no reason to refuse it,
/// because they stand for "none" in some configurations and nothing can use them.
fn ids(
    path: &Path,
    map: &Map<String, Value>,
    key: &str,
    vocab_size: u32,
    warnings: &mut Warnings,
) -> Result<Vec<u32>, CompileError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        One(i64),
        Many(Vec<i64>),
    }
    let given = match map.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => match Ids::deserialize(value) {
            Ok(Ids::One(id)) => vec![id],
            Ok(Ids::Many(ids)) => ids,
            Err(_) => {
                return Err(CompileError::Invalid {
                    path: path.to_owned(),
                    problem: format!("{key} is {value}, expected a token id or a list of them"),
                });
            }
        },
    };
    let mut known = Vec::new();
    for id in given {
        match u32::try_from(id).ok().filter(|id| *id < vocab_size) {
            Some(id) => known.push(id),
            None => warnings.push(format!(
                "{}: {key} is {id}, but ids go from 0 to {}; it is ignored",
                path.display(),
                vocab_size.saturating_sub(1)
            )),
        }
    }
    Ok(known)
}

/// `bos_token`, `eos_token` and the like: strings, or objects with `content`. `tokenizer_config.json` wins.
fn special_tokens(model_files: &ModelFiles) -> BTreeMap<String, String> {
    let mut tokens = BTreeMap::new();
    for (_, map) in [model_files.special_tokens_map(), model_files.tokenizer_config()].into_iter().flatten() {
        for (name, value) in map.iter().filter(|(name, _)| name.ends_with("_token")) {
            if let Some(content) = value.as_str().or_else(|| value.get("content")?.as_str()) {
                tokens.insert(name.clone(), content.to_owned());
            }
        }
    }
    tokens
}

/// The source of the chat template, from where transformers' tokenizers take it: from a file of its own, or else from
/// `tokenizer_config.json`. There it is a string, a list of named templates, or an object of them; among several, the
/// one named `default` is used. `chat_template.json` belongs to processors of images and counts only where there is
/// nothing else. A template that this program cannot use is left out, with a warning that says why: the model still
/// takes ids and text. Returns the template that was found, which tells what ends a turn, and the template that is
/// used.
fn chat_template(
    model_files: &ModelFiles,
    special: &BTreeMap<String, String>,
    warnings: &mut Warnings,
) -> Result<(Option<String>, Option<String>), CompileError> {
    let Some((path, source)) = template_source(model_files, warnings)? else { return Ok((None, None)) };
    let special: Vec<(String, String)> = special.iter().map(|(n, t)| (n.clone(), t.clone())).collect();
    match ChatTemplate::new(&source, &special) {
        Ok(template) => {
            warnings
                .extend(template.check().into_iter().map(|failure| format!("{}: {failure}", path.display())));
            Ok((Some(source.clone()), Some(source)))
        }
        Err(error) => {
            warnings.push(format!(
                "{}: {error}; the bundle gets NO chat template: prompts are taken as plain text, and there is no chat",
                path.display()
            ));
            Ok((Some(source), None))
        }
    }
}

fn template_source<'a>(
    model_files: &'a ModelFiles,
    warnings: &mut Warnings,
) -> Result<Option<(&'a Path, String)>, CompileError> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
        template: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Templates {
        One(String),
        List(Vec<Named>),
        Object(BTreeMap<String, String>),
    }
    if let Some((path, bytes)) = model_files.file("chat_template.jinja") {
        return match String::from_utf8(bytes.to_vec()) {
            Ok(template) => Ok(Some((path, template))),
            Err(e) => {
                Err(CompileError::Invalid { path: path.to_owned(), problem: format!("is not UTF-8: {e}") })
            }
        };
    }
    for (path, map) in [model_files.tokenizer_config(), model_files.chat_template()].into_iter().flatten() {
        let Some(value) = map.get("chat_template").filter(|value| !value.is_null()) else { continue };
        let templates = Templates::deserialize(value).map_err(|_| CompileError::Invalid {
            path: path.to_owned(),
            problem: "chat_template is neither a string, nor a list of objects with \"name\" and \"template\", nor an \
                      object of named templates"
                .to_owned(),
        })?;
        let (default, others) = match templates {
            Templates::One(template) => (Some(template), Vec::new()),
            Templates::List(list) => {
                let (default, others) = list.into_iter().partition::<Vec<Named>, _>(|t| t.name == "default");
                // Where two have the same name, transformers keeps the last.
                let others = others.into_iter().map(|t| t.name).collect::<Vec<String>>();
                (default.into_iter().next_back().map(|t| t.template), others)
            }
            Templates::Object(mut named) => {
                let default = named.remove("default");
                (default, named.into_keys().collect())
            }
        };
        let others = others.join(", ");
        match default {
            Some(default) => {
                if !others.is_empty() {
                    warnings.push(format!(
                        "{}: of several chat templates the one named \"default\" is used; the bundle has no others \
                         ({others})",
                        path.display()
                    ));
                }
                return Ok(Some((path, default)));
            }
            None => warnings.push(format!(
                "{}: none of the chat templates is named \"default\"; there are {others}",
                path.display()
            )),
        }
    }
    Ok(None)
}

/// What `generation_config.json` suggests. These are suggestions, so a value that makes no sense is left out with a
/// warning that names file and key.
fn sampling(
    model_files: &ModelFiles,
    vocab_size: u32,
    warnings: &mut Warnings,
) -> Result<SamplingDefaults, CompileError> {
    let rules = generation::rules(model_files, vocab_size, warnings)?;
    let Some((path, map)) = model_files.generation_config() else {
        return Ok(SamplingDefaults { rules, ..SamplingDefaults::default() });
    };
    let mut usable = |key: &str, expected: &str, is_usable: &dyn Fn(&Value) -> bool| {
        let value = map.get(key).filter(|value| !value.is_null())?;
        if is_usable(value) {
            return Some(value);
        }
        warnings.push(format!("{}: {key} is {value}, expected {expected}; it is left out", path.display()));
        None
    };
    let mut number = |key: &str, expected: &str, is_usable: &dyn Fn(f32) -> bool| {
        let of = |value: &Value| value.as_f64().map(|x| x as f32).filter(|&x| is_usable(x));
        usable(key, expected, &|value| of(value).is_some()).and_then(of)
    };
    // A higher temperature is the same as choosing evenly.
    let temperature = number("temperature", "a number from 0 to 1e6", &|x| (0.0..=1e6).contains(&x));
    let top_p = number("top_p", "a number from 0 to 1", &|x| (0.0..=1.0).contains(&x));
    let min_p = number("min_p", "a number from 0 to 1", &|x| (0.0..=1.0).contains(&x));
    let repetition_penalty =
        number("repetition_penalty", "a number above 0", &|x| x.is_finite() && x >= f32::MIN_POSITIVE);
    // Some files have whole floats in place of integers. Both -1 and 0 mean "all".
    let whole = |value: &Value| {
        let float = || value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 1e15).map(|x| x as i64);
        value.as_i64().or_else(float).filter(|&k| k >= -1)
    };
    let top_k = usable("top_k", "a number of tokens, or 0 or -1 for all", &|value| whole(value).is_some());
    let top_k = top_k.and_then(whole).map(|k| u32::try_from(k.max(0)).unwrap_or(0));
    let do_sample = usable("do_sample", "true or false", &Value::is_boolean).and_then(Value::as_bool);
    Ok(SamplingDefaults {
        do_sample: do_sample.unwrap_or(false),
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        rules,
    })
}
