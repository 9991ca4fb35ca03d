//! `trit-run serve` under pressure: limits, keys, clients that go away, the end.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::sync::LazyLock;
use trit_tests::serving::{Reply, Served};
use trit_tests::workbench::{compile, repository, run, trit_run, wait_for};

/// The shipped model's bundle.
fn fables() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| {
        let bundle = compile(&repository().join("examples/models/fables-12m"), "limits-fables");
        bundle.to_str().unwrap().to_owned()
    });
    &PATH
}

const TEXT: &str = "/v1/completions";

/// A request for a short text.
fn short() -> Value {
    json!({"prompt": "Once", "temperature": 0, "max_tokens": 4})
}

/// A request that runs until the context is full.
fn long() -> Value {
    json!({"prompt": "Once upon a time", "temperature": 0, "max_tokens": -1, "ignore_eos": true, "stream": true})
}

fn running(server: &Served) -> usize {
    let slots = server.get("/slots").ok();
    slots.as_array().unwrap().iter().filter(|slot| slot["is_processing"] == true).count()
}

#[test]
fn bodies_and_connections_are_limited() {
    let server = Served::start(fables(), &["--max-body", "100K", "--max-connections", "3"]);
    // The length is enough to refuse it; nothing of it is sent.
    let head = format!("POST {TEXT} HTTP/1.1\r\nhost: {}\r\ncontent-length: 67108864\r\n", server.address);
    for head in [format!("{head}\r\n"), format!("{head}expect: 100-continue\r\n\r\n")] {
        let reply = server.send(head.as_bytes());
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (413, &Value::Null), "{reply:?}");
    }
    // In pieces, without a length.
    let piece = "x".repeat(0x8000);
    let mut request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        server.address
    );
    (0..4).for_each(|_| request.push_str(&format!("8000\r\n{piece}\r\n")));
    let reply = server.send(request.replace("/v1/messages", TEXT).as_bytes());
    assert_eq!(reply.status, 413, "{reply:?}");
    // A large body that fits is read.
    let large = json!({"prompt": "Once", "temperature": 0, "max_tokens": 2, "ignored": "x".repeat(90 << 10)});
    server.post(TEXT, &large).ok();
    // Connections that say nothing take the places; one more is told so, and is answered when one of them has gone.
    let idle: Vec<_> = (0..3).map(|_| server.connect()).collect();
    wait_for("a connection is refused", || server.get("/health").status == 503);
    let refused = server.get("/health");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["error"]["code"], "overloaded");
    drop(idle);
    wait_for("a connection is accepted again", || server.get("/health").status == 200);
}

/// Half a thousand connections that say nothing, or stop in the middle, and large bodies change nothing for others.
#[test]
fn idle_connections_and_large_bodies_stall_nobody() {
    let server = Served::start(fables(), &["--max-body", "64M"]);
    let mut idle: Vec<_> = (0..500).map(|_| server.connect()).collect();
    for (at, stream) in idle.iter_mut().enumerate() {
        let begun = [
            "",
            "GET /heal",
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{",
        ];
        stream.write_all(begun[at % 3].as_bytes()).unwrap();
    }
    let alone = server.post(TEXT, &short()).ok()["choices"].clone();
    let large = json!({"prompt": "Once", "temperature": 0, "max_tokens": 4, "ignored": "x".repeat(63 << 20)});
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| server.post(TEXT, &large).ok())).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            assert_eq!(server.post(TEXT, &short()).ok()["choices"], alone);
        }
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap()["choices"], alone));
    });
    drop(idle);
    wait_for("the connections are closed", || {
        let metrics = server.get("/metrics").body;
        metrics.lines().any(|line| line == "trit_connections 1")
    });
}

#[test]
fn when_the_queue_is_full_clients_are_told_to_come_back() {
    let server = Served::start(fables(), &["--slots", "1", "--queue", "1"]);
    let mut runs = server.stream(TEXT, &long());
    runs.next().unwrap();
    let waits = server.stream(TEXT, &long());
    let refused = server.post(TEXT, &short());
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert!(
        refused.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s >= 1)),
        "{refused:?}"
    );
    // More answers at once than can ever be taken are refused as a whole, and leave nothing behind.
    assert_eq!(server.post(TEXT, &json!({"prompt": "Once", "n": 5})).status, 429);
    drop(runs);
    drop(waits);
    wait_for("there is room again", || server.post(TEXT, &short()).status == 200);
}

