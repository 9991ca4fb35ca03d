//! Tokenizer, special tokens, chat template, stop ids, sampling defaults.

use crate::checkpoint::{Checkpoint, says};
use serde_json::{Value, json};
use tritc::load::{LoadOptions, load, survey};

fn tokenizer() -> Value {
    json!({
        "added_tokens": [
            { "id": 13, "content": "<s>", "special": true }, { "id": 14, "content": "</s>" },
            { "id": 15, "content": "<|im_end|>" }
        ],
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "<|eot_id|>": 7 }, "merges": [] }
    })
}

fn with_text() -> Checkpoint {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.unset("bos_token_id").file("tokenizer.json", tokenizer().to_string());
    checkpoint
}

#[test]
fn stop_ids_are_gathered_from_every_place() {
    let mut checkpoint = with_text();
    checkpoint.set("eos_token_id", json!([3, 2]));
    checkpoint.file("generation_config.json", json!({ "eos_token_id": 5, "bos_token_id": 13 }).to_string());
    let config = json!({
        "bos_token": { "content": "<s>" }, "eos_token": "</s>", "pad_token": null,
        "chat_template": "{{ messages }}<|im_end|>"
    });
    checkpoint.file("tokenizer_config.json", config.to_string());
    checkpoint.file("special_tokens_map.json", json!({ "eos_token": "old", "unk_token": "<s>" }).to_string());
    let model = checkpoint.load().unwrap();
    assert_eq!(model.text.stop, [2, 3, 5, 14, 15]);
    assert_eq!(model.text.bos, Some(13));
    let special = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<s>")];
    assert_eq!(model.text.special_tokens, special.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(model.text.chat_template.as_deref(), Some("{{ messages }}<|im_end|>"));
    assert_eq!(model.tokenizer.unwrap(), tokenizer().to_string().into_bytes());
    assert_eq!(&model.warnings[..], &[]);
}

#[test]
fn chat_templates_are_found_in_every_place() {
    let template = |checkpoint: &Checkpoint| checkpoint.load().unwrap().text.chat_template;
    let mut checkpoint = with_text();
    assert_eq!(template(&checkpoint), None);
    let named =
        json!([{ "name": "tool_use", "template": "t" }, { "name": "default", "template": "d<|eot_id|>" }]);
    checkpoint.file("tokenizer_config.json", json!({ "chat_template": named }).to_string());
    assert_eq!(template(&checkpoint).as_deref(), Some("d<|eot_id|>"));
    let model = checkpoint.load().unwrap();
    assert_eq!(model.text.stop, [2, 7]);
    says(&crate::warned(&model.warnings), &["\"default\" is used", "no others (tool_use)"]);
    // transformers gives that file to processors of images, not to tokenizers.
    checkpoint.file("chat_template.json", json!({ "chat_template": "j" }).to_string());
    assert_eq!(template(&checkpoint).as_deref(), Some("d<|eot_id|>"));
    let named = json!({ "default": "o", "tool_use": "t" });
    checkpoint.file("tokenizer_config.json", json!({ "chat_template": named }).to_string());
    assert_eq!(template(&checkpoint).as_deref(), Some("o"));
    says(&crate::warned(&checkpoint.load().unwrap().warnings), &["no others (tool_use)"]);
    checkpoint.file("tokenizer_config.json", "{}");
    assert_eq!(template(&checkpoint).as_deref(), Some("j"));
    checkpoint.file("chat_template.jinja", "file");
    assert_eq!(template(&checkpoint).as_deref(), Some("file"));
    checkpoint.file("chat_template.jinja", [0xff]);
    says(&checkpoint.error(), &["[3]", "chat_template.jinja", "UTF-8"]);

    let mut checkpoint = with_text();
    let nameless = json!({ "chat_template": [{ "name": "rag", "template": "r" }] });
    checkpoint.file("tokenizer_config.json", nameless.to_string());
    let model = checkpoint.load().unwrap();
    assert_eq!(model.text.chat_template, None);
    says(&crate::warned(&model.warnings), &["tokenizer_config.json", "\"default\"", "there are rag"]);
    checkpoint.file("tokenizer_config.json", json!({ "chat_template": 5 }).to_string());
    says(&checkpoint.error(), &["[3]", "tokenizer_config.json", "chat_template"]);
}

#[test]
fn templates_that_cannot_be_used_are_left_out_with_a_warning() {
    let mut checkpoint = with_text();
    checkpoint.file("chat_template.jinja", "<|im_end|>\n{% include 'other' %}");
    let model = checkpoint.load().unwrap();
    assert_eq!(model.text.chat_template, None);
    says(
        &crate::warned(&model.warnings),
        &["chat_template.jinja", "not supported: the tag 'include' (line 2)", "NO chat template"],
    );
    // What ends a turn is known all the same.
    assert!(model.text.stop.contains(&15), "{:?}", model.text.stop);
    checkpoint.file("chat_template.jinja", "{{ messages }");
    says(&crate::warned(&checkpoint.load().unwrap().warnings), &["syntax error", "NO chat template"]);
    checkpoint.file("chat_template.jinja", " ".repeat((1 << 20) + 1));
    says(&crate::warned(&checkpoint.load().unwrap().warnings), &["1048577 bytes", "NO chat template"]);

    checkpoint.file("chat_template.jinja", "{{ raise_exception('nobody may ask') }}");
    let model = checkpoint.load().unwrap();
    assert!(model.text.chat_template.is_some());
    says(&crate::warned(&model.warnings), &["fails for a question: nobody may ask (line 1)"]);
}

#[test]
fn sampling_defaults_are_read_and_checked() {
    let mut checkpoint = with_text();
    let config = json!({ "do_sample": true, "temperature": 0.5, "top_k": 40, "top_p": null, "repetition_penalty": 1.5 });
    checkpoint.file("generation_config.json", config.to_string());
    let sampling = checkpoint.load().unwrap().text.sampling;
    assert_eq!((sampling.do_sample, sampling.temperature, sampling.top_k), (true, Some(0.5), Some(40)));
    assert_eq!((sampling.top_p, sampling.min_p, sampling.repetition_penalty), (None, None, Some(1.5)));
    // Suggestions that make no sense stop nothing.
    let senseless = [
        ("temperature", json!(-1)),
        ("temperature", json!(1e7)),
        ("top_p", json!(1.5)),
        ("min_p", json!("0.1")),
        ("repetition_penalty", json!(0)),
        ("top_k", json!("many")),
        ("top_k", json!(-2)),
        ("top_k", json!(1.5)),
        ("do_sample", json!("yes")),
    ];
    for (key, value) in senseless {
        let mut config = json!({ "do_sample": true, "temperature": 0.5, "top_k": 40 });
        config[key] = value.clone();
        checkpoint.file("generation_config.json", config.to_string());
        let model = checkpoint.load().unwrap();
        says(
            &crate::warned(&model.warnings),
            &["generation_config.json", &format!("{key} is {value}"), "left out"],
        );
        let sampling = model.text.sampling;
        let expected = [("do_sample", sampling.do_sample), ("top_k", sampling.top_k == Some(40))];
        expected.iter().for_each(|(other, kept)| assert_eq!(*kept, *other != key, "{key}: {other}"));
    }
    // Users of transformers write -1 or 0 for "all".
    for (value, k) in
        [(json!(-1), Some(0)), (json!(0), Some(0)), (json!(20.0), Some(20)), (json!(null), None)]
    {
        checkpoint.file("generation_config.json", json!({ "top_k": value }).to_string());
        let model = checkpoint.load().unwrap();
        assert_eq!((model.text.sampling.top_k, &model.warnings[..]), (k, &[][..]));
    }
}

#[test]
fn ids_that_nothing_uses_refuse_nothing() {
    let mut checkpoint = with_text();
    checkpoint.set("eos_token_id", json!([2, 16, -1])).set("bos_token_id", json!(99));
    let model = checkpoint.load().unwrap();
    assert_eq!((model.text.stop, model.text.bos), (vec![2], None));
    let warnings = crate::warned(&model.warnings);
    says(
        &warnings,
        &["config.json", "eos_token_id is 16", "0 to 15", "eos_token_id is -1", "bos_token_id is 99"],
    );
    checkpoint.set("eos_token_id", json!("</s>"));
    says(&checkpoint.error(), &["[3]", "config.json", "eos_token_id"]);

    // A special token one beyond the embedding, and padding.
    let mut checkpoint = with_text();
    let mut large = tokenizer();
    large["added_tokens"][1]["id"] = json!(16);
    checkpoint.file("tokenizer.json", large.to_string());
    checkpoint.file("tokenizer_config.json", json!({ "eos_token": "</s>" }).to_string());
    let model = checkpoint.load().unwrap();
    assert_eq!(model.text.stop, [2]);
    says(
        &crate::warned(&model.warnings),
        &["tokenizer.json", "\"</s>\" has id 16", "vocab_size is 16", "refused"],
    );
    assert_eq!(model.tokenizer.unwrap(), large.to_string().into_bytes());
    for id in 17..20 {
        large["model"]["vocab"][format!("[PAD{id}]")] = json!(id);
    }
    checkpoint.file("tokenizer.json", large.to_string());
    says(
        &crate::warned(&checkpoint.load().unwrap().warnings),
        &["\"[PAD19]\" has id 19", "4 tokens are beyond"],
    );
}

#[test]
fn tokenizers_that_cannot_be_used_are_refused() {
    let mut checkpoint = with_text();
    let mut refused = |bend: &dyn Fn(&mut Value), words: &[&str]| {
        let mut file = tokenizer();
        bend(&mut file);
        checkpoint.file("tokenizer.json", file.to_string());
        says(
            &checkpoint.error(),
            &[&["[3]", "tokenizer.json", "not a tokenizer", "--no-tokenizer"], words].concat(),
        );
    };
    refused(&|file| *file = json!({}), &["model"]);
    refused(&|file| file["model"]["merges"] = json!(["a x"]), &["model.merges[0]", "\"x\""]);
    let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "b".repeat(65)});
    refused(&|file| file["normalizer"] = replace.clone(), &["normalizer (Replace)", "65 bytes"]);
    // Ids by the hundred that the model does not have.
    let many = |file: &mut Value| {
        let vocab = file["model"]["vocab"].as_object_mut().unwrap();
        vocab.extend((100..400).map(|id| (format!("t{id}"), id.into())));
    };
    refused(&many, &["\"t399\" has id 399", "another model"]);
    // A token that is put before every text must be the model's.
    let around = |file: &mut Value| {
        file["added_tokens"][0]["id"] = json!(16);
        file["post_processor"] = json!({"type": "BertProcessing", "cls": ["<s>", 16], "sep": ["a", 0]});
    };
    refused(&around, &["post_processor", "id 16 around every text"]);
}

