//! What files of the architecture `qwen35` have and no other: keys and heads of a gated DeltaNet, and a draft block after
//! the layers.

use super::architecture_keys::ArchitectureKeys;
use super::names::{layer_part, qwen35_name};
use crate::checkpoint::{Axis, RawTensor, TiledHeads};
use crate::error::CompileError;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Every how many layers one has attention, where the file does not say.
const INTERVAL: u64 = 4;

/// Most layers of a model, a hundred times those of the largest. It bounds the list of their kinds.
const MOST_LAYERS: u64 = 1 << 14;

/// Adds to `config` what keys of this architecture say.
///
/// # Errors
/// Keys that are missing or contradict each other.
pub(super) fn complete(
    keys: &mut ArchitectureKeys,
    config: &mut Map<String, Value>,
    context_length: u64,
) -> Result<(), CompileError> {
    let size = |config: &Map<String, Value>, key: &str| config.get(key).and_then(Value::as_u64).unwrap_or(0);
    let blocks = size(config, "num_hidden_layers");
    let drafts = keys.unsigned("nextn_predict_layers")?.unwrap_or(0);
    if drafts >= blocks || blocks > MOST_LAYERS {
        let problem = format!("is {blocks}, of which {drafts} are draft blocks; that leaves no model");
        return Err(keys.invalid("block_count", problem));
    }
    let layers = blocks - drafts;
    let [taps, key_dim, key_heads, value_heads, inner] =
        ["ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size"]
            .map(|key| keys.size(key));
    let (taps, key_dim, key_heads, value_heads, inner) = (taps?, key_dim?, key_heads?, value_heads?, inner?);
    if key_heads == 0 || value_heads == 0 || value_heads % key_heads != 0 {
        let problem = format!("is {value_heads}, no multiple of ssm.group_count {key_heads}");
        return Err(keys.invalid("ssm.time_step_rank", problem));
    }
    if inner == 0 || inner % value_heads != 0 {
        let problem = format!("is {inner}, no multiple of ssm.time_step_rank {value_heads}");
        return Err(keys.invalid("ssm.inner_size", problem));
    }
    let head_dim = size(config, "head_dim");
    let rotated = keys.size("rope.dimension_count")?;
    if rotated == 0 || rotated > head_dim || rotated % 2 != 0 {
        let problem = format!("is {rotated}, expected an even number up to attention.key_length {head_dim}");
        return Err(keys.invalid("rope.dimension_count", problem));
    }
    let mut rope = json!({
        "rope_type": "default",
        "rope_theta": config.remove("rope_theta"),
        "partial_rotary_factor": rotated as f64 / head_dim as f64,
    });
    if let Some(sections) = sections(keys)? {
        rope["mrope_section"] = sections;
        rope["mrope_interleaved"] = true.into();
    }
    if let Some(Value::Object(scaling)) = keys.rope_scaling(context_length)? {
        scaling.into_iter().for_each(|(key, value)| rope[key] = value);
    }
    let layer_types = layer_types(keys, layers)?;
    config.extend([
        ("num_hidden_layers".to_owned(), layers.into()),
        ("layer_types".to_owned(), layer_types),
        ("linear_conv_kernel_dim".to_owned(), taps.into()),
        ("linear_key_head_dim".to_owned(), key_dim.into()),
        ("linear_value_head_dim".to_owned(), (inner / value_heads).into()),
        ("linear_num_key_heads".to_owned(), key_heads.into()),
        ("linear_num_value_heads".to_owned(), value_heads.into()),
        ("rope_parameters".to_owned(), rope),
    ]);
    Ok(())
}

/// The sections of the head that a position in an image turns; text does not depend on them.
fn sections(keys: &mut ArchitectureKeys) -> Result<Option<Value>, CompileError> {
    let key = keys.named("rope.dimension_sections");
    let Some(list) = keys.metadata.array(&key)? else { return Ok(None) };
    let mut sections = list.numbers().map_err(|e| keys.metadata.invalid(&key, e))?;
    // A fourth section, of size 0, fills up the list.
    while sections.len() > 3 && sections.last() == Some(&0.0) {
        sections.pop();
    }
    if sections.len() != 3 || sections.iter().any(|size| size.fract() != 0.0 || !(0.0..1e6).contains(size)) {
        return Err(keys.metadata.invalid(&key, format!("is {sections:?}, expected three sizes")));
    }
    Ok(Some(sections.into_iter().map(|size| Value::from(size as u64)).collect()))
}

