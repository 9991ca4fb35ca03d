//! Whatever is chosen among what is allowed, the text is one of the grammar's; and no grammar takes for ever.

use super::*;
use serde_json::{Value, json};
use std::path::Path;
use trit_format::manifest::TextInfo;

fn info(stop: &[u32]) -> TextInfo {
    TextInfo {
        chat_template: None,
        special_tokens: vec![],
        bos: None,
        stop: stop.to_vec(),
        sampling: Default::default(),
    }
}

/// A vocabulary with what ends a text in it.
struct Words {
    name: &'static str,
    tokenizer: Tokenizer,
    stop: Vec<u32>,
    vocab: u32,
}

impl Words {
    fn new(name: &'static str, json: Value, stop: &[u32], vocab: u32) -> Words {
        let tokenizer = Tokenizer::new(json.to_string().as_bytes(), &info(stop), vocab).unwrap();
        Words { name, tokenizer, stop: stop.to_vec(), vocab }
    }

    fn factory(&self) -> GuideFactory {
        GuideFactory::of(&self.tokenizer, &self.stop, self.vocab).unwrap()
    }

    fn text(&self, ids: &[u32]) -> String {
        let bytes: Vec<Vec<u8>> = ids.iter().map(|&id| self.tokenizer.bytes_in_text(id).unwrap()).collect();
        String::from_utf8(bytes.concat()).unwrap()
    }
}

/// The shipped model's: byte-level BPE, in which a character may take several tokens.
fn byte_level() -> Words {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/fables-12m/tokenizer.json");
    let json: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    Words::new("byte-level BPE", json, &[4094, 4095], 4096)
}

/// What stands in the hand-made vocabularies beside single characters. Some tokens cross the parts of JSON.
const PIECES: [&str; 18] = [
    "{\"",
    "\":",
    "\"}",
    ",▁\"",
    "▁{",
    "}}",
    "true",
    "false",
    "null",
    "one",
    "two",
    "na",
    "me",
    "日",
    "本",
    "語",
    "é",
    "▁▁▁▁",
];

/// Bytes, an end, a special token for thoughts that end, and pieces. A byte and a piece of one character are alike.
fn entries() -> Vec<String> {
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let ascii = (0x21..0x7f).map(|c: u8| char::from(c).to_string());
    let pieces = PIECES.iter().map(|piece| (*piece).to_owned());
    bytes
        .chain(["</s>", "</think>"].map(str::to_owned))
        .chain(["▁".to_owned()])
        .chain(ascii)
        .chain(pieces)
        .collect()
}

fn sentencepiece(model: Value, normalizer: Value, decoder: Value, name: &'static str) -> Words {
    let vocab = entries().len() as u32;
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let json = json!({
        "version": "1.0", "added_tokens": [special(256, "</s>"), special(257, "</think>")],
        "normalizer": normalizer, "model": model, "decoder": decoder,
    });
    Words::new(name, json, &[256], vocab)
}

/// As Llama 2 has it.
fn byte_fallback() -> Words {
    let vocab: serde_json::Map<String, Value> = entries().into_iter().zip((0..).map(Value::from)).collect();
    let model = json!({"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true, "fuse_unk": true});
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    sentencepiece(model, Value::Null, decoder, "SentencePiece with byte fallback")
}

/// As T5's descendants have it.
fn unigram() -> Words {
    let vocab: Vec<Value> = entries().into_iter().map(|entry| json!([entry, -1.0])).collect();
    let model = json!({"type": "Unigram", "vocab": vocab, "unk_id": 0});
    let decoder = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false});
    sentencepiece(model, Value::Null, decoder, "Unigram")
}

