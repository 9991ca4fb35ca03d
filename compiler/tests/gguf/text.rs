//! Tokenizers and templates from metadata.

use crate::writer::{File, bool, f32s, i32, i32s, text, texts, u32};
use serde_json::{Value, json};
use tokenizers::Tokenizer;
use tritc::model::Model;

/// Byte-level tokens: letters, three that merges lead to, and two that stand for no text.
const TOKENS: [&str; 10] = ["a", "b", "c", "\u{120}", "ab", "\u{120}a", "abc", "<s>", "</s>", "<|eot_id|>"];

/// Adds a byte-level tokenizer.
pub fn with_tokenizer(mut file: File) -> File {
    file.key("tokenizer.ggml.model", text("gpt2")).key("tokenizer.ggml.pre", text("llama-bpe"));
    file.key("tokenizer.ggml.tokens", texts(TOKENS));
    file.key("tokenizer.ggml.token_type", i32s(&[1, 1, 1, 1, 1, 1, 1, 3, 3, 3]));
    file.key("tokenizer.ggml.merges", texts(["a b", "\u{120} a", "ab c"]));
    file.key("tokenizer.ggml.bos_token_id", u32(7)).key("tokenizer.ggml.eos_token_id", u32(8));
    file.key("tokenizer.chat_template", text("{{ bos_token }}{{ messages[0].content }}<|eot_id|>"));
    file
}

fn byte_level() -> File {
    with_tokenizer(File::bitnet())
}

fn bent(bend: impl FnOnce(&mut File)) -> File {
    let mut file = byte_level();
    bend(&mut file);
    file
}

fn tokenizer(model: &Model) -> Tokenizer {
    Tokenizer::from_bytes(model.tokenizer.as_ref().unwrap()).unwrap()
}

