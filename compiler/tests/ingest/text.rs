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
    // transformers gives that file to processors of images, not to tokenizers.
    checkpoint.file("chat_template.json", json!({ "chat_template": "j" }).to_string());
    assert_eq!(template(&checkpoint).as_deref(), Some("d<|eot_id|>"));
    let named = json!({ "default": "o", "tool_use": "t" });
    checkpoint.file("tokenizer_config.json", json!({ "chat_template": named }).to_string());
    assert_eq!(template(&checkpoint).as_deref(), Some("o"));
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
    says(&model.warnings.join("\n"), &["tokenizer_config.json", "\"default\""]);
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
        &model.warnings.join("\n"),
        &["chat_template.jinja", "not supported: the tag 'include' (line 2)", "NO chat template"],
    );
    // What ends a turn is known all the same.
    assert!(model.text.stop.contains(&15), "{:?}", model.text.stop);
    checkpoint.file("chat_template.jinja", "{{ messages }");
    says(&checkpoint.load().unwrap().warnings.join("\n"), &["syntax error", "NO chat template"]);
    checkpoint.file("chat_template.jinja", " ".repeat((1 << 20) + 1));
    says(&checkpoint.load().unwrap().warnings.join("\n"), &["1048577 bytes", "NO chat template"]);

    checkpoint.file("chat_template.jinja", "{{ raise_exception('nobody may ask') }}");
    let model = checkpoint.load().unwrap();
    assert!(model.text.chat_template.is_some());
    says(&model.warnings.join("\n"), &["fails for a question: nobody may ask (line 1)"]);
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
