//! A table `[rows, hidden]` in two planes of 4 bits: where each nibble stands, and what it means.
//!
//! A quantized copy lets a reader find the few rows of a head that can have the largest logits, at a fraction of the
//! table's bytes; those rows are then multiplied exactly. Columns are cut into chunks of 512, and chunks into 16 blocks
//! of equal width: 32 columns, in the last chunk the least multiple of 8 with which 16 blocks hold what remains. A
//! block `b` of a row has one scale `s_b = row.scale * scales[b]`, and column `i` in it the two values
//!
//! ```text
//! full  = s_b * (16 * hi + lo - 128)        hi, lo in 0..16
//! high  = s_b * (16 * hi + 7.5 - 128)       what is known without lo
//! ```
//!
//! Rows are stored in vectors of 64 bytes, 16 lanes of 4, as many a chunk as a block has multiples of 8 columns. Lane
//! `l` belongs to block `l` of the chunk: the sums of a chunk are one vector of 16 blocks.
//!
//! ```text
//! vector v, byte l * 4 + c    low nibble:  column 8 v + c     of block l
//!                             high nibble: column 8 v + 4 + c of block l
//! ```
//!
//! Columns past the end have `hi = 8, lo = 0`. A row's record bounds what the planes leave out: for each block, the
//! L2 norm of table minus `full` is at most `c_full * s_b`, of table minus `high` at most `c_high * s_b`, counting the
//! table's columns alone. Four arrays follow one another, each read in sequence by a scan and each at a multiple of
//! 64 bytes:
//!
//! ```text
//! high plane     [rows][vectors * 64]
//! low plane      [rows][vectors * 64]
//! block scales   u8 [rows][blocks]
//! rows           [rows] of { scale f32, c_high f32, c_full f32, zero u32 }
//! ```

use std::ops::Range;

/// Columns of a whole chunk.
pub const CHUNK: usize = 512;
/// Blocks of a chunk, lanes of a vector.
pub const LANES: usize = 16;
/// Bytes of a vector.
pub const VECTOR: usize = 64;
/// Columns of each block in one vector.
pub const STEP: usize = 8;
/// Columns of the widest block.
pub const MAX_BLOCK: usize = CHUNK / LANES;
/// Bytes of a row's record.
pub const ROW_BYTES: usize = 16;
/// Most columns. A bound on rounding errors rests on it.
pub const MAX_HIDDEN: u64 = 1 << 16;
/// Most rows.
pub const MAX_ROWS: u64 = 1 << 24;
/// Least [`Row::c_high`].
pub const MIN_C_HIGH: f32 = 16.0;
/// Least [`Row::c_full`].
pub const MIN_C_FULL: f32 = 1.0;
/// Least scale of a row that is not zero throughout: its products with sensible factors are normal numbers.
const MIN_SCALE: f32 = f32::from_bits((127 - 100) << 23);

/// Sizes and places for a table of that shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    rows: u64,
    hidden: u64,
}

impl Layout {
    /// That of a table `[rows, hidden]`; `None` unless both are at least 1 and at most [`MAX_ROWS`] and
    /// [`MAX_HIDDEN`].
    pub fn new(rows: u64, hidden: u64) -> Option<Layout> {
        let fits = (1..=MAX_ROWS).contains(&rows) && (1..=MAX_HIDDEN).contains(&hidden);
        fits.then_some(Layout { rows, hidden })
    }

    /// Rows of the table.
    pub const fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Columns of the table.
    pub const fn hidden(&self) -> usize {
        self.hidden as usize
    }

    /// Chunks of a row.
    pub const fn chunks(&self) -> usize {
        self.hidden().div_ceil(CHUNK)
    }

    /// Blocks of a row, empty ones included.
    pub const fn blocks(&self) -> usize {
        self.chunks() * LANES
    }

    /// Columns of a block of that chunk, a multiple of [`STEP`]; 0 past the last chunk.
    pub const fn width(&self, chunk: usize) -> usize {
        let rest = self.hidden().saturating_sub(chunk.saturating_mul(CHUNK));
        if rest >= CHUNK { MAX_BLOCK } else { rest.div_ceil(LANES).next_multiple_of(STEP) }
    }

    /// Vectors of a row in one plane.
    pub const fn vectors(&self) -> usize {
        let last = self.chunks() - 1;
        last * (MAX_BLOCK / STEP) + self.width(last) / STEP
    }

    /// Bytes of a row in one plane.
    pub const fn plane_row_bytes(&self) -> usize {
        self.vectors() * VECTOR
    }

    /// The table's columns in block `block` of a row; empty for blocks past the end.
    pub fn columns(&self, block: usize) -> Range<usize> {
        let (chunk, lane) = (block / LANES, block % LANES);
        let start = chunk.saturating_mul(CHUNK).saturating_add(lane * self.width(chunk)).min(self.hidden());
        start..(start + self.width(chunk)).min(self.hidden())
    }