fn ids(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<u32> {
    tokenizer.encode(text, special).unwrap().get_ids().to_vec()
}

#[test]
fn byte_level_bpe() {
    let model = byte_level().load().unwrap();
    let tokenizer = tokenizer(&model);
    // "a b" goes before " a", as the merges stand.
    assert_eq!(ids(&tokenizer, "abc ab", true), [7, 6, 3, 4]);
    assert_eq!(ids(&tokenizer, "abc a", false), [6, 5]);
    assert_eq!(ids(&tokenizer, "abc</s>", false), [6, 8]);
    assert_eq!(tokenizer.decode(&[7, 6, 3, 4], true).unwrap(), "abc ab");
    assert_eq!(model.text.bos, Some(7));
    // The second stands in the template.
    assert_eq!(model.text.stop, [8, 9]);
    let special: Vec<(&str, &str)> =
        model.text.special_tokens.iter().map(|(name, token)| (name.as_str(), token.as_str())).collect();
    assert_eq!(special, [("bos_token", "<s>"), ("eos_token", "</s>")]);
    assert!(model.text.chat_template.is_some());
    assert!(model.warnings.is_empty(), "{:?}", model.warnings);
}

#[test]
fn bos_is_added_as_metadata_says() {
    let first = |bend: &dyn Fn(&mut File)| ids(&tokenizer(&bent(bend).load().unwrap()), "c", true);
    assert_eq!(
        first(&|file| {
            file.key("tokenizer.ggml.add_bos_token", bool(false));
        }),
        [2]
    );
    assert_eq!(
        first(&|file| {
            file.key("tokenizer.ggml.pre", text("qwen2"));
        }),
        [2]
    );
    let both = |file: &mut File| {
        file.key("tokenizer.ggml.add_bos_token", bool(true)).key("tokenizer.ggml.add_eos_token", bool(true));
    };
    assert_eq!(first(&both), [7, 2, 8]);
    // Some converters write every token as a normal one.
    assert_eq!(
        ids(
            &tokenizer(
                &bent(|file| {
                    file.without_key("tokenizer.ggml.token_type");
                })
                .load()
                .unwrap()
            ),
            "a</s>",
            false
        ),
        [0, 8]
    );
}

/// Where text is split, by what stands in `tokenizer.ggml.pre`.
#[test]
fn splitters() {
    let parts = |pre: &str, text: &str| {
        let mut file = byte_level();
        file.key("tokenizer.ggml.pre", crate::writer::text(pre));
        let tokenizer = tokenizer(&file.load().unwrap());
        let mut text = tokenizers::PreTokenizedString::from(text);
        let splitter =
            tokenizers::PreTokenizer::pre_tokenize(tokenizer.get_pre_tokenizer().unwrap(), &mut text);
        splitter.unwrap();
        let splits = text.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        splits.into_iter().map(|(text, ..)| text.to_owned()).collect::<Vec<String>>()
    };
    let text = "it'S 1234\n\nx";
    let space = "\u{120}";
    let line = "\u{10a}";
    assert_eq!(parts("llama-bpe", text), ["it", "'S", space, "123", "4", &format!("{line}{line}"), "x"]);
    assert_eq!(parts("falcon3", text), parts("llama3", text));
    assert_eq!(parts("qwen2", text), ["it", "'S", space, "1", "2", "3", "4", &format!("{line}{line}"), "x"]);
    assert_eq!(parts("gpt-2", text), ["it", "'", "S", &format!("{space}1234"), line, line, "x"]);
    assert_eq!(parts("smollm", text), ["it", "'", "S", space, "1", "2", "3", "4", line, line, "x"]);
    assert_eq!(parts("default", text), ["it", "'", "S", space, "123", "4", line, line, "x"]);
    assert_eq!(parts("falcon_e", text), parts("llama3", text));
    assert_eq!(parts("command-r", text), parts("smollm", text));
    // Backticks are punctuation for Falcon, and three digits go together from the left.
    assert_eq!(parts("falcon", "a`b 12345"), ["a", "`", "b", space, "123", "45"]);
    assert_eq!(parts("default", "a` 12345")[1], "`");
    assert_eq!(parts("qwen35", text), parts("qwen2", text));
    // A combining mark belongs to its word in Qwen 3.5 alone; the text has no composed form.
    let bytes = |text: &str| parts("gpt-2", text).concat();
    assert_eq!(parts("qwen35", "q\u{331}q x"), [bytes("q\u{331}q"), bytes(" x")]);
    assert_eq!(parts("qwen2", "q\u{331}q x"), [bytes("q"), bytes("\u{331}q"), bytes(" x")]);
    assert_eq!(parts("minicpm5", text), ["it", "'S", space, "123", "4", &format!("{line}{line}"), "x"]);
    assert_eq!(parts("minicpm5", "a 1234b"), ["a", space, "123", "4", "b"]);
    assert_eq!(
        parts("gpt-4o", "HelloWorld's 1234/\n"),
        ["Hello", "World's", space, "123", "4", &format!("/{line}")]
    );
    assert_eq!(
        parts("tekken", "HelloWorld's 12/\n"),
        ["Hello", "World", "'s", space, "1", "2", &format!("/{line}")]
    );
    let deepseek = "it's 1234\nx!";
    assert_eq!(parts("deepseek-llm", deepseek), ["it", "'", "s", space, "1234", line, "x", "!"]);
    assert_eq!(
        parts("deepseek-coder", deepseek),
        ["it", "'", "s", space, "1", "2", "3", "4", line, "x", "!"]
    );
    // Letters outside its list are no words for DeepSeek LLM; East Asian text goes together.
    assert_eq!(
        parts("deepseek-llm", "\u{4e2d}\u{6587}ab c"),
        [bytes("\u{4e2d}\u{6587}"), bytes("ab"), bytes(" c")]
    );
    assert_eq!(parts("deepseek-llm", "z\u{5d0}"), [bytes("z"), bytes("\u{5d0}")]);
    assert_eq!(parts("deepseek-coder", "z\u{5d0}"), [bytes("z\u{5d0}")]);
    // One sign goes with the word behind it; accents do, too.
    assert_eq!(
        parts("hunyuan-dense", "it's 1234\n (x)e\u{301}!?\n"),
        [
            "it",
            "'s",
            space,
            "123",
            "4",
            line,
            &format!("{space}("),
            "x",
            ")e",
            &bytes("\u{301}"),
            &bytes("!?\n")
        ]
    );
    assert_eq!(
        parts("hunyuan-dense", "\u{4e2d}\u{3042}\u{30a2}ab \u{ac00}c"),
        [bytes("\u{4e2d}\u{3042}\u{30a2}"), bytes("ab"), bytes(" \u{ac00}c")]
    );
    assert_eq!(parts("deepseek-v3", text), parts("hunyuan-dense", text));
}

#[test]
fn what_is_not_known_is_refused() {
    let key = |key: &str, value| {
        bent(|file| {
            file.key(&format!("tokenizer.ggml.{key}"), value);
        })
    };
    let without = |key: &str| {
        bent(|file| {
            file.without_key(&format!("tokenizer.ggml.{key}"));
        })
    };
    key("pre", text("viking")).refused(&["[4]", "tokenizer.ggml.pre is \"viking\"", "safetensors"]);
    without("pre").refused(&["[3]", "tokenizer.ggml.pre is missing"]);
    key("model", text("bert")).refused(&["[4]", "tokenizer.ggml.model is \"bert\""]);
    without("merges").refused(&["[3]", "tokenizer.ggml.merges is missing"]);
    key("merges", texts(["a b", "a c"])).refused(&["[3]", "tokenizer.ggml.merges", "\"a c\" as merge 1"]);
    key("merges", texts(["ab"])).refused(&["[3]", "tokenizer.ggml.merges", "\"ab\" as merge 0"]);
    key("merges", u32(1)).refused(&["[3]", "tokenizer.ggml.merges is 1", "an array"]);
    key("tokens", texts(["a"; 10])).refused(&["[3]", "tokenizer.ggml.tokens", "\"a\" as 0 and as 1"]);
    key("tokens", texts(["a"; 300])).refused(&["[3]", "tokenizer.ggml.tokens lists 300 tokens", "16 rows"]);
    key("tokens", i32s(&[1; 10])).refused(&[
        "[3]",
        "tokenizer.ggml.tokens",
        "array of I32, expected one of strings",
    ]);
    key("token_type", i32s(&[1; 9]))
        .refused(&["[3]", "tokenizer.ggml.token_type has 9 elements for 10 tokens"]);
    key("token_type", i32s(&[9; 10])).refused(&["[3]", "tokenizer.ggml.token_type says 9 of token 0"]);
    key("token_type", texts(["x"; 10])).refused(&["[3]", "tokenizer.ggml.token_type", "expected a number"]);
    key("bos_token_id", u32(10)).refused(&["[3]", "tokenizer.ggml.bos_token_id is 10", "10 tokens"]);
}

/// Microsoft's file of 2B-4T says nothing of its pre-tokenizer, and has a template that is nobody's.
#[test]
fn the_file_of_bitnet_2b() {
    let file = bent(|file| {
        let mut tokens = TOKENS;
        tokens[7] = "<|begin_of_text|>";
        file.key("tokenizer.ggml.tokens", texts(tokens)).without_key("tokenizer.ggml.pre");
        let placeholder = "{% for message in messages %}{{ 'Human: ' + message['content'] + 'BITNETAssistant: ' }}{% endfor %}";
        file.key("tokenizer.chat_template", text(placeholder));
    });
    let model = file.load().unwrap();
    for warning in [
        "tokenizer.ggml.pre is missing; the tokenizer is taken for Llama 3's",
        "placeholder, not the model's",
    ] {
        assert!(crate::warned(&model.warnings).contains(warning), "{warning}: {:?}", model.warnings);
    }
    let template = model.text.chat_template.unwrap();
    assert!(template.contains("<|eot_id|>") && template.contains("'Assistant: '"), "{template}");
    assert_eq!(model.text.stop, [8, 9]);
}

/// SentencePiece: pieces with scores, and bytes.
fn sentencepiece() -> File {
    let mut file = File::model("llama", false);
    let tokens = [
        "<unk>",
        "<s>",
        "</s>",
        "<0x62>",
        "<0x7A>",
        "\u{2581}",
        "a",
        "b",
        "\u{2581}a",
        "ab",
        "\u{2581}ab",
        "c",
    ];
    file.key("tokenizer.ggml.model", text("llama")).key("tokenizer.ggml.tokens", texts(tokens));
    file.key("tokenizer.ggml.token_type", i32s(&[2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1]));
    // The higher score goes first: "ab" before " a".
    file.key("tokenizer.ggml.scores", f32s(&[0., 0., 0., 0., 0., -9., -8., -7., -3., -1., -2., -5.]));
    file.key("tokenizer.ggml.bos_token_id", u32(1)).key("tokenizer.ggml.eos_token_id", u32(2));
    file.key("tokenizer.ggml.unknown_token_id", u32(0));
    file
}

#[test]
fn sentencepiece_bpe() {
    let model = sentencepiece().load().unwrap();
    let tokenizer = tokenizer(&model);
    assert_eq!(ids(&tokenizer, "ab", true), [1, 10]);
    assert_eq!(ids(&tokenizer, "a ab", false), [8, 10]);
    // A byte for what no piece spells; the unknown token where there is not even that.
    assert_eq!(ids(&tokenizer, "z", false), [5, 4]);
    assert_eq!(ids(&tokenizer, "\u{e9}", false), [5, 0]);
    assert_eq!(tokenizer.decode(&[1, 8, 10, 4], true).unwrap(), "a abz");
    let json: Value = serde_json::from_slice(model.tokenizer.as_ref().unwrap()).unwrap();
    let space = "\u{2581}";
    assert_eq!(
        json["model"]["merges"],
        json!([["a", "b"], [format!("{space}a"), "b"], [space, "ab"], [space, "a"]])
    );
    assert_eq!(model.text.stop, [2]);

    let mut file = sentencepiece();
    file.key("tokenizer.ggml.add_space_prefix", bool(false));
    assert_eq!(ids(&self::tokenizer(&file.load().unwrap()), "ab", false), [9]);
    file.key("tokenizer.ggml.remove_extra_whitespaces", bool(true));
    file.refused(&["[4]", "tokenizer.ggml.remove_extra_whitespaces is true"]);
}

#[test]
fn scores() {
    let mut file = sentencepiece();
    file.key("tokenizer.ggml.scores", f32s(&[0.0; 3]));
    file.refused(&["[3]", "tokenizer.ggml.scores has 3 elements for 12 tokens"]);
    file.key("tokenizer.ggml.scores", f32s(&[f32::NAN; 12]));
    file.refused(&["[3]", "tokenizer.ggml.scores says NaN of token 0"]);
    file.without_key("tokenizer.ggml.scores");
    file.refused(&["[3]", "tokenizer.ggml.scores is missing"]);
}

/// Some converters type every token as ordinary text.
#[test]
fn tokens_of_conversations_are_whole_however_they_are_typed() {
    let with = |kind: i32| {
        let file = bent(|file| {
            file.key("tokenizer.ggml.token_type", i32s(&[1, 1, 1, 1, 1, 1, 1, 3, 3, kind]));
        });
        file.load().unwrap()
    };
    let (normal, control) = (with(1), with(3));
    let chat = "<s>abc<|eot_id|>ab";
    assert_eq!(ids(&tokenizer(&control), chat, false), [7, 6, 9, 4]);
    assert_eq!(ids(&tokenizer(&normal), chat, false), [7, 6, 9, 4]);
    assert_eq!(normal.tokenizer, control.tokenizer);
    assert_eq!(normal.text, control.text);
    let says = "\"<|eot_id|>\" are ordinary text";
    assert!(crate::warned(&normal.warnings).contains(says), "{:?}", normal.warnings);
    assert!(control.warnings.is_empty(), "{:?}", control.warnings);
}

/// By name alone; by name and template; in brackets and in the template. Others stay what they are.
#[test]
fn tokens_are_found_by_name_and_by_template() {
    let file = bent(|file| {
        let tokens = ["a", "b", "<|x|>", "<|y|>", "ab", "<z>", "<w>", "<s>", "</s>", "<|im_end|>"];
        file.key("tokenizer.ggml.tokens", texts(tokens)).key("tokenizer.ggml.merges", texts(["a b"]));
        file.key("tokenizer.ggml.token_type", i32s(&[1; 10]));
        file.key("tokenizer.chat_template", text("<|x|>{{ messages[0].content }}<z>"));
    });
    let model = file.load().unwrap();
    let json: Value = serde_json::from_slice(model.tokenizer.as_ref().unwrap()).unwrap();
    let added = json["added_tokens"].as_array().unwrap();
    let added: Vec<(u64, bool)> =
        added.iter().map(|token| (token["id"].as_u64().unwrap(), token["special"] == true)).collect();
    assert_eq!(added, [(2, true), (5, false), (7, true), (8, true), (9, true)]);
}

#[test]
fn ids_that_stand_for_none_are_ignored() {
    let model = bent(|file| {
        file.key("tokenizer.ggml.padding_token_id", u32(u32::MAX));
        file.key("tokenizer.ggml.unknown_token_id", i32(-1)).key("tokenizer.ggml.eot_token_id", u32(10));
        file.key("tokenizer.ggml.bos_token_id", i32(-1)).key("tokenizer.ggml.add_bos_token", bool(false));
    });
    let model = model.load().unwrap();
    assert_eq!((model.text.bos, &model.text.stop[..]), (None, &[8, 9][..]));
    let warnings = crate::warned(&model.warnings);
    for words in [
        "padding_token_id is 4294967295",
        "unknown_token_id is -1",
        "eot_token_id is 10",
        "bos_token_id is -1",
    ] {
        assert!(warnings.contains(words), "{warnings}");
    }
}

/// Padding behind the table, as converters of padded vocabularies write it.
#[test]
fn tokens_beyond_the_table_refuse_no_file() {
    let padded: Vec<String> =
        TOKENS.map(str::to_owned).into_iter().chain((10..20).map(|i| format!("[PAD{i}]"))).collect();
    let types: Vec<i32> = [1, 1, 1, 1, 1, 1, 1, 3, 3, 3].into_iter().chain([4; 10]).collect();
    let file = bent(|file| {
        file.key("tokenizer.ggml.tokens", texts(padded.iter().map(String::as_str)));
        file.key("tokenizer.ggml.token_type", i32s(&types));
    });
    let model = file.load().unwrap();
    assert_eq!(ids(&tokenizer(&model), "abc", false), [6]);
    let words = "\"[PAD19]\" has id 19, but the model's vocab_size is 16, and 4 tokens are beyond it";
    assert!(crate::warned(&model.warnings).contains(words), "{:?}", model.warnings);
}

#[test]
fn without_a_tokenizer_its_keys_do_not_matter() {
    let file = bent(|file| {
        file.key("tokenizer.ggml.pre", text("viking")).without_key("tokenizer.ggml.merges");
    });
    let options = tritc::load::LoadOptions { without_tokenizer: true, ..Default::default() };
    let model = file.load_with(&options).unwrap();
    assert_eq!((model.tokenizer, model.text.stop, model.text.bos), (None, vec![8], Some(7)));
}

/// Qwen 3.5's splitting, against the tokenizer that the fixture's metadata was made from.
#[test]
fn words_of_qwen35_have_combining_marks() {
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen35-hadamard");
    let model = crate::writer::load_path(&fixture.join("model.pq2_0.gguf")).unwrap();
    let ours = tokenizer(&model);
    let original = Tokenizer::from_file(fixture.join("tokenizer.json")).unwrap();
    let cases: Vec<Value> =
        serde_json::from_slice(&std::fs::read(fixture.join("tokenizer-cases.json")).unwrap()).unwrap();
    assert!(cases.len() >= 8);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(ids(&ours, text, true), expected, "{text:?}");
        assert_eq!(ids(&original, text, true), expected, "{text:?}");
    }
    assert_eq!(model.text.stop, [317]);
    assert!(model.text.chat_template.is_some());
}

