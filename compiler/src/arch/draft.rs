//! The block of a checkpoint that drafts tokens (`mtp.*`), as Qwen 3.5's is: norms of a token's embedding and of the model's
//! normalized state before it, a projection of both, a layer with attention, and a norm before the model's own head.
//!
//! Texts do not depend on it, so a block that is not understood is left out and named.

use crate::arch::decoder::Tensors;
use crate::error::{CompileError, Warnings};
use crate::model::DraftBlock;
use std::collections::BTreeSet;

/// How the names of its tensors begin.
const PREFIX: &str = "mtp.";
/// The tensors of a block, after the prefix.
const PARTS: [&str; 15] = [
    "fc.weight",
    "pre_fc_norm_embedding.weight",
    "pre_fc_norm_hidden.weight",
    "norm.weight",
    "layers.0.input_layernorm.weight",
    "layers.0.self_attn.q_proj.weight",
    "layers.0.self_attn.k_proj.weight",
    "layers.0.self_attn.v_proj.weight",
    "layers.0.self_attn.o_proj.weight",
    "layers.0.self_attn.q_norm.weight",
    "layers.0.self_attn.k_norm.weight",
    "layers.0.post_attention_layernorm.weight",
    "layers.0.mlp.gate_proj.weight",
    "layers.0.mlp.up_proj.weight",
    "layers.0.mlp.down_proj.weight",
];

/// Takes the tensors of the block; `None` where there are none, and where it is left out, because the user wants that or
/// because it is another.
///
/// # Errors
/// Tensors of another shape or type.
pub(crate) fn take(
    tensors: &mut Tensors<'_>,
    left_out: bool,
    warnings: &mut Warnings,
) -> Result<Option<DraftBlock>, CompileError> {
    let names = tensors.checkpoint.tensors().keys();
    let found: BTreeSet<String> = names.filter_map(|n| n.strip_prefix(PREFIX)).map(str::to_owned).collect();
    if found.is_empty() {
        return Ok(None);
    }
    let missing =
        PARTS.iter().find(|part| !found.contains(**part)).map(|part| format!("lacks {PREFIX}{part}"));
    let other = found.iter().find(|name| !PARTS.contains(&name.as_str()));
    let problem = missing.or(other.map(|name| format!("has {PREFIX}{name}, which is not known")));
    if left_out || problem.is_some() {
        found.iter().for_each(|name| drop(tensors.checkpoint.take(&format!("{PREFIX}{name}"))));
        if let Some(problem) = problem.filter(|_| !left_out) {
            warnings.draft_left_out(found.len(), &problem);
        }
        return Ok(None);
    }
    let hidden = tensors.config.dims.hidden_dim as usize;
    let mut norm = |name: &str| tensors.norm(&format!("{PREFIX}{name}"), hidden, "hidden_size");
    let (embedding_norm, hidden_norm) = (norm("pre_fc_norm_embedding")?, norm("pre_fc_norm_hidden")?);
    let final_norm = norm("norm")?;
    let join = tensors.perhaps_ternary(&format!("{PREFIX}fc"), hidden, 2 * hidden)?;
    let prefix = format!("{PREFIX}layers.0.");
    let mixer = tensors.attention(&prefix, (0, None), Tensors::perhaps_ternary)?;
    let layer = tensors.around(&prefix, mixer, Tensors::perhaps_ternary)?;
    Ok(Some(DraftBlock { embedding_norm, hidden_norm, join, layer, final_norm }))
}
