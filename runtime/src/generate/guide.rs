//! Guides: what may be said next, decided by something else than the model, such as a grammar.

use std::fmt;

/// A set of tokens: one bit for each token of a vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSet {
    /// 32 tokens a word, the lowest first.
    words: Vec<u32>,
}

impl TokenSet {
    /// A set of tokens below `32 * words.len()`: bit `id % 32` of word `id / 32` says whether `id` belongs to it.
    pub fn from_words(words: Vec<u32>) -> TokenSet {
        TokenSet { words }
    }

    /// Whether a token belongs to it.
    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// How many tokens belong to it.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no token belongs to it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Its tokens, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let bits = |(at, &word): (usize, &u32)| {
            (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 32 * at as u32 + bit)
        };
        self.words.iter().enumerate().flat_map(bits)
    }
}

impl FromIterator<u32> for TokenSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> TokenSet {
        let mut words = Vec::new();
        for id in ids {
            let at = id as usize / 32;
            if at >= words.len() {
                words.resize(at + 1, 0);
            }
            words[at] |= 1 << (id % 32);
        }
        TokenSet { words }
    }
}

/// Says which tokens may follow an answer so far. One guide accompanies one answer, and is told every token of it.
pub trait Guide: Send {
    /// The tokens that may come next. Stop ids are among them where the answer may end here. Where none may come, the
    /// answer ends.
    ///
    /// # Errors
    /// [`GuideError`] where the guide gave up, for instance because a grammar became too large.
    fn allowed(&mut self) -> Result<TokenSet, GuideError>;

    /// Takes the next token, which is one of those that are allowed.
    ///
    /// # Errors
    /// As [`Guide::allowed`].
    fn accept(&mut self, id: u32) -> Result<(), GuideError>;
}

/// Why a guide gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuideError(pub String);

impl fmt::Display for GuideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GuideError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: TokenSet = [3, 64, 31, 32].into_iter().collect();
        assert_eq!((set.iter().collect::<Vec<u32>>(), set.len()), (vec![3, 31, 32, 64], 4));
        assert!(set.contains(64) && !set.contains(4) && !set.contains(1_000_000));
        assert!(TokenSet::default().is_empty() && TokenSet::from_words(vec![0, 0]).is_empty());
    }
}
