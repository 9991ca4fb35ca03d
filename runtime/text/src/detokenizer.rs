//! Ids become text while they are generated.
//!
//! A token may be part of a character, and its text may depend on the one before it (a SentencePiece decoder drops the
//! space before the first word). So text is decoded in a window: tokens already shown, for context, then those held
//! back because they end inside a character.

use crate::{TextError, Tokenizer};

/// Tokens before the first generated one that give it context.
const CONTEXT: usize = 6;
/// With this many tokens held back, the oldest of them cannot begin a character: every token is at least a byte, a
/// character at most four.
const HELD: usize = 8;
/// Tokens that the beginning of an unfinished character may take.
const UNFINISHED: usize = 3;

/// Turns one id after the other into text. Special tokens give none.
pub struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    /// `shown` tokens whose text was given out, then those held back.
    window: Vec<u32>,
    shown: usize,
}

impl<'t> Detokenizer<'t> {
    /// A stream whose first token begins a text.
    pub fn new(tokenizer: &'t Tokenizer) -> Detokenizer<'t> {
        Detokenizer::after(tokenizer, &[])
    }

    /// A stream whose first token continues `prompt`, whose own text is not given out.
    pub fn after(tokenizer: &'t Tokenizer, prompt: &[u32]) -> Detokenizer<'t> {
        let text: Vec<u32> = prompt.iter().copied().filter(|&id| !tokenizer.is_special(id)).collect();
        let window = text[text.len().saturating_sub(CONTEXT)..].to_vec();
        Detokenizer { tokenizer, shown: window.len(), window }
    }

    /// Takes the next id and gives the text that became certain: often one word, nothing inside a character.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        if self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        self.window.push(id);
        let text = self.held()?;
        if text.ends_with('\u{FFFD}') {
            return match self.window.len() - self.shown {
                HELD.. => self.give(self.window.len() - UNFINISHED),
                _ => Ok(String::new()),
            };
        }
        // A token without text of its own may still matter to the next one, but need not be held for ever.
        if text.is_empty() && self.window.len() - self.shown < HELD {
            return Ok(text);
        }
        self.advance(self.window.len());
        Ok(text)
    }

    /// Gives what is held back, however it ends, and starts anew.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn finish(&mut self) -> Result<String, TextError> {
        self.give(self.window.len())
    }

    /// Text of the tokens held back.
    fn held(&self) -> Result<String, TextError> {
        let before = self.tokenizer.decode(&self.window[..self.shown], true)?;
        let all = self.tokenizer.decode(&self.window, true)?;
        match all.strip_prefix(before.as_str()) {
            Some(text) => Ok(text.to_owned()),
            // A SentencePiece byte that breaks a run of bytes changes the text before it, which was given out.
            None => self.tokenizer.decode(&self.window[self.shown..], true),
        }
    }

    fn give(&mut self, end: usize) -> Result<String, TextError> {
        let rest = self.window.split_off(end);
        let text = self.held();
        self.window.extend(rest);
        self.advance(end);
        text
    }

    /// Marks tokens before `end` as shown and forgets those that are no context any more.
    fn advance(&mut self, end: usize) {
        let forget = end.saturating_sub(CONTEXT);
        self.window.drain(..forget);
        self.shown = end - forget;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{cases, fables, ids};
    use trit_format::manifest::TextInfo;

    /// A SentencePiece tokenizer with byte fallback, as Llama 2 has: tokens 0 to 255 are bytes, 256 is `<s>`.
    fn sentencepiece() -> Tokenizer {
        let mut vocab: serde_json::Map<String, serde_json::Value> =
            (0..256).map(|b| (format!("<0x{b:02X}>"), b.into())).collect();
        for (id, piece) in [(256, "<s>"), (257, "▁"), (258, "▁one"), (259, "▁two"), (260, "s")] {
            vocab.insert(piece.into(), id.into());
        }
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [{"id": 256, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                              "normalized": false, "special": true}],
            "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true, "fuse_unk": true},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        });
        let info = TextInfo {
            chat_template: None,
            special_tokens: vec![],
            bos: Some(256),
            stop: vec![],
            sampling: Default::default(),
        };
        Tokenizer::new(json.to_string().as_bytes(), &info).unwrap()
    }

    fn pieces(stream: &mut Detokenizer, ids: &[u32]) -> Vec<String> {
        let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn pieces_join_to_the_whole_text_and_split_no_character() {
        let tokenizer = fables();
        for case in cases()["cases"].as_array().unwrap() {
            let pieces = pieces(&mut Detokenizer::new(&tokenizer), &ids(&case["ids"]));
            assert!(pieces.iter().all(|p| !p.contains('\u{FFFD}')), "{pieces:?}");
            assert_eq!(pieces.concat(), case["decoded"].as_str().unwrap());
        }
    }

    #[test]
    fn a_character_of_several_tokens_comes_out_whole() {
        let tokenizer = fables();
        let ids = tokenizer.encode("日本", false).unwrap();
        assert_eq!(ids, [162, 245, 98, 162, 250, 105]);
        assert_eq!(pieces(&mut Detokenizer::new(&tokenizer), &ids), ["", "", "日", "", "", "本", ""]);
        assert_eq!(pieces(&mut Detokenizer::new(&tokenizer), &ids[..4]), ["", "", "日", "", "\u{FFFD}"]);
    }

    #[test]
    fn bytes_that_never_become_a_character_are_not_held_for_ever() {
        let tokenizer = fables();
        let mut stream = Detokenizer::new(&tokenizer);
        let text: String = (0..100).map(|_| stream.push(162).unwrap()).collect();
        assert!(text.chars().count() > 90 && text.chars().all(|c| c == '\u{FFFD}'));
        assert!(stream.window.len() < 2 * HELD);
        let rest: String = [245, 98].map(|id| stream.push(id).unwrap()).concat();
        assert!(rest.ends_with('日'), "{rest:?}");
    }

    #[test]
    fn special_tokens_give_nothing_and_are_not_collected() {
        let tokenizer = fables();
        let mut stream = Detokenizer::new(&tokenizer);
        assert!((0..1000).all(|_| stream.push(4095).unwrap().is_empty()));
        assert!(stream.window.is_empty());
    }

    #[test]
    fn sentencepiece_words_keep_their_spaces() {
        let tokenizer = sentencepiece();
        assert_eq!(
            pieces(&mut Detokenizer::new(&tokenizer), &[258, 259, 260, 258]),
            ["one", " two", "s", " one", ""]
        );
        let mut stream = Detokenizer::after(&tokenizer, &[256, 258]);
        assert_eq!(pieces(&mut stream, &[259, 260]), [" two", "s", ""]);
        let mut stream = Detokenizer::new(&tokenizer);
        assert_eq!(pieces(&mut stream, &[257, 257, 260]), ["", " ", "s", ""]);
    }

    #[test]
    fn sentencepiece_bytes_become_characters() {
        let tokenizer = sentencepiece();
        let bytes: Vec<u32> = "é日".bytes().map(u32::from).collect();
        assert_eq!(pieces(&mut Detokenizer::new(&tokenizer), &bytes), ["", "é", "", "", "日", ""]);
        // The second character breaks off; the first was right when it was given out and stays.
        let broken = [&bytes[..3], &[258]].concat();
        assert_eq!(pieces(&mut Detokenizer::new(&tokenizer), &broken).concat(), "é\u{FFFD} one");
    }
}
