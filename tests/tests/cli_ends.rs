//! How the commands end: what they may replace, exit codes, signals, and what of hostile text reaches a terminal.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;
use trit_tests::workbench::{compile, fixture, repository, run, trit_run, tritc};

fn fables() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "cli-ends-fables"));
    BUNDLE.to_str().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

// ---- what is replaced

#[test]
fn logits_replace_nothing_but_logits() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let bundle = at("model.trit");
    fs::copy(fables(), &bundle).unwrap();
    fs::copy(fixture("llama-bitlinear/model.safetensors"), at("model.safetensors")).unwrap();
    fs::write(at("notes.txt"), "years of work").unwrap();
    fs::hard_link(&bundle, at("hard.trit")).unwrap();
    let args = |out: &Path| {
        trit_run(&["logits", path(&bundle), "--ids", "1,2", "--kernels", "portable", "-o", path(out)])
    };
    let mut refused = vec![
        (bundle.clone(), "is what is read"),
        (at("hard.trit"), "is what is read"),
        (at("model.safetensors"), "is no file that trit-run logits wrote"),
        (at("notes.txt"), "is no file that trit-run logits wrote"),
        (folder.path().to_owned(), "is a folder"),
        (at("no/l.safetensors"), "there is no folder"),
    ];
    if cfg!(unix) {
        refused.push(("/dev/null".into(), "not an ordinary file"));
    }
    #[cfg(unix)]
    for (name, to) in [("soft.trit", "model.trit"), ("dangling", "nowhere")] {
        std::os::unix::fs::symlink(at(to), at(name)).unwrap();
        refused.push((at(name), if name == "dangling" { "a link to nothing" } else { "is what is read" }));
    }
    let contents = || {
        let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|file| (fs::read(&file).ok(), file)).collect();
        files.sort();
        files
    };
    let before = contents();
    for (out, words) in refused {
        let ran = run(args(&out));
        ran.fails(2, &[path(&out), words]);
        // Before the bundle is looked at: a long run must not fail at its end.
        let absent = trit_run(&["logits", "/no/such/bundle", "--ids", "1", "-o", path(&out)]);
        assert!(words.contains("what is read") || run(absent).code == Some(2), "{out:?}");
    }
    assert!(contents() == before, "nothing was written");
    for _ in 0..2 {
        run(args(&at("l.safetensors"))).ok();
    }
    assert_eq!(contents().len(), before.len() + 1);
}

// ---- exit codes

/// A disk without room is no defect of the program.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_exit_3() {
    for args in [
        &[fables(), "-p", "Once", "-n", "4"][..],
        &[fables(), "-p", "Once", "-n", "4", "--json"],
        &["selftest", fables()],
        &["bench", fables(), "-p", "4", "-n", "0", "-r", "1"],
        &["--help"],
        &["--version"],
        &["completions", "bash"],
        &["man"],
    ] {
        let mut command = trit_run(args);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {err}");
        assert!(
            err.contains("standard output: cannot be written") && !err.contains("panicked"),
            "{args:?}: {err}"
        );
    }
    // Nobody reads standard error: that changes nothing.
    let mut command = trit_run(&[fables(), "-p", "Once", "-n", "4", "--profile", "--verbose"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command.stderr(full).output().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
}

/// Memory that the system refuses is no defect either.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_is_refused_is_exit_4() {
    let limited = |kib: u32, args: &[&str]| {
        let program = trit_run(args);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -v {kib} && exec \"$@\"")).arg("sh");
        command.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
        let set = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
        run({
            command.envs(set);
            command
        })
    };
    // Less than the bandwidth is measured with.
    let args = ["bench", fables(), "-p", "4", "-n", "0", "-r", "1", "-t", "1"];
    let refused = limited(400_000, &args);
    refused.fails(4, &["memory"]);
}

#[test]
fn exit_codes_are_listed_in_the_help() {
    let help = run(trit_run(&["--help"])).ok();
    for line in ["0    done", "2    usage", "4    not supported", "130  interrupted"] {
        assert!(help.contains(line), "no {line:?} in {help}");
    }
}

// ---- hostile text

