//! Do the chat templates that people use render as in transformers?
//!
//! `tests/templates/real.py` takes the templates out of the wheels of trl, axolotl and unsloth and renders them in eight
//! conversations with transformers. It needs a Python with transformers 5.24.0 and jinja2 3.1.6,
//! `$TRIT_TEMPLATES_PYTHON` or `python3`, and a folder with the wheels, `$TRIT_TEMPLATES_WHEELS`. Without them the test
//! says plainly that it did not run.
//!
//! What these templates write for an earlier call must be what the server reads as a call of that model.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use trit_server::answer::{Form, Part};
use trit_server::chat::Messages;
use trit_tests::workbench::{repository, run, scratch};
use trit_text::template::{TemplateInput, Value};
use trit_text::{ChatTemplate, TextError};

#[derive(Deserialize)]
struct Rendered {
    special_tokens: BTreeMap<String, String>,
    conversations: Vec<Conversation>,
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Conversation {
    name: String,
    messages: Value,
    tools: Option<Value>,
    documents: Option<Value>,
    #[serde(default = "yes")]
    add_generation_prompt: bool,
    #[serde(default)]
    variables: BTreeMap<String, Value>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Template {
    name: String,
    source: String,
    results: Vec<Outcome>,
}

/// What transformers gives: a prompt, or why not.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok(String),
    Err(String),
}

/// What transformers makes of the templates; `None` where that cannot be found out.
fn rendered() -> Option<Rendered> {
    let python = std::env::var("TRIT_TEMPLATES_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let wheels = std::env::var("TRIT_TEMPLATES_WHEELS").unwrap_or_default();
    let works = Command::new(&python)
        .args(["-c", "import transformers, jinja2; assert transformers.__version__ == '5.24.0'"])
        .output()
        .is_ok_and(|output| output.status.success());
    if wheels.is_empty() || !works {
        // Not `eprintln!`, which the test runner keeps to itself while a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: real chat templates against transformers (it takes transformers 5.24.0 in {python}, or name \
             another Python in TRIT_TEMPLATES_PYTHON, and a folder of wheels in TRIT_TEMPLATES_WHEELS)"
        );
        return None;
    }
    let out = scratch().join("real-templates.json");
    let mut command = Command::new(python);
    command.arg(repository().join("tests/templates/real.py")).arg(wheels).arg(&out);
    run(command).ok();
    Some(serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap())
}

#[test]
fn real_templates_render_as_in_transformers() {
    let Some(rendered) = rendered() else { return };
    let tokens: Vec<(String, String)> = rendered.special_tokens.into_iter().collect();
    let inputs: Vec<(String, TemplateInput)> = rendered
        .conversations
        .into_iter()
        .map(|c| {
            let input = TemplateInput {
                messages: c.messages,
                tools: c.tools,
                documents: c.documents,
                add_generation_prompt: c.add_generation_prompt,
                variables: c.variables.into_iter().collect(),
            };
            (c.name, input)
        })
        .collect();
    let (mut equal, mut refused, mut different) = (0, 0, Vec::new());
    for template in &rendered.templates {
        let compiled = ChatTemplate::new(&template.source, &tokens);
        for ((conversation, input), wanted) in inputs.iter().zip(&template.results) {
            let found: Result<String, TextError> = match &compiled {
                Ok(template) => template.render_input(input, &|| false),
                Err(error) => Err(error.clone()),
            };
            match (&found, wanted) {
                (Ok(found), Outcome::Ok(wanted)) if found == wanted => equal += 1,
                (Err(_), Outcome::Err(_)) => refused += 1,
                (found, wanted) => {
                    let wanted = match wanted {
                        Outcome::Ok(text) => format!("Ok({text:?})"),
                        Outcome::Err(error) => format!("Err({error:?})"),
                    };
                    different.push(format!(
                        "{}, {conversation}:\n  gives {found:?}\n  want  {wanted}",
                        template.name
                    ));
                }
            }
        }
    }
    let _ = writeln!(
        std::io::stderr(),
        "{} real templates in {} conversations: {equal} equal, {refused} refused by both, {} different",
        rendered.templates.len(),
        inputs.len(),
        different.len()
    );
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(equal > 800, "only {equal} renderings are equal");
}

