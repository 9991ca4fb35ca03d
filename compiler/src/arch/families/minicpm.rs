//! MiniCPM (OpenBMB's `modeling_minicpm.py`): Llama with three factors, on the embedding (`scale_emb`), on what each
//! layer adds (`c = scale_depth / sqrt(num_hidden_layers)`), and on the head's input (`dim_model_base / hidden_size`).
//!
//! No step multiplies what a layer adds. Instead, the whole residual stream is kept divided by `c`. Then layers add
//! unscaled results, and the embedding's factor is `scale_emb / c`. RMSNorm takes out every factor of its input; it
//! takes out this one too when its epsilon is divided by `c * c`. The head's factor goes into the final norm's
//! weights.

use crate::arch::factors::{EmbeddingScale, Factors};
use crate::arch::family::{Family, LLAMA};
use crate::arch::keys::Keys;
use crate::arch::positions::Positions;
use crate::error::CompileError;

pub(crate) const MINICPM: Family = Family {
    architecture: "MiniCPMForCausalLM",
    model_type: "minicpm",
    tied: true,
    positions: |keys, family, dims| {
        let positions = Positions::uniform(keys, family, dims)?;
        // MiniCPMLongRoPE chooses its factors when it makes its table, for max_position_embeddings.
        Ok(Positions { long_by_context: true, ..positions })
    },
    factors: |keys, dims, usual| {
        let scale_emb = factor(keys, "scale_emb")?;
        let depth = factor(keys, "scale_depth")?;
        let base = factor(keys, "dim_model_base")?;
        let layers = dims.n_layers;
        // This key only counts in draft models, which have fewer layers than the models that they were trained
        // beside.
        keys.take::<u32>("mup_denominator")?;
        let added = depth / f64::from(layers).sqrt();
        let embedding_scale = (scale_emb / added) as f32;
        let rms_eps = (f64::from(usual.rms_eps) / (added * added)) as f32;
        let final_scale = (base / f64::from(dims.hidden_dim)) as f32;
        let all = [rms_eps, final_scale, embedding_scale];
        if all.iter().any(|x| !(x.is_finite() && *x > 0.0)) {
            return Err(keys.invalid("scale_emb, scale_depth and dim_model_base are out of all proportion"));
        }
        let embedding_scale = EmbeddingScale::Exactly(embedding_scale);
        Ok(Factors { rms_eps, embedding_scale, final_scale, ..usual })
    },
    ..LLAMA
};

/// A factor. All three are required, because versions differ in what an absent one means.
fn factor(keys: &mut Keys, key: &str) -> Result<f64, CompileError> {
    let value: f64 = keys.require(key)?;
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(keys.invalid(format!("{key} is {value}, expected a number above zero")))
}
