//! Do the official client packages of OpenAI and Anthropic get what they expect?
//!
//! `tests/clients/*.py` drive a server on loopback. They need a Python that has the packages of `tests/clients/requirements.txt`:
//! `$TRIT_CLIENTS_PYTHON`, or `python3`. Without it the tests say plainly that they did not run.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
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

fn fables() -> &'static Path {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "clients-fables"));
    &BUNDLE
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

/// A server that ends with the test.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(bundle: &Path, more: &[&str]) -> Server {
        let mut command = trit_run(&["serve", "--listen", "127.0.0.1:0", "--log", "error"]);
        command.args(more).arg(bundle).stdout(Stdio::piped());
        if more.contains(&"--queue") {
            command.env("TRIT_API_KEY", "secret");
        }
        let mut child = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let said = lines.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
        let url = said.expect("it says where it listens");
        assert!(lines.any(|line| line == "ready"), "it says that it is ready");
        Server { child, url }
    }

    fn drive(&self, script: &str) {
        let Some(python) = python() else { return };
        let mut command = Command::new(python);
        command
            .arg(repository().join("tests/clients").join(script))
            .arg(&self.url)
            .arg(self.child.id().to_string());
        // Whatever this machine would send outside, it asks nobody but the server.
        command.env("NO_PROXY", "*").env("PYTHONDONTWRITEBYTECODE", "1");
        let ran = run(command);
        assert_eq!(ran.code, Some(0), "{script}:\n{}{}", ran.out, ran.err);
        assert!(ran.out.contains(" checks passed"), "{}", ran.out);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn openai_talks_to_a_plain_model() {
    if python().is_some() {
        Server::start(fables(), &[]).drive("plain_openai.py");
    }
}

#[test]
fn anthropic_talks_to_a_plain_model() {
    if python().is_some() {
        Server::start(fables(), &[]).drive("plain_anthropic.py");
    }
}

#[test]
fn both_talk_to_a_model_that_thinks_and_knows_tools() {
    if python().is_some() {
        Server::start(&thinking(), &[]).drive("thinking.py");
    }
}

#[test]
fn both_turn_refusals_into_their_own_exceptions() {
    if python().is_some() {
        let limits = ["--slots", "1", "--queue", "1", "--max-body", "64K"];
        let mut server = Server::start(fables(), &limits);
        server.drive("strict.py");
        assert!(server.child.wait().unwrap().success(), "told to end, the server ends well");
    }
}
