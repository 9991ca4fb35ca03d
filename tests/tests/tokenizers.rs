//! Tokenizers from the checkpoint to the command: those that cannot be used, those that are not wanted, and prompts that
//! are far too long.

use std::path::{Path, PathBuf};
use trit_tests::workbench::{compile_with, fixture, repository, run, scratch, trit_run, tritc};

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn fables() -> PathBuf {
    repository().join("examples/models/fables-12m")
}

/// A bundle whose tokenizer no compiler would write.
fn with_tokenizer(name: &str, json: &[u8]) -> PathBuf {
    let mut model = tritc::load::load(&fixture("llama-bitlinear"), &Default::default()).unwrap();
    model.tokenizer = Some(json.to_vec());
    let out = scratch().join(format!("{name}.trit"));
    tritc::compile::compile(&model, &out, &[], &tritc::progress::Silent).unwrap();
    out
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_read_only_where_text_is_needed() {
    let json = br#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}"#;
    let bundle = with_tokenizer("tokenizers-bad", json);
    let with = |args: &[&str]| run(trit_run(&[&[path(&bundle), "-n", "2", "--ignore-eos"], args].concat()));
    with(&["-p", "a"]).fails(3, &[path(&bundle), "tokenizer.json", "model.merges[0]", "\"b\""]);
    assert_eq!(with(&["--ids", "1,2"]).ok().trim().split(',').count(), 2);
    assert!(with(&["--ids", "1,2", "--json"]).json()["text"].is_null());
}

#[test]
fn a_tokenizer_that_cannot_be_used_ends_the_compilation_unless_none_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("llama-bitlinear")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(dir.path().join("tokenizer.json"), "{\"model\": 0}").unwrap();
    let out = dir.path().join("out.trit");
    let compile =
        |more: &[&str]| run(tritc(&[&["compile", path(dir.path()), "-o", path(&out)], more].concat()));
    compile(&[]).fails(3, &["tokenizer.json", "not a tokenizer", "--no-tokenizer"]);
    assert!(!out.exists());
    compile(&["--no-tokenizer"]).ok();
    run(trit_run(&[path(&out), "-p", "a", "-n", "1"])).fails(2, &["no tokenizer", "--ids"]);
    let json = run(tritc(&["inspect", "--json", "--no-tokenizer", path(dir.path())])).json();
    assert_eq!((&json["text"]["tokenizer"], &json["refused"]), (&false.into(), &serde_json::Value::Null));
}

#[test]
fn a_prompt_beyond_the_context_is_refused_without_being_tokenized() {
    let bundle = compile_with(&fables(), "tokenizers-fables", &[]);
    let prompt = scratch().join("tokenizers-long.txt");
    // Fifty million bytes, whose tokens would take minutes to find.
    std::fs::write(&prompt, "Once upon a time there was a fox. ".repeat(1_500_000)).unwrap();
    run(trit_run(&[path(&bundle), "-f", path(&prompt), "-n", "1"]))
        .fails(2, &["tokens do not fit the context of 1024"]);
    std::fs::remove_file(prompt).unwrap();
}
