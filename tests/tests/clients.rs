//! Do the official client packages of OpenAI and Anthropic get what they expect?
//!
//! `tests/clients/*.py` drive a server on loopback. They need a Python that has the packages of `tests/clients/requirements.txt`:
//! `$TRIT_CLIENTS_PYTHON`, or `python3`. Without it the tests say plainly that they did not run.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use trit_tests::serving::Served;
use trit_tests::workbench::{compile, repository, run, trit_run};

/// A Python that has the packages, if there is one.
fn python() -> Option<&'static str> {
    static PYTHON: LazyLock<Option<String>> = LazyLock::new(|| {
        let python = std::env::var("TRIT_CLIENTS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let requirements =
            std::fs::read_to_string(repository().join("tests/clients/requirements.txt")).unwrap();
        let pinned = requirements.lines().filter_map(|line| line.split_once("=="));
        let checks: Vec<String> = pinned
            .map(|(name, version)| format!("import {name}; assert {name}.__version__ == {version:?}"))
            .collect();
        let works = Command::new(&python).args(["-c", &checks.join("\n")]).output();
        if works.is_ok_and(|output| output.status.success()) {
            return Some(python);
        }
        // Not `eprintln!`, which the test runner keeps to itself while a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: the client packages of OpenAI and Anthropic ({python} lacks the packages of \
             tests/clients/requirements.txt; install them, or name another one in TRIT_CLIENTS_PYTHON)"
        );
        None
    });
    PYTHON.as_deref()
}

fn fables() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "clients-fables"));
    BUNDLE.to_str().unwrap()
}

/// The same model with a template that opens thoughts and knows tools.
fn thinking() -> PathBuf {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(repository().join("examples/models/fables-12m")).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join("tokenizer_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let template = std::fs::read_to_string(repository().join("tests/clients/thinking.jinja")).unwrap();
    config["chat_template"] = template.trim_end().into();
    std::fs::write(&path, config.to_string()).unwrap();
    compile(folder.path(), "clients-thinking")
}

/// Runs the checks of a script against a server. What it asks goes to that server alone.
fn drive(server: &Served, script: &str) {
    let Some(python) = python() else { return };
    let mut command = Command::new(python);
    command.arg(repository().join("tests/clients").join(script));
    command.arg(format!("http://{}", server.address)).arg(server.id().to_string());
    command.env("NO_PROXY", "*").env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{script}:\n{}{}{}", ran.out, ran.err, server.printed());
    assert!(ran.out.contains(" checks passed"), "{}", ran.out);
}

#[test]
fn openai_talks_to_a_plain_model() {
    if python().is_some() {
        drive(&Served::start(fables(), &[]), "plain_openai.py");
    }
}

#[test]
fn anthropic_talks_to_a_plain_model() {
    if python().is_some() {
        drive(&Served::start(fables(), &[]), "plain_anthropic.py");
    }
}

#[test]
fn both_talk_to_a_model_that_thinks_and_knows_tools() {
    if python().is_some() {
        drive(&Served::start(thinking().to_str().unwrap(), &[]), "thinking.py");
    }
}

#[test]
fn both_demand_calls_and_formats() {
    if python().is_some() {
        drive(&Served::start(fables(), &[]), "guided.py");
    }
}

#[test]
fn openai_asks_for_embeddings() {
    if python().is_some() {
        drive(&Served::start(fables(), &["--embeddings", "mean"]), "embeddings.py");
    }
}

#[test]
fn both_turn_refusals_into_their_own_exceptions() {
    if python().is_some() {
        let mut command = trit_run(&["serve", fables(), "--listen", "127.0.0.1:0", "-t", "2"]);
        command.args(["--slots", "1", "--queue", "1", "--max-body", "64K"]).env("TRIT_API_KEY", "secret");
        let server = Served::run(command);
        drive(&server, "strict.py");
        let (status, printed) = server.ended();
        assert!(status.success(), "told to end, the server ends well: {printed}");
    }
}
