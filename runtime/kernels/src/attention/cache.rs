//! How the keys and values of one KV head stand in memory, and how rows are written there.
//!
//! Floats: keys are `[positions / 16, head_dim, 16]`: sixteen positions stand side by side, so that a vector holds sixteen
//! scores and no sum crosses lanes. Values are `[positions / 128, value_width / 16, 128, 16]`: sixteen elements stand
//! side by side, and those of consecutive positions follow each other. So kernels read four runs of some KB each at
//! once, as they do with keys, and the CPU prefetches all of them. From one run, as from rows of values, it fetched 10
//! GB/s where memory gives 16.
//!
//! Integers are multiplied four at a time ([`KvElement::QUAD`]), so that four elements of a key, and the values of four
//! positions, stand beside each other: keys are `[positions / 16, head_dim / 4, 16, 4]`, with zeros where the last four
//! are not whole, and values `[positions / 128, value_width / 16, 128 / 4, 16, 4]`.

use super::CHUNK;
use crate::isa::LANES;
use crate::load_float::LoadFloat;
use crate::quantize::per_token;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Positions that stand side by side in the keys.
pub const BLOCK: usize = LANES;

/// Positions whose values stand together.
pub const VALUE_BLOCK: usize = 128;

/// Runs of four positions among them.
pub(super) const VALUE_QUADS: usize = VALUE_BLOCK / 4;

/// How many positions a cache for `positions` has room for: `positions` rounded up to whole blocks. For each KV head,
/// keys take that many times [`key_width`] elements, values that many times [`value_width`], and each kind of scales one
/// each.
pub const fn padded_positions(positions: usize) -> usize {
    positions.next_multiple_of(VALUE_BLOCK)
}

/// Index, in units of sixteen elements, of the values from `16 * column` on of a position. Those of the next position
/// in the block are 1 further, and those of the next column [`VALUE_BLOCK`] further. `columns` is `value_width / 16`.
#[inline(always)]
pub(super) const fn value_index(position: usize, column: usize, columns: usize) -> usize {
    (position / VALUE_BLOCK * columns + column) * VALUE_BLOCK + position % VALUE_BLOCK
}

/// Where element `element` of the key of a position stands among the keys of a head.
#[inline(always)]
pub const fn key_place<T: KvElement>(position: usize, element: usize, head_dim: usize) -> usize {
    let quads = head_dim.div_ceil(T::QUAD);
    let quad = (position / BLOCK * quads + element / T::QUAD) * BLOCK + position % BLOCK;
    quad * T::QUAD + element % T::QUAD
}

/// Where element `element` of the value of a position stands among the values of a head.
#[inline(always)]
pub const fn value_place<T: KvElement>(position: usize, element: usize, head_dim: usize) -> usize {
    let run = value_index(position, element / LANES, value_width(head_dim) / LANES) / T::QUAD;
    (run * LANES + element % LANES) * T::QUAD + position % T::QUAD
}

/// Elements of a head's row of keys: `head_dim`, and zeros that fill up the last ones that are multiplied together.
pub const fn key_width<T: KvElement>(head_dim: usize) -> usize {
    head_dim.next_multiple_of(T::QUAD)
}

/// Elements of a head's row of values: `head_dim`, and zeros that fill up the last vector.
pub const fn value_width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Element type of a KV cache: f32, f16, or i8 with a scale for each key and each value.
pub trait KvElement: LoadFloat<Raw = Self> + Copy + Default + Send + Sync + 'static {
    /// Whether each key and value has a scale.
    const SCALED: bool;
    /// Whether elements are f32 already, so that they need no widening.
    const IS_F32: bool = false;
    /// How many elements are multiplied together: of a key, or of the values of as many positions.
    const QUAD: usize = 1;

    /// The elements where they are int8, which are multiplied as integers.
    fn integers(_elements: &[Self]) -> Option<&[i8]> {
        None
    }

    /// Rounds a row to nearest even and returns its scale, which is 1 without [`KvElement::SCALED`].
    ///
    /// Values that f16 cannot hold become infinite. As i8, a row is quantized by [`per_token`] without a floor, and an
    /// element stands for `scale * q` with `scale = 1 / s`, which is off by at most half of `scale` and some roundings.
    /// A row with NaN or infinity gets a scale that is NaN or infinite, and zeros, so that its products are NaN. A row
    /// whose maximum is too small for its reciprocal becomes 0.
    fn narrow(row: &[f32], to: &mut [Self]) -> f32;

    /// Whether every finite value of `row` stays finite as an element.
    fn holds(_row: &[f32]) -> bool {
        true
    }
}

impl KvElement for f32 {
    const SCALED: bool = false;
    const IS_F32: bool = true;

