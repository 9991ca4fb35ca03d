//! Turns what metadata says about the model into the `config.json` of the same model, which is then read as any
//! other.

use super::architecture_keys::ArchitectureKeys;
use super::metadata::Metadata;
use super::minicpm::{self, LongFactors};
use super::qwen35;
use crate::error::{CompileError, Warnings};
use serde_json::{Map, Value, json};

/// What `general.architecture` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    /// llama.cpp's name. It stands for the first BitNet b1.58, by 1bitLLM, or for later models that converters put
    /// under it.
    Bitnet,
    /// Microsoft's: BitNet b1.58 2B-4T, `bitnet-b1.58` and before it `bitnet-25`.
    Bitnet2B,
    /// Tencent's dense models; heads of q and k are normalized after RoPE.
    HunyuanDense,
    Llama,
    Minicpm,
    Qwen3,
    /// Layers with a gated DeltaNet beside layers with gated attention.
    Qwen35,
}

/// What the tensors say where metadata is silent.
pub(super) struct TensorFacts {
    /// Rows of the embedding.
    pub(super) vocab_size: usize,
    /// Whether there is a head apart from the embedding.
    pub(super) head: bool,
    /// Whether there are scale tensors beside the weights.
    pub(super) scales: bool,
    /// Whether there are weights of an RMSNorm inside each linear, as in Microsoft's bitnet-embedding.
    pub(super) inner_norms: bool,
    /// LongRoPE's divisors of frequencies.
    pub(super) long_factors: Option<LongFactors>,
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
            "hunyuan-dense" => Architecture::HunyuanDense,
            "llama" => Architecture::Llama,
            "minicpm" => Architecture::Minicpm,
            "qwen3" => Architecture::Qwen3,
            "qwen35" => Architecture::Qwen35,
            _ => {
                let advice = match name.as_str() {
                    "qwen3next" | "qwen35moe" | "falcon-h1" | "mamba" | "mamba2" => {
                        "of models with recurrent layers only qwen35 is read"
                    }
                    "maple" | "hunyuan-moe" | "qwen3moe" => "mixtures of experts are not supported",
                    _ => "where the model's family is, use its safetensors checkpoint",
                };
                return Err(metadata.unsupported(
                    key,
                    format!(
                        "is {name:?}, which is not supported (only bitnet, bitnet-b1.58, bitnet-25, hunyuan-dense, llama, \
                         minicpm, qwen3 and qwen35); {advice}"
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
        matches!(self, Architecture::Llama | Architecture::Minicpm)
    }

    /// The configuration. Takes every key of the architecture that is known; `name` is its text.
    ///
    /// # Errors
    /// Keys that are missing or wrong, and values that change the arithmetic in a way that is not known.
    pub(super) fn config(
        self,
        name: &str,
        metadata: &mut Metadata,
        facts: TensorFacts,
        warnings: &mut Warnings,
    ) -> Result<Map<String, Value>, CompileError> {
        let mut keys = ArchitectureKeys { metadata, name };
        keys.pooling(facts.inner_norms, warnings)?;
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
        let head_dim = keys.head_dim(hidden, n_heads, self == Architecture::Qwen35)?;
        let eps = keys.number("attention.layer_norm_rms_epsilon")?;
        let eps = keys.required("attention.layer_norm_rms_epsilon", eps)?;
        keys.expect_vocab_size(facts.vocab_size)?;
        keys.refuse_experts()?;
        let (class, model_type) = match self {
            Architecture::Bitnet | Architecture::Bitnet2B => ("BitNetForCausalLM", "bitnet"),
            Architecture::HunyuanDense => ("HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense"),
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
            Architecture::Minicpm => ("MiniCPMForCausalLM", "minicpm"),
            Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
            Architecture::Qwen35 => ("Qwen3_5ForCausalLM", "qwen3_5_text"),
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
        if self == Architecture::Qwen35 {
            qwen35::complete(&mut keys, &mut config, context_length)?;
            return Ok(config);
        }
        if self == Architecture::Minicpm {
            minicpm::complete(&mut keys, &mut config, context_length, facts.long_factors)?;
            return Ok(config);
        }
        let mut scaling = keys.rope_scaling(context_length)?;
        if self == Architecture::HunyuanDense
            && let Some(alpha) = keys.rope_alpha(scaling.is_some())?
        {
            scaling = Some(alpha);
        }
        if let Some(scaling) = scaling {
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
            Architecture::HunyuanDense
            | Architecture::Llama
            | Architecture::Minicpm
            | Architecture::Qwen3
            | Architecture::Qwen35 => Some("silu"),
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
