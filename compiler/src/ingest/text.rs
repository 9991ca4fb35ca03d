//! Everything besides tensors: the tokenizer, its special tokens, the chat template, stop ids, sampling defaults.

use crate::error::CompileError;
use crate::ingest::companions::Companions;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use trit_format::manifest::{SamplingDefaults, TextInfo};
use trit_text::ChatTemplate;

/// Tokens that end a turn in the chat templates that use them.
const END_OF_TURN: [&str; 2] = ["<|eot_id|>", "<|im_end|>"];

/// Reads what the companions say about text for a model of `vocab_size` tokens.
///
/// # Errors
/// Companions of the wrong form, and ids beyond the vocabulary.
pub(crate) fn text(
    companions: &Companions,
    vocab_size: u32,
    warnings: &mut Vec<String>,
) -> Result<TextInfo, CompileError> {
    let vocabulary = Vocabulary::read(companions, vocab_size, warnings)?;
    let special = special_tokens(companions);
    let (template_source, chat_template) = chat_template(companions, &special, warnings)?;
    let check = |path: &Path, key: &str, id: u32| match id < vocab_size {
        true => Ok(id),
        false => Err(CompileError::Invalid {
            path: path.to_owned(),
            problem: format!("{key} is {id}, beyond vocab_size {vocab_size}"),
        }),
    };
    let id_of = |name: &str| special.get(name).and_then(|content| vocabulary.id(content));

    let mut stop = BTreeSet::new();
    let mut bos = id_of("bos_token");
    for (path, map) in [companions.config(), companions.generation_config()].into_iter().flatten() {
        for id in ids(path, map, "eos_token_id")? {
            stop.insert(check(path, "eos_token_id", id)?);
        }
        for id in ids(path, map, "bos_token_id")? {
            let id = check(path, "bos_token_id", id)?;
            if let Some(other) = bos.filter(|&other| other != id) {
                warnings.push(format!("{}: bos_token_id is {id}, but {other} is used", path.display()));
            }
            bos.get_or_insert(id);
        }
    }
    stop.extend(id_of("eos_token"));
    if let Some(template) = &template_source {
        stop.extend(END_OF_TURN.iter().filter(|t| template.contains(**t)).filter_map(|t| vocabulary.id(t)));
    }
    if stop.is_empty() {
        warnings.push("no stop token is known; generation ends only at its length limit".to_owned());
    }
    Ok(TextInfo {
        chat_template,
        special_tokens: special.into_iter().collect(),
        bos,
        stop: stop.into_iter().collect(),
        sampling: sampling(companions)?,
    })
}

/// An id, or a list of them; null and absent are none.
fn ids(path: &Path, map: &Map<String, Value>, key: &str) -> Result<Vec<u32>, CompileError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        One(u32),
        Many(Vec<u32>),
    }
    match map.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => match Ids::deserialize(value) {
            Ok(Ids::One(id)) => Ok(vec![id]),
            Ok(Ids::Many(ids)) => Ok(ids),
            Err(_) => Err(CompileError::Invalid {
                path: path.to_owned(),
                problem: format!("{key} is {value}, expected a token id or a list of them"),
            }),
        },
    }
}

/// `bos_token`, `eos_token` and the like: strings, or objects with `content`. `tokenizer_config.json` wins.
fn special_tokens(companions: &Companions) -> BTreeMap<String, String> {
    let mut tokens = BTreeMap::new();
    for (_, map) in [companions.special_tokens_map(), companions.tokenizer_config()].into_iter().flatten() {
        for (name, value) in map.iter().filter(|(name, _)| name.ends_with("_token")) {
            if let Some(content) = value.as_str().or_else(|| value.get("content")?.as_str()) {
                tokens.insert(name.clone(), content.to_owned());
            }
        }
    }
    tokens
}