#[test]
fn without_a_tokenizer_nothing_of_it_matters() {
    let mut checkpoint = with_text();
    checkpoint.file("tokenizer.json", "{").file("tokenizer_config.json", "[").set("eos_token_id", json!(3));
    let options = LoadOptions { without_tokenizer: true, ..LoadOptions::default() };
    let dir = checkpoint.write();
    let model = load(dir.path(), &options).unwrap();
    assert_eq!((model.tokenizer, model.text.stop, model.text.chat_template), (None, vec![3], None));
    assert!(model.warnings.is_empty(), "{:?}", model.warnings);
    let survey = survey(dir.path(), &options);
    assert!(survey.refusal.is_none() && survey.tokenizer.is_none(), "{:?}", survey.refusal);
}

/// The ids of a text by the tokenizer that the bundle will have.
fn ids(checkpoint: &Checkpoint, text: &str) -> Vec<u32> {
    let model = checkpoint.load().unwrap();
    let tokenizer = trit_text::Tokenizer::new(&model.tokenizer.unwrap(), &model.text, 16).unwrap();
    tokenizer.encode(text, false).unwrap()
}

#[test]
fn tokens_that_only_configurations_name_are_not_split() {
    let mut checkpoint = with_text();
    let mut file = tokenizer();
    file["model"]["vocab"] = json!({ "a": 0, "b": 1, "<": 2, ">": 3, "<a>": 4, "<|eot_id|>": 7 });
    checkpoint.file("tokenizer.json", file.to_string());
    assert_eq!(ids(&checkpoint, "a<a>b"), [0, 2, 0, 3, 1]);

    // By id: one in the vocabulary, one that is new; flags as transformers reads them.
    let flags =
        json!({ "content": "<a>", "lstrip": false, "rstrip": true, "single_word": false, "special": false });
    let added = json!({ "4": flags, "9": { "content": "<b>", "special": true } });
    checkpoint.file("tokenizer_config.json", json!({ "added_tokens_decoder": added }).to_string());
    assert_eq!(ids(&checkpoint, "a<a> b<b>"), [0, 4, 1, 9]);
    let once = checkpoint.load().unwrap().tokenizer;
    assert_eq!(once, checkpoint.load().unwrap().tokenizer, "the bytes are always the same");

    // By name: in the vocabulary, and behind all others. There is no room for a third.
    checkpoint
        .file("tokenizer_config.json", json!({ "additional_special_tokens": ["<a>", "<c>"] }).to_string());
    assert_eq!(ids(&checkpoint, "a<a>b"), [0, 4, 1]);
    says(
        &crate::warned(&checkpoint.load().unwrap().warnings),
        &["tokenizer_config.json", "\"<c>\"", "left out"],
    );
    file["added_tokens"].as_array_mut().unwrap().pop();
    checkpoint.file("tokenizer.json", file.to_string());
    assert_eq!(ids(&checkpoint, "a<c>b"), [0, 15, 1]);
    checkpoint.file("tokenizer_config.json", "{}");
    let map = json!({ "sep_token": { "content": "<c>", "lstrip": false } });
    checkpoint.file("special_tokens_map.json", map.to_string());
    assert_eq!(ids(&checkpoint, "a<c>b"), [0, 15, 1]);
}

