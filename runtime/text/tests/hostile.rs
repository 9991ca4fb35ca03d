//! Files that ask for too much, or contradict themselves, are refused with the part named, before the tokenizers library
//! sees them. All of them are harmless: each goes beyond one bound by a little.

use serde_json::{Value, json};
use trit_format::manifest::TextInfo;
use trit_text::{TextError, Tokenizer};

fn info() -> TextInfo {
    TextInfo {
        chat_template: None,
        special_tokens: vec![],
        bos: None,
        stop: vec![],
        sampling: Default::default(),
    }
}

/// Six ordinary tokens for a model of sixteen.
fn small() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 6, "content": "<s>", "special": true}],
        "model": {
            "type": "BPE",
            "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "##b": 4, "abc": 5},
            "merges": [["a", "b"], "ab c"],
        },
    })
}

fn made(file: &Value) -> Result<Tokenizer, TextError> {
    Tokenizer::new(file.to_string().as_bytes(), &info(), 16)
}

fn refused(file: &Value, words: &[&str]) {
    let error = made(file).err().unwrap_or_else(|| panic!("{words:?} is taken"));
    let TextError::Tokenizer(message) = &error else { panic!("{error:?}") };
    assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
}

fn bent(bend: impl FnOnce(&mut Value)) -> Value {
    let mut file = small();
    bend(&mut file);
    file
}

#[test]
fn the_file_is_taken_as_it_is() {
    let tokenizer = made(&small()).unwrap();
    assert_eq!(tokenizer.encode("abc<s>ca", true).unwrap(), [5, 6, 2, 0]);
    assert_eq!(tokenizer.vocab_size(), 7);
    // Unknown keys, padding and truncation are nobody's business here.
    let file = bent(|file| {
        file["truncation"] =
            json!({"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"});
        file["note"] = json!("x");
    });
    assert_eq!(made(&file).unwrap().encode("abca", true).unwrap(), [5, 0]);
}

#[test]
fn sizes_are_bounded() {
    let file = vec![b' '; (128 << 20) + 1];
    let error = Tokenizer::new(&file, &info(), 16).err().unwrap();
    assert!(error.to_string().contains("134217729 bytes"), "{error}");
    refused(&bent(|file| file["model"]["vocab"][&"a".repeat(4097)] = json!(7)), &["token of 4097 bytes"]);
    let added = json!([{"id": 7, "content": "a".repeat(4097)}]);
    refused(&bent(|file| file["added_tokens"] = added), &["added_tokens", "4097 bytes"]);
    let mut deep = json!({"type": "Strip"});
    for _ in 0..9 {
        deep = json!({"type": "Sequence", "normalizers": [deep]});
    }
    refused(&bent(|file| file["normalizer"] = deep), &["more than 16 levels"]);
    let wide = json!({"type": "Sequence", "decoders": vec![json!(0); 70_000]});
    refused(&bent(|file| file["decoder"] = wide), &["more than 65536 entries"]);
    let many: Vec<Value> = (0..300).map(|i| json!({"id": 20 + i, "content": format!("<{i}>")})).collect();
    refused(
        &bent(|file| file["added_tokens"] = many.into()),
        &["\"<299>\" has id 319", "vocab_size is 16", "another model"],
    );
    refused(
        &bent(|file| file["added_tokens"][0]["id"] = json!(70_000)),
        &["\"<s>\" has id 70000", "another model"],
    );
}

