//! The guide of a request, in a thread of its own.
//!
//! What may come next is found there while the engine runs steps: of the prompt before the first token, and of other
//! requests afterwards. Most grammars take a fraction of a millisecond; for one that takes long its own request waits and the
//! others go on, because a request whose guide is not ready takes no part in a step.

use crate::engine::TokenSet;
use crate::generate::guide::{Guide, GuideError};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

/// A guide that looks ahead in its own thread.
pub(super) struct Guided {
    /// Takes each token of the answer. The thread ends when this is dropped.
    chosen: Sender<u32>,
    found: Receiver<Result<TokenSet, GuideError>>,
    /// What may come next, once it is known.
    next: Option<Arc<TokenSet>>,
}

/// What is known of what may come next.
pub(super) enum Next {
    /// It is not known yet.
    Unknown,
    /// Some tokens: see [`Guided::allowed`].
    Some,
    /// Nothing: the answer ends.
    Nothing,
}

impl Guided {
    /// Starts the thread, which finds at once what the answer may begin with.
    ///
    /// # Errors
    /// Where the thread is refused.
    pub fn new(mut guide: Box<dyn Guide>) -> Result<Guided, GuideError> {
        let (chosen, tokens) = channel();
        let (send, found) = channel();
        let follow = move || {
            let mut sets = guide.allowed();
            loop {
                let failed = sets.is_err();
                if send.send(sets).is_err() || failed {
                    return;
                }
                let Ok(id) = tokens.recv() else { return };
                sets = guide.accept(id).and_then(|()| guide.allowed());
            }
        };
        let thread = std::thread::Builder::new().name("guide".into()).spawn(follow);
        thread.map_err(|error| GuideError(format!("no thread for the grammar of an answer: {error}")))?;
        Ok(Guided { chosen, found, next: None })
    }

    /// What may come next. Waits until `deadline` for it.
    ///
    /// # Errors
    /// Those of the guide.
    pub fn next(&mut self, deadline: Instant) -> Result<Next, GuideError> {
        if self.next.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.found.recv_timeout(left) {
                Ok(found) => self.next = Some(Arc::new(found?)),
                Err(RecvTimeoutError::Timeout) => return Ok(Next::Unknown),
                Err(RecvTimeoutError::Disconnected) => return Err(GuideError("the guide has failed".into())),
            }
        }
        Ok(match &self.next {
            Some(set) if set.is_empty() => Next::Nothing,
            Some(_) => Next::Some,
            None => Next::Unknown,
        })
    }

    /// What may come next, where it is known.
    pub fn allowed(&self) -> Option<&Arc<TokenSet>> {
        self.next.as_ref()
    }

    /// Tells the guide which token was chosen.
    pub fn accept(&mut self, id: u32) {
        self.next = None;
        // A thread that has ended says why when it is asked for the next set.
        let _ = self.chosen.send(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Allows the number of tokens so far, after a while, and fails after the third.
    struct Slow(u32);

    impl Guide for Slow {
        fn allowed(&mut self) -> Result<TokenSet, GuideError> {
            std::thread::sleep(Duration::from_millis(20));
            match self.0 {
                2 => Ok(TokenSet::default()),
                3 => Err(GuideError("three".into())),
                n => Ok([n].into_iter().collect()),
            }
        }

        fn accept(&mut self, _: u32) -> Result<(), GuideError> {
            self.0 += 1;
            Ok(())
        }
    }

    #[test]
    fn what_may_come_next_comes_in_time() {
        let mut guided = Guided::new(Box::new(Slow(0))).unwrap();
        assert!(matches!(guided.next(Instant::now()), Ok(Next::Unknown)) && guided.allowed().is_none());
        let late = || Instant::now() + Duration::from_secs(600);
        for n in 0..2 {
            assert!(matches!(guided.next(late()), Ok(Next::Some)));
            assert!(guided.allowed().unwrap().contains(n));
            // It stays known.
            assert!(matches!(guided.next(Instant::now()), Ok(Next::Some)));
            guided.accept(n);
        }
        assert!(matches!(guided.next(late()), Ok(Next::Nothing)));
        guided.accept(9);
        assert_eq!(guided.next(late()).err().unwrap().0, "three");
        guided.accept(9);
        assert!(guided.next(late()).is_err(), "it has ended");
    }
}
