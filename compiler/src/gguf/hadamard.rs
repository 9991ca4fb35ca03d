//! Weights that are stored in a rotated basis: the keys `prism.hadamard.*` of PrismML's llama.cpp, version 1.
//!
//! A folded matrix `W'` stands for `W' (H (s * x))`, with the signs `s` of the input's width and the normalized
//! Walsh-Hadamard transform `H` of each run of `block_size` elements. A row `z` of a folded embedding stands for `s * (H
//! z)`. Without the transform the model writes rubbish, so everything that these keys may say is understood or refused.

use super::metadata::Metadata;
use super::names::{layer_part, qwen35_name};
use super::qwen35::ValueHeads;
use crate::checkpoint::RawTensor;
use crate::checkpoint::overrides::Rotations;
use crate::error::CompileError;
use std::collections::{BTreeMap, BTreeSet};

/// Start of all these keys.
const PREFIX: &str = "prism.hadamard.";

/// The kinds of matrices whose input may be rotated, by their names in a layer.
const KINDS: [&str; 10] = [
    "attn_qkv.weight",
    "attn_gate.weight",
    "ssm_out.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
];

/// The head and the embedding.
const HEAD: &str = "output.weight";
const EMBEDDING: &str = "token_embd.weight";

/// Largest block, a hundred times the largest in use.
const MAX_BLOCK: u64 = 1 << 17;

/// What is folded.
pub(super) struct Folded {
    /// By the names of checkpoints.
    pub(super) rotations: Rotations,
    /// The file's own names of the folded matrices.
    pub(super) names: BTreeSet<String>,
    /// Whether the list has tensors of draft blocks, which are not among `names`.
    pub(super) rotated_drafts: bool,
}

/// Takes the keys; `None` where there are none. `drafts` are tensors of draft blocks, which may be listed.
///
/// # Errors
/// Another version, transform, axis or sign mode; tensors that are missing or of another kind; widths that are no multiple
/// of the block; signs that are none; columns of `ssm_out` in an order that cannot be rotated.
pub(super) fn take(
    metadata: &mut Metadata,
    tensors: &BTreeMap<String, RawTensor>,
    drafts: &BTreeMap<String, String>,
    heads: Option<&ValueHeads>,
) -> Result<Option<Folded>, CompileError> {
    if !metadata.has_prefix(PREFIX) {
        return Ok(None);
    }
    let mut keys = Keys { metadata };
    keys.expect_version()?;
    keys.expect_text("transform", "normalized-sylvester-walsh-hadamard")?;
    keys.expect_text("axis", "input-last-dimension")?;
    let block = keys.block()?;
    let mut names = keys.names("weight_names")?;
    let listed = names.len();
    names.retain(|name| !drafts.contains_key(name));
    let rotated_drafts = names.len() < listed;
    let inverse = keys.names("inverse_weight_names")?;
    let grouped = keys.metadata.bool(&named("gdn_v_grouped"))?;
    let mut widths = BTreeSet::new();
    let folded_by_name = names.iter().map(|name| ("weight_names", name));
    for (key, name) in folded_by_name.chain(inverse.iter().map(|name| ("inverse_weight_names", name))) {
        widths.insert(keys.width(key, name, tensors, block)?);
    }
    let moves = heads.is_some_and(ValueHeads::move_at_all);
    let output = names.iter().find(|name| name.ends_with(".ssm_out.weight"));
    if let Some(output) = output.filter(|_| moves && grouped != Some(true)) {
        return Err(keys.metadata.unsupported(
            &named("gdn_v_grouped"),
            format!(
                "does not say that {output} keeps the order of its columns: the value heads are then in another order than \
                 the model's, across which the rotation mixes. Convert the model again with PrismML's converter, which sets \
                 it to true"
            ),
        ));
    }
    if inverse.contains(EMBEDDING) && !tensors.contains_key(HEAD) {
        return Err(keys.metadata.unsupported(
            &named("inverse_weight_names"),
            format!(
                "names {EMBEDDING}, which is the head too; a rotated embedding is only read beside an {HEAD}"
            ),
        ));
    }
    let signs = keys.signs(&widths)?;
    let rotated: BTreeSet<String> = names.into_iter().chain(inverse).collect();
    let rotations =
        Rotations { block, signs, names: rotated.iter().filter_map(|n| qwen35_name(n)).collect() };
    Ok(Some(Folded { rotations, names: rotated, rotated_drafts }))
}

fn named(key: &str) -> String {
    format!("{PREFIX}{key}")
}

struct Keys<'a> {
    metadata: &'a mut Metadata,
}