#[test]
fn a_client_that_goes_away_frees_its_slot() {
    let server = Served::start(fables(), &[]);
    let mut events = server.stream(TEXT, &long());
    events.next().unwrap();
    assert_eq!(running(&server), 1);
    drop(events);
    wait_for("the slot is free", || running(&server) == 0);
    // Also one that waits for a whole answer, and one that closes its half of the connection.
    for half in [false, true] {
        let mut stream = server.connect();
        let body =
            json!({"prompt": "Once", "max_tokens": -1, "ignore_eos": true, "temperature": 0}).to_string();
        let head = format!(
            "POST {TEXT} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
            server.address,
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        wait_for("it runs", || running(&server) == 1);
        match half {
            true => stream.shutdown(std::net::Shutdown::Write).unwrap(),
            false => drop(stream),
        }
        wait_for("the slot is free", || running(&server) == 0);
    }
    let metrics = server.get("/metrics").body;
    let cancelled =
        metrics.lines().find_map(|line| line.strip_prefix("trit_answers_total{finish=\"cancelled\"} "));
    assert_eq!(cancelled, Some("3"), "{metrics}");
    let generated =
        metrics.lines().find_map(|line| line.strip_prefix("trit_tokens_total{kind=\"generated\"} "));
    assert!(generated.unwrap().parse::<u64>().unwrap() < 3000, "they did not run to their ends");
    server.post(TEXT, &short()).ok();
}

#[test]
fn an_answer_may_take_so_long_and_no_longer() {
    let server = Served::start(fables(), &["--timeout", "1", "--slots", "1"]);
    // A thousand answers' tokens take longer than a second on any machine.
    let body = json!({"prompt": "Once", "max_tokens": -1, "ignore_eos": true, "temperature": 0, "n": 40});
    let reply = server.post(TEXT, &body);
    assert_eq!((reply.status, reply.header("x-should-retry")), (504, Some("false")), "{reply:?}");
    assert_eq!(reply.json()["error"]["type"], "server_error");
    let body = json!({"prompt": "Once", "max_tokens": -1, "ignore_eos": true, "n": 40, "stream": true});
    let events = server.stream(TEXT, &body).all();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert!(last["error"]["message"].as_str().unwrap().contains("longer"), "{last}");
    wait_for("the slots are free", || running(&server) == 0);
}

// ---- who may ask

#[test]
fn without_a_key_nothing_is_answered_where_there_is_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first-key\n\n second-key \n").unwrap();
    let keys = file.path().to_str().unwrap();
    let mut command = trit_run(&["serve", fables(), "--listen", "127.0.0.1:0", "--api-key-file", keys]);
    command.env("TRIT_API_KEY", "third-key");
    let server = Served::run(command);
    let with = |name: &str, value: &str| server.request("GET", "/v1/models", &[(name, value)], "").status;
    for key in ["first-key", "second-key", "third-key"] {
        assert_eq!(with("authorization", &format!("Bearer {key}")), 200);
        assert_eq!(with("x-api-key", key), 200);
    }
    for key in ["", "first-ke", "first-keyy", "First-key"] {
        assert_eq!(with("x-api-key", key), 401, "{key}");
    }
    let reply = server.get("/v1/models");
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    let anthropic = server.request("POST", "/v1/messages", &[], "{}");
    assert_eq!((anthropic.status, &anthropic.json()["error"]["type"]), (401, &json!("authentication_error")));
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/metrics").status, 401);
    // With a key the name of the host does not matter.
    let headers = [("host", "evil.example"), ("x-api-key", "first-key")];
    assert_eq!(server.request("GET", "/v1/models", &headers, "").status, 200);
    server.signal("-TERM");
    let (status, printed) = server.ended();
    assert!(status.success() && !printed.contains("-key"), "{printed}");
    let refused = |key: &str| {
        let mut command = trit_run(&["serve", fables(), "--listen", "127.0.0.1:0"]);
        command.env("TRIT_API_KEY", key);
        run(command)
    };
    refused("").fails(2, &["TRIT_API_KEY", "empty"]);
    let spaced = refused("secret with space");
    spaced.fails(2, &["TRIT_API_KEY"]);
    assert!(!spaced.err.contains("secret"), "{}", spaced.err);
}

#[test]
fn pages_of_other_places_get_nothing_unless_they_are_allowed() {
    let server = Served::start(fables(), &["--cors", "https://chat.example"]);
    let ask = |headers: &[(&str, &str)]| server.request("GET", "/v1/models", headers, "");
    assert_eq!(ask(&[("host", "localhost:1")]).status, 200);
    for host in ["evil.example", "127.0.0.1.evil.example"] {
        assert_eq!(ask(&[("host", host)]).status, 403, "{host}");
    }
    let own = format!("http://{}", server.address);
    assert_eq!(ask(&[("origin", &own)]).status, 200);
    assert_eq!(ask(&[("origin", "https://evil.example")]).status, 403);
    let allowed = ask(&[("origin", "https://chat.example")]);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://chat.example"));
    assert_eq!(allowed.status, 200);
    let preflight = [
        ("origin", "https://chat.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let reply = server.request("OPTIONS", TEXT, &preflight, "");
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("access-control-allow-headers"), Some("authorization,content-type"));
    let closed = Served::start(fables(), &[]);
    let reply = closed.request("OPTIONS", TEXT, &preflight, "");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None));
}

// ---- the end, and what is said

