//! The names of tensors in GGUF files, and the names of the same tensors in checkpoints.

/// Tensors outside the layers.
const WHOLE: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Parts of a layer: GGUF's name after `blk.N.`, the checkpoint's after `model.layers.N.`.
const PARTS: [(&str, &str); 20] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_sub_norm", "self_attn.attn_sub_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_sub_norm", "mlp.ffn_sub_norm"),
    // bitnet-embedding's, inside of linears.
    ("attn_q_norm_in", "self_attn.q_proj.rms_norm"),
    ("attn_k_norm_in", "self_attn.k_proj.rms_norm"),
    ("attn_v_norm_in", "self_attn.v_proj.rms_norm"),
    ("attn_output_norm_in", "self_attn.o_proj.rms_norm"),
    ("ffn_gate_norm_in", "mlp.gate_proj.rms_norm"),
    ("ffn_up_norm_in", "mlp.up_proj.rms_norm"),
    ("ffn_down_norm_in", "mlp.down_proj.rms_norm"),
];

/// The same of `qwen35`, beside those above.
const QWEN35_PARTS: [(&str, &str); 10] = [
    ("post_attention_norm.weight", "post_attention_layernorm.weight"),
    ("attn_qkv.weight", "linear_attn.in_proj_qkv.weight"),
    ("attn_gate.weight", "linear_attn.in_proj_z.weight"),
    ("ssm_alpha.weight", "linear_attn.in_proj_a.weight"),
    ("ssm_beta.weight", "linear_attn.in_proj_b.weight"),
    ("ssm_conv1d.weight", "linear_attn.conv1d.weight"),
    ("ssm_a", "linear_attn.A_log"),
    ("ssm_dt.bias", "linear_attn.dt_bias"),
    ("ssm_norm.weight", "linear_attn.norm.weight"),
    ("ssm_out.weight", "linear_attn.out_proj.weight"),
];

/// The checkpoint's name of the tensor `name` of a `hunyuan-dense` file; `None` where it is not known.
pub(super) fn hunyuan_name(name: &str) -> Option<String> {
    let known = checkpoint_name(name)?;
    Some(
        known
            .replace(".self_attn.q_norm.", ".self_attn.query_layernorm.")
            .replace(".self_attn.k_norm.", ".self_attn.key_layernorm."),
    )
}

/// The layer of the tensor `name`, and the part of it that the tensor is.
pub(super) fn layer_part(name: &str) -> Option<(u32, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    // The number must be written as numbers are: "01" is no layer.
    let number = layer.parse::<u32>().ok().filter(|number| number.to_string() == layer)?;
    Some((number, part))
}

/// The checkpoint's name of the tensor `name` of a `qwen35` file; `None` where it is not known.
pub(super) fn qwen35_name(name: &str) -> Option<String> {
    let Some((layer, part)) = layer_part(name) else { return checkpoint_name(name) };
    match QWEN35_PARTS.iter().find(|(gguf, _)| *gguf == part) {
        Some((_, own)) => Some(format!("model.layers.{layer}.{own}")),
        None => checkpoint_name(name),
    }
}

/// The checkpoint's name of the tensor `name`; `None` where it is not known, so that it is refused by its own name.
pub(super) fn checkpoint_name(name: &str) -> Option<String> {
    if let Some((_, whole)) = WHOLE.iter().find(|(gguf, _)| *gguf == name) {
        return Some((*whole).to_owned());
    }
    let (layer, part) = layer_part(name)?;
    let (part, kind) = part.rsplit_once('.')?;
    let kind = match kind {
        "weight" => "weight",
        "scale" => "weight_scale",
        "bias" => "bias",
        _ => return None,
    };
    let (_, module) = PARTS.iter().find(|(gguf, _)| *gguf == part)?;
    Some(format!("model.layers.{layer}.{module}.{kind}"))
}

/// Whether a tensor holds floats of a model whose linear layers are ternary: embedding, head, norms, and the small
/// tensors of a gated DeltaNet.
pub(super) fn is_float(name: &str) -> bool {
    let whole = ["token_embd.weight", "output.weight"].contains(&name)
        || ["_norm.weight", "_norm_in.weight"].iter().any(|end| name.ends_with(end));
    whole || layer_part(name).is_some_and(|(_, part)| FLOATS.contains(&part))
}

/// Parts of a gated DeltaNet that may be floats.
const FLOATS: [&str; 5] =
    ["ssm_alpha.weight", "ssm_beta.weight", "ssm_conv1d.weight", "ssm_a", "ssm_dt.bias"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_checkpoints() {
        let name = |name| checkpoint_name(name);
        assert_eq!(name("output.weight").as_deref(), Some("lm_head.weight"));
        assert_eq!(name("blk.12.attn_q.weight").as_deref(), Some("model.layers.12.self_attn.q_proj.weight"));
        let hunyuan = hunyuan_name("blk.3.attn_q_norm.weight");
        assert_eq!(hunyuan.as_deref(), Some("model.layers.3.self_attn.query_layernorm.weight"));
        let hunyuan = hunyuan_name("blk.3.attn_k_norm.bias");
        assert_eq!(hunyuan.as_deref(), Some("model.layers.3.self_attn.key_layernorm.bias"));
        assert_eq!(hunyuan_name("blk.3.attn_q.weight"), name("blk.3.attn_q.weight"));
        assert_eq!(name("blk.0.ffn_up.scale").as_deref(), Some("model.layers.0.mlp.up_proj.weight_scale"));
        for other in
            ["blk.01.attn_q.weight", "blk.x.attn_q.weight", "blk.1.attn_qkv.weight", "rope_freqs.weight"]
        {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
