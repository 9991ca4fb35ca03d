//! What followed the same tokens before. Texts repeat themselves: names, quotations, code. One pass checks a few drafted
//! tokens and reads the weights once for all of them, so that an accepted draft costs little. The method is prompt lookup
//! decoding (Saxena 2023).

use std::collections::HashMap;

/// How many of the last tokens must have occurred before. Fewer would often match by chance.
const MATCH: usize = 3;

/// Where each run of [`MATCH`] tokens of a text last ended.
pub(super) struct Repetitions {
    ends: HashMap<[u32; MATCH], usize>,
    indexed: usize,
    /// How far behind its end the text was found to repeat, the last time.
    distance: Option<usize>,
}

/// What followed before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known<'h> {
    pub tokens: &'h [u32],
    /// Whether the tokens since the last time were found there too.
    pub goes_on: bool,
}

impl Repetitions {
    pub fn new() -> Repetitions {
        Repetitions { ends: HashMap::new(), indexed: 0, distance: None }
    }

    /// What followed the last tokens of `history` when they occurred before, at most `most` tokens. It is often empty.
    pub fn find<'h>(&mut self, history: &'h [u32], most: usize) -> Known<'h> {
        while self.indexed + MATCH < history.len() {
            let run = [0, 1, 2].map(|i| history[self.indexed + i]);
            self.ends.insert(run, self.indexed + MATCH);
            self.indexed += 1;
        }
        let end = history.last_chunk::<MATCH>().and_then(|tail| self.ends.get(tail).copied());
        let distance = end.map(|end| history.len() - end);
        let goes_on = distance.is_some() && distance == self.distance;
        self.distance = distance;
        let end = end.unwrap_or(history.len());
        Known { tokens: &history[end..history.len().min(end + most)], goes_on }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(repetitions: &mut Repetitions, history: &[u32], most: usize) -> (Vec<u32>, bool) {
        let Known { tokens, goes_on } = repetitions.find(history, most);
        (tokens.to_vec(), goes_on)
    }

    #[test]
    fn what_followed_the_last_time_is_found() {
        let mut text = Repetitions::new();
        let mut history = vec![1, 2, 3, 4, 5, 6, 7, 1, 2, 3];
        assert_eq!(known(&mut text, &history, 3), (vec![4, 5, 6], false));
        assert_eq!(known(&mut text, &history, 1), (vec![4], true));
        history.extend([9, 8, 1, 2, 3]);
        assert_eq!(known(&mut text, &history, 3), (vec![9, 8, 1], false));
        history.push(9);
        assert_eq!(known(&mut text, &history, 3), (vec![8, 1, 2], true));
        history.extend([8, 1]);
        assert_eq!(known(&mut text, &history, 9), (vec![2, 3, 9, 8, 1], true));
        history.push(0);
        assert_eq!(known(&mut text, &history, 3), (vec![], false));
        assert_eq!(known(&mut Repetitions::new(), &[1, 2], 3), (vec![], false));
        // A run that is just ending has not been followed by anything.
        assert_eq!(known(&mut Repetitions::new(), &[5, 5, 5, 5], 3), (vec![5], false));
    }
}
