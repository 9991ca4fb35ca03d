//! The recurrent state of one sequence: what steps carry from row to row beside the KV cache.
//!
//! A state cannot be shortened as a KV cache can, because every token has changed all of it. Three things make up for
//! that. Rows that may be taken back (drafted tokens) do not change the state; what they would change is logged, and
//! applied when the next rows run. Snapshots, at most as many as the options allow, keep the state as it was at earlier
//! positions; one costs as much memory as the state. And where neither helps, the engine runs the tokens after the nearest
//! snapshot again before it goes on, which gives the same bits.
//!
//! Snapshots and forks share memory with the sequence until it goes on; then it goes on with a copy.
#![allow(unsafe_code)]

mod saved;

use super::live::{Counted, LiveBytes};
use crate::RuntimeError;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use trit_format::manifest::Manifest;
use trit_format::plan::{DeltaHeads, StateShape};
use trit_gemm::AlignedMemory;
use trit_kernels::delta::{StateMut, state_len};

/// Most rows whose changes are logged.
pub(crate) const MOST_TRIED: usize = crate::generate::draft::MOST;
/// A state of at least this many bytes is kept in the system's huge pages.
const HUGE: usize = 2 << 20;
/// Elements that each part begins at a multiple of: 64 bytes.
const ALIGNMENT: usize = 16;

/// Element type of the matrices of a recurrent state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateType {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats: half the memory and traffic, for rounding each matrix after each token.
    F16,
}

impl FromStr for StateType {
    type Err = String;

    fn from_str(name: &str) -> Result<StateType, String> {
        match name {
            "f32" => Ok(StateType::F32),
            "f16" => Ok(StateType::F16),
            _ => Err("expected f32 or f16".into()),
        }
    }
}

impl fmt::Display for StateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StateType::F32 => "f32",
            StateType::F16 => "f16",
        })
    }
}

/// Where the states of a plan stand in memory, in units of f32.
pub(crate) struct StateLayout {
    kind: StateType,
    places: Vec<(StateShape, usize)>,
    len: usize,
}

/// The parts of a convolution's state. The inputs before the position come first, in their order, then those of rows
/// that were tried.
#[derive(Clone, Copy)]
pub(crate) struct InputsPlace {
    offset: usize,
    /// Earlier inputs that are kept: taps less one.
    pub rows: usize,
    channels: usize,
}

/// The parts of a delta rule's state, one after the other for each value head.
#[derive(Clone, Copy)]
pub(crate) struct MatricesPlace {
    offset: usize,
    pub heads: DeltaHeads,
    pub kind: StateType,
}

impl InputsPlace {
    /// Channels `range` of input `row`.
    pub fn input(&self, row: usize, range: Range<usize>) -> Range<usize> {
        assert!(row < self.rows + MOST_TRIED && range.end <= self.channels);
        let start = self.offset + row * self.channels;
        start + range.start..start + range.end
    }
}

impl MatricesPlace {
    fn parts(&self) -> [usize; 4] {
        let (keys, values) = (self.heads.key_dim as usize, self.heads.value_dim as usize);
        let matrix = match self.kind {
            StateType::F32 => state_len(keys, values),
            // A multiple of sixteen elements.
            StateType::F16 => state_len(keys, values) / 2,
        };
        [matrix, MOST_TRIED * keys, MOST_TRIED * values, MOST_TRIED]
    }

    fn head_len(&self) -> usize {
        self.parts().iter().map(|len| len.next_multiple_of(ALIGNMENT)).sum()
    }

    /// The matrix of a head, and of the rows that were tried the keys, the deltas and the decays.
    pub fn head(&self, head: usize) -> [Range<usize>; 4] {
        assert!(head < self.heads.values as usize);
        let mut start = self.offset + head * self.head_len();
        self.parts().map(|len| {
            let part = start..start + len;
            start += len.next_multiple_of(ALIGNMENT);
            part
        })
    }
}

