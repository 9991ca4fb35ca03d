//! The chat as people meet it: on a terminal.
#![cfg(unix)]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;
use trit_tests::workbench::{compile, repository, run, trit_run};

fn fables() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "chat-fables"));
    BUNDLE.to_str().unwrap()
}

/// A chat on a terminal of its own, with a home folder of its own.
struct Chat {
    child: Child,
    terminal: File,
    /// What it printed and no test has asked for yet.
    seen: String,
    home: TempDir,
    /// Ends what would wait for ever.
    ended: Arc<AtomicBool>,
}

impl Chat {
    fn start(args: &[&str]) -> Chat {
        Chat::on(fables(), args, tempfile::tempdir().unwrap())
    }

    fn on(bundle: &str, args: &[&str], home: TempDir) -> Chat {
        let size = Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        // Other tests start programs at the same time, which must not keep these open.
        for fd in [&master, &slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = trit_run(&[&[bundle], args].concat());
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm").env("XDG_STATE_HOME", home.path()).env("HOME", home.path());
        let child = command.spawn().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (pid, watched) = (Pid::from_raw(child.id() as i32), ended.clone());
        std::thread::spawn(move || {
            for _ in 0..300 {
                std::thread::sleep(Duration::from_secs(1));
                if watched.load(Relaxed) {
                    return;
                }
            }
            let _ = kill(pid, Signal::SIGKILL);
        });
        let mut chat = Chat { child, terminal: File::from(master), seen: String::new(), home, ended };
        chat.wait_for("/help for help");
        chat.wait_for("> ");
        chat
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.terminal.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads until `text` was printed.
    fn wait_for(&mut self, text: &str) {
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            assert!(self.read(), "the chat ended without {text:?}: {}", self.seen);
        }
    }

    /// Reads what there is; false at the end.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // Linux says that the other end is closed with an error.
        let count = self.terminal.read(&mut bytes).unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        count > 0
    }

    /// Saves the conversation and leaves. Gives what was printed meanwhile, and every role with what it said.
    fn save(mut self) -> (String, Vec<(String, String)>) {
        let path = self.home.path().join("saved.json");
        self.send(format!("/save {}\r/quit\r", path.display()));
        let printed = self.end();
        let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let text = |m: &Value, key: &str| m[key].as_str().unwrap().to_owned();
        (
            printed,
            json["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| (text(m, "role"), text(m, "content")))
                .collect(),
        )
    }

    /// [`Chat::save`], what the user said.
    fn said(self) -> Vec<String> {
        self.save().1.into_iter().filter(|(role, _)| role == "user").map(|(_, content)| content).collect()
    }

    /// Waits for the end, which must be a good one; gives what was printed and not asked for.
    fn end(&mut self) -> String {
        while self.read() {}
        let status = self.child.wait().unwrap();
        self.ended.store(true, Relaxed);
        assert_eq!(status.code(), Some(0), "{}", self.seen);
        std::mem::take(&mut self.seen)
    }
}

/// Short answers, always the same.
const BRIEF: [&str; 6] = ["--temp", "0", "-n", "6", "-t", "1"];

// ---- what arrives

#[test]
fn lines_that_arrive_together_are_all_answered() {
    let mut chat = Chat::start(&BRIEF);
    chat.send("One\rTwo\rThree\r");
    assert_eq!(chat.said(), ["One", "Two", "Three"]);
}

#[test]
fn lines_that_arrive_while_the_model_writes_are_kept() {
    let mut chat = Chat::start(&["--temp", "0", "-n", "400", "--ignore-eos", "-t", "1"]);
    chat.send("/set n 400\rOnce\r");
    chat.wait_for("Once");
    let long = "word ".repeat(300);
    for line in ["/set n 2", "first\tcolumn", "second", long.trim()] {
        chat.send(format!("{line}\r"));
    }
    assert_eq!(chat.said(), ["Once", "first\tcolumn", "second", long.trim()]);
}

#[test]
fn pasted_lines_stay_together() {
    let mut chat = Chat::start(&BRIEF);
    chat.send("\x1b[200~Explain:\ncc \\\n\tx.c\n\x1b[201~\r");
    assert_eq!(chat.said(), ["Explain:\ncc \\\n\tx.c"]);
}

#[test]
fn an_entry_may_have_several_lines() {
    let mut chat = Chat::start(&BRIEF);
    chat.send("one \\\rtwo\\\\\r");
    chat.send("\"\"\"\r/help \\\r\r  three\r\"\"\"\r");
    chat.send("/system \"\"\"Be\rbrief.\"\"\"\r");
    let (_, messages) = chat.save();
    let contents: Vec<&str> = messages.iter().filter(|m| m.0 != "assistant").map(|m| m.1.as_str()).collect();
    assert_eq!(contents, ["Be\nbrief.", "one \ntwo\\\\", "/help \\\n\n  three"]);
}

#[test]
fn bytes_that_are_no_text_end_neither_the_chat_nor_the_line() {
    let mut chat = Chat::start(&BRIEF);
    chat.send(b"caf\xe9");
    // The byte could begin a character until another one follows.
    chat.send(b" ");
    chat.wait_for("no UTF-8");
    chat.wait_for("> ");
    chat.send(b"au lait\r\xff");
    chat.wait_for("no UTF-8");
    chat.wait_for("> ");
    chat.send(b"Two\r");
    assert_eq!(chat.said(), ["cafau lait", "Two"]);
}

// ---- what is remembered

/// The shipped model with a template that trims nothing and refuses one word.
fn exact() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(repository().join("examples/models/fables-12m")).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
        }
        let path = folder.path().join("tokenizer_config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["chat_template"] =
            "{{ bos_token }}{% for m in messages %}\
            {% if m.content == 'forbidden' %}{{ raise_exception('not that') }}{% endif %}{{ m.role }}:{{ m.content }}|{% endfor %}\
            {% if add_generation_prompt %}assistant:{% endif %}"
                .into();
        std::fs::write(&path, config.to_string()).unwrap();
        compile(folder.path(), "chat-exact")
    });
    BUNDLE.to_str().unwrap()
}

