//! What a bundle is, for people and for programs.

pub mod disasm;
pub mod survey;
pub mod verify;

use crate::bundle::Bundle;
use crate::bundle::sign::{self, Signer};
use crate::bundle::trust;
use crate::model::{Found, TensorReport};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use trit_format::container::SectionKind;
use trit_format::manifest::{Grouping, Manifest, Tensor, TextInfo};
use trit_format::plan::{ActivationRule, DType, Step};
use trit_format::planes::Layout;
use trit_format::target::Target;
use trit_text::printable::escape;

/// A description of the bundle, a fact a line.
pub fn describe(bundle: &Bundle) -> String {
    let (header, m) = (bundle.header(), bundle.manifest());
    let h = &m.hyperparameters;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<11} {}", escape(&value)).expect("writing to a string succeeds");
    };
    line("model", format!("{} ({})", m.model.name, m.model.architecture));
    line("license", m.model.license.clone().unwrap_or_else(|| "not stated".to_owned()));
    line("compiler", m.compiler.clone());
    let recorded = trust::is_recorded(&bundle.fingerprint());
    let trusted = if matches!(recorded, Ok(true)) { "trusted" } else { "not trusted" };
    line(
        "bundle",
        format!("{}, {trusted} on this account, {}", size(header.total_len()), bundle.fingerprint()),
    );
    if let Err(problem) = recorded {
        line("trust", problem.to_string());
    }
    line("signature", signature(bundle));
    line("layers", format!("{}, hidden {}, feed-forward {}", h.n_layers, h.hidden_dim, h.ffn_dim));
    line("heads", format!("{} on {} key/value heads of {}", h.n_heads, h.n_kv_heads, h.head_dim));
    line("vocabulary", format!("{} tokens", h.vocab_size));
    line("context", format!("{} tokens", h.context_length));
    let (weights, bits) = (ternary_weights(m), bits_per_weight(bundle));
    line(
        "ternary",
        format!("{weights} weights in {} products, {bits:.3} bits each", m.packed_matrices.len()),
    );
    for (scales, count) in scales(m) {
        line("scales", format!("{scales}, in {count} of them"));
    }
    line("activations", activations(m).into_iter().collect::<Vec<_>>().join("; "));
    line("tensors", format!("{}, not ternary", m.tensors.len()));
    for table in m.tensors.iter().filter(|tensor| matches!(tensor.dtype, DType::I8Blocks { .. })) {
        let (name, shape, bits) = (&table.name, dimensions(&table.shape), table.dtype.bits());
        line("table", format!("{name}, {shape}, {}, {bits} bits an element", table.dtype));
    }
    line(
        "plan",
        format!(
            "{} steps, {} bytes of arena a token",
            m.plan.body.len() + m.plan.head.len(),
            m.plan.row_bytes
        ),
    );
    if let Some(draft) = bundle.draft() {
        let steps = draft.plan.body.len() + draft.plan.head.len();
        line("draft", format!("a block that drafts tokens, in {steps} steps"));
    }
    for (table, layout) in planes(m) {
        let shape = format!("{} x {}", layout.rows(), layout.hidden());
        line("planes", format!("of {}, {shape}, {} bytes", table.name, layout.bytes()));
    }
    for (target, kernels) in kernels_by_target(m) {
        let bytes: u64 = kernels.iter().map(|(_, len)| len).sum();
        line("kernels", format!("{target}: {} in {bytes} bytes", kernels.len()));
        kernels.iter().for_each(|(name, len)| line("", format!("  {name}, {len} bytes")));
    }
    if m.kernels.is_empty() {
        line("kernels", "none; the runtime generates its own or uses portable ones".to_owned());
    }
    line("text", text_info(&m.text, header.section(SectionKind::Tokenizer).is_some()));
    line("goldens", format!("{}, for the selftest", m.goldens.len()));
    for s in &header.sections {
        line("section", format!("{}: {} bytes at {}, blake3 {}", s.kind, s.len, s.offset, s.digest));
    }
    for s in &m.model.sources {
        line("source", format!("{}: {} bytes, sha256 {}", s.file, s.len, hex(&s.sha256)));
    }
    text
}

/// Who signed a bundle, and whether this user trusts that key.
fn signature(bundle: &Bundle) -> String {
    match bundle.signer() {
        Ok(Signer::Nobody) => "none".to_owned(),
        Ok(Signer::Broken(problem)) => format!("none that holds: it {problem}"),
        Ok(Signer::Key(key)) => match sign::trusted_name(key) {
            Ok(Some(name)) => format!("by {name}, a trusted key, {key}"),
            Ok(None) => format!("by {key}, which is not among the trusted keys"),
            Err(problem) => format!("by {key}; {problem}"),
        },
        Err(problem) => problem.to_string(),
    }
}