/// What a terminal would obey: clearing the screen, a title, another direction, an 8-bit escape.
const HOSTILE: &str = "\x1b[2J\x1b]0;pwned\x07\u{202e}\u{9b}31m\r";

fn harmless(text: &str) {
    let obeyed = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{200f}\u{2066}".contains(c);
    assert!(!text.contains(obeyed), "{text:?}");
}

#[test]
fn messages_show_control_characters_instead_of_obeying_them() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = folder.path().join(format!("{HOSTILE}.trit"));
    for args in [
        &[path(&hostile), "-p", "x"][..],
        &["bench", path(&hostile)],
        &[path(&hostile), "--temp", HOSTILE],
        &[HOSTILE],
        &["selftest", fables(), HOSTILE],
        &["logits", fables(), "--ids", "1", "-o", path(&folder.path().join(HOSTILE).join("l"))],
        &["perplexity", fables(), "--file", path(&hostile)],
    ] {
        let ran = run(trit_run(args));
        assert!(matches!(ran.code, Some(2 | 3)), "{args:?}: {:?} {}", ran.code, ran.err);
        assert!(!ran.err.is_empty() && ran.out.is_empty(), "{args:?}");
        harmless(&ran.err);
    }
}

#[test]
fn names_and_templates_of_files_show_their_control_characters() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("model");
    fs::create_dir(&checkpoint).unwrap();
    for entry in fs::read_dir(repository().join("examples/models/fables-12m")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), checkpoint.join(entry.file_name())).unwrap();
    }
    let config = checkpoint.join("tokenizer_config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    // Refuses one question alone, so that a compiler that tries the template finds nothing.
    let source = format!(
        "{{% if messages[0]['content'] == 'x' %}}{{{{ raise_exception('{HOSTILE}\nno') }}}}{{% endif %}}\
         {{{{ messages[0]['content'] }}}}"
    );
    json["chat_template"] = source.into();
    fs::write(config, json.to_string()).unwrap();
    let bundle = folder.path().join("model.trit");
    // No name holds the others: a bundle's validation sees to that.
    let name = "fables\u{202e}21m";
    let args = ["compile", path(&checkpoint), "-o", path(&bundle), "--name", name, "--target", "portable"];
    run(tritc(&args)).ok();
    let refused = run(trit_run(&[path(&bundle), "--chat", "-p", "x"]));
    refused.fails(3, &[r"\u{1b}[2J", r"\u{a}no"]);
    harmless(&refused.err);
    // A table is for people, JSON for programs.
    let args = ["bench", path(&bundle), "-p", "4", "-n", "0", "-r", "1", "-t", "1"];
    let table = run(trit_run(&args)).ok();
    assert!(table.contains(r"fables\u{202e}21m"), "{table}");
    harmless(&table);
    assert_eq!(run(trit_run(&[&args[..], &["--json"]].concat())).json()["model"], name);
}

/// The shipped model, whose commas are escape characters.
fn escaping(folder: &Path) -> PathBuf {
    let checkpoint = folder.join("model");
    fs::create_dir(&checkpoint).unwrap();
    for entry in fs::read_dir(repository().join("examples/models/fables-12m")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), checkpoint.join(entry.file_name())).unwrap();
    }
    let file = checkpoint.join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    // The byte 0x1b as byte-level vocabularies spell it.
    let (comma, escape) = (vocab[","].clone(), vocab["\u{11b}"].clone());
    vocab.insert(",".into(), escape);
    vocab.insert("\u{11b}".into(), comma);
    fs::write(file, json.to_string()).unwrap();
    let bundle = folder.join("model.trit");
    run(tritc(&["compile", path(&checkpoint), "-o", path(&bundle), "--target", "portable"])).ok();
    bundle
}

