//! How an answer is to be generated, as keyword arguments say it.

use crate::arguments::{
    Keywords, count, from_json, json, number, other_type, other_value, text, texts, truth, whole,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use trit_runtime::format::manifest::SamplingDefaults;
use trit_runtime::guide::Grammar;
use trit_runtime::sample::{Sampler, SamplerOverrides, random_seed, with_biases};

/// Most tokens of an answer where nobody says.
const DEFAULT_TOKENS: usize = 256;
/// Most of the most probable tokens that are told with each token.
const MOST_LOGPROBS: usize = 100;

/// What an answer must be like.
#[derive(Clone)]
pub struct Form {
    /// The argument that says it.
    pub argument: &'static str,
    /// The grammar.
    pub grammar: Grammar,
    /// The text up to which the answer is free.
    pub after: Option<String>,
}

/// How an answer is to be generated.
pub struct Asked {
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// Start of the random sequence.
    pub seed: u64,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Whether to go on after the model says that it is done.
    pub ignore_eos: bool,
    /// What it must be like.
    pub form: Option<Form>,
    /// Python's callables that change logits.
    pub processors: Vec<Py<PyAny>>,
    /// How many of the most probable tokens are told with each token.
    pub logprobs: Option<usize>,
    overrides: SamplerOverrides,
    biases: Vec<(u32, f32)>,
}

impl Asked {
    /// Takes the arguments. `unlimited` says that an answer may be as long as there is room where `max_tokens` is left out.
    pub fn take(keywords: &mut Keywords<'_>, vocab: u32, unlimited: bool) -> PyResult<Asked> {
        let max_tokens = keywords.take("max_tokens")?;
        let max_tokens = max_tokens.map(|value| count("max_tokens", 0, &value)).transpose()?;
        let top_k = keywords.take("top_k")?.map(|value| count("top_k", 0, &value)).transpose()?;
        let mut float = |name: &'static str, expected: &str, fits: fn(f32) -> bool| {
            keywords.take(name)?.map(|value| number(name, expected, &value, fits)).transpose()
        };
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let penalty = |value: f32| (-2.0..=2.0).contains(&value);
        let overrides = SamplerOverrides {
            temperature: float(
                "temperature",
                "a number, 0 or more; 0 takes the most probable token always",
                |v| v >= 0.0,
            )?,
            top_k,
            top_p: float("top_p", "a number from 0 to 1; 1: choose among all", share)?,
            min_p: float("min_p", "a number from 0 to 1; 0: choose among all", share)?,
            repeat_penalty: float("repeat_penalty", "a number above 0; 1: off", |v| v > 0.0)?,
            frequency_penalty: float("frequency_penalty", "a number from -2 to 2; 0: off", penalty)?,
            presence_penalty: float("presence_penalty", "a number from -2 to 2; 0: off", penalty)?,
        };
        let seed = keywords.take("seed")?;
        let seed = seed.map(|value| whole("seed", "a whole number of 64 bits, 0 or more", &value));
        let seed = seed.transpose()?.unwrap_or_else(random_seed);
        let stop = keywords.take("stop")?.map(|value| texts("stop", &value));
        let biases = keywords.take("logit_bias")?.map(|value| biases(&value, vocab));
        let processors = keywords.take("logits_processor")?.map(|value| callables(&value));
        let logprobs = keywords.take("logprobs")?.map(|value| {
            let count = count("logprobs", 0, &value)?;
            let expected = format!("a whole number from 0 to {MOST_LOGPROBS}");
            if count > MOST_LOGPROBS { Err(other_value("logprobs", &expected, &value)) } else { Ok(count) }
        });
        let ignore_eos = keywords.take("ignore_eos")?.map(|value| truth("ignore_eos", &value));
        Ok(Asked {
            max_tokens: max_tokens.unwrap_or(if unlimited { usize::MAX } else { DEFAULT_TOKENS }),
            seed,
            stop: stop.transpose()?.unwrap_or_default(),
            ignore_eos: ignore_eos.transpose()?.unwrap_or(false),
            form: form(keywords)?,
            processors: processors.transpose()?.unwrap_or_default(),
            logprobs: logprobs.transpose()?,
            overrides,
            biases: biases.transpose()?.unwrap_or_default(),
        })
    }

    /// What chooses the tokens of an answer.
    pub fn sampler(&self, defaults: &SamplingDefaults) -> Sampler {
        let rules = with_biases(&defaults.rules, &self.biases);
        Sampler::with_rules(self.overrides.over(defaults, self.seed), &rules)
    }
}

