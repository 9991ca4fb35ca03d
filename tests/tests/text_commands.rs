//! `trit-run tokenize` and `trit-run template`: what programs read must be exact to the byte.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::LazyLock;
use trit_tests::workbench::{Ran, compile, fixture, repository, run, scratch, trit_run};

fn fables() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "text-fables"));
    BUNDLE.to_str().unwrap()
}

/// A bundle without a tokenizer and without a template.
fn ids_only() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&fixture("llama-bitlinear"), "text-ids-only"));
    BUNDLE.to_str().unwrap()
}

fn with_input(args: &[&str], input: &[u8]) -> Ran {
    let mut child =
        trit_run(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn file(name: &str, content: &str) -> String {
    let path = scratch().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn ids_are_those_of_hugging_face_and_can_be_run() {
    let cases = std::fs::read(fixture("tokenizer-cases.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_slice(&cases).unwrap();
    let joined = |ids: &serde_json::Value| {
        let ids: Vec<String> = ids.as_array().unwrap().iter().map(ToString::to_string).collect();
        format!("{}\n", ids.join(","))
    };
    for case in cases["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        if text.contains('\0') {
            continue; // No program takes that as an argument.
        }
        assert_eq!(run(trit_run(&["tokenize", fables(), "--", text])).ok(), joined(&case["ids"]), "{text:?}");
        let bare = run(trit_run(&["tokenize", fables(), "--no-special", "--", text])).ok();
        assert_eq!(bare, joined(&case["ids_no_special"]), "{text:?}");
    }
    let ids = run(trit_run(&["tokenize", fables(), "Once upon a time"])).ok();
    let more = ["-n", "8", "--temp", "0", "--json"];
    let of_ids = run(trit_run(&[&[fables(), "--ids", ids.trim()], &more[..]].concat())).json();
    let of_text = run(trit_run(&[&[fables(), "-p", "Once upon a time"], &more[..]].concat())).json();
    assert_eq!(of_ids["ids"], of_text["ids"]);
}

#[test]
fn files_and_standard_input_are_tokenized_as_they_are_run() {
    let expected = run(trit_run(&["tokenize", fables(), "Once\nupon"])).ok();
    for text in ["Once\nupon", "Once\nupon\n"] {
        assert_eq!(with_input(&["tokenize", fables()], text.as_bytes()).ok(), expected);
        assert_eq!(with_input(&["tokenize", fables(), "-f", "-"], text.as_bytes()).ok(), expected);
        let path = file("tokenize.txt", text);
        assert_eq!(run(trit_run(&["tokenize", fables(), "-f", &path])).ok(), expected);
    }
    with_input(&["tokenize", fables()], b"caf\xe9").fails(3, &["standard input", "no text"]);
    run(trit_run(&["tokenize", fables(), "-f", "/no/such/text"])).fails(3, &["/no/such/text"]);
}

#[test]
fn ids_become_text_byte_for_byte() {
    let text = " Once  upon\n日本 🦊\n";
    let ids = run(trit_run(&["tokenize", fables(), text])).ok();
    let decode = ["tokenize", fables(), "--decode", ids.trim()];
    assert_eq!(run(trit_run(&decode)).ok(), format!("<|begin_of_text|>{text}"));
    assert_eq!(run(trit_run(&[&decode[..], &["--no-special"]].concat())).ok(), text);
    run(trit_run(&["tokenize", fables(), "--decode", "1,4096"])).fails(2, &["4096"]);
}

#[test]
fn json_has_ids_pieces_and_text() {
    let json = run(trit_run(&["tokenize", fables(), "日", "--json"])).json();
    let (ids, pieces) = (json["ids"].as_array().unwrap(), json["pieces"].as_array().unwrap());
    assert_eq!((ids.len(), pieces.len()), (4, 4), "{json}");
    assert_eq!((&pieces[0], &json["text"]), (&"<|begin_of_text|>".into(), &"日".into()));
    let back = run(trit_run(&["tokenize", fables(), "--decode", "162,245,98", "--json"])).json();
    assert_eq!((&back["text"], &back["pieces"][0]), (&"日".into(), &pieces[1]));
}

/// The template writes a role with a capital, trims contents and puts one `<|begin_of_text|>` in front.
#[test]
fn the_prompt_is_what_the_template_makes_and_nothing_more() {
    let list = r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Who\u2028? "}]"#;
    let expected = "<|begin_of_text|>System: Be brief.<|eot_id|>User: Who\u{2028}?<|eot_id|>";
    for content in [list.to_owned(), format!("\u{feff} {{\"model\": \"m\", \"messages\": {list}}}")] {
        let path = file("messages.json", &content);
        let args = ["template", fables(), "--messages", &path];
        assert_eq!(run(trit_run(&args)).ok(), format!("{expected}Assistant: "));
        assert_eq!(run(trit_run(&[&args[..], &["--no-generation-prompt"]].concat())).ok(), expected);
        let piped = with_input(&["template", fables(), "--messages", "-"], content.as_bytes()).ok();
        assert_eq!(piped, format!("{expected}Assistant: "));
    }
}

#[test]
fn tools_come_from_a_file_of_their_own_or_with_the_messages() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = repository().join("examples/models/fables-12m");
    for entry in std::fs::read_dir(checkpoint).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join("tokenizer_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["chat_template"] =
        "{{ messages[0].x }} {{ tools | tojson if tools else 'none' }}{{ think }}{{ documents }}".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let bundle = compile(folder.path(), "text-tools");
    let tools = r#"[{"type": "function", "function": {"name": "f", "a": 1}}]"#;
    let template = |messages: &str, tools: &[&str]| {
        let messages = file("tool-messages.json", messages);
        let args = ["template", bundle.to_str().unwrap(), "--messages", &messages];
        run(trit_run(&[&args[..], tools].concat())).ok()
    };
    let messages = r#"[{"role": "user", "x": 1}]"#;
    assert_eq!(template(messages, &[]), "1 noneNone");
    let more =
        format!(r#"{{"messages": {messages}, "documents": [], "chat_template_kwargs": {{"think": true}}}}"#);
    assert_eq!(template(&more, &[]), "1 noneTrue[]");
    let separate = file("tools.json", tools);
    assert_eq!(
        template(messages, &["--tools", &separate]),
        format!("1 {tools}None"),
        "keys keep their order"
    );
    assert_eq!(
        template(&format!("{{\"messages\": {messages}, \"tools\": {tools}}}"), &[]),
        format!("1 {tools}None")
    );
    let named = file("named-tools.json", &format!("{{\"tools\": {tools}}}"));
    assert_eq!(template(messages, &["--tools", &named]), format!("1 {tools}None"));
}

#[test]
fn what_cannot_be_done_is_said() {
    let messages = file("some-messages.json", "[]");
    run(trit_run(&["template", ids_only(), "--messages", &messages])).fails(2, &["no chat template"]);
    run(trit_run(&["tokenize", ids_only(), "x"])).fails(2, &["no tokenizer"]);
    for (name, content) in [("empty.json", ""), ("number.json", "7"), ("none.json", "{}"), ("text.json", "[")]
    {
        let path = file(name, content);
        run(trit_run(&["template", fables(), "--messages", &path])).fails(3, &[name, "list"]);
        let tools = ["template", fables(), "--messages", &messages, "--tools", &path];
        run(trit_run(&tools)).fails(3, &[name, "list"]);
    }
    run(trit_run(&["template", fables(), "--messages", "/no/such/file"])).fails(3, &["/no/such/file"]);
    let path = file("no-bundle.trit", "no bundle");
    run(trit_run(&["tokenize", &path, "x"])).fails(3, &["no-bundle.trit"]);
    run(trit_run(&["template", &path, "--messages", &messages])).fails(3, &["no-bundle.trit"]);
}

/// Neither needs the weights: a bundle that has lost them is refused by everything else.
#[test]
fn weights_are_not_read() {
    let mut bytes = std::fs::read(fables()).unwrap();
    let header = trit_format::container::Header::parse(&bytes).unwrap();
    let weights = header.section(trit_format::container::SectionKind::Weights).unwrap().range();
    bytes[weights.start + 7] ^= 1;
    let path = scratch().join("text-damaged.trit");
    std::fs::write(&path, bytes).unwrap();
    let damaged = path.to_str().unwrap();
    run(trit_run(&[damaged, "-p", "x", "-n", "1"])).fails(3, &["text-damaged.trit"]);
    run(trit_run(&["tokenize", damaged, "x"])).ok();
    let messages = file("one-message.json", r#"[{"role": "user", "content": "x"}]"#);
    run(trit_run(&["template", damaged, "--messages", &messages])).ok();
}