#[test]
fn vocabularies_must_hold_together() {
    refused(&bent(|file| file["model"]["vocab"] = json!({})), &["not both in the vocabulary"]);
    let empty = json!({"model": {"type": "BPE", "vocab": {}, "merges": []}});
    refused(&empty, &["model", "empty vocabulary"]);
    refused(&bent(|file| file["model"]["vocab"]["d"] = json!(2)), &["\"c\" and \"d\" the same id 2"]);
    refused(&bent(|file| file["model"]["vocab"]["d"] = json!(-2)), &["invalid value"]);
    refused(
        &bent(|file| file["model"]["merges"][0] = json!(["a", "x"])),
        &["model.merges[0]", "\"x\"", "not both"],
    );
    refused(
        &bent(|file| file["model"]["merges"][0] = json!(["b", "a"])),
        &["model.merges[0]", "not in the vocabulary"],
    );
    refused(&bent(|file| file["model"]["merges"][0] = json!(["b"])), &["not of two tokens"]);
    refused(&bent(|file| file["model"]["merges"][0] = json!("b a c")), &["b a c"]);
    let with_prefix = bent(|file| {
        file["model"]["continuing_subword_prefix"] = json!("##");
        file["model"]["merges"] = json!([["a", "abc"]]);
    });
    refused(&with_prefix, &["model.merges[0]", "continuing_subword_prefix"]);
    refused(&bent(|file| file["model"]["dropout"] = json!(0.1)), &["dropout", "remove it"]);
    refused(
        &bent(|file| file["model"]["end_of_word_suffix"] = json!("w".repeat(65))),
        &["end_of_word_suffix has 65"],
    );
    refused(&bent(|file| file["model"]["type"] = json!("Sorcery")), &["model: type is \"Sorcery\""]);
    refused(&bent(|file| file["version"] = json!("2.0")), &["version is \"2.0\""]);
    refused(&json!({"model": {"type": "WordPiece", "vocab": {"a": 0}}}), &["unk_token is missing"]);
    let words = json!({"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a",
        "continuing_subword_prefix": "##", "max_input_chars_per_word": 257}});
    refused(&words, &["max_input_chars_per_word is 257"]);
    let unigram = |vocab: Value| json!({"model": {"type": "Unigram", "unk_id": 1, "vocab": vocab}});
    refused(&unigram(json!([["a", 0.0]])), &["unk_id is 1", "1 tokens"]);
    refused(&unigram(json!([["a", 0.0], ["b".repeat(513), 0.0]])), &["token of 513 bytes"]);
    refused(&unigram(json!({"a": 0, "b": 1})), &["no list"]);
    assert!(made(&unigram(json!([["a", 0.0], ["b", -1.5]]))).is_ok());
}

#[test]
fn added_tokens_have_the_ids_that_the_file_says() {
    refused(&bent(|file| file["added_tokens"][0]["id"] = json!(5)), &["\"<s>\" has id 5", "that of \"abc\""]);
    // The library would number this one 6.
    let tokenizer = made(&bent(|file| file["added_tokens"][0]["id"] = json!(12))).unwrap();
    assert_eq!(tokenizer.encode("a<s>", false).unwrap(), [0, 12]);
    assert_eq!(tokenizer.decode(&[12, 0], false).unwrap(), "<s> a");
    // Of tokens that the vocabulary holds, its ids count, as in the library; that is said.
    let tokenizer = made(&bent(|file| file["added_tokens"][0]["content"] = json!("abc"))).unwrap();
    assert_eq!(tokenizer.encode("abc", false).unwrap(), [5]);
    assert!(tokenizer.try_out().unwrap()[0].contains("\"abc\" is listed with id 6, but has 5"));
    // A token of which the normalizer leaves nothing would be found between any two bytes.
    let file = bent(|file| {
        file["normalizer"] = json!({"type": "Strip", "strip_left": true, "strip_right": true});
        file["added_tokens"] = json!([{"id": 6, "content": "  ", "normalized": true}]);
    });
    refused(&file, &["added_tokens", "leaves nothing of \"  \""]);
}

#[test]
fn ids_that_the_model_does_not_have_are_kept_until_a_text_holds_them() {
    let tokenizer = made(&bent(|file| file["added_tokens"][0]["id"] = json!(16))).unwrap();
    assert_eq!(tokenizer.encode("abc", false).unwrap(), [5]);
    let error = tokenizer.encode("a<s>", false).unwrap_err().to_string();
    assert!(error.contains("\"<s>\"") && error.contains("id 16") && error.contains("16 tokens"), "{error}");
    let warnings = tokenizer.try_out().unwrap();
    assert!(warnings[0].contains("\"<s>\" has id 16") && warnings.len() == 1, "{warnings:?}");
    let around = bent(|file| {
        file["added_tokens"][0]["id"] = json!(16);
        file["post_processor"] = json!({"type": "BertProcessing", "cls": ["<s>", 16], "sep": ["a", 0]});
    });
    refused(&around, &["post_processor", "id 16 around every text", "16 tokens"]);
}

#[test]
fn files_without_types_are_the_first_ones() {
    let mut file = small();
    file["model"].as_object_mut().unwrap().remove("type");
    file["model"]["merges"] = json!(["#version: 0.2", "a b", "ab c"]);
    assert_eq!(made(&file).unwrap().encode("abc", false).unwrap(), [5]);
    let words = json!({"model": {"vocab": {"a": 0, "?": 1}, "unk_token": "?"}});
    assert_eq!(made(&words).unwrap().encode("b", false).unwrap(), [1]);
}
