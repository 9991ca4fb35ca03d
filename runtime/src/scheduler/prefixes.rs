//! Texts that were run before, kept for requests that begin alike.

use crate::engine::Sequence;
use trit_text::conversation::shared_prefix;

/// Most texts that are kept, so that finding one stays cheap. Memory usually sets a lower limit.
const MOST: usize = 256;

/// Sequences of texts that were run, without anything that is not part of them.
#[derive(Default)]
pub(super) struct Prefixes {
    /// With the number of the use that each had last.
    kept: Vec<(u64, Sequence)>,
    uses: u64,
}

/// How much of a text need not run, when a sequence is at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overlap {
    /// Tokens that need not run.
    pub usable: usize,
    /// Tokens that both texts begin with. More than are usable where a recurrent state cannot be taken back to there.
    pub common: usize,
}

impl Overlap {
    /// What a sequence and a text have in common. At least the text's last token must run.
    pub fn of(sequence: &Sequence, ids: &[u32]) -> Overlap {
        let common = shared_prefix(sequence.tokens(), ids);
        // A cache that became f32 at some position would have become so alone only where it came to that position.
        if sequence.widened().is_some_and(|position| common <= position) {
            return Overlap::default();
        }
        Overlap { usable: sequence.resumes_at(common), common }
    }
}

impl Prefixes {
    /// How many texts are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// The text of which most is usable for `ids`, and how much.
    pub fn find(&self, ids: &[u32]) -> Option<(usize, Overlap)> {
        let shared = self.kept.iter().map(|(_, sequence)| Overlap::of(sequence, ids));
        shared.enumerate().max_by_key(|(_, shared)| (shared.usable, shared.common))
    }

    /// A sequence that begins with the first `position` tokens of text `index`. The text itself is taken where nothing
    /// of it is lost thereby.
    pub fn take(&mut self, index: usize, position: usize) -> Sequence {
        self.uses += 1;
        let (used, sequence) = &mut self.kept[index];
        if sequence.position() == position {
            return self.kept.swap_remove(index).1;
        }
        *used = self.uses;
        sequence.fork(position)
    }

    /// Keeps a text. Texts of which all is usable in it go.
    pub fn keep(&mut self, sequence: &Sequence) {
        if sequence.position() == 0 {
            return;
        }
        // The fork leaves out memory for tokens that were taken back.
        let sequence = sequence.fork(sequence.position());
        self.uses += 1;
        let ids = [sequence.tokens(), &[0]].concat();
        self.kept.retain(|(_, other)| {
            let covers = other.tokens().len() <= sequence.tokens().len()
                && Overlap::of(other, &ids).common == other.position()
                && sequence.resumes_at(other.position()) == other.position();
            !covers
        });
        if self.kept.len() == MOST {
            self.evict();
        }
        self.kept.push((self.uses, sequence));
    }

    /// Forks of the texts that were used last, in the order of their uses, whose caches and states take up to `most`
    /// bytes together, where shared ones count each time.
    pub fn texts(&self, most: usize) -> Vec<Sequence> {
        let mut all: Vec<&(u64, Sequence)> = self.kept.iter().collect();
        all.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        let mut bytes = 0usize;
        let fits = |(_, sequence): &&&(u64, Sequence)| {
            bytes = bytes.saturating_add(sequence.cache_bytes()).saturating_add(sequence.state_bytes());
            bytes <= most
        };
        let mut texts: Vec<Sequence> =
            all.iter().take_while(fits).map(|(_, sequence)| sequence.fork(sequence.position())).collect();
        texts.reverse();
        texts
    }

    /// Forgets the text that was not used for the longest time; false where there is none.
    pub fn evict(&mut self) -> bool {
        let oldest = self.kept.iter().enumerate().min_by_key(|(_, (used, _))| *used);
        oldest.map(|(index, _)| index).map(|index| self.kept.swap_remove(index)).is_some()
    }
}
