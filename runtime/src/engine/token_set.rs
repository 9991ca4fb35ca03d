//! A set of tokens, such as those that may come next.

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

    /// Its bits, as [`TokenSet::from_words`] takes them.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Whether a token belongs to it.
    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// Adds a token.
    pub fn insert(&mut self, id: u32) {
        let at = id as usize / 32;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= 1 << (id % 32);
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
        self.words.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(bits)
    }
}

impl FromIterator<u32> for TokenSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> TokenSet {
        let mut set = TokenSet::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: TokenSet = [3, 64, 31, 32].into_iter().collect();
        assert_eq!((set.iter().collect::<Vec<u32>>(), set.len()), (vec![3, 31, 32, 64], 4));
        assert!(set.contains(64) && !set.contains(4) && !set.contains(1_000_000));
        assert!(TokenSet::default().is_empty() && TokenSet::from_words(vec![0, 0]).is_empty());
        assert_eq!(TokenSet::from_words(set.words().to_vec()), set);
    }
}
