//! A load test of the server: many clients at once, well-behaved and not, whose answers are compared with those of the model
//! alone.
//!
//! A well-behaved request must be answered with exactly the text that it gets alone. The others must not be felt: they
//! cancel, read slowly, close half of their connection, send less than they announced, or nonsense. The load ends by
//! itself, and whatever exceeds a client's patience is a fault.

use crate::engines::Random;
use crate::serving::Served;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use trit_runtime::generate::{GenerateOptions, Generator};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::text::Detokenizer;
use trit_runtime::{Model, Session, SessionOptions};

/// Different prompts. Many requests have the same, so that they share caches.
const PROMPTS: usize = 64;
/// Most tokens of an answer.
const LONGEST: usize = 48;
/// How long a client waits for the end of an answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a client may take between two pieces of what it reads or sends, where it is slow.
const PAUSE: Duration = Duration::from_millis(20);

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests in all.
    pub requests: usize,
    /// Clients that ask at the same time.
    pub clients: usize,
    /// Connections that are open all the time and say nothing.
    pub idle: usize,
    /// Bytes of a body that is sent in the middle of it all, larger than the server takes.
    pub body: usize,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests by kind.
    pub kinds: BTreeMap<&'static str, usize>,
    /// Answers that were equal to the model's alone.
    pub equal: usize,
    /// Requests that were told to come back later, and did.
    pub postponed: usize,
    /// The server's resident memory in KiB, after each tenth of the requests.
    pub resident: Vec<usize>,
    /// Seconds of it all.
    pub seconds: f64,
    /// What was wrong.
    pub faults: Vec<String>,
}

/// A prompt, and what the model says after it.
struct Known {
    prompt: String,
    /// The text of the answer if it has as many tokens as the index says.
    texts: Vec<String>,
}

/// What the model alone says after each prompt.
fn known(model: &Arc<Model>) -> Vec<Known> {
    const WORDS: [&str; 10] =
        ["the", "fox", "bird", "a wise", "old", "tree", "said", "\u{201c}why", "\n\nOnce", "\u{e9}"];
    let mut random = Random(7);
    let session = Session::new(model.clone(), SessionOptions::default()).expect("a session");
    let mut generator =
        Generator::new(session, Sampler::new(SamplerOptions::default())).expect("a tokenizer");
    let tokenizer = model.tokenizer().expect("it is usable").expect("there is a tokenizer").clone();
    let mut known = Vec::new();
    for index in 0..PROMPTS {
        let mut prompt = String::from("Once upon a time");
        for _ in 0..[3, 30, 120][index % 3] + random.below(20) {
            prompt.push_str(&format!(" {}", WORDS[random.below(WORDS.len())]));
        }
        let ids = tokenizer.encode(&prompt, true).expect("it is text");
        let options = GenerateOptions { max_new: LONGEST, ..GenerateOptions::of(model) };
        generator.begin(&ids, options).expect("it runs");
        let chosen: Vec<u32> = (&mut generator).filter_map(|piece| piece.expect("it runs").id).collect();
        let text = |count: usize| {
            let mut text = Detokenizer::after(tokenizer.clone(), &ids);
            let pieces = chosen.iter().take(count).map(|&id| text.push(id).expect("it decodes"));
            let pieces: String = pieces.collect();
            pieces + &text.finish().expect("it decodes")
        };
        known.push(Known { texts: (0..=LONGEST).map(text).collect(), prompt });
    }
    known
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Whole,
    Streamed,
    Slow,
    Cancelled,
    HalfClosed,
    CutOff,
    Nonsense,
    Wrong,
}

impl Kind {
    /// Kinds with the shares that they have of twenty requests.
    const SHARES: [(Kind, usize); 8] = [
        (Kind::Whole, 6),
        (Kind::Streamed, 6),
        (Kind::Slow, 1),
        (Kind::Cancelled, 3),
        (Kind::HalfClosed, 1),
        (Kind::CutOff, 1),
        (Kind::Nonsense, 1),
        (Kind::Wrong, 1),
    ];

