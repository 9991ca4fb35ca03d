//! Does the chat page work in a browser?
//!
//! `tests/page/drive.py` clicks and types through it in headless Chromium, against `trit-run serve` with the shipped model. It
//! needs Chromium, `$TRIT_PAGE_BROWSER` or `chromium`, and a Python without further packages, `$TRIT_PAGE_PYTHON` or
//! `python3`. Without them the test says plainly that it did not run.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use trit_tests::workbench::{compile, program, repository, run, scratch};

/// A chat in which both tell one story in turns, which is what the shipped model can do.
const STORY: &str = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% if not loop.last %} {% endif %}{% endfor %}";

/// A program that a variable names, or the one of this name, if it answers to `--version`.
fn found(variable: &str, name: &str) -> Result<String, String> {
    let program = std::env::var(variable).unwrap_or_else(|_| name.to_owned());
    let answers =
        Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success());
    answers
        .then_some(program.clone())
        .ok_or_else(|| format!("{program} does not run; {variable} names another one"))
}

/// The shipped model with another chat template, or none.
fn with_template(name: &str, template: Option<&str>) -> PathBuf {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(repository().join("examples/models/fables-12m")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let path = folder.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let config_fields = config.as_object_mut().unwrap();
    config_fields.remove("chat_template").expect("the shipped model has a chat template");
    if let Some(template) = template {
        config_fields.insert("chat_template".into(), template.into());
    }
    std::fs::write(&path, config.to_string()).unwrap();
    compile(folder.path(), name)
}

#[test]
fn the_page_works_in_a_browser() {
    let programs = (found("TRIT_PAGE_BROWSER", "chromium"), found("TRIT_PAGE_PYTHON", "python3"));
    let (browser, python) = match programs {
        (Ok(browser), Ok(python)) => (browser, python),
        (Err(why), _) | (_, Err(why)) => {
            // Not `eprintln!`, which the test runner keeps to itself while a test passes.
            let _ = writeln!(std::io::stderr(), "NOT RUN: the chat page in a browser ({why})");
            return;
        }
    };
    let (chat, text) = (with_template("page-chat", Some(STORY)), with_template("page-text", None));
    let served = program("trit-run");
    let mut command = Command::new(python);
    command.arg("-B").arg(repository().join("tests/page/drive.py")).arg(browser).arg(served.get_program());
    command.args([&chat, &text]);
    command.env("TRIT_TRUST_DIR", scratch().join("trusted"));
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    assert!(ran.out.lines().filter(|line| line.starts_with("ok ")).count() >= 25, "{}", ran.out);
}

/// The pictures are of the page and small enough for a README.
#[test]
fn pictures_of_the_page_are_small() {
    for name in ["chat-light.png", "chat-dark.png", "chat-phone.png"] {
        let path: &Path = &repository().join("docs/images").join(name);
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() < 150_000, "{name} has {} bytes", bytes.len());
    }
}