fn families() -> Vec<Words> {
    vec![byte_level(), byte_fallback()]
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A text of tokens chosen by chance, in the end such as bring it to its end. `ends` says of a text whether it may end.
fn walk(words: &Words, guide: &mut dyn Guide, random: &mut Random, ends: &dyn Fn(&str) -> bool) -> String {
    let mut ids = Vec::new();
    for step in 0.. {
        let allowed: Vec<u32> = guide.allowed().unwrap_or_else(|e| panic!("{e}: {ids:?}")).iter().collect();
        let stops: Vec<bool> = words.stop.iter().map(|id| allowed.contains(id)).collect();
        assert!(stops.iter().all(|stop| *stop == stops[0]), "all stop ids or none");
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| words.tokenizer.bytes_in_text(id).unwrap()).collect();
        if let Ok(text) = std::str::from_utf8(&bytes) {
            assert_eq!(stops[0], ends(text), "{}: {text:?} may end", words.name);
        } else {
            assert!(!stops[0], "{}: ends inside a character", words.name);
        }
        if allowed == words.stop || (stops[0] && (step > 100 || random.below(6) == 0)) {
            guide.accept(words.stop[random.below(words.stop.len())]).unwrap();
            assert!(guide.allowed().unwrap().is_empty(), "nothing follows the end");
            return words.text(&ids);
        }
        let closes =
            |id: &&u32| matches!(words.tokenizer.bytes_in_text(**id).unwrap()[..], [b'"' | b'}' | b']', ..]);
        let closing = allowed.iter().find(closes).filter(|_| step > 60 || random.below(3) == 0);
        let id = loop {
            let id = closing.copied().unwrap_or(allowed[random.below(allowed.len())]);
            if !words.stop.contains(&id) {
                break id;
            }
        };
        guide.accept(id).unwrap();
        ids.push(id);
    }
    unreachable!("a walk ends")
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "tags": {"type": "array", "items": {"enum": ["one", "two", "日本"]}, "maxItems": 3},
            "home": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/place"}]}
        },
        "required": ["name", "age", "tags", "home"],
        "additionalProperties": false,
        "$defs": {"place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"],
                            "additionalProperties": false}}
    })
}

fn is_person(value: &Value) -> bool {
    let keys = value.as_object().is_some_and(|object| object.len() == 4);
    let name = value["name"].as_str().is_some_and(|name| (1..=12).contains(&name.chars().count()));
    let age = value["age"].as_u64().is_some_and(|age| age <= 130);
    let tags = value["tags"].as_array().is_some_and(|tags| {
        tags.len() <= 3 && tags.iter().all(|tag| ["one", "two", "日本"].contains(&tag.as_str().unwrap_or("")))
    });
    let home = &value["home"];
    let home =
        home.is_null() || home.as_object().is_some_and(|place| place.len() == 1 && place["lat"].is_number());
    keys && name && age && tags && home
}

fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

#[test]
fn walks_give_json_that_fits_its_schema() {
    for words in families().iter().chain([&unigram()]) {
        let (factory, mut random) = (words.factory(), Random(1));
        for _ in 0..30 {
            let mut guide = factory.guide(&Grammar::JsonSchema(person()), None).unwrap();
            let ends =
                |text: &str| text.ends_with('}') && parsed(text).is_some_and(|value| is_person(&value));
            let text = walk(words, &mut *guide, &mut random, &ends);
            assert!(is_person(&parsed(&text).unwrap()), "{}: {text}", words.name);
            let mut guide = factory.guide(&Grammar::JsonObject, None).unwrap();
            let ends =
                |text: &str| text.ends_with('}') && parsed(text).is_some_and(|value| value.is_object());
            let text = walk(words, &mut *guide, &mut random, &ends);
            assert!(parsed(&text).is_some_and(|value| value.is_object()), "{}: {text}", words.name);
        }
    }
}

#[test]
fn walks_give_texts_of_regular_expressions_and_choices() {
    let texts = ["é", "日本", "日本語", "a.b*c\\", "", "</s>"];
    let choice = Grammar::Choice(texts.map(str::to_owned).into());
    for words in families() {
        let (factory, mut random) = (words.factory(), Random(2));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..150 {
            let mut guide = factory.guide(&Grammar::Regex("[0-9]{2,3}(/[a-c]+é)?".into()), None).unwrap();
            let ends = |text: &str| {
                let (digits, rest) = text.split_once('/').unwrap_or((text, "aé"));
                let letters = rest.strip_suffix('é').unwrap_or("");
                (2..=3).contains(&digits.len())
                    && digits.bytes().all(|c| c.is_ascii_digit())
                    && !letters.is_empty()
                    && letters.bytes().all(|c| matches!(c, b'a'..=b'c'))
            };
            let text = walk(&words, &mut *guide, &mut random, &ends);
            assert!(ends(&text), "{}: {text}", words.name);
            let mut guide = factory.guide(&choice, None).unwrap();
            let text = walk(&words, &mut *guide, &mut random, &|text| texts.contains(&text));
            assert!(texts.contains(&&text[..]), "{}: {text}", words.name);
            seen.insert(text);
        }
        assert!(seen.len() == texts.len(), "{}: {seen:?}", words.name);
    }
}

