//! What a checkpoint's file says about its model and no `config.json` can say. GGUF files say such things; `arch`
//! applies them.

/// Changes to the model that is built from the configuration and the tensors. Plain data: none by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// Divisors of RoPE's frequencies, from `rope_freqs.weight`: what Llama 3's scaling divides each by.
    pub(crate) rope_divisors: Option<Vec<f32>>,
    /// With which activations the model was trained.
    pub(crate) trained: Trained,
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
