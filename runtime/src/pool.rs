//! One parallel region a token: every worker runs the same straight line of steps and meets the others at barriers.

use crate::RuntimeError;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Turns a waiting worker spins before it parks: a few tens of microseconds, longer than a step's imbalance and
/// far shorter than a time slice, so that more threads than cores cost little.
const SPINS: u32 = 4_000;

/// A fixed number of threads.
pub(crate) struct Pool {
    threads: Option<rayon::ThreadPool>,
    count: usize,
}

impl Pool {
    /// A pool of `count` workers; one worker runs on the calling thread.
    pub fn new(count: usize) -> Result<Pool, RuntimeError> {
        let threads = match count {
            0 => return Err(RuntimeError::Input("0 threads cannot run anything".into())),
            1 => None,
            _ => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(count)
                    .thread_name(|i| format!("trit-{i}"))
                    .build()
                    .map_err(|e| RuntimeError::System(format!("cannot start {count} threads: {e}")))?,
            ),
        };
        Ok(Pool { threads, count })
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Runs `work` once on every worker and returns when all are done.
    pub fn run(&self, work: impl Fn(&Worker) + Sync) {
        let barrier = Barrier::new(self.count);
        let run = |index| {
            // A worker that panics must not leave the others waiting for it.
            let guard = PoisonOnUnwind(&barrier);
            work(&Worker { index, count: self.count, barrier: &barrier });
            std::mem::forget(guard);
        };
        match &self.threads {
            None => run(0),
            Some(threads) => {
                threads.broadcast(|context| run(context.index()));
            }
        }
    }
}

/// One participant in a parallel region.
pub(crate) struct Worker<'a> {
    /// Which worker, in `0..count`.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    barrier: &'a Barrier,
}

impl Worker<'_> {
    /// This worker's contiguous share of `units` units.
    pub fn share(&self, units: usize) -> Range<usize> {
        units * self.index / self.count..units * (self.index + 1) / self.count
    }

    /// Waits until every worker is here; what any wrote before, all see after.
    pub fn wait(&self) {
        self.barrier.wait();
    }
}

struct Barrier {
    count: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    poisoned: AtomicBool,
    parked: Mutex<()>,
    wake: Condvar,
}

impl Barrier {
    fn new(count: usize) -> Barrier {
        Barrier {
            count,
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
            parked: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    fn wait(&self) {
        if self.count == 1 {
            return;
        }
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            self.arrived.store(0, Ordering::Relaxed);
            // Changed under the lock, so that no worker parks between its check and this change.
            let lock = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
            self.generation.store(generation.wrapping_add(1), Ordering::Release);
            drop(lock);
            self.wake.notify_all();
        } else {
            let passed = || {
                assert!(!self.poisoned.load(Ordering::Relaxed), "another worker failed");
                self.generation.load(Ordering::Acquire) != generation
            };
            for _ in 0..SPINS {
                if passed() {
                    return;
                }
                std::hint::spin_loop();
            }
            let mut lock = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
            while !passed() {
                lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

struct PoisonOnUnwind<'a>(&'a Barrier);

impl Drop for PoisonOnUnwind<'_> {
    fn drop(&mut self) {
        let lock = self.0.parked.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.poisoned.store(true, Ordering::Relaxed);
        drop(lock);
        self.0.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_see_what_others_wrote_before_the_barrier() {
        for count in [1, 2, 5] {
            let pool = Pool::new(count).unwrap();
            let cells: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            pool.run(|worker| {
                for round in 1..500 {
                    cells[worker.index].store(round, Ordering::Relaxed);
                    worker.wait();
                    assert!(cells.iter().all(|c| c.load(Ordering::Relaxed) == round));
                    worker.wait();
                }
            });
        }
    }

    #[test]
    fn shares_cover_all_units_once() {
        let pool = Pool::new(3).unwrap();
        let seen: Vec<AtomicUsize> = (0..10).map(|_| AtomicUsize::new(0)).collect();
        pool.run(|worker| {
            worker.share(10).for_each(|u| {
                seen[u].fetch_add(1, Ordering::Relaxed);
            })
        });
        assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_worker_that_panics_releases_the_others() {
        let pool = Pool::new(2).unwrap();
        let run = || {
            pool.run(|worker| {
                assert!(worker.index != 0, "deliberate");
                worker.wait();
            });
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
}
