//! The families, each where it differs from Llama, which stands in [`crate::arch::family`]; and which of them a
//! configuration names.

mod bitnet;
mod bitnet_1bitllm;
mod gemma3;
mod hunyuan;
mod minicpm;
mod qwen3;
pub(crate) mod qwen35;

use crate::arch::family::{Family, LLAMA};
use crate::arch::keys::Keys;
use crate::error::CompileError;

/// Every family that is read.
const FAMILIES: [&Family; 8] = [
    &bitnet::BITNET,
    &bitnet_1bitllm::BITNET_1BITLLM,
    &LLAMA,
    &qwen3::QWEN3,
    &qwen35::QWEN35,
    &gemma3::GEMMA3,
    &minicpm::MINICPM,
    &hunyuan::HUNYUAN,
];

/// Architectures that people try, and why they are not read.
const REFUSED: &[(&str, &str)] = &[
    (
        "FalconForCausalLM",
        "it is the first Falcon, with LayerNorms and parallel attention; Falcon3 and Falcon-E are read",
    ),
    (
        "Gemma3ForConditionalGeneration",
        "it sees images; only the text model alone, Gemma3ForCausalLM, is read",
    ),
    ("MiniCPM3ForCausalLM", "its attention is compressed (MLA)"),
    ("HunYuanMoEV1ForCausalLM", EXPERTS),
    ("MapleForCausalLM", EXPERTS),
    ("Qwen3MoeForCausalLM", EXPERTS),
    ("MixtralForCausalLM", EXPERTS),
    ("FalconH1ForCausalLM", RECURRENT),
    ("FalconMambaForCausalLM", RECURRENT),
    ("Qwen3NextForCausalLM", RECURRENT),
];

/// Layers in which each token goes to some of many feed-forward parts.
const EXPERTS: &str = "it is a mixture of experts; only models with one feed-forward part a layer are read";

/// Mamba, DeltaNet and their like.
const RECURRENT: &str =
    "it has recurrent layers of a kind that is not read; those of Qwen 3.5 (Qwen3_5ForCausalLM) are";

/// Finds the family that the configuration names.
///
/// # Errors
/// One that is not read, by its name, or names that do not belong together.
pub(crate) fn find(keys: &mut Keys) -> Result<&'static Family, CompileError> {
    let architectures: Vec<String> = keys.require("architectures")?;
    let model_type: Option<String> = keys.take("model_type")?;
    let [architecture] = architectures.as_slice() else {
        return Err(keys.invalid(format!("architectures is {architectures:?}, expected one name")));
    };
    let Some(family) = FAMILIES.into_iter().find(|f| f.architecture == architecture) else {
        return Err(keys.unsupported(refusal(architecture)));
    };
    match model_type {
        Some(other) if other != family.model_type => Err(keys.unsupported(format!(
            "model_type {other:?} does not belong to {architecture}, which has {:?}",
            family.model_type
        ))),
        _ => Ok(family),
    }
}

fn refusal(architecture: &str) -> String {
    let supported = FAMILIES.map(|f| f.architecture).join(", ");
    let known = REFUSED.iter().find(|(name, _)| *name == architecture).map(|(_, why)| *why);
    let why = match known {
        Some(why) => format!(": {why}"),
        // BitNet's embedding models are Qwen3Model and Gemma3TextModel.
        None if architecture.ends_with("Model") => {
            ": it has no head, as models for embeddings have none; only causal language models are read"
                .to_owned()
        }
        None => String::new(),
    };
    format!("architecture {architecture} is not supported{why}; supported are {supported}")
}