/// The names of templates whose calls must be read.
const READ: [&str; 22] = [
    "axolotl/utils/chat_templates/templates/qwen3.jinja",
    "axolotl/utils/chat_templates/templates/qwen_25.jinja",
    "trl/chat_templates/llama3_1.jinja",
    "trl/chat_templates/llama3_2.jinja",
    "trl/chat_templates/nemotron_3_5_lightning.jinja",
    "trl/chat_templates/nemotron_3_nano.jinja",
    "trl/chat_templates/nemotron_3_super.jinja",
    "trl/chat_templates/nemotron_3_ultra.jinja",
    "trl/chat_templates/qwen2_5.jinja",
    "trl/chat_templates/qwen2_5_training.jinja",
    "trl/chat_templates/qwen3.jinja",
    "trl/chat_templates/qwen3_5_nothink.jinja",
    "trl/chat_templates/qwen3_5_think.jinja",
    "trl/chat_templates/qwen3_5_think_training.jinja",
    "trl/chat_templates/qwen3_6.jinja",
    "trl/chat_templates/qwen3_6_training.jinja",
    "trl/chat_templates/qwen3_8.jinja",
    "trl/chat_templates/qwen3_8_training.jinja",
    "trl/chat_templates/qwen3_instruct_2507.jinja",
    "trl/chat_templates/qwen3_instruct_2507_training.jinja",
    "trl/chat_templates/qwen3_training.jinja",
    "trl/chat_templates/qwen3_vl.jinja",
];

/// A question, and a call that answers it.
fn with_a_call(called: bool) -> Messages {
    let tools = serde_json::json!([{"type": "function", "function": {"name": "weather", "description": "Gives it.",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Where"}, "days": {"type": ["integer", "null"]},
            "where": {"type": "object"}, "tags": {"type": "array"}}}}}]);
    let question = serde_json::json!({"role": "user", "content": "Weather in Zürich?"});
    let call = serde_json::json!({"role": "assistant", "content": "", "tool_calls": [{"id": "call12345", "type": "function",
        "function": {"name": "weather", "arguments": arguments()}}]});
    Messages {
        messages: if called { vec![question, call] } else { vec![question] },
        tools: tools.as_array().unwrap().clone(),
        ..Messages::default()
    }
}

fn arguments() -> serde_json::Value {
    serde_json::json!({"city": "Zürich, \"old\"\ntown", "days": 2, "where": {"lat": 47.5}, "tags": ["a"]})
}

#[test]
fn calls_that_real_templates_write_are_read() {
    let Some(rendered) = rendered() else { return };
    let tokens: Vec<(String, String)> = rendered.special_tokens.into_iter().collect();
    let mut missing: Vec<&str> = READ.to_vec();
    for template in &rendered.templates {
        let Some(at) = missing.iter().position(|name| template.name.ends_with(name)) else { continue };
        let compiled = ChatTemplate::new(&template.source, &tokens).unwrap();
        let form = Form::find(&compiled, &template.source, &|_| false);
        let render = |called: bool| {
            let given = form.for_template(&with_a_call(called));
            let value =
                |items: Vec<serde_json::Value>| serde_json::from_value::<Value>(items.into()).unwrap();
            let input = TemplateInput {
                messages: value(given.messages),
                tools: Some(value(given.tools)),
                documents: None,
                add_generation_prompt: !called,
                variables: Vec::new(),
            };
            compiled.render_input(&input, &|| false).unwrap_or_else(|e| panic!("{}: {e}", template.name))
        };
        let (opened, whole) = (render(false), render(true));
        // A prompt may open a thought, which an earlier answer then lacks.
        let prompt = if whole.starts_with(&opened) { &*opened } else { opened.trim_end_matches("<think>\n") };
        let answer =
            whole.strip_prefix(prompt).unwrap_or_else(|| panic!("{}: {prompt:?} {whole:?}", template.name));
        let ends = ["<|im_end|>", "<|eot_id|>", "<|eom_id|>"];
        let end = ends.iter().filter_map(|end| answer.find(end)).min().unwrap_or(answer.len());
        let mut splitter = form.splitter(&with_a_call(false), prompt);
        let parts = [splitter.push(&answer[..end]), splitter.finish()].concat();
        let json = match &parts[..] {
            [Part::ToolCall { index: 0, name, .. }, Part::ToolArguments { index: 0, json }]
                if name == "weather" =>
            {
                json
            }
            other => panic!("{}: {answer:?} gives {other:?}", template.name),
        };
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(json).unwrap(),
            arguments(),
            "{}",
            template.name
        );
        missing.remove(at);
    }
    assert!(missing.is_empty(), "no templates of these names: {missing:?}");
}
