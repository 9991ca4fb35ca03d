//! Selects the rows that can be among the k largest.

use crate::isa::{Isa, Tier, dispatch};

/// Largest `k` of a [`TopLower`]. For a larger `k` the whole product is hardly slower, and it needs no sorting.
pub const MAX_TOP: usize = 256;

/// Rows that are tested together, because mostly none of them matters.
const GROUP: usize = 64;

/// The `k` largest lower bounds seen so far. Those of several shares of rows can be merged into those of all rows.
#[derive(Clone, Debug)]
pub struct TopLower {
    k: usize,
    /// Largest first, at most `k`, no NaN.
    values: Vec<f32>,
}

impl TopLower {
    /// For the `k` largest, with none seen yet. Memory for [`MAX_TOP`] values is allocated here, and none later.
    ///
    /// # Panics
    /// If `k` is not in `1..=MAX_TOP`.
    pub fn new(k: usize) -> TopLower {
        let mut top = TopLower { k: 1, values: Vec::with_capacity(MAX_TOP) };
        top.reset(k);
        top
    }

    /// Forgets what was seen, and looks for the `k` largest from here on.
    ///
    /// # Panics
    /// As [`TopLower::new`].
    pub fn reset(&mut self, k: usize) {
        assert!((1..=MAX_TOP).contains(&k), "k is {k}, not in 1..={MAX_TOP}");
        self.k = k;
        self.values.clear();
    }

    /// Takes the lower bounds `approx[i] - bound[i]`. Those that are NaN do not count.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn take(&mut self, approx: &[f32], bound: &[f32]) {
        assert_eq!(approx.len(), bound.len());
        take(Tier::best(), self, approx, bound);
    }

    /// Takes the lower bounds that another has kept of other rows.
    pub fn merge(&mut self, other: &TopLower) {
        other.values.iter().for_each(|&value| self.insert(value));
    }

    /// The k-th largest lower bound, or minus infinity where fewer were seen. No row whose upper bound is below it can
    /// be among the k largest, however ties are broken.
    pub fn threshold(&self) -> f32 {
        if self.values.len() < self.k { f32::NEG_INFINITY } else { self.values[self.k - 1] }
    }

    #[inline]
    fn insert(&mut self, value: f32) {
        if value > self.threshold() {
            self.values.truncate(self.k - 1);
            let at = self.values.partition_point(|&v| v >= value);
            self.values.insert(at, value);
        }
    }
}

dispatch!(fn take(top: &mut TopLower, approx: &[f32], bound: &[f32]) = take_body);

#[inline(always)]
fn take_body<I: Isa>(_isa: I, top: &mut TopLower, approx: &[f32], bound: &[f32]) {
    for (approx, bound) in approx.chunks(GROUP).zip(bound.chunks(GROUP)) {
        let threshold = top.threshold();
        if approx.iter().zip(bound).fold(false, |any, (a, b)| any | (a - b > threshold)) {
            approx.iter().zip(bound).for_each(|(a, b)| top.insert(a - b));
        }
    }
}

/// Makes rows that do not belong to a set smaller than any other row: their approximations become minus infinity and their
/// bounds zero. Position `i` stands for row `first + i`, which belongs to the set where bit `row % 32` of word `row / 32`
/// of `set` is one; words that are missing are zero.
///
/// # Panics
/// If the slices differ in length, or `first` is no multiple of 32.
pub fn exclude_others(set: &[u32], first: usize, approx: &mut [f32], bound: &mut [f32]) {
    assert!(approx.len() == bound.len() && first.is_multiple_of(32));
    let words = set.get(first / 32..).unwrap_or_default().iter().copied().chain(std::iter::repeat(0));
    for (word, (approx, bound)) in words.zip(approx.chunks_mut(32).zip(bound.chunks_mut(32))) {
        if word == u32::MAX {
            continue;
        }
        for (bit, (approx, bound)) in approx.iter_mut().zip(bound).enumerate() {
            if word >> bit & 1 == 0 {
                (*approx, *bound) = (f32::NEG_INFINITY, 0.0);
            }
        }
    }
}

/// Appends to `shortlist` the rows `base + i` whose upper bound `approx[i] + bound[i]` is not below `threshold`. Upper
/// bounds that are NaN count as not below.
///
/// # Panics
/// If the slices differ in length.
pub fn extend_shortlist(threshold: f32, approx: &[f32], bound: &[f32], base: u32, shortlist: &mut Vec<u32>) {
    assert_eq!(approx.len(), bound.len());
    extend(Tier::best(), threshold, approx, bound, base, shortlist);
}

dispatch!(
    fn extend(threshold: f32, approx: &[f32], bound: &[f32], base: u32, shortlist: &mut Vec<u32>) = extend_body
);

#[inline(always)]
fn extend_body<I: Isa>(
    _isa: I,
    threshold: f32,
    approx: &[f32],
    bound: &[f32],
    base: u32,
    shortlist: &mut Vec<u32>,
) {
    // NaN compares as below nothing.
    let below = |a: f32, b: f32| a + b < threshold;
    for (g, (approx, bound)) in approx.chunks(GROUP).zip(bound.chunks(GROUP)).enumerate() {
        if !approx.iter().zip(bound).fold(true, |all, (a, b)| all & below(*a, *b)) {
            let first = base + (g * GROUP) as u32;
            let rows = (first..).zip(approx.iter().zip(bound));
            shortlist.extend(rows.filter(|(_, (a, b))| !below(**a, **b)).map(|(row, _)| row));
        }
    }
}

/// Removes from `shortlist` the rows whose upper bound `approx[i] + bound[i]` is below `threshold`; `i` is the position
/// in the list. The others keep their order. Upper bounds that are NaN count as not below.
///
/// # Panics
/// If `approx` or `bound` are not as long as `shortlist`.
pub fn narrow_shortlist(threshold: f32, approx: &[f32], bound: &[f32], shortlist: &mut Vec<u32>) {
    assert!(shortlist.len() == approx.len() && shortlist.len() == bound.len());
    let mut upper = approx.iter().zip(bound).map(|(a, b)| a + b);
    shortlist.retain(|_| !upper.next().is_some_and(|upper| upper < threshold));
}
