//! Do small templates give what Jinja2 gives, set up as transformers does?
//!
//! `tests/fixtures/templates` holds templates and their results, which `tests/templates/differential.py` writes. What is
//! not rendered as Jinja2 does has to be refused by name.

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use trit_text::template::{TemplateInput, Value};
use trit_text::{ChatTemplate, TextError};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/templates")
}

fn read(name: &str) -> Json {
    let path = fixtures().join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"))).unwrap()
}

fn value(json: &Json) -> Value {
    serde_json::from_value(json.clone()).unwrap()
}

/// Keys in the order of the text, which `serde_json::Value` does not keep.
fn in_order(path: &str, pointer: &str) -> Value {
    #[derive(serde::Deserialize)]
    struct File {
        messages: Value,
        #[serde(default)]
        variables: std::collections::BTreeMap<String, Value>,
    }
    let file: File = serde_json::from_slice(&std::fs::read(fixtures().join(path)).unwrap()).unwrap();
    match pointer {
        "messages" => file.messages,
        name => file.variables[name].clone(),
    }
}

fn special_tokens() -> Vec<(String, String)> {
    [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.into(), token.into())).into()
}

fn render(template: &str, input: &TemplateInput) -> Result<String, TextError> {
    ChatTemplate::new(template, &special_tokens())?.render_input(input, &|| false)
}

#[test]
fn small_templates_give_what_jinja2_gives_or_are_refused_by_name() {
    let file = read("differential.json");
    let variables = file["variables"].as_object().unwrap();
    let input = TemplateInput {
        messages: in_order("differential.json", "messages"),
        tools: None,
        documents: None,
        add_generation_prompt: true,
        variables: variables.keys().map(|name| (name.clone(), in_order("differential.json", name))).collect(),
    };
    let (mut equal, mut raised, mut refused, mut wrong) = (0, 0, Vec::new(), Vec::new());
    for case in file["cases"].as_array().unwrap() {
        let template = case[0].as_str().unwrap();
        match (render(template, &input), case[1].as_str()) {
            (Ok(text), Some(want)) if text == want => equal += 1,
            (Err(_), None) => raised += 1,
            (Err(error), Some(_)) if error.to_string().contains("not supported: ") => {
                refused.push(format!("{template}: {error}"));
            }
            (found, want) => {
                wrong.push(format!("{template:?}\n    gives {found:?}\n    want  {:?}", want.ok_or(&case[2])))
            }
        }
    }
    println!(
        "{equal} equal, {raised} raise in both, {} refused by name, {} wrong",
        refused.len(),
        wrong.len()
    );
    refused.iter().for_each(|line| println!("refused: {line}"));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(equal > 2500 && refused.len() < 100, "{equal} equal, {} refused", refused.len());
}

#[test]
fn templates_that_were_rendered_wrong_are_right() {
    let file = read("cases.json");
    let input = TemplateInput {
        messages: in_order("cases.json", "messages"),
        tools: None,
        documents: None,
        add_generation_prompt: true,
        variables: Vec::new(),
    };
    for case in file["cases"].as_array().unwrap() {
        let template = case["template"].as_str().unwrap();
        let found = render(template, &input);
        match case["want"]["ok"].as_str() {
            Some(want) => assert_eq!(found.unwrap(), want, "{template}"),
            None => assert!(found.is_err(), "{template} gives {found:?}"),
        }
    }
    for (name, want) in file["files"].as_object().unwrap() {
        let template = std::fs::read_to_string(fixtures().join(name)).unwrap();
        assert_eq!(render(&template, &input).unwrap(), want.as_str().unwrap(), "{name}");
    }
    let _ = value(&file["tools"]);
}