    /// Bytes of one plane. No size overflows: rows have at most 2^15 bytes each.
    const fn plane(&self) -> u64 {
        self.rows * self.plane_row_bytes() as u64
    }

    /// Bytes of the high plane.
    pub fn high(&self) -> Range<u64> {
        0..self.plane()
    }

    /// Bytes of the low plane.
    pub fn low(&self) -> Range<u64> {
        self.plane()..2 * self.plane()
    }

    /// Bytes of the block scales.
    pub fn scales(&self) -> Range<u64> {
        let start = self.low().end;
        start..start + self.rows * self.blocks() as u64
    }

    /// Bytes of the rows' records.
    pub fn records(&self) -> Range<u64> {
        let start = self.scales().end.next_multiple_of(VECTOR as u64);
        start..start + self.rows * ROW_BYTES as u64
    }

    /// Bytes of all four arrays.
    pub fn bytes(&self) -> u64 {
        self.records().end
    }
}

/// The record of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Factor on the scales of the row's blocks: 0 for a row of zeros, else at least 2^-100.
    pub scale: f32,
    /// Bounds the residual of the high plane, at least [`MIN_C_HIGH`]; infinite for a row that has NaN or infinities.
    pub c_high: f32,
    /// Bounds the residual of both planes, at least [`MIN_C_FULL`]; infinite for a row that has NaN or infinities.
    pub c_full: f32,
}

impl Row {
    /// The bytes of the record.
    pub fn to_bytes(self) -> [u8; ROW_BYTES] {
        let fields = [self.scale, self.c_high, self.c_full, 0.0].map(f32::to_le_bytes);
        std::array::from_fn(|i| fields[i / 4][i % 4])
    }

    /// Reads a record. Any bytes are one.
    #[inline(always)]
    pub fn from_bytes(bytes: &[u8; ROW_BYTES]) -> Row {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *bytes;
        Row {
            scale: f32::from_le_bytes([a, b, c, d]),
            c_high: f32::from_le_bytes([e, f, g, h]),
            c_full: f32::from_le_bytes([i, j, k, l]),
        }
    }
}

/// Encodes one row, `[hidden]`: its nibbles to `high` and `low`, `[plane_row_bytes]` each, its scales to `scales`,
/// `[blocks]`.
///
/// Scales are the least with which every value has a nearest step in -128..=127, rounded up. A row that has NaN or
/// infinities gets planes of no meaning and infinite bounds. `None` if a slice has another length; nothing is written then.
pub fn encode_row(
    layout: Layout,
    row: &[f32],
    high: &mut [u8],
    low: &mut [u8],
    scales: &mut [u8],
) -> Option<Row> {
    let bytes = layout.plane_row_bytes();
    let lengths = [row.len(), scales.len(), high.len(), low.len()];
    if lengths != [layout.hidden(), layout.blocks(), bytes, bytes] {
        return None;
    }
    let needed: f64 = (0..layout.blocks()).map(|b| least_scale(&row[layout.columns(b)])).fold(0.0, f64::max);
    // A sum of magnitudes overflows or is NaN wherever a value is not finite; f64 holds any sum of finite f32.
    let finite = row.iter().map(|w| f64::from(w.abs())).sum::<f64>().is_finite();
    let scale = match (finite, needed > 0.0) {
        (false, _) => 1.0,
        (true, false) => 0.0,
        (true, true) => round_up(needed / 255.0).max(MIN_SCALE),
    };
    let (mut most_high, mut most_full) = (0f64, 0f64);
    for block in 0..layout.blocks() {
        let (chunk, lane) = (block / LANES, block % LANES);
        let weights = &row[layout.columns(block)];
        let steps = match (finite, least_scale(weights)) {
            (false, _) => u8::from(!weights.is_empty()),
            (true, 0.0) => 0,
            // The quotient is at most 255, and so is what it rounds to.
            (true, least) => (least / f64::from(scale)).ceil() as u8,
        };
        scales[block] = steps;
        // Exact, as are its products with steps of 8 bits.
        let s = f64::from(scale) * f64::from(steps);
        let mut q = [0i8; MAX_BLOCK];
        if finite && s > 0.0 {
            let (high, full) = quantize(weights, s, &mut q);
            most_high = most_high.max(high);
            most_full = most_full.max(full);
        }
        let at = chunk * (MAX_BLOCK / STEP) * VECTOR + lane * 4;
        for (v, q) in q[..layout.width(chunk)].as_chunks::<STEP>().0.iter().enumerate() {
            for c in 0..4 {
                let (first, second) = ((i16::from(q[c]) + 128) as u8, (i16::from(q[c + 4]) + 128) as u8);
                high[at + v * VECTOR + c] = first >> 4 | second & 0xf0;
                low[at + v * VECTOR + c] = first & 0xf | second << 4;
            }
        }
    }
    Some(match finite {
        true => Row {
            scale,
            c_high: round_up(most_high).max(MIN_C_HIGH),
            c_full: round_up(most_full).max(MIN_C_FULL),
        },
        false => Row { scale, c_high: f32::INFINITY, c_full: f32::INFINITY },
    })
}

