//! `tokenizer.json` to ids and back, as the model's authors defined it.

use crate::assemble::assemble;
use crate::coverage::{Coverage, spells_all_bytes};
use crate::guard::guarded;
use crate::limits::steps::Around;
use crate::limits::{Bpe, Vocabulary, check};
use crate::stages::Stages;
use crate::{ChatTemplate, TextError, file};
use tokenizers::Decoder;
use trit_format::manifest::TextInfo;

/// Longest text that is tokenized, in bytes. Tokenizing takes up to a hundred bytes of memory for each of them.
const MAX_TEXT: usize = 256 << 20;
/// Where no better bound is known, a text with more than this many bytes for each allowed token is refused without being
/// tokenized.
const PLAUSIBLE: usize = 1024;

/// Words, numbers, spaces, lines, marks and characters of two to four bytes.
const SAMPLE: &str = "It's 3 words, 12 numbers:\n\n  na\u{ef}ve \u{65e5}\u{672c}\u{8a9e} \u{1f642}\t<x> end.";
/// With this many tokens a vocabulary is meant to spell any text.
const FULL_VOCABULARY: usize = 256;

/// A model's tokenizer and what belongs to it. Immutable; encoding and decoding run on the calling thread.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    info: TextInfo,
    around: Around,
    /// Tokens that the model knows.
    model_tokens: u32,
    /// Tokens in the vocabulary.
    tokens: usize,
    /// Behind the highest id.
    end: u32,
    spells_all_bytes: bool,
    coverage: Option<Coverage>,
    stages: Option<Stages>,
    warnings: Vec<String>,
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json` for a model of `vocab_size` tokens. Truncation and padding stated there are
    /// ignored, as transformers does. The bytes may come from anybody, so what they ask for is bounded before it is done.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the part and what is wrong with it.
    pub fn new(json: &[u8], info: &TextInfo, vocab_size: u32) -> Result<Tokenizer, TextError> {
        let mut checked =
            file::read(json).and_then(|file| check(file, vocab_size)).map_err(TextError::Tokenizer)?;
        let byte_fallback = match &checked.vocabulary {
            Vocabulary::Bpe(Bpe { prefix, suffix, byte_fallback, .. }) => {
                let plain = |affix: &Option<String>| affix.as_ref().is_none_or(String::is_empty);
                (plain(prefix) && plain(suffix)).then_some(*byte_fallback)
            }
            Vocabulary::Unigram { byte_fallback, .. } => Some(*byte_fallback),
            Vocabulary::WordPiece { .. } | Vocabulary::WordLevel { .. } => None,
        };
        let spells_all_bytes = byte_fallback.is_some_and(|byte_fallback| {
            spells_all_bytes(&checked.ids, byte_fallback, [&checked.normalizer, &checked.pre_tokenizer])
        });
        let inner = assemble(&mut checked).map_err(TextError::Tokenizer)?;
        Ok(Tokenizer {
            inner,
            info: info.clone(),
            model_tokens: vocab_size,
            tokens: checked.ids.len(),
            end: checked.ids.values().max().map_or(0, |id| id.saturating_add(1)),
            spells_all_bytes,
            coverage: Coverage::new(&checked, spells_all_bytes),
            stages: Stages::new(&checked.decoder),
            around: checked.around,
            warnings: checked.warnings,
        })
    }

    /// Encodes a text and decodes it again. Gives what people should know of this tokenizer, a line each: ids that the
    /// model does not have, texts that do not come back.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`] and [`Tokenizer::decode`].
    pub fn try_out(&self) -> Result<Vec<String>, TextError> {
        let mut warnings = self.warnings.clone();
        // The text is ordinary; a tokenizer that gives ids beyond the model's for it is another model's.
        let back = self.encode(SAMPLE, false).and_then(|ids| self.decode(&ids, true));
        match back {
            Ok(back) if back != SAMPLE && (self.spells_all_bytes || self.tokens >= FULL_VOCABULARY) => {
                warnings.push(format!("a text does not come back as it was: {SAMPLE:?} becomes {back:?}"));
            }
            // Small vocabularies need not know every character.
            Err(TextError::Encode(problem)) if self.tokens < FULL_VOCABULARY => {
                warnings.push(format!("not every text can be tokenized: {problem}"));
            }
            back => drop(back?),
        }
        if self.stages.is_none() {
            warnings.push("decoder: text can be shown only when all of it is generated".to_owned());
        }
        Ok(warnings)
    }

    /// The ids of a text. `add_special` adds what `tokenizer.json` says stands around a text, usually a
    /// beginning-of-sequence token. Special tokens written out in the text become their ids either way.
    ///
    /// # Errors
    /// [`TextError::Encode`] where the vocabulary cannot express the text, or the model has no such token.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        if text.len() > MAX_TEXT {
            let problem = format!("it has {} bytes, expected no more than {MAX_TEXT}", text.len());
            return Err(TextError::Encode(problem));
        }
        let encoding = guarded("tokenizing", || self.inner.encode_fast(text, false));
        let encoding =
            encoding.and_then(|done| done.map_err(|e| e.to_string())).map_err(TextError::Encode)?;
        let ids = encoding.get_ids();
        if let Some(id) = ids.iter().find(|id| **id >= self.model_tokens) {
            let token = self.token_of(*id).unwrap_or_default();
            return Err(TextError::Encode(format!(
                "it holds {token:?}, whose id {id} is beyond the model's {} tokens",
                self.model_tokens
            )));
        }
        Ok(match add_special {
            true => [&self.around.before, ids, &self.around.after].concat(),
            false => ids.to_vec(),
        })
    }

    /// As [`Tokenizer::encode`], for a text that may have no more than `limit` tokens. A text that is far too long is
    /// refused without being tokenized.
    ///
    /// # Errors
    /// [`TextError::TooLong`], and as [`Tokenizer::encode`].
    pub fn encode_within(&self, text: &str, add_special: bool, limit: usize) -> Result<Vec<u32>, TextError> {
        let at_least = match &self.coverage {
            Some(coverage) => coverage
                .fewest(text, limit.saturating_add(1), || self.inner.get_vocab(true).into_keys().collect()),
            // Any amount of whitespace or of unknown text may go into one token, so there is no true bound. But nobody means to
            // send so much of it.
            None if text.len() / PLAUSIBLE > limit.saturating_add(PLAUSIBLE) => text.len() / PLAUSIBLE,
            None => 0,
        };
        if at_least > limit {
            return Err(TextError::TooLong { at_least, limit });
        }
        let ids = self.encode(text, add_special)?;
        match ids.len() {
            at_least if at_least > limit => Err(TextError::TooLong { at_least, limit }),
            _ => Ok(ids),
        }
    }

    /// The text of ids. `skip_special` leaves special tokens out. Ids outside the vocabulary give no text; bytes that
    /// are no UTF-8 give U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Decode`] where the decoder in `tokenizer.json` fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        let shown = |id: &u32| if skip_special { self.shown_token(*id) } else { self.token_of(*id) };
        let tokens: Vec<String> = ids.iter().filter_map(shown).collect();
        let Some(decoder) = self.inner.get_decoder().filter(|_| !tokens.is_empty()) else {
            return Ok(tokens.join(" "));
        };
        let text = guarded("decoder", || decoder.decode(tokens));
        text.and_then(|done| done.map_err(|e| e.to_string())).map_err(TextError::Decode)
    }

    /// The bytes that a token adds to a text which it does not begin. They need not be whole characters: bytes of several
    /// tokens, joined, are the text. Special tokens and ids that no token has add none. `None` where a token's text depends on
    /// the tokens beside it.
    pub fn bytes_in_text(&self, id: u32) -> Option<Vec<u8>> {
        let stages = self.stages.as_ref()?;
        let Some(token) = self.shown_token(id) else { return Some(Vec::new()) };
        guarded("decoder", || stages.bytes_in_text(&token)).ok()?
    }

    /// The id of a token as it stands in the vocabulary, such as `<|eot_id|>`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token as it stands in the vocabulary, by its id.
    pub fn token_of(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that a token stands for, where it may stand for a part of a character: the vocabulary goes by bytes, or
    /// this token is a byte spelled out. `None` for every other token, whose text is whole characters.
    pub fn bytes_of(&self, id: u32) -> Option<Vec<u8>> {
        self.stages.as_ref()?.bytes_of(&self.shown_token(id)?)
    }

    /// No token has this id or a higher one.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Whether the id is a special token, which stands for no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.token_of(id).is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// Tokens in the vocabulary, added ones included. A model's logits may have more.
    pub fn vocab_size(&self) -> usize {
        self.tokens
    }

    /// The model's chat template, compiled; `None` where it has none.
    ///
    /// # Errors
    /// [`TextError::Template`] where the template has a syntax error.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, TextError> {
        ChatTemplate::of(&self.info)
    }

    /// A token that is not special.
    pub(crate) fn shown_token(&self, id: u32) -> Option<String> {
        self.token_of(id).filter(|token| !self.inner.get_added_vocabulary().is_special_token(token))
    }

    /// The decoder, token by token, before the first.
    pub(crate) fn stages(&self) -> Option<&Stages> {
        self.stages.as_ref()
    }
}
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;
    use std::path::Path;

    /// The shipped model's tokenizer, with the text information the compiler would write for it.
    pub fn fables() -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/models/fables-12m");
        let read = |name: &str| {
            std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{folder:?}/{name}: {e}"))
        };
        let config: Value = serde_json::from_slice(&read("tokenizer_config.json")).unwrap();
        let named = |key: &str| (key.to_owned(), config[key].as_str().unwrap().to_owned());
        let info = TextInfo {
            chat_template: config["chat_template"].as_str().map(str::to_owned),
            special_tokens: vec![named("bos_token"), named("eos_token")],
            bos: Some(4093),
            stop: vec![4094, 4095],
            sampling: Default::default(),
        };
        Tokenizer::new(&read("tokenizer.json"), &info, 4096).unwrap()
    }

    /// What the compiler writes where nothing is known.
    pub fn info() -> TextInfo {
        TextInfo {
            chat_template: None,
            special_tokens: vec![],
            bos: None,
            stop: vec![],
            sampling: Default::default(),
        }
    }

    /// What the Hugging Face tokenizer in Python gives.
    pub fn cases() -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizer-cases.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    pub fn ids(value: &Value) -> Vec<u32> {
        value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
    }

    #[test]
    fn ids_and_text_are_those_of_hugging_face() {
        let tokenizer = fables();
        for case in cases()["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids"]), "{text:?}");
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids_no_special"]), "{text:?}");
            assert_eq!(
                tokenizer.decode(&ids(&case["ids"]), true).unwrap(),
                case["decoded"].as_str().unwrap()
            );
        }
    }

    #[test]
    fn the_vocabulary_can_be_asked() {
        let tokenizer = fables();
        assert_eq!(tokenizer.vocab_size(), 4096);
        assert_eq!(tokenizer.id_of("<|eot_id|>"), Some(4095));
        assert_eq!(tokenizer.id_of("no such token"), None);
        assert_eq!(tokenizer.token_of(4095).as_deref(), Some("<|eot_id|>"));
        assert_eq!(tokenizer.token_of(4096), None);
        assert!(tokenizer.is_special(4093));
        assert!(!tokenizer.is_special(46) && !tokenizer.is_special(u32::MAX));
        assert_eq!(tokenizer.decode(&[u32::MAX], false).unwrap(), "");
        // The bytes of tokens are those of the text, also where a character is more than one token.
        let text = "One day \u{1f642}";
        let bytes =
            tokenizer.encode(text, false).unwrap().into_iter().map(|id| tokenizer.bytes_of(id).unwrap());
        assert_eq!(bytes.collect::<Vec<_>>().concat(), text.as_bytes());
        assert_eq!((tokenizer.bytes_of(4095), tokenizer.bytes_of(u32::MAX)), (None, None));
    }

    #[test]
    fn the_bytes_of_tokens_join_to_the_text() {
        let tokenizer = fables();
        for case in cases()["cases"].as_array().unwrap() {
            let bytes: Vec<Vec<u8>> =
                ids(&case["ids"]).iter().map(|&id| tokenizer.bytes_in_text(id).unwrap()).collect();
            assert_eq!(bytes.concat(), case["decoded"].as_str().unwrap().as_bytes());
        }
        assert_eq!(tokenizer.bytes_in_text(162), Some(vec![0xe6]));
        assert_eq!(
            (tokenizer.bytes_in_text(4095), tokenizer.bytes_in_text(u32::MAX)),
            (Some(vec![]), Some(vec![]))
        );
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        for bytes in [&b""[..], b"{}", b"\xff\xfe", br#"{"version":"1.0","model":{"type":"Sorcery"}}"#] {
            let error = Tokenizer::new(bytes, &info(), 16).err().unwrap();
            assert!(matches!(error, TextError::Tokenizer(_)), "{error}");
        }
    }
}
