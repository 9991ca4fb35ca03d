//! What the examples that measure have in common.

mod here;

pub use here::runs_here;
use std::time::{Duration, Instant};

/// Seconds of the best of the calls that begin within `time`.
pub fn best(time: Duration, mut call: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < time {
        let this = Instant::now();
        call();
        best = best.min(this.elapsed().as_secs_f64());
    }
    best
}
