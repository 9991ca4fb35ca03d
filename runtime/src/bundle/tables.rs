//! Tensors that are not ternary: vectors, and tables of which rows or all are read.
//!
//! Vectors and small tables are copied to memory, and so are tables that every token reads as a whole, where there is
//! room. Of a large table of which few rows are read, such as embeddings, a row is read from the file when it is
//! needed, so that the whole does not become part of the process.

use super::storage::{LoadedBytes, Room, Storage, WeightMemory};
use crate::RuntimeError;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::OnceLock;
use trit_format::container::Section;
use trit_format::manifest::{Manifest, Tensor};
use trit_format::plan::{DType, Plan, Step, TensorId};

/// Largest table in bytes that is copied though only rows of it are read.
const SMALL: u64 = 32 << 20;
/// Tables below this many bytes gain nothing from pages of their own.
const LEAST_ROOM: u64 = 1 << 20;

/// The tensor section of an open bundle.
pub(crate) struct Tables {
    memory: WeightMemory,
    by_tensor: Vec<Held>,
}

/// Where a tensor is.
enum Held {
    Vector(Vec<f32>),
    Small(Vec<u8>),
    Whole(LoadedBytes),
    /// In the file, at these bytes of it; all of it once that is asked for, and `None` then where it cannot be had.
    InFile(Range<u64>, OnceLock<Option<LoadedBytes>>),
}

/// Where a tensor goes while its section is read.
enum Going {
    Vector(Vec<u8>),
    Small(Vec<u8>),
    Room(Room),
    Stays,
}

impl Tables {
    /// Takes the section in: reads it once, checks its digest on what is kept of it if `verify` says so.
    pub fn take(
        storage: &Storage,
        section: &Section,
        manifest: &Manifest,
        verify: bool,
        memory: WeightMemory,
    ) -> Result<Tables, RuntimeError> {
        let read_whole = read_whole(&manifest.plan);
        let place = |t: &Tensor| {
            let len = t.bytes().expect("validated");
            (t.offset..t.offset + len, len)
        };
        let mut going = Vec::with_capacity(manifest.tensors.len());
        for (i, tensor) in manifest.tensors.iter().enumerate() {
            let (_, len) = place(tensor);
            let is_read_whole = read_whole.contains(&(i as u32));
            going.push(match len {
                _ if is_vector(tensor) => Going::Vector(zeros(len)?),
                _ if memory == WeightMemory::Mapped => Going::Stays,
                ..LEAST_ROOM => Going::Small(zeros(len)?),
                _ if is_read_whole || len <= SMALL => {
                    storage.room(len, memory).map_or(Going::Stays, Going::Room)
                }
                _ => Going::Stays,
            });
        }
        let mut parts = Vec::new();
        for (tensor, going) in manifest.tensors.iter().zip(&mut going) {
            let to = match going {
                Going::Vector(bytes) | Going::Small(bytes) => &mut bytes[..],
                Going::Room(room) => room.bytes_mut(),
                Going::Stays => continue,
            };
            parts.push((place(tensor).0, to));
        }
        storage.take(section, verify, &mut parts)?;
        let mut by_tensor = Vec::with_capacity(going.len());
        for (i, (tensor, going)) in manifest.tensors.iter().zip(going).enumerate() {
            by_tensor.push(match going {
                Going::Vector(bytes) => Held::Vector(floats(&bytes)),
                Going::Small(bytes) => Held::Small(bytes),
                Going::Room(room) => Held::Whole(room.keep()?),
                Going::Stays => {
                    let (Range { start, end }, _) = place(tensor);
                    let range = section.offset + start..section.offset + end;
                    match read_whole.contains(&(i as u32)) {
                        true => Held::Whole(storage.load(range, memory)?),
                        false => {
                            // Also where nothing reads it: a tensor without a use is no reason to look closer.
                            storage.need();
                            Held::InFile(range, OnceLock::new())
                        }
                    }
                }
            });
        }
        Ok(Tables { memory, by_tensor })
    }

    /// A one-dimensional f32 tensor; nothing for others.
    pub fn vector(&self, id: TensorId) -> &[f32] {
        match &self.by_tensor[id.0 as usize] {
            Held::Vector(values) => values,
            _ => &[],
        }
    }

    /// All bytes of a table; `None` where they cannot be had any more, which `storage` then says.
    pub fn whole(&self, storage: &Storage, id: TensorId) -> Option<&[u8]> {
        match &self.by_tensor[id.0 as usize] {
            Held::Vector(_) => None,
            Held::Small(bytes) => Some(bytes),
            Held::Whole(loaded) => Some(loaded.bytes()),
            Held::InFile(range, whole) => {
                let get = || storage.load(range.clone(), self.memory).map_err(|e| storage.fail(e)).ok();
                whole.get_or_init(get).as_ref().map(LoadedBytes::bytes)
            }
        }
    }

    /// The bytes of a table from `offset` on; zeros where they cannot be had any more, which `storage` then says.
    pub fn part(&self, storage: &Storage, id: TensorId, offset: usize, to: &mut [u8]) {
        let held = match &self.by_tensor[id.0 as usize] {
            Held::Small(bytes) => bytes,
            Held::Whole(loaded) => loaded.bytes(),
            Held::InFile(range, _) => return storage.read_in_pass(range.start + offset as u64, to),
            Held::Vector(_) => &[],
        };
        to.copy_from_slice(&held[offset..offset + to.len()]);
    }
}

/// Tables that every token reads as a whole.
fn read_whole(plan: &Plan) -> BTreeSet<u32> {
    let table = |step: &Step| match *step {
        Step::Linear { table, .. } | Step::Head { table, planes: None, .. } => Some(table.0),
        _ => None,
    };
    plan.body.iter().chain(&plan.head).filter_map(table).collect()
}

/// Whether a tensor is kept as numbers.
fn is_vector(tensor: &Tensor) -> bool {
    tensor.dtype == DType::F32 && tensor.shape.len() == 1
}

fn zeros(len: u64) -> Result<Vec<u8>, RuntimeError> {
    let mut bytes = Vec::new();
    let len = usize::try_from(len).ok().filter(|&len| bytes.try_reserve_exact(len).is_ok());
    bytes.resize(
        len.ok_or_else(|| RuntimeError::System("there is no memory for the bundle's tensors".into()))?,
        0,
    );
    Ok(bytes)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}
