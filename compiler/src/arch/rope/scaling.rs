//! The types of RoPE, which say what is done to the plain frequencies, and their keys as transformers'
//! `modeling_rope_utils.py` reads them.

use crate::arch::keys::Keys;
use crate::arch::rope::RopeInputs;
use crate::error::CompileError;

/// Every type that is known.
const TYPES: &str = "\"default\", \"linear\", \"llama3\", \"yarn\" and \"longrope\"";

/// One type of RoPE and its settings.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scaling {
    Default,
    Linear {
        factor: f64,
    },
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    Yarn(Yarn),
    LongRope(LongRope),
    /// Hunyuan's: the base is multiplied with `alpha^(d / (d - 2))`, `d` the size of a head, for texts of every length.
    /// Its files call it `dynamic`, which without `alpha` is another type.
    Alpha {
        alpha: f64,
    },
}

/// YaRN: fast frequencies stay, slow ones are divided by the factor, and a ramp joins them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Yarn {
    pub(super) factor: f64,
    /// Context length of the training before the extension.
    pub(super) original: f64,
    pub(super) beta_fast: f64,
    pub(super) beta_slow: f64,
    /// Whether the ramp's ends are whole numbers.
    pub(super) truncate: bool,
    /// Factor on cos and sin.
    pub(super) attention: f64,
}

/// Each frequency has divisors of its own: one for short texts, one for long ones.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LongRope {
    pub(super) short: Vec<f64>,
    pub(super) long: Vec<f64>,
    /// Longest text of the short factors.
    pub(super) original: u32,
    /// Factor on cos and sin, for short texts too.
    pub(super) attention: f64,
}

impl Scaling {
    /// Takes the type and its settings; other keys stay.
    pub(super) fn take(
        keys: &mut Keys,
        outer_original: Option<u32>,
        inputs: RopeInputs,
    ) -> Result<Scaling, CompileError> {
        match kind(keys)?.as_deref() {
            None | Some("default") => {
                keys.expect("factor", &1.0.into())?;
                Ok(Scaling::Default)
            }
            Some("linear") => Ok(Scaling::Linear { factor: positive(keys, "factor")? }),
            Some("llama3") => {
                let factor = positive(keys, "factor")?;
                let low = positive(keys, "low_freq_factor")?;
                let high = positive(keys, "high_freq_factor")?;
                if high <= low {
                    return Err(keys.invalid(format!(
                        "{} must be above {}",
                        keys.named("high_freq_factor"),
                        keys.named("low_freq_factor")
                    )));
                }
                let original = original(keys, outer_original, inputs)?.into();
                Ok(Scaling::Llama3 { factor, low, high, original })
            }
            Some("yarn") => yarn(keys, outer_original, inputs).map(Scaling::Yarn),
            Some("longrope") => long_rope(keys, outer_original, inputs).map(Scaling::LongRope),
            Some("dynamic") if inputs.alpha => alpha(keys, inputs),
            Some(other) => Err(keys.unsupported(format!(
                "{} {other:?} is not supported (only {TYPES})",
                keys.named("rope_type")
            ))),
        }
    }

    /// What it is, in words.
    pub(super) fn describe(&self, context: u32) -> String {
        match self {
            Scaling::Default => "default".to_owned(),
            Scaling::Linear { factor } => format!("linear, factor {factor}"),
            Scaling::Llama3 { factor, original, .. } => format!("llama3, factor {factor} over {original}"),
            Scaling::Yarn(yarn) => format!("yarn, factor {} over {}", yarn.factor, yarn.original),
            Scaling::Alpha { alpha } => format!("dynamic, alpha {alpha}"),
            Scaling::LongRope(long) if context > long.original => "longrope, long factors".to_owned(),
            Scaling::LongRope(long) => format!("longrope, short factors (up to {})", long.original),
        }
    }
}

/// `rope_type`, or `type` as it was called.
fn kind(keys: &mut Keys) -> Result<Option<String>, CompileError> {
    let new: Option<String> = keys.take("rope_type")?;
    let old: Option<String> = keys.take("type")?;
    match (&new, &old) {
        (Some(new), Some(old)) if new != old => {
            let [rope_type, kind] = ["rope_type", "type"].map(|key| keys.named(key));
            Err(keys.invalid(format!("{rope_type} is {new:?}, but {kind} is {old:?}")))
        }
        _ => Ok(new.or(old)),
    }
}

/// The type `dynamic` with an `alpha`. transformers reads no other of its keys.
fn alpha(keys: &mut Keys, inputs: RopeInputs) -> Result<Scaling, CompileError> {
    let Some(alpha) = optional(keys, "alpha")? else {
        return Err(keys.unsupported(format!(
            "{} \"dynamic\" without {} is not supported: its frequencies depend on the length of the text",
            keys.named("rope_type"),
            keys.named("alpha")
        )));
    };
    keys.expect("factor", &1.0.into())?;
    for key in ["beta_fast", "beta_slow", "mscale", "mscale_all_dim"] {
        keys.take::<f64>(key)?;
    }
    if inputs.head_dim <= 2 {
        let (key, head_dim) = (keys.named("alpha"), inputs.head_dim);
        return Err(keys.invalid(format!("{key} needs heads of more than 2 elements; these have {head_dim}")));
    }
    Ok(Scaling::Alpha { alpha })
}

