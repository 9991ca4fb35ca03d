//! How an answer is generated: fields that chat and completions have in common, with the names of OpenAI, and of vLLM and
//! llama-server where OpenAI has none.

use crate::body::Fields;
use crate::chat::{Format, Generation};
use crate::error::ApiError;
use crate::run::{MOST_ANSWERS, MOST_STOPS};
use serde::Deserialize;
use serde_json::{Map, Value};
use trit_runtime::sample::SamplerOverrides;

/// Takes the fields. `vocab` is the number of the model's tokens.
///
/// # Errors
/// [`crate::error::ErrorKind::InvalidRequest`] naming the field.
pub fn take(fields: &mut Fields, vocab: u32) -> Result<Generation, ApiError> {
    let repeat_penalty = fields.number("repeat_penalty", f32::MIN_POSITIVE..=f32::MAX)?;
    let repetition_penalty = fields.number("repetition_penalty", f32::MIN_POSITIVE..=f32::MAX)?;
    let max_completion_tokens = most_tokens(fields, "max_completion_tokens")?;
    let max_tokens = most_tokens(fields, "max_tokens")?;
    Ok(Generation {
        max_tokens: max_completion_tokens.or(max_tokens),
        stop: stop(fields)?,
        n: fields.count("n", 1..=MOST_ANSWERS)?.unwrap_or(1),
        seed: seed(fields)?,
        sampling: SamplerOverrides {
            temperature: fields.number("temperature", 0.0..=f32::MAX)?,
            top_p: fields.number("top_p", 0.0..=1.0)?,
            top_k: top_k(fields)?,
            min_p: fields.number("min_p", 0.0..=1.0)?,
            repeat_penalty: repeat_penalty.or(repetition_penalty),
            frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?,
            presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?,
        },
        logprobs: None,
        logit_bias: logit_bias(fields, vocab)?,
        format: format(fields)?,
        ignore_eos: fields.take("ignore_eos")?.unwrap_or(false),
        user: match fields.take::<String>("safety_identifier")? {
            Some(user) => Some(user),
            None => fields.take("user")?,
        },
    })
}

/// A number of tokens; -1 is no limit, as in llama-server.
fn most_tokens(fields: &mut Fields, name: &str) -> Result<Option<usize>, ApiError> {
    match fields.take::<i64>(name)? {
        None | Some(-1) => Ok(None),
        Some(count) => usize::try_from(count).map(Some).map_err(|_| {
            let message = format!("{name} is {count}, expected 0 or more, or -1 for no limit");
            ApiError::invalid_param(name, message).with_code("invalid_value")
        }),
    }
}

fn top_k(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    match fields.take::<i64>("top_k")? {
        None => Ok(None),
        Some(-1) => Ok(Some(0)),
        Some(k) => usize::try_from(k).map(Some).map_err(|_| {
            let message = format!("top_k is {k}, expected 0 or more; 0 or -1: choose among all");
            ApiError::invalid_param("top_k", message).with_code("invalid_value")
        }),
    }
}

/// Any whole number of 64 bits; -1 is another seed each time, as in llama-server.
pub(crate) fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a whole number of 64 bits")]
    enum Seed {
        Signed(i64),
        Unsigned(u64),
    }
    Ok(match fields.take::<Seed>("seed")? {
        None | Some(Seed::Signed(-1)) => None,
        Some(Seed::Signed(seed)) => Some(seed as u64),
        Some(Seed::Unsigned(seed)) => Some(seed),
    })
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or an array of strings")]
    enum Stop {
        One(String),
        Many(Vec<String>),
    }
    let stop = match fields.take::<Stop>("stop")? {
        None => Vec::new(),
        Some(Stop::One(text)) => vec![text],
        Some(Stop::Many(texts)) => texts,
    };
    check_stop(&stop, "stop")?;
    Ok(stop)
}

/// Refuses too many texts to stop at, and empty ones.
pub(crate) fn check_stop(stop: &[String], param: &str) -> Result<(), ApiError> {
    let refused = |message: String| Err(ApiError::invalid_param(param, message).with_code("invalid_value"));
    if stop.len() > MOST_STOPS {
        return refused(format!("{param} has {} texts, expected no more than {MOST_STOPS}", stop.len()));
    }
    match stop.iter().any(String::is_empty) {
        true => refused(format!("{param} has an empty text; nothing would be generated before it")),
        false => Ok(()),
    }
}

/// `{"50256": -100}`. A token whose bias is `false` is never chosen, as in llama-server.
fn logit_bias(fields: &mut Fields, vocab: u32) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(biases) = fields.take::<Map<String, Value>>("logit_bias")? else { return Ok(Vec::new()) };
    let bias = |(token, bias): (&String, &Value)| {
        let param = format!("logit_bias.{token}");
        let refused = |message: String| ApiError::invalid_param(&*param, message).with_code("invalid_value");
        let id = token.parse::<u32>().ok().filter(|&id| id < vocab);
        let id =
            id.ok_or_else(|| refused(format!("{token:?} is no token id; ids are 0 to {}", vocab - 1)))?;
        match bias {
            Value::Bool(false) => Ok((id, f32::NEG_INFINITY)),
            Value::Number(bias) if bias.as_f64().is_some_and(|bias| (-100.0..=100.0).contains(&bias)) => {
                Ok((id, bias.as_f64().unwrap_or_default() as f32))
            }
            other => Err(refused(format!("the bias is {other}, expected a number from -100 to 100"))),
        }
    };
    biases.iter().map(bias).collect()
}

