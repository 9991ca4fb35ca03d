//! `prism_hadamard_qwen35`: Bonsai 2, whose packed weights are stored in a rotated basis. The configuration lists each
//! packed module with the size of its blocks; its signs stand beside its weights.

use crate::checkpoint::overrides::Rotations;
use crate::checkpoint::{ElementType, RawTensor};
use crate::error::CompileError;
use crate::model::float::FloatType;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The module whose rows are rotated back after they are looked up.
const EMBEDDING: &str = "model.embed_tokens";

/// What names of rotated modules end with; they are the same as in GGUF files.
const KINDS: [&str; 11] = [
    "lm_head",
    "linear_attn.in_proj_qkv",
    "linear_attn.in_proj_z",
    "linear_attn.out_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
];

/// Largest block, a hundred times the largest in use.
const MAX_BLOCK: u32 = 1 << 17;

/// The packed modules of a model.
pub(super) struct Modules {
    path: PathBuf,
    modules: Vec<Module>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Module {
    path: String,
    /// Elements that are rotated together, 0 where the module is not rotated.
    block: Option<u32>,
    #[serde(default)]
    embedding: bool,
    /// Type of what the module gives. Here it is f32 whatever the file says.
    #[serde(default)]
    dtype: Option<String>,
}

impl Modules {
    /// Takes the keys of this kind of model from the configuration in the file `path`.
    ///
    /// # Errors
    /// Another version or layout, and entries of `modules` that are not understood.
    pub(super) fn take(path: &Path, config: &mut Map<String, Value>) -> Result<Modules, CompileError> {
        let unsupported = |problem: String| CompileError::Unsupported { path: path.to_owned(), problem };
        for (key, expected) in
            [("schema_version", Value::from(2)), ("gdn_activation_layout", Value::from("grouped"))]
        {
            match config.remove(key) {
                Some(value) if value == expected => {}
                value => {
                    return Err(unsupported(format!(
                        "{key} is {}, which is not supported (only {expected}); without it the order of weights or the \
                         rotation would be another",
                        value.unwrap_or_default()
                    )));
                }
            }
        }
        // How the program that wrote the file names tensors; the names themselves are checked.
        config.remove("tensor_namespace");
        let modules = config.remove("modules").unwrap_or_default();
        let modules: Vec<Module> = serde_json::from_value(modules)
            .map_err(|e| CompileError::Invalid { path: path.to_owned(), problem: format!("modules: {e}") })?;
        let modules = Modules { path: path.to_owned(), modules };
        modules.check()?;
        Ok(modules)
    }

    fn check(&self) -> Result<(), CompileError> {
        let mut seen = BTreeMap::new();
        for module in &self.modules {
            let Module { path, block, embedding, dtype } = module;
            if seen.insert(path.as_str(), ()).is_some() {
                return Err(self.invalid(format!("modules lists {path:?} twice")));
            }
            if *embedding != (path == EMBEDDING) {
                return Err(self.unsupported(format!(
                    "modules says of {path:?} that embedding is {embedding}; it is true of {EMBEDDING:?} alone"
                )));
            }
            let known = KINDS.iter().any(|kind| path == kind || path.ends_with(&format!(".{kind}")));
            if !known && path != EMBEDDING {
                let problem =
                    format!("modules lists {path:?}, which is not known to be rotated in any model");
                return Err(self.unsupported(problem));
            }
            let block = block.unwrap_or(0);
            if block != 0 && (!block.is_power_of_two() || !(2..=MAX_BLOCK).contains(&block)) {
                return Err(self.invalid(format!(
                    "modules says of {path:?} that block is {block}, expected a power of two from 2 to {MAX_BLOCK}"
                )));
            }
            let types = ["float16", "bfloat16", "float32"];
            if let Some(dtype) = dtype.as_deref().filter(|dtype| !types.contains(dtype)) {
                let problem = format!("modules says of {path:?} that dtype is {dtype:?}, which is not known");
                return Err(self.unsupported(problem));
            }
        }
        Ok(())
    }