/// The Jinja source, from where transformers' tokenizers take it: a file of its own, else `tokenizer_config.json`. There
/// it is a string, a list of named templates, or an object of them; among several the one named `default` is used.
/// `chat_template.json` belongs to processors of images, and counts only where nothing else is. A template that this
/// program cannot use is left out, with a warning that says why: the model still takes ids and text. Given are what was
/// found, which tells what ends a turn, and what of it is used.
fn chat_template(
    companions: &Companions,
    special: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Result<(Option<String>, Option<String>), CompileError> {
    let Some((path, source)) = template_source(companions, warnings)? else { return Ok((None, None)) };
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
    companions: &'a Companions,
    warnings: &mut Vec<String>,
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
    if let Some((path, bytes)) = companions.file("chat_template.jinja") {
        return match String::from_utf8(bytes.to_vec()) {
            Ok(template) => Ok(Some((path, template))),
            Err(e) => {
                Err(CompileError::Invalid { path: path.to_owned(), problem: format!("is not UTF-8: {e}") })
            }
        };
    }
    for (path, map) in [companions.tokenizer_config(), companions.chat_template()].into_iter().flatten() {
        let Some(value) = map.get("chat_template").filter(|value| !value.is_null()) else { continue };
        let templates = Templates::deserialize(value).map_err(|_| CompileError::Invalid {
            path: path.to_owned(),
            problem: "chat_template is neither a string, nor a list of objects with \"name\" and \"template\", nor an \
                      object of named templates"
                .to_owned(),
        })?;
        let default = match templates {
            Templates::One(template) => Some(template),
            // Of two with one name transformers keeps the last.
            Templates::List(list) => list.into_iter().rfind(|t| t.name == "default").map(|t| t.template),
            Templates::Object(mut named) => named.remove("default"),
        };
        if let Some(default) = default {
            return Ok(Some((path, default)));
        }
        warnings.push(format!("{}: none of the chat templates is named \"default\"", path.display()));
    }
    Ok(None)
}

/// What `generation_config.json` suggests.
fn sampling(companions: &Companions) -> Result<SamplingDefaults, CompileError> {
    #[derive(Deserialize)]
    struct Generation {
        do_sample: Option<bool>,
        temperature: Option<f32>,
        top_k: Option<u32>,
        top_p: Option<f32>,
        min_p: Option<f32>,
        repetition_penalty: Option<f32>,
    }
    let Some((path, map)) = companions.generation_config() else {
        return Ok(SamplingDefaults::default());
    };
    let invalid = |problem: String| CompileError::Invalid { path: path.to_owned(), problem };
    let g = Generation::deserialize(map).map_err(|e| invalid(format!("sampling settings: {e}")))?;
    let limits = [
        ("temperature", g.temperature, 0.0..=f32::MAX),
        ("top_p", g.top_p, 0.0..=1.0),
        ("min_p", g.min_p, 0.0..=1.0),
        ("repetition_penalty", g.repetition_penalty, f32::MIN_POSITIVE..=f32::MAX),
    ];
    for (key, value, range) in limits {
        if let Some(value) = value.filter(|v| !range.contains(v)) {
            return Err(invalid(format!(
                "{key} is {value}, outside {:?}..={:?}",
                range.start(),
                range.end()
            )));
        }
    }
    Ok(SamplingDefaults {
        do_sample: g.do_sample.unwrap_or(false),
        temperature: g.temperature,
        top_k: g.top_k,
        top_p: g.top_p,
        min_p: g.min_p,
        repetition_penalty: g.repetition_penalty,
    })
}

/// Ids of the tokenizer's tokens.
struct Vocabulary {
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    fn read(
        companions: &Companions,
        vocab_size: u32,
        warnings: &mut Vec<String>,
    ) -> Result<Vocabulary, CompileError> {
        let Some((path, bytes)) = companions.file("tokenizer.json") else {
            warnings.push(match companions.has_sentencepiece {
                true => "tokenizer.model is not read, and there is no tokenizer.json: the bundle takes and gives token \
                         ids only. To convert it: python -c \"from transformers import AutoTokenizer as T; \
                         T.from_pretrained('DIR').save_pretrained('DIR')\" with the model's directory as DIR"
                    .to_owned(),
                false => "there is no tokenizer.json: the bundle takes and gives token ids only".to_owned(),
            });
            return Ok(Vocabulary { ids: HashMap::new() });
        };
        let invalid = |problem: String| CompileError::Invalid { path: path.to_owned(), problem };
        let file: TokenizerFile =
            serde_json::from_slice(bytes).map_err(|e| invalid(format!("is not a tokenizer: {e}")))?;
        let mut ids = match file.model.vocab {
            Tokens::Ids(ids) => ids,
            Tokens::Scored(tokens) => tokens.into_iter().map(|(token, _)| token).zip(0..).collect(),
        };
        ids.extend(file.added_tokens.into_iter().map(|token| (token.content, token.id)));
        if ids.is_empty() {
            return Err(invalid("has an empty vocabulary".to_owned()));
        }
        // The highest, and among several the first by name, so that the message is always the same.
        if let Some((token, id)) = ids.iter().max_by_key(|(token, id)| (**id, std::cmp::Reverse(*token)))
            && *id >= vocab_size
        {
            return Err(invalid(format!(
                "token {token:?} has id {id}, but the model's vocab_size is {vocab_size}; the tokenizer belongs to \
                 another model"
            )));
        }
        Ok(Vocabulary { ids })
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }
}

/// The parts of `tokenizer.json` that give tokens their ids.
#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: TokenizerModel,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct TokenizerModel {
    vocab: Tokens,
}

/// BPE and WordPiece number their tokens; Unigram lists them with scores.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tokens {
    Ids(HashMap<String, u32>),
    Scored(Vec<(String, f64)>),
}