/// The least scale with which all of a block is within half a step of -128..=127, and a little more.
fn least_scale(weights: &[f32]) -> f64 {
    let (mut least, mut most) = (0f32, 0f32);
    for &w in weights {
        // Comparisons pass over NaN.
        least = if w < least { w } else { least };
        most = if w > most { w } else { most };
    }
    (f64::from(most) / 127.48).max(f64::from(least) / -128.48)
}

/// The nearest steps of a block of scale `s`, and the norms of what the high plane and both planes leave out, in steps,
/// a little more than they are.
fn quantize(weights: &[f32], s: f64, q: &mut [i8; MAX_BLOCK]) -> (f64, f64) {
    // Adding this number leaves no bits for a fraction, so the sum is rounded to the nearest integer. That gives the same
    // result on every machine, and it is fast.
    const MAGIC: f64 = 1.5 * (1u64 << 52) as f64;
    let inverse = 1.0 / s;
    // There are four sums of each kind, so that the CPU overlaps additions.
    let (mut high, mut full) = ([0f64; 4], [0f64; 4]);
    for (i, (&w, q)) in weights.iter().zip(q.iter_mut()).enumerate() {
        let steps = f64::from(w) * inverse;
        let nearest = (steps + MAGIC) - MAGIC;
        *q = nearest as i8;
        // The residual is measured against the step that was stored, so that a clamped value counts with its whole error.
        let stored = f64::from(*q);
        let middle = f64::from((*q & -16) as i16) + 7.5;
        full[i % 4] += (steps - stored) * (steps - stored);
        high[i % 4] += (steps - middle) * (steps - middle);
    }
    // Each step is wrong by at most 2^-44 (two roundings of less than 2^8), each sum of squares by a fraction of 2^-47.
    let norm = |sums: [f64; 4]| sums.iter().sum::<f64>().sqrt() * (1.0 + 1e-12) + 1e-12;
    (norm(high), norm(full))
}

/// The least f32 that is not below `x`, for `x` of at least zero.
fn round_up(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}