/// `response_format`: OpenAI's, and `{"type": "regex", "pattern"}` and `{"type": "grammar", "grammar"}`.
fn format(fields: &mut Fields) -> Result<Format, ApiError> {
    #[derive(Deserialize)]
    struct Schema {
        schema: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Asked {
        r#type: String,
        json_schema: Option<Schema>,
        schema: Option<Value>,
        pattern: Option<String>,
        grammar: Option<String>,
    }
    let Some(asked) = fields.take::<Asked>("response_format")? else { return Ok(Format::Text) };
    let missing = |param: &str| {
        ApiError::invalid_param(param, format!("you must provide {param}"))
            .with_code("missing_required_parameter")
    };
    match asked.r#type.as_str() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(asked.schema.map_or(Format::JsonObject, Format::JsonSchema)),
        "json_schema" => {
            let schema = asked.json_schema.and_then(|asked| asked.schema).or(asked.schema);
            schema.map(Format::JsonSchema).ok_or_else(|| missing("response_format.json_schema.schema"))
        }
        "regex" => asked.pattern.map(Format::Regex).ok_or_else(|| missing("response_format.pattern")),
        "grammar" => asked.grammar.map(Format::Lark).ok_or_else(|| missing("response_format.grammar")),
        other => {
            let message =
                format!("the format is {other:?}, expected text, json_object, json_schema, regex or grammar");
            Err(ApiError::invalid_param("response_format.type", message).with_code("invalid_value"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(json: &str) -> Result<Generation, ApiError> {
        take(&mut Fields::parse(json.as_bytes()).unwrap(), 100)
    }

    #[test]
    fn every_field_is_taken() {
        let generation = taken(
            r#"{"max_tokens": 7, "stop": ["a", "b"], "n": 2, "seed": -2, "temperature": 0.5, "top_p": 0.9, "top_k": 40,
                "min_p": 0.1, "repeat_penalty": 1.1, "frequency_penalty": -0.5, "presence_penalty": 0.25,
                "logit_bias": {"5": -3, "6": false}, "response_format": {"type": "json_object"}, "ignore_eos": true,
                "user": "u", "unknown": [1]}"#,
        )
        .unwrap();
        assert_eq!((generation.max_tokens, generation.n, generation.seed), (Some(7), 2, Some(u64::MAX - 1)));
        assert_eq!(generation.stop, ["a", "b"]);
        assert_eq!(
            (generation.sampling.temperature, generation.sampling.top_p, generation.sampling.top_k),
            (Some(0.5), Some(0.9), Some(40))
        );
        assert_eq!((generation.sampling.min_p, generation.sampling.repeat_penalty), (Some(0.1), Some(1.1)));
        assert_eq!(
            (generation.sampling.frequency_penalty, generation.sampling.presence_penalty),
            (Some(-0.5), Some(0.25))
        );
        assert_eq!(generation.logit_bias, [(5, -3.0), (6, f32::NEG_INFINITY)]);
        assert_eq!((generation.format, generation.ignore_eos), (Format::JsonObject, true));
        assert_eq!(generation.user.as_deref(), Some("u"));
        let generation =
            taken(r#"{"max_tokens": 5, "max_completion_tokens": 3, "stop": "x", "top_k": -1, "seed": -1}"#);
        let generation = generation.unwrap();
        assert_eq!(
            (generation.max_tokens, generation.seed, generation.sampling.top_k),
            (Some(3), None, Some(0))
        );
        assert_eq!(generation.stop, ["x"]);
        assert_eq!(taken("{}").unwrap().max_tokens, None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (json, param) in [
            (r#"{"temperature": -1}"#, "temperature"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"temperature": 1e300}"#, "temperature"),
            (r#"{"top_p": 1.5}"#, "top_p"),
            (r#"{"top_k": -2}"#, "top_k"),
            (r#"{"min_p": 2}"#, "min_p"),
            (r#"{"repeat_penalty": 0}"#, "repeat_penalty"),
            (r#"{"frequency_penalty": 3}"#, "frequency_penalty"),
            (r#"{"presence_penalty": -3}"#, "presence_penalty"),
            (r#"{"max_tokens": -2}"#, "max_tokens"),
            (r#"{"max_tokens": 1.5}"#, "max_tokens"),
            (r#"{"n": 0}"#, "n"),
            (r#"{"n": 1000}"#, "n"),
            (r#"{"seed": 0.5}"#, "seed"),
            (r#"{"stop": [1]}"#, "stop"),
            (r#"{"stop": ""}"#, "stop"),
            (r#"{"logit_bias": {"x": 1}}"#, "logit_bias.x"),
            (r#"{"logit_bias": {"100": 1}}"#, "logit_bias.100"),
            (r#"{"logit_bias": {"1": 101}}"#, "logit_bias.1"),
            (r#"{"logit_bias": [1]}"#, "logit_bias"),
            (r#"{"response_format": {"type": "xml"}}"#, "response_format.type"),
            (r#"{"response_format": {"type": "json_schema"}}"#, "response_format.json_schema.schema"),
            (r#"{"response_format": {"type": 3}}"#, "response_format.type"),
            (r#"{"user": 5}"#, "user"),
        ] {
            let error = taken(json).expect_err(json);
            assert_eq!(error.param.as_deref(), Some(param), "{json}: {error}");
            assert_eq!(error.status(), 400);
        }
    }
}