    fn narrow(row: &[f32], to: &mut [f32]) -> f32 {
        to.copy_from_slice(row);
        1.0
    }
}

impl KvElement for f16 {
    const SCALED: bool = false;

    fn narrow(row: &[f32], to: &mut [f16]) -> f32 {
        to.convert_from_f32_slice(row);
        1.0
    }

    fn holds(row: &[f32]) -> bool {
        // 65520 lies halfway between the largest f16, 65504, and the next value that f16 would have. From there on
        // rounding gives infinity. Values are compared as integers and without a branch, so that this is a few vector
        // instructions.
        let (least, infinite) = (65520f32.to_bits() as i32, f32::INFINITY.to_bits() as i32);
        let beyond = row.iter().fold(false, |beyond, x| {
            let magnitude = (x.to_bits() & 0x7fff_ffff) as i32;
            beyond | ((magnitude >= least) & (magnitude < infinite))
        });
        !beyond
    }
}

impl KvElement for i8 {
    const SCALED: bool = true;
    const QUAD: usize = 4;

    fn integers(elements: &[i8]) -> Option<&[i8]> {
        Some(elements)
    }

    fn narrow(row: &[f32], to: &mut [i8]) -> f32 {
        let (s, _) = per_token(row, 0.0, to);
        if s.is_infinite() { 0.0 } else { 1.0 / s }
    }
}

/// The keys and values of one KV head, or of some of its positions, in whole blocks of [`VALUE_BLOCK`].
#[derive(Clone, Copy)]
pub struct KvHead<'a, T> {
    keys: &'a [T],
    values: &'a [T],
    key_scales: &'a [f32],
    value_scales: &'a [f32],
    head_dim: usize,
}

/// The first positions of a chunk.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a, T> {
    /// Whole blocks of 16 positions.
    pub keys: &'a [T],
    /// Whole blocks of 128 positions.
    pub values: &'a [T],
    /// `[positions]`, or none.
    pub key_scales: &'a [f32],
    /// `[positions]`, or none.
    pub value_scales: &'a [f32],
    /// Whether they come from memory and are used only a few times, so that prefetching them pays: f16 came with 16
    /// GB/s, and with 13 without prefetching, where a plain read had 21.
    pub streamed: bool,
}

/// Checks that there is room for whole blocks, and for their scales if `T` has any.
fn check<T: KvElement>(keys: usize, values: usize, key_scales: usize, value_scales: usize, head_dim: usize) {
    let positions = values.checked_div(value_width(head_dim)).unwrap_or(0);
    assert!(
        positions.is_multiple_of(VALUE_BLOCK)
            && keys == positions * key_width::<T>(head_dim)
            && values == positions * value_width(head_dim),
        "keys of {keys} and values of {values} elements are not whole blocks of {VALUE_BLOCK} positions of {head_dim}"
    );
    let scales = if T::SCALED { positions } else { 0 };
    assert!(key_scales == scales && value_scales == scales, "{positions} positions want {scales} scales");
}

impl<'a, T: KvElement> KvHead<'a, T> {
    /// A view of one head of a cache: `keys` `[positions / 16, head_dim, 16]` and `values`
    /// `[positions / 128, value_width / 16, 128, 16]`, or of integers `[positions / 16, head_dim / 4, 16, 4]` and
    /// `[positions / 128, value_width / 16, 128 / 4, 16, 4]`, and `[positions]` scales of each, or none where `T` has none.
    ///
    /// # Panics
    /// If lengths do not fit each other, or are not those of whole blocks.
    pub fn new(
        keys: &'a [T],
        values: &'a [T],
        key_scales: &'a [f32],
        value_scales: &'a [f32],
        head_dim: usize,
    ) -> KvHead<'a, T> {
        check::<T>(keys.len(), values.len(), key_scales.len(), value_scales.len(), head_dim);
        KvHead { keys, values, key_scales, value_scales, head_dim }
    }

    /// Elements of a key or a value.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// How many positions there is room for.
    fn capacity(&self) -> usize {
        self.values.len().checked_div(value_width(self.head_dim)).unwrap_or(0)
    }

    /// The positions of chunk `chunk`: [`CHUNK`] of them, or fewer at the end of the cache. In a cache in pages, each page
    /// holds one such chunk of each head.
    ///
    /// # Panics
    /// If the cache ends before the chunk.
    pub fn chunk(&self, chunk: usize) -> KvHead<'a, T> {
        let at = chunk * CHUNK..((chunk + 1) * CHUNK).min(self.capacity());
        let (keys, width) = (key_width::<T>(self.head_dim), value_width(self.head_dim));
        let scales = if T::SCALED { at.clone() } else { 0..0 };
        KvHead {
            keys: &self.keys[at.start * keys..at.end * keys],
            values: &self.values[at.start * width..at.end * width],
            key_scales: &self.key_scales[scales.clone()],
            value_scales: &self.value_scales[scales],
            head_dim: self.head_dim,
        }
    }

    /// The first `count` positions, rounded up to blocks of keys and of values.
    pub(super) fn positions(&self, count: usize, streamed: bool) -> Stored<'a, T> {
        let (keys, values) = (count.next_multiple_of(BLOCK), padded_positions(count));
        let scales = if T::SCALED { values } else { 0 };
        Stored {
            keys: &self.keys[..keys * key_width::<T>(self.head_dim)],
            values: &self.values[..values * value_width(self.head_dim)],
            key_scales: &self.key_scales[..scales],
            value_scales: &self.value_scales[..scales],
            streamed,
        }
    }
}