/// Decodes one row to its scales, `[blocks]`, and its steps in -128..=127, `[hidden]`: the inverse of [`encode_row`]. `None`
/// if a slice has another length.
pub fn decode_row(
    layout: Layout,
    row: Row,
    high: &[u8],
    low: &[u8],
    scales: &[u8],
) -> Option<(Vec<f64>, Vec<i16>)> {
    let bytes = layout.plane_row_bytes();
    if [scales.len(), high.len(), low.len()] != [layout.blocks(), bytes, bytes] {
        return None;
    }
    let mut steps = Vec::with_capacity(layout.hidden());
    for block in 0..layout.blocks() {
        let (chunk, lane) = (block / LANES, block % LANES);
        for i in 0..layout.columns(block).len() {
            let at = (chunk * (MAX_BLOCK / STEP) + i / STEP) * VECTOR + lane * 4 + i % 4;
            let shift = i % STEP / 4 * 4;
            let nibble = |plane: &[u8]| i16::from(plane[at] >> shift & 0xf);
            steps.push(16 * nibble(high) + nibble(low) - 128);
        }
    }
    Some((scales.iter().map(|&s| f64::from(row.scale) * f64::from(s)).collect(), steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(layout: Layout, row: &[f32]) -> (Row, Vec<u8>, Vec<u8>, Vec<u8>) {
        let mut planes = [vec![0xaa; layout.plane_row_bytes()], vec![0xaa; layout.plane_row_bytes()]];
        let mut scales = vec![0xaa; layout.blocks()];
        let [high, low] = &mut planes;
        let record = encode_row(layout, row, high, low, &mut scales).unwrap();
        let [high, low] = planes;
        (record, high, low, scales)
    }

    /// xorshift64*, in -1..1.
    fn random(seed: &mut u64) -> f32 {
        *seed ^= *seed >> 12;
        *seed ^= *seed << 25;
        *seed ^= *seed >> 27;
        (seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    #[test]
    fn the_blocks_of_a_row_are_all_its_columns_in_order() {
        for hidden in [1, 8, 127, 128, 129, 384, 511, 512, 513, 640, 768, 2560, 2561, 65536] {
            let layout = Layout::new(3, hidden).unwrap();
            let columns: Vec<usize> = (0..layout.blocks()).flat_map(|b| layout.columns(b)).collect();
            assert_eq!(columns, (0..hidden as usize).collect::<Vec<_>>());
            assert!(layout.records().start.is_multiple_of(64) && layout.scales().start.is_multiple_of(64));
        }
        assert_eq!(Layout::new(1, 65537), None);
        assert_eq!(Layout::new(0, 8), None);
        let layout = Layout::new(128_256, 2560).unwrap();
        assert_eq!((layout.vectors(), layout.blocks()), (20, 80));
        assert_eq!(layout.bytes(), 128_256 * (1280 + 1280 + 80 + 16));
        assert_eq!(Layout::new(1, 640).unwrap().vectors(), 4 + 1);
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let layout = Layout::new(1, 700).unwrap();
        let mut row = vec![0f32; 700];
        // Chunk 1 has blocks of 16: lane 3, column 13 of the block is vector 1 of the chunk, high nibble of byte 1.
        let column = 512 + 3 * 16 + 13;
        row[column] = -1.0;
        let (record, high, low, scales) = encoded(layout, &row);
        let at = (4 + 1) * 64 + 3 * 4 + 1;
        assert_eq!((high[at], low[at]), (0x08, 0x00));
        assert!(high.iter().enumerate().all(|(i, &b)| i == at || b == 0x88));
        assert!(low.iter().all(|&b| b == 0));
        assert_eq!(scales.iter().map(|&s| u32::from(s)).sum::<u32>(), u32::from(scales[16 + 3]));
        let (s, q) = decode_row(layout, record, &high, &low, &scales).unwrap();
        assert_eq!(q[column], -128);
        assert!((s[16 + 3] * 128.48 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn bounds_hold_and_are_tight_for_rows_of_all_kinds() {
        let mut seed = 7;
        for hidden in [1, 9, 384, 512, 700, 2560] {
            let layout = Layout::new(1, hidden as u64).unwrap();
            for kind in 0..10 {
                let mut row: Vec<f32> = (0..hidden).map(|_| random(&mut seed)).collect();
                match kind {
                    0 => {}
                    1 => row[hidden / 2] = 1e6,
                    2 => row.iter_mut().skip(hidden / 3).for_each(|w| *w = 0.0),
                    3 => row.iter_mut().for_each(|w| *w *= 1e-44),
                    4 => row.iter_mut().for_each(|w| *w *= f32::MAX),
                    5 => row.fill(0.0),
                    6 => row.fill(-0.25),
                    7 => row.iter_mut().for_each(|w| *w = w.signum() * 3e-39),
                    8 => row.iter_mut().enumerate().for_each(|(i, w)| *w *= (-(i as f32)).exp2()),
                    _ => row.iter_mut().for_each(|w| *w = w.powi(9)),
                }
                let (record, high, low, scales) = encoded(layout, &row);
                let (s, q) = decode_row(layout, record, &high, &low, &scales).unwrap();
                assert!(record.c_high >= MIN_C_HIGH && record.c_full >= MIN_C_FULL);
                for (block, &s) in s.iter().enumerate() {
                    let norm = |value: fn(i16) -> f64| {
                        let terms = layout.columns(block).map(|i| f64::from(row[i]) - s * value(q[i]));
                        terms.map(|r| r * r).sum::<f64>().sqrt()
                    };
                    let (full, high) = (norm(f64::from), norm(|q| f64::from(q & -16) + 7.5));
                    assert!(full <= f64::from(record.c_full) * s, "{hidden} {kind} {block}: {full}, {s}");
                    assert!(s == 0.0 || high <= f64::from(record.c_high) * s, "{hidden} {kind} {block}");
                    if s == 0.0 {
                        assert!(layout.columns(block).all(|i| row[i] == 0.0));
                    }
                }
                // Half a step, and eight, for each of at most 32 columns.
                assert!(record.c_full <= 2.84 && record.c_high <= 45.4 + 1e-3, "{kind}: {record:?}");
            }
        }
    }

    #[test]
    fn rows_that_are_not_finite_have_no_bound() {
        let layout = Layout::new(1, 40).unwrap();
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = [1.0; 40];
            row[17] = strange;
            let (record, _, _, scales) = encoded(layout, &row);
            assert_eq!(record, Row { scale: 1.0, c_high: f32::INFINITY, c_full: f32::INFINITY });
            // 5 blocks of 8 columns: each takes part, so that the bound is infinite whatever the hidden state.
            assert_eq!(scales[..6], [1, 1, 1, 1, 1, 0]);
        }
        assert_eq!(Row::from_bytes(&Row { scale: 1.5, c_high: 2.0, c_full: 3.0 }.to_bytes()).c_full, 3.0);
    }
}
