//! `trit-run serve` as clients meet it: routes, streams, sampling, errors.

use serde_json::{Value, json};
use std::path::Path;
use std::sync::LazyLock;
use trit_tests::serving::Served;
use trit_tests::workbench::{compile, repository, run, trit_run};

/// The shipped model's bundle.
fn fables() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| {
        let bundle = compile(&repository().join("examples/models/fables-12m"), "serve-fables");
        bundle.to_str().unwrap().to_owned()
    });
    &PATH
}

/// A server that all tests share which neither fill nor end it.
fn server() -> &'static Served {
    static SERVER: LazyLock<Served> = LazyLock::new(|| Served::shared(fables(), &["--log", "off"]));
    &SERVER
}

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// A request for the most probable answer to a question.
fn question(text: &str, tokens: usize) -> Value {
    json!({"model": "serve-fables", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": tokens})
}

/// A request for the most probable continuation of a text.
fn beginning(text: &str, tokens: usize) -> Value {
    json!({"prompt": text, "temperature": 0, "max_tokens": tokens})
}

/// The request with more fields.
fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The events of a stream, which must have ended as streams end.
fn events(path: &str, request: &Value) -> Vec<Value> {
    let mut events = server().stream(path, &with(request.clone(), json!({"stream": true}))).all();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

fn text_of(reply: &Value) -> &str {
    reply["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("{reply}"))
}

fn content_of(reply: &Value) -> &str {
    reply["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{reply}"))
}

// ---- plain routes

#[test]
fn the_server_says_how_it_is() {
    assert_eq!(server().get("/health").ok(), json!({"status": "ok"}));
    let models = server().get("/v1/models").ok();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("serve-fables")));
    let model = server().get("/v1/models/serve-fables").ok();
    assert_eq!((&model["object"], &model["meta"]["n_ctx"]), (&json!("model"), &json!(1024)));
    let missing = server().get("/v1/models/other");
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("model_not_found")));
    let slots = server().get("/slots").ok();
    assert_eq!(slots.as_array().unwrap().len(), 16);
    server().post(TEXT, &beginning("Once", 4)).ok();
    let metrics = server().get("/metrics");
    let value = |name: &str| -> f64 {
        let line = metrics.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {}", metrics.body)).parse().unwrap()
    };
    assert!(value("trit_requests_total{route=\"/v1/completions\",status=\"200\"}") >= 1.0);
    assert!(value("trit_tokens_total{kind=\"generated\"}") >= 4.0);
    assert!(value("trit_time_to_first_token_seconds_count") >= 1.0);
    assert!(value("trit_inter_token_seconds_bucket{le=\"+Inf\"}") >= 3.0);
    assert!(value("trit_kv_limit_bytes") > 0.0 && value("trit_slots") == 16.0);
    for name in ["trit_queue_depth", "trit_running", "trit_kv_bytes", "trit_busy_seconds_total"] {
        assert!(value(name) >= 0.0);
    }
    for line in metrics.body.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok()), "{line}");
    }
}

#[test]
fn texts_become_tokens_and_back_as_on_the_command_line() {
    let text = "Once upon a time, Lily \u{1f642}";
    let tokens =
        server().post("/tokenize", &json!({"content": text, "add_special": true})).ok()["tokens"].clone();
    let expected = run(trit_run(&["tokenize", fables(), text, "--json"])).json();
    assert_eq!(tokens, expected["ids"]);
    let plain = server().post("/tokenize", &json!({"content": text, "with_pieces": true})).ok();
    let pieces = plain["tokens"].as_array().unwrap();
    let ids: Vec<&Value> = pieces.iter().map(|piece| &piece["id"]).collect();
    let bytes: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| match &piece["piece"] {
            Value::String(text) => text.clone().into_bytes(),
            bytes => bytes.as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect(),
        })
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
    assert_eq!(server().post("/detokenize", &json!({"tokens": ids})).ok(), json!({"content": text}));

    let messages = json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), messages.to_string()).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let prompt = run(trit_run(&["template", fables(), "--messages", &path(file.path())])).ok();
    assert_eq!(
        server().post("/apply-template", &json!({"messages": messages})).ok(),
        json!({"prompt": prompt})
    );
}

// ---- answers

