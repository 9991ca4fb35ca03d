//! Rows of a table `[rows, hidden]`, whatever they are stored as: floats, or int8 codes with scales.

use crate::dot::{GROUP, dots, padded};
use crate::isa::{Isa, LANES, dispatch};
use crate::load_float::LoadFloat;
use trit_format::coded::RowLayout;

/// Table rows that are multiplied with every input before the next rows are read. So many rows stay in L2.
pub(crate) const ROWS_IN_CACHE: usize = 64;

/// How many bytes ahead of a read are prefetched. A core reads about that much in the time that memory takes to answer.
const PREFETCH: usize = 8 << 10;

/// Rows that can be multiplied and widened.
pub(crate) trait Rows: Copy {
    /// How many.
    fn count(self) -> usize;
    /// Row `row` times each input: the bits of [`dots`] of the row's values in f32.
    fn dots<I: Isa, const M: usize>(self, isa: I, row: usize, inputs: [&[f32]; M]) -> [f32; M];
    /// The values of row `row`.
    fn widen<I: Isa>(self, isa: I, row: usize, out: &mut [f32]);
}

/// Rows of floats.
pub(crate) struct Floats<'a, E: LoadFloat> {
    /// `[rows, hidden]`.
    pub numbers: &'a [E::Raw],
    /// Above 0.
    pub hidden: usize,
}

impl<E: LoadFloat> Clone for Floats<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E: LoadFloat> Copy for Floats<'_, E> {}

impl<'a, E: LoadFloat> Floats<'a, E> {
    #[inline(always)]
    fn row(self, row: usize) -> &'a [E::Raw] {
        &self.numbers[row * self.hidden..][..self.hidden]
    }
}

impl<E: LoadFloat> Rows for Floats<'_, E> {
    #[inline(always)]
    fn count(self) -> usize {
        self.numbers.len() / self.hidden
    }

    #[inline(always)]
    fn dots<I: Isa, const M: usize>(self, isa: I, row: usize, inputs: [&[f32]; M]) -> [f32; M] {
        dots::<I, E, M>(isa, self.row(row), inputs, PREFETCH)
    }

    #[inline(always)]
    fn widen<I: Isa>(self, isa: I, row: usize, out: &mut [f32]) {
        for (from, to) in self.row(row).chunks(LANES).zip(out.chunks_mut(LANES)) {
            let mut wide = [0.0; LANES];
            isa.store(E::widen(isa, &padded(from)), &mut wide);
            to.copy_from_slice(&wide[..to.len()]);
        }
    }
}

/// Rows of int8 codes, as [`trit_format::coded`] says: `VECTORS` vectors to a block, with offsets or without.
#[derive(Clone, Copy)]
pub(crate) struct Coded<'a, const VECTORS: usize, const OFFSETS: bool> {
    /// `[rows, layout.bytes()]`.
    pub bytes: &'a [u8],
    /// Of a row.
    pub layout: RowLayout,
}

/// One such row. Its width is a whole number of vectors.
#[derive(Clone, Copy)]
struct CodedRow<'a, const VECTORS: usize, const OFFSETS: bool> {
    codes: &'a [[u8; LANES]],
    scales: &'a [[u8; 4]],
    offsets: &'a [[u8; 4]],
}

impl<'a, const VECTORS: usize, const OFFSETS: bool> Coded<'a, VECTORS, OFFSETS> {
    #[inline(always)]
    fn row(self, row: usize) -> CodedRow<'a, VECTORS, OFFSETS> {
        let layout = self.layout;
        let row = &self.bytes[row * layout.bytes()..][..layout.bytes()];
        CodedRow {
            codes: row[layout.codes()].as_chunks().0,
            scales: row[layout.scales()].as_chunks().0,
            offsets: row[layout.offsets()].as_chunks().0,
        }
    }
}

