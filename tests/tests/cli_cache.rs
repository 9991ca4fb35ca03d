//! `--prompt-cache`: what ran in one process need not run in the next, the text stays the same, and no file is lost.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use trit_tests::workbench::{Ran, compile, compile_with, fixture, repository, run, trit_run};

fn fables() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "cache-fables"));
    BUNDLE.to_str().unwrap()
}

fn hybrid() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile_with(&fixture("qwen35-g128/model.safetensors"), "cache-hybrid", &[]));
    BUNDLE.to_str().unwrap()
}

const STORY: &str = "Once upon a time there was a fox who lived beside a river and was afraid of the water.";

fn with(bundle: &str, cache: &Path, args: &[&str]) -> Ran {
    let more = ["--temp", "0", "-t", "1", "--prompt-cache", cache.to_str().unwrap()];
    run(trit_run(&[&[bundle], args, &more].concat()))
}

/// The ids of an answer, and how many tokens of the prompt ran and did not.
fn answer(ran: Ran) -> (Vec<u64>, u64, u64) {
    let json: Value = ran.json();
    let ids = json["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let count = |name: &str| json["timings"][name].as_u64().unwrap();
    (ids, count("prompt_tokens"), count("cached_tokens"))
}

#[test]
fn the_second_run_goes_on_where_the_first_ended() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("fox.cache");
    let more = format!("{STORY} One day");
    let alone =
        |prompt: &str| answer(run(trit_run(&[fables(), "-p", prompt, "-n", "12", "--json", "--temp", "0"])));
    let cached = |prompt: &str, args: &[&str]| {
        answer(with(fables(), &cache, &[&["-p", prompt, "-n", "12", "--json"], args].concat()))
    };
    let (expected, tokens, none) = alone(STORY);
    assert_eq!(none, 0);
    assert_eq!(cached(STORY, &[]), (expected.clone(), tokens, 0));
    // The same again: only the last token runs.
    let first = fs::read(&cache).unwrap();
    assert_eq!(cached(STORY, &[]), (expected.clone(), 1, tokens - 1));
    assert_eq!(fs::read(&cache).unwrap(), first);
    // A prompt that begins alike; the file is left alone.
    let (expected_more, tokens_more, _) = alone(&more);
    let (ids, ran, known) = cached(&more, &["--prompt-cache-ro"]);
    assert_eq!((ids, ran + known), (expected_more.clone(), tokens_more));
    assert!(known >= tokens - 1, "{known} of {tokens_more}");
    assert_eq!(fs::read(&cache).unwrap(), first);
    // The same, and the file then holds that text, of which the shorter one is a part.
    assert_eq!(cached(&more, &[]).0, expected_more);
    assert_ne!(fs::read(&cache).unwrap(), first);
    assert_eq!(cached(STORY, &["--prompt-cache-ro"]), (expected, 1, tokens - 1));
    // Another text altogether.
    let (ids, _, known) = cached("Winter", &[]);
    assert_eq!((ids, known), (alone("Winter").0, 1), "the token that every text begins with");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn hybrids_and_every_type_of_cache_give_the_same_text() {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<String> = (0..60).map(|i| (i * 17 % 80).to_string()).collect();
    let (ids, longer) = (ids.join(","), [&ids.join(","), "5,6,7"].join(","));
    for (i, types) in
        [&["--kv", "f16"][..], &["--kv", "int8", "--state", "f16"], &["--kv", "f32"]].iter().enumerate()
    {
        let cache = folder.path().join(format!("{i}.cache"));
        for ids in [&ids, &longer, &ids] {
            let args = [&["--ids", ids, "-n", "20", "--json", "--ignore-eos"], *types].concat();
            let (text, _, known) = answer(with(hybrid(), &cache, &args));
            let alone = run(trit_run(&[&[hybrid(), "--temp", "0"], &args[..]].concat()));
            assert_eq!(text, answer(alone).0);
            assert!(known == 0 || known >= 48, "{known}");
        }
        let args = ["--ids", &ids, "-n", "1", "--json", "-v"];
        let ran = with(hybrid(), &cache, &[&args, *types].concat());
        assert!(ran.err.contains("of 60 tokens of the prompt are from"), "{}", ran.err);
    }
    let other = with(hybrid(), &folder.path().join("0.cache"), &["--ids", &ids, "--kv", "f32"]);
    other.fails(3, &["0.cache: was saved with a KV cache of f16, and f32 is wanted", "pass --kv f16"]);
}

#[test]
fn files_that_cannot_be_used_are_refused_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cache = at("good.cache");
    with(fables(), &cache, &["-p", STORY, "-n", "2"]).ok();
    let good = fs::read(&cache).unwrap();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    for (name, bytes, bundle, code, words) in [
        ("other", &good[..], hybrid(), 3, "was saved with another bundle"),
        ("damaged", &damaged, fables(), 3, "is damaged: page 0"),
        ("cut", &good[..good.len() - 100], fables(), 3, "is cut off"),
        ("notes", b"years of work", fables(), 2, "exists and is no file of saved sequences; remove it"),
    ] {
        fs::write(at(name), bytes).unwrap();
        let ran = with(bundle, &at(name), &["--ids", "4093,5,6", "-n", "2"]);
        // The page is looked at only where the prompt begins like the text.
        let ran = if name == "damaged" { with(bundle, &at(name), &["-p", STORY, "-n", "2"]) } else { ran };
        ran.fails(code, &[&format!("{name}: "), words, "another file with --prompt-cache"]);
        assert!(ran.out.is_empty(), "{}", ran.out);
        if name != "damaged" {
            assert!(fs::read(at(name)).unwrap() == bytes, "{name} stays");
        }
    }
    let ran = with(fables(), folder.path(), &["-p", STORY]);
    ran.fails(2, &["is a folder", "prompt.cache, with --prompt-cache"]);
    with(fables(), &at("no/new"), &["-p", STORY]).fails(2, &["there is no folder"]);
    with(fables(), Path::new(fables()), &["-p", STORY]).fails(2, &["is what is read"]);
    // Before the bundle is loaded, and without making the file.
    let ran = with(fables(), &at("missing"), &["-p", STORY, "--prompt-cache-ro"]);
    ran.fails(2, &["missing: there is no such file", "run it once without --prompt-cache-ro"]);
    assert!(!at("missing").exists());
    // As mktemp makes them.
    fs::write(at("empty"), "").unwrap();
    with(fables(), &at("empty"), &["-p", STORY, "-n", "2"]).ok();
    assert!(fs::read(at("empty")).unwrap() == good);
    let ran = run(trit_run(&[fables(), "-p", STORY, "--prompt-cache-ro"]));
    ran.fails(2, &["--prompt-cache"]);
}

