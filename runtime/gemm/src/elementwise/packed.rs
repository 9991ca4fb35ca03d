//! Packed arrays of trits.

use super::{TritOp, shared};
use crate::{AlignedMemory, GemmError};
use rayon::prelude::*;
use std::convert::Infallible;
use std::fmt;
use trit_format::dense243::{self, TRITS};
use trit_kernels::elementwise::{TritTier, binary, first_invalid, multiply_add, negate, pack, unpack};

/// Where arrays begin, so that vectors do not touch two cache lines.
const LINE: usize = 64;
/// From how many bytes on arrays have memory of their own from the system. The allocator keeps shorter ones for the next
/// array, whose pages then are there already.
const LARGE: usize = 32 << 20;
/// About how many trits a thread packs at a time.
const TRITS_AT_A_TIME: usize = 1 << 18;

/// An array of trits `[rows, columns]` in canonical bytes: row-major, each row `ceil(columns / 5)` bytes, byte `j` of which
/// holds trits `5 j ..` of the row, the first least significant. Trits that a row's last byte has too many are 0.
/// That is the packed form of `format-spec/SPEC.md`.
///
/// Rows begin at bytes, so that a row is found and cut out without taking its neighbours apart. An array of more dimensions
/// has its last one as columns, a flat array is one row.
pub struct PackedTrits {
    rows: usize,
    columns: usize,
    memory: Memory,
}

/// Bytes that begin at a cache line.
enum Memory {
    /// Those of the allocator from `start` on.
    Allocated { bytes: Vec<u8>, start: usize, len: usize },
    /// Those of the system, in huge pages.
    Mapped(AlignedMemory),
}

impl PackedTrits {
    /// All zeros.
    ///
    /// # Errors
    /// [`GemmError::Memory`] where memory is refused.
    pub fn zeros(rows: usize, columns: usize) -> Result<PackedTrits, GemmError> {
        let mut zeros = PackedTrits::room(rows, columns)?;
        zeros.bytes_mut().fill(dense243::encode([0; TRITS]));
        Ok(zeros)
    }

    /// Memory for such an array, which is no such array yet.
    fn room(rows: usize, columns: usize) -> Result<PackedTrits, GemmError> {
        let row = columns.div_ceil(TRITS);
        let refused = || GemmError::Memory { what: "packed trits".into(), rows, row };
        let len = rows.checked_mul(row).ok_or_else(refused)?;
        if len >= LARGE {
            let memory = Memory::Mapped(AlignedMemory::huge(rows, row, "packed trits")?);
            return Ok(PackedTrits { rows, columns, memory });
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len + LINE).map_err(|_| refused())?;
        bytes.resize(len + LINE, 0);
        let start = bytes.as_ptr().align_offset(LINE).min(LINE);
        Ok(PackedTrits { rows, columns, memory: Memory::Allocated { bytes, start, len } })
    }

    /// Packs rows of `columns` trits each. Without columns there are no rows.
    ///
    /// # Errors
    /// [`GemmError::Length`] where `trits` is no whole rows, [`GemmError::Trit`] with the first value that is no trit,
    /// [`GemmError::Memory`] where memory is refused.
    pub fn pack(trits: &[i8], columns: usize) -> Result<PackedTrits, GemmError> {
        let rows = trits.len().checked_div(columns).unwrap_or(0);
        if rows * columns != trits.len() {
            let expected = (rows + 1) * columns;
            return Err(GemmError::Length {
                what: "the trits `[rows, columns]`",
                expected,
                found: trits.len(),
            });
        }
        let mut packed = PackedTrits::room(rows, columns)?;
        if rows == 0 {
            return Ok(packed);
        }
        let tier = TritTier::best();
        let (at_a_time, few) = pieces(rows, columns);
        let bytes = packed.bytes_mut().par_chunks_mut(at_a_time.div_ceil(TRITS));
        let done = bytes
            .zip(trits.par_chunks(at_a_time))
            .with_min_len(few)
            .try_for_each(|(to, from)| pack(tier, from, to));
        match done {
            Ok(()) => Ok(packed),
            Err(_) => {
                let at = trits.iter().position(|t| !(-1..=1).contains(t)).unwrap_or_default();
                Err(GemmError::Trit { row: at / columns, column: at % columns, value: trits[at] })
            }
        }
    }