impl<const VECTORS: usize, const OFFSETS: bool> CodedRow<'_, VECTORS, OFFSETS> {
    /// The sixteen values of vector `at`. The product is rounded before the offset is added.
    #[inline(always)]
    fn vector<I: Isa>(&self, isa: I, at: usize) -> I::F32 {
        let float = |floats: &[[u8; 4]]| isa.splat(f32::from_le_bytes(floats[at / VECTORS]));
        let codes = self.codes[at].map(u8::cast_signed);
        let scaled = isa.mul(isa.widen_i8(&codes), float(self.scales));
        if OFFSETS { isa.add(scaled, float(self.offsets)) } else { scaled }
    }

    /// Prefetches what follows at vector `at`, an even one. Eight vectors have their scales in a cache line or less.
    #[inline(always)]
    fn prefetch<I: Isa>(&self, isa: I, at: usize) {
        isa.prefetch(&self.codes[at], PREFETCH);
        if at.is_multiple_of(8) {
            isa.prefetch(&self.scales[at / VECTORS], PREFETCH);
            if OFFSETS {
                isa.prefetch(&self.offsets[at / VECTORS], PREFETCH);
            }
        }
    }
}

impl<const VECTORS: usize, const OFFSETS: bool> Rows for Coded<'_, VECTORS, OFFSETS> {
    #[inline(always)]
    fn count(self) -> usize {
        self.bytes.len() / self.layout.bytes()
    }

    /// Sums have the order of [`dots`]: the products of even vectors go to one sum, those of odd ones to the other.
    #[inline(always)]
    fn dots<I: Isa, const M: usize>(self, isa: I, row: usize, inputs: [&[f32]; M]) -> [f32; M] {
        let row = self.row(row);
        let vectors = row.codes.len();
        let mut x: [&[[f32; LANES]]; M] = [&[]; M];
        for m in 0..M {
            x[m] = &inputs[m].as_chunks().0[..vectors];
        }
        let mut sums = [[isa.splat(0.0); 2]; M];
        for at in (0..vectors - vectors % 2).step_by(2) {
            row.prefetch(isa, at);
            let wide = [row.vector(isa, at), row.vector(isa, at + 1)];
            for m in 0..M {
                sums[m][0] = isa.add(sums[m][0], isa.mul(wide[0], isa.load(&x[m][at])));
                sums[m][1] = isa.add(sums[m][1], isa.mul(wide[1], isa.load(&x[m][at + 1])));
            }
        }
        if vectors % 2 == 1 {
            let wide = row.vector(isa, vectors - 1);
            for m in 0..M {
                sums[m][0] = isa.add(sums[m][0], isa.mul(wide, isa.load(&x[m][vectors - 1])));
            }
        }
        let mut out = [0.0; M];
        for m in 0..M {
            out[m] = isa.sum(isa.add(sums[m][0], sums[m][1]));
        }
        out
    }

    #[inline(always)]
    fn widen<I: Isa>(self, isa: I, row: usize, out: &mut [f32]) {
        let row = self.row(row);
        for (at, to) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            isa.store(row.vector(isa, at), to);
        }
    }
}

dispatch!(
    /// `outs[m][i]` is row `i` times `inputs[m]`.
    fn all_rows<R: Rows>(rows: R, inputs: &[&[f32]], outs: &mut [&mut [f32]]) = all_rows_body
);

#[inline(always)]
fn all_rows_body<I: Isa, R: Rows>(isa: I, rows: R, inputs: &[&[f32]], outs: &mut [&mut [f32]]) {
    let count = rows.count();
    for first in (0..count).step_by(ROWS_IN_CACHE) {
        let some = first..(first + ROWS_IN_CACHE).min(count);
        let (groups, rest) = inputs.as_chunks::<GROUP>();
        for (g, inputs) in groups.iter().enumerate() {
            some_rows::<I, R, GROUP>(isa, rows, some.clone(), *inputs, &mut outs[g * GROUP..]);
        }
        for (input, out) in rest.iter().zip(&mut outs[groups.len() * GROUP..]) {
            some_rows::<I, R, 1>(isa, rows, some.clone(), [input], std::slice::from_mut(out));
        }
    }
}

#[inline(always)]
fn some_rows<I: Isa, R: Rows, const M: usize>(
    isa: I,
    rows: R,
    some: std::ops::Range<usize>,
    inputs: [&[f32]; M],
    outs: &mut [&mut [f32]],
) {
    for row in some {
        let sums = rows.dots::<I, M>(isa, row, inputs);
        for m in 0..M {
            outs[m][row] = sums[m];
        }
    }
}

dispatch!(
    /// Writes the values of row `row`.
    fn widen<R: Rows>(rows: R, row: usize, out: &mut [f32]) = widen_body
);

#[inline(always)]
fn widen_body<I: Isa, R: Rows>(isa: I, rows: R, row: usize, out: &mut [f32]) {
    rows.widen(isa, row, out);
}
