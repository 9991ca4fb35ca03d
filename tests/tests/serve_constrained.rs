//! Over HTTP: answers that follow a format, and embeddings.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use trit_runtime::scheduler::{Scheduler, SchedulerOptions};
use trit_runtime::{KernelChoice, Pooling, SequenceOptions};
use trit_server::{Server, ServerOptions};
use trit_tests::engines::{engine, load};
use trit_tests::workbench::{compile, repository};

fn serve(embeddings: Option<Pooling>) -> Server {
    let bundle = compile(&repository().join("examples/models/fables-12m"), "serve-constrained");
    let scheduler =
        Scheduler::new(engine(&load(&bundle, KernelChoice::Auto), 2, 96), SchedulerOptions::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(listener, ServerOptions { embeddings, ..ServerOptions::default() }).unwrap();
    server.open(scheduler.unwrap()).unwrap();
    server
}

/// The status and the body of an answer.
fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, String) {
    let (mut stream, body) = (TcpStream::connect(address).unwrap(), body.to_string());
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn json_of(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let (status, body) = post(address, path, body);
    (status, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")))
}

fn chat(format: Value) -> Value {
    json!({
        "model": "serve-constrained", "messages": [{"role": "user", "content": "Tell me of a fox."}],
        "max_tokens": 200, "temperature": 0.9, "seed": 3, "n": 2, "response_format": format,
    })
}

fn schema() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age"],
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    })
}

fn fits(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let age = value["age"].as_u64().is_some_and(|age| age < 100);
    value["name"].is_string() && age && value.as_object().is_some_and(|object| object.len() == 2)
}

#[test]
fn answers_follow_the_format_that_is_asked_for() {
    let server = serve(None);
    let address = server.address();
    let named =
        json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema()}});
    type Check = fn(&str) -> bool;
    let checks: [(Value, Check); 4] = [
        (named.clone(), fits),
        (json!({"type": "regex", "pattern": "[a-c]{2,5}!"}), |text| {
            text.strip_suffix('!')
                .is_some_and(|text| (2..=5).contains(&text.len()) && text.bytes().all(|c| c <= b'c'))
        }),
        (json!({"type": "grammar", "grammar": "start: \"yes\" | \"no\""}), |text| {
            ["yes", "no"].contains(&text)
        }),
        (json!({"type": "text"}), |_| true),
    ];
    for (format, check) in checks {
        let (status, answer) = json_of(address, "/v1/chat/completions", &chat(format.clone()));
        assert_eq!(status, 200, "{answer}");
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!(choices.len(), 2);
        for choice in choices {
            let text = choice["message"]["content"].as_str().unwrap();
            assert!(check(text), "{format}: {text:?}");
        }
    }
    // While it streams, too.
    let mut streamed = chat(named);
    (streamed["stream"], streamed["n"]) = (true.into(), 1.into());
    let (status, events) = post(address, "/v1/chat/completions", &streamed);
    assert_eq!(status, 200, "{events}");
    let data = events.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let text: String = data
        .filter_map(|data| {
            let event: Value = serde_json::from_str(data).unwrap();
            event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
        })
        .collect();
    assert!(fits(&text), "{text:?}");
}

/// A call that must come has arguments that fit the tool's schema, whatever the model knows of tools.
#[test]
fn calls_that_are_demanded_come_with_fitting_arguments() {
    let server = serve(None);
    let tool = json!({"type": "function", "function": {"name": "meet", "parameters": schema()}});
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "meet"}})] {
        let mut request = chat(json!({"type": "text"}));
        (request["tools"], request["tool_choice"]) = (json!([tool]), choice);
        // The model would go on calling until it has no tokens left.
        request["parallel_tool_calls"] = false.into();
        let (status, answer) = json_of(server.address(), "/v1/chat/completions", &request);
        assert_eq!(status, 200, "{answer}");
        for choice in answer["choices"].as_array().unwrap() {
            let call = &choice["message"]["tool_calls"][0]["function"];
            assert_eq!(call["name"], "meet", "{choice}");
            assert!(fits(call["arguments"].as_str().unwrap()), "{choice}");
            assert_eq!(choice["finish_reason"], "tool_calls");
        }
    }
    let unknown = json!({"type": "function", "function": {"name": "meet", "parameters": {"not": {}, "type": "object"}}});
    let mut request = chat(json!({"type": "text"}));
    (request["tools"], request["tool_choice"]) = (json!([unknown]), json!("required"));
    let (status, answer) = json_of(server.address(), "/v1/chat/completions", &request);
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("tools")), "{answer}");
}

