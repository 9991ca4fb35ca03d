//! What may be asked of a model beyond what its checkpoint says.

use crate::checkpoint::I2sLayout;
use crate::error::Warnings;
use crate::model::Activations;

/// How a checkpoint is to be read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The model's name; by default that of its directory.
    pub name: Option<String>,
    /// Keys of `config.json` to treat as absent, nested ones with dots (`quantization_config.KEY`).
    pub ignore_config_keys: Vec<String>,
    /// Type of activations in ternary products.
    pub activations: ActivationChoice,
    /// Rounds float weights that are not declared to be ternary.
    pub quantize: Option<Quantize>,
    /// How far float weights may be from ternary ones, relative to the scale of their group: above 0, up to 0.1. Without
    /// it they must be exactly ternary.
    pub tolerance: Option<f32>,
    /// Leaves the tokenizer out, and with it the chat template: the bundle takes and gives token ids only.
    pub without_tokenizer: bool,
    /// Leaves the block out that drafts tokens: the bundle is smaller, and its texts are the same but come more slowly.
    pub without_draft: bool,
    /// The layout of a GGUF file's I2_S weights; by default what the weights themselves say.
    pub i2s_layout: Option<I2sLayout>,
    /// The bundle's context length in tokens; by default the model's, or that of LongRoPE's short factors.
    pub context: Option<u32>,
}

/// What is asked of activations in ternary products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActivationChoice {
    /// As the model was trained, where that is known; else int8 by groups.
    #[default]
    Auto,
    /// Int8: one scale a token where the model was trained so, else one for each group of columns.
    Int8,
    /// f32.
    F32,
}

impl ActivationChoice {
    /// The type of activations for a model that takes `own` if nobody chooses.
    pub(super) fn of(self, own: Activations, warnings: &mut Warnings) -> Activations {
        match (self, own) {
            (ActivationChoice::Auto, _) | (ActivationChoice::Int8, Activations::PerToken { .. }) => own,
            (ActivationChoice::Int8, _) => Activations::Int8Groups,
            (ActivationChoice::F32, Activations::PerToken { .. }) => {
                warnings.push(
                    "the model was trained with int8 activations; with f32 activations its results are others than those of \
                     its authors' code"
                        .to_owned(),
                );
                Activations::F32
            }
            (ActivationChoice::F32, _) => Activations::F32,
        }
    }
}

/// How float weights become ternary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// As BitNet does with its latent weights: by the mean of each matrix's magnitudes, with int8 activations.
    Absmean,
}
