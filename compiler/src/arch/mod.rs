//! Model families: which configurations and tensor names are understood, and the [`Model`](crate::model::Model) they
//! make.
//!
//! | module | does |
//! |---|---|
//! | `family`, `families` | the families, each where it differs from Llama |
//! | `config`, `quantization`, `modules`, `positions`, `rope` | `config.json`, typed |
//! | `factors` | the numbers of a family's arithmetic |
//! | `keys`, `harmless` | takes keys one by one, so that what nobody took is refused by name |
//! | `decoder`, `head`, `draft` | the tensors, taken and checked |
//! | `overrides` | what only the checkpoint's file says |

mod config;
mod decoder;
mod draft;
mod factors;
mod families;
mod family;
mod harmless;
mod head;
mod keys;
mod modules;
mod overrides;
mod positions;
mod quantization;
mod rope;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::overrides::Overrides;
use crate::error::{Choice, CompileError, Warnings};
use crate::model::{Activations, DraftBlock, Layer, Matrix, NormWeights, Rope, TensorReport};
use crate::weights::stored::Storage;
use config::Config;
pub(crate) use families::qwen35::of_text;
use family::Family;
use keys::Keys;
use quantization::LinearWeights;
use serde_json::{Map, Value};
use std::path::Path;
use trit_format::manifest::Hyperparameters;
use trit_format::plan::Activation;

/// The part of a model that follows from its configuration and tensors.
pub(crate) struct Decoder {
    pub(crate) architecture: &'static str,
    pub(crate) dims: Hyperparameters,
    pub(crate) rms_eps: f32,
    pub(crate) linear_rms_eps: f32,
    pub(crate) activations: Activations,
    pub(crate) activation: Activation,
    pub(crate) attention_scale: f32,
    pub(crate) embedding_scale: f32,
    pub(crate) ropes: Vec<Rope>,
    pub(crate) embedding: Matrix,
    pub(crate) head: Option<Matrix>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: NormWeights,
    pub(crate) draft: Option<Box<DraftBlock>>,
    pub(crate) report: Vec<TensorReport>,
}

/// What has been read of `config.json`.
pub(crate) struct ParsedConfig {
    family: &'static Family,
    config: Config,
    without_draft: bool,
}

/// How `config.json` is to be read.
#[derive(Clone, Copy, Default)]
pub(crate) struct ConfigOptions<'a> {
    /// Keys to treat as absent.
    pub(crate) ignored: &'a [String],
    /// The bundle's context length.
    pub(crate) context: Option<u32>,
    /// Leaves the block out that drafts tokens.
    pub(crate) without_draft: bool,
}

/// Reads the configuration `map` of the file `path`.
///
/// # Errors
/// An architecture, key or value that is not known, or a configuration that contradicts itself.
pub(crate) fn parse(
    path: &Path,
    map: Map<String, Value>,
    options: ConfigOptions<'_>,
    warnings: &mut Warnings,
) -> Result<ParsedConfig, CompileError> {
    let mut keys = Keys::new(path, map);
    keys.ignore(options.ignored, warnings);
    let family = families::find(&mut keys)?;
    let config = Config::take(keys, family, options.context, warnings)?;
    Ok(ParsedConfig { family, config, without_draft: options.without_draft })
}

impl ParsedConfig {
    /// The model's sizes.
    pub(crate) fn dims(&self) -> &Hyperparameters {
        &self.config.dims
    }

    /// As `architectures` names it.
    pub(crate) fn architecture(&self) -> &'static str {
        self.family.architecture
    }

    /// What the configuration and the overrides say, a name and a fact each, for people.
    pub(crate) fn facts(&self, overrides: &Overrides) -> Vec<(&'static str, String)> {
        let (config, context) = (&self.config, self.config.dims.context_length);
        let ropes: Vec<String> = config.positions.ropes.iter().map(|rope| rope.describe(context)).collect();
        let mut facts = vec![("rope", ropes.join("; in sliding layers "))];
        facts.extend(config.positions.describe().map(|window| ("window", window)));
        if let Some(mixers) = &config.mixers {
            let (recurrent, all) =
                (mixers.recurrent.iter().filter(|&&is| is).count(), mixers.recurrent.len());
            facts.push(("mixers", format!("Gated DeltaNet in {recurrent} of {all} layers")));
        }
        facts.push(("weights", config.weights.describe()));
        facts.extend(overrides::facts(overrides));
        facts
    }

    /// The same with linears of floats, about which the configuration says nothing, taken as latent weights.
    ///
    /// # Errors
    /// [`CompileError::Choice`] where the configuration declares that they are something else.
    pub(crate) fn rounded(self) -> Result<ParsedConfig, CompileError> {
        let weights = match self.config.weights {
            LinearWeights::Undeclared => LinearWeights::latent(),
            LinearWeights::Declared(quantization) if quantization.storage == Storage::Latent => {
                LinearWeights::Declared(quantization)
            }
            LinearWeights::Declared(_) => {
                return Err(CompileError::Choice {
                    choice: Choice::Rounding,
                    problem: "is for float weights, but the model's quantization_config declares ternary ones with \
                              their scales"
                        .to_owned(),
                });
            }
        };
        Ok(ParsedConfig { config: Config { weights, ..self.config }, ..self })
    }

    /// Takes the model's tensors from the checkpoint, and applies the overrides to what they make.
    ///
    /// # Errors
    /// A tensor that is missing, wrong, or left over; overrides that do not fit the model.
    pub(crate) fn build(
        self,
        checkpoint: Checkpoint,
        overrides: &Overrides,
        warnings: &mut Warnings,
    ) -> Result<Decoder, CompileError> {
        let declared = matches!(self.config.weights, LinearWeights::Declared(_));
        let activations = if declared {
            // What every `quant_method: "bitnet"` linear does; see `BitLinear.activation_quant` in transformers.
            Activations::PerToken { floor: 1e-5 }
        } else {
            Activations::Int8Groups
        };
        let path = checkpoint.path.clone();
        let mut decoder = decoder::build(self, activations, checkpoint, overrides, warnings)?;
        overrides::apply(overrides, &path, &mut decoder, warnings)?;
        Ok(decoder)
    }
}
