//! How many tokens the block that drafts tokens is asked for before a pass: as many as save most time, and none where
//! drafts save none.

use super::{AGAIN, MOST, NEW, mean};
use std::time::Duration;

/// What was measured, by the number of drafts.
pub(super) struct Lengths {
    /// Seconds of a pass with so many drafts, drafting included.
    times: [Option<f64>; MOST + 1],
    /// How often so many have been made.
    made: [usize; MOST + 1],
    /// How often a draft is right where those before it are.
    right: [f64; MOST],
    /// Passes since another number than the best was tried.
    since: usize,
}

impl Lengths {
    pub fn new() -> Lengths {
        Lengths { times: [None; MOST + 1], made: [0; MOST + 1], right: [0.5; MOST], since: 0 }
    }

    /// How many tokens to draft, at most `most`.
    pub fn next(&mut self, most: usize) -> usize {
        let most = most.min(MOST);
        // Each number is measured twice first, because what happens for the first time takes longer.
        let unknown = [1, 0, 2, 3].into_iter().filter(|&n| n <= most && self.made[n] < 2);
        if let Some(n) = unknown.min_by_key(|&n| self.made[n]) {
            return n;
        }
        let best = self.best(most);
        self.since += 1;
        if self.since < AGAIN {
            return best;
        }
        self.since = 0;
        // The neighbour that was made less often.
        let neighbours = [best.checked_sub(1), (best < most).then_some(best + 1)];
        neighbours.into_iter().flatten().min_by_key(|&n| self.made[n]).unwrap_or(best)
    }

    /// The number with most tokens a second.
    fn best(&self, most: usize) -> usize {
        let (mut tokens, mut likely) = (1.0, 1.0);
        let mut best = (0, f64::NEG_INFINITY);
        for n in 0..=most {
            if n > 0 {
                likely *= self.right[n - 1];
                tokens += likely;
            }
            let speed = self.times[n].map_or(f64::NEG_INFINITY, |time| tokens / time);
            if speed > best.1 {
                best = (n, speed);
            }
        }
        best.0
    }

    /// Learns from a pass with `drafted` drafts, of which the first `right` were right, that took `time`.
    pub fn learn(&mut self, drafted: usize, right: usize, time: Duration) {
        let (drafted, time) = (drafted.min(MOST), time.as_secs_f64());
        self.made[drafted] += 1;
        let known = &mut self.times[drafted];
        *known = match self.made[drafted] {
            2 => known.map(|first| first.min(time)),
            _ => mean(*known, time),
        };
        for (n, rate) in self.right.iter_mut().enumerate().take(drafted.min(right + 1)) {
            *rate += NEW * (f64::from(u8::from(n < right)) - *rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many drafts are made in 400 passes whose time is `time` of their number, where each draft is right up to
    /// number `right`.
    fn made(time: impl Fn(usize) -> u64, right: usize) -> [usize; MOST + 1] {
        let (mut lengths, mut made) = (Lengths::new(), [0; MOST + 1]);
        for _ in 0..400 {
            let n = lengths.next(MOST);
            made[n] += 1;
            lengths.learn(n, n.min(right), Duration::from_micros(time(n)));
        }
        made
    }

    #[test]
    fn as_many_are_drafted_as_save_most_time() {
        // All are right and cheap, the first two are, only the first is, none is.
        assert!(made(|n| 1000 + 100 * n as u64, 3)[3] > 360);
        assert!(made(|n| 1000 + 100 * n as u64, 2)[2] > 360);
        assert!(made(|n| 1000 + 100 * n as u64, 1)[1] > 360);
        assert!(made(|n| 1000 + 100 * n as u64, 0)[0] > 360);
        // All are right, but each costs more than a pass without drafts.
        assert!(made(|n| 1000 + 1100 * n as u64, 3)[0] > 360);
    }

    #[test]
    fn what_changes_is_noticed() {
        let mut lengths = Lengths::new();
        let time = |n: usize| Duration::from_micros(1000 + 100 * n as u64);
        let mut run = |right: usize, passes: usize| {
            let mut made = 0;
            for _ in 0..passes {
                let n = lengths.next(MOST);
                made += n;
                lengths.learn(n, n.min(right), time(n));
            }
            made
        };
        run(0, 200);
        run(3, 1000);
        assert!(run(3, 200) > 500);
        run(0, 200);
        assert!(run(0, 200) < 30);
    }

    #[test]
    fn no_more_are_drafted_than_there_is_room_for() {
        let mut lengths = Lengths::new();
        for most in [0, 1, 2, 0, 5, 1] {
            for _ in 0..50 {
                let n = lengths.next(most);
                assert!(n <= most.min(MOST));
                lengths.learn(n, n, Duration::from_micros(1000));
            }
        }
    }
}