/// A pipe gets every byte, a terminal what it can show.
#[cfg(target_os = "linux")]
#[test]
fn generated_text_controls_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = escaping(folder.path());
    let args = [path(&bundle), "-p", "Once upon a time", "-n", "30", "--temp", "0"];
    let text = run(trit_run(&args)).ok();
    assert!(text.contains('\x1b'), "the test's own premise: {text:?}");
    let json = run(trit_run(&[&args[..], &["--json"]].concat())).json();
    assert_eq!(json["text"].as_str(), text.strip_suffix('\n'));
    // A terminal of its own, where there is a program that makes one.
    let program = trit_run(&args);
    let quoted = |word: &str| format!("'{word}'");
    let words = [path(Path::new(program.get_program())).to_owned(), args.map(quoted).join(" ")].join(" ");
    let mut command = Command::new("script");
    command.args(["-qec", &words, "/dev/null"]).stdin(Stdio::null());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Ok(output) = command.output() else {
        // Not `eprintln!`, which the test runner keeps to itself while a test passes.
        let _ = writeln!(std::io::stderr(), "NOT RUN: text on a terminal (there is no program `script`)");
        return;
    };
    let shown = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert!(shown.contains(&text.replace('\x1b', "\\u{1b}")), "{shown:?}");
    harmless(&shown);
}

// ---- signals

/// Sends a signal to a child of this test.
#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

/// Waits until `ready`, or the child has ended.
fn wait_until(child: &mut Child, ready: impl Fn() -> bool) {
    while !ready() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process has taken over SIGINT, which is when it can be asked to stop.
#[cfg(target_os = "linux")]
fn takes_interrupts(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> 1 & 1 == 1)
}

fn ended(mut child: Child) -> (ExitStatus, String) {
    let mut out = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut out).unwrap();
    (child.wait().unwrap(), out)
}

/// A prompt of the whole context by the slowest kernels takes seconds; nothing of its answer is waited for.
#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_ends_a_prompt_before_its_answer() {
    let ids = vec!["77"; 1023].join(",");
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("prompt.cache");
    for more in [&[][..], &["--json"], &["--prompt-cache", path(&cache), "--json"]] {
        let args = [fables(), "--ids", &ids, "-n", "1", "--kernels", "portable", "-t", "1", "--ignore-eos"];
        let mut child = trit_run(&[&args[..], more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        wait_until(&mut child, || takes_interrupts(pid));
        send("-INT", &child);
        let (status, out) = ended(child);
        assert_eq!(status.code(), Some(130), "{out}");
        assert!(!cache.exists(), "what was interrupted is not kept");
        match more.is_empty() {
            true => assert_eq!(out.trim(), "", "no token was generated"),
            false => {
                let json: serde_json::Value = serde_json::from_str(&out).unwrap();
                assert_eq!(
                    (&json["finish"], json["ids"].as_array().map(Vec::len)),
                    (&"interrupted".into(), Some(0))
                );
            }
        }
    }
}

/// Whether a file that is being written stands in a folder.
fn unfinished(folder: &Path) -> bool {
    let mut names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.any(|name| name.to_string_lossy().ends_with(".part"))
}

/// Told to end, by a user, a system that shuts down or a terminal that goes away, both commands remove what is not
/// finished and end as the signal says.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_leaves_nothing_unfinished() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let ids = vec!["77"; 1024].join(",");
    let checkpoint = repository().join("examples/models/fables-12m");
    let logits = ["logits", fables(), "--ids", &ids, "-o", path(&out), "--kernels", "portable", "-t", "1"];
    let compile = ["compile", path(&checkpoint), "-o", path(&out), "--target", "all", "--threads", "1"];
    type Program = fn(&[&str]) -> Command;
    let mut caught = 0;
    for (program, args) in [(trit_run as Program, &logits[..]), (tritc, &compile)] {
        for (signal, number) in [("-TERM", 15), ("-HUP", 1), ("-INT", 2)] {
            let mut child = program(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            wait_until(&mut child, || unfinished(folder.path()));
            send(signal, &child);
            let (status, _) = ended(child);
            assert!(!unfinished(folder.path()), "{args:?} {signal}");
            // It may have been done already; then it was not there to be caught.
            if fs::remove_file(&out).is_ok() {
                assert!(status.success() || status.signal().is_some(), "{status:?}");
                continue;
            }
            caught += 1;
            match number {
                2 => assert_eq!(status.code(), Some(130), "{args:?}"),
                _ => assert_eq!(status.signal(), Some(number), "{args:?}"),
            }
        }
    }
    assert!(caught >= 3, "only {caught} were caught before they were done");
}