    /// Takes the signs of each module from `tensors`.
    ///
    /// # Errors
    /// Packed weights that are not listed, or the reverse; blocks that differ; signs that are missing, of another size, or
    /// not equal where widths are.
    pub(super) fn rotations(
        &self,
        tensors: &mut BTreeMap<String, RawTensor>,
    ) -> Result<Rotations, CompileError> {
        let mut rotations = Rotations::default();
        // Whose signs each width has.
        let mut owners: BTreeMap<u32, String> = BTreeMap::new();
        for Module { path, block, .. } in &self.modules {
            let name = format!("{path}.weight");
            let Some(weight) = tensors.get(&name).filter(|weight| weight.affine.is_some()) else {
                let problem = format!("modules lists {path:?}, but there is no packed tensor {name}");
                return Err(self.invalid(problem));
            };
            let block = block.unwrap_or(0);
            if block == 0 {
                continue;
            }
            if rotations.block != 0 && rotations.block != block {
                return Err(self.unsupported(format!(
                    "modules has blocks of {} and, in {path:?}, of {block}; only blocks of one size are supported",
                    rotations.block
                )));
            }
            rotations.block = block;
            let width = weight.shape.last().and_then(|&width| u32::try_from(width).ok());
            let Some(width) = width.filter(|width| width.is_multiple_of(block)) else {
                return Err(weight.error(format!(
                    "has shape {:?}, and is rotated in blocks of {block} columns, which do not divide its rows",
                    weight.shape
                )));
            };
            let Some(tensor) = tensors.remove(&format!("{path}.signs")) else {
                let problem =
                    format!("modules says that {path:?} is rotated, but there is no tensor {path}.signs");
                return Err(self.invalid(problem));
            };
            let signs = signs(&tensor, width)?;
            match (rotations.signs.get(&width), owners.get(&width)) {
                (Some(others), Some(owner)) if *others != signs => {
                    return Err(tensor.unsupported(format!(
                        "differs from {owner}, which is for an input of the same width {width}; only one vector of signs for each \
                         width is supported"
                    )));
                }
                _ => {}
            }
            owners.entry(width).or_insert_with(|| tensor.name.clone());
            rotations.signs.insert(width, signs);
            rotations.names.insert(name);
        }
        let listed = |name: &str| self.modules.iter().any(|module| name == format!("{}.weight", module.path));
        if let Some(tensor) =
            tensors.iter().find(|(name, tensor)| tensor.affine.is_some() && !listed(name)).map(|(_, t)| t)
        {
            return Err(tensor.error(format!(
                "is packed, but not listed in modules of {}; it is unclear whether it is rotated",
                self.path.display()
            )));
        }
        Ok(rotations)
    }

    fn invalid(&self, problem: String) -> CompileError {
        CompileError::Invalid { path: self.path.clone(), problem }
    }

    fn unsupported(&self, problem: String) -> CompileError {
        CompileError::Unsupported { path: self.path.clone(), problem }
    }
}

/// The signs of an input of `width` elements.
fn signs(tensor: &RawTensor, width: u32) -> Result<Vec<f32>, CompileError> {
    if tensor.dtype != ElementType::F32 {
        return Err(tensor.unsupported(format!("is {}, which is not supported; expected F32", tensor.dtype)));
    }
    tensor.expect_shape(&[width as usize], "a sign for each column of its weight")?;
    let mut signs = Vec::with_capacity(width as usize);
    FloatType::F32.each(tensor.bytes.as_ref(), |sign| signs.push(sign));
    match signs.iter().position(|sign| sign.abs() != 1.0) {
        None => Ok(signs),
        Some(at) => Err(tensor.error(format!("holds {} at {at}, expected 1 or -1", signs[at]))),
    }
}