#[test]
fn a_continuation_is_that_of_the_command_line_whole_and_streamed() {
    let text = "Once upon a time";
    let expected = run(trit_run(&[fables(), "-p", text, "-n", "48", "--temp", "0", "--json"])).json();
    let whole = server().post(TEXT, &beginning(text, 48)).ok();
    assert_eq!(text_of(&whole), expected["text"]);
    assert_eq!(whole["choices"][0]["finish_reason"], expected["finish"]);
    let usage = &whole["usage"];
    assert_eq!(usage["completion_tokens"], expected["ids"].as_array().unwrap().len());
    let ids = run(trit_run(&["tokenize", fables(), text, "--json"])).json()["ids"].as_array().unwrap().len();
    assert_eq!(usage["prompt_tokens"], ids);
    let streamed =
        events(TEXT, &with(beginning(text, 48), json!({"stream_options": {"include_usage": true}})));
    let (last, chunks) = streamed.split_last().unwrap();
    let pieces: Vec<&str> = chunks.iter().map(text_of).collect();
    assert_eq!(pieces.concat(), text_of(&whole));
    assert!(pieces.len() > 10, "it came in pieces");
    assert_eq!((&last["usage"]["total_tokens"], &last["choices"]), (&usage["total_tokens"], &json!([])));
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == last["id"]));
    // By token ids, and the prompt before the text.
    let ids = json!([4093, 46, 1218, 605, 258, 581]);
    let by_ids = server().post(TEXT, &json!({"prompt": ids, "temperature": 0, "max_tokens": 8})).ok();
    let expected =
        run(trit_run(&[fables(), "--ids", "4093,46,1218,605,258,581", "-n", "8", "--temp", "0", "--json"]));
    assert_eq!(text_of(&by_ids), expected.json()["text"]);
    let echoed = server().post(TEXT, &with(beginning(text, 3), json!({"echo": true}))).ok();
    assert!(text_of(&echoed).starts_with(text) && text_of(&echoed).len() > text.len(), "{echoed}");
    let only = server().post(TEXT, &with(beginning(text, 0), json!({"echo": true}))).ok();
    assert_eq!((text_of(&only), &only["choices"][0]["finish_reason"]), (text, &json!("length")));
}

