//! Turns: whoever comes first is served first. A mutex alone promises nothing of that kind; a thread that gives it back and
//! takes it again at once would keep others waiting for as long as it has steps to run.

use std::sync::{Condvar, Mutex, PoisonError};

/// Gives turns in the order in which they are asked for.
#[derive(Default)]
pub(super) struct Turns {
    /// The number of the next who comes, and the number of who is served.
    numbers: Mutex<(u64, u64)>,
    wake: Condvar,
}

/// A turn; the next one begins when this is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for a turn.
    pub fn wait(&self) -> Turn<'_> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = numbers.0;
        numbers.0 += 1;
        while numbers.1 != mine {
            numbers = self.wake.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut numbers = self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.1 += 1;
        if numbers.0 != numbers.1 {
            self.0.wake.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// Two who take one turn after the other get as many.
    #[test]
    fn nobody_takes_two_turns_while_another_waits() {
        let (turns, held) = (Turns::default(), AtomicBool::new(false));
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let take = |mine: usize| {
            for _ in 0..2000 {
                let turn = turns.wait();
                assert!(!held.swap(true, Ordering::SeqCst), "one at a time");
                counts[mine].fetch_add(1, Ordering::SeqCst);
                held.store(false, Ordering::SeqCst);
                drop(turn);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| take(0));
            scope.spawn(|| take(1));
        });
        assert_eq!(counts.map(AtomicUsize::into_inner), [2000, 2000]);
        // Who came first is served first, also where the one before comes again at once.
        let turn = turns.wait();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _turn = turns.wait();
                order.lock().unwrap().push("other");
            });
            while turns.numbers.lock().unwrap().0 < 4002 {
                std::thread::yield_now();
            }
            drop(turn);
            let _turn = turns.wait();
            order.lock().unwrap().push("again");
        });
        assert_eq!(order.into_inner().unwrap(), ["other", "again"]);
    }
}