impl StateLayout {
    /// The layout for a validated plan.
    pub fn new(manifest: &Manifest, kind: StateType) -> StateLayout {
        let shape = |id: trit_format::plan::TensorId| {
            manifest.tensors.get(id.0 as usize).map(|tensor| tensor.shape.as_slice())
        };
        let mut len = 0;
        let place = |shape| {
            let offset = len;
            len += match shape {
                StateShape::Inputs { rows, channels } => (rows as usize + MOST_TRIED) * channels as usize,
                StateShape::Matrices(heads) => {
                    MatricesPlace { offset, heads, kind }.head_len() * heads.values as usize
                }
            };
            len = len.next_multiple_of(ALIGNMENT);
            (shape, offset)
        };
        let places = manifest.plan.states(shape).map(place).collect();
        StateLayout { kind, places, len }
    }

    /// Where the inputs of convolution `state` stand.
    pub fn inputs(&self, state: u32) -> InputsPlace {
        match self.places[state as usize] {
            (StateShape::Inputs { rows, channels }, offset) => {
                InputsPlace { offset, rows: rows as usize, channels: channels as usize }
            }
            (shape, _) => unreachable!("validated: {shape:?}"),
        }
    }

    /// Where the matrices of delta rule `state` stand.
    pub fn matrices(&self, state: u32) -> MatricesPlace {
        match self.places[state as usize] {
            (StateShape::Matrices(heads), offset) => MatricesPlace { offset, heads, kind: self.kind },
            (shape, _) => unreachable!("validated: {shape:?}"),
        }
    }

    /// Bytes of one state.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<f32>()
    }

    /// Memory for one state, all zeros.
    fn memory(&self) -> Result<AlignedMemory, RuntimeError> {
        let (bytes, what) = (self.bytes(), "the recurrent state of a sequence");
        let memory = match bytes >= HUGE {
            true => AlignedMemory::huge(1, bytes, what),
            false => AlignedMemory::new(1, bytes, what),
        };
        Ok(memory?)
    }
}

/// A state at one position of a text.
#[derive(Clone)]
struct At {
    /// Tokens that have changed the state.
    position: usize,
    /// Rows after them that were tried and count as part of the text.
    tried: usize,
    /// The values; `None` where all are zero.
    memory: Option<Arc<Counted>>,
}

const EMPTY: At = At { position: 0, tried: 0, memory: None };

impl At {
    fn end(&self) -> usize {
        self.position + self.tried
    }
}

/// The recurrent state of a sequence.
pub(crate) struct State {
    layout: Arc<StateLayout>,
    now: At,
    /// Earlier states, by position.
    snapshots: Vec<At>,
    most: usize,
    live: LiveBytes,
}

impl State {
    /// The state of an empty sequence, with room for `most` snapshots. Its memory is counted.
    pub fn new(layout: Arc<StateLayout>, most: usize, live: LiveBytes) -> State {
        State { layout, now: EMPTY, snapshots: Vec::new(), most, live }
    }

    /// Element type of its matrices.
    pub fn kind(&self) -> StateType {
        self.layout.kind
    }

    /// Most snapshots.
    pub fn most(&self) -> usize {
        self.most
    }

    pub fn layout(&self) -> &StateLayout {
        &self.layout
    }

    /// How many tokens of the text the state has seen. The engine runs those after them before anything else.
    pub fn position(&self) -> usize {
        self.now.end()
    }

    /// Rows that were tried and accepted, whose changes the next rows must apply first.
    pub fn tried(&self) -> usize {
        self.now.tried
    }

    /// Bytes of this state and its snapshots, shared ones included.
    pub fn bytes(&self) -> usize {
        let all = self.snapshots.iter().chain([&self.now]);
        let mut memories: Vec<_> = all.filter_map(|at| at.memory.as_ref().map(Arc::as_ptr)).collect();
        memories.sort_unstable();
        memories.dedup();
        memories.len() * self.layout.bytes()
    }

    /// Bytes that [`State::own`] would take from the system.
    pub fn missing(&self) -> usize {
        let own = self.now.memory.as_ref().is_some_and(|memory| Arc::strong_count(memory) == 1);
        if own { 0 } else { self.layout.bytes() }
    }

    /// How many of the first `position` tokens a state that is taken back to `position` has seen.
    pub fn resumes_at(&self, position: usize) -> usize {
        let mut known = self.snapshots.iter().chain([&self.now]).rev().filter(|at| at.position <= position);
        known.next().map_or(0, |at| at.end().min(position))
    }