/// `{id: bias}`; minus infinity: never.
fn biases(value: &Bound<'_, PyAny>, vocab: u32) -> PyResult<Vec<(u32, f32)>> {
    let expected = "a dict of token ids and numbers";
    let given = value.cast::<PyDict>().map_err(|_| other_type("logit_bias", expected, value))?;
    let mut biases = Vec::with_capacity(given.len());
    for (id, bias) in given.iter() {
        let range = format!("a token id from 0 to {}", vocab.saturating_sub(1));
        let number: u32 = whole("a key of logit_bias", &range, &id)?;
        if number >= vocab {
            return Err(other_value("a key of logit_bias", &range, &id));
        }
        let name = format!("logit_bias[{number}]");
        let never = bias.extract::<f64>().is_ok_and(|bias| bias == f64::NEG_INFINITY);
        let bias = match never {
            true => f32::NEG_INFINITY,
            false => crate::arguments::number(&name, "a number; -inf: never", &bias, |_| true)?,
        };
        biases.push((number, bias));
    }
    // A dict may hold one number under several keys that are equal only as numbers.
    biases.sort_by_key(|(id, _)| *id);
    Ok(biases)
}

fn callables(value: &Bound<'_, PyAny>) -> PyResult<Vec<Py<PyAny>>> {
    let expected = "a callable or a list of callables that take (ids, logits)";
    let all: Vec<Bound<'_, PyAny>> = match (value.cast::<PyList>(), value.cast::<PyTuple>()) {
        (Ok(list), _) => list.iter().collect(),
        (_, Ok(tuple)) => tuple.iter().collect(),
        _ => vec![value.clone()],
    };
    match all.iter().find(|one| !one.is_callable()) {
        Some(other) => Err(other_type("logits_processor", expected, other)),
        None => Ok(all.into_iter().map(Bound::unbind).collect()),
    }
}

/// `json_schema`, `regex` or `grammar`, and `after`.
fn form(keywords: &mut Keywords<'_>) -> PyResult<Option<Form>> {
    let mut found: Option<(&'static str, Grammar)> = None;
    for argument in ["json_schema", "regex", "grammar", "choices"] {
        let Some(value) = keywords.take(argument)? else { continue };
        if let Some((other, _)) = &found {
            return Err(PyTypeError::new_err(format!("{other} and {argument} exclude each other: pass one")));
        }
        let grammar = match argument {
            "json_schema" if value.is_instance_of::<PyString>() => {
                Grammar::JsonSchema(from_json(argument, &text(argument, &value)?)?)
            }
            "json_schema" => Grammar::JsonSchema(json(argument, &value)?),
            "regex" => Grammar::Regex(text(argument, &value)?),
            "choices" => Grammar::Choice(texts(argument, &value)?),
            _ => Grammar::Lark(text(argument, &value)?),
        };
        found = Some((argument, grammar));
    }
    let after = keywords.take("after")?.map(|value| text("after", &value)).transpose()?;
    match (found, after) {
        (None, Some(_)) => Err(PyValueError::new_err(
            "after needs json_schema, regex, grammar or choices, which say what follows",
        )),
        (found, after) => Ok(found.map(|(argument, grammar)| Form { argument, grammar, after })),
    }
}
