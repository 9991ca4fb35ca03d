//! `quantization_config`: how the ternary matrices are stored, and which linears stay floats.

use crate::arch::config::epsilon;
use crate::arch::family::Family;
use crate::arch::keys::Keys;
use crate::arch::modules::Kept;
use crate::error::CompileError;
use crate::weights::stored::Storage;
use serde_json::Value;

/// What the configuration says about the weights of linears.
#[derive(Clone, Debug)]
pub(crate) enum LinearWeights {
    /// Ternary, with int8 activations.
    Declared(Quantization),
    /// Nothing: floats, ternary or not, that were trained without int8 activations.
    Undeclared,
}

/// How a model with `quant_method: "bitnet"` stores its linears.
#[derive(Clone, Debug)]
pub(crate) struct Quantization {
    pub(crate) storage: Storage,
    /// The epsilon of an RMSNorm inside each quantized linear, where it has one (`use_rms_norm`).
    pub(crate) inner_norm: Option<f32>,
    pub(crate) kept: Kept,
}

impl LinearWeights {
    /// Latent weights in all linears but the head.
    pub(crate) fn latent() -> LinearWeights {
        let kept = Kept::head();
        LinearWeights::Declared(Quantization { storage: Storage::Latent, inner_norm: None, kept })
    }

    /// Takes `quantization_config`.
    ///
    /// # Errors
    /// A method, class, mode or key that is not known.
    pub(crate) fn take(keys: &mut Keys, family: &Family) -> Result<LinearWeights, CompileError> {
        refuse_mlx(keys)?;
        let Some(mut inner) = keys.object("quantization_config")? else {
            if !family.latent {
                return Ok(LinearWeights::Undeclared);
            }
            return Ok(LinearWeights::latent());
        };
        let quantization = Quantization::take(&mut inner, family)?;
        inner.refuse_rest(&["_load_in_4bit", "_load_in_8bit"])?;
        Ok(LinearWeights::Declared(quantization))
    }
}

impl Quantization {
    fn take(keys: &mut Keys, family: &Family) -> Result<Quantization, CompileError> {
        let method: String = keys.require("quant_method")?;
        if method != "bitnet" {
            let problem =
                format!("{} {method:?} is not supported (only \"bitnet\")", keys.named("quant_method"));
            return Err(keys.unsupported(problem));
        }
        let eps = epsilon(keys, "rms_norm_eps")?.unwrap_or(1e-6) as f32;
        let inner_norm = keys.take("use_rms_norm")?.unwrap_or(false).then_some(eps);
        let kept = Kept::take(keys)?;
        let first = first_revision(keys)?;
        let storage = storage(keys, first)?;
        if family.latent && storage != Storage::Latent {
            return Err(keys.unsupported(format!(
                "{} of {} must be linear_class \"autobitlinear\" and quantization_mode \"online\", as its weights are",
                keys.named("").trim_end_matches('.'),
                family.architecture
            )));
        }
        Ok(Quantization { storage, inner_norm, kept })
    }
}

/// Refuses what mlx-lm writes, under two keys: groups of integers, each with a scale and a bias.
fn refuse_mlx(keys: &mut Keys) -> Result<(), CompileError> {
    let Some(mlx) = keys.take::<Value>("quantization")? else { return Ok(()) };
    let [bits, group] =
        ["bits", "group_size"].map(|key| mlx.get(key).map_or("?".to_owned(), Value::to_string));
    Err(keys.unsupported(format!(
        "quantization is {bits} bits in groups of {group}, as mlx-lm stores weights, which is not supported; use the \
         model's safetensors checkpoint for transformers (often named \"unpacked\"), or its GGUF file"
    )))
}

/// The mode that the first revision of microsoft/bitnet-b1.58-2B-4T (April 2025) and checkpoints made like it
/// declare: `offline_quantization` or `online_quantization`, before there were `linear_class` and
/// `quantization_mode`. Both belong to the class that has been called "autobitlinear" since then, whose offline scale
/// multiplies.
fn first_revision(keys: &mut Keys) -> Result<Option<&'static str>, CompileError> {
    let [offline, online] =
        ["offline", "online"].map(|mode| keys.take::<bool>(&format!("{mode}_quantization")));
    let [name, other] = ["offline_quantization", "online_quantization"].map(|key| keys.named(key));
    match (offline?, online?) {
        (None, None) => Ok(None),
        (Some(true), None | Some(false)) => Ok(Some("offline")),
        (None | Some(false), Some(true)) => Ok(Some("online")),
        (Some(true), Some(true)) => {
            Err(keys.invalid(format!("{name} and {other} are both true, and exclude each other; remove one")))
        }
        _ => Err(keys.unsupported(format!(
            "{name} and {other} say only what the weights are not; say what they are by linear_class and \
             quantization_mode in their place"
        ))),
    }
}

/// How the ternary matrices are stored; `first` is what [`first_revision`] gives. The class says in which direction
/// the scale counts; that is never guessed from its size.
fn storage(keys: &mut Keys, first: Option<&'static str>) -> Result<Storage, CompileError> {
    let class: Option<String> = keys.take("linear_class")?;
    let mode: Option<String> = keys.take("quantization_mode")?;
    if let Some(first) = first {
        for (key, found, expected) in
            [("linear_class", &class, "autobitlinear"), ("quantization_mode", &mode, first)]
        {
            if let Some(found) = found.as_ref().filter(|found| *found != expected) {
                return Err(keys.invalid(format!(
                    "{} is {found:?}, but {} means {expected:?}; remove one",
                    keys.named(key),
                    keys.named(&format!("{first}_quantization"))
                )));
            }
        }
    }
    let class = class.as_deref().unwrap_or(if first.is_some() { "autobitlinear" } else { "bitlinear" });
    match (class, mode.as_deref().or(first).unwrap_or("offline")) {
        ("bitlinear", "offline" | "online") => Ok(Storage::Packed),
        ("autobitlinear", "offline") => Ok(Storage::Offline),
        ("autobitlinear", "online") => Ok(Storage::Latent),
        ("bitlinear" | "autobitlinear", mode) => {
            let key = keys.named("quantization_mode");
            Err(keys.unsupported(format!("{key} {mode:?} is not known (only \"offline\" and \"online\")")))
        }
        (class, _) => {
            let key = keys.named("linear_class");
            let problem = format!("{key} {class:?} is not known (only \"bitlinear\" and \"autobitlinear\")");
            Err(keys.unsupported(problem))
        }
    }
}

impl LinearWeights {
    /// What they are, in words.
    pub(crate) fn describe(&self) -> String {
        let LinearWeights::Declared(quantization) = self else {
            return "not declared; floats that are found to be ternary are".to_owned();
        };
        let storage = match quantization.storage {
            Storage::Packed => "ternary, packed, the scale divides (bitlinear)",
            Storage::Offline => "ternary, the scale multiplies (autobitlinear, offline)",
            Storage::Latent => "latent, made ternary by their absmean (autobitlinear, online)",
        };
        let norms = if quantization.inner_norm.is_some() { ", an RMSNorm inside each linear" } else { "" };
        let kept: Vec<&str> = quantization.kept.texts().collect();
        let kept = if kept.is_empty() { "nothing".to_owned() } else { kept.join(", ") };
        format!("{storage}{norms}; not quantized: {kept}")
    }
}
