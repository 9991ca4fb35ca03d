//! How positions enter, which may differ between layers: the RoPE, and how far back attention looks.

use crate::arch::family::Family;
use crate::arch::keys::Keys;
use crate::arch::rope::{RopeConfig, RopeInputs};
use crate::error::{Choice, CompileError, Warning, Warnings};
use trit_format::manifest::Hyperparameters;

/// The RoPEs of a model and which of its layers slide a window over the text.
#[derive(Clone, Debug)]
pub(crate) struct Positions {
    /// The first is that of layers with full attention.
    pub(crate) ropes: Vec<RopeConfig>,
    pub(crate) sliding: Option<Sliding>,
    /// Whether a model with more than the original context uses LongRoPE's long factors for all texts, as the code of
    /// some models does. transformers chooses for each text.
    pub(crate) long_by_context: bool,
}

/// Layers that attend to the last `window` positions, with a RoPE of their own.
#[derive(Clone, Debug)]
pub(crate) struct Sliding {
    pub(crate) window: u32,
    pub(crate) layers: SlidingLayers,
}

#[derive(Clone, Debug)]
pub(crate) enum SlidingLayers {
    /// All but every n-th.
    AllBut(u32),
    /// By layer.
    Listed(Vec<bool>),
}

/// Most tokens of a text that a bundle can be for.
pub(crate) const LONGEST: u32 = 1 << 24;

impl Positions {
    /// Takes one RoPE and full attention for all layers.
    ///
    /// # Errors
    /// As [`RopeConfig::take`], and windows.
    pub(crate) fn uniform(
        keys: &mut Keys,
        family: &Family,
        dims: &Hyperparameters,
    ) -> Result<Positions, CompileError> {
        let windowed: Option<bool> = keys.take("use_sliding_window")?;
        let window: Option<u64> = keys.take("sliding_window")?;
        keys.take::<u64>("max_window_layers")?;
        if let Some(window) = window.filter(|_| windowed.unwrap_or(family.windowed)) {
            let family = family.architecture;
            let problem =
                format!("sliding_window is {window}: windowed attention is not supported in {family}");
            return Err(keys.unsupported(problem));
        }
        let layer_types: Option<Vec<String>> = keys.take("layer_types")?;
        if let Some(other) = layer_types.iter().flatten().find(|kind| *kind != "full_attention") {
            let problem =
                format!("layer_types holds {other:?}, which is not supported (only \"full_attention\")");
            return Err(keys.unsupported(problem));
        }
        let rope = RopeConfig::take(keys, RopeInputs::new(family, dims))?;
        // TriLM's second name for the base.
        keys.expect("rotary_emb_base", &rope.theta().into())?;
        Ok(Positions { ropes: vec![rope], sliding: None, long_by_context: false })
    }

    /// Which of the RoPEs and what window layer `index` has.
    pub(crate) fn layer(&self, index: u32) -> (usize, Option<u32>) {
        let Some(sliding) = &self.sliding else { return (0, None) };
        let slides = match &sliding.layers {
            SlidingLayers::AllBut(nth) => !(index + 1).is_multiple_of(*nth),
            SlidingLayers::Listed(layers) => layers.get(index as usize).copied().unwrap_or(false),
        };
        if slides { (1, Some(sliding.window)) } else { (0, None) }
    }

    /// How far layers look back, in words, where some see less than everything.
    pub(crate) fn describe(&self) -> Option<String> {
        let sliding = self.sliding.as_ref()?;
        let layers = match &sliding.layers {
            SlidingLayers::AllBut(nth) => format!("all layers but every {nth}th"),
            SlidingLayers::Listed(layers) => {
                format!("{} of {} layers", layers.iter().filter(|&&slides| slides).count(), layers.len())
            }
        };
        Some(format!("{} tokens in {layers}", sliding.window))
    }

    /// The bundle's context length. It is `wanted`, or the longest for which one choice of the settings serves all
    /// texts.
    ///
    /// # Errors
    /// More tokens are wanted than the model was made for.
    pub(crate) fn context(
        &self,
        keys: &Keys,
        wanted: Option<u32>,
        warnings: &mut Warnings,
    ) -> Result<u32, CompileError> {
        let rope = &self.ropes[0];
        let refuse = |wanted, problem| CompileError::Choice { choice: Choice::Context(wanted), problem };
        warnings.extend(rope.warning().map(|warning| format!("{}: {warning}", keys.path().display())));
        let (own, longest) = (rope.context(), rope.longest());
        match (wanted, rope.change()) {
            (Some(wanted), _) if wanted > LONGEST => {
                Err(refuse(wanted, format!("a bundle's context is {LONGEST} tokens at most")))
            }
            (Some(0), _) => Err(refuse(0, "a text has at least one token".to_owned())),
            (Some(wanted), _) if wanted > longest => {
                let path = keys.path().display();
                Err(refuse(wanted, format!("{path} says the model is made for up to {longest} tokens")))
            }
            (Some(wanted), Some(change)) if wanted > change => {
                warnings.push(Warning::LongFactors { change, context: wanted });
                Ok(wanted)
            }
            (Some(wanted), _) => Ok(wanted),
            (None, Some(change)) if !self.long_by_context => {
                warnings.push(Warning::ShortFactors { change, longest: own });
                Ok(change)
            }
            (None, _) if own > LONGEST => {
                warnings.push(format!(
                    "{}: max_position_embeddings is {own}; a bundle's context is {LONGEST} tokens at most, and so is \
                     this one's",
                    keys.path().display()
                ));
                Ok(LONGEST)
            }
            (None, _) => Ok(own),
        }
    }
}
