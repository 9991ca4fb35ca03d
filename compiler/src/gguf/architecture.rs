//! Turns what metadata says about the model into the `config.json` of the same model, which is then read as any
//! other.

use super::metadata::Metadata;
use crate::error::{CompileError, Warnings};
use serde_json::{Map, Value, json};
use std::fmt::Display;

/// What `general.architecture` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    /// llama.cpp's name. It stands for the first BitNet b1.58, by 1bitLLM, or for later models that converters put
    /// under it.
    Bitnet,
    /// Microsoft's: BitNet b1.58 2B-4T, `bitnet-b1.58` and before it `bitnet-25`.
    Bitnet2B,
    Llama,
    Qwen3,
}

/// What the tensors say where metadata is silent.
pub(super) struct TensorFacts {
    /// Rows of the embedding.
    pub(super) vocab_size: usize,
    /// Whether there is a head apart from the embedding.
    pub(super) head: bool,
    /// Whether there are scale tensors beside the weights.
    pub(super) scales: bool,
}

/// Sizes of BitNet b1.58 2B-4T, by which it is known under the name `bitnet`: layers, hidden, feed-forward.
const SIZES_2B: [u64; 3] = [30, 2560, 6912];

impl Architecture {
    /// Takes `general.architecture`; gives its text too, with which the architecture's keys start.
    pub(super) fn take(metadata: &mut Metadata) -> Result<(Architecture, String), CompileError> {
        let key = "general.architecture";
        let name = metadata.text(key)?;
        let name = metadata.required(key, name)?;
        let architecture = match name.as_str() {
            "bitnet" => Architecture::Bitnet,
            "bitnet-b1.58" | "bitnet-25" => Architecture::Bitnet2B,
            "llama" => Architecture::Llama,
            "qwen3" => Architecture::Qwen3,
            _ => {
                let advice = match name.as_str() {
                    "minicpm" => "of MiniCPM only safetensors checkpoints are read",
                    "qwen35" | "qwen3next" | "falcon-h1" | "mamba" | "mamba2" => {
                        "it has recurrent layers, and only models whose layers all have attention are read"
                    }
                    "hunyuan-dense" => "heads of Hunyuan are normalized after RoPE, which no step does yet",
                    "maple" | "hunyuan-moe" | "qwen3moe" | "qwen35moe" => {
                        "mixtures of experts are not supported"
                    }
                    _ => "where the model's family is, use its safetensors checkpoint",
                };
                return Err(metadata.unsupported(
                    key,
                    format!(
                        "is {name:?}, which is not supported (only bitnet, bitnet-b1.58, bitnet-25, llama and qwen3); \
                         {advice}"
                    ),
                ));
            }
        };
        Ok((architecture, name))
    }

    /// Whether all such models were trained with int8 activations, a scale for each token.
    pub(super) fn is_bitnet(self) -> bool {
        matches!(self, Architecture::Bitnet | Architecture::Bitnet2B)
    }

    /// Whether rows of q and k are stored interleaved.
    pub(super) fn interleaves(self) -> bool {
        self == Architecture::Llama
    }

