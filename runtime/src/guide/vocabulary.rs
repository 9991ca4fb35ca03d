//! The bytes of a model's tokens as llguidance wants them.

use crate::generate::guide::GuideError;
use llguidance::toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use std::collections::HashMap;
use trit_text::Tokenizer;

/// Longest token that the library's tree of tokens can hold, in bytes. Longer ones are never allowed.
const LONGEST: usize = 1000;
/// Most nodes of that tree.
const MOST_NODES: usize = (1 << 22) - 1;
/// Most tokens that the tree can number.
const MOST_TOKENS: u32 = 0xff_ffff;
/// So many tokens may have the same bytes. The others are never allowed; no vocabulary in use has more than two.
const MOST_ALIKE: usize = 8;

/// The tree of all tokens, and the special tokens by what they are called. Special tokens stand for no text, so that only
/// grammars that name them allow them; stop ids are allowed where a text may end.
///
/// # Errors
/// Where tokens have no bytes of their own, or there are too many of them.
pub(super) fn trie(
    tokenizer: &Tokenizer,
    stop: &[u32],
    vocab: u32,
) -> Result<(TokTrie, Vec<(String, u32)>), GuideError> {
    let refuse = |why: &str| GuideError(format!("an answer cannot follow a grammar: {why}"));
    if vocab >= MOST_TOKENS {
        return Err(refuse("the model has too many tokens"));
    }
    let marker = TokTrie::SPECIAL_TOKEN_MARKER;
    let (mut words, mut special) = (Vec::with_capacity(vocab as usize), Vec::new());
    let mut alike: HashMap<Vec<u8>, usize> = HashMap::new();
    for id in 0..vocab {
        let mut word = tokenizer.bytes_in_text(id).ok_or_else(|| {
            refuse("what a token of this tokenizer adds to a text depends on the tokens beside it")
        })?;
        if tokenizer.is_special(id) {
            let name = tokenizer.token_of(id).unwrap_or_default();
            word = [&[marker], name.as_bytes()].concat();
            special.push((name, id));
        } else if word.contains(&marker) {
            // A byte that no text has.
            word.clear();
        }
        if stop.contains(&id) || word.len() > LONGEST {
            word.clear();
        }
        if !word.is_empty() {
            let count = alike.entry(word.clone()).or_default();
            *count += 1;
            if *count > MOST_ALIKE {
                word.clear();
            }
        }
        words.push(word);
    }
    drop(alike);
    if nodes(&words) > MOST_NODES {
        return Err(refuse("the tokens of the model are too many or too long"));
    }
    let info = TokRxInfo::new(vocab, stop.first().copied().unwrap_or(INVALID_TOKEN));
    let trie = TokTrie::from(&info, &words);
    Ok((if stop.is_empty() { trie } else { trie.with_eos_tokens(stop) }, special))
}

/// How many nodes the tree of these words has, at most.
fn nodes(words: &[Vec<u8>]) -> usize {
    let mut sorted: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    sorted.sort_unstable();
    let shared = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let new = |pair: &[&[u8]]| (pair[1].len() - shared(pair[0], pair[1])).max(1);
    2 + sorted.first().map_or(0, |first| first.len()) + sorted.windows(2).map(new).sum::<usize>()
}

/// What llguidance asks a tokenizer.
pub(super) struct Environment(pub TokTrie);

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(text)
    }

    fn tokenize_is_canonical(&self) -> bool {
        // Any tokens that give the text will do.
        false
    }
}