#[test]
fn conflicts_between_configurations_are_named() {
    let mut checkpoint = with_text();
    let mut named = |id: &str, content: &str| {
        let added = json!({ id: { "content": content } });
        checkpoint.file("tokenizer_config.json", json!({ "added_tokens_decoder": added }).to_string());
        checkpoint.load().map(|model| crate::warned(&model.warnings)).map_err(|error| error.to_string())
    };
    says(&named("5", "<s>").unwrap(), &["tokenizer_config.json", "\"<s>\" the id 5", "it has 13"]);
    says(
        &named("0", "<new>").unwrap_err(),
        &["tokenizer_config.json", "\"<new>\" the id 0", "that of \"a\""],
    );
    says(&named("first", "<new>").unwrap_err(), &["added_tokens_decoder", "\"first\""]);
    says(&named("20", "<new>").unwrap(), &["\"<new>\" has id 20", "vocab_size is 16"]);
}

#[test]
fn unigram_vocabularies_are_numbered_in_order() {
    let mut checkpoint = with_text();
    let unigram =
        json!({ "model": { "type": "Unigram", "vocab": [["<unk>", 0.0], ["x", -1.5], ["</s>", -2.0]] } });
    checkpoint.set("eos_token_id", json!(null)).file("tokenizer.json", unigram.to_string());
    checkpoint.file("tokenizer_config.json", json!({ "eos_token": "</s>" }).to_string());
    assert_eq!(checkpoint.load().unwrap().text.stop, [2]);
}