    /// The configuration. Takes every key of the architecture that is known; `name` is its text.
    ///
    /// # Errors
    /// Keys that are missing or wrong, and values that change the arithmetic in a way that is not known.
    pub(super) fn config(
        self,
        name: &str,
        metadata: &mut Metadata,
        facts: &TensorFacts,
        warnings: &mut Warnings,
    ) -> Result<Map<String, Value>, CompileError> {
        let mut keys = ArchitectureKeys { metadata, name };
        let [n_layers, hidden, ffn, n_heads] =
            ["block_count", "embedding_length", "feed_forward_length", "attention.head_count"]
                .map(|key| keys.size(key));
        let (n_layers, hidden, ffn, n_heads) = (n_layers?, hidden?, ffn?, n_heads?);
        let n_kv_heads = keys.unsigned("attention.head_count_kv")?.unwrap_or(n_heads);
        let context_length = keys.size("context_length")?;
        if u32::try_from(context_length).is_err() {
            let problem = format!("is {context_length}, no plausible number of tokens");
            return Err(keys.invalid("context_length", problem));
        }
        let head_dim = keys.head_dim(hidden, n_heads)?;
        let eps = keys.number("attention.layer_norm_rms_epsilon")?;
        let eps = keys.required("attention.layer_norm_rms_epsilon", eps)?;
        keys.expect_vocab_size(facts.vocab_size)?;
        keys.refuse_experts()?;
        let (class, model_type) = match self {
            Architecture::Bitnet | Architecture::Bitnet2B => ("BitNetForCausalLM", "bitnet"),
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
            Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        };
        let is_2b = [n_layers, hidden, ffn] == SIZES_2B;
        let Value::Object(mut config) = json!({
            "architectures": [class],
            "model_type": model_type,
            "vocab_size": facts.vocab_size,
            "hidden_size": hidden,
            "intermediate_size": ffn,
            "num_hidden_layers": n_layers,
            "num_attention_heads": n_heads,
            "num_key_value_heads": n_kv_heads,
            "head_dim": head_dim,
            "max_position_embeddings": context_length,
            "rms_norm_eps": eps,
            "hidden_act": self.activation(&mut keys, is_2b, warnings)?,
            "tie_word_embeddings": !facts.head,
            "rope_theta": keys.number("rope.freq_base")?.unwrap_or(10_000.0),
        }) else {
            return Err(CompileError::Internal("a JSON object is none".to_owned()));
        };
        if let Some(scaling) = keys.rope_scaling(context_length)? {
            config.insert("rope_scaling".to_owned(), scaling);
        }
        if facts.scales {
            let offline = json!({
                "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"
            });
            config.insert("quantization_config".to_owned(), offline);
        }
        Ok(config)
    }

    /// `hidden_act`. Old files of 2B-4T say nothing, and programs ran it with SiLU (microsoft/BitNet issues 588, 602).
    fn activation(
        self,
        keys: &mut ArchitectureKeys,
        is_2b: bool,
        warnings: &mut Warnings,
    ) -> Result<&'static str, CompileError> {
        let key = "hidden_activation";
        let stated = match keys.metadata.text(&keys.named(key))?.as_deref() {
            None => None,
            Some("silu" | "swiglu") => Some("silu"),
            Some("relu2" | "relu_sqr" | "relu_squared") => Some("relu2"),
            Some(other) => {
                let problem = format!("is {other:?}, which is not supported (only \"silu\" and \"relu2\")");
                return Err(keys.unsupported(key, problem));
            }
        };
        let known = match self {
            Architecture::Bitnet2B => Some("relu2"),
            Architecture::Bitnet if is_2b => Some("relu2"),
            Architecture::Bitnet => None,
            Architecture::Llama | Architecture::Qwen3 => Some("silu"),
        };
        match (stated, known) {
            (Some(stated), Some(known)) if stated != known => {
                Err(keys
                    .invalid(key, format!("is {stated:?}, but models of this architecture have {known:?}")))
            }
            (None, Some("relu2")) if self == Architecture::Bitnet => {
                warnings.push(
                    "the file is BitNet b1.58 2B-4T by its sizes and says no activation: squared ReLU is used, as the \
                     model was trained, where some programs run such files with SiLU"
                        .to_owned(),
                );
                Ok("relu2")
            }
            (stated, known) => Ok(known.or(stated).unwrap_or("silu")),
        }
    }
}

/// Keys that start with the architecture's name.
struct ArchitectureKeys<'a> {
    metadata: &'a mut Metadata,
    name: &'a str,
}

