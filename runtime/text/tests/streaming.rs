//! Streamed pieces, joined, are the tokenizers library's whole decode, for random ids and every kind of decoder.

use serde_json::{Map, Value, json};
use trit_format::manifest::TextInfo;
use trit_text::{Detokenizer, Tokenizer};

const SPACE: &str = "\u{2581}";

/// Numbers that look random, and are the same each time (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// One tokenizer, ours and the library's.
struct Pair {
    ours: Tokenizer,
    theirs: tokenizers::Tokenizer,
    /// The id of each byte.
    bytes: Vec<u32>,
    /// Ids that are none of the vocabulary's lie beyond.
    end: usize,
}

impl Pair {
    fn new(json: &[u8], bytes: impl Fn(&tokenizers::Tokenizer, u8) -> u32) -> Pair {
        let info = TextInfo {
            chat_template: None,
            special_tokens: vec![],
            bos: None,
            stop: vec![],
            sampling: Default::default(),
        };
        let theirs = tokenizers::Tokenizer::from_bytes(json).unwrap();
        let end = theirs.get_vocab_size(true);
        let bytes = (0..=255).map(|byte| bytes(&theirs, byte)).collect();
        Pair { ours: Tokenizer::new(json, &info, end as u32).unwrap(), theirs, bytes, end }
    }

    /// Tokens of all kinds, characters spelled in bytes whole and broken, special tokens, ids of no token.
    fn ids(&self, random: &mut Random) -> Vec<u32> {
        let mut ids = Vec::new();
        for _ in 0..random.below(12) {
            match random.below(8) {
                0 | 1 => ids.push(random.below(self.end) as u32),
                2 => ids.push(random.below(self.end + 3) as u32),
                3 => ids.extend((0..random.below(4)).map(|_| self.bytes[random.below(256)])),
                4 => ids
                    .extend(["<s>", "</s>", "<|eot_id|>"].iter().filter_map(|t| self.theirs.token_to_id(t))),
                _ => {
                    let character =
                        ['a', '\u{e9}', '\u{65e5}', '\u{1f642}', ' ', '\u{fffd}'][random.below(6)];
                    let mut buffer = [0; 4];
                    let bytes = character.encode_utf8(&mut buffer).as_bytes();
                    let mut spelled: Vec<u32> =
                        bytes.iter().map(|byte| self.bytes[usize::from(*byte)]).collect();
                    // Some characters break off, some have a special token in them.
                    match random.below(6) {
                        0 => spelled.truncate(random.below(spelled.len())),
                        1 => spelled.insert(
                            random.below(spelled.len()),
                            self.theirs.token_to_id("<s>").unwrap_or(u32::MAX),
                        ),
                        _ => {}
                    }
                    ids.extend(spelled);
                }
            }
        }
        ids
    }

    fn streamed(&self, mut stream: Detokenizer<&Tokenizer>, ids: &[u32]) -> String {
        let mut text: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        text.push_str(&stream.finish().unwrap());
        text
    }

    /// Compares `count` random sequences.
    fn compare(&self, count: usize) {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for _ in 0..count {
            let ids = self.ids(&mut random);
            let whole = self.theirs.decode(&ids, true).unwrap();
            assert_eq!(self.ours.decode(&ids, true).unwrap(), whole, "{ids:?}");
            assert_eq!(self.streamed(Detokenizer::new(&self.ours), &ids), whole, "{ids:?}");
        }
    }

    /// The same for texts that continue a prompt, as the module of the stream defines them. `ends` is a prompt's last id.
    fn compare_after_prompts(&self, count: usize, ends: u32) {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..count {
            let (mut prompt, ids) = (self.ids(&mut random), self.ids(&mut random));
            prompt.push(ends);
            let before = self.theirs.decode(&prompt, true).unwrap();
            let all = self.theirs.decode(&[&prompt[..], &ids].concat(), true).unwrap();
            let text = self.streamed(Detokenizer::after(&self.ours, &prompt), &ids);
            assert_eq!(before + &text, all, "{prompt:?} {ids:?}");
        }
    }
}

fn fables() -> Pair {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/models/fables-12m/tokenizer.json");
    let json = std::fs::read(path).unwrap();
    // As GPT-2 spells bytes: those that can be seen are themselves, the others are numbered from 256 on.
    let seen = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    Pair::new(&json, |theirs, byte| {
        let unseen = (0..byte).filter(|byte| !seen(byte)).count() as u32;
        let letter = if seen(&byte) { char::from(byte) } else { char::from_u32(256 + unseen).unwrap() };
        theirs.token_to_id(&letter.to_string()).unwrap()
    })
}

