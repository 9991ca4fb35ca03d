//! Ids become text while they are generated.
//!
//! All pieces that it gives, joined, are the text that [`Tokenizer::decode`] gives for all ids at once without special
//! tokens. A piece that was given out is never taken back, so text is held back as long as a later token can change it:
//!
//! - The bytes of a character are held until it is whole. That takes three tokens at most.
//! - Tokens of single bytes, with which SentencePiece spells what it has no tokens for, are held until another token
//!   ends their run, or a byte fits no character: the decoder makes U+FFFD of *every* byte of a run that is not UTF-8 as
//!   a whole. A byte is held for each such token.
//! - Where a decoder's text depends on tokens that come much later (a regular expression over the joined text), all of it
//!   is, until the end.
//!
//! For ids that continue a prompt, the text is what they add to the prompt's text: `decode(prompt + ids)` without
//! `decode(prompt)`, with which it begins. A character never lies across the two, because the bytes at the end of a prompt and
//! those that follow it count as two runs.

use crate::stages::Stages;
use crate::{TextError, Tokenizer};
use std::borrow::Borrow;

/// Turns one id after the other into text. Special tokens, and ids that no token has, give none.
pub struct Detokenizer<T> {
    /// Borrowed or shared.
    tokenizer: T,
    state: State,
}

enum State {
    Stages(Stages),
    /// Everything is held: the prompt and what came after.
    Whole {
        prompt: Vec<u32>,
        ids: Vec<u32>,
    },
}

impl<T: Borrow<Tokenizer>> Detokenizer<T> {
    /// A stream whose first token begins a text.
    pub fn new(tokenizer: T) -> Detokenizer<T> {
        Detokenizer::after(tokenizer, &[])
    }

    /// A stream whose first token continues `prompt`, whose own text is not given out.
    pub fn after(tokenizer: T, prompt: &[u32]) -> Detokenizer<T> {
        let Some(stages) = tokenizer.borrow().stages().cloned() else {
            return Detokenizer {
                tokenizer,
                state: State::Whole { prompt: prompt.to_vec(), ids: Vec::new() },
            };
        };
        let mut stream = Detokenizer { tokenizer, state: State::Stages(stages) };
        // A prompt on which the decoder fails is treated like one without text.
        for &id in prompt {
            let _ = stream.push(id);
        }
        let _ = stream.finish();
        stream
    }

    /// Takes the next id and gives the text that became certain: often one word, nothing inside a character.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        match &mut self.state {
            State::Stages(stages) => match self.tokenizer.borrow().shown_token(id) {
                Some(token) => guarded(|| stages.push(token)),
                None => Ok(String::new()),
            },
            State::Whole { ids, .. } => {
                ids.push(id);
                Ok(String::new())
            }
        }
    }

    /// Gives the text that is held back, even if it ends inside a character. Tokens after that continue the text.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn finish(&mut self) -> Result<String, TextError> {
        match &mut self.state {
            State::Stages(stages) => guarded(|| stages.finish()),
            State::Whole { prompt, ids } => {
                let tokenizer = self.tokenizer.borrow();
                let before = tokenizer.decode(prompt, true)?;
                let alone = tokenizer.decode(ids, true)?;
                prompt.append(ids);
                let all = tokenizer.decode(prompt, true)?;
                Ok(all.strip_prefix(&before).map_or(alone, str::to_owned))
            }
        }
    }
}

fn guarded(work: impl FnOnce() -> String) -> Result<String, TextError> {
    crate::guard::guarded("decoder", work).map_err(TextError::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{cases, fables, ids, info};

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
        Tokenizer::new(json.to_string().as_bytes(), &info(), 261).unwrap()
    }

    fn pieces(stream: &mut Detokenizer<&Tokenizer>, ids: &[u32]) -> Vec<String> {
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
        assert_eq!(text, "\u{FFFD}".repeat(99));
        let rest: String = [245, 98].map(|id| stream.push(id).unwrap()).concat();
        assert_eq!(rest, "日");
    }

    #[test]
    fn special_tokens_give_nothing() {
        let tokenizer = fables();
        let mut stream = Detokenizer::new(&tokenizer);
        assert!((0..1000).all(|_| stream.push(4095).unwrap().is_empty()));
        // Nor do they come between the bytes of a character.
        let pieces: Vec<String> = [162, 4095, 245, 98].map(|id| stream.push(id).unwrap()).into();
        assert_eq!(pieces, ["", "", "", "日"]);
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
    fn sentencepiece_bytes_become_characters_when_their_run_ends() {
        let tokenizer = sentencepiece();
        let bytes: Vec<u32> = "é日".bytes().map(u32::from).collect();
        assert_eq!(pieces(&mut Detokenizer::new(&tokenizer), &bytes), ["", "", "", "", "", "é日"]);
        let ended = [&bytes[..], &[258]].concat();
        assert_eq!(pieces(&mut Detokenizer::new(&tokenizer), &ended), ["", "", "", "", "", "é日 one", ""]);
        // One character that breaks off makes all of its run unreadable, and that is known at once only if a byte says so.
        let broken = [&bytes[..3], &[258]].concat();
        let all = "\u{FFFD}\u{FFFD}\u{FFFD} one";
        assert_eq!(pieces(&mut Detokenizer::new(&tokenizer), &broken), ["", "", "", all, ""]);
        let broken = [&bytes[..2], &[0xff, 0x41]].concat();
        let (three, one) = ("\u{FFFD}\u{FFFD}\u{FFFD}", "\u{FFFD}");
        assert_eq!(pieces(&mut Detokenizer::new(&tokenizer), &broken), ["", "", three, one, ""]);
    }

    #[test]
    fn bytes_of_single_tokens() {
        let tokenizer = sentencepiece();
        for (id, bytes) in
            [(0xe6, &b"\xe6"[..]), (0x41, b"A"), (256, b""), (257, b" "), (258, b" one"), (260, b"s")]
        {
            assert_eq!(tokenizer.bytes_in_text(id).as_deref(), Some(bytes), "{id}");
        }
        // What a WordPiece decoder tidies up, and the suffix of a last word, depend on other tokens.
        let words = |decoder: serde_json::Value| {
            let json = serde_json::json!({
                "version": "1.0",
                "model": {"type": "WordPiece", "vocab": {"one": 0, "##s": 1, "[UNK]": 2}, "unk_token": "[UNK]",
                          "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
                "decoder": decoder,
            });
            Tokenizer::new(json.to_string().as_bytes(), &info(), 3).unwrap()
        };
        let tidy = words(serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true}));
        assert_eq!(tidy.bytes_in_text(0), None);
        let plain = words(serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": false}));
        assert_eq!([0, 1].map(|id| plain.bytes_in_text(id).unwrap()), [b" one".to_vec(), b"s".to_vec()]);
        let suffix = words(serde_json::json!({"type": "BPEDecoder", "suffix": "</w>"}));
        assert_eq!(suffix.bytes_in_text(0), None);
    }

    #[test]
    fn bytes_at_the_end_of_a_prompt_are_not_repeated() {
        let tokenizer = sentencepiece();
        let prompt: Vec<u32> = "日".bytes().map(u32::from).collect();
        assert_eq!(pieces(&mut Detokenizer::after(&tokenizer, &prompt), &[258]), [" one", ""]);
        let mut stream = Detokenizer::after(&tokenizer, &prompt[..2]);
        assert_eq!(pieces(&mut stream, &prompt[2..]), ["\u{FFFD}", ""]);
    }
}