/// Every answer is the text of what the model generates after the prompt that the template makes of all that was said
/// before, with nothing trimmed.
#[test]
fn answers_are_remembered_as_they_were_generated() {
    let mut chat = Chat::on(exact(), &BRIEF, tempfile::tempdir().unwrap());
    for n in 1..=5 {
        chat.send(format!("/set n {n}\rWhat does the fox say?\r"));
    }
    let (_, messages) = chat.save();
    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("before.json");
    let before = before.to_str().unwrap();
    assert_eq!(messages.len(), 10);
    for (turn, answer) in messages.iter().enumerate().skip(1).step_by(2) {
        let said = &messages[..turn];
        let json: Vec<Value> = said
            .iter()
            .map(|(role, content)| serde_json::json!({"role": role, "content": content}))
            .collect();
        std::fs::write(before, Value::from(json).to_string()).unwrap();
        let prompt = run(trit_run(&["template", exact(), "--messages", before])).ok();
        let expected: String = said.iter().map(|(role, content)| format!("{role}:{content}|")).collect();
        assert_eq!(prompt, format!("<|begin_of_text|>{expected}assistant:"));
        let ids = run(trit_run(&["tokenize", exact(), "--no-special", "--", &prompt])).ok();
        let n = turn.div_ceil(2).to_string();
        let args = [exact(), "--ids", ids.trim(), "-n", &n, "--temp", "0", "--json"];
        let json = run(trit_run(&args)).json();
        let ids: Vec<String> = json["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
        let text = run(trit_run(&["tokenize", exact(), "--no-special", "--decode", &ids.join(",")])).ok();
        assert_eq!(answer.1, text, "turn {turn}");
    }
    assert!(
        messages.iter().any(|(_, content)| content.trim() != content),
        "nothing was to be trimmed: {messages:?}"
    );
}

#[test]
fn lines_are_remembered_in_the_next_chat_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut chat = Chat::start(&BRIEF);
    chat.send("Remember this\r/quit\r");
    chat.end();
    let home = std::mem::replace(&mut chat.home, tempfile::tempdir().unwrap());
    let history = home.path().join("trit/history");
    assert_eq!(std::fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    // Up twice: before /quit.
    let mut chat = Chat::on(fables(), &BRIEF, home);
    chat.send("\x1b[A\x1b[A\r");
    assert_eq!(chat.said(), ["Remember this"]);
    let mut chat = Chat::start(&["--no-history", "-n", "1"]);
    chat.send("Forget this\r/quit\r");
    chat.end();
    assert!(!chat.home.path().join("trit").exists());
}

#[test]
fn a_history_that_cannot_be_kept_ends_no_chat() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("trit"), "no folder").unwrap();
    let mut chat = Chat::on(fables(), &BRIEF, home);
    chat.send("One\r");
    assert_eq!(chat.said(), ["One"]);
}

