//! How many drafts to make before a pass: as many as save most time, and none where drafts save none.

use super::MOST;
use std::time::Duration;

/// Weight of the newest measurement in a running mean.
const NEW: f64 = 0.2;
/// After how many chances a number is tried again that seemed not to be the best.
const AGAIN: usize = 32;

/// What was measured, by the number of drafts.
pub(super) struct Lengths {
    /// Seconds of a pass with so many drafts, drafting included.
    times: [Option<f64>; MOST + 1],
    /// How often so many have been made.
    made: [usize; MOST + 1],
    /// What a right draft is worth, in tokens of a pass.
    worth: f64,
    /// How often a draft is right where those before it are.
    right: [f64; MOST],
    /// Chances since another number than the best was tried.
    since: usize,
}

/// How many drafts to make, and how many tokens a second that will give; infinity where it is not known and worth a try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub count: usize,
    pub speed: f64,
}

impl Lengths {
    /// Nothing was measured; drafts are thought to be right so often.
    pub fn new(right: f64) -> Lengths {
        let (times, made) = ([None; MOST + 1], [0; MOST + 1]);
        Lengths { times, made, worth: 1.0, right: [right; MOST], since: 0 }
    }

    /// How many tokens to draft, at most `most`.
    pub fn next(&mut self, most: usize) -> Choice {
        let most = most.min(MOST);
        let untried = |count: usize| Choice { count, speed: f64::INFINITY };
        // What a pass takes without drafts and with one must be known, and tells what more may take.
        if most == 0 || self.times[0].is_none() {
            return untried(0);
        }
        if self.times[1].is_none() {
            return untried(1);
        }
        let choices = (0..=most).map(|count| Choice { count, speed: self.speed(count) });
        let best = choices.max_by(|a, b| a.speed.total_cmp(&b.speed)).unwrap_or(untried(0));
        self.since += 1;
        if self.since < AGAIN {
            return best;
        }
        self.since = 0;
        // The neighbour that was made less often.
        let neighbours = [best.count.checked_sub(1), (best.count < most).then_some(best.count + 1)];
        let least = neighbours.into_iter().flatten().min_by_key(|&count| self.made[count]);
        least.map_or(best, |count| Choice { count, ..best })
    }

    /// Tokens a second with so many drafts.
    fn speed(&self, count: usize) -> f64 {
        let (mut tokens, mut likely) = (1.0, 1.0);
        for right in &self.right[..count] {
            likely *= right;
            tokens += likely * self.worth;
        }
        let [without, with_one] = [0, 1].map(|n| self.times[n].unwrap_or(f64::INFINITY));
        let time =
            self.times[count].unwrap_or(with_one + (count as f64 - 1.0) * (with_one - without).max(0.0));
        tokens / time
    }

    /// Learns how long a pass takes with `drafted` drafts. `answers` texts shared it.
    pub fn learn_time(&mut self, drafted: usize, answers: usize, time: Duration) {
        let (drafted, time) = (drafted.min(MOST), time.as_secs_f64());
        self.worth = 1.0 / answers.max(1) as f64;
        self.made[drafted] += 1;
        let known = &mut self.times[drafted];
        *known = Some(match (*known, self.made[drafted]) {
            (None, _) => time,
            // What happens for the first time takes longer.
            (Some(first), 2) => first.min(time),
            (Some(mean), _) => mean + NEW * (time - mean),
        });
    }

    /// Learns that of `drafted` drafts the first `right` were right.
    pub fn learn_right(&mut self, drafted: usize, right: usize) {
        for (n, rate) in self.right.iter_mut().enumerate().take(drafted.min(right + 1)) {
            *rate += NEW * (f64::from(u8::from(n < right)) - *rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Lengths {
        /// A pass that takes `time` of its number of drafts, of which the first `right` are right; gives that number.
        fn pass(&mut self, most: usize, right: usize, time: impl Fn(usize) -> u64) -> usize {
            let n = self.next(most).count;
            self.learn_time(n, 1, Duration::from_micros(time(n)));
            self.learn_right(n, n.min(right));
            n
        }
    }

    /// How many drafts are made in 400 passes.
    fn made(time: impl Fn(usize) -> u64, right: usize) -> [usize; MOST + 1] {
        let (mut lengths, mut made) = (Lengths::new(0.5), [0; MOST + 1]);
        (0..400).for_each(|_| made[lengths.pass(MOST, right, &time)] += 1);
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
        let mut lengths = Lengths::new(0.5);
        let time = |n: usize| 1000 + 100 * n as u64;
        let mut run =
            |right: usize, passes: usize| (0..passes).map(|_| lengths.pass(MOST, right, time)).sum::<usize>();
        run(0, 200);
        run(3, 1000);
        assert!(run(3, 200) > 500);
        run(0, 200);
        assert!(run(0, 200) < 30);
    }

    #[test]
    fn no_more_are_drafted_than_there_is_room_for() {
        let mut lengths = Lengths::new(0.5);
        for most in [0, 1, 2, 0, 5, 1] {
            for _ in 0..50 {
                assert!(lengths.pass(most, 3, |_| 1000) <= most.min(MOST));
            }
        }
    }

    #[test]
    fn a_draft_for_one_of_many_answers_is_worth_a_part() {
        let speeds = [1, 8].map(|answers| {
            let mut lengths = Lengths::new(0.5);
            for (n, time) in [(0, 1000), (1, 1200)] {
                lengths.learn_time(n, answers, Duration::from_micros(time));
            }
            lengths.speed(1) / lengths.speed(0)
        });
        assert!(speeds[0] > 1.2 && speeds[1] < 0.9, "{speeds:?}");
    }
}