    fn of(mut draw: usize) -> Kind {
        for (kind, share) in Kind::SHARES {
            if draw < share {
                return kind;
            }
            draw -= share;
        }
        Kind::Whole
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Whole => "whole",
            Kind::Streamed => "streamed",
            Kind::Slow => "read slowly",
            Kind::Cancelled => "cancelled",
            Kind::HalfClosed => "half closed",
            Kind::CutOff => "cut off",
            Kind::Nonsense => "nonsense",
            Kind::Wrong => "wrong values",
        }
    }
}

/// Puts a load on a server of `model`, whose answers are greedy.
pub fn run(served: &Served, model: &Arc<Model>, load: Load) -> Report {
    let known = known(model);
    let report = Mutex::new(Report::default());
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let idle: Vec<TcpStream> = (0..load.idle).map(|_| served.connect()).collect();
    std::thread::scope(|scope| {
        for client in 0..load.clients {
            let (known, report, next) = (&known, &report, &next);
            scope.spawn(move || {
                let mut random = Random(client as u64 + 1);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= load.requests {
                        return;
                    }
                    if number == load.requests / 2 && load.body > 0 {
                        too_large(served, load.body, report);
                    }
                    let kind = Kind::of(random.below(20));
                    let outcome = ask(served, kind, &known[random.below(PROMPTS)], &mut random);
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    *report.kinds.entry(kind.name()).or_default() += 1;
                    match outcome {
                        Ok(Done { equal, postponed }) => {
                            report.equal += usize::from(equal);
                            report.postponed += postponed;
                        }
                        Err(fault) => report.faults.push(format!("{number}, {}: {fault}", kind.name())),
                    }
                    if (number + 1).is_multiple_of((load.requests / 10).max(1)) {
                        report.resident.push(resident(served.id()));
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.seconds = start.elapsed().as_secs_f64();
    if let Err(fault) = at_rest(served) {
        report.faults.push(fault);
    }
    drop(idle);
    report
}

/// A request that went as it should.
#[derive(Default)]
struct Done {
    /// Its answer was compared.
    equal: bool,
    /// How often it had to come back.
    postponed: usize,
}

fn ask(served: &Served, kind: Kind, known: &Known, random: &mut Random) -> Result<Done, String> {
    let count = random.below(LONGEST + 1);
    let streamed = !matches!(kind, Kind::Whole | Kind::HalfClosed) || random.below(2) == 0;
    let mut body = json!({"prompt": known.prompt, "max_tokens": count, "temperature": 0, "stream": streamed});
    body["user"] = json!(format!("user {}", random.below(5)));
    if matches!(kind, Kind::Wrong) {
        let (name, value) = [
            ("max_tokens", json!("many")),
            ("temperature", json!([])),
            ("prompt", json!({"a": 1})),
            ("top_p", json!(7)),
            ("model", json!("another")),
        ][random.below(5)]
        .clone();
        body[name] = value;
    }
    let mut bytes = request(served, &body.to_string());
    let mut done = Done::default();
    loop {
        let mut stream = served.connect();
        stream.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
        match kind {
            Kind::CutOff => {
                bytes.truncate(random.below(bytes.len()));
                let _ = stream.write_all(&bytes);
                return Ok(done);
            }
            Kind::Nonsense => {
                let nonsense: Vec<u8> = (0..random.below(2000)).map(|_| random.below(256) as u8).collect();
                let _ = stream.write_all(&nonsense);
                let _ = stream.write_all(b"\r\n\r\n");
                let _ = stream.shutdown(Shutdown::Write);
                // It must be answered or closed.
                let answer = read(&mut stream, Duration::ZERO)?;
                return match answer.is_empty() || answer.starts_with(b"HTTP/1.1 4") {
                    true => Ok(done),
                    false => Err(format!("nonsense was answered by {}", String::from_utf8_lossy(&answer))),
                };
            }
            _ => stream.write_all(&bytes).map_err(|e| format!("the server does not read: {e}"))?,
        }
        if let Kind::Cancelled = kind {
            let mut some = vec![0; 1 + random.below(3000)];
            let _ = stream.set_read_timeout(Some(PAUSE * (1 + random.below(5) as u32)));
            let _ = stream.read(&mut some);
            return Ok(done);
        }
        if let Kind::HalfClosed = kind {
            stream.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
        }
        let pause = if matches!(kind, Kind::Slow) { PAUSE } else { Duration::ZERO };
        let answer = read(&mut stream, pause)?;
        if answer.is_empty() && matches!(kind, Kind::HalfClosed) {
            return Ok(done);
        }
        let answer = String::from_utf8(answer).map_err(|_| "the answer is no text".to_owned())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no head: {answer}"))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        match (status, kind) {
            ("429", _) => {
                done.postponed += 1;
                std::thread::sleep(PAUSE * 10);
                continue;
            }
            ("400" | "404", Kind::Wrong) => return Ok(done),
            ("200", _) => {}
            _ => return Err(answer),
        }
        let text = match (if streamed { events(body) } else { whole(body) }, kind) {
            // Who closes half of a connection is taken to be gone, also in the middle of an answer.
            (Err(_), Kind::HalfClosed) => return Ok(done),
            (text, _) => text?,
        };
        return match text == known.texts[count] {
            true => Ok(Done { equal: true, ..done }),
            false => Err(format!("{:?} of {count} tokens became {text:?}", known.texts[count])),
        };
    }
}

/// A request for a completion. The server closes the connection after its answer.
fn request(served: &Served, body: &str) -> Vec<u8> {
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        served.address,
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Reads to the end, a little at a time where there is a pause.
fn read(stream: &mut TcpStream, pause: Duration) -> Result<Vec<u8>, String> {
    let (mut all, start) = (Vec::new(), Instant::now());
    let mut some = vec![0; if pause.is_zero() { 1 << 16 } else { 512 }];
    loop {
        match stream.read(&mut some) {
            Ok(0) => return Ok(all),
            Ok(count) => all.extend_from_slice(&some[..count]),
            // A connection that the server has no more use for.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(all),
            Err(error) => return Err(format!("no end of the answer: {error}")),
        }
        if start.elapsed() > PATIENCE {
            return Err("the answer does not end".into());
        }
        std::thread::sleep(pause);
    }
}

/// The text of an answer in one piece.
fn whole(body: &str) -> Result<String, String> {
    let value: Value = serde_json::from_str(body).map_err(|e| format!("{e}: {body}"))?;
    value["choices"][0]["text"].as_str().map(str::to_owned).ok_or_else(|| body.to_owned())
}

/// The joined text of a streamed answer, in chunks of HTTP.
fn events(mut body: &str) -> Result<String, String> {
    let mut stream = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").ok_or("a chunk without a length")?;
        let length = usize::from_str_radix(length, 16).map_err(|e| format!("{e}: {length}"))?;
        if length == 0 {
            break;
        }
        stream.push_str(rest.get(..length).ok_or("a chunk is cut off")?);
        body = rest.get(length + 2..).ok_or("a chunk is cut off")?;
    }
    let mut text = String::new();
    let mut ended = false;
    for data in stream.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            ended = true;
            continue;
        }
        let value: Value = serde_json::from_str(data).map_err(|e| format!("{e}: {data}"))?;
        if !value["error"].is_null() {
            return Err(data.to_owned());
        }
        text.push_str(value["choices"][0]["text"].as_str().unwrap_or_default());
    }
    if ended { Ok(text) } else { Err(format!("the stream has no end: {stream}")) }
}

/// Sends a body that is larger than the server takes.
fn too_large(served: &Served, bytes: usize, report: &Mutex<Report>) {
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {bytes}\r\n\r\n",
        served.address
    );
    let mut stream = served.connect();
    let _ = stream.write_all(head.as_bytes());
    let piece = vec![b' '; 1 << 16];
    let mut sent = 0;
    while sent < bytes && stream.write_all(&piece).is_ok() {
        sent += piece.len();
    }
    let answer = read(&mut stream, Duration::ZERO).unwrap_or_default();
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    *report.kinds.entry("too large").or_default() += 1;
    // The answer may be lost where the server closed while the client was still sending.
    if !answer.is_empty() && !answer.starts_with(b"HTTP/1.1 413") {
        report.faults.push(format!("{bytes} bytes were answered by {}", String::from_utf8_lossy(&answer)));
    }
}

/// Waits until nothing runs any more.
fn at_rest(served: &Served) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let metrics = served.get("/metrics").body;
        let gauge = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok())
        };
        let (running, waiting) = (gauge("trit_running"), gauge("trit_queue_depth"));
        if (running, waiting) == (Some(0.0), Some(0.0)) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("still running {running:?}, waiting {waiting:?}"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// A process's resident memory in KiB; 0 where the system does not say.
fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}
