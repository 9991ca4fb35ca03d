//! `quantization` of `config.json`: bits and group size for all packed modules, and for single ones by their paths.

use crate::error::CompileError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How modules are packed.
pub(super) struct Quantization {
    path: PathBuf,
    all: Packing,
    /// By a module's path; `None` where it is not to be packed.
    single: BTreeMap<String, Option<Packing>>,
}

/// How a module is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    /// Bits of a code.
    pub(super) bits: u64,
    /// Columns that share a scale and a bias.
    pub(super) group: u64,
}

/// The keys under which it stands; mlx-lm writes the same object under both.
const KEYS: [&str; 2] = ["quantization", "quantization_config"];

/// Keys of how a module is packed.
const PACKING: [&str; 3] = ["bits", "group_size", "mode"];

/// Keys of transformers' own quantization. Conversions of BitNet keep its matrices as transformers packs them, and its keys in
/// the same object as those of the tables that mlx-lm packed.
const DECLARED: [&str; 6] = [
    "quant_method",
    "linear_class",
    "quantization_mode",
    "modules_to_not_convert",
    "use_rms_norm",
    "rms_norm_eps",
];

/// Whether the configuration has such an object. Quantizers of other programs say their method under the second key.
pub(super) fn is_there(config: &Map<String, Value>) -> bool {
    let second = config.get(KEYS[1]).and_then(Value::as_object);
    config.contains_key(KEYS[0])
        || second.is_some_and(|map| map.contains_key("bits") && !map.contains_key("quant_method"))
}

impl Quantization {
    /// Takes both keys of the configuration in the file `path`; `None` where nothing is packed. What transformers' own
    /// quantization says stays, under its own key.
    ///
    /// # Errors
    /// A mode or key that is not known, and two objects that differ.
    pub(super) fn take(
        path: &Path,
        config: &mut Map<String, Value>,
    ) -> Result<Option<Quantization>, CompileError> {
        let invalid = |problem: String| CompileError::Invalid { path: path.to_owned(), problem };
        if !is_there(config) {
            return Ok(None);
        }
        let mut objects = KEYS.map(|key| config.remove(key).filter(|value| !value.is_null()));
        let mut declared = Map::new();
        for object in &mut objects {
            let of_others = take_declared(object, &mut declared).map_err(|key| {
                invalid(format!("{}.{key} and {}.{key} differ; remove the wrong one", KEYS[0], KEYS[1]))
            })?;
            if of_others {
                *object = None;
            }
        }
        if !declared.is_empty() {
            config.insert(KEYS[1].to_owned(), Value::Object(declared));
        }
        let [first, second] = objects;
        let Some(mut own) = first.or_else(|| second.clone()) else { return Ok(None) };
        if let Some(other) = second.filter(|value| *value != own) {
            let size = |value: &Value| value.as_object().map_or(0, Map::len);
            return Err(invalid(format!(
                "{} and {} differ ({} and {} keys), and mlx-lm writes the same under both; remove the wrong one",
                KEYS[0],
                KEYS[1],
                size(&own),
                size(&other)
            )));
        }
        let Some(map) = own.as_object_mut() else {
            return Err(invalid(format!("{} is {own}, expected an object", KEYS[0])));
        };
        let shared: Map<String, Value> =
            PACKING.iter().filter_map(|key| Some(((*key).to_owned(), map.remove(*key)?))).collect();
        let all = packing(path, KEYS[0], &shared, None)?;
        let mut single = BTreeMap::new();
        for (module, value) in map.iter() {
            let name = format!("{}.{module}", KEYS[0]);
            let own = match value {
                Value::Bool(packed) => packed.then_some(all),
                Value::Object(own) => Some(packing(path, &name, own, Some(all))?),
                other => {
                    return Err(CompileError::Unsupported {
                        path: path.to_owned(),
                        problem: format!(
                            "{name} is {other}, and is not known; expected bits, group_size, mode, or how a module is packed"
                        ),
                    });
                }
            };
            single.insert(module.strip_prefix(super::TEXT_MODEL).unwrap_or(module).to_owned(), own);
        }
        Ok(Some(Quantization { path: path.to_owned(), all, single }))
    }

    /// How `module` is packed.
    ///
    /// # Errors
    /// It is packed, and the configuration says that it is not.
    pub(super) fn of(&self, module: &str) -> Result<Packing, CompileError> {
        match self.single.get(module) {
            None => Ok(self.all),
            Some(Some(packing)) => Ok(*packing),
            Some(None) => Err(self.invalid(format!(
                "{}.{module} is false, but the module is packed; the two files are not of the same model",
                KEYS[0]
            ))),
        }
    }

    /// An error about the configuration.
    pub(super) fn invalid(&self, problem: String) -> CompileError {
        CompileError::Invalid { path: self.path.clone(), problem }
    }

    /// How most modules are packed, in words.
    pub(super) fn describe(&self) -> String {
        format!("{} is {} bits in groups of {}", KEYS[0], self.all.bits, self.all.group)
    }
}

/// Moves the keys of transformers' own quantization. Whether the object had no other.
///
/// # Errors
/// A key that is there already with another value.
fn take_declared(
    object: &mut Option<Value>,
    declared: &mut Map<String, Value>,
) -> Result<bool, &'static str> {
    let Some(Value::Object(map)) = object else { return Ok(false) };
    let mut any = false;
    for key in DECLARED {
        let Some(value) = map.remove(key) else { continue };
        any = true;
        if declared.get(key).is_some_and(|other| *other != value) {
            return Err(key);
        }
        declared.insert(key.to_owned(), value);
    }
    Ok(any && map.is_empty())
}

/// How the object `name` says that modules are packed; `outer` counts where it is silent.
fn packing(
    path: &Path,
    name: &str,
    map: &Map<String, Value>,
    outer: Option<Packing>,
) -> Result<Packing, CompileError> {
    let unsupported = |problem: String| CompileError::Unsupported { path: path.to_owned(), problem };
    if let Some((key, value)) = map.iter().find(|(key, _)| !PACKING.contains(&key.as_str())) {
        return Err(unsupported(format!("{name}.{key} is {value}, and is not known")));
    }
    match map.get("mode") {
        None | Some(Value::Null) => {}
        Some(mode) if mode == "affine" => {}
        Some(mode) => {
            return Err(unsupported(format!(
                "{name}.mode is {mode}, which is not ternary (only \"affine\" is read); use the model's safetensors checkpoint \
                 for transformers, or its GGUF file"
            )));
        }
    }
    let number = |key: &str, outer: Option<u64>| match (map.get(key), outer) {
        (None, Some(outer)) => Ok(outer),
        (value, _) => value.and_then(Value::as_u64).ok_or_else(|| CompileError::Invalid {
            path: path.to_owned(),
            problem: format!("{name}.{key} is {}, expected a number", value.unwrap_or(&Value::Null)),
        }),
    };
    Ok(Packing {
        bits: number("bits", outer.map(|packing| packing.bits))?,
        group: number("group_size", outer.map(|packing| packing.group))?,
    })
}