// ---- commands

#[test]
fn commands_change_the_conversation_and_mistakes_do_not() {
    let mut chat = Chat::start(&[&BRIEF[..], &["--system", "Be old."]].concat());
    let (talk, precious) = (chat.home.path().join("talk.json"), chat.home.path().join("precious"));
    std::fs::write(&talk, r#"[{"role": "user", "content": "Loaded?"}]"#).unwrap();
    std::fs::write(&precious, "years of work").unwrap();
    for (line, answer) in [
        ("/system".to_owned(), "Be old."),
        ("/set".to_owned(), "repeat_penalty 1"),
        ("/set top_p 7".to_owned(), "top_p cannot be \"7\""),
        ("/set colour red".to_owned(), "no setting"),
        ("/sytem x".to_owned(), "no command"),
        ("/retry".to_owned(), "no question"),
        ("/undo".to_owned(), "no question"),
        ("/?".to_owned(), "/retry"),
        (format!("/save {}", precious.display()), "another name"),
        ("/load /no/such/file".to_owned(), "/no/such/file"),
        (format!("/load {}", talk.display()), "1 message; /retry answers the last"),
    ] {
        chat.send(format!("{line}\r"));
        chat.wait_for("\n");
        chat.wait_for(answer);
        chat.wait_for("> ");
    }
    chat.send("/retry\r/system Be new.\rAnd then?\r/undo\r");
    chat.wait_for("3 messages left");
    let (_, messages) = chat.save();
    let roles: Vec<&str> = messages.iter().map(|m| m.0.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!((messages[0].1.as_str(), messages[1].1.as_str()), ("Be new.", "Loaded?"));
}

/// What a template refuses is said, and the chat goes on as if nothing had been asked.
#[test]
fn a_template_that_refuses_ends_no_chat() {
    let mut chat = Chat::on(exact(), &BRIEF, tempfile::tempdir().unwrap());
    chat.send("One\rforbidden\r");
    chat.wait_for("chat template: not that");
    let talk = chat.home.path().join("talk.json");
    std::fs::write(&talk, r#"[{"role": "user", "content": "forbidden"}]"#).unwrap();
    chat.send(format!("/load {}\r", talk.display()));
    chat.wait_for("cannot go on with that: chat template: not that");
    chat.send("Two\r");
    assert_eq!(chat.said(), ["One", "Two"]);
}

// ---- what is kept

/// A chat leaves what has run when the user leaves it, and the next one goes on from there.
#[test]
fn a_chat_goes_on_from_the_prompt_cache_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("prompt.cache");
    let args = [&BRIEF[..], &["-v", "--prompt-cache", cache.to_str().unwrap()]].concat();
    let question = "A fox lived beside a river and was afraid of it\r";
    for (known, leave) in [(false, "/quit\r"), (true, "\x04")] {
        let mut chat = Chat::start(&args);
        chat.send(question);
        if known {
            chat.wait_for("tokens of the prompt are from");
        }
        chat.wait_for("generated");
        assert_eq!(cache.exists(), known, "written when the user leaves");
        chat.wait_for("> ");
        chat.send(leave);
        let rest = chat.end();
        assert!(!rest.contains("prompt cache"), "{rest}");
        assert!(cache.exists());
    }
    // Who says nothing leaves the file as it is.
    let before = std::fs::read(&cache).unwrap();
    let mut chat = Chat::start(&args);
    chat.send("/quit\r");
    chat.end();
    assert_eq!(std::fs::read(&cache).unwrap(), before);
}
