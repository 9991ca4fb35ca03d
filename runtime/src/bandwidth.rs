//! Measures how fast this machine's memory can be read. Decoding reads all weights for every token, so that this is the
//! speed to compare it with.
//!
//! The measurement reads as decoding does: with the widest loads of the CPU, from huge pages, each thread a contiguous
//! part. A thread that finishes early takes over from the others, as in decoding; otherwise decoding would look better
//! only because its work is balanced.
//!
//! A loop of nothing but loads is not the fastest one: it fills the queues of the first-level cache with misses and
//! runs ahead of the prefetchers. A loop with a dozen idle operations for each cache line, and a prefetch, was found to
//! read up to a third more. Therefore several patterns are tried, and the fastest counts.
#![allow(unsafe_code)]

use crate::RuntimeError;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use trit_gemm::AlignedMemory;

/// How memory is read.
#[derive(Clone, Copy, Debug)]
struct ReadPattern {
    /// Whether there are idle operations beside the loads: two times [`PACE`] for each cache line.
    paced: bool,
    /// How many bytes ahead of a load are prefetched; 0 for no prefetch.
    ahead: usize,
}

/// The patterns that are tried.
const PATTERNS: [ReadPattern; 6] = [
    ReadPattern { paced: false, ahead: 0 },
    ReadPattern { paced: false, ahead: 8 << 10 },
    ReadPattern { paced: true, ahead: 0 },
    ReadPattern { paced: true, ahead: 4 << 10 },
    ReadPattern { paced: true, ahead: 8 << 10 },
    ReadPattern { paced: true, ahead: 12 << 10 },
];
/// Pairs of idle operations for each cache line. With more of them computation becomes the limit; with fewer, reading
/// is slower again.
const PACE: usize = 6;
/// A thread's part is a multiple of this many bytes.
const BLOCK: usize = 1 << 10;
/// Blocks that a thread takes at a time: enough for a tenth of a millisecond.
const PIECE: usize = 1 << 11;
/// Bytes of a cache line on most CPUs, which is what one prefetch asks for.
const LINE: usize = 64;
/// Bytes that one thread writes at a time before anything is measured.
const PART: usize = 2 << 20;
/// Spins before a waiting thread lets others run, since there may be more threads than cores.
const SPINS: usize = 10_000;

/// Memory to read, in huge pages where the system has them.
pub struct ReadBuffer {
    memory: AlignedMemory,
}

impl ReadBuffer {
    /// Memory of at least `bytes` bytes. It is written once, so that the system really provides it.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused.
    pub fn new(bytes: usize) -> Result<ReadBuffer, RuntimeError> {
        use rayon::prelude::*;
        let mut memory =
            AlignedMemory::huge(bytes.div_ceil(BLOCK).max(1), BLOCK, "measuring the bandwidth of memory")?;
        let parts = memory.bytes_mut().par_chunks_mut(PART).enumerate();
        // The parts differ, because the system may merge pages with the same content.
        parts.for_each(|(i, part)| part.fill(i as u8 | 1));
        Ok(ReadBuffer { memory })
    }

