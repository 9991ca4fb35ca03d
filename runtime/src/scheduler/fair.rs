//! Whose turn it is.

use std::collections::HashMap;

/// What a generated token counts beside a token of a prompt, because several tokens of a prompt share the work.
pub(super) const GENERATED: f64 = 2.0;

/// The work that was done for each user. Who comes back after a while has not saved up turns: the counter is lifted to
/// that of the active user who got least.
#[derive(Default)]
pub(super) struct Fair(HashMap<u64, f64>);

impl Fair {
    /// What was done for a user.
    pub fn served(&self, user: u64) -> f64 {
        self.0.get(&user).copied().unwrap_or(0.0)
    }

    /// Counts work that was done for a user.
    pub fn serve(&mut self, user: u64, work: f64) {
        *self.0.entry(user).or_default() += work;
    }

    /// A user becomes active while those of `active` are.
    pub fn arrive(&mut self, user: u64, active: impl Iterator<Item = u64>) {
        let least = active.map(|user| self.served(user)).fold(f64::INFINITY, f64::min);
        let served = self.0.entry(user).or_default();
        if least.is_finite() {
            *served = served.max(least);
        }
    }

    /// Forgets all users who are not among `active`, where many are known. They begin like new ones.
    pub fn tidy(&mut self, active: impl Fn(u64) -> bool) {
        const MANY: usize = 4096;
        if self.0.len() > MANY {
            self.0.retain(|user, _| active(*user));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_got_least_is_next_and_absence_saves_nothing() {
        let mut fair = Fair::default();
        fair.arrive(1, [].into_iter());
        fair.serve(1, 100.0);
        fair.arrive(2, [1].into_iter());
        assert_eq!(fair.served(2), 100.0);
        fair.serve(2, 5.0);
        assert!(fair.served(1) < fair.served(2));
        fair.serve(1, 400.0);
        fair.arrive(2, [1].into_iter());
        assert_eq!(fair.served(2), 500.0);
        // Who got more than all others keeps that.
        fair.arrive(1, [3].into_iter());
        assert_eq!(fair.served(1), 500.0);
        (0..5000).for_each(|user| fair.serve(user, 1.0));
        fair.tidy(|user| user == 7);
        assert_eq!((fair.served(7), fair.served(8)), (1.0, 0.0));
    }
}
