//! How few tokens a text can have, without making them: a text far too long for a model is refused before it costs
//! minutes.
//!
//! Where every byte of a text ends up in some token, a text has at least as many tokens as its number of bytes divided by
//! that of the longest token. A second, closer bound goes over the text once. It uses that `k` tokens reach no further than
//! the end of the longest token that begins at or before the place that `k - 1` tokens reach.

use crate::file::AddedToken;
use crate::letters::{byte_of, letter_of};
use crate::limits::Checked;
use crate::limits::steps::{Step, Steps};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;
use tokenizers::NormalizedString;

/// Texts shorter than this many bytes for each allowed token are not worth a look at every byte: most of them have room.
const WORTH_A_LOOK: usize = 4;
/// Nor are those that are tokenized in a few tenths of a second, the time that it takes to get ready.
const LONG: usize = 1 << 17;
/// Steps through the tree of tokens before the closer bound is given up, about a second.
const MAX_STEPS: usize = 1 << 25;
/// Bytes of text that are normalized at a time.
const BLOCK: usize = 1 << 14;
/// How many times shorter a text becomes by a Unicode normalization form, or by small letters, at most: four bytes
/// become one. Characters of ASCII stay what they are, unless what follows is put into them.
const SHRINKAGE_OF_FORMS: usize = 4;

/// What is known of a tokenizer's longest tokens.
pub(crate) struct Coverage {
    /// Bytes of the longest token.
    longest: usize,
    /// How many times shorter a text may become before it is cut into tokens: characters of ASCII, and others.
    shrinkage: [usize; 2],
    /// Whether a token may take any amount of whitespace around it.
    whitespace_is_free: bool,
    /// What the closer bound needs; `None` where there is only the rough one.
    spelling: Option<Spelling>,
    /// Every token's bytes, made when it is first needed.
    tree: OnceLock<Tree>,
}

/// How tokens spell a text.
struct Spelling {
    /// One character for each byte.
    byte_level: bool,
    /// Characters that are another one in the text: the space, most often.
    replaced: Vec<(String, String)>,
    /// Whether a space may be put before a word.
    prefix: bool,
    /// Whether text is composed first.
    composed: bool,
}

impl Coverage {
    /// `None` where some texts, however long, may have few tokens or none.
    pub(crate) fn new(checked: &Checked, spells_all_bytes: bool) -> Option<Coverage> {
        if !spells_all_bytes {
            return None;
        }
        let longest = checked.ids.keys().map(String::len).max()?;
        let mut shrinkage = [1, 1];
        let mut spelling =
            Some(Spelling { byte_level: false, replaced: vec![], prefix: false, composed: false });
        for step in checked.normalizer.iter().flatten() {
            normalizer(step, &mut shrinkage, &mut spelling)?;
        }
        for step in checked.pre_tokenizer.iter().flatten() {
            pre_tokenizer(step, &mut spelling)?;
        }
        let whitespace_is_free = checked.added.iter().any(|token| token.lstrip || token.rstrip);
        let normalized = checked.normalizer.is_some() && checked.added.iter().any(AddedToken::is_normalized);
        // A vocabulary with two spellings at once has no closer bound.
        let both = |s: &Spelling| s.byte_level && !s.replaced.is_empty();
        if whitespace_is_free || normalized || spelling.as_ref().is_some_and(both) {
            spelling = None;
        }
        Some(Coverage { longest, shrinkage, whitespace_is_free, spelling, tree: OnceLock::new() })
    }

    /// No text has fewer tokens than this, and where it is at least `enough` it need not be closer. `tokens` gives every
    /// token there is.
    pub(crate) fn fewest(&self, text: &str, enough: usize, tokens: impl Fn() -> Vec<String>) -> usize {
        let rough = self.bytes(text) / self.longest.max(1);
        let long = text.len() > LONG && text.len() / WORTH_A_LOOK > enough;
        match &self.spelling {
            Some(spelling) if rough < enough && long => {
                let tree = self.tree.get_or_init(|| spelling.tree(&tokens()));
                rough.max(Walk { spelling, tree, steps: 0 }.fewest(text, enough, self.longest))
            }
            _ => rough,
        }
    }

