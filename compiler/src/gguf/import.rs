//! Turns a GGUF file into what the files of a checkpoint give: model files, and tensors by their checkpoint names.

use super::architecture::{Architecture, TensorFacts};
use super::hadamard;
use super::i2s;
use super::metadata::Metadata;
use super::minicpm;
use super::names::{self, checkpoint_name};
use super::parts::Gguf;
use super::qwen35;
use super::sampling;
use super::tokenizer;
use crate::checkpoint::overrides::{Overrides, Trained};
use crate::checkpoint::{Checkpoint, ElementType, I2sLayout, RawTensor};
use crate::error::{CompileError, Warnings};
use crate::files::model_files::ModelFiles;
use crate::weights::{floats, order};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What is in a GGUF file.
pub(crate) struct Imported {
    /// As the small files beside a checkpoint.
    pub(crate) model_files: ModelFiles,
    /// The tensors. Floats that are stored in blocks are widened already.
    pub(crate) checkpoint: Checkpoint,
    /// Keys that are to be ignored and that the file does not have.
    pub(crate) ignored: Vec<String>,
    /// What no `config.json` can say.
    pub(crate) overrides: Overrides,
    /// The layout of its I2_S tensors, and how it was found out; `None` where there are none.
    pub(crate) i2s_layout: Option<String>,
}

/// Reads the file at `path`, or the parts of which it is the first. `ignored` are keys to be treated as absent.
///
/// # Errors
/// The file is damaged, or a key or tensor is not known.
pub(crate) fn import(
    path: &Path,
    ignored: &[String],
    without_tokenizer: bool,
    i2s_layout: Option<I2sLayout>,
    warnings: &mut Warnings,
) -> Result<Imported, CompileError> {
    let mut gguf = Gguf::open(path)?;
    let mut metadata = Metadata::new(path, std::mem::take(&mut gguf.keys));
    let mut rest = Vec::new();
    for key in ignored {
        match metadata.ignore(key) {
            Some(value) => warnings.push(format!("{}: {key} ({value}) is ignored, as asked", path.display())),
            None => rest.push(key.clone()),
        }
    }
    let (architecture, name) = Architecture::take(&mut metadata)?;
    let rope_divisors =
        gguf.tensors.remove("rope_freqs.weight").map(|tensor| rope_divisors(&tensor)).transpose()?;
    let long_factors = match architecture {
        Architecture::Minicpm => minicpm::take_factors(&mut gguf)?,
        _ => None,
    };
    let facts = TensorFacts { long_factors, ..facts(&gguf)? };
    let (vocab_size, inner_norms) = (facts.vocab_size, facts.inner_norms);
    let mut config = architecture.config(&name, &mut metadata, facts, warnings)?;
    let text = match without_tokenizer {
        true => tokenizer::ids_alone(&mut metadata, vocab_size, warnings)?,
        false => tokenizer::text(&mut metadata, vocab_size, warnings)?,
    };
    config.insert("eos_token_id".to_owned(), json!(text.stop));
    config.insert("bos_token_id".to_owned(), json!(text.bos));
    let trained = trained(architecture, inner_norms, &mut metadata)?;
    // The linears' norms have the epsilon of the others.
    let inner_norms = config["rms_norm_eps"].as_f64().filter(|_| inner_norms).map(|eps| eps as f32);
    let license = metadata.text("general.license")?;
    let generation = sampling::generation_config(&mut metadata, warnings)?;
    let layout_fact = i2s::lay_out(&mut gguf, heads(&config), i2s_layout)?;
    let mut overrides = Overrides { rope_divisors, trained, inner_norms, ..Overrides::default() };
    let tensors = match architecture {
        Architecture::Qwen35 => hybrid(&mut gguf, &mut metadata, &config, &mut overrides, warnings)?,
        _ => {
            let heads = architecture.interleaves().then(|| heads(&config));
            let own_name = match architecture {
                Architecture::HunyuanDense => names::hunyuan_name,
                _ => checkpoint_name,
            };
            checkpoint(std::mem::take(&mut gguf.tensors), own_name, heads)?
        }
    };
    metadata.refuse_rest()?;
    let Gguf { path, files, .. } = gguf;
    let checkpoint = Checkpoint::renamed(path.clone(), files, tensors);
    let model_files = ModelFiles::synthesized(&path, config, text.config, text.tokenizer, license)
        .with_generation_config(generation);
    Ok(Imported { model_files, checkpoint, ignored: rest, overrides, i2s_layout: layout_fact })
}

/// What the tensors say about the model.
fn facts(gguf: &Gguf) -> Result<TensorFacts, CompileError> {
    let key = "token_embd.weight";
    let embedding = gguf.tensors.get(key).ok_or_else(|| CompileError::Tensor {
        path: gguf.path.clone(),
        tensor: key.to_owned(),
        problem: "is missing; the file holds no language model, or is one of several parts".to_owned(),
    })?;
    let &[vocab_size, _] = embedding.shape.as_slice() else {
        return Err(embedding.error(format!("has shape {:?}, expected two dimensions", embedding.shape)));
    };
    Ok(TensorFacts {
        vocab_size,
        head: gguf.tensors.contains_key("output.weight"),
        scales: gguf.tensors.keys().any(|name| name.starts_with("blk.") && name.ends_with(".scale")),
        inner_norms: gguf
            .tensors
            .keys()
            .any(|name| name.starts_with("blk.") && name.ends_with("_norm_in.weight")),
        long_factors: None,
    })
}