impl ArchitectureKeys<'_> {
    fn named(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn unsigned(&mut self, key: &str) -> Result<Option<u64>, CompileError> {
        self.metadata.unsigned(&self.named(key))
    }

    fn number(&mut self, key: &str) -> Result<Option<f64>, CompileError> {
        self.metadata.number(&self.named(key))
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, CompileError> {
        self.metadata.required(&self.named(key), value)
    }

    fn invalid(&self, key: &str, problem: impl Display) -> CompileError {
        self.metadata.invalid(&self.named(key), problem)
    }

    fn unsupported(&self, key: &str, problem: impl Display) -> CompileError {
        self.metadata.unsupported(&self.named(key), problem)
    }

    /// A size that must be there.
    fn size(&mut self, key: &str) -> Result<u64, CompileError> {
        let size = self.unsigned(key)?;
        self.required(key, size)
    }

    fn head_dim(&mut self, hidden: u64, n_heads: u64) -> Result<u64, CompileError> {
        let explicit = self.unsigned("attention.key_length")?;
        let rotated = self.unsigned("rope.dimension_count")?;
        let Some(head_dim) = explicit.or(hidden.checked_div(n_heads)) else {
            return Err(self.invalid("attention.head_count", "is 0"));
        };
        if explicit.is_none() && head_dim * n_heads != hidden {
            let problem = format!("is {n_heads}, which does not divide embedding_length {hidden}");
            return Err(self.invalid("attention.head_count", problem));
        }
        for (key, size) in [
            ("rope.dimension_count", rotated),
            ("attention.value_length", self.unsigned("attention.value_length")?),
        ] {
            if let Some(size) = size.filter(|&size| size != head_dim) {
                let problem = format!(
                    "is {size}, but heads are of {head_dim}; partial or unequal heads are not supported"
                );
                return Err(self.unsupported(key, problem));
            }
        }
        Ok(head_dim)
    }

    fn expect_vocab_size(&mut self, rows: usize) -> Result<(), CompileError> {
        match self.unsigned("vocab_size")? {
            Some(size) if size != rows as u64 => {
                Err(self.invalid("vocab_size", format!("is {size}, but token_embd.weight has {rows} rows")))
            }
            _ => Ok(()),
        }
    }

    fn refuse_experts(&mut self) -> Result<(), CompileError> {
        for key in ["expert_count", "expert_used_count"] {
            if let Some(count) = self.unsigned(key)?.filter(|&count| count > 0) {
                let problem = format!("is {count}: mixtures of experts are not supported");
                return Err(self.unsupported(key, problem));
            }
        }
        // Says how the original checkpoint was laid out.
        self.metadata.drop(&self.named("tensor_data_layout"));
        match self.metadata.bool(&self.named("attention.causal"))? {
            Some(false) => {
                Err(self.unsupported("attention.causal", "is false: only causal models are supported"))
            }
            _ => Ok(()),
        }
    }

    /// `rope_scaling`, where positions are scaled.
    fn rope_scaling(&mut self, context_length: u64) -> Result<Option<Value>, CompileError> {
        let kind = self.metadata.text(&self.named("rope.scaling.type"))?;
        let factor = self.number("rope.scaling.factor")?;
        // The key of the first files.
        let factor = factor.or(self.number("rope.scale_linear")?);
        let original = self.unsigned("rope.scaling.original_context_length")?;
        // Says how the model was made, not how it computes.
        self.metadata.drop(&self.named("rope.scaling.finetuned"));
        for key in
            ["rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor"]
        {
            if let Some(factor) = self.number(key)?.filter(|&factor| factor != 1.0) {
                return Err(self.unsupported(key, format!("is {factor}, which is not supported (only 1)")));
            }
        }
        let [fast, slow] = ["fast", "slow"].map(|end| self.number(&format!("rope.scaling.yarn_beta_{end}")));
        match (kind.as_deref(), factor) {
            (None | Some("none"), None) | (None | Some("none" | "linear"), Some(1.0)) => Ok(None),
            (None | Some("linear"), Some(factor)) => {
                Ok(Some(json!({"rope_type": "linear", "factor": factor})))
            }
            (Some("yarn"), Some(factor)) => {
                let mut scaling = json!({
                    "rope_type": "yarn",
                    "factor": factor,
                    "original_max_position_embeddings": original.unwrap_or(context_length),
                });
                for (key, beta) in [("beta_fast", fast?), ("beta_slow", slow?)] {
                    if let Some(beta) = beta {
                        scaling[key] = beta.into();
                    }
                }
                Ok(Some(scaling))
            }
            (Some(kind @ ("linear" | "yarn")), None) => {
                Err(self.invalid("rope.scaling.factor", format!("is missing, which {kind:?} needs")))
            }
            (Some(kind), _) => Err(self.unsupported(
                "rope.scaling.type",
                format!("is {kind:?}, which is not supported (only \"none\", \"linear\" and \"yarn\")"),
            )),
        }
    }
}