    /// Bytes that are left of a text, at least.
    fn bytes(&self, text: &str) -> usize {
        let [of_ascii, of_others] = self.shrinkage;
        let (mut ascii, mut others) = (0, 0);
        let mut characters =
            text.chars().filter(|c| !self.whitespace_is_free || !c.is_whitespace()).peekable();
        while let Some(c) = characters.next() {
            let alone = characters.peek().is_none_or(char::is_ascii);
            if c.is_ascii() && alone { ascii += 1 } else { others += c.len_utf8() }
        }
        ascii / of_ascii + others / of_others
    }
}

/// `None` where a step may drop text.
fn normalizer(step: &Step, shrinkage: &mut [usize; 2], spelling: &mut Option<Spelling>) -> Option<()> {
    match step.kind.as_str() {
        "NFC" => {
            shrinkage[1] *= SHRINKAGE_OF_FORMS;
            *spelling = spelling.take().filter(|s| s.replaced.is_empty());
            spelling.iter_mut().for_each(|s| s.composed = true);
        }
        "NFD" | "NFKC" | "NFKD" | "Lowercase" => {
            shrinkage[1] *= SHRINKAGE_OF_FORMS;
            *spelling = None;
        }
        "ByteLevel" => *spelling = None,
        "Prepend" => spelling.iter_mut().for_each(|s| s.prefix = true),
        "Replace" => {
            let (from, to) = (step.literal()?, step.text("content").filter(|to| !to.is_empty())?);
            let times = from.len().div_ceil(to.len());
            *shrinkage = shrinkage.map(|before| before * times);
            replaced(from, to, spelling);
        }
        _ => return None,
    }
    Some(())
}

/// `None` where a step may drop text.
fn pre_tokenizer(step: &Step, spelling: &mut Option<Spelling>) -> Option<()> {
    match step.kind.as_str() {
        "ByteLevel" => spelling.iter_mut().for_each(|s| {
            s.byte_level = true;
            s.prefix |= step.flag("add_prefix_space") == Some(true);
        }),
        "Metaspace" => {
            spelling.iter_mut().for_each(|s| s.prefix = true);
            replaced(" ", step.text("replacement")?, spelling);
        }
        "Split" | "Punctuation" if step.text("behavior") != Some("Removed") => {}
        "Digits" | "UnicodeScripts" | "FixedLength" => {}
        _ => return None,
    }
    Some(())
}

/// One character for another keeps the way a text is spelled simple; longer texts do not.
fn replaced(from: &str, to: &str, spelling: &mut Option<Spelling>) {
    let single = |text: &str| text.chars().count() == 1;
    match spelling {
        Some(known) if single(from) && single(to) => known.replaced.push((from.to_owned(), to.to_owned())),
        _ => *spelling = None,
    }
}

/// Whether a vocabulary spells every byte: no text then has parts that give no token, or that share one.
pub(crate) fn spells_all_bytes(ids: &HashMap<String, u32>, byte_fallback: bool, steps: [&Steps; 2]) -> bool {
    let by_byte = |step: &Step| step.kind == "ByteLevel";
    if steps.iter().any(|steps| steps.iter().flatten().any(by_byte)) {
        return (0..=255).all(|byte| ids.contains_key(letter_of(byte).encode_utf8(&mut [0; 4]) as &str));
    }
    byte_fallback && (0..=255).all(|byte: u8| ids.contains_key(&format!("<0x{byte:02X}>")))
}

impl Spelling {
    fn tree(&self, tokens: &[String]) -> Tree {
        let mut tree = Tree::default();
        for token in tokens {
            // An added token stands for its own text, whatever its letters mean.
            tree.insert(self.plain(token).as_bytes());
            let spelled: Option<Vec<u8>> = token.chars().map(byte_of).collect();
            if let Some(spelled) = spelled.filter(|_| self.byte_level) {
                tree.insert(&spelled);
            }
        }
        tree
    }

    /// A text with one character for those that stand for each other.
    fn plain(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (from, to)| text.replace(to, from))
    }
}

/// Tokens by their bytes. A node is a number; the root is 0.
#[derive(Default)]
struct Tree {
    children: HashMap<u64, u32, BuildHasherDefault<Mix>>,
    /// Of each node but the root, whether a token ends there.
    ends: Vec<bool>,
}

