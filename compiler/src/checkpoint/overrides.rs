//! What a checkpoint's file says about its model and no `config.json` can say. GGUF files and MLX packs say such things;
//! `arch` applies them.

use std::collections::{BTreeMap, BTreeSet};

/// Changes to the model that is built from the configuration and the tensors. Plain data: none by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// Divisors of RoPE's frequencies, from `rope_freqs.weight`: what Llama 3's scaling divides each by.
    pub(crate) rope_divisors: Option<Vec<f32>>,
    /// With which activations the model was trained.
    pub(crate) trained: Trained,
    /// The epsilon of an RMSNorm inside each linear, where the file has such.
    pub(crate) inner_norms: Option<f32>,
    /// Whether norm weights that the family stores less one have the one added already.
    pub(crate) norms_whole: bool,
    /// Whether `A_log` holds the rates `-exp(A_log)` themselves.
    pub(crate) decay_rates: bool,
    /// The weights that are stored in a rotated basis.
    pub(crate) rotations: Option<Rotations>,
}

/// Weights that are stored in a rotated basis (`prism.hadamard.*`). The input `x` of such a product is replaced by `H
/// (signs * x)`, where `H` is the normalized Walsh-Hadamard transform of each run of `block` elements. A row `z` of such
/// an embedding stands for `signs * (H z)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rotations {
    /// Elements that are transformed together, a power of two.
    pub(crate) block: u32,
    /// By width of the input, signs of 1 or -1. A width that is not there has none.
    pub(crate) signs: BTreeMap<u32, Vec<f32>>,
    /// The checkpoint's names of these weights.
    pub(crate) names: BTreeSet<String>,
}

/// With which activations a model was trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trained {
    /// Int8 with a scale for each token: the architecture says so.
    PerToken,
    /// The same, judged by the model's name alone. It counts only where each matrix has one scale.
    PerTokenByName,
    /// The file does not say; what the configuration says counts.
    #[default]
    Unknown,
}
