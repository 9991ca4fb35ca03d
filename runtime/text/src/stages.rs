//! A decoder, token by token: what the tokenizers library does to a list of tokens, done while the list grows.
//!
//! A stage takes tokens and gives tokens. Behind a stage that joins them all there is one token only, and what goes on
//! is pieces of it; a stage there must not care where they are cut. Stages hold text back only where a later token can
//! still change it.

use crate::letters::byte_of;
use crate::limits::steps::{Step, Steps};
use tokenizers::Decoder;
use tokenizers::decoders::{DecoderWrapper, wordpiece};

/// U+FFFD, for what is no character.
const REPLACEMENT: &str = "\u{FFFD}";

/// One step of a decoder, with what it remembers.
#[derive(Clone)]
enum Stage {
    /// No decoder: tokens are words.
    Words {
        first: bool,
    },
    /// Each token by itself.
    Replace(DecoderWrapper),
    /// One character of a text, wherever it is.
    Character {
        from: char,
        to: String,
    },
    /// Tokens such as `<0xE6>` are bytes; what stands between two other tokens is a run of them.
    ByteFallback(Run),
    /// Every character is a byte; bytes of a character that is not whole yet.
    ByteLevel {
        rest: Vec<u8>,
    },
    Metaspace {
        replacement: char,
        drops_first: bool,
        first: bool,
        joined: bool,
    },
    WordPiece {
        prefix: String,
        cleanup: bool,
        first: bool,
    },
    /// A suffix ends words; the last token's is dropped.
    Suffix {
        suffix: String,
        last: Option<String>,
        lead: String,
    },
    /// Characters at the beginning of each token.
    StripEach {
        content: char,
        count: usize,
    },
    /// Characters at the beginning of the text.
    StripFirst {
        content: char,
        left: usize,
    },
}

/// Bytes, of which nothing is known before the run ends: one byte that fits no character makes U+FFFD of all of them.
#[derive(Clone, Default)]
struct Run {
    bytes: Vec<u8>,
    /// So many are whole characters.
    whole: usize,
    /// There was a byte that fits none.
    broken: bool,
}

/// A decoder that can go token by token.
#[derive(Clone)]
pub(crate) struct Stages(Vec<Stage>);

impl Stages {
    /// `None` where text depends on tokens that come much later.
    pub(crate) fn new(decoder: &Steps) -> Option<Stages> {
        let Some(steps) = decoder else { return Some(Stages(vec![Stage::Words { first: true }])) };
        let (mut stages, mut joined) = (Vec::new(), false);
        for step in steps {
            stages.extend(stage(step, &mut joined)?);
        }
        Some(Stages(stages))
    }

    /// Takes a token and gives the text that became certain.
    pub(crate) fn push(&mut self, token: String) -> String {
        let mut text = String::new();
        feed(&mut self.0, token, &mut text);
        text
    }

    /// The bytes that a token adds to a text which it does not begin, whatever stands beside it. `None` where that depends on
    /// its neighbours.
    pub(crate) fn bytes_in_text(&self, token: &str) -> Option<Vec<u8>> {
        let mut text = token.to_owned();
        for (at, stage) in self.0.iter().enumerate() {
            text = match stage {
                Stage::Words { .. } => format!(" {text}"),
                Stage::Replace(replace) => replace.decode_chain(vec![text]).ok()?.concat(),
                Stage::Character { from, to } => text.replace(*from, to),
                Stage::ByteFallback(_) => match byte(&text) {
                    // A later stage could change the character that this byte becomes part of, unless it looks at the
                    // beginning of the text alone.
                    Some(byte) => {
                        let untouched = |stage: &Stage| matches!(stage, Stage::StripFirst { .. });
                        return self.0[at + 1..].iter().all(untouched).then(|| vec![byte]);
                    }
                    None => text,
                },
                Stage::ByteLevel { .. } => {
                    if at + 1 < self.0.len() {
                        return None;
                    }
                    let bytes: Option<Vec<u8>> = text.chars().map(byte_of).collect();
                    return Some(bytes.unwrap_or_else(|| text.into_bytes()));
                }
                Stage::Metaspace { replacement, .. } => text.replace(*replacement, " "),
                Stage::WordPiece { prefix, cleanup: false, .. } => match text.strip_prefix(prefix.as_str()) {
                    Some(rest) => rest.to_owned(),
                    None => format!(" {text}"),
                },
                // Punctuation takes the space before it away.
                Stage::WordPiece { cleanup: true, .. } => return None,
                // The last token's suffix is dropped.
                Stage::Suffix { .. } => return None,
                Stage::StripEach { content, count } => strip(&text, *content, *count).0.to_owned(),
                Stage::StripFirst { .. } => text,
            };
        }
        Some(text.into_bytes())
    }