// ---- the server

/// A server that ends when it is told to.
#[cfg(unix)]
struct Server {
    child: std::process::Child,
    address: String,
    /// What it said before it was ready.
    said: String,
    out: std::io::BufReader<std::process::ChildStdout>,
}

#[cfg(unix)]
impl Server {
    fn start(cache: &Path, more: &[&str]) -> Server {
        use std::io::BufRead;
        let args =
            ["serve", fables(), "--listen", "127.0.0.1:0", "-t", "1", "--log", "off", "--prompt-cache"];
        let mut command = trit_run(&[&args[..], &[cache.to_str().unwrap()], more].concat());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let (mut said, mut line) = (String::new(), String::new());
        while line != "ready\n" {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended after {said}");
            said.push_str(&line);
        }
        let address = said.split("http://").nth(1).unwrap().lines().next().unwrap().to_owned();
        Server { child, address, said, out }
    }

    fn ask(&self, request: &str, body: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        let (host, len) = (&self.address, body.len());
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {len}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The text that follows a prompt.
    fn complete(&self, prompt: &str) -> String {
        let body = serde_json::json!({"prompt": prompt, "max_tokens": 8, "temperature": 0});
        let answer: Value =
            serde_json::from_str(&self.ask("POST /v1/completions", &body.to_string())).unwrap();
        answer["choices"][0]["text"].as_str().unwrap().to_owned()
    }

    /// Tokens of prompts that ran, and those that did not have to.
    fn prompt_tokens(&self) -> (u64, u64) {
        let metrics = self.ask("GET /metrics", "");
        let value = |kind: &str| {
            let name = format!("trit_tokens_total{{kind=\"{kind}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
        };
        (value("prompt"), value("cached"))
    }

    /// Tells it to end; what it said since it was ready.
    fn end(mut self) -> String {
        use nix::sys::signal::{Signal, kill};
        use std::io::Read;
        kill(nix::unistd::Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{rest}");
        rest
    }
}

#[cfg(unix)]
#[test]
fn a_server_finds_its_texts_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("texts.cache");
    let server = Server::start(&cache, &[]);
    let expected = [STORY, "Winter came early"].map(|prompt| server.complete(prompt));
    let (ran, cached) = server.prompt_tokens();
    // The token that every text begins with may be shared.
    assert!(ran > 20 && cached <= 1, "{ran} {cached}");
    let rest = server.end();
    assert!(rest.contains("prompt cache: 2 texts are in ") && rest.contains("texts.cache"), "{rest}");
    let written = fs::read(&cache).unwrap();
    for more in [&["--prompt-cache-ro"][..], &[]] {
        let server = Server::start(&cache, more);
        assert!(server.said.contains("prompt cache: 2 of 2 texts of "), "{}", server.said);
        assert_eq!([STORY, "Winter came early"].map(|prompt| server.complete(prompt)), expected);
        // The last token of each runs again.
        assert_eq!(server.prompt_tokens(), (2, ran + cached - 2));
        let rest = server.end();
        assert_eq!(rest.contains("are in "), more.is_empty(), "{rest}");
        assert!(more.is_empty() || fs::read(&cache).unwrap() == written, "it was to stay");
    }
    // One that is damaged is an error before anybody is answered.
    let mut damaged = written;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&cache, &damaged).unwrap();
    let ran = run(trit_run(&[
        "serve",
        fables(),
        "--listen",
        "127.0.0.1:0",
        "--prompt-cache",
        cache.to_str().unwrap(),
    ]));
    ran.fails(3, &["texts.cache: is damaged: page 0 of the KV cache", "remove it, or name another file"]);
    assert!(fs::read(&cache).unwrap() == damaged);
}