#[test]
fn formats_that_no_answer_can_have_are_errors_of_the_client() {
    let server = serve(None);
    let named =
        |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    for (format, words) in [
        (named(json!({"type": "object", "not": {}})), "not"),
        (named(json!({"type": "integer", "minimum": 3, "maximum": 2})), "nsatisfiable"),
        (json!({"type": "regex", "pattern": "("}), "("),
        (json!({"type": "grammar", "grammar": "start: other"}), "other"),
    ] {
        let (status, answer) = json_of(server.address(), "/v1/chat/completions", &chat(format.clone()));
        assert_eq!(status, 400, "{answer}");
        let error = &answer["error"];
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
        assert!(error["param"].as_str().unwrap().starts_with("response_format"), "{error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
}

#[test]
fn embeddings_are_those_of_the_engine() {
    let server = serve(Some(Pooling::Mean));
    let address = server.address();
    let bundle = compile(&repository().join("examples/models/fables-12m"), "serve-constrained");
    let model = load(&bundle, KernelChoice::Auto);
    let direct = engine(&model, 1, 64);
    let texts = ["Once upon a time", "A raven and a fox met."];
    let tokenizer = model.tokenizer().unwrap().unwrap();
    let ids = texts.map(|text| tokenizer.encode(text, true).unwrap());
    let expected: Vec<Vec<f32>> = ids
        .iter()
        .map(|ids| {
            let mut sequence = direct.sequence(SequenceOptions::default()).unwrap();
            direct.embed(&mut sequence, ids, Pooling::Mean, || 64, None).unwrap()
        })
        .collect();
    let floats = |value: &Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let (status, answer) =
        json_of(address, "/v1/embeddings", &json!({"model": "serve-constrained", "input": texts}));
    assert_eq!(status, 200, "{answer}");
    for (index, expected) in expected.iter().enumerate() {
        let data = &answer["data"][index];
        assert_eq!((&data["object"], &data["index"]), (&json!("embedding"), &json!(index)));
        assert_eq!(&floats(&data["embedding"]), expected);
    }
    let tokens = ids[0].len() + ids[1].len();
    assert_eq!(answer["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    // Token ids, and base64.
    let asked = json!({"model": "serve-constrained", "input": ids[1], "encoding_format": "base64"});
    let (status, answer) = json_of(address, "/v1/embeddings", &asked);
    assert_eq!(status, 200, "{answer}");
    let bytes = base64::decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(values, expected[1]);
    for (body, param) in [
        (json!({"input": []}), "input"),
        (json!({"input": ["a", ""], "encoding_format": "int8"}), "encoding_format"),
        (json!({"input": [[4096]]}), "input[0]"),
        (json!({"input": ["a"], "dimensions": 3}), "dimensions"),
        (json!({"input": ["a ".repeat(5000)]}), "input[0]"),
    ] {
        let (status, answer) = json_of(address, "/v1/embeddings", &body);
        assert_eq!((status, answer["error"]["param"].as_str()), (400, Some(param)), "{answer}");
    }
    let (status, answer) = json_of(serve(None).address(), "/v1/embeddings", &json!({"input": "a"}));
    assert_eq!(status, 404, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("no embeddings"), "{answer}");
}