    /// Takes over bytes that are such an array.
    ///
    /// # Errors
    /// [`GemmError::Length`] where they are not `rows * ceil(columns / 5)`, [`GemmError::Byte`] with the first that is no
    /// canonical byte, or has a trit behind the end of its row that is not 0; [`GemmError::Memory`] where memory is refused.
    pub fn from_bytes(bytes: &[u8], rows: usize, columns: usize) -> Result<PackedTrits, GemmError> {
        let row = columns.div_ceil(TRITS);
        if rows.checked_mul(row) != Some(bytes.len()) {
            let expected = rows.saturating_mul(row);
            return Err(GemmError::Length {
                what: "the bytes `[rows, ceil(columns / 5)]`",
                expected,
                found: bytes.len(),
            });
        }
        if let Some(index) = first_invalid(TritTier::best(), bytes) {
            return Err(GemmError::Byte { index, value: bytes[index] });
        }
        let used = columns % TRITS;
        if used > 0 {
            let ends = (1..=rows).map(|r| r * row - 1);
            let filled =
                |byte| dense243::decode(byte).is_some_and(|trits| trits[used..].iter().all(|&t| t == 0));
            if let Some(index) = ends.into_iter().find(|&i| !filled(bytes[i])) {
                return Err(GemmError::Byte { index, value: bytes[index] });
            }
        }
        let mut packed = PackedTrits::room(rows, columns)?;
        packed.bytes_mut().copy_from_slice(bytes);
        Ok(packed)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Trits of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Its canonical bytes, `[rows, ceil(columns / 5)]`.
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Allocated { bytes, start, len } => &bytes[*start..][..*len],
            Memory::Mapped(memory) => memory.bytes(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Allocated { bytes, start, len } => &mut bytes[*start..][..*len],
            Memory::Mapped(memory) => memory.bytes_mut(),
        }
    }

    /// Its trits, row-major.
    pub fn unpack(&self) -> Vec<i8> {
        let mut trits = vec![0; self.rows * self.columns];
        self.unpack_to(&mut trits);
        trits
    }

    /// [`PackedTrits::unpack`] into `out`.
    ///
    /// # Errors
    /// [`GemmError::Length`] where `out` is of another length.
    pub fn unpack_into(&self, out: &mut [i8]) -> Result<(), GemmError> {
        let expected = self.rows * self.columns;
        if out.len() != expected {
            return Err(GemmError::Length {
                what: "the trits `[rows, columns]`",
                expected,
                found: out.len(),
            });
        }
        self.unpack_to(out);
        Ok(())
    }

    fn unpack_to(&self, out: &mut [i8]) {
        if out.is_empty() {
            return;
        }
        let tier = TritTier::best();
        let (at_a_time, few) = pieces(self.rows, self.columns);
        let bytes = self.bytes().par_chunks(at_a_time.div_ceil(TRITS));
        out.par_chunks_mut(at_a_time)
            .zip(bytes)
            .with_min_len(few)
            .for_each(|(to, from)| unpack(tier, from, to));
    }

    /// An operation of two arrays, into a third.
    ///
    /// # Errors
    /// [`GemmError::Shapes`] where shapes differ.
    pub fn binary_into(
        &self,
        op: TritOp,
        other: &PackedTrits,
        out: &mut PackedTrits,
    ) -> Result<(), GemmError> {
        let work = |x: &[&[u8]], out: &mut [u8]| binary(TritTier::best(), op, x[0], x[1], out);
        on_packed(&[self, other], out, work)
    }

    fn binary(&self, op: TritOp, other: &PackedTrits) -> Result<PackedTrits, GemmError> {
        let mut out = PackedTrits::room(self.rows, self.columns)?;
        self.binary_into(op, other, &mut out)?;
        Ok(out)
    }

    /// The saturating sum, `clamp(a + b, -1, 1)`.
    ///
    /// # Errors
    /// [`GemmError::Shapes`] where shapes differ, [`GemmError::Memory`] where memory is refused.
    pub fn tadd(&self, other: &PackedTrits) -> Result<PackedTrits, GemmError> {
        self.binary(TritOp::Add, other)
    }