    /// The bytes that a token stands for, where its decoder goes by bytes: letters of a byte-level vocabulary, or one byte
    /// that is spelled out. `None` for other tokens.
    pub(crate) fn bytes_of(&self, token: &str) -> Option<Vec<u8>> {
        self.0.iter().find_map(|stage| match stage {
            Stage::ByteLevel { .. } => token.chars().map(byte_of).collect(),
            Stage::ByteFallback(_) => byte(token).map(|byte| vec![byte]),
            _ => None,
        })
    }

    /// Gives what is held back, as if no token came any more. Tokens that come nevertheless are not the first.
    pub(crate) fn finish(&mut self) -> String {
        let mut text = String::new();
        for at in 0..self.0.len() {
            let (before, after) = self.0.split_at_mut(at + 1);
            before[at].finish(&mut |token| feed(after, token, &mut text));
        }
        text
    }
}

/// Gives a token to the first stage, and what that gives to the others.
fn feed(stages: &mut [Stage], token: String, text: &mut String) {
    match stages.split_first_mut() {
        None => text.push_str(&token),
        Some((stage, rest)) => stage.take(token, &mut |token| feed(rest, token, text)),
    }
}

/// The stage of a step, none where it changes nothing. `joined` says whether tokens are joined before it, and changes.
fn stage(step: &Step, joined: &mut bool) -> Option<Option<Stage>> {
    let character = |field: &str| {
        let mut characters = step.text(field)?.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    let stage = match (step.kind.as_str(), *joined) {
        ("Fuse", _) => {
            *joined = true;
            return Some(None);
        }
        ("Replace", false) => Stage::Replace(serde_json::from_value(step.value()).ok()?),
        ("Replace", true) => {
            let mut literal = step.literal()?.chars();
            let from = literal.next().filter(|_| literal.next().is_none())?;
            Stage::Character { from, to: step.text("content")?.to_owned() }
        }
        ("ByteFallback", false) => Stage::ByteFallback(Run::default()),
        ("ByteLevel", false) => {
            *joined = true;
            Stage::ByteLevel { rest: Vec::new() }
        }
        ("Metaspace", joined) => {
            // As the library reads it: an older field says "never" where it is false.
            let never = step.text("prepend_scheme") == Some("never");
            let drops_first = !never && step.flag("add_prefix_space") != Some(false);
            Stage::Metaspace { replacement: character("replacement")?, drops_first, first: true, joined }
        }
        ("WordPiece", joined) => {
            let cleanup = step.flag("cleanup")?;
            if joined {
                return if cleanup { None } else { Some(None) };
            }
            Stage::WordPiece { prefix: step.text("prefix")?.to_owned(), cleanup, first: true }
        }
        ("BPEDecoder", false) => {
            Stage::Suffix { suffix: step.text("suffix")?.to_owned(), last: None, lead: String::new() }
        }
        ("Strip", joined) => {
            let (content, count) = (character("content")?, step.count("start")?);
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            match joined {
                true => Stage::StripFirst { content, left: count },
                false => Stage::StripEach { content, count },
            }
        }
        _ => return None,
    };
    Some(Some(stage))
}

impl Stage {
    /// Takes a token, or a piece of the only one, and gives what became certain.
    fn take(&mut self, mut token: String, give: &mut dyn FnMut(String)) {
        match self {
            Stage::Words { first } => {
                if !std::mem::replace(first, false) {
                    token.insert(0, ' ');
                }
                give(token);
            }
            Stage::Replace(replace) => {
                let done = replace.decode_chain(vec![token]).unwrap_or_default();
                done.into_iter().for_each(give);
            }
            Stage::Character { from, to } => give(token.replace(*from, to)),
            Stage::ByteFallback(run) => match byte(&token) {
                Some(byte) => run.push(byte, give),
                None => {
                    run.end(give);
                    give(token);
                }
            },
            Stage::ByteLevel { rest } => {
                let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
                rest.extend(bytes.unwrap_or_else(|| token.into_bytes()));
                let text = whole_characters(rest);
                if !text.is_empty() {
                    give(text);
                }
            }
            Stage::Metaspace { replacement, drops_first, first, joined } => {
                let is_first = std::mem::replace(first, *joined);
                let space = if is_first && *drops_first { "" } else { " " };
                give(token.replace(*replacement, space));
            }
            Stage::WordPiece { prefix, cleanup, first } => {
                if !std::mem::replace(first, false) {
                    token = match token.strip_prefix(prefix.as_str()) {
                        Some(rest) => rest.to_owned(),
                        None => format!(" {token}"),
                    };
                }
                give(if *cleanup { wordpiece::cleanup(&token) } else { token });
            }
            Stage::Suffix { suffix, last, lead } => {
                token.insert_str(0, &std::mem::take(lead));
                if let Some(before) = last.replace(token) {
                    give(before.replace(suffix.as_str(), " "));
                }
            }
            Stage::StripEach { content, count } => give(strip(&token, *content, *count).0.to_owned()),
            Stage::StripFirst { content, left } => {
                let (text, stripped) = strip(&token, *content, *left);
                *left = if text.is_empty() { *left - stripped } else { 0 };
                give(text.to_owned());
            }
        }
    }

    /// Gives what is held back.
    fn finish(&mut self, give: &mut dyn FnMut(String)) {
        match self {
            Stage::ByteFallback(run) => run.end(give),
            Stage::ByteLevel { rest } if !rest.is_empty() => {
                rest.clear();
                give(REPLACEMENT.to_owned());
            }
            Stage::Suffix { suffix, last, lead } => {
                if let Some(token) = last.take() {
                    let ended = token.replace(suffix.as_str(), "");
                    // What the token would have been had it not been the last.
                    let went_on = token.replace(suffix.as_str(), " ");
                    went_on.strip_prefix(&ended).unwrap_or_default().clone_into(lead);
                    give(ended);
                }
            }
            _ => {}
        }
    }
}

/// Takes up to `count` characters off the beginning. Gives the rest, and how many they were.
fn strip(text: &str, content: char, count: usize) -> (&str, usize) {
    let stripped = text.chars().take(count).take_while(|c| *c == content).count();
    (&text[stripped * content.len_utf8()..], stripped)
}

/// The byte that a token such as `<0xE6>` stands for, read as the library does.
fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Takes whole characters off the beginning of `bytes`, with U+FFFD for what is none. What is left, three bytes at most,
/// may become a character.
fn whole_characters(bytes: &mut Vec<u8>) -> String {
    let (mut text, mut at) = (String::new(), 0);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        at += chunk.valid().len();
        let unfinished = std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none());
        if unfinished && at + chunk.invalid().len() == bytes.len() {
            break;
        }
        if !chunk.invalid().is_empty() {
            text.push_str(REPLACEMENT);
        }
        at += chunk.invalid().len();
    }
    bytes.drain(..at);
    text
}

impl Run {
    fn push(&mut self, byte: u8, give: &mut dyn FnMut(String)) {
        if !self.broken {
            self.bytes.push(byte);
            match std::str::from_utf8(&self.bytes[self.whole..]) {
                Ok(_) => self.whole = self.bytes.len(),
                Err(error) => {
                    self.whole += error.valid_up_to();
                    self.broken = error.error_len().is_some();
                }
            }
            if !self.broken {
                return;
            }
            for _ in 1..std::mem::take(&mut self.bytes).len() {
                give(REPLACEMENT.to_owned());
            }
        }
        give(REPLACEMENT.to_owned());
    }

    fn end(&mut self, give: &mut dyn FnMut(String)) {
        let Run { bytes, broken, .. } = std::mem::take(self);
        if broken || bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match String::from_utf8(bytes) {
            Ok(text) => give(text),
            Err(_) => (0..len).for_each(|_| give(REPLACEMENT.to_owned())),
        }
    }
}