#[test]
fn walks_give_texts_of_grammars() {
    let sums = "start: sum\nsum: term (\"+\" term)*\nterm: NUMBER | \"(\" sum \")\"\nNUMBER: /[0-9]{1,3}/\n";
    for words in families() {
        let (factory, mut random) = (words.factory(), Random(3));
        let complete = |text: &str| {
            let depth = text.chars().fold(0i32, |d, c| d + i32::from(c == '(') - i32::from(c == ')'));
            depth == 0 && text.ends_with(|c: char| c == ')' || c.is_ascii_digit())
        };
        for _ in 0..10 {
            let mut guide = factory.guide(&Grammar::Lark(sums.into()), None).unwrap();
            // Opening brackets are allowed without end, so that a walk by chance need not end; these steps suffice.
            let mut text = String::new();
            for _ in 0..200 {
                let allowed = guide.allowed().unwrap();
                let ends = words.stop.iter().all(|&id| allowed.contains(id));
                assert_eq!(ends, complete(&text), "{}: {text}", words.name);
                let ids: Vec<u32> = allowed.iter().filter(|id| !words.stop.contains(id)).collect();
                let id = ids[random.below(ids.len())];
                guide.accept(id).unwrap();
                text.push_str(&words.text(&[id]));
                assert!(text.bytes().all(|c| b"+()0123456789".contains(&c)), "{text}");
            }
        }
    }
}

/// A token may begin in one part of a grammar and end in another, and a byte may be written in two ways.
#[test]
fn tokens_may_cross_the_parts_of_a_grammar() {
    let words = byte_fallback();
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
                        "additionalProperties": false});
    let mut guide = words.factory().guide(&Grammar::JsonSchema(schema), None).unwrap();
    let id = |piece: &str| words.tokenizer.id_of(piece).unwrap();
    for step in ["{\"", "a", "\":", "true"] {
        assert!(guide.allowed().unwrap().contains(id(step)), "{step}");
        guide.accept(id(step)).unwrap();
    }
    let allowed = guide.allowed().unwrap();
    assert!(allowed.contains(id("}")) && allowed.contains(id("<0x7D>")) && !allowed.contains(id("}}")));
}