impl Tree {
    fn insert(&mut self, token: &[u8]) {
        let mut node = 0;
        for byte in token {
            let next = self.ends.len() as u32 + 1;
            node = *self.children.entry(edge(node, *byte)).or_insert(next);
            if node == next {
                self.ends.push(false);
            }
        }
        if let Some(end) = (node as usize).checked_sub(1).and_then(|node| self.ends.get_mut(node)) {
            *end = true;
        }
    }
}

fn edge(node: u32, byte: u8) -> u64 {
    u64::from(node) << 8 | u64::from(byte)
}

/// Mixes one number, much faster than what keeps attackers from choosing keys; they can choose a slow vocabulary only,
/// and the steps are counted.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing: multiplies by the golden ratio in 64 bits. The high bits of the product are mixed best.
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// One look at a text.
struct Walk<'a> {
    spelling: &'a Spelling,
    tree: &'a Tree,
    steps: usize,
}

impl Walk<'_> {
    /// The fewest tokens that come to the text's end, or `enough`.
    fn fewest(mut self, text: &str, enough: usize, longest: usize) -> usize {
        let (mut bytes, mut rest) = (Vec::new(), text);
        // `end` is the furthest place that `count` tokens reach, and `far` the furthest that one more reaches, as far as was
        // seen. Both count in `bytes`.
        let (mut count, mut end, mut far) = (0, 0, 0);
        let mut at = 0;
        loop {
            // Tokens may lie across two blocks.
            while bytes.len() < at + longest + BLOCK && !rest.is_empty() {
                bytes.drain(..at);
                (end, far, at) = (end - at, far - at, 0);
                self.next_block(&mut rest, &mut bytes);
            }
            if at == bytes.len() || count >= enough || self.steps > MAX_STEPS {
                return count;
            }
            if far < at + longest {
                far = far.max(at + self.longest_at(&bytes[at..]).max(1));
            }
            if at == end {
                count += 1;
                end = far;
            }
            at += 1;
        }
    }

    /// Normalizes a block, which ends where no character is composed with the next.
    fn next_block(&self, rest: &mut &str, bytes: &mut Vec<u8>) {
        let starts = |c: char| c.is_ascii() || ('\u{4e00}'..='\u{9fff}').contains(&c);
        let cut =
            rest.char_indices().find(|(at, c)| *at >= BLOCK && starts(*c)).map_or(rest.len(), |(at, _)| at);
        let (block, after) = rest.split_at(cut);
        *rest = after;
        if self.spelling.composed && !block.is_ascii() {
            let mut composed = NormalizedString::from(block);
            composed.nfc();
            bytes.extend(self.spelling.plain(composed.get()).as_bytes());
        } else {
            bytes.extend(self.spelling.plain(block).as_bytes());
        }
    }

    /// Bytes of the longest token that `bytes` begin with, perhaps with a space before them.
    fn longest_at(&mut self, bytes: &[u8]) -> usize {
        let mut longest = self.down(0, bytes);
        if self.spelling.prefix
            && let Some(space) = self.tree.children.get(&edge(0, b' '))
        {
            longest = longest.max(self.down(*space, bytes));
        }
        longest
    }

    fn down(&mut self, mut node: u32, bytes: &[u8]) -> usize {
        let mut longest = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let Some(next) = self.tree.children.get(&edge(node, *byte)) else { break };
            (node, longest) = (*next, if self.tree.ends[*next as usize - 1] { at + 1 } else { longest });
            self.steps += 1;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;
    use crate::tokenizer::tests::{cases, info};
    use serde_json::{Value, json};

    fn fables() -> Value {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join("../../examples/models/fables-12m/tokenizer.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Words with the space spelled as another character, and bytes.
    fn sentencepiece(bend: &dyn Fn(&mut Value)) -> Value {
        let mut vocab: serde_json::Map<String, Value> =
            (0..256).map(|b| (format!("<0x{b:02X}>"), b.into())).collect();
        let words =
            ["▁", "t", "h", "e", "th", "the", "▁the", "a", "n", "d", "an", "and", "▁and", "é", "▁▁", "▁▁▁▁"];
        vocab.extend(words.iter().zip(256..).map(|(word, id)| ((*word).to_owned(), id.into())));
        let merges = ["t h", "th e", "▁ the", "a n", "an d", "▁ and", "▁ ▁", "▁▁ ▁▁"];
        let mut file = json!({
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "model": {"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": true},
        });
        bend(&mut file);
        file
    }

    fn coverage(file: &Value) -> (Tokenizer, Option<Coverage>) {
        let bytes = file.to_string();
        let checked = crate::limits::check(crate::file::read(bytes.as_bytes()).unwrap(), 8192).unwrap();
        let spells = spells_all_bytes(&checked.ids, true, [&checked.normalizer, &checked.pre_tokenizer]);
        (Tokenizer::new(bytes.as_bytes(), &info(), 8192).unwrap(), Coverage::new(&checked, spells))
    }

    /// Texts of every kind: stories, runs, marks that are composed, special tokens.
    fn texts() -> Vec<String> {
        let mut texts: Vec<String> = cases()["cases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|case| case["text"].as_str().unwrap().to_owned())
            .collect();
        texts.push(texts.concat());
        texts.push(texts.concat().repeat(30));
        let parts = [
            "the and ",
            "    ",
            "e\u{301}",
            "\u{212b}",
            "日本",
            "<|eot_id|>",
            "\n",
            "x",
            "thé",
            "\u{1100}\u{1161}\u{11a8}",
        ];
        for (at, part) in parts.iter().enumerate() {
            texts.push(part.repeat(100));
            texts.push(format!("{part}{}", parts[(at + 3) % parts.len()]).repeat(50));
        }
        texts.push("the and ".repeat(9000));
        texts.push(format!("{}e\u{301}", "日本語".repeat(9000)));
        texts
    }

    #[test]
    fn no_text_has_fewer_tokens_than_either_bound() {
        let with = |key: &str, value: Value| {
            let mut file = fables();
            file[key] = value;
            file
        };
        let metaspace =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let files = [
            fables(),
            with("normalizer", json!({"type": "NFC"})),
            with(
                "pre_tokenizer",
                json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}),
            ),
            sentencepiece(&|_| ()),
            sentencepiece(&|file| {
                file["normalizer"] = Value::Null;
                file["pre_tokenizer"] = metaspace.clone();
            }),
        ];
        for (which, file) in files.iter().enumerate() {
            let (tokenizer, coverage) = coverage(file);
            let coverage = coverage.unwrap();
            let tokens: Vec<String> = (0..tokenizer.end()).filter_map(|id| tokenizer.token_of(id)).collect();
            let spelling = coverage.spelling.as_ref().unwrap();
            let tree = spelling.tree(&tokens);
            for text in texts() {
                let count = tokenizer.encode(&text, false).unwrap().len();
                let rough = coverage.bytes(&text) / coverage.longest;
                let close =
                    Walk { spelling, tree: &tree, steps: 0 }.fewest(&text, usize::MAX, coverage.longest);
                let start: String = text.chars().take(40).collect();
                assert!(rough <= count && close <= count, "{which}: {start:?}: {rough} {close} {count}");
                // The closer bound is close, where a text is not composed of characters that have no tokens.
                assert!(close * 4 >= count || !text.is_ascii(), "{which}: {start:?}: {close} of {count}");
                assert!(tokenizer.encode_within(&text, false, count).is_ok());
                let less = tokenizer.encode_within(&text, false, count.saturating_sub(1));
                assert!(count == 0 || matches!(less, Err(crate::TextError::TooLong { .. })), "{less:?}");
            }
        }
    }

    #[test]
    fn where_text_may_vanish_nothing_is_promised() {
        let with = |key: &str, value: Value| {
            let mut file = fables();
            file[key] = value;
            coverage(&file).1.is_some()
        };
        assert!(!with("normalizer", json!({"type": "Strip", "strip_left": true, "strip_right": true})));
        assert!(!with("normalizer", json!({"type": "StripAccents"})));
        assert!(!with("pre_tokenizer", json!({"type": "WhitespaceSplit"})));
        let file = json!({"model": {"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"}});
        let (tokenizer, coverage) = coverage(&file);
        assert!(coverage.is_none());
        // Everything may be one unknown word; what nobody would send is refused nevertheless.
        assert_eq!(tokenizer.encode_within(&"b".repeat(10_000), false, 1).unwrap(), [1]);
        assert!(tokenizer.encode_within(&"b".repeat(2 << 20), false, 1).is_err());
    }
}
