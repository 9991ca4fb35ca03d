//! Rotary position embeddings: from either spelling of the configuration to a table of frequencies.

use crate::arch::keys::Keys;
use crate::error::CompileError;
use serde_json::json;

/// RoPE as the configuration describes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rope {
    theta: f64,
    scaling: Scaling,
}

/// What is done to the plain frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scaling {
    Default,
    Linear { factor: f64 },
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
}

impl Rope {
    /// Reads `rope_theta` with `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5).
    ///
    /// # Errors
    /// Contradictory spellings, missing or senseless numbers, types and keys that are not known.
    pub(crate) fn take(
        keys: &mut Keys,
        default_theta: f64,
        context_length: u32,
    ) -> Result<Rope, CompileError> {
        let outer_theta: Option<f64> = keys.take("rope_theta")?;
        let outer_original: Option<f64> = keys.take("original_max_position_embeddings")?;
        keys.expect("partial_rotary_factor", &json!(1.0))?;
        let spellings = (keys.object("rope_scaling")?, keys.object("rope_parameters")?);
        let (mut inner_theta, mut scaling) = (None, Scaling::Default);
        let context = f64::from(context_length);
        match spellings {
            (Some(scaling_keys), Some(parameters)) => {
                let a = Inner::take(scaling_keys, outer_original, context)?;
                let b = Inner::take(parameters, outer_original, context)?;
                let thetas_differ = a.theta.zip(b.theta).is_some_and(|(a, b)| a != b);
                if a.scaling != b.scaling || thetas_differ {
                    return Err(
                        keys.invalid("rope_scaling and rope_parameters contradict each other; remove one")
                    );
                }
                (inner_theta, scaling) = (a.theta.or(b.theta), a.scaling);
            }
            (Some(inner), None) | (None, Some(inner)) => {
                let inner = Inner::take(inner, outer_original, context)?;
                (inner_theta, scaling) = (inner.theta, inner.scaling);
            }
            (None, None) => {}
        }
        if let (Some(outer), Some(inner)) = (outer_theta, inner_theta)
            && outer != inner
        {
            return Err(keys
                .invalid(format!("rope_theta is {outer} in one place and {inner} in another; remove one")));
        }
        let theta = inner_theta.or(outer_theta).unwrap_or(default_theta);
        if !(theta.is_finite() && theta > 0.0) {
            return Err(keys.invalid(format!("rope_theta is {theta}, expected a number above zero")));
        }
        Ok(Rope { theta, scaling })
    }

    /// The `head_dim / 2` frequencies, as transformers computes them: torch's f32 operations in torch's order, in
    /// which a number divided by a tensor is the reciprocal, then a product.
    pub(crate) fn inv_freq(&self, head_dim: usize) -> Vec<f32> {
        let theta = f64::from(self.theta as f32);
        let plain = (0..head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            // The f32 power, rounded from f64: the same on every platform, whatever its powf.
            1.0 / (theta.powf(f64::from(exponent)) as f32)
        });
        match self.scaling {
            Scaling::Default => plain.collect(),
            Scaling::Linear { factor } => plain.map(|f| f / factor as f32).collect(),
            Scaling::Llama3 { factor, low, high, original } => plain
                .map(|f| {
                    let wavelength = (1.0 / f) * (2.0 * std::f64::consts::PI) as f32;
                    if wavelength > (original / low) as f32 {
                        f / factor as f32
                    } else if wavelength < (original / high) as f32 {
                        f
                    } else {
                        let smooth =
                            ((1.0 / wavelength) * original as f32 - low as f32) / (high - low) as f32;
                        (1.0 - smooth) * f / factor as f32 + smooth * f
                    }
                })
                .collect(),
        }
    }
}

/// The object under `rope_scaling` or `rope_parameters`.
struct Inner {
    theta: Option<f64>,
    scaling: Scaling,
}

impl Inner {
    fn take(mut keys: Keys, outer_original: Option<f64>, context: f64) -> Result<Inner, CompileError> {
        let theta = keys.take("rope_theta")?;
        let new: Option<String> = keys.take("rope_type")?;
        let old: Option<String> = keys.take("type")?;
        if let (Some(new), Some(old)) = (&new, &old)
            && new != old
        {
            return Err(keys.invalid(format!(
                "{} is {new:?}, but {} is {old:?}",
                keys.named("rope_type"),
                keys.named("type")
            )));
        }
        keys.expect("partial_rotary_factor", &json!(1.0))?;
        let scaling = match new.or(old).as_deref() {
            None | Some("default") => {
                keys.expect("factor", &json!(1.0))?;
                Scaling::Default
            }
            Some("linear") => Scaling::Linear { factor: positive(&mut keys, "factor")? },
            Some("llama3") => {
                let factor = positive(&mut keys, "factor")?;
                let low = positive(&mut keys, "low_freq_factor")?;
                let high = positive(&mut keys, "high_freq_factor")?;
                if high <= low {
                    return Err(keys.invalid(format!(
                        "{} must be above {}",
                        keys.named("high_freq_factor"),
                        keys.named("low_freq_factor")
                    )));
                }
                // transformers lets the outer key win, and falls back to the context length.
                let inner: Option<f64> = keys.take("original_max_position_embeddings")?;
                let original = outer_original.or(inner).unwrap_or(context);
                if !(original.is_finite() && original > 0.0) {
                    return Err(keys.invalid(format!(
                        "{} must be above zero",
                        keys.named("original_max_position_embeddings")
                    )));
                }
                Scaling::Llama3 { factor, low, high, original }
            }
            Some(other) => {
                return Err(keys.unsupported(format!(
                    "{} {other:?} is not supported (only \"default\", \"linear\" and \"llama3\")",
                    keys.named("rope_type")
                )));
            }
        };
        keys.refuse_rest(&[])?;
        Ok(Inner { theta, scaling })
    }
}

fn positive(keys: &mut Keys, key: &str) -> Result<f64, CompileError> {
    let value: f64 = keys.require(key)?;
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(keys.invalid(format!("{} is {value}, expected a number above zero", keys.named(key))))
}