    /// Makes the memory this state's own, so that rows may change it.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused. Nothing changes then.
    pub fn own(&mut self) -> Result<(), RuntimeError> {
        if self.now.memory.as_mut().is_some_and(|memory| Arc::get_mut(memory).is_some()) {
            return Ok(());
        }
        let (mut memory, bytes) = (self.layout.memory()?, self.layout.bytes());
        if let Some(shared) = &self.now.memory {
            memory.bytes_mut()[..bytes].copy_from_slice(&shared.bytes()[..bytes]);
        }
        self.now.memory = Some(Arc::new(self.live.count(memory, bytes)));
        Ok(())
    }

    /// Counts `kept` rows that have changed the state, and `tried` rows that were logged.
    pub fn ran(&mut self, kept: usize, tried: usize) {
        self.now.position += self.now.tried + kept;
        self.now.tried = tried;
    }

    /// Gives up the present values, because rows ran that do not count. The state is then that of the nearest snapshot.
    pub fn lose(&mut self) {
        self.now = self.snapshots.last().cloned().unwrap_or(EMPTY);
    }

    /// Goes back to `position` or, where that is not possible, to the nearest position before it.
    pub fn truncate(&mut self, position: usize) {
        self.snapshots.retain(|at| at.position <= position);
        self.snapshots.iter_mut().for_each(|at| at.tried = at.tried.min(position - at.position));
        if self.now.position > position {
            self.lose();
        } else {
            self.now.tried = self.now.tried.min(position - self.now.position);
        }
    }

    /// Keeps the present state, so that going back to this position costs nothing. The oldest snapshot goes where there
    /// are too many.
    pub fn keep(&mut self) {
        if self.most == 0 || self.snapshots.last().is_some_and(|at| at.end() == self.now.end()) {
            return;
        }
        if self.snapshots.len() == self.most {
            self.snapshots.remove(0);
        }
        self.snapshots.push(self.now.clone());
    }

    /// A state for a sequence with the first `position` tokens of this one.
    pub fn fork(&self, position: usize) -> State {
        let (layout, most, live) = (self.layout.clone(), self.most, self.live.clone());
        let (now, snapshots) = (self.now.clone(), self.snapshots.clone());
        let mut fork = State { layout, now, snapshots, most, live };
        fork.truncate(position);
        fork
    }

    fn part(&self, range: &Range<usize>) -> *mut f32 {
        assert!(range.start <= range.end && range.end <= self.layout.len);
        let memory = self.now.memory.as_ref().expect("owned before rows run");
        memory.base().cast::<f32>().wrapping_add(range.start)
    }

    /// Elements `range`.
    ///
    /// # Safety
    /// [`State::own`] has been called. No worker writes them until all workers passed the next barrier.
    pub unsafe fn get(&self, range: Range<usize>) -> &[f32] {
        // SAFETY: inside the memory by the assertion in `part`, aligned and initialized (zeroed at first); the caller
        // promises that nobody writes.
        unsafe { std::slice::from_raw_parts(self.part(&range), range.len()) }
    }

    /// The matrix of a head, to be written: that part of [`MatricesPlace::head`].
    ///
    /// # Safety
    /// As [`State::get_mut`].
    pub unsafe fn matrix_mut(&self, kind: StateType, range: Range<usize>) -> StateMut<'_> {
        // SAFETY: by this function's contract.
        let floats = unsafe { self.get_mut(range) };
        match kind {
            StateType::F32 => StateMut::F32(floats),
            // SAFETY: two f16 have the bytes and less than the alignment of an f32, and every bit pattern is a number.
            StateType::F16 => StateMut::F16(unsafe {
                std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), 2 * floats.len())
            }),
        }
    }

    /// Elements `range`, to be written.
    ///
    /// # Safety
    /// [`State::own`] has been called. No other worker touches them until all workers passed the next barrier.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn get_mut(&self, range: Range<usize>) -> &mut [f32] {
        // SAFETY: as in `get`; the caller promises exclusive access, and nobody else shares the memory.
        unsafe { std::slice::from_raw_parts_mut(self.part(&range), range.len()) }
    }
}