/// What converters took from a model's `generation_config.json`.
#[test]
fn sampling_is_suggested_as_metadata_says() {
    let key = |key: &str| format!("general.sampling.{key}");
    let file = bent(|file| {
        file.key(&key("temp"), crate::writer::f32(0.5)).key(&key("top_k"), i32(20));
        file.key(&key("top_p"), crate::writer::f32(0.75)).key(&key("min_p"), crate::writer::f32(0.0));
        file.key(&key("penalty_repeat"), crate::writer::f32(1.25)).key(&key("mirostat"), i32(0));
        file.key(&key("penalty_last_n"), i32(64)).key(&key("sequence"), text("top_k;temp"));
    });
    let model = file.load().unwrap();
    let sampling = &model.text.sampling;
    assert_eq!((sampling.do_sample, sampling.temperature, sampling.top_k), (true, Some(0.5), Some(20)));
    assert_eq!((sampling.top_p, sampling.min_p), (Some(0.75), Some(0.0)));
    assert_eq!(sampling.repetition_penalty, Some(1.25));
    assert!(model.warnings.is_empty(), "{:?}", model.warnings);

    let greedy = bent(|file| {
        file.key(&key("temp"), crate::writer::f32(0.0)).key(&key("mirostat"), i32(2));
    });
    let model = greedy.load().unwrap();
    assert!(!model.text.sampling.do_sample && model.text.sampling.temperature.is_none());
    assert!(crate::warned(&model.warnings).contains("general.sampling.mirostat (2) is not applied"));
    let none = byte_level().load().unwrap();
    assert!(!none.text.sampling.do_sample && none.text.sampling.top_k.is_none());
    bent(|file| {
        file.key(&key("top_p"), text("much"));
    })
    .refused(&["[3]", "general.sampling.top_p", "a finite number"]);
}

#[test]
fn other_templates_are_named() {
    let file = bent(|file| {
        file.key("tokenizer.chat_templates", texts(["tool_use"]));
        file.key("tokenizer.chat_template.tool_use", text("t"));
    });
    let model = file.load().unwrap();
    assert_eq!(
        model.text.chat_template.as_deref(),
        Some("{{ bos_token }}{{ messages[0].content }}<|eot_id|>")
    );
    assert!(crate::warned(&model.warnings).contains("no others (tool_use)"), "{:?}", model.warnings);
}
