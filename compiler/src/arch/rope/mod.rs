//! Rotary position embeddings: from either spelling of the configuration to a table of frequencies.
//!
//! The runtime knows no RoPE types; a bundle holds the frequencies of one choice. Where the choice depends on the
//! length of the text (LongRoPE), the bundle's context length decides it.

mod scaling;
mod table;
#[cfg(test)]
mod tests;

use crate::arch::family::Family;
use crate::arch::keys::Keys;
use crate::error::CompileError;
use scaling::Scaling;
use serde_json::json;
use trit_format::manifest::Hyperparameters;

/// What RoPE depends on and the configuration says elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeInputs {
    /// The base, where the configuration names none.
    pub(crate) theta: f64,
    /// The size of a head. There are half as many frequencies.
    pub(crate) head_dim: u32,
    /// `max_position_embeddings`.
    pub(crate) context: u32,
    /// Whether the type `dynamic` may have an `alpha`.
    pub(crate) alpha: bool,
}

impl RopeInputs {
    /// Those of a model of `family` with these sizes.
    pub(crate) fn new(family: &Family, dims: &Hyperparameters) -> RopeInputs {
        RopeInputs {
            theta: family.rope_theta,
            head_dim: dims.head_dim,
            context: dims.context_length,
            alpha: family.rope_alpha,
        }
    }
}

/// RoPE as the configuration describes it.
#[derive(Clone, Debug)]
pub(crate) struct RopeConfig {
    /// Its base.
    theta: f64,
    scaling: Scaling,
    inputs: RopeInputs,
}

/// The object under `rope_scaling` or `rope_parameters`.
struct Inner {
    theta: Option<f64>,
    scaling: Scaling,
}

impl RopeConfig {
    /// Reads `rope_theta` with `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5).
    ///
    /// # Errors
    /// Contradictory spellings, missing or senseless numbers, types and keys that are not known.
    pub(crate) fn take(keys: &mut Keys, inputs: RopeInputs) -> Result<RopeConfig, CompileError> {
        let theta = keys.take("rope_theta")?;
        let original = keys.take("original_max_position_embeddings")?;
        keys.expect("partial_rotary_factor", &json!(1.0))?;
        let old =
            keys.object("rope_scaling")?.map(|inner| Inner::take(inner, original, inputs)).transpose()?;
        let new =
            keys.object("rope_parameters")?.map(|inner| Inner::take(inner, original, inputs)).transpose()?;
        RopeConfig::joined(keys, theta, [old, new], inputs)
    }

    /// Reads `rope_parameters` of a model that rotates only a part of each head, `partial` where the configuration does
    /// not say which. Positions of images may have sections of the frequencies (`mrope_section`); those of text are all
    /// equal, so that the sections do not matter.
    ///
    /// # Errors
    /// As [`RopeConfig::take`], and parts that are no even number of elements.
    pub(crate) fn take_partial(
        keys: &mut Keys,
        inputs: RopeInputs,
        partial: f64,
    ) -> Result<RopeConfig, CompileError> {
        let theta = keys.take("rope_theta")?;
        let outer: Option<f64> = keys.take("partial_rotary_factor")?;
        let mut inner = keys.object("rope_parameters")?;
        if inner.is_none() {
            inner = keys.object("rope_scaling")?;
        }
        let mut own = None;
        if let Some(inner) = &mut inner {
            own = inner.take("partial_rotary_factor")?;
            inner.take::<Vec<u32>>("mrope_section")?;
            inner.take::<bool>("mrope_interleaved")?;
        }
        if let (Some(outer), Some(own)) = (outer, own)
            && outer != own
        {
            let problem =
                format!("partial_rotary_factor is {outer} in one place and {own} in another; remove one");
            return Err(keys.invalid(problem));
        }
        let factor = own.or(outer).unwrap_or(partial);
        let rotated = f64::from(inputs.head_dim) * factor;
        if !(rotated >= 2.0 && rotated <= f64::from(inputs.head_dim) && rotated % 2.0 == 0.0) {
            return Err(keys.invalid(format!(
                "partial_rotary_factor is {factor}, which rotates {rotated} of {} elements, not an even number of them",
                inputs.head_dim
            )));
        }
        let inputs = RopeInputs { head_dim: rotated as u32, ..inputs };
        let inner = inner.map(|inner| Inner::take(inner, None, inputs)).transpose()?;
        RopeConfig::joined(keys, theta, [None, inner], inputs)
    }

