//! How fast this machine's memory can be read: the yardstick for everything that streams weights.
//!
//! Loads as wide as the CPU has them, from huge pages like the weights', each thread a contiguous part; who is done early
//! takes over from the others, as in decode, or what is compared with would win by balance alone.
//!
//! A loop of nothing but loads is not the best: it fills the queues of the first cache with misses and outruns the
//! prefetchers. One with a dozen idle operations a cache line, and a prefetch, was found to read up to a third more. So
//! several ways are tried, and the best counts.
#![allow(unsafe_code)]

use crate::RuntimeError;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use trit_gemm::AlignedMemory;

/// How to go about it.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Idle operations beside the loads: [`PACE`] times two for each cache line.
    paced: bool,
    /// Bytes ahead of a load that are prefetched; 0: none.
    ahead: usize,
}

/// The ways that are tried.
const WAYS: [Way; 6] = [
    Way { paced: false, ahead: 0 },
    Way { paced: false, ahead: 8 << 10 },
    Way { paced: true, ahead: 0 },
    Way { paced: true, ahead: 4 << 10 },
    Way { paced: true, ahead: 8 << 10 },
    Way { paced: true, ahead: 12 << 10 },
];
/// Pairs of operations for each cache line: more and computation becomes the limit, fewer and reading is slower again.
const PACE: usize = 6;
/// Bytes a thread's part is a multiple of.
const BLOCK: usize = 1 << 10;
/// Blocks read between two looks at who is done: a tenth of a millisecond's.
const PIECE: usize = 1 << 11;
/// Bytes of a cache line, on most CPUs: what one prefetch asks for.
const LINE: usize = 64;
/// Bytes that one thread writes at a time before anything is measured.
const PART: usize = 2 << 20;
/// Spins before a waiting thread lets others run, since there may be more threads than cores.
const SPINS: usize = 10_000;

/// Memory to read, in huge pages where the system has them.
pub struct StreamBuffer {
    memory: AlignedMemory,
}

impl StreamBuffer {
    /// At least `bytes` bytes, written once so that they are there.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused.
    pub fn new(bytes: usize) -> Result<StreamBuffer, RuntimeError> {
        use rayon::prelude::*;
        let mut memory =
            AlignedMemory::huge(bytes.div_ceil(BLOCK).max(1), BLOCK, "measuring the bandwidth of memory")?;
        let parts = memory.bytes_mut().par_chunks_mut(PART).enumerate();
        // Not all alike: pages of the same content may be merged.
        parts.for_each(|(i, part)| part.fill(i as u8 | 1));
        Ok(StreamBuffer { memory })
    }

    /// Bytes that are read.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    fn blocks(&self) -> &[[u8; BLOCK]] {
        self.memory.bytes().as_chunks().0
    }

    /// GB/s (1e9 bytes) of reading it all with `threads` threads: the median of `repetitions`, both at least 1, for the best
    /// way.
    pub fn gb_s(&self, threads: usize, repetitions: usize) -> f64 {
        let threads = threads.max(1);
        let mut times = vec![Vec::new(); WAYS.len()];
        // In turns, so that what disturbs disturbs all alike.
        for (i, time) in self.times(threads, WAYS.len() * repetitions.max(1)).into_iter().enumerate() {
            times[i % WAYS.len()].push(time);
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            let half = times.len() / 2;
            if times.len() % 2 == 1 { times[half] } else { (times[half - 1] + times[half]) / 2 }
        };
        let best = times.iter_mut().map(median).min().unwrap_or_default();
        self.bytes() as f64 / 1e9 / best.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Times of `rounds` readings, from the first thread's start to the last one's end; [`WAYS`] in turn.
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
                let way = WAYS[r % WAYS.len()];
                // Together, and without waking anyone, which would be measured too.
                arrived.fetch_add(1, Ordering::AcqRel);
                let mut spins = 0;
                while arrived.load(Ordering::Acquire) < (r + 1) * threads {
                    spins += 1;
                    if spins % SPINS == 0 { std::thread::yield_now() } else { spin_loop() }
                }
                let start = Instant::now();
                // One's own part first, then the next one's.
                for owner in (index..threads).chain(0..index) {
                    let blocks = &all[part(owner)];
                    while let Some(piece) = round.taken[owner].take(blocks) {
                        black_box(reader.read(black_box(piece), way));
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
    /// By thread, of its part.
    taken: Vec<Taken>,
    /// From when to when.
    span: Mutex<Option<(Instant, Instant)>>,
}

/// How many blocks of a part were taken, on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Taken(AtomicUsize);

impl Taken {
    /// The next blocks that nobody has taken.
    fn take<'a>(&self, part: &'a [[u8; BLOCK]]) -> Option<&'a [[u8; BLOCK]]> {
        // Without this look, threads that are done would go on counting.
        if self.0.load(Ordering::Relaxed) >= part.len() {
            return None;
        }
        let from = self.0.fetch_add(PIECE, Ordering::Relaxed);
        (from < part.len()).then(|| &part[from..(from + PIECE).min(part.len())])
    }
}