impl Keys<'_> {
    fn expect_version(&mut self) -> Result<(), CompileError> {
        let key = named("version");
        let version = self.metadata.unsigned(&key)?;
        match self.metadata.required(&key, version)? {
            1 => Ok(()),
            other => Err(self.metadata.unsupported(
                &key,
                format!(
                    "is {other}: only version 1 of rotated weights is understood, and without the rotation the results would \
                     be rubbish. Use the model's file of version 1"
                ),
            )),
        }
    }

    fn expect_text(&mut self, key: &str, expected: &str) -> Result<(), CompileError> {
        let key = named(key);
        let text = self.metadata.text(&key)?;
        let text = self.metadata.required(&key, text)?;
        if text == expected {
            return Ok(());
        }
        Err(self
            .metadata
            .unsupported(&key, format!("is {text:?}, which is not supported (only {expected:?})")))
    }

    fn block(&mut self) -> Result<u32, CompileError> {
        let key = named("block_size");
        let block = self.metadata.unsigned(&key)?;
        let block = self.metadata.required(&key, block)?;
        match u32::try_from(block) {
            Ok(size) if block.is_power_of_two() && (2..=MAX_BLOCK).contains(&block) => Ok(size),
            _ => Err(self
                .metadata
                .invalid(&key, format!("is {block}, expected a power of two from 2 to {MAX_BLOCK}"))),
        }
    }

    /// Names of tensors, none twice.
    fn names(&mut self, key: &str) -> Result<BTreeSet<String>, CompileError> {
        let key = named(key);
        let list = self.metadata.array(&key)?;
        let list = self.metadata.required(&key, list)?;
        let mut names = BTreeSet::new();
        for name in list.strings().map_err(|e| self.metadata.invalid(&key, e))? {
            if !names.insert(name.to_owned()) {
                return Err(self.metadata.invalid(&key, format!("lists {name:?} twice")));
            }
        }
        Ok(names)
    }

    /// Checks a tensor that is listed, and gives the width of its input.
    fn width(
        &self,
        key: &str,
        name: &str,
        tensors: &BTreeMap<String, RawTensor>,
        block: u32,
    ) -> Result<u32, CompileError> {
        let key = named(key);
        let may_be_folded = match key.ends_with("inverse_weight_names") {
            true => name == EMBEDDING,
            false => name == HEAD || layer_part(name).is_some_and(|(_, part)| KINDS.contains(&part)),
        };
        if !may_be_folded {
            let problem = format!("lists {name:?}, which is not known to be rotated in any model");
            return Err(self.metadata.unsupported(&key, problem));
        }
        let Some(tensor) = tensors.get(name) else {
            let problem = format!("lists {name:?}, which the file does not have; download it again");
            return Err(self.metadata.invalid(&key, problem));
        };
        let width = tensor.shape.last().and_then(|&width| u32::try_from(width).ok());
        match width.filter(|width| tensor.shape.len() == 2 && width.is_multiple_of(block)) {
            Some(width) => Ok(width),
            None => Err(tensor.error(format!(
                "has shape {:?}, and is rotated in blocks of {block} columns, which do not divide its rows",
                tensor.shape
            ))),
        }
    }

    /// The signs of each width; `widths` are those that must have some.
    fn signs(&mut self, widths: &BTreeSet<u32>) -> Result<BTreeMap<u32, Vec<f32>>, CompileError> {
        let [mode_key, widths_key, values_key] = ["sign_mode", "sign_widths", "sign_values"].map(named);
        let mode = self.metadata.text(&mode_key)?;
        let lists = [&widths_key, &values_key].map(|key| self.metadata.array(key));
        let [listed, values] = lists;
        let (listed, values) = (listed?, values?);
        match self.metadata.required(&mode_key, mode)?.as_str() {
            "identity" => {
                let lists = [(&widths_key, &listed), (&values_key, &values)];
                if let Some((key, _)) =
                    lists.iter().find(|(_, list)| list.as_ref().is_some_and(|l| l.len() > 0))
                {
                    return Err(self.metadata.invalid(key, "lists signs, but sign_mode is \"identity\""));
                }
                return Ok(BTreeMap::new());
            }
            "explicit" => {}
            other => {
                let problem =
                    format!("is {other:?}, which is not supported (only \"explicit\" and \"identity\")");
                return Err(self.metadata.unsupported(&mode_key, problem));
            }
        }
        let (listed, values) =
            (self.metadata.required(&widths_key, listed)?, self.metadata.required(&values_key, values)?);
        let listed = listed.numbers().map_err(|e| self.metadata.invalid(&widths_key, e))?;
        let values = values.numbers().map_err(|e| self.metadata.invalid(&values_key, e))?;
        if let Some(at) = values.iter().position(|sign| sign.abs() != 1.0) {
            let problem = format!("holds {} at {at}, expected 1 or -1", values[at]);
            return Err(self.metadata.invalid(&values_key, problem));
        }
        let (mut signs, mut rest) = (BTreeMap::new(), values.as_slice());
        for width in listed {
            let whole = width.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&width);
            let Some((own, after)) = rest.split_at_checked(width as usize).filter(|_| whole) else {
                let problem = format!("holds {} signs, fewer than {} asks for", values.len(), widths_key);
                return Err(self.metadata.invalid(&values_key, problem));
            };
            rest = after;
            if signs.insert(width as u32, own.iter().map(|&sign| sign as f32).collect()).is_some() {
                return Err(self.metadata.invalid(&widths_key, format!("lists {width} twice")));
            }
        }
        if !rest.is_empty() {
            let problem =
                format!("holds {} signs, {} more than {widths_key} asks for", values.len(), rest.len());
            return Err(self.metadata.invalid(&values_key, problem));
        }
        match widths.iter().find(|width| !signs.contains_key(width)) {
            None => Ok(signs),
            Some(width) => Err(self.metadata.invalid(
                &widths_key,
                format!("does not list {width}, which is the width of a tensor in {PREFIX}weight_names"),
            )),
        }
    }
}
