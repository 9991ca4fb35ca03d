//! `tokenizer.json` to ids and back, as the model's authors defined it.

use crate::{ChatTemplate, Message, TextError};
use tokenizers::TokenizerImpl;
use trit_format::manifest::TextInfo;

/// A model's tokenizer and what belongs to it. Immutable; encoding and decoding run on the calling thread.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    info: TextInfo,
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`. Truncation and padding stated there are ignored, as transformers does.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with what the tokenizer library found wrong.
    pub fn new(json: &[u8], info: &TextInfo) -> Result<Tokenizer, TextError> {
        let failed = |e: tokenizers::Error| TextError::Tokenizer(e.to_string());
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(failed)?;
        let settings: &mut TokenizerImpl<_, _, _, _, _> = &mut inner;
        settings.with_padding(None).with_truncation(None).map_err(failed)?;
        Ok(Tokenizer { inner, info: info.clone() })
    }

    /// The ids of a text. `add_special` adds what `tokenizer.json` says stands around a text, usually a
    /// beginning-of-sequence token. Special tokens written out in the text become their ids either way.
    ///
    /// # Errors
    /// [`TextError::Encode`] where the vocabulary cannot express the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let encoding =
            self.inner.encode_fast(text, add_special).map_err(|e| TextError::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids. `skip_special` leaves special tokens out. Ids outside the vocabulary give no text; bytes that
    /// are no UTF-8 give U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Decode`] where the decoder in `tokenizer.json` fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.inner.decode(ids, skip_special).map_err(|e| TextError::Decode(e.to_string()))
    }

    /// The id of a token as it stands in the vocabulary, such as `<|eot_id|>`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token as it stands in the vocabulary, where bytes and spaces may be spelled with other characters; `None` for an
    /// id outside it.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether the id is a special token, which stands for no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .simple_id_to_token(id)
            .is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// Tokens in the vocabulary, added ones included. A model's logits may have more.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The model's chat template, compiled; `None` where it has none.
    ///
    /// # Errors
    /// [`TextError::Template`] where the template has a syntax error.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, TextError> {
        let compile = |source: &String| ChatTemplate::new(source, &self.info.special_tokens);
        self.info.chat_template.as_ref().map(compile).transpose()
    }

    /// The ids of a conversation that the model is to continue. The template writes special tokens itself, so none
    /// are added; there is one beginning-of-sequence token, not two.
    ///
    /// # Errors
    /// [`TextError::Template`] where the template refuses the conversation, [`TextError::Encode`].
    pub fn encode_chat(&self, template: &ChatTemplate, messages: &[Message]) -> Result<Vec<u32>, TextError> {
        self.encode(&template.render(messages, true)?, false)
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
        Tokenizer::new(&read("tokenizer.json"), &info).unwrap()
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
        assert_eq!(tokenizer.piece(4095).as_deref(), Some("<|eot_id|>"));
        assert_eq!(tokenizer.piece(4096), None);
        assert!(tokenizer.is_special(4093));
        assert!(!tokenizer.is_special(46) && !tokenizer.is_special(u32::MAX));
        assert_eq!(tokenizer.decode(&[u32::MAX], false).unwrap(), "");
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let info = TextInfo {
            chat_template: None,
            special_tokens: vec![],
            bos: None,
            stop: vec![],
            sampling: Default::default(),
        };
        for bytes in [&b""[..], b"{}", b"\xff\xfe", br#"{"version":"1.0","model":{"type":"Sorcery"}}"#] {
            let error = Tokenizer::new(bytes, &info).err().unwrap();
            assert!(matches!(error, TextError::Tokenizer(_)), "{error}");
        }
    }
}
