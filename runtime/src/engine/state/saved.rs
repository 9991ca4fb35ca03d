//! Recurrent states as files have them.
//!
//! Logged drafts are left out: a state is saved as it was before them, and the engine runs the few tokens after it again,
//! which gives the same bits.
#![deny(unsafe_code)]

use super::{At, Counted, EMPTY, State, StateLayout, StateType};
use crate::RuntimeError;
use std::sync::Arc;
use trit_format::plan::StateShape;
use trit_format::saved::StateElement;
use trit_gemm::AlignedMemory;
use trit_kernels::delta::state_place;

impl From<StateType> for StateElement {
    fn from(kind: StateType) -> StateElement {
        match kind {
            StateType::F32 => StateElement::F32,
            StateType::F16 => StateElement::F16,
        }
    }
}

/// A state that was read from a file.
pub(crate) struct Restored {
    position: usize,
    memory: Arc<Counted>,
}

impl State {
    /// The present state and its snapshots, in ascending order of their positions: how many tokens each has seen, and its
    /// values.
    pub fn saved(&self) -> Vec<(usize, &AlignedMemory)> {
        let all = self.snapshots.iter().chain([&self.now]);
        let all = all.filter(|at| at.position > 0);
        let mut found: Vec<(usize, &AlignedMemory)> =
            all.filter_map(|at| Some((at.position, &***at.memory.as_ref()?))).collect();
        found.sort_by_key(|(position, _)| *position);
        found.dedup_by_key(|(position, _)| *position);
        found
    }

    /// A state for [`State::restore`] of what [`StateLayout::save`] wrote.
    ///
    /// # Errors
    /// [`RuntimeError::SequenceMemory`] where memory is refused.
    ///
    /// # Panics
    /// If `from` has another length than a state.
    pub fn read(&self, position: usize, from: &[u8]) -> Result<Restored, RuntimeError> {
        let mut memory = self.layout.memory()?;
        self.layout.restore(from, &mut memory);
        Ok(Restored { position, memory: Arc::new(self.live.count(memory, self.layout.bytes())) })
    }

    /// Goes on with states that were read, in ascending order of their positions.
    pub fn restore(&mut self, states: Vec<Restored>) {
        let at = |state: Restored| At { position: state.position, tried: 0, memory: Some(state.memory) };
        let mut all: Vec<At> = states.into_iter().map(at).collect();
        self.now = all.last().cloned().unwrap_or(EMPTY);
        all.drain(..all.len().saturating_sub(self.most));
        self.snapshots = all;
    }
}

impl StateLayout {
    /// Appends a state to `out`, as [`trit_format::saved::Shapes::state_bytes`] lays it out.
    pub fn save(&self, state: &AlignedMemory, out: &mut Vec<u8>) {
        let memory = state.bytes();
        self.parts(|part| {
            let from = &memory[part.start..][..part.len];
            match part.matrix {
                None => out.extend_from_slice(from),
                Some([rows, columns]) => {
                    for (row, column) in
                        (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)))
                    {
                        let at = state_place(row, column, rows) * part.element;
                        out.extend_from_slice(&from[at..at + part.element]);
                    }
                }
            }
        });
    }

    /// Fills a state with what [`StateLayout::save`] wrote.
    ///
    /// # Panics
    /// If `from` has another length than a state.
    fn restore(&self, mut from: &[u8], state: &mut AlignedMemory) {
        let memory = state.bytes_mut();
        let mut take = |len: usize| {
            let (part, rest) = from.split_at(len);
            from = rest;
            part
        };
        self.parts(|part| {
            let to = &mut memory[part.start..][..part.len];
            match part.matrix {
                None => to.copy_from_slice(take(part.len)),
                Some([rows, columns]) => {
                    let values = take(rows * columns * part.element).chunks_exact(part.element);
                    for (index, value) in values.enumerate() {
                        let at = state_place(index / columns, index % columns, rows) * part.element;
                        to[at..at + part.element].copy_from_slice(value);
                    }
                }
            }
        });
        assert!(from.is_empty(), "{} bytes are left of a state", from.len());
    }

    /// What a file has of a state, in its order.
    fn parts(&self, mut each: impl FnMut(SavedPart)) {
        let bytes = size_of::<f32>();
        for (index, (shape, _)) in self.places.iter().enumerate() {
            match *shape {
                StateShape::Inputs { .. } => {
                    let place = self.inputs(index as u32);
                    let len = place.rows * place.channels * bytes;
                    each(SavedPart { start: place.offset * bytes, len, element: bytes, matrix: None });
                }
                StateShape::Matrices(heads) => {
                    let place = self.matrices(index as u32);
                    for head in 0..heads.values as usize {
                        let [matrix, ..] = place.head(head);
                        each(SavedPart {
                            start: matrix.start * bytes,
                            len: matrix.len() * bytes,
                            element: if place.kind == StateType::F32 { bytes } else { bytes / 2 },
                            matrix: Some([heads.key_dim as usize, heads.value_dim as usize]),
                        });
                    }
                }
            }
        }
    }
}

/// A run of bytes of a state in memory.
struct SavedPart {
    start: usize,
    len: usize,
    /// Bytes of an element.
    element: usize,
    /// Rows and columns of a matrix, which stands in memory in blocks of columns.
    matrix: Option<[usize; 2]>,
}