#[test]
fn a_grammar_may_begin_after_thoughts() {
    for words in families() {
        let factory = words.factory();
        let push = |guide: &mut dyn Guide, text: &str| {
            for byte in text.bytes() {
                let id = (0..words.vocab)
                    .find(|&id| words.tokenizer.bytes_in_text(id).unwrap() == [byte])
                    .unwrap();
                assert!(guide.allowed().unwrap().contains(id), "{}: {text:?}", words.name);
                guide.accept(id).unwrap();
            }
        };
        for space in ["", "\n\n"] {
            let mut guide = factory.guide(&Grammar::JsonObject, Some("</thoughts>")).unwrap();
            assert!(guide.allowed().unwrap().len() > words.vocab as usize / 2);
            push(&mut *guide, "Well, {\"a\": é}. <thoughts> </thought");
            assert!(!words.stop.iter().any(|&id| guide.allowed().unwrap().contains(id)));
            push(&mut *guide, &format!("s>{space}{{"));
            let text =
                walk(&words, &mut *guide, &mut Random(4), &|text| parsed(&format!("{{{text}")).is_some());
            assert!(parsed(&format!("{{{text}")).is_some(), "{text}");
        }
    }
    // The end of the thoughts may be a special token.
    let words = byte_fallback();
    let end = words.tokenizer.id_of("</think>").unwrap();
    for thoughts in [&[][..], &[300, 301]] {
        let mut guide = words.factory().guide(&Grammar::Choice(vec!["{".into()]), Some("</think>")).unwrap();
        for &id in thoughts.iter().chain([&end]) {
            assert!(guide.allowed().unwrap().contains(id));
            guide.accept(id).unwrap();
        }
        let allowed = guide.allowed().unwrap();
        assert!(allowed.contains(words.tokenizer.id_of("{").unwrap()) && !allowed.contains(end));
        assert!(!allowed.contains(words.tokenizer.id_of("a").unwrap()));
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let words = byte_fallback();
    let factory = words.factory();
    let big = "x".repeat(100_000);
    for (grammar, expected) in [
        (Grammar::JsonSchema(json!({"not": {"type": "string"}})), "not"),
        (
            Grammar::JsonSchema(
                json!({"type": "object", "properties": {"a": {"uniqueItems": true, "type": "array"}}}),
            ),
            "uniqueItems",
        ),
        (Grammar::JsonSchema(json!({"type": "integer", "minimum": 5, "maximum": 3})), "nsatisfiable"),
        (Grammar::JsonSchema(json!({"allOf": [{"type": "string"}, {"type": "number"}]})), "nsatisfiable"),
        (Grammar::JsonSchema(json!(false)), "false"),
        (Grammar::JsonSchema(json!({"type": "sorcery"})), "sorcery"),
        (Grammar::JsonSchema(json!({"$ref": "https://example.com/schema"})), "example.com"),
        (Grammar::JsonSchema(json!({"$ref": "#/$defs/none"})), "none"),
        (Grammar::JsonSchema(json!([1])), "[1]"),
        (Grammar::JsonSchema(json!({"type": "string", "pattern": "("})), "("),
        (Grammar::JsonSchema(json!({"enum": ["x".repeat(600_000)]})), "bytes"),
        (Grammar::Regex(String::new()), "empty"),
        (Grammar::Regex("(".into()), "("),
        (Grammar::Regex(big.clone()), "bytes"),
        (Grammar::Lark("start: nothing".into()), "nothing"),
        (Grammar::Lark("start: <|nobody|>".into()), "<|nobody|>"),
        (Grammar::Lark("begin: \"a\"".into()), "start"),
        (Grammar::Lark(String::new()), "empty"),
        (Grammar::Choice(vec![]), "empty"),
        (Grammar::Choice(vec![big]), "bytes"),
    ] {
        let error = factory.guide(&grammar, None).err().unwrap_or_else(|| panic!("{grammar:?}"));
        assert!(error.0.contains(expected), "{error:?} does not say {expected}");
        assert!(!error.0.contains("backtrace") && !error.0.contains("<state>"), "{error:?}");
    }
    // A tokenizer whose tokens have no bytes of their own.
    let words = json!({
        "version": "1.0",
        "model": {"type": "WordPiece", "vocab": {"one": 0, "##s": 1, "[UNK]": 2}, "unk_token": "[UNK]",
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
    });
    let words = Words::new("WordPiece", words, &[2], 3);
    assert!(GuideFactory::of(&words.tokenizer, &[2], 3).err().unwrap().0.contains("tokens beside it"));
}

/// Where the vocabulary cannot spell what must come, that is an error and no endless answer.
#[test]
fn dead_ends_are_errors() {
    let json = json!({
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "<end>": 2}, "unk_token": "a"},
        "decoder": {"type": "Fuse"},
    });
    let words = Words::new("two letters", json, &[2], 3);
    let mut guide = words.factory().guide(&Grammar::Regex("abc".into()), None).unwrap();
    guide.accept(0).unwrap();
    let allowed = guide.allowed();
    // The library sees it at once, or when nothing is left.
    let error = match allowed {
        Ok(_) => {
            guide.accept(1).unwrap();
            guide.allowed().unwrap_err()
        }
        Err(error) => error,
    };
    assert_eq!(error.0, DEAD_END);
    assert!(guide.accept(0).is_err());
}