/// The kind of each layer.
fn layer_types(keys: &mut ArchitectureKeys, layers: u64) -> Result<Value, CompileError> {
    let interval = keys.unsigned("full_attention_interval")?.unwrap_or(INTERVAL);
    let key = keys.named("attention.recurrent_layers");
    let recurrent: Vec<bool> = match keys.metadata.array(&key)? {
        Some(list) => {
            let listed = list.bools().map_err(|e| keys.metadata.invalid(&key, e))?;
            // The draft block may be listed too.
            let listed_layers = listed.get(..layers as usize).map(<[bool]>::to_vec);
            listed_layers.ok_or_else(|| {
                let problem = format!("is of {} layers, but the model has {layers}", listed.len());
                keys.metadata.invalid(&key, problem)
            })?
        }
        None if interval == 0 => return Err(keys.invalid("full_attention_interval", "is 0")),
        None => (1..=layers).map(|layer| layer % interval != 0).collect(),
    };
    let name = |recurrent| if recurrent { "linear_attention" } else { "full_attention" };
    Ok(recurrent.into_iter().map(name).collect())
}

/// The tensors of blocks after the layers, which only draft: their names in the file and in checkpoints.
pub(super) fn drafts(
    tensors: &BTreeMap<String, RawTensor>,
    config: &Map<String, Value>,
) -> BTreeMap<String, String> {
    let layers = config.get("num_hidden_layers").and_then(Value::as_u64).unwrap_or(0);
    let draft = |name: &String| {
        let (layer, part) = layer_part(name)?;
        let block = u64::from(layer).checked_sub(layers)?;
        let own = match NEXTN.iter().find(|(gguf, _)| *gguf == part) {
            Some((_, own)) if block == 0 => (*own).to_owned(),
            _ => {
                let of_layer = qwen35_name(&format!("blk.0.{part}"));
                let known = of_layer.as_deref().and_then(|name| name.strip_prefix("model.layers.0."));
                format!("layers.{block}.{}", known.unwrap_or(part))
            }
        };
        Some((name.clone(), format!("mtp.{own}")))
    };
    tensors.keys().filter_map(draft).collect()
}

/// What a draft block has beside a layer.
const NEXTN: [(&str, &str); 4] = [
    ("nextn.eh_proj.weight", "fc.weight"),
    ("nextn.enorm.weight", "pre_fc_norm_embedding.weight"),
    ("nextn.hnorm.weight", "pre_fc_norm_hidden.weight"),
    ("nextn.shared_head_norm.weight", "norm.weight"),
];

/// The order in which value heads are stored, of the tensors that have them.
pub(super) struct ValueHeads {
    heads: TiledHeads,
    /// Rows of queries and keys before those of values, where all three are one matrix.
    queries_and_keys: usize,
}

impl ValueHeads {
    /// By a configuration that [`complete`] made.
    pub(super) fn of(config: &Map<String, Value>) -> Option<ValueHeads> {
        let [key_heads, value_heads, key_dim, value_dim] =
            ["num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim"].map(|key| {
                let size = config.get(&format!("linear_{key}")).and_then(Value::as_u64);
                size.and_then(|size| usize::try_from(size).ok())
            });
        let (key_heads, value_heads, head_dim) = (key_heads?, value_heads?, value_dim?);
        let queries_and_keys = key_heads.checked_mul(key_dim?)?.checked_mul(2)?;
        let per_key_head = value_heads.checked_div(key_heads)?;
        let heads = TiledHeads { axis: Axis::Rows, before: 0, key_heads, per_key_head, head_dim };
        heads.len()?;
        Some(ValueHeads { heads, queries_and_keys })
    }

    /// Whether heads are stored elsewhere than in the usual order.
    pub(super) fn move_at_all(&self) -> bool {
        self.heads.key_heads > 1 && self.heads.per_key_head > 1
    }

    /// How the heads of the tensor `name` are stored; `None` where it has none, or they stand in the usual order. A
    /// folded `ssm_out` has its columns in the usual order.
    pub(super) fn in_tensor(&self, name: &str, folded: bool) -> Option<TiledHeads> {
        let (_, part) = layer_part(name)?;
        let heads = self.heads;
        let found = match part {
            "attn_qkv.weight" | "ssm_conv1d.weight" => TiledHeads { before: self.queries_and_keys, ..heads },
            "attn_gate.weight" => heads,
            "ssm_alpha.weight" | "ssm_beta.weight" | "ssm_a" | "ssm_dt.bias" => {
                TiledHeads { head_dim: 1, ..heads }
            }
            "ssm_out.weight" if !folded => TiledHeads { axis: Axis::Columns, ..heads },
            _ => return None,
        };
        self.move_at_all().then_some(found)
    }
}
