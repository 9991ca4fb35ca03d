//! Metadata keys that start with the architecture's name, and what several architectures have of them.

use super::metadata::Metadata;
use crate::error::{CompileError, Warnings};
use serde_json::{Value, json};
use std::fmt::Display;

/// Keys that start with the architecture's name.
pub(super) struct ArchitectureKeys<'a> {
    pub(super) metadata: &'a mut Metadata,
    pub(super) name: &'a str,
}

impl ArchitectureKeys<'_> {
    pub(super) fn named(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    pub(super) fn unsigned(&mut self, key: &str) -> Result<Option<u64>, CompileError> {
        self.metadata.unsigned(&self.named(key))
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, CompileError> {
        self.metadata.number(&self.named(key))
    }

    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, CompileError> {
        self.metadata.required(&self.named(key), value)
    }

    pub(super) fn invalid(&self, key: &str, problem: impl Display) -> CompileError {
        self.metadata.invalid(&self.named(key), problem)
    }

    pub(super) fn unsupported(&self, key: &str, problem: impl Display) -> CompileError {
        self.metadata.unsupported(&self.named(key), problem)
    }

    /// A size that must be there.
    pub(super) fn size(&mut self, key: &str) -> Result<u64, CompileError> {
        let size = self.unsigned(key)?;
        self.required(key, size)
    }

    /// The size of a head of attention. All of it is rotated by RoPE, unless `partial`; then who knows of it takes
    /// `rope.dimension_count`.
    pub(super) fn head_dim(&mut self, hidden: u64, n_heads: u64, partial: bool) -> Result<u64, CompileError> {
        let explicit = self.unsigned("attention.key_length")?;
        let rotated = if partial { None } else { self.unsigned("rope.dimension_count")? };
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

    pub(super) fn expect_vocab_size(&mut self, rows: usize) -> Result<(), CompileError> {
        match self.unsigned("vocab_size")? {
            Some(size) if size != rows as u64 => {
                Err(self.invalid("vocab_size", format!("is {size}, but token_embd.weight has {rows} rows")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn refuse_experts(&mut self) -> Result<(), CompileError> {
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

    /// Takes how a model that turns texts into vectors makes one of the states of all tokens.
    ///
    /// # Errors
    /// A way that no causal model has, such as taking the first token's.
    pub(super) fn pooling(&mut self, is_bitnet: bool, warnings: &mut Warnings) -> Result<(), CompileError> {
        let (key, by_last) = ("pooling_type", "the last token's state");
        let pooled = match self.unsigned(key)? {
            None | Some(0) => return Ok(()),
            Some(1) if is_bitnet => format!(
                "the mean of all tokens' states as the file says, which Microsoft's bitnet-embedding models were not \
                 trained for: theirs are {by_last}"
            ),
            Some(1) => "the mean of all tokens' states".to_owned(),
            Some(3) => by_last.to_owned(),
            Some(other) => {
                let problem = format!(
                    "is {other}, which is not supported (only 1, the mean of all tokens' states, and 3, the last one's)"
                );
                return Err(self.unsupported(key, problem));
            }
        };
        warnings.push(format!(
            "the model turns texts into vectors, which a server or the library makes, not into texts: {pooled}"
        ));
        Ok(())
    }

    /// `rope_scaling` of Hunyuan where the base is still to be stretched. Converters write the stretched base instead.
    pub(super) fn rope_alpha(&mut self, scaled: bool) -> Result<Option<Value>, CompileError> {
        let key = "rope.scaling.alpha";
        let Some(alpha) = self.number(key)?.filter(|&alpha| alpha != 0.0) else { return Ok(None) };
        if scaled {
            return Err(self.unsupported(key, format!("is {alpha}, beside another scaling of positions")));
        }
        Ok(Some(json!({"rope_type": "dynamic", "alpha": alpha})))
    }

    /// `rope_scaling`, where positions are scaled.
    pub(super) fn rope_scaling(&mut self, context_length: u64) -> Result<Option<Value>, CompileError> {
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