/// The same: the key, or null; the name by which it is trusted, or null; what is wrong, or null.
fn signature_json(bundle: &Bundle) -> Value {
    let (key, problem) = match bundle.signer() {
        Ok(Signer::Nobody) => (None, None),
        Ok(Signer::Key(key)) => (Some(key), None),
        Ok(Signer::Broken(problem)) => (None, Some(problem)),
        Err(problem) => (None, Some(problem.to_string())),
    };
    let name = key.map_or(Ok(None), sign::trusted_name);
    let problem = problem.or_else(|| name.as_ref().err().map(ToString::to_string));
    json!({ "key": key.map(|key| key.to_string()), "trusted_as": name.ok().flatten(), "problem": problem })
}

/// What was found in the matrices of a checkpoint, a line for each. Matrices that differ only in their layer and in
/// counts share a line.
pub fn report(tensors: &[TensorReport]) -> String {
    let mut kinds: Vec<(String, Vec<&TensorReport>)> = Vec::new();
    for tensor in tensors {
        let (name, shape) = (without_layer(&tensor.name), dimensions(&tensor.shape));
        let kind = format!("tensor {name} {} {shape}: {}", tensor.stored, tensor.found);
        match kinds.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, tensors)) => tensors.push(tensor),
            None => kinds.push((kind, vec![tensor])),
        }
    }
    let mut text = String::new();
    for (kind, tensors) in kinds {
        text.push_str(&escape(&kind));
        if tensors[0].found != Found::PerTensor {
            text.push_str(&range(tensors.iter().map(|t| t.scales), " different"));
        }
        let percent = |zeros: f64| (100.0 * zeros).round() as u64;
        text.push_str(&range(tensors.iter().map(|t| t.zeros.map(percent)), "% zeros"));
        let rounded: u64 = tensors.iter().filter_map(|t| Some(t.rounded?.groups)).sum();
        if rounded > 0 {
            write!(text, ", {rounded} groups rounded").expect("writing to a string succeeds");
        }
        if tensors.len() > 1 {
            write!(text, " ({} times)", tensors.len()).expect("writing to a string succeeds");
        }
        text.push('\n');
    }
    text
}

/// The least and the greatest of numbers, with a comma before and `unit` behind them; nothing where one of them is
/// not known.
fn range(numbers: impl Iterator<Item = Option<u64>>, unit: &str) -> String {
    let Some(numbers) = numbers.collect::<Option<Vec<u64>>>() else { return String::new() };
    match (numbers.iter().min(), numbers.iter().max()) {
        (Some(least), Some(most)) if least != most => format!(", {least} to {most}{unit}"),
        (Some(one), _) => format!(", {one}{unit}"),
        _ => String::new(),
    }
}

/// The same, an object for each tensor.
pub fn report_json(tensors: &[TensorReport]) -> Value {
    let tensor = |t: &TensorReport| {
        json!({
            "name": t.name, "shape": t.shape, "stored": t.stored, "found": t.found.to_string(),
            "scales": t.scales, "zeros": t.zeros, "rounded_groups": t.rounded.map(|rounded| rounded.groups),
        })
    };
    tensors.iter().map(tensor).collect()
}

/// A tensor's name with a star in place of its first number, which is that of its layer.
fn without_layer(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('.').collect();
    if let Some(number) = parts.iter_mut().find(|p| p.bytes().all(|b| b.is_ascii_digit())) {
        *number = "*";
    }
    parts.join(".")
}

/// The same and more as a JSON object.
pub fn json(bundle: &Bundle) -> Value {
    let (header, m) = (bundle.header(), bundle.manifest());
    let packed_matrices: Vec<Value> = m
        .packed_matrices
        .iter()
        .map(|p| {
            let segments: Vec<Value> = p
                .segments
                .iter()
                .map(|s| json!({ "name": s.name, "rows": s.rows, "scale": s.scale, "rule": lower(s.rule) }))
                .collect();
            json!({
                "name": p.name, "rows": p.rows(), "k": p.k, "code": p.code.name(), "order": lower(p.order),
                "offset": p.offset, "bytes": p.bytes(), "segments": segments,
                "grouping": p.grouping.map(|g| json!({
                    "columns": g.columns, "scale_columns": g.scale_columns, "scale": lower(g.scale),
                })),
            })
        })
        .collect();
    let tensors: Vec<Value> = m.tensors.iter().map(|t| {
        json!({
            "name": t.name, "dtype": t.dtype.to_string(), "bits": t.dtype.bits(), "shape": t.shape, "offset": t.offset,
            "bytes": t.bytes(),
        })
    }).collect();
    let planes: Vec<Value> =
        planes(m).map(|(table, layout)| json!({ "table": table.name, "bytes": layout.bytes() })).collect();
    let kernels: Vec<Value> = m
        .kernels
        .iter()
        .map(|k| {
            json!({
                "name": k.spec.to_string(), "target": k.target.name(), "abi": k.abi, "bytes": k.len,
                "blake3": k.digest.to_string(),
            })
        })
        .collect();
    let sections: Vec<Value> = header.sections.iter().map(|s| {
        json!({ "kind": s.kind.to_string(), "offset": s.offset, "bytes": s.len, "blake3": s.digest.to_string() })
    }).collect();
    let sources: Vec<Value> = m
        .model
        .sources
        .iter()
        .map(|s| json!({ "file": s.file, "bytes": s.len, "sha256": hex(&s.sha256) }))
        .collect();
    let recorded = trust::is_recorded(&bundle.fingerprint());
    json!({
        "bundle": bundle.path().display().to_string(),
        "bytes": header.total_len(),
        "fingerprint": bundle.fingerprint(),
        "trusted": matches!(recorded, Ok(true)),
        "signature": signature_json(bundle),
        "trust_problem": recorded.err().map(|problem| problem.to_string()),
        "compiler": m.compiler,
        "name": m.model.name,
        "architecture": m.model.architecture,
        "license": m.model.license,
        "sources": sources,
        "hyperparameters": m.hyperparameters,
        "ternary_weights": ternary_weights(m),
        "bits_per_weight": bits_per_weight(bundle),
        "sections": sections,
        "activations": activations(m),
        "products": packed_matrices,
        "tensors": tensors,
        "planes": planes,
        "kernels": kernels,
        "steps": m.plan.body.len() + m.plan.head.len(),
        "arena_bytes_per_token": m.plan.row_bytes,
        "draft": bundle.draft().map(|draft| {
            json!({
                "steps": draft.plan.body.len() + draft.plan.head.len(),
                "arena_bytes_per_token": draft.plan.row_bytes,
            })
        }),
        "text": {
            "tokenizer": header.section(SectionKind::Tokenizer).is_some(),
            "chat_template": m.text.chat_template.is_some(),
            "bos": m.text.bos,
            "stop": m.text.stop,
            "sampling": m.text.sampling,
        },
        "goldens": m.goldens.len(),
    })
}