    /// How many bytes are read.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    fn blocks(&self) -> &[[u8; BLOCK]] {
        self.memory.bytes().as_chunks().0
    }

    /// GB/s (1e9 bytes) when `threads` threads read everything: the median of `repetitions` readings with the fastest
    /// pattern. Both numbers count as at least 1.
    pub fn gb_s(&self, threads: usize, repetitions: usize) -> f64 {
        let threads = threads.max(1);
        let mut times = vec![Vec::new(); PATTERNS.len()];
        // The patterns take turns, so that other programs disturb all of them alike.
        for (i, time) in self.times(threads, PATTERNS.len() * repetitions.max(1)).into_iter().enumerate() {
            times[i % PATTERNS.len()].push(time);
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            let half = times.len() / 2;
            if times.len() % 2 == 1 { times[half] } else { (times[half - 1] + times[half]) / 2 }
        };
        let best = times.iter_mut().map(median).min().unwrap_or_default();
        self.bytes() as f64 / 1e9 / best.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The times of `rounds` readings, each from the first thread's start to the last thread's end. The [`PATTERNS`]
    /// take turns.
    fn times(&self, threads: usize, rounds: usize) -> Vec<Duration> {
        let reader = Reader::best();
        let all = self.blocks();
        let part = |index| all.len() * index / threads..all.len() * (index + 1) / threads;
        let new_round =
            || Round { taken: (0..threads).map(|_| Taken::default()).collect(), span: Mutex::new(None) };
        let rounds: Vec<Round> = (0..rounds).map(|_| new_round()).collect();
        let arrived = AtomicUsize::new(0);
        let work = |index: usize| {
            for (r, round) in rounds.iter().enumerate() {
                let pattern = PATTERNS[r % PATTERNS.len()];
                // All threads start together. They spin instead of sleeping, because waking them would be measured too.
                arrived.fetch_add(1, Ordering::AcqRel);
                let mut spins = 0;
                while arrived.load(Ordering::Acquire) < (r + 1) * threads {
                    spins += 1;
                    if spins % SPINS == 0 { std::thread::yield_now() } else { spin_loop() }
                }
                let start = Instant::now();
                // A thread reads its own part first, then what is left of the others'.
                for owner in (index..threads).chain(0..index) {
                    let blocks = &all[part(owner)];
                    while let Some(piece) = round.taken[owner].take(blocks) {
                        black_box(reader.read(black_box(piece), pattern));
                    }
                }
                let end = Instant::now();
                let mut span = round.span.lock().unwrap_or_else(PoisonError::into_inner);
                *span = Some(span.map_or((start, end), |(s, e)| (s.min(start), e.max(end))));
            }
        };
        std::thread::scope(|scope| {
            for index in 0..threads {
                let work = &work;
                scope.spawn(move || work(index));
            }
        });
        let span = |round: Round| round.span.into_inner().unwrap_or_else(PoisonError::into_inner);
        rounds.into_iter().filter_map(span).map(|(start, end)| end - start).collect()
    }
}

/// One reading of everything.
struct Round {
    /// For each thread, how much of its part was taken.
    taken: Vec<Taken>,
    /// When the first thread started, and when the last one ended.
    span: Mutex<Option<(Instant, Instant)>>,
}

/// How many blocks of a part were taken. It has a cache line of its own, so that threads do not slow each other down.
#[derive(Default)]
#[repr(align(128))]
struct Taken(AtomicUsize);

impl Taken {
    /// The next blocks that nobody has taken.
    fn take<'a>(&self, part: &'a [[u8; BLOCK]]) -> Option<&'a [[u8; BLOCK]]> {
        // Without this check, the counter would grow each time a finished thread asks again.
        if self.0.load(Ordering::Relaxed) >= part.len() {
            return None;
        }
        let from = self.0.fetch_add(PIECE, Ordering::Relaxed);
        (from < part.len()).then(|| &part[from..(from + PIECE).min(part.len())])
    }
}