    /// The product.
    ///
    /// # Errors
    /// As [`PackedTrits::tadd`].
    pub fn tmul(&self, other: &PackedTrits) -> Result<PackedTrits, GemmError> {
        self.binary(TritOp::Mul, other)
    }

    /// The smaller of each two trits.
    ///
    /// # Errors
    /// As [`PackedTrits::tadd`].
    pub fn tmin(&self, other: &PackedTrits) -> Result<PackedTrits, GemmError> {
        self.binary(TritOp::Min, other)
    }

    /// The larger of each two trits.
    ///
    /// # Errors
    /// As [`PackedTrits::tadd`].
    pub fn tmax(&self, other: &PackedTrits) -> Result<PackedTrits, GemmError> {
        self.binary(TritOp::Max, other)
    }

    /// The opposite of each trit.
    ///
    /// # Errors
    /// [`GemmError::Memory`] where memory is refused.
    pub fn tnot(&self) -> Result<PackedTrits, GemmError> {
        let mut out = PackedTrits::room(self.rows, self.columns)?;
        self.tnot_into(&mut out)?;
        Ok(out)
    }

    /// [`PackedTrits::tnot`] into an array.
    ///
    /// # Errors
    /// [`GemmError::Shapes`] where shapes differ.
    pub fn tnot_into(&self, out: &mut PackedTrits) -> Result<(), GemmError> {
        on_packed(&[self], out, |x, out| negate(TritTier::best(), x[0], out))
    }

    /// `clamp(a * b + c, -1, 1)` of this array, `b` and `c`.
    ///
    /// # Errors
    /// As [`PackedTrits::tadd`].
    pub fn ternary_fma(&self, b: &PackedTrits, c: &PackedTrits) -> Result<PackedTrits, GemmError> {
        let mut out = PackedTrits::room(self.rows, self.columns)?;
        self.ternary_fma_into(b, c, &mut out)?;
        Ok(out)
    }

    /// [`PackedTrits::ternary_fma`] into an array.
    ///
    /// # Errors
    /// [`GemmError::Shapes`] where shapes differ.
    pub fn ternary_fma_into(
        &self,
        b: &PackedTrits,
        c: &PackedTrits,
        out: &mut PackedTrits,
    ) -> Result<(), GemmError> {
        on_packed(&[self, b, c], out, |x, out| multiply_add(TritTier::best(), x[0], x[1], x[2], out))
    }

    /// An array of the same shape to write results into.
    pub(super) fn room_like(&self) -> Result<PackedTrits, GemmError> {
        PackedTrits::room(self.rows, self.columns)
    }
}

/// How many trits make a piece that a thread packs or unpacks, and how many pieces it takes at least. A single long row is
/// shared out too: pieces end at whole bytes.
fn pieces(rows: usize, columns: usize) -> (usize, usize) {
    let at_a_time = match rows {
        1 => (TRITS_AT_A_TIME / TRITS * TRITS).min(columns),
        _ => columns,
    };
    (at_a_time, (TRITS_AT_A_TIME / at_a_time).max(1))
}

/// Runs `work` on the bytes of operands. All operations give 0 for zeros, so that the ends of rows need nothing done.
pub(super) fn on_packed(
    operands: &[&PackedTrits],
    out: &mut PackedTrits,
    work: impl Fn(&[&[u8]], &mut [u8]) + Sync,
) -> Result<(), GemmError> {
    for (operand, x) in operands.iter().enumerate() {
        if (x.rows, x.columns) != (out.rows, out.columns) {
            let (expected, found) = ((out.rows, out.columns), (x.rows, x.columns));
            return Err(GemmError::Shapes { operand, expected, found });
        }
    }
    let bytes: Vec<&[u8]> = operands.iter().map(|x| x.bytes()).collect();
    let done = shared(&bytes, out.bytes_mut(), |x, out| {
        work(x, out);
        Ok::<(), Infallible>(())
    });
    match done {
        Ok(()) => Ok(()),
        Err(never) => match never {},
    }
}

impl PartialEq for PackedTrits {
    fn eq(&self, other: &PackedTrits) -> bool {
        (self.rows, self.columns) == (other.rows, other.columns) && self.bytes() == other.bytes()
    }
}
impl Eq for PackedTrits {}

impl fmt::Debug for PackedTrits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedTrits [{}, {}]", self.rows, self.columns)
    }
}