    /// Reads Gemma 3's two RoPEs, `(full, sliding)`: `rope_theta`, `rope_scaling` and `rope_local_base_freq`, or
    /// `rope_parameters` with an object for each type of layer. `local_theta` is the sliding layers' default base.
    ///
    /// # Errors
    /// As [`RopeConfig::take`].
    pub(crate) fn take_by_layer_type(
        keys: &mut Keys,
        inputs: RopeInputs,
        local_theta: f64,
    ) -> Result<(RopeConfig, RopeConfig), CompileError> {
        let local = RopeInputs { theta: local_theta, ..inputs };
        let [full_theta, sliding_theta] = [keys.take("rope_theta")?, keys.take("rope_local_base_freq")?];
        keys.expect("partial_rotary_factor", &json!(1.0))?;
        let old = keys.object("rope_scaling")?.map(|inner| Inner::take(inner, None, inputs)).transpose()?;
        let (mut full, mut sliding) = (None, None);
        if let Some(mut by_type) = keys.object("rope_parameters")? {
            let mut of = |name, inputs| {
                let inner = by_type.object(name)?;
                inner.map(|inner| Inner::take_nested(inner, inputs)).transpose()
            };
            full = of("full_attention", inputs)?;
            sliding = of("sliding_attention", local)?;
            by_type.refuse_rest(&[])?;
        }
        let full = RopeConfig::joined(keys, full_theta, [old, full], inputs)?;
        let sliding = RopeConfig::joined(keys, sliding_theta, [None, sliding], local)?;
        Ok((full, sliding))
    }

    /// One RoPE, from the base that stands outside of the two spellings and what stands inside each of them.
    fn joined(
        keys: &Keys,
        outer_theta: Option<f64>,
        [old, new]: [Option<Inner>; 2],
        inputs: RopeInputs,
    ) -> Result<RopeConfig, CompileError> {
        let differ = |a: Option<f64>, b: Option<f64>| a.zip(b).is_some_and(|(a, b)| a != b);
        if let (Some(a), Some(b)) = (&old, &new)
            && (a.scaling != b.scaling || differ(a.theta, b.theta))
        {
            return Err(keys.invalid("rope_scaling and rope_parameters contradict each other; remove one"));
        }
        let inner_theta = [&old, &new].into_iter().flatten().find_map(|inner| inner.theta);
        if let (Some(outer), Some(inner)) = (outer_theta, inner_theta)
            && outer != inner
        {
            return Err(keys
                .invalid(format!("rope_theta is {outer} in one place and {inner} in another; remove one")));
        }
        let theta = inner_theta.or(outer_theta).unwrap_or(inputs.theta);
        if !(theta.is_finite() && theta > 0.0) {
            return Err(keys.invalid(format!("rope_theta is {theta}, expected a number above zero")));
        }
        let scaling = new.or(old).map_or(Scaling::Default, |inner| inner.scaling);
        if matches!(scaling, Scaling::Yarn(_)) && theta <= 1.0 {
            // YaRN's correction range divides by the logarithm of the base.
            return Err(keys.invalid(format!("rope_theta is {theta}; YaRN needs one above 1")));
        }
        Ok(RopeConfig { theta, scaling, inputs })
    }

    /// The base of its frequencies.
    pub(crate) fn theta(&self) -> f64 {
        self.theta
    }

    /// `max_position_embeddings`.
    pub(crate) fn context(&self) -> u32 {
        self.inputs.context
    }

    /// The largest context length that these settings were made for.
    pub(crate) fn longest(&self) -> u32 {
        let context = self.inputs.context;
        match &self.scaling {
            Scaling::Yarn(yarn) => context.max((yarn.factor * yarn.original) as u32),
            _ => context,
        }
    }

    /// Where LongRoPE changes from its short factors to its long ones, if that is within the context.
    pub(crate) fn change(&self) -> Option<u32> {
        let context = self.inputs.context;
        match &self.scaling {
            Scaling::LongRope(long) if long.original < context => Some(long.original),
            _ => None,
        }
    }

    /// What a user should know about the settings.
    pub(crate) fn warning(&self) -> Option<String> {
        let context = self.inputs.context;
        let Scaling::Yarn(yarn) = &self.scaling else { return None };
        let implied = f64::from(context) / yarn.original;
        (implied != yarn.factor && implied != 1.0).then(|| {
            format!(
                "YaRN's factor is {}, but max_position_embeddings {context} is {implied} times its \
                 original_max_position_embeddings; the factor counts, as in transformers 5",
                yarn.factor
            )
        })
    }

    /// What it is, in words.
    pub(crate) fn describe(&self, context: u32) -> String {
        format!("{}, theta {}", self.scaling.describe(context), self.theta)
    }
}

impl Inner {
    fn take(mut keys: Keys, outer_original: Option<u32>, inputs: RopeInputs) -> Result<Inner, CompileError> {
        let theta = keys.take("rope_theta")?;
        keys.expect("partial_rotary_factor", &json!(1.0))?;
        let scaling = Scaling::take(&mut keys, outer_original, inputs)?;
        keys.refuse_rest(&[])?;
        Ok(Inner { theta, scaling })
    }

    /// The parameters of one type of layer. transformers looks for YaRN's `truncate` in the wrong object here, so
    /// that the key has no effect. It is unclear what was meant, so the key is refused.
    fn take_nested(mut keys: Keys, inputs: RopeInputs) -> Result<Inner, CompileError> {
        keys.expect("truncate", &json!(true))?;
        Inner::take(keys, None, inputs)
    }
}