/// Query and KV heads.
fn heads(config: &Map<String, Value>) -> [usize; 2] {
    ["num_attention_heads", "num_key_value_heads"]
        .map(|key| config.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
}

/// Renames tensors and widens vectors in blocks. `heads` are those whose rows are interleaved.
fn checkpoint(
    tensors: BTreeMap<String, RawTensor>,
    own_name: fn(&str) -> Option<String>,
    heads: Option<[usize; 2]>,
) -> Result<BTreeMap<String, RawTensor>, CompileError> {
    let mut renamed = BTreeMap::new();
    for (name, mut tensor) in tensors {
        let key = own_name(&name).unwrap_or_else(|| name.clone());
        if names::is_float(&name) && !stays_in_blocks(&name, &tensor) {
            tensor = floats::widened(tensor)?;
        }
        if let Some([q, kv]) = heads {
            tensor.interleaved_heads = match key.rsplit_once(".self_attn.") {
                Some((_, "q_proj.weight")) => Some(q),
                Some((_, "k_proj.weight")) => Some(kv),
                _ => None,
            };
        }
        renamed.insert(key, tensor);
    }
    Ok(renamed)
}

/// The tensors of a `qwen35` file, renamed, with value heads in the usual order: matrices say how they are stored, all
/// else is written anew. Overrides say what else such files have changed.
fn hybrid(
    gguf: &mut Gguf,
    metadata: &mut Metadata,
    config: &Map<String, Value>,
    overrides: &mut Overrides,
    warnings: &mut Warnings,
) -> Result<BTreeMap<String, RawTensor>, CompileError> {
    let mut drafts = qwen35::drafts(&gguf.tensors, config);
    let heads = qwen35::ValueHeads::of(config);
    let folded = hadamard::take(metadata, &gguf.tensors, &drafts, heads.as_ref())?;
    if folded.as_ref().is_some_and(|folded| folded.rotated_drafts) {
        warnings.draft_left_out(drafts.len(), "is rotated");
        gguf.tensors.retain(|name, _| !drafts.contains_key(name));
        drafts.clear();
    }
    let mut renamed = BTreeMap::new();
    for (name, mut tensor) in std::mem::take(&mut gguf.tensors) {
        let own = drafts.remove(&name).or_else(|| names::qwen35_name(&name));
        let key = own.unwrap_or_else(|| name.clone());
        if names::is_float(&name) && !stays_in_blocks(&name, &tensor) {
            tensor = floats::widened(tensor)?;
        }
        let is_folded = folded.as_ref().is_some_and(|folded| folded.names.contains(&name));
        tensor.tiled_heads = heads.as_ref().and_then(|heads| heads.in_tensor(&name, is_folded));
        if let Some(heads) = &tensor.tiled_heads {
            heads.expect(&tensor)?;
            if !is_matrix(&name) {
                tensor = order::rewritten(tensor)?;
            }
        }
        if let Some(other) = renamed.insert(key, tensor) {
            return Err(
                other.error(format!("and {name} are the same part of a layer; it is unclear which counts"))
            );
        }
    }
    (overrides.norms_whole, overrides.decay_rates) = (true, true);
    overrides.rotations = folded.map(|folded| folded.rotations);
    Ok(renamed)
}

/// Whether floats in blocks are a matrix, which is read block by block. All else is widened once.
fn stays_in_blocks(name: &str, tensor: &RawTensor) -> bool {
    tensor.shape.len() == 2 && is_matrix(name)
}

/// Whether a tensor with heads is a product's matrix, whose rows are read in the usual order when they are asked for.
fn is_matrix(name: &str) -> bool {
    name.ends_with(".weight") && !name.ends_with(".ssm_conv1d.weight")
}

/// `rope_freqs.weight`: what Llama 3's scaling divides each frequency by.
fn rope_divisors(tensor: &RawTensor) -> Result<Vec<f32>, CompileError> {
    if tensor.dtype != ElementType::F32 {
        return Err(tensor.unsupported(format!("is {}, which is not supported; expected F32", tensor.dtype)));
    }
    if tensor.shape.len() != 1 {
        return Err(tensor.error(format!("has shape {:?}, expected one dimension", tensor.shape)));
    }
    let factors: Vec<f32> =
        tensor.bytes.as_ref().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    // Numbers below one are the frequencies themselves. The first converters of BitNet wrote them under this name.
    match factors.iter().position(|factor| !(factor.is_finite() && *factor >= 1.0)) {
        None => Ok(factors),
        Some(at) => Err(tensor.error(format!(
            "holds {} at {at}, expected divisors of frequencies, none below 1; convert the model again",
            factors[at]
        ))),
    }
}

/// BitNet models that were converted as Llama can only be recognized by their names.
fn trained(
    architecture: Architecture,
    inner_norms: bool,
    metadata: &mut Metadata,
) -> Result<Trained, CompileError> {
    // Only BitNet has norms inside linears, and it quantizes what they give.
    if architecture.is_bitnet() || inner_norms {
        return Ok(Trained::PerToken);
    }
    for key in ["general.name", "general.basename", "general.finetune", "general.base_model.0.name"] {
        let name = metadata.text(key)?.unwrap_or_default().to_lowercase();
        if name.contains("1.58") || name.contains("bitnet") {
            return Ok(Trained::PerTokenByName);
        }
    }
    Ok(Trained::Unknown)
}
