//! Tokenizer, special tokens, chat template, stop ids, sampling defaults.

use crate::checkpoint::{Checkpoint, says};
use serde_json::{Value, json};

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
    checkpoint.file("special_tokens_map.json", json!({ "eos_token": "old", "unk_token": "a" }).to_string());
    let model = checkpoint.load().unwrap();
    assert_eq!(model.text.stop, [2, 3, 5, 14, 15]);
    assert_eq!(model.text.bos, Some(13));
    let special = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "a")];
    assert_eq!(model.text.special_tokens, special.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(model.text.chat_template.as_deref(), Some("{{ messages }}<|im_end|>"));
    assert_eq!(model.tokenizer.unwrap(), tokenizer().to_string().into_bytes());
    assert_eq!(model.warnings, Vec::<String>::new());
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
    assert_eq!(checkpoint.load().unwrap().text.stop, [2, 7]);
    checkpoint.file("chat_template.json", json!({ "chat_template": "j" }).to_string());
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
    says(&model.warnings.join("\n"), &["tokenizer_config.json", "\"default\""]);
    checkpoint.file("tokenizer_config.json", json!({ "chat_template": 5 }).to_string());
    says(&checkpoint.error(), &["[3]", "tokenizer_config.json", "chat_template"]);
}

#[test]
fn sampling_defaults_are_read_and_checked() {
    let mut checkpoint = with_text();
    let config = json!({ "do_sample": true, "temperature": 0.5, "top_k": 40, "top_p": null, "repetition_penalty": 1.5 });
    checkpoint.file("generation_config.json", config.to_string());
    let sampling = checkpoint.load().unwrap().text.sampling;
    assert_eq!((sampling.do_sample, sampling.temperature, sampling.top_k), (true, Some(0.5), Some(40)));
    assert_eq!((sampling.top_p, sampling.min_p, sampling.repetition_penalty), (None, None, Some(1.5)));
    for (key, value) in [("temperature", json!(-1)), ("top_p", json!(1.5)), ("repetition_penalty", json!(0))]
    {
        checkpoint.file("generation_config.json", json!({ key: value }).to_string());
        says(&checkpoint.error(), &["[3]", "generation_config.json", key]);
    }
    checkpoint.file("generation_config.json", json!({ "top_k": "many" }).to_string());
    says(&checkpoint.error(), &["[3]", "generation_config.json", "many"]);
}

#[test]
fn ids_beyond_the_vocabulary_are_refused() {
    let mut checkpoint = with_text();
    checkpoint.set("eos_token_id", json!([2, 16]));
    says(&checkpoint.error(), &["[3]", "config.json", "eos_token_id is 16", "vocab_size 16"]);
    checkpoint.set("eos_token_id", json!("</s>"));
    says(&checkpoint.error(), &["[3]", "config.json", "eos_token_id"]);
    let mut checkpoint = with_text();
    checkpoint.set("bos_token_id", json!(99));
    says(&checkpoint.error(), &["[3]", "config.json", "bos_token_id is 99"]);
    let mut checkpoint = with_text();
    let mut large = tokenizer();
    large["added_tokens"][1]["id"] = json!(16);
    checkpoint.file("tokenizer.json", large.to_string());
    says(&checkpoint.error(), &["[3]", "tokenizer.json", "\"</s>\" has id 16", "vocab_size is 16"]);
    checkpoint.file("tokenizer.json", "{}");
    says(&checkpoint.error(), &["[3]", "tokenizer.json", "not a tokenizer"]);
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
    let warnings = checkpoint.load().unwrap().warnings.join("\n");
    says(&warnings, &["there is no tokenizer.json", "no stop token"]);
    checkpoint.file("tokenizer.model", "x");
    says(
        &checkpoint.load().unwrap().warnings.join("\n"),
        &["tokenizer.model is not read", "save_pretrained"],
    );
    let mut checkpoint = with_text();
    checkpoint.set("bos_token_id", json!(1));
    checkpoint.file("tokenizer_config.json", json!({ "bos_token": "<s>" }).to_string());
    let model = checkpoint.load().unwrap();
    assert_eq!(model.text.bos, Some(13));
    says(&model.warnings.join("\n"), &["bos_token_id is 1, but 13 is used"]);
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
        &model.warnings.join("\n"),
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
        checkpoint.load().unwrap().warnings.join("\n")
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