/// The keys and values of one KV head, to be written: see [`KvHead`].
pub struct KvHeadMut<'a, T> {
    keys: &'a mut [T],
    values: &'a mut [T],
    key_scales: &'a mut [f32],
    value_scales: &'a mut [f32],
    head_dim: usize,
}

impl<'a, T: KvElement> KvHeadMut<'a, T> {
    /// A view like [`KvHead::new`] that can be written.
    ///
    /// # Panics
    /// As [`KvHead::new`].
    pub fn new(
        keys: &'a mut [T],
        values: &'a mut [T],
        key_scales: &'a mut [f32],
        value_scales: &'a mut [f32],
        head_dim: usize,
    ) -> KvHeadMut<'a, T> {
        check::<T>(keys.len(), values.len(), key_scales.len(), value_scales.len(), head_dim);
        KvHeadMut { keys, values, key_scales, value_scales, head_dim }
    }

    /// Writes the keys and values of `rows` consecutive positions from `position` on. Row `r` is the `head_dim`
    /// elements of `k` and of `v` from `r * stride` on.
    ///
    /// # Panics
    /// If a slice is too short or the positions are outside the cache.
    pub fn append(&mut self, position: usize, rows: usize, k: &[f32], v: &[f32], stride: usize) {
        let (dim, width, quad) = (self.head_dim, value_width(self.head_dim), T::QUAD);
        let key_width = key_width::<T>(dim);
        // Keys with scales are narrowed by whole rows, because a row has one scale.
        let mut row = vec![T::default(); if T::SCALED { dim } else { 0 }];
        // Other keys of a block are narrowed part by part, then stored side by side, one cache line after the other.
        let mut value = vec![T::default(); width];
        let mut narrow = [[T::default(); PART]; BLOCK];
        let mut done = 0;
        while done < rows {
            let (block, lane) = ((position + done) / BLOCK, (position + done) % BLOCK);
            let count = (BLOCK - lane).min(rows - done);
            for r in 0..count {
                let (p, from) = (position + done + r, (done + r) * stride);
                let scale = T::narrow(&v[from..][..dim], &mut value[..dim]);
                for (column, value) in value.as_chunks::<LANES>().0.iter().enumerate() {
                    let at = value_place::<T>(p, column * LANES, dim);
                    match quad {
                        1 => self.values[at..][..LANES].copy_from_slice(value),
                        _ => (self.values[at..].iter_mut().step_by(quad).zip(value))
                            .for_each(|(to, x)| *to = *x),
                    }
                }
                if T::SCALED {
                    self.value_scales[p] = scale;
                }
            }
            let block = &mut self.keys[block * BLOCK * key_width..][..BLOCK * key_width];
            if T::SCALED {
                for r in 0..count {
                    self.key_scales[position + done + r] =
                        T::narrow(&k[(done + r) * stride..][..dim], &mut row);
                    for (to, x) in block.chunks_exact_mut(BLOCK * quad).zip(row.chunks(quad)) {
                        to[(lane + r) * quad..][..x.len()].copy_from_slice(x);
                    }
                }
            } else {
                for (part, to) in block.chunks_mut(PART * BLOCK).enumerate() {
                    let elements = to.len() / BLOCK;
                    for r in 0..count {
                        let from = &k[(done + r) * stride..][..dim][part * PART..][..elements];
                        T::narrow(from, &mut narrow[r][..elements]);
                    }
                    for (i, to) in to.chunks_exact_mut(BLOCK).enumerate() {
                        for (to, row) in to[lane..][..count].iter_mut().zip(&narrow) {
                            *to = row[i];
                        }
                    }
                }
            }
            done += count;
        }
    }
}

/// Elements of a key that are narrowed at a time before they are stored side by side.
const PART: usize = 64;
