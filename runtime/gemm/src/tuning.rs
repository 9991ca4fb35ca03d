//! Finds the fastest of several variants that give the same results, by timing them on the weights themselves.

use crate::call::Call;
use crate::kernels::Variants;
use crate::{AlignedMemory, GemmError, Layout};
use std::time::{Duration, Instant};
use trit_format::tile;

/// Weight bytes that each variant is timed on in each round. They are more than private caches hold, and other bytes
/// each time, so that shared caches do not hold them either.
pub const BYTES: usize = 24 << 20;
/// Number of rounds, of which the median counts. The best of a few rounds would be luck more than merit.
pub const ROUNDS: usize = 11;
/// Tiles in one call, as in decode.
const TILES: usize = 16;

/// The weights of a matrix in the pieces that a kernel goes over.
#[derive(Clone, Copy)]
pub struct Stream<'a> {
    weights: &'a [u8],
    /// Bytes from one run of codes to the next. Scales of groups lie between runs.
    run: usize,
    /// Bytes of a run's codes; below, bytes of the least that a kernel takes.
    codes: usize,
    group: usize,
}

impl<'a> Stream<'a> {
    /// All tiles of a matrix.
    ///
    /// # Errors
    /// [`GemmError::Length`] where `weights` is no whole tiles.
    pub fn of(layout: &Layout, weights: &'a [u8]) -> Result<Stream<'a>, GemmError> {
        if weights.is_empty() || !weights.len().is_multiple_of(layout.tile_bytes) {
            let expected = weights.len().next_multiple_of(layout.tile_bytes).max(layout.tile_bytes);
            return Err(GemmError::Length {
                what: "weights, in bytes of whole tiles",
                expected,
                found: weights.len(),
            });
        }
        let (run, codes) = match layout.groups {
            None => (weights.len(), weights.len()),
            Some(_) => (layout.tile_bytes, layout.code_bytes),
        };
        Ok(Stream { weights, run, codes, group: layout.group_bytes })
    }

    /// Bytes of its codes and scales.
    pub fn bytes(&self) -> usize {
        self.weights.len()
    }

    /// All weights in pieces for one call each, of up to [`TILES`] tiles or groups.
    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + Clone {
        let Stream { weights, run, codes, group } = *self;
        weights.chunks_exact(run).flat_map(move |run| run[..codes].chunks(TILES * group))
    }
}

/// Times variants of a kernel.
pub struct Timer<'a> {
    variants: &'a Variants,
    activations: AlignedMemory,
    pieces: Box<dyn Iterator<Item = &'a [u8]> + 'a>,
}

impl<'a> Timer<'a> {
    /// A timer on weights of the variants' shape.
    ///
    /// # Errors
    /// [`GemmError::Length`] where streams hold something else, [`GemmError::Alignment`] where weights are not at a
    /// multiple of 64 bytes, [`GemmError::Memory`] where memory is refused.
    pub fn new(variants: &'a Variants, streams: &'a [Stream<'a>]) -> Result<Timer<'a>, GemmError> {
        let columns = variants.kernels.first().map_or(0, |kernel| kernel.spec.k as usize);
        for stream in streams {
            if stream.group != tile::bytes(columns) {
                let (expected, found) = (tile::bytes(columns), stream.group);
                return Err(GemmError::Length { what: "tiles of weights, in bytes,", expected, found });
            }
            if !stream.weights.as_ptr().addr().is_multiple_of(64) {
                return Err(GemmError::Alignment { what: "weights", bytes: 64 });
            }
        }
        // The values of activations do not change the time.
        let mut activations = AlignedMemory::new(1, tile::padded_k(columns), "activations")?;
        activations.bytes_mut().fill(3);
        let pieces = Box::new(streams.iter().flat_map(Stream::pieces).cycle());
        Ok(Timer { variants, activations, pieces })
    }

    /// Time that variant `index` takes for the next [`BYTES`] bytes; zero if there is no such variant.
    pub fn time(&mut self, index: usize) -> Duration {
        let Some(kernel) = self.variants.kernels.get(index) else { return Duration::ZERO };
        let mut out = [0; TILES * tile::MAX_ROWS];
        let mut left = BYTES;
        let start = Instant::now();
        while let (1.., Some(weights)) = (left, self.pieces.next()) {
            let call = Call {
                shape: kernel.shape(),
                weights,
                activations: self.activations.signed(),
                activation_stride: 0,
                advances: false,
                sums: &[0],
                sum_stride: 0,
                rows: 1,
            };
            call.code(kernel, &mut [], &mut out);
            left = left.saturating_sub(weights.len());
        }
        start.elapsed()
    }
}

/// The index of the fastest of `count` variants, by the median of up to [`ROUNDS`] rounds, and the time that was spent.
/// `time(i)` runs variant `i` and returns how long it took. After the first round, no round begins once `budget` is
/// spent.
pub fn fastest(count: usize, budget: Duration, mut time: impl FnMut(usize) -> Duration) -> (usize, Duration) {
    let (mut times, mut spent) = (vec![Vec::new(); count], Duration::ZERO);
    // All variants run in each round, so that other load disturbs all of them alike.
    for _ in 0..ROUNDS {
        for (i, times) in times.iter_mut().enumerate() {
            let time = time(i);
            spent += time;
            times.push(time);
        }
        if spent >= budget {
            break;
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    let fastest = (0..count).min_by_key(|&i| times[i][times[i].len() / 2]).unwrap_or(0);
    (fastest, spent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_by_the_median_is_taken_within_the_budget() {
        let mut calls = 0;
        let mut time = |i: usize| {
            calls += 1;
            // The first variant is fast only once, by luck.
            Duration::from_millis(if calls == 1 { 1 } else { [30, 20, 40][i] })
        };
        assert_eq!(fastest(3, Duration::MAX, &mut time).0, 1);
        assert_eq!(calls, 3 * ROUNDS);
        let mut calls = 0;
        let slow = |_| {
            calls += 1;
            Duration::from_secs(1)
        };
        assert_eq!(fastest(2, Duration::from_millis(1), slow), (0, Duration::from_secs(2)));
        assert_eq!(calls, 2);
        assert_eq!(fastest(0, Duration::ZERO, |_| Duration::ZERO), (0, Duration::ZERO));
    }
}
