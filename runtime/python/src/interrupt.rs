//! Long work that Ctrl-C ends.
//!
//! Python's signal handlers run on the main thread, when it asks for them. So work that takes long runs on another thread,
//! and the thread that called waits for it and asks ([`POLL`]). No panic of the work reaches Python as one: it becomes a
//! [`TritError`] that asks for a report.

use crate::errors::TritError;
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a wait lasts between two looks at signals.
pub const POLL: Duration = Duration::from_millis(50);

/// What another thread sends, received without the interpreter's lock.
pub struct Inbox<T>(Mutex<Receiver<T>>);

impl<T: Send> Inbox<T> {
    /// An inbox and what sends to it.
    pub fn new() -> (Sender<T>, Inbox<T>) {
        let (send, receive) = channel();
        (send, Inbox(Mutex::new(receive)))
    }

    /// What came, or comes within [`POLL`].
    ///
    /// # Errors
    /// Where nothing came, or nobody can send any more.
    pub fn wait(&self, py: Python<'_>) -> Result<T, RecvTimeoutError> {
        py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(POLL))
    }

    /// What came already.
    pub fn ready(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }
}

/// The exception of a panic, which is a defect.
pub fn defect(panic: &(dyn std::any::Any + Send)) -> PyErr {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    TritError::new_err(format!("internal error: {words}; please report this"))
}

/// The exception of a thread that the system does not start.
fn refused(error: &std::io::Error) -> PyErr {
    TritError::new_err(format!("a thread cannot be started: {error}"))
}

/// Runs work that takes no longer than a step, without the interpreter's lock.
pub fn brief<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work))).map_err(|panic| defect(&*panic))
}

/// Runs `work` without the interpreter's lock. A signal whose handler raises sets the flag; the exception is raised when the
/// work has ended, which must be soon then.
pub fn stoppable<T: Send>(py: Python<'_>, work: impl FnOnce(&Arc<AtomicBool>) -> T + Send) -> PyResult<T> {
    let stop = Arc::<AtomicBool>::default();
    let (stop, mut signalled) = (&stop, None);
    let ended = std::thread::scope(|scope| {
        let (done, waits) = Inbox::<()>::new();
        let worker = std::thread::Builder::new().name("trit-work".into()).spawn_scoped(scope, move || {
            // Dropped when the work ends, however it does.
            let _done = done;
            work(stop)
        });
        let worker = worker.map_err(|error| refused(&error))?;
        while let Err(RecvTimeoutError::Timeout) = waits.wait(py) {
            if let Err(error) = py.check_signals() {
                stop.store(true, Relaxed);
                signalled.get_or_insert(error);
            }
        }
        py.detach(|| worker.join()).map_err(|panic| defect(&*panic))
    })?;
    match signalled {
        Some(error) => Err(error),
        None => {
            py.check_signals()?;
            Ok(ended)
        }
    }
}

/// As [`stoppable`], for work that cannot always end soon: a signal's exception is raised at once, and what the work
/// gives is dropped when it ends. `each` is called between two looks at signals; its error ends the wait like a signal.
pub fn abandonable<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&Arc<AtomicBool>) -> T + Send + 'static,
    mut each: impl FnMut(Python<'_>) -> PyResult<()>,
) -> PyResult<T> {
    let stop = Arc::<AtomicBool>::default();
    let (send, result) = Inbox::new();
    let flag = stop.clone();
    let run = move || {
        let ended = catch_unwind(AssertUnwindSafe(|| work(&flag)));
        // Nobody may wait any more.
        let _ = send.send(ended);
    };
    let started = std::thread::Builder::new().name("trit-work".into()).spawn(run);
    started.map_err(|error| refused(&error))?;
    loop {
        let ended = result.wait(py);
        let looked = py.check_signals().and_then(|()| each(py));
        if let Err(error) = looked {
            stop.store(true, Relaxed);
            return Err(error);
        }
        match ended {
            Ok(Ok(ended)) => return Ok(ended),
            Ok(Err(panic)) => return Err(defect(&*panic)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(TritError::new_err(
                    "internal error: work ended without a result; please report this",
                ));
            }
        }
    }
}
