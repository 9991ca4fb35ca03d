//! Numbers that a family's arithmetic has beside its sizes: factors on embedding, scores and logits, and the norms'
//! epsilon.

use trit_format::manifest::Hyperparameters;

/// The factors of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factors {
    /// The number that RMSNorms add to means of squares.
    pub(crate) rms_eps: f32,
    /// Factor on attention's scores.
    pub(crate) attention_scale: f32,
    pub(crate) embedding_scale: EmbeddingScale,
    /// Factor on the final norm's weights, which is one on the logits.
    pub(crate) final_scale: f32,
}

impl Factors {
    /// Those of Llama, for a model of these sizes.
    pub(crate) fn usual(dims: &Hyperparameters, rms_eps: f32) -> Factors {
        Factors {
            rms_eps,
            attention_scale: f64::from(dims.head_dim).powf(-0.5) as f32,
            embedding_scale: EmbeddingScale::Exactly(1.0),
            final_scale: 1.0,
        }
    }
}

/// What rows of the embedding are multiplied with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum EmbeddingScale {
    /// This number.
    Exactly(f32),
    /// This number as the table's own type holds it: transformers casts Gemma's `sqrt(hidden_size)`.
    InTableType(f32),
}
