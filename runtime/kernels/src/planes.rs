//! Screening of a head: finds the rows that can have the largest logits in a copy of the table in 4-bit planes. The
//! result is exact, not approximate.
//!
//! A table's planes ([`trit_format::planes`]) and a hidden state enter. For each row an approximate logit and a bound
//! on its error leave. A row whose upper bound is below the k-th largest lower bound cannot be among the k largest
//! logits. The other rows are multiplied exactly, so that results are those of the whole product, bit for bit, ties
//! included.
//!
//! The words: a *scan* bounds every row and leaves a *shortlist*. Reading both planes of the rows on the shortlist
//! *tightens* their bounds, which narrows the shortlist. The rows that remain are rescored, that is multiplied exactly,
//! and are the *candidates* for the largest logits.
//!
//! ```text
//! Hidden::prepare                      once a token; where it gives false, the whole product is computed
//! scan_high         share of rows      approx, bound       (scan_full where the shortlist would hold most rows)
//! exclude_others    share of rows      rows that are not asked for become minus infinity
//! TopLower          share, merged      threshold = k-th largest approx - bound
//! extend_shortlist  share of rows      rows with approx + bound >= threshold
//! tighten_bounds    shortlist          approx, bound from both planes; then TopLower again
//! narrow_shortlist  shortlist          rows with approx + bound >= the new threshold
//! head::dot_rows    shortlist          exact logits: the candidates
//! ```
//!
//! # The bound
//!
//! Let `w` be a row of the table, `h` the hidden state, `n` their length, `C` the number of chunks, `u = 2^-24`. `Q`
//! are the row's integer steps (`16 hi + lo - 128`, or `16 hi - 120.5` for the high plane alone: at most 128 either
//! way), `s_b` the scale of its block `b` of `n_b` columns, `r = w - s_b Q` what the planes leave out, `h' = t g` the
//! hidden state in 16-bit steps, `e = h - h'`. The format promises `|r_b| <= c s_b` (L2 norms). In real numbers
//!
//! ```text
//! w h = A + sum_b s_b Q_b e_b + sum_b r_b h_b,     A = t sum_b s_b I_b,  I_b = Q_b g_b
//! |w h - A| <= sum_b s_b (128 sqrt(n_b) |e_b| + c |h_b|)                     (Cauchy-Schwarz)
//! ```
//!
//! `I_b` is exact in i32, because `32 * 128 * 2^15 < 2^28`, and twice that for the high plane, which counts half steps
//! (`Nibbles` bounds the partial sums). Floats round in three places.
//!
//! - `A` is computed with at most `C + 7` roundings of each term (conversion, scale, `C - 1` additions, 4 halvings, two
//!   factors), and one more when a bound is added. `t s_b |I_b| <= s_b 128 sqrt(n_b) (|h_b| + |e_b|)`.
//! - The product that decides, [`crate::head::dot_rows`], rounds each term at most `n/16 + 7` times: once as a product,
//!   then in the additions of one of at least 16 lanes, then in up to 5 halvings; a fused product would round fewer times.
//!   The sum of its terms' magnitudes is at most `sum_b s_b (128 sqrt(n_b) + c) |h_b|`.
//! - The bound itself, a sum of positive terms, is rounded at most `C + 10` times, the additions to `A` included; `u_b`
//!   below is larger by that fraction.
//!
//! With `e1 = 1.01 (n/16 + C + 16) u`, which covers both counts and `1 / (1 - k u)` for all `n` up to 2^16, and with
//! `k_b = max(1, 128 sqrt(n_b) / c_min)`, `c_min` being the least `c` the format allows:
//!
//! ```text
//! |computed w h - computed A| <= (c + e1 (128 sqrt(32) + c)) sum_b s_b u_b
//! u_b = (|h_b| + k_b |e_b|) (1 + 1.01 (C + 16) u)
//! ```
//!
//! *Underflow.* `prepare` takes hidden states whose largest magnitude is within 2^-60..=2^60, and rows that are not
//! zero have scales of at least 2^-100. Only two things can then underflow: `t` times a scale (off by 2^-150, times at
//! most 2^47 steps) and products of the exact sum (off by 2^-150 each), less than 2^-100 together. Each `u_b` is at
//! least 2^-120, so nothing in the bound underflows, and 2^-90 is added to it for the rest.
//!
//! *Overflow.* A bound that is not below 2^100 becomes infinite. Where it is below, the terms of the exact product have
//! magnitudes of less than 2^111 in all, so neither it nor `A` overflows. The record of a row with NaN or infinities
//! gives it an infinite bound. Infinite and NaN bounds never raise a threshold, and rows that have them always stay on
//! the shortlist.

mod hidden;
mod scan;
mod scan_variant;
mod select;

pub use hidden::Hidden;
pub use scan::{scan_full, scan_high, tighten_bounds};
pub use scan_variant::{SCAN_VARIANTS, ScanVariant};
pub use select::{MAX_TOP, TopLower, exclude_others, extend_shortlist, narrow_shortlist};
use trit_format::planes::{LANES, Layout, ROW_BYTES, VECTOR};

/// The four arrays of a table's planes.
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a> {
    layout: Layout,
    /// Vectors of a row in one plane, kept here so that loops need not compute it.
    vectors: usize,
    /// Chunks of a row.
    chunks: usize,
    /// `[rows][vectors]`.
    high: &'a [[u8; VECTOR]],
    low: &'a [[u8; VECTOR]],
    /// `[rows][chunks]`.
    scales: &'a [[u8; LANES]],
    /// `[rows]`.
    records: &'a [[u8; ROW_BYTES]],
    /// How the high plane alone is scanned, and how both planes are.
    scan_variants: [ScanVariant; 2],
}

impl<'a> Planes<'a> {
    /// The planes at the start of `bytes`. A manifest's record says where they begin in the planes section.
    ///
    /// # Panics
    /// If `bytes` are fewer than `layout.bytes()`, which the validation of a bundle excludes.
    pub fn new(bytes: &'a [u8], layout: Layout) -> Planes<'a> {
        let part = |range: std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
        Planes {
            layout,
            vectors: layout.vectors(),
            chunks: layout.chunks(),
            high: part(layout.high()).as_chunks().0,
            low: part(layout.low()).as_chunks().0,
            scales: part(layout.scales()).as_chunks().0,
            records: part(layout.records()).as_chunks().0,
            scan_variants: [SCAN_VARIANTS[0]; 2],
        }
    }

    /// The same planes with another variant for [`scan_full`] if `full`, else for [`scan_high`]. Results do not change.
    pub fn with_scan_variant(mut self, full: bool, variant: ScanVariant) -> Planes<'a> {
        self.scan_variants[usize::from(full)] = variant;
        self
    }

    fn scan_variant(&self, full: bool) -> ScanVariant {
        self.scan_variants[usize::from(full)]
    }

    /// Shape and sizes.
    pub fn layout(&self) -> Layout {
        self.layout
    }
}

#[cfg(test)]
mod tests;
