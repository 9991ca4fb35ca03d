//! A GGUF file becomes what the files of a checkpoint become: companions and tensors by their checkpoint names.

use super::architecture::{Architecture, Facts};
use super::metadata::Metadata;
use super::names::{self, checkpoint_name};
use super::parts::Gguf;
use super::{floats, tokenizer};
use crate::arch::Decoder;
use crate::error::{CompileError, Warnings};
use crate::ingest::LoadOptions;
use crate::ingest::checkpoint::{Checkpoint, ElementType, RawTensor};
use crate::ingest::companions::Companions;
use crate::model::{Activations, Matrix, Scales};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is in a GGUF file.
pub(crate) struct Imported {
    /// As the small files beside a checkpoint.
    pub(crate) companions: Companions,
    /// The tensors. Those of floats in blocks are widened already.
    pub(crate) checkpoint: Checkpoint,
    /// Keys to be ignored that are none of the file's.
    pub(crate) ignored: Vec<String>,
    /// What is to be done to the model when it is built.
    pub(crate) finish: Finish,
}

/// What no `config.json` can say.
pub(crate) struct Finish {
    path: PathBuf,
    /// Divisors of the RoPE frequencies.
    rope_factors: Option<Vec<f32>>,
    trained: Trained,
}

/// With which activations the model was trained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trained {
    /// Int8 with a scale for each token: the architecture says so.
    PerToken,
    /// The same, if its name says the truth, and its weights have one scale per matrix.
    PerTokenByName,
    Unknown,
}

/// Reads the file at `path`, or the parts of which it is the first.
///
/// # Errors
/// Damage, and what is not known, by key or tensor.
pub(crate) fn import(
    path: &Path,
    options: &LoadOptions,
    warnings: &mut Warnings,
) -> Result<Imported, CompileError> {
    let mut gguf = Gguf::open(path)?;
    let mut metadata = Metadata::new(path, std::mem::take(&mut gguf.keys));
    let mut rest = Vec::new();
    for key in &options.ignore_config_keys {
        match metadata.ignore(key) {
            Some(value) => warnings.push(format!("{}: {key} ({value}) is ignored, as asked", path.display())),
            None => rest.push(key.clone()),
        }
    }
    let (architecture, name) = Architecture::take(&mut metadata)?;
    let rope_factors =
        gguf.tensors.remove("rope_freqs.weight").map(|tensor| rope_factors(&tensor)).transpose()?;
    let facts = facts(&gguf)?;
    let mut config = architecture.config(&name, &mut metadata, &facts, warnings)?;
    let text = match options.without_tokenizer {
        true => tokenizer::ids_alone(&mut metadata, facts.vocab_size, warnings)?,
        false => tokenizer::text(&mut metadata, facts.vocab_size, warnings)?,
    };
    config.insert("eos_token_id".to_owned(), json!(text.stop));
    config.insert("bos_token_id".to_owned(), json!(text.bos));
    let trained = trained(architecture, &mut metadata)?;
    let license = metadata.text("general.license")?;
    metadata.refuse_rest()?;
    let heads = architecture.interleaves().then(|| heads(&config));
    let Gguf { path, files, tensors, .. } = gguf;
    let checkpoint = Checkpoint::renamed(path.clone(), files, checkpoint(tensors, heads)?);
    let companions = Companions::synthesized(&path, config, text.config, text.tokenizer, license);
    let finish = Finish { path, rope_factors, trained };
    Ok(Imported { companions, checkpoint, ignored: rest, finish })
}

/// What the tensors say about the model.
fn facts(gguf: &Gguf) -> Result<Facts, CompileError> {
    let key = "token_embd.weight";
    let embedding = gguf.tensors.get(key).ok_or_else(|| CompileError::Tensor {
        path: gguf.path.clone(),
        tensor: key.to_owned(),
        problem: "is missing; the file holds no language model, or is one of several parts".to_owned(),
    })?;
    let &[vocab_size, _] = embedding.shape.as_slice() else {
        return Err(embedding.error(format!("has shape {:?}, expected two dimensions", embedding.shape)));
    };
    Ok(Facts {
        vocab_size,
        head: gguf.tensors.contains_key("output.weight"),
        scales: gguf.tensors.keys().any(|name| name.starts_with("blk.") && name.ends_with(".scale")),
    })
}