/// Tokens 0 to 255 are bytes; then special tokens and words.
fn with_decoder(decoder: Value) -> Pair {
    let mut vocab: Map<String, Value> = (0..256).map(|b| (format!("<0x{b:02X}>"), b.into())).collect();
    let space = |word: &str| format!("{SPACE}{word}");
    let words = [
        "<s>".to_owned(),
        "</s>".to_owned(),
        SPACE.to_owned(),
        space("one"),
        space(SPACE),
        "s".to_owned(),
        "##ing".to_owned(),
        "end</w>".to_owned(),
        "</w>in</w>".to_owned(),
        ".".to_owned(),
        "do not".to_owned(),
        "\u{e9}".to_owned(),
        " n't".to_owned(),
        "<0xé>".to_owned(),
    ];
    vocab.extend(words.into_iter().zip(256..).map(|(word, id)| (word, id.into())));
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let json = json!({
        "version": "1.0",
        "added_tokens": [special(256, "<s>"), special(257, "</s>")],
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true, "fuse_unk": true},
        "decoder": decoder,
    });
    Pair::new(json.to_string().as_bytes(), |_, byte| byte.into())
}

fn replace(from: &str, to: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": from}, "content": to})
}

fn sequence(decoders: Value) -> Value {
    json!({"type": "Sequence", "decoders": decoders})
}

/// As Llama 2 has it.
fn llama() -> Value {
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    sequence(json!([replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, strip]))
}

#[test]
fn byte_level() {
    let pair = fables();
    pair.compare(100_000);
    let word = pair.theirs.token_to_id("the").unwrap();
    pair.compare_after_prompts(20_000, word);
}

#[test]
fn byte_fallback() {
    let pair = with_decoder(llama());
    pair.compare(100_000);
    pair.compare_after_prompts(20_000, 259);
}

#[test]
fn other_decoders() {
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": true});
    let strip = |count: u32| json!({"type": "Strip", "content": " ", "start": count, "stop": 0});
    let word_piece = |cleanup: bool| json!({"type": "WordPiece", "prefix": "##", "cleanup": cleanup});
    let bytes = json!({"type": "ByteFallback"});
    let fuse = json!({"type": "Fuse"});
    let decoders = [
        json!(null),
        bytes.clone(),
        fuse.clone(),
        metaspace("always"),
        metaspace("first"),
        metaspace("never"),
        word_piece(true),
        word_piece(false),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        strip(2),
        sequence(json!([])),
        sequence(json!([bytes, metaspace("always")])),
        sequence(json!([bytes, fuse, metaspace("always")])),
        sequence(json!([bytes, fuse, replace(SPACE, "__"), strip(3)])),
        sequence(json!([replace(SPACE, " "), bytes, fuse])),
        sequence(json!([{"type": "BPEDecoder", "suffix": "</w>"}, bytes])),
        sequence(json!([bytes, fuse, word_piece(false)])),
        // Those that show all at the end.
        sequence(json!([bytes, fuse, replace("one", "two")])),
        sequence(json!([fuse, bytes])),
        sequence(json!([bytes, fuse, word_piece(true)])),
        json!({"type": "CTC", "pad_token": "s", "word_delimiter_token": "|", "cleanup": true}),
    ];
    for decoder in decoders {
        with_decoder(decoder).compare(10_000);
    }
}

#[test]
fn other_decoders_after_prompts() {
    let bytes = json!({"type": "ByteFallback"});
    let decoders = [
        json!(null),
        json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true}),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        sequence(json!([replace(SPACE, " "), bytes, {"type": "Fuse"}])),
        sequence(json!([bytes, {"type": "Fuse"}, replace("one", "two")])),
    ];
    for decoder in decoders {
        with_decoder(decoder).compare_after_prompts(5_000, 263);
    }
}

#[test]
fn a_long_run_of_bytes_takes_linear_time() {
    let pair = with_decoder(llama());
    let ids: Vec<u32> = "\u{65e5}".repeat(200_000).bytes().map(u32::from).collect();
    assert_eq!(pair.streamed(Detokenizer::new(&pair.ours), &ids), "\u{65e5}".repeat(200_000));
    let broken = [&ids[..], &[0xff; 100_000]].concat();
    assert_eq!(pair.streamed(Detokenizer::new(&pair.ours), &broken), "\u{fffd}".repeat(700_000));
}