#[test]
fn what_is_missing_is_a_warning() {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.unset("eos_token_id");
    let warnings = crate::warned(&checkpoint.load().unwrap().warnings);
    says(&warnings, &["there is no tokenizer.json", "no stop token"]);
    checkpoint.file("tokenizer.model", "x");
    says(
        &crate::warned(&checkpoint.load().unwrap().warnings),
        &["tokenizer.model is not read", "save_pretrained"],
    );
    let mut checkpoint = with_text();
    checkpoint.set("bos_token_id", json!(1));
    checkpoint.file("tokenizer_config.json", json!({ "bos_token": "<s>" }).to_string());
    let model = checkpoint.load().unwrap();
    assert_eq!(model.text.bos, Some(13));
    says(&crate::warned(&model.warnings), &["bos_token_id is 1, but 13 is used"]);
}

#[test]
fn rules_for_tokens_are_read_and_checked() {
    let mut checkpoint = with_text();
    checkpoint.set("eos_token_id", json!(2));
    let config = json!({
        "eos_token_id": [2, 14], "no_repeat_ngram_size": 3, "suppress_tokens": [5, -1, 4, 5, 16], "begin_suppress_tokens": [6],
        "bad_words_ids": [[2], [14], [2, 3], [7], [], [8, 99]],
        "sequence_bias": [[[1, 2], -2.5], [[3], 1], [[1, 2], 4.0], [[-1], 1.0]]
    });
    checkpoint.file("generation_config.json", config.to_string());
    let model = checkpoint.load().unwrap();
    let rules = model.text.sampling.rules;
    assert_eq!(rules.no_repeat_ngram_size, 3);
    assert_eq!((rules.suppress, rules.begin_suppress), (vec![4, 5], vec![6]));
    // What ends a text is no bad word by itself.
    assert_eq!(rules.bad_words, [vec![2, 3], vec![7]]);
    assert_eq!(rules.sequence_bias, [(vec![1, 2], 4.0), (vec![3], 1.0)]);
    says(
        &crate::warned(&model.warnings),
        &[
            "suppress_tokens: 2 of its",
            "bad_words_ids: 1 of its",
            "sequence_bias: 1 of its",
            "vocabulary of 16",
        ],
    );
    for (key, value) in [
        ("suppress_tokens", json!(["a"])),
        ("begin_suppress_tokens", json!(3)),
        ("suppress_tokens", json!((0..16).collect::<Vec<u32>>())),
        ("suppress_tokens", json!(vec![1; 65537])),
        ("bad_words_ids", json!([1, 2])),
        ("bad_words_ids", json!(vec![vec![1; 65536]; 17])),
        ("no_repeat_ngram_size", json!(-1)),
        ("no_repeat_ngram_size", json!(1025)),
        ("sequence_bias", json!([[[1, 2]]])),
        ("sequence_bias", json!([[[1, 2], "x"]])),
        ("sequence_bias", json!([[[1, 2], 1e300]])),
        ("sequence_bias", json!({ "(1, 2)": 1.0 })),
    ] {
        checkpoint.file("generation_config.json", json!({ key: value }).to_string());
        let error = checkpoint.error();
        says(&error, &["[3]", "generation_config.json", key]);
        assert!(error.len() < 400, "{error}");
    }
}