/// Query and KV heads.
fn heads(config: &Map<String, Value>) -> [usize; 2] {
    ["num_attention_heads", "num_key_value_heads"]
        .map(|key| config.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
}

/// Renames tensors and widens floats in blocks. `heads` are those whose rows are interleaved.
fn checkpoint(
    tensors: BTreeMap<String, RawTensor>,
    heads: Option<[usize; 2]>,
) -> Result<BTreeMap<String, RawTensor>, CompileError> {
    let mut renamed = BTreeMap::new();
    for (name, mut tensor) in tensors {
        let key = checkpoint_name(&name).unwrap_or_else(|| name.clone());
        if names::is_float(&name) {
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

/// `rope_freqs.weight`: what Llama 3's scaling divides each frequency by.
fn rope_factors(tensor: &RawTensor) -> Result<Vec<f32>, CompileError> {
    if tensor.dtype != ElementType::F32 {
        return Err(tensor.unsupported(format!("is {}, which is not supported; expected F32", tensor.dtype)));
    }
    if tensor.shape.len() != 1 {
        return Err(tensor.error(format!("has shape {:?}, expected one dimension", tensor.shape)));
    }
    let factors: Vec<f32> =
        tensor.bytes.as_ref().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    // Below one are the frequencies themselves, which the first converters of BitNet wrote under this name.
    match factors.iter().position(|factor| !(factor.is_finite() && *factor >= 1.0)) {
        None => Ok(factors),
        Some(at) => Err(tensor.error(format!(
            "holds {} at {at}, expected divisors of frequencies, none below 1; convert the model again",
            factors[at]
        ))),
    }
}

/// BitNet models converted as Llama are known by name alone.
fn trained(architecture: Architecture, metadata: &mut Metadata) -> Result<Trained, CompileError> {
    if architecture.is_bitnet() {
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

impl Finish {
    /// What it adds to the facts of a configuration, a name and a fact each, for people.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let divisors = self.rope_factors.as_ref().map(|factors| {
            let most = factors.iter().copied().fold(1.0, f32::max);
            ("divisors", format!("of RoPE's frequencies, up to {most}, from rope_freqs.weight"))
        });
        divisors.into_iter().collect()
    }

    /// Completes a model that was built from the configuration and the tensors.
    ///
    /// # Errors
    /// RoPE factors of another number; a BitNet model with scales that differ inside a matrix.
    pub(crate) fn apply(self, model: &mut Decoder, warnings: &mut Warnings) -> Result<(), CompileError> {
        if let Some(factors) = &self.rope_factors {
            self.divide_frequencies(model, factors)?;
        }
        let head = model.head.as_ref().unwrap_or(&model.embedding);
        let unlike = model.layers.iter().flat_map(|l| l.projections()).find(|p| !has_one_scale(&p.matrix));
        let unlike = unlike.map(|p| &p.matrix).or(Some(head).filter(|head| head.ternary().is_some()));
        let per_token = Activations::PerToken { floor: 1e-5 };
        match (self.trained, unlike.map(|matrix| matrix.name().to_owned())) {
            (Trained::PerToken, None) => model.activations = per_token,
            (Trained::PerToken, Some(name)) => {
                return Err(CompileError::Tensor {
                    path: self.path,
                    tensor: name,
                    problem: "is not ternary with one scale, as all linear layers of a BitNet model are, nor a head \
                              of floats; its weights were quantized a second time, convert the model again"
                        .to_owned(),
                });
            }
            (Trained::PerTokenByName, None) => {
                model.activations = per_token;
                warnings.push(
                    "the model is taken for a BitNet model by its name, and runs with one activation scale a token"
                        .to_owned(),
                );
            }
            (Trained::PerTokenByName | Trained::Unknown, _) => {}
        }
        Ok(())
    }

    fn divide_frequencies(&self, model: &mut Decoder, factors: &[f32]) -> Result<(), CompileError> {
        for rope in &mut model.ropes {
            if rope.inv_freq.len() != factors.len() {
                return Err(CompileError::Tensor {
                    path: self.path.clone(),
                    tensor: "rope_freqs.weight".to_owned(),
                    problem: format!(
                        "has {} elements, but heads have {} frequencies",
                        factors.len(),
                        rope.inv_freq.len()
                    ),
                });
            }
            rope.inv_freq.iter_mut().zip(factors).for_each(|(frequency, factor)| *frequency /= factor);
        }
        Ok(())
    }
}

fn has_one_scale(matrix: &Matrix) -> bool {
    matrix.ternary().is_some_and(|ternary| matches!(ternary.scales, Scales::Tensor { .. }))
}