#[test]
fn told_to_end_it_answers_what_has_begun_and_nothing_else() {
    for signal in ["-TERM", "-INT"] {
        let server = Served::start(fables(), &["--drain", "300"]);
        let mut events = server.stream(TEXT, &long());
        events.next().unwrap();
        let idle = server.connect();
        server.signal(signal);
        wait_for("new requests are refused", || server.refuses());
        let refused = server.post(TEXT, &short());
        assert_eq!((refused.status, refused.header("connection")), (503, Some("close")));
        assert_eq!(refused.json()["error"]["type"], "server_error");
        // A connection without a request is closed.
        let mut idle = idle;
        assert_eq!(idle.read(&mut [0; 16]).unwrap_or(0), 0);
        let rest = events.all();
        assert_eq!(rest.last().map(String::as_str), Some("[DONE]"));
        assert!(rest.len() > 100, "the stream went on to its end");
        let (status, printed) = server.ended();
        assert_eq!(status.code(), Some(0), "{printed}");
    }
}

#[test]
fn a_second_signal_and_the_drains_limit_end_it_at_once() {
    let server = Served::start(fables(), &["--drain", "300", "--slots", "1"]);
    let mut events = server.stream(TEXT, &long());
    let _waits: Vec<_> = (0..20).map(|_| server.stream(TEXT, &long())).collect();
    events.next().unwrap();
    server.signal("-INT");
    wait_for("new requests are refused", || server.refuses());
    server.signal("-INT");
    let (status, _) = server.ended();
    assert_eq!(status.code(), Some(130));
    let server = Served::start(fables(), &["--drain", "0", "--slots", "1"]);
    let _cut: Vec<_> = (0..20).map(|_| server.stream(TEXT, &long())).collect();
    server.signal("-TERM");
    let (status, printed) = server.ended();
    assert!(status.success() && printed.contains("were cut off"), "{printed}");
}

#[test]
fn it_says_what_it_serves_and_prompts_are_logged_only_if_asked() {
    let ask = |args: &[&str]| {
        let server = Served::start(fables(), args);
        server.post(TEXT, &json!({"prompt": "Once upon\na secret", "max_tokens": 4, "temperature": 0})).ok();
        server.get("/weird\u{7f}path");
        server.signal("-TERM");
        let (status, printed) = server.ended();
        assert!(status.success(), "{printed}");
        printed
    };
    let printed = ask(&["--slots", "3"]);
    for words in [
        "listening on http://127.0.0.1:",
        "model limits-fables; kernels: ",
        "threads, context 1024 tokens, 3 slots, 256 waiting, KV caches ",
        "path=\"/v1/completions\" status=200",
        "generated=4 finish=\"length\"",
    ] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    assert!(!printed.contains("secret"), "{printed}");
    let printed = ask(&["--log-prompts"]);
    assert!(printed.contains("Once upon\\na secret") && printed.contains("answer="), "{printed}");
    let printed = ask(&["--log", "off"]);
    assert!(!printed.contains("status="), "{printed}");
}

#[test]
fn what_cannot_be_served_is_said_at_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(trit_run(&["serve", fables(), "--listen", &address]))
        .fails(4, &["cannot listen", &address, "--listen"]);
    run(trit_run(&["serve", "no-such.trit"])).fails(3, &["no-such.trit", "no such file"]);
    run(trit_run(&["serve", fables(), "--listen", "nowhere"])).fails(2, &["127.0.0.1:8080"]);
    run(trit_run(&["serve", fables(), "--listen", "127.0.0.1:0", "-c", "5000"])).fails(2, &["5000", "1024"]);
    run(trit_run(&["serve", fables(), "--listen", "127.0.0.1:0", "--kv-memory", "1K"]))
        .fails(2, &["hold no text"]);
    let empty = tempfile::NamedTempFile::new().unwrap();
    let path = empty.path().to_str().unwrap();
    run(trit_run(&["serve", fables(), "--api-key-file", path])).fails(3, &[path, "no key"]);
    run(trit_run(&["sevre", fables()])).fails(2, &["`trit-run serve`"]);
    assert!(run(trit_run(&["serve", "--help"])).ok().contains("--kv-memory"));
    assert!(run(trit_run(&["man", "serve"])).ok().contains("SIGTERM"));
    assert!(run(trit_run(&["completions", "bash"])).ok().contains("--api-key-file"));
}

/// While a client reads nothing, others are answered, and it gets everything once it reads. With all probabilities an answer
/// is larger than what systems keep for a connection.
#[test]
fn a_slow_reader_stalls_nobody() {
    let server = Served::start(fables(), &[]);
    let mut request = long();
    request.as_object_mut().unwrap().extend([("n".to_owned(), json!(7)), ("logprobs".to_owned(), json!(20))]);
    let expected = server.stream(TEXT, &request).all();
    assert!(expected.iter().map(String::len).sum::<usize>() > 5 << 20);
    let body = request.to_string();
    let mut slow: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut slow {
        let head =
            format!("POST {TEXT} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", server.address, body.len());
        stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).unwrap();
    }
    wait_for("they run", || running(&server) == 14);
    server.post(TEXT, &short()).ok();
    // They end without being read: the slots become free.
    wait_for("the slots are free", || running(&server) == 0);
    for stream in slow {
        let reply = Reply::read(stream);
        assert_eq!(reply.body.matches("data: ").count(), expected.len());
        assert!(reply.body.ends_with("data: [DONE]\n\n"));
    }
}