/// Without stop ids a text ends where nothing can follow.
#[test]
fn without_stop_ids_an_answer_ends_where_nothing_follows() {
    let words = byte_fallback();
    let factory = GuideFactory::of(&words.tokenizer, &[], words.vocab).unwrap();
    let mut guide = factory.guide(&Grammar::Regex("ab?".into()), None).unwrap();
    let id = |piece: &str| words.tokenizer.id_of(piece).unwrap();
    guide.accept(id("a")).unwrap();
    let allowed: Vec<u32> = guide.allowed().unwrap().iter().collect();
    assert!(allowed.contains(&id("b")) && allowed.iter().all(|&id| words.text(&[id]) == "b"));
    guide.accept(id("b")).unwrap();
    assert!(guide.allowed().unwrap().is_empty());
}

/// Grammars that want much are refused, or followed at a bounded cost. This test ends.
#[test]
fn hostile_grammars_end() {
    let words = byte_fallback();
    let factory = words.factory();
    let chain: String = (0..15_000).map(|i| format!("r{i}: r{}\n", i + 1)).collect();
    let deep = |open: &str, close: &str, n: usize| format!("{}a{}", open.repeat(n), close.repeat(n));
    let mut nested = json!({"type": "string"});
    for _ in 0..100 {
        nested = json!({"type": "object", "properties": {"a": nested}, "required": ["a"]});
    }
    let many: Vec<Value> =
        (0..4000).map(|i| json!({"type": "object", "properties": {format!("p{i}"): {}}})).collect();
    let anyof: Vec<Value> =
        (0..40).map(|i| json!({"properties": {format!("p{i}"): {"type": "string"}}})).collect();
    let grammars = [
        Grammar::Regex("(a{1000}){1000}".into()),
        Grammar::Regex("(a|b|ab){1,60000}c".into()),
        Grammar::Regex("(.*a){40}.*".into()),
        Grammar::Regex("(a?){5000}a{5000}".into()),
        Grammar::Regex("[\\p{L}--[a-z]]{1,100}\\w{500}".into()),
        Grammar::Regex(deep("(", ")", 30_000)),
        Grammar::Lark(format!("start: {}", deep("(\"", "\")", 10_000))),
        Grammar::Lark(format!("start: r0\n{chain}r15000: \"a\"")),
        Grammar::Lark("start: start start | \"a\" | \"\"".into()),
        Grammar::Lark("start: a a a\na: b b b b*\nb: c* c*\nc: a | \"x\"".into()),
        Grammar::Lark("start: (\"a\"{1,60000}){1,60000}".into()),
        Grammar::Lark("start: A\nA: /(?s:.*)/ & ~/(.*[ab]){30}c/".into()),
        Grammar::JsonSchema(nested),
        Grammar::JsonSchema(json!({"anyOf": many})),
        Grammar::JsonSchema(json!({"allOf": vec![json!({"anyOf": anyof}); 6]})),
        Grammar::JsonSchema(json!({"type": "array", "minItems": 1_000_000, "items": {"type": "string"}})),
        Grammar::JsonSchema(json!({"type": "string", "maxLength": 1_000_000_000})),
        Grammar::JsonSchema(json!({"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"})),
        Grammar::JsonSchema(
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        ),
        Grammar::JsonSchema(
            json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}),
        ),
        Grammar::JsonSchema(json!({"multipleOf": 1e-7, "type": "number", "minimum": 0.123_456_7})),
    ];
    let mut random = Random(9);
    let mut made = 0;
    for grammar in grammars {
        let name: String = format!("{grammar:?}").chars().take(80).collect();
        let start = std::time::Instant::now();
        let guide = factory.guide(&grammar, None);
        let prepared = start.elapsed();
        let Ok(mut guide) = guide else {
            println!(
                "{prepared:>10.1?} refused: {name}: {}",
                guide.err().unwrap().0.lines().next().unwrap_or("")
            );
            continue;
        };
        made += 1;
        let mut slowest = std::time::Duration::ZERO;
        for _ in 0..60 {
            let start = std::time::Instant::now();
            let Ok(allowed) = guide.allowed() else { break };
            let ids: Vec<u32> = allowed.iter().filter(|id| !words.stop.contains(id)).collect();
            if ids.is_empty() || guide.accept(ids[random.below(ids.len())]).is_err() {
                break;
            }
            slowest = slowest.max(start.elapsed());
        }
        println!("{prepared:>10.1?} made, then at most {slowest:>10.1?} a token: {name}");
    }
    assert!(made > 3);
}