#[test]
fn keys_that_are_not_applied_are_named() {
    let mut checkpoint = with_text();
    let mut warnings = |config: Value| {
        checkpoint.file("generation_config.json", config.to_string());
        crate::warned(&checkpoint.load().unwrap().warnings)
    };
    let neutral = json!({
        "num_beams": 1, "penalty_alpha": null, "typical_p": 1.0, "epsilon_cutoff": 0.0, "min_length": 0,
        "renormalize_logits": false, "guidance_scale": 1, "stop_strings": [], "use_cache": true, "length_penalty": 2.0,
        "transformers_version": "5.0", "max_length": 1000000, "no_repeat_ngram_size": 0, "suppress_tokens": null, "pad_token_id": 0
    });
    assert_eq!(warnings(neutral), "");
    let all = json!({
        "max_length": 20, "num_beams": 4, "penalty_alpha": 0.6, "forced_bos_token_id": 1, "forced_eos_token_id": [2],
        "min_length": 3, "min_new_tokens": 2, "encoder_repetition_penalty": 1.1, "guidance_scale": 1.5,
        "exponential_decay_length_penalty": [5, 1.1], "watermarking_config": { "bias": 2.5 }, "renormalize_logits": true,
        "stop_strings": ["\u{1b}[2Jend"], "do_sample": true, "typical_p": 0.9, "epsilon_cutoff": 3e-4, "eta_cutoff": 1e-3,
        "top_h": 0.4, "max_new_tokens": 7
    });
    let found = warnings(all.clone());
    for (key, _) in all.as_object().unwrap().iter().filter(|(key, _)| *key != "do_sample") {
        says(&found, &[&format!("{key} ")]);
    }
    says(&found, &["generation_config.json: not applied: ", "num_beams 4", "typical_p 0.9"]);
    assert!(!found.contains('\u{1b}'));
    // Filters of candidates do nothing where nothing is drawn.
    assert_eq!(warnings(json!({ "typical_p": 0.9, "top_h": 0.4 })), "");
}
