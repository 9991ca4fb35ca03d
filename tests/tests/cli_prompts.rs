//! Where a text to run comes from and where it ends: the command line, standard input, a chat template, `--stop`; and
//! what is said of a line that makes no sense.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use trit_tests::workbench::{Ran, compile, fixture, repository, run, trit_run, tritc};

fn fables() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "cli-prompts-fables"));
    BUNDLE.to_str().unwrap()
}

fn ids_only() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&fixture("llama-bitlinear"), "cli-prompts-ids-only"));
    BUNDLE.to_str().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What it gives for a standard input.
fn piped(args: &[&str], input: &str) -> Ran {
    let mut child = trit_run(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

// ---- where a text comes from

#[test]
fn a_text_after_the_bundle_is_a_prompt() {
    let more = ["-n", "8", "--temp", "0", "--json"];
    let of =
        |prompt: &[&str]| run(trit_run(&[&[fables()], &more[..], prompt].concat())).json()["ids"].clone();
    assert_eq!(of(&["Once upon a time"]), of(&["-p", "Once upon a time"]));
    assert_eq!(of(&["--", "-x is"]), of(&["-p", "-x is"]));
}

#[test]
fn one_question_is_answered_by_the_chat_template() {
    let more = ["-n", "12", "--temp", "0", "--json"];
    let json = |args: &[&str]| run(trit_run(&[&[fables()], args, &more].concat())).json();
    let tokens = |json: &serde_json::Value| json["timings"]["prompt_tokens"].as_u64().unwrap();
    let (plain, chat) = (json(&["-p", "Who are you?"]), json(&["--chat", "-p", "Who are you?"]));
    assert!(tokens(&chat) > tokens(&plain), "the template adds who speaks: {plain} {chat}");
    assert_eq!(json(&["--chat", "Who are you?"])["ids"], chat["ids"]);
    let input = piped(&[&[fables(), "--chat"], &more[..]].concat(), "Who are you?\n").json();
    assert_eq!((&input["ids"], tokens(&input)), (&chat["ids"], tokens(&chat)));
    // A system message is for a chat, wherever the question comes from.
    let system = ["--system", "You are a fox and answer as one."];
    let told = json(&[&["-p", "Who are you?"], &system[..]].concat());
    assert!(tokens(&told) > tokens(&chat), "{told} {chat}");
    let input = piped(&[&[fables()], &system[..], &more].concat(), "Who are you?").json();
    assert_eq!((&input["ids"], tokens(&input)), (&told["ids"], tokens(&told)));
    let both = [&["--chat", "-p", "Who are you?"], &system[..]].concat();
    assert_eq!(json(&both)["ids"], told["ids"]);
    // As text.
    let args = [fables(), "--chat", "-p", "Who are you?", "-n", "12", "--temp", "0"];
    assert_eq!(run(trit_run(&args)).ok(), format!("{}\n", chat["text"].as_str().unwrap()));
}

#[test]
fn a_model_that_cannot_chat_says_so() {
    for args in [&["--chat", "-p", "x"][..], &["--system", "y", "-p", "x"]] {
        run(trit_run(&[&[ids_only()], args].concat())).fails(2, &["tokenizer"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let bundle = with_template(folder.path(), None);
    run(trit_run(&[path(&bundle), "--chat", "-p", "x"])).fails(2, &["chat template", "--chat"]);
    run(trit_run(&[path(&bundle), "--system", "y", "-p", "x"])).fails(2, &["chat template", "--system"]);
    run(trit_run(&[fables(), "--chat", "--ids", "1"])).fails(2, &["--chat"]);
}

/// The shipped model with another chat template, as a bundle in `folder`.
fn with_template(folder: &Path, template: Option<&str>) -> PathBuf {
    let checkpoint = folder.join("model");
    std::fs::create_dir(&checkpoint).unwrap();
    for entry in std::fs::read_dir(repository().join("examples/models/fables-12m")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), checkpoint.join(entry.file_name())).unwrap();
    }
    let config = checkpoint.join("tokenizer_config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let object = json.as_object_mut().unwrap();
    object.remove("chat_template");
    if let Some(template) = template {
        object.insert("chat_template".into(), template.into());
    }
    std::fs::write(config, json.to_string()).unwrap();
    let bundle = folder.join("model.trit");
    run(tritc(&["compile", path(&checkpoint), "-o", path(&bundle), "--target", "portable"])).ok();
    bundle
}

// ---- where it ends

#[test]
fn generation_ends_before_a_stop_text() {
    let args = [fables(), "-p", "Once upon a time", "-n", "60", "--temp", "0", "--ignore-eos", "--json"];
    let json = |more: &[&str]| run(trit_run(&[&args[..], more].concat())).json();
    let whole = json(&[]);
    let text = whole["text"].as_str().unwrap();
    let starts: Vec<usize> =
        text.char_indices().map(|(at, _)| at).filter(|at| at + 12 < text.len()).collect();
    // Somewhere, of any length: inside a token, over several, at a word.
    for (at, len) in [(20, 1), (31, 3), (44, 9), (60, 11), (75, 5)] {
        let stop: String = text[starts[at]..].chars().take(len).collect();
        let ended = json(&["--stop", &stop]);
        assert_eq!(ended["text"].as_str(), Some(&text[..text.find(&stop).unwrap()]), "{stop:?}");
        assert_eq!(ended["finish"], "stop", "{stop:?}");
    }
    let absent = json(&["--stop", "\u{1}", "--stop", &format!("{text}!")]);
    assert_eq!((&absent["text"], &absent["finish"]), (&whole["text"], &whole["finish"]));
    // The first of several, and as text.
    let (early, late) = (&text[starts[30]..starts[36]], &text[starts[50]..starts[56]]);
    let expected = &text[..text.find(early).unwrap().min(text.find(late).unwrap())];
    let args = [&args[..8], &["--stop", late, "--stop", early]].concat();
    assert_eq!(run(trit_run(&args)).ok(), format!("{expected}\n"));
    run(trit_run(&[ids_only(), "--ids", "1", "--stop", "x"])).fails(2, &["tokenizer", "--stop"]);
}

#[test]
fn minus_one_is_no_limit_and_another_seed() {
    let args = [fables(), "-p", "Once", "-c", "40", "-n", "-1", "--ignore-eos", "--top-k", "-1", "--json"];
    let json = |seed: &str| run(trit_run(&[&args[..], &["--seed", seed]].concat())).json();
    let first = json("-1");
    assert_eq!(first["finish"], "context", "{first}");
    assert_ne!(first["seed"], json("-1")["seed"]);
    run(trit_run(&[fables(), "-p", "x", "-n", "-5"])).fails(2, &["-1 for no limit"]);
    run(trit_run(&[fables(), "-p", "x", "-t", "0"])).fails(2, &["leave -t out"]);
    run(trit_run(&[fables(), "-p", "x", "-n", "1", "-c", "0"])).ok();
}

#[test]
fn a_longer_context_is_suggested_where_there_is_one() {
    let long = "word ".repeat(1500);
    let own = piped(&[fables(), "-n", "1"], &long);
    own.fails(2, &["1024", "tritc compile --context"]);
    assert!(!own.err.contains("with -c"), "{}", own.err);
    let args = [fables(), "-p", "one two three four five six", "-c", "4"];
    run(trit_run(&args)).fails(2, &["context of 4", "with -c", "1024"]);
    run(trit_run(&[fables(), "-p", "x", "-c", "5000"]))
        .fails(2, &["5000", "1024", "tritc compile --context"]);
}

// ---- what makes no sense

#[test]
fn what_is_no_bundle_is_named_with_what_to_do() {
    let checkpoint = repository().join("examples/models/fables-12m");
    let gguf = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    std::fs::write(gguf.path(), b"GGUF\x03\0\0\0 and so on").unwrap();
    for (path, what) in [
        (checkpoint.clone(), "is a folder"),
        (checkpoint.join("model.safetensors"), "is a safetensors file"),
        (checkpoint.join("config.json"), "is part of a checkpoint"),
        (gguf.path().to_owned(), "is a GGUF file"),
    ] {
        let name = path.to_str().unwrap();
        for args in [&[name, "-p", "x"][..], &["bench", name], &["logits", name, "--ids", "1", "-o", "l"]] {
            run(trit_run(args)).fails(3, &[name, what, &format!("tritc compile {name}")]);
        }
    }
    run(trit_run(&["/dev/null", "-p", "x"])).fails(3, &["/dev/null", "not an ordinary file"]);
}

#[test]
fn misspelled_commands_are_not_taken_for_bundles() {
    for (args, meant) in [
        (&["benhc", fables()][..], "trit-run bench"),
        (&["benhc", fables(), "-r", "1", "--what"], "trit-run bench"),
        (&["selftests"], "trit-run selftest"),
        (&["compile", "model"], "tritc compile"),
        (&["inspect", fables(), "--plan"], "tritc inspect"),
        (&["run", fables()], "trit-run BUNDLE"),
        (&[fables(), "bench"], "trit-run bench BUNDLE"),
        (&["Once upon a time", fables()], "the bundle comes first"),
        (&[fables(), "Once", "upon", "a", "time"], "stands in quotes"),
        (&[fables(), "-p", "Once", "upon", "a", "time"], "stands in quotes"),
    ] {
        run(trit_run(args)).fails(2, &[meant]);
    }
    run(trit_run(&["no-such-model.trit", "-p", "x"])).fails(3, &["no-such-model.trit", "no such file"]);
}

// ---- what other programs want to know

#[test]
fn completions_and_manual_pages_know_the_commands() {
    for (program, command) in [(trit_run as fn(&[&str]) -> _, "perplexity"), (tritc, "inspect")] {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = run(program(&["completions", shell])).ok();
            assert!(script.contains(command) && script.contains("json"), "{shell}: {script}");
        }
        let page = run(program(&["man"])).ok();
        assert!(page.contains(".TH") && page.contains(command) && page.contains("Exit codes"), "{page}");
        let page = run(program(&["man", command])).ok();
        assert!(page.contains(".TH") && page.contains("json"), "{page}");
        assert!(page.lines().any(|line| line.starts_with(".TH") && line.contains(env!("CARGO_PKG_VERSION"))));
        run(program(&["man", "nothing"])).fails(2, &["nothing"]);
    }
}

#[test]
fn versions_name_commit_and_tiers() {
    for (program, name, words) in [
        (trit_run as fn(&[&str]) -> _, "trit-run", ["tiers of this CPU: ", "kernels: "]),
        (tritc, "tritc", ["generates code for: x86-64-v2, ", "native here: "]),
    ] {
        let long = run(program(&["--version"])).ok();
        let first = format!("{name} {}", env!("CARGO_PKG_VERSION"));
        assert!(long.starts_with(&first) && words.iter().all(|word| long.contains(word)), "{long}");
        assert_eq!(run(program(&["-V"])).ok(), format!("{first}\n"));
        // In a clone, unless its maker says otherwise.
        let head =
            std::process::Command::new("git").args(["rev-parse", "HEAD"]).current_dir(repository()).output();
        let head = head.ok().filter(|head| head.status.success()).map(|head| head.stdout);
        if let (Some(head), None) = (head, std::env::var_os("TRIT_COMMIT")) {
            let commit = format!("({})", &String::from_utf8(head).unwrap()[..12]);
            assert!(long.contains(&commit), "{commit} in {long}");
        }
    }
}