#[test]
fn an_answer_is_that_of_the_command_line_whole_and_streamed() {
    let text = "Who is Lily?";
    let line = [fables(), "--chat", "-p", text, "-n", "40", "--temp", "0", "--json"];
    let expected = run(trit_run(&line)).json();
    let whole = server().post(CHAT, &question(text, 40)).ok();
    assert_eq!(content_of(&whole), expected["text"]);
    let streamed =
        events(CHAT, &with(question(text, 40), json!({"stream_options": {"include_usage": true}})));
    assert_eq!(streamed[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let delta =
        |event: &Value| event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    assert_eq!(streamed.iter().map(delta).collect::<String>(), content_of(&whole));
    let [.., end, usage] = &streamed[..] else { panic!("{streamed:?}") };
    assert_eq!(end["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
    assert_eq!(usage["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    // The same words in other forms: parts of text, and no name of a model.
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": text}]}]);
    let again = json!({"messages": parts, "temperature": 0, "max_completion_tokens": 40, "model": "default"});
    assert_eq!(content_of(&server().post(CHAT, &again).ok()), content_of(&whole));
    // An answer that is begun is continued.
    let begun = json!([{"role": "user", "content": text}, {"role": "assistant", "content": "Lily is"}]);
    let request =
        json!({"messages": begun, "continue_final_message": true, "temperature": 0, "max_tokens": 8});
    let continued = server().post(CHAT, &request).ok();
    let prompt =
        server().post("/apply-template", &json!({"messages": begun, "continue_final_message": true})).ok();
    assert!(prompt["prompt"].as_str().unwrap().ends_with("Lily is"), "{prompt}");
    // The template writes the beginning of a text itself, so that none is added.
    let ids = server().post("/tokenize", &json!({"content": prompt["prompt"]})).ok()["tokens"].clone();
    let same = server().post(TEXT, &json!({"prompt": ids, "temperature": 0, "max_tokens": 8})).ok();
    assert_eq!(content_of(&continued), text_of(&same));
}

#[test]
fn many_at_a_time_get_what_each_gets_alone() {
    let beginnings: Vec<String> =
        (0..24).map(|n| format!("Once upon a time there were {n} little")).collect();
    let alone: Vec<String> = beginnings
        .iter()
        .map(|text| text_of(&server().post(TEXT, &beginning(text, 24)).ok()).to_owned())
        .collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let ask = |text: &str| -> String { events(TEXT, &beginning(text, 24)).iter().map(text_of).collect() };
        let threads: Vec<_> = beginnings.iter().map(|text| scope.spawn(move || ask(text))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
    // Several prompts and several answers in one request.
    let request =
        json!({"prompt": [beginnings[0], beginnings[1]], "n": 2, "temperature": 0, "max_tokens": 24});
    let all = server().post(TEXT, &request).ok();
    let texts: Vec<&str> =
        all["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(texts, [&*alone[0], &*alone[0], &*alone[1], &*alone[1]]);
    let prompt =
        server().post(TEXT, &beginning(&beginnings[0], 1)).ok()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(all["usage"]["prompt_tokens"], prompt * 2);
}

#[test]
fn texts_to_stop_at_end_an_answer_before_them() {
    let whole = server().post(TEXT, &beginning("Once upon a time", 60)).ok();
    let text = text_of(&whole);
    let stop: String = text.chars().skip(40).take(6).collect();
    let before = text.split(&stop).next().unwrap();
    for stops in [json!(stop), json!(["never to be found", stop, "\u{0}"])] {
        let request = with(beginning("Once upon a time", 60), json!({"stop": stops}));
        let stopped = server().post(TEXT, &request).ok();
        assert_eq!((text_of(&stopped), &stopped["choices"][0]["finish_reason"]), (before, &json!("stop")));
        assert_eq!(events(TEXT, &request).iter().map(text_of).collect::<String>(), before);
    }
}

#[test]
fn sampling_follows_the_request() {
    let text = |more: Value| {
        let reply = server().post(TEXT, &with(beginning("Once upon a time", 24), more)).ok();
        text_of(&reply).to_owned()
    };
    let greedy = text(json!({}));
    assert_eq!(text(json!({"temperature": 1.5, "top_k": 1})), greedy);
    let seeded = |seed: i64| text(json!({"temperature": 1.2, "seed": seed}));
    assert_eq!(seeded(7), seeded(7));
    assert_ne!(seeded(7), seeded(8));
    // The command line chooses alike.
    let line = [fables(), "-p", "Once upon a time", "-n", "24", "--temp", "1.2", "--seed", "7", "--json"];
    assert_eq!(run(trit_run(&line)).json()["text"], seeded(7));
    // The seed of each further answer is one higher.
    let request = with(beginning("Once upon a time", 24), json!({"temperature": 1.2, "seed": 7, "n": 2}));
    let two = server().post(TEXT, &request).ok();
    assert_eq!((text_of(&two), two["choices"][1]["text"].as_str().unwrap()), (&*seeded(7), &*seeded(8)));
    // A token that is never chosen, and one that always is.
    let first = server().post("/tokenize", &json!({"content": greedy})).ok()["tokens"][0].clone();
    assert_ne!(text(json!({"logit_bias": {first.to_string(): -100}})), greedy);
    let forced = server().post(TEXT, &with(beginning("x", 3), json!({"logit_bias": {"605": 100}}))).ok();
    let piece = server().post("/detokenize", &json!({"tokens": [605, 605, 605]})).ok();
    assert_eq!(text_of(&forced), piece["content"]);
    // Without its repetitions a text is another one.
    let repeated = |more| server().post(TEXT, &with(beginning("Once upon a time", 120), more)).ok();
    let distinct = |reply: &Value| {
        let ids = server().post("/tokenize", &json!({"content": text_of(reply)})).ok();
        let mut ids: Vec<u64> =
            ids["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    };
    let (plain, penalized) =
        (repeated(json!({})), repeated(json!({"frequency_penalty": 2, "presence_penalty": 2})));
    assert!(distinct(&penalized) > distinct(&plain), "{plain}\n{penalized}");
}

#[test]
fn tokens_come_with_their_probabilities() {
    let request = with(question("Who is Lily?", 12), json!({"logprobs": true, "top_logprobs": 3}));
    let whole = server().post(CHAT, &request).ok();
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(content.len() as u64, whole["usage"]["completion_tokens"].as_u64().unwrap());
    let text: String = content.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text, content_of(&whole));
    for token in &content {
        let top = token["top_logprobs"].as_array().unwrap();
        // The most probable token was chosen, and probabilities fall.
        assert_eq!((top.len(), &top[0]["token"]), (3, &token["token"]));
        let logprobs: Vec<f64> = top.iter().map(|token| token["logprob"].as_f64().unwrap()).collect();
        assert!(
            logprobs.is_sorted_by(|a, b| a >= b) && logprobs[0] <= 0.0 && logprobs[0] == token["logprob"]
        );
        assert!(logprobs.iter().map(|logprob| logprob.exp()).sum::<f64>() < 1.0 + 1e-6);
        let bytes: Vec<u8> =
            token["bytes"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8).collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), token["token"].as_str().unwrap());
    }
    let streamed: Vec<Value> = events(CHAT, &request)
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(streamed, content);
    let request = with(beginning("Once upon a time", 6), json!({"logprobs": 2}));
    let whole = server().post(TEXT, &request).ok();
    let logprobs = &whole["choices"][0]["logprobs"];
    let tokens: Vec<&str> =
        logprobs["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert_eq!((tokens.concat(), tokens.len()), (text_of(&whole).to_owned(), 6));
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2);
    assert_eq!(logprobs["text_offset"][1], tokens[0].chars().count());
    let streamed: Vec<Value> = events(TEXT, &request)
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["text_offset"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(Value::Array(streamed), logprobs["text_offset"]);
}

// ---- errors

#[test]
fn errors_have_the_status_and_the_shape_of_the_interface() {
    let long = "word ".repeat(3000);
    for (path, body, status, param, code) in [
        (CHAT, json!({}), 400, "messages", Some("missing_required_parameter")),
        (CHAT, with(question("x", 1), json!({"model": "gpt-4"})), 404, "model", Some("model_not_found")),
        (CHAT, with(question("x", 1), json!({"model": 5})), 400, "model", None),
        (CHAT, with(question("x", 1), json!({"temperature": "hot"})), 400, "temperature", None),
        (CHAT, with(question("x", 1), json!({"temperature": -1})), 400, "temperature", Some("invalid_value")),
        (CHAT, with(question("x", 1), json!({"stream": "yes"})), 400, "stream", None),
        (
            CHAT,
            with(question("x", 1), json!({"top_logprobs": 3})),
            400,
            "top_logprobs",
            Some("invalid_value"),
        ),
        (CHAT, with(question("x", 1), json!({"n": 200})), 400, "n", Some("invalid_value")),
        (CHAT, question(&long, 1), 400, "messages", Some("context_length_exceeded")),
        (TEXT, beginning(&long, 1), 400, "prompt", Some("context_length_exceeded")),
        (TEXT, json!({"prompt": vec![1; 1024]}), 400, "prompt", Some("context_length_exceeded")),
        (TEXT, json!({"prompt": [99999]}), 400, "prompt", Some("invalid_value")),
        (TEXT, json!({"prompt": []}), 400, "prompt", None),
        (TEXT, with(beginning("x", 1), json!({"suffix": "y"})), 400, "suffix", Some("unsupported_parameter")),
        (
            TEXT,
            with(beginning("x", 1), json!({"logit_bias": {"9999": 1}})),
            400,
            "logit_bias.9999",
            Some("invalid_value"),
        ),
        ("/tokenize", json!({"content": 5}), 400, "content", None),
        ("/detokenize", json!({"tokens": [99999]}), 400, "tokens", None),
        ("/apply-template", json!({"messages": [{"role": "user"}]}), 400, "messages[0].content", None),
    ] {
        let reply = server().post(path, &body);
        let error = &reply.json()["error"];
        let shown: String = body.to_string().chars().take(100).collect();
        assert_eq!((reply.status, error["param"].as_str()), (status, Some(param)), "{shown}: {reply:?}");
        assert_eq!(error["code"].as_str(), code, "{shown}: {error}");
        assert_eq!(error["type"], "invalid_request_error", "{shown}");
        assert!(!error["message"].as_str().unwrap().is_empty());
        // What cannot be answered is no stream either.
        if path.starts_with("/v1/") && param != "stream" {
            assert_eq!(server().post(path, &with(body, json!({"stream": true}))).status, status, "{shown}");
        }
    }
    let bias: serde_json::Map<String, Value> = (0..4096).map(|id| (id.to_string(), json!(false))).collect();
    let nothing = server().post(TEXT, &with(beginning("x", 1), json!({"logit_bias": bias})));
    assert_eq!(nothing.status, 400, "{nothing:?}");
}

#[test]
fn what_is_no_request_is_refused() {
    let server = server();
    for (body, words) in [("{", "no JSON"), ("[]", "an array"), ("", "no JSON")] {
        let reply = server.request("POST", CHAT, &[], body);
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(words), "{reply:?}");
    }
    let invalid = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 15\r\n\r\n{\"prompt\":\"\xff\xfe\"}";
    assert_eq!(server.send(invalid).status, 400);
    assert_eq!(server.get("/nowhere").status, 404);
    assert_eq!(server.get("/nowhere").json()["error"]["type"], "invalid_request_error");
    assert_eq!(server.get(CHAT).status, 405);
    assert_eq!(server.request("DELETE", "/v1/models", &[], "").status, 405);
    let anthropic = server.get("/v1/messages/nothing");
    assert_eq!((anthropic.status, &anthropic.json()["error"]["type"]), (404, &json!("not_found_error")));
    assert_eq!(server.send(b"nonsense\r\n\r\n").status, 400);
    assert_eq!(server.send(b"GET / HTTP/1.1\r\nhost: a\r\nhost : b\r\n\r\n").status, 400);
    let reply = server.get("/health");
    assert!(reply.header("x-request-id").is_some_and(|id| id.starts_with("req-")), "{reply:?}");
}