/// The context length of the training before the extension. As in transformers, the outer key wins, and the context
/// is the default.
fn original(keys: &mut Keys, outer: Option<u32>, inputs: RopeInputs) -> Result<u32, CompileError> {
    let key = "original_max_position_embeddings";
    let inner: Option<u32> = keys.take(key)?;
    match outer.or(inner).unwrap_or(inputs.context) {
        // Something is divided by its logarithm.
        0 | 1 => Err(keys.invalid(format!("{} must be above one", keys.named(key)))),
        original => Ok(original),
    }
}

fn yarn(keys: &mut Keys, outer: Option<u32>, inputs: RopeInputs) -> Result<Yarn, CompileError> {
    let original = f64::from(original(keys, outer, inputs)?);
    let factor = optional(keys, "factor")?.unwrap_or(f64::from(inputs.context) / original);
    // As in Python, a zero counts as absent.
    let mut set = |key| Ok(keys.take::<f64>(key)?.filter(|&value| value != 0.0));
    let [mscale, mscale_all_dim] = [set("mscale")?, set("mscale_all_dim")?];
    let beta_fast = set("beta_fast")?.unwrap_or(32.0);
    let beta_slow = set("beta_slow")?.unwrap_or(1.0);
    let of = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    let attention = match (optional(keys, "attention_factor")?, mscale, mscale_all_dim) {
        (Some(attention), ..) => attention,
        (None, Some(mscale), Some(all)) => of(mscale) / of(all),
        (None, ..) => of(1.0),
    };
    let sensible = |beta: f64| beta.is_finite() && beta > 0.0;
    if !(sensible(beta_fast) && sensible(beta_slow) && beta_fast >= beta_slow) {
        let [fast, slow] = ["beta_fast", "beta_slow"].map(|key| keys.named(key));
        let problem = format!("{fast} is {beta_fast} and {slow} {beta_slow}, expected {fast} >= {slow} > 0");
        return Err(keys.invalid(problem));
    }
    let truncate = keys.take("truncate")?.unwrap_or(true);
    Ok(Yarn { factor, original, beta_fast, beta_slow, truncate, attention: checked(keys, attention)? })
}

fn long_rope(keys: &mut Keys, outer: Option<u32>, inputs: RopeInputs) -> Result<LongRope, CompileError> {
    let short = factors(keys, "short_factor", inputs)?;
    let long = factors(keys, "long_factor", inputs)?;
    let original = original(keys, outer, inputs)?;
    let factor = optional(keys, "factor")?.unwrap_or(f64::from(inputs.context) / f64::from(original));
    let by_factor = || match factor {
        factor if factor <= 1.0 => 1.0,
        factor => (1.0 + factor.ln() / f64::from(original).ln()).sqrt(),
    };
    let attention = optional(keys, "attention_factor")?.unwrap_or_else(by_factor);
    Ok(LongRope { short, long, original, attention: checked(keys, attention)? })
}

/// A divisor for each frequency.
fn factors(keys: &mut Keys, key: &str, inputs: RopeInputs) -> Result<Vec<f64>, CompileError> {
    let factors: Vec<f64> = keys.require(key)?;
    let key = keys.named(key);
    if factors.len() != inputs.head_dim as usize / 2 {
        let (found, expected) = (factors.len(), inputs.head_dim / 2);
        return Err(
            keys.invalid(format!("{key} holds {found} numbers, expected {expected} (half of a head)"))
        );
    }
    // They are used as f32, so they must be such numbers.
    match factors.iter().find(|&&x| !((x as f32).is_finite() && x as f32 > 0.0)) {
        Some(x) => Err(keys.invalid(format!("{key} holds {x}, expected numbers above zero"))),
        None => Ok(factors),
    }
}

/// A factor on cos and sin must stay one as f32.
fn checked(keys: &Keys, attention: f64) -> Result<f64, CompileError> {
    let factor = attention as f32;
    if factor.is_finite() && factor > 0.0 {
        return Ok(attention);
    }
    Err(keys
        .invalid(format!("{} is {attention}, expected a number above zero", keys.named("attention_factor"))))
}

fn positive(keys: &mut Keys, key: &str) -> Result<f64, CompileError> {
    let value: Option<f64> = optional(keys, key)?;
    value.ok_or_else(|| keys.invalid(format!("has no {}", keys.named(key))))
}

fn optional(keys: &mut Keys, key: &str) -> Result<Option<f64>, CompileError> {
    match keys.take::<f64>(key)? {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(keys.invalid(format!("{} is {value}, expected a number above zero", keys.named(key))))
        }
        value => Ok(value),
    }
}