/// The widest loads there are. A value exists only where the CPU has them.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// 64-bit words, which compilers make vectors of.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Reader {
    /// Those this CPU can run, the widest last.
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

    /// The exclusive or of all 64-bit words, so that each must be read.
    fn read(self, blocks: &[[u8; BLOCK]], way: Way) -> u64 {
        match self {
            Reader::Portable => portable(blocks),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `supported` found the feature.
            Reader::Avx2 => unsafe {
                if way.paced { avx2::<true>(blocks, way) } else { avx2::<false>(blocks, way) }
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Reader::Avx512 => unsafe {
                if way.paced { avx512::<true>(blocks, way) } else { avx512::<false>(blocks, way) }
            },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Reader::Neon => unsafe {
                if way.paced { neon::<true>(blocks, way) } else { neon::<false>(blocks, way) }
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
        pub(super) fn $name<const PACED: bool>(blocks: &[[u8; BLOCK]], way: Way) -> u64 {
            const BYTES: usize = size_of::<$vector>();
            // SAFETY: every bit pattern is such a vector.
            let zero = unsafe { std::mem::zeroed::<$vector>() };
            // Changes nothing, but the compiler does not know.
            let nothing = std::hint::black_box(zero);
            let mut found = [zero; 8];
            for chunk in blocks.as_flattened().as_chunks::<{ 8 * BYTES }>().0 {
                let at = chunk.as_ptr();
                for (i, found) in found.iter_mut().enumerate() {
                    if i * BYTES % LINE == 0 && way.ahead > 0 {
                        prefetch(at.wrapping_add(way.ahead + i * BYTES));
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
    use super::{BLOCK, LINE, PACE, Way};
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
    use super::{BLOCK, LINE, PACE, Way};
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
        let mut buffer = StreamBuffer::new(37 * BLOCK - 5).unwrap();
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
                for way in WAYS {
                    assert_eq!(reader.read(blocks, way), expected, "{reader:?} {way:?}");
                }
            }
        }
    }

    #[test]
    fn bandwidth_is_measured_with_more_threads_than_blocks() {
        let buffer = StreamBuffer::new(4 * BLOCK).unwrap();
        for threads in [1, 3, 9] {
            assert_eq!(buffer.times(threads, 5).len(), 5);
            assert!(buffer.gb_s(threads, 2) > 0.0);
        }
    }

    #[test]
    fn each_block_is_taken_once() {
        let buffer = StreamBuffer::new((2 * PIECE + 7) * BLOCK).unwrap();
        let taken = Taken::default();
        let pieces: Vec<usize> = std::iter::from_fn(|| taken.take(buffer.blocks())).map(<[_]>::len).collect();
        assert_eq!(pieces, [PIECE, PIECE, 7]);
        assert!(Taken::default().take(&[]).is_none());
    }

    #[test]
    fn memory_that_is_not_there_is_refused() {
        assert!(StreamBuffer::new(usize::MAX).is_err());
        assert!(StreamBuffer::new(usize::MAX / 2).is_err());
    }
}
