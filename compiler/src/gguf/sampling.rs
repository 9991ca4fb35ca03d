//! How texts are to be sampled, `general.sampling.*`: what converters take from a model's `generation_config.json` goes back
//! into one.

use super::metadata::Metadata;
use crate::error::{CompileError, Warnings};
use serde_json::{Map, Value, json};

/// Keys after `general.sampling.`, and those of `generation_config.json`.
const KEYS: [(&str, &str); 5] = [
    ("temp", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("penalty_repeat", "repetition_penalty"),
];

/// Keys that change what llama.cpp samples and that are not applied, and the value with which they change nothing.
const NOT_APPLIED: [(&str, f64); 2] = [("xtc_probability", 0.0), ("mirostat", 0.0)];

/// Takes what is said of sampling, as a `generation_config.json`; `None` where nothing is said.
///
/// # Errors
/// Values that are no finite numbers.
pub(super) fn generation_config(
    metadata: &mut Metadata,
    warnings: &mut Warnings,
) -> Result<Option<Map<String, Value>>, CompileError> {
    let mut config = Map::new();
    for (key, name) in KEYS {
        if let Some(value) = metadata.number(&format!("general.sampling.{key}"))? {
            // F32 is widened to f64 in JSON, which would show digits that nobody wrote.
            let value =
                if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(value) };
            config.insert(name.to_owned(), value);
        }
    }
    for (key, neutral) in NOT_APPLIED {
        let key = format!("general.sampling.{key}");
        if let Some(value) = metadata.number(&key)?.filter(|value| *value != neutral) {
            warnings.push(format!("metadata key {key} ({value}) is not applied"));
        }
    }
    if config.is_empty() {
        return Ok(None);
    }
    // A temperature of zero is how llama.cpp chooses the likeliest token.
    let samples = config.get("temperature").and_then(Value::as_f64) != Some(0.0);
    if !samples {
        config.remove("temperature");
    }
    config.insert("do_sample".to_owned(), samples.into());
    Ok(Some(config))
}