/// What there is of text, in words.
pub(crate) fn text_info(text: &TextInfo, tokenizer: bool) -> String {
    let tokenizer = if tokenizer { "tokenizer" } else { "no tokenizer (takes and gives token ids only)" };
    let template = if text.chat_template.is_some() { "chat template" } else { "no chat template" };
    let bos = text.bos.map_or_else(|| "none".to_owned(), |id| id.to_string());
    format!("{tokenizer}, {template}, bos {bos}, stops at {:?}", text.stop)
}

fn ternary_weights(manifest: &Manifest) -> u64 {
    manifest.packed_matrices.iter().map(|p| p.rows() * u64::from(p.k)).sum()
}

fn bits_per_weight(bundle: &Bundle) -> f64 {
    let bytes = bundle.header().section(SectionKind::Weights).map_or(0, |s| s.len);
    8.0 * bytes as f64 / ternary_weights(bundle.manifest()).max(1) as f64
}

/// How finely packed matrices are scaled, and how many are so.
fn scales(manifest: &Manifest) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for matrix in &manifest.packed_matrices {
        let kind = match matrix.grouping {
            None => "one a matrix".to_owned(),
            Some(Grouping { scale_columns: 0, scale, .. }) => format!("{} for each row", lower(scale)),
            Some(Grouping { scale_columns, scale, .. }) => {
                format!("{} for {scale_columns} columns of each row", lower(scale))
            }
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Types of activations in ternary products.
fn activations(manifest: &Manifest) -> BTreeSet<String> {
    let steps = manifest.plan.body.iter().chain(&manifest.plan.head);
    let rules = steps.filter_map(|step| match step {
        Step::Quantize { rule, .. } | Step::NormQuantize { rule, .. } | Step::RotateQuantize { rule, .. } => {
            Some(*rule)
        }
        _ => None,
    });
    let text = |rule| match rule {
        ActivationRule::AbsmaxPerToken { .. } => "int8, a scale for each token".to_owned(),
        ActivationRule::AbsmaxPerGroup { columns } => format!("int8, a scale for each {columns} columns"),
        ActivationRule::Fixed24PerGroup { .. } => "f32".to_owned(),
        other => lower(other),
    };
    rules.map(text).collect()
}

/// The tables that have planes, and the layouts of these.
fn planes(manifest: &Manifest) -> impl Iterator<Item = (&Tensor, Layout)> {
    let tables = manifest.planes.iter().filter_map(|p| manifest.tensors.get(p.table.0 as usize));
    tables.filter_map(|t| match t.shape[..] {
        [rows, hidden] => Some((t, Layout::new(rows, hidden)?)),
        _ => None,
    })
}

/// Names and sizes of each target's kernels.
fn kernels_by_target(manifest: &Manifest) -> BTreeMap<Target, Vec<(String, u64)>> {
    let mut targets: BTreeMap<Target, Vec<(String, u64)>> = BTreeMap::new();
    for k in &manifest.kernels {
        targets.entry(k.target).or_default().push((k.spec.to_string(), k.len));
    }
    targets
}

/// Sizes with crosses between them.
fn dimensions(shape: &[impl ToString]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// The name of an enum's variant in small letters.
fn lower(variant: impl std::fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A number of bytes, for people.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        _ => format!("{bytes} bytes"),
    }
}
