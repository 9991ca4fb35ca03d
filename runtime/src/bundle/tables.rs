//! Tensors that are not ternary: vectors, and tables that are read row by row or as a whole.
//!
//! Vectors and small tables are copied to memory. Tables that every token reads as a whole are copied too, where there
//! is room. From a large table of which few rows are read, such as embeddings, a row is read from the file when it is
//! needed, so that the whole table does not become part of the process.

use super::storage::{LoadedBytes, Room, Storage, WeightMemory};
use crate::RuntimeError;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::OnceLock;
use trit_format::container::Section;
use trit_format::manifest::{Manifest, Tensor};
use trit_format::plan::{DType, Plan, Step, TensorId};

/// Largest table in bytes that is copied even though only single rows of it are read.
const SMALL: u64 = 32 << 20;
/// Tables with fewer bytes are kept in ordinary memory, because they gain nothing from huge pages.
const LEAST_ROOM: u64 = 1 << 20;

/// The tensor section of an open bundle.
pub(crate) struct Tables {
    memory: WeightMemory,
    by_tensor: Vec<Held>,
}

/// Where a tensor is kept.
enum Held {
    Vector(Vec<f32>),
    Small(Vec<u8>),
    Whole(LoadedBytes),
    /// In the file, at these bytes. The cell holds the whole table once it was asked for, or `None` where it could not
    /// be loaded.
    InFile(Range<u64>, OnceLock<Option<LoadedBytes>>),
}

/// Where a tensor is to be kept, while its section is read.
enum Going {
    Vector(Vec<u8>),
    Small(Vec<u8>),
    Room(Room),
    Stays,
}

impl Tables {
    /// Loads the section. It is read once, and its digest is checked on what is kept of it if `verify` is set.
    pub fn take(
        storage: &Storage,
        section: &Section,
        manifest: &Manifest,
        draft: Option<&Plan>,
        verify: bool,
        memory: WeightMemory,
    ) -> Result<Tables, RuntimeError> {
        let read_whole = read_whole([&manifest.plan].into_iter().chain(draft));
        let convolutions = convolutions(&manifest.plan);
        let place = |t: &Tensor| {
            let len = t.bytes().expect("validated");
            (t.offset..t.offset + len, len)
        };
        let mut going = Vec::with_capacity(manifest.tensors.len());
        for (i, tensor) in manifest.tensors.iter().enumerate() {
            let (_, len) = place(tensor);
            let is_read_whole = read_whole.contains(&(i as u32));
            going.push(match len {
                _ if is_vector(tensor) || convolutions.contains(&(i as u32)) => Going::Vector(zeros(len)?),
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
                            // The source counts as needed even if no step reads this tensor, which is not worth
                            // checking.
                            storage.need();
                            Held::InFile(range, OnceLock::new())
                        }
                    }
                }
            });
        }
        Ok(Tables { memory, by_tensor })
    }

    /// The values of a one-dimensional f32 tensor or of a convolution's weights; empty for other tensors.
    pub fn vector(&self, id: TensorId) -> &[f32] {
        match &self.by_tensor[id.0 as usize] {
            Held::Vector(values) => values,
            _ => &[],
        }
    }

    /// All bytes of a table. `None` where they cannot be read any more; [`Storage::intact`] then returns the error.
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

    /// Fills `to` with the bytes of a table from `offset` on. Where they cannot be read any more, it gets zeros, and
    /// [`Storage::intact`] returns the error.
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

/// The tables that every token reads as a whole.
fn read_whole<'a>(plans: impl Iterator<Item = &'a Plan>) -> BTreeSet<u32> {
    let table = |step: &Step| match *step {
        Step::Linear { table, .. } | Step::Head { table, planes: None, .. } => Some(table.0),
        _ => None,
    };
    plans.flat_map(|plan| plan.body.iter().chain(&plan.head)).filter_map(table).collect()
}

/// The weights of convolutions, which are kept as numbers.
fn convolutions(plan: &Plan) -> BTreeSet<u32> {
    let weight = |step: &Step| match *step {
        Step::Convolve { weight, .. } => Some(weight.0),
        _ => None,
    };
    plan.body.iter().filter_map(weight).collect()
}

/// Whether a tensor is kept as f32 numbers instead of bytes.
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
