//! The pool of threads that multiplies matrices.
//!
//! A child of `fork` has none of its parent's threads, so the pool belongs to a process id and is made again in a child.

use crate::errors::TritError;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// The pool, and whose threads it has.
struct Pool {
    process: u32,
    threads: Option<usize>,
    pool: Option<Arc<ThreadPool>>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { process: 0, threads: None, pool: None });

impl Pool {
    /// Forgets a pool whose threads stayed in the parent. It is leaked, because dropping it would wait for them.
    fn of_this_process(&mut self) {
        let process = std::process::id();
        if mem::replace(&mut self.process, process) != process {
            mem::forget(self.pool.take());
        }
    }
}

/// The pool of this process. Whoever asks holds the interpreter's lock, as whoever forks does, so that no child finds the
/// mutex locked by a thread that it does not have.
pub fn pool(_py: Python<'_>) -> PyResult<Arc<ThreadPool>> {
    let mut held = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    held.of_this_process();
    if let Some(pool) = &held.pool {
        return Ok(pool.clone());
    }
    let builder = ThreadPoolBuilder::new().num_threads(held.threads.unwrap_or_else(available));
    let pool = builder.thread_name(|index| format!("trit-{index}")).build();
    let pool = Arc::new(pool.map_err(|e| TritError::new_err(format!("threads cannot be started: {e}")))?);
    held.pool = Some(pool.clone());
    Ok(pool)
}

/// As many threads as the system grants this process.
fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` on the pool, without the interpreter's lock.
pub fn on_pool<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let pool = pool(py)?;
    Ok(py.detach(|| pool.install(work)))
}

/// Sets how many threads multiply matrices, from the next product on. Models have threads of their own.
///
/// Raises ValueError for 0 and for more threads than 4096.
#[pyfunction]
#[pyo3(signature = (threads, /))]
pub fn set_num_threads(threads: usize) -> PyResult<()> {
    if !(1..=4096).contains(&threads) {
        return Err(PyValueError::new_err(format!("threads is {threads}; 1 to 4096 are possible")));
    }
    let mut held = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    held.of_this_process();
    if held.threads != Some(threads) {
        held.threads = Some(threads);
        held.pool = None;
    }
    Ok(())
}

/// How many threads multiply matrices.
#[pyfunction]
pub fn get_num_threads() -> usize {
    POOL.lock().unwrap_or_else(PoisonError::into_inner).threads.unwrap_or_else(available)
}
