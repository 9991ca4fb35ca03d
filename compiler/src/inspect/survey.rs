//! A [`Survey`] of a checkpoint, for people and for programs.

use crate::error::Warning;
use crate::inspect::{report, size};
use crate::load::Survey;
use crate::model::{Activations, Matrix, Scales, TensorReport};
use serde_json::{Value, json};
use std::fmt::Write;
use trit_format::dense243::Code;
use trit_format::plan::ScaleRule;
use trit_text::printable::escape;

/// A description of the checkpoint, a fact a line; why it is refused is not in it. `words` says a warning.
pub fn describe(survey: &Survey, words: impl Fn(&Warning) -> String) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<11} {}", escape(&value)).expect("writing to a string succeeds");
    };
    let bytes: u64 = survey.files.iter().map(|(_, bytes)| bytes).sum();
    let files = match survey.files.as_slice() {
        [] => String::new(),
        [(name, _)] => format!(", {name}, {}", size(bytes)),
        files => format!(", {} files, {}", files.len(), size(bytes)),
    };
    line("checkpoint", format!("{}{files}", survey.path.display()));
    if let Some(architecture) = survey.architecture {
        line("model", architecture.to_owned());
        line("license", survey.license.clone().unwrap_or_else(|| "not stated".to_owned()));
    }
    if let Some(h) = &survey.sizes {
        line("layers", format!("{}, hidden {}, feed-forward {}", h.n_layers, h.hidden_dim, h.ffn_dim));
        line("heads", format!("{} on {} key/value heads of {}", h.n_heads, h.n_kv_heads, h.head_dim));
        line("vocabulary", format!("{} tokens", h.vocab_size));
        line("context", format!("{} tokens", h.context_length));
    }
    survey.facts.iter().for_each(|(name, fact)| line(name, fact.clone()));
    if let Some(activations) = survey.activations {
        line("activations", activation_type(activations).to_owned());
        line("bundle", format!("about {}, without planes and code", size(bundle_bytes(survey))));
    }
    let reports: Vec<TensorReport> = survey.matrices.iter().map(|(report, _)| report.clone()).collect();
    report(&reports).lines().for_each(|tensor| line("", tensor.to_owned()));
    if let Some(info) = &survey.text {
        line("text", crate::inspect::text_info(info, survey.tokenizer.is_some()));
    }
    survey.warnings.iter().for_each(|warning| line("warning", words(warning)));
    if survey.refusal.is_none() {
        line("compiles", "yes; the codes of packed weights are checked while compiling".to_owned());
    }
    text
}

/// The same and more as a JSON object, without the warnings and why the checkpoint is refused: what a user can do about
/// them depends on the program.
pub fn json(survey: &Survey) -> Value {
    let tensors: Vec<Value> = survey
        .matrices
        .iter()
        .map(|(report, matrix)| {
            json!({
                "name": report.name, "stored": report.stored, "shape": report.shape,
                "found": report.found.to_string(), "scale": matrix.as_ref().and_then(direction),
                "scales": report.scales, "zeros": report.zeros,
                "rounded_groups": report.rounded.map(|rounded| rounded.groups),
            })
        })
        .collect();
    let facts: serde_json::Map<String, Value> =
        survey.facts.iter().map(|(name, fact)| ((*name).to_owned(), fact.as_str().into())).collect();
    let files: Vec<Value> =
        survey.files.iter().map(|(file, bytes)| json!({ "file": file, "bytes": bytes })).collect();
    json!({
        "checkpoint": survey.path.display().to_string(),
        "files": files,
        "architecture": survey.architecture,
        "license": survey.license,
        "hyperparameters": survey.sizes,
        "configuration": facts,
        "activations": survey.activations.map(activation_type),
        "tensors": tensors,
        "text": survey.text.as_ref().map(|text| json!({
            "tokenizer": survey.tokenizer.is_some(),
            "chat_template": text.chat_template.is_some(),
            "bos": text.bos,
            "stop": text.stop,
            "sampling": text.sampling,
        })),
    })
}

fn activation_type(activations: Activations) -> &'static str {
    match activations {
        Activations::PerToken { .. } => "int8, one scale a token",
        Activations::Int8Groups => "int8, a scale for each group of columns",
        Activations::F32 => "f32",
    }
}

/// Whether the scales of a matrix divide or multiply, where it is ternary.
fn direction(matrix: &Matrix) -> Option<&'static str> {
    match matrix.ternary()?.scales {
        Scales::Tensor { rule: ScaleRule::Divide, .. } => Some("divides"),
        Scales::Tensor { .. } | Scales::Rows { .. } => Some("multiplies"),
    }
}

/// Bytes of the weights and tables in the bundle, without what pads them.
fn bundle_bytes(survey: &Survey) -> u64 {
    let matrices = survey.matrices.iter().filter_map(|(_, matrix)| matrix.as_ref());
    matrices
        .map(|matrix| match matrix {
            Matrix::Dense(dense) => dense.bytes().unwrap_or_default() as u64,
            // Five trits a byte, or eight signs.
            Matrix::Ternary(t) => {
                let scales = t.scales_per_row() * t.scale_dtype().size();
                let in_byte = if t.is_signs() { Code::Binary } else { Code::SignedFix }.digits();
                (t.rows * (t.k.div_ceil(in_byte) + scales)) as u64
            }
        })
        .sum()
}