/// How wide the loads are. A value exists only where the CPU has such loads.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// Loads of 64-bit words, which the compiler turns into vectors.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Reader {
    /// The readers that this CPU can run, the widest last.
    fn supported() -> Vec<Reader> {
        let mut readers = vec![Reader::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            readers.extend(is_x86_feature_detected!("avx2").then_some(Reader::Avx2));
            readers.extend(is_x86_feature_detected!("avx512f").then_some(Reader::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        readers.extend(std::arch::is_aarch64_feature_detected!("neon").then_some(Reader::Neon));
        readers
    }

    fn best() -> Reader {
        Reader::supported().pop().unwrap_or(Reader::Portable)
    }

    /// The exclusive or of all 64-bit words. It depends on every word, so that the compiler cannot leave out a load.
    fn read(self, blocks: &[[u8; BLOCK]], pattern: ReadPattern) -> u64 {
        match self {
            Reader::Portable => portable(blocks),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `supported` found the feature.
            Reader::Avx2 => unsafe {
                if pattern.paced { avx2::<true>(blocks, pattern) } else { avx2::<false>(blocks, pattern) }
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Reader::Avx512 => unsafe {
                if pattern.paced { avx512::<true>(blocks, pattern) } else { avx512::<false>(blocks, pattern) }
            },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Reader::Neon => unsafe {
                if pattern.paced { neon::<true>(blocks, pattern) } else { neon::<false>(blocks, pattern) }
            },
        }
    }
}

/// Eight words at a time, so that none waits for the one before it.
fn portable(blocks: &[[u8; BLOCK]]) -> u64 {
    let mut found = [0u64; 8];
    for chunk in blocks.as_flattened().as_chunks::<64>().0 {
        for (found, word) in found.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *found ^= u64::from_ne_bytes(*word);
        }
    }
    found.into_iter().fold(0, |a, b| a ^ b)
}

/// Defines a reader of vectors: eight of them at a time, so that none waits for the one before it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! reader {
    ($name:ident, $feature:literal, $vector:ty, $load:expr, $xor:expr, $add:expr) => {
        #[target_feature(enable = $feature)]
        pub(super) fn $name<const PACED: bool>(blocks: &[[u8; BLOCK]], pattern: ReadPattern) -> u64 {
            const BYTES: usize = size_of::<$vector>();
            // SAFETY: every bit pattern is such a vector.
            let zero = unsafe { std::mem::zeroed::<$vector>() };
            // Adding it changes nothing, but the compiler does not know that.
            let nothing = std::hint::black_box(zero);
            let mut found = [zero; 8];
            for chunk in blocks.as_flattened().as_chunks::<{ 8 * BYTES }>().0 {
                let at = chunk.as_ptr();
                for (i, found) in found.iter_mut().enumerate() {
                    if i * BYTES % LINE == 0 && pattern.ahead > 0 {
                        prefetch(at.wrapping_add(pattern.ahead + i * BYTES));
                    }
                    // SAFETY: vector `i` lies inside the chunk; the load asks for no alignment.
                    let mut vector = unsafe { $load(at.add(i * BYTES).cast()) };
                    if PACED {
                        for _ in 0..(PACE * BYTES).div_ceil(LINE) {
                            vector = $xor($add(vector, nothing), nothing);
                        }
                    }
                    *found = $xor(*found, vector);
                }
            }
            // SAFETY: vectors are 64-bit words without padding.
            let words: [u64; BYTES] = unsafe { std::mem::transmute(found) };
            words.into_iter().fold(0, |a, b| a ^ b)
        }
    };
}

#[cfg(target_arch = "x86_64")]
use x86::{avx2, avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCK, LINE, PACE, ReadPattern};
    use std::arch::x86_64::*;

    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: every x86-64 CPU has it, and it may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    reader!(avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_xor_si256, _mm256_add_epi64);
    reader!(avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_xor_si512, _mm512_add_epi64);
}

#[cfg(target_arch = "aarch64")]
use arm::neon;

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{BLOCK, LINE, PACE, ReadPattern};
    use std::arch::aarch64::*;

    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a hint, which may name any address.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly))
        }
    }

    reader!(neon, "neon", uint64x2_t, vld1q_u64, veorq_u64, vaddq_u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_reads_everything() {
        eprintln!("readers on this CPU: {:?}", Reader::supported());
        let mut buffer = ReadBuffer::new(37 * BLOCK - 5).unwrap();
        assert_eq!(buffer.bytes(), 37 * BLOCK);
        let mut state = 1u64;
        buffer.memory.bytes_mut().iter_mut().for_each(|byte| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (state >> 56) as u8;
        });
        for blocks in [buffer.blocks(), &buffer.blocks()[3..8], &[]] {
            let words =
                blocks.as_flattened().chunks_exact(8).map(|w| u64::from_ne_bytes(w.try_into().unwrap()));
            let expected = words.fold(0, |a, b| a ^ b);
            for reader in Reader::supported() {
                for pattern in PATTERNS {
                    assert_eq!(reader.read(blocks, pattern), expected, "{reader:?} {pattern:?}");
                }
            }
        }
    }

    #[test]
    fn bandwidth_is_measured_with_more_threads_than_blocks() {
        let buffer = ReadBuffer::new(4 * BLOCK).unwrap();
        for threads in [1, 3, 9] {
            assert_eq!(buffer.times(threads, 5).len(), 5);
            assert!(buffer.gb_s(threads, 2) > 0.0);
        }
    }

    #[test]
    fn each_block_is_taken_once() {
        let buffer = ReadBuffer::new((2 * PIECE + 7) * BLOCK).unwrap();
        let taken = Taken::default();
        let pieces: Vec<usize> = std::iter::from_fn(|| taken.take(buffer.blocks())).map(<[_]>::len).collect();
        assert_eq!(pieces, [PIECE, PIECE, 7]);
        assert!(Taken::default().take(&[]).is_none());
    }

    #[test]
    fn memory_that_is_not_there_is_refused() {
        assert!(ReadBuffer::new(usize::MAX).is_err());
        assert!(ReadBuffer::new(usize::MAX / 2).is_err());
    }
}
