//! Measures a server as its users feel it: tokens/s of many streams, the time to the first token beside other streams, and
//! what a shared beginning of prompts saves.
//!
//!     cargo run --release -p trit-tests --bin streams -- ADDRESS VOCABULARY [decode|mixed|prefix ...]
//!
//! ADDRESS is that of any server with OpenAI's `/v1/completions` which takes prompts of token ids and understands
//! `ignore_eos`, such as `trit-run serve` or llama-server; VOCABULARY is how many tokens its model has. Prints one JSON
//! object a measurement. Without names, all are made.
#![forbid(unsafe_code)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trit_tests::engines::Random;

/// Streams that decode at once.
const STREAMS: [usize; 5] = [1, 2, 4, 8, 16];
/// Tokens of a prompt before decoding, and tokens decoded.
const DECODE: (usize, usize) = (16, 64);
/// Streams that decode while prompts come.
const OTHERS: usize = 7;
/// Prompts that come one after the other, and their tokens.
const PROMPTS: (usize, usize) = (10, 512);
/// Tokens of a beginning that prompts share, tokens that each has of its own, and pairs of prompts.
const SHARED: (usize, usize, usize) = (1000, 20, 5);

/// A measurement's error: what the server did.
type Outcome<T> = Result<T, String>;
/// A measurement.
type Measure = fn(&Server) -> Outcome<Value>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, vocabulary, names @ ..] = &args[..] else {
        eprintln!("usage: streams ADDRESS VOCABULARY [decode|mixed|prefix ...]");
        return ExitCode::from(2);
    };
    let Some(vocabulary) = vocabulary.parse().ok().filter(|&n| n > 0) else {
        eprintln!("the vocabulary is a number of tokens");
        return ExitCode::from(2);
    };
    let server = Server { address: address.clone(), vocabulary };
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let measurements: [(&str, Measure); 3] = [("decode", decode), ("mixed", mixed), ("prefix", prefix)];
    for (name, measure) in measurements {
        if wanted(name) {
            match measure(&server) {
                Ok(value) => println!("{}", json!({ name: value })),
                Err(error) => {
                    eprintln!("{name}: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

#[derive(Clone)]
struct Server {
    address: String,
    vocabulary: usize,
}

/// A stream of tokens.
struct Stream(BufReader<TcpStream>);

impl Server {
    /// Ids of a prompt that no other seed gives.
    fn prompt(&self, seed: u64, tokens: usize) -> Vec<u32> {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).ids(tokens, self.vocabulary)
    }

    /// Asks for `tokens` tokens after a prompt.
    fn ask(&self, prompt: &[u32], tokens: usize) -> Outcome<Stream> {
        let body = json!({
            "prompt": prompt, "max_tokens": tokens, "stream": true, "temperature": 0, "ignore_eos": true,
            "cache_prompt": true,
        });
        let body = body.to_string();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(600))).map_err(|e| e.to_string())?;
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).map_err(|e| e.to_string())?;
        let mut stream = BufReader::new(stream);
        let mut status = String::new();
        stream.read_line(&mut status).map_err(|e| e.to_string())?;
        if !status.contains(" 200 ") {
            let mut rest = String::new();
            let _ = stream.read_to_string(&mut rest);
            return Err(format!("{status}{rest}"));
        }
        Ok(Stream(stream))
    }
}

impl Stream {
    /// When the next token came; `None` at the end.
    fn next(&mut self) -> Outcome<Option<Instant>> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line).map_err(|e| e.to_string())? == 0 {
                return Ok(None);
            }
            match line.trim_end().strip_prefix("data: ") {
                Some("[DONE]") => return Ok(None),
                Some(data) => {
                    let value: Value = serde_json::from_str(data).map_err(|e| format!("{e}: {data}"))?;
                    if !value["error"].is_null() {
                        return Err(data.to_owned());
                    }
                    // The last event has no token.
                    if value["choices"][0]["finish_reason"].is_null() && !value["choices"][0].is_null() {
                        return Ok(Some(Instant::now()));
                    }
                }
                None => {}
            }
        }
    }

    /// When each token came.
    fn all(mut self) -> Outcome<Vec<Instant>> {
        let mut times = Vec::new();
        while let Some(time) = self.next()? {
            times.push(time);
        }
        Ok(times)
    }
}

fn joined<T>(thread: JoinHandle<Outcome<T>>) -> Outcome<T> {
    thread.join().unwrap_or_else(|_| Err("a client panicked".into()))
}

/// The value below which a share of the values is.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Tokens/s of all streams together, from when the last has its first token until the first has its last.
fn decode(server: &Server) -> Outcome<Value> {
    let mut rates = serde_json::Map::new();
    for streams in STREAMS {
        let mut runs = Vec::new();
        for run in 0..3 {
            let start = Arc::new(Barrier::new(streams));
            let client = |index: usize| {
                let (server, start) = (server.clone(), start.clone());
                std::thread::spawn(move || {
                    let prompt = server.prompt((run * 100 + streams * 1000 + index) as u64, DECODE.0);
                    start.wait();
                    server.ask(&prompt, DECODE.1)?.all()
                })
            };
            let clients: Vec<_> = (0..streams).map(client).collect();
            let times: Vec<Vec<Instant>> = clients.into_iter().map(joined).collect::<Outcome<_>>()?;
            let from = times.iter().filter_map(|times| times.first()).max().ok_or("no tokens came")?;
            let to = times.iter().filter_map(|times| times.last()).min().ok_or("no tokens came")?;
            let tokens = times.iter().flatten().filter(|time| *time > from && *time <= to).count();
            runs.push(tokens as f64 / to.saturating_duration_since(*from).as_secs_f64());
        }
        rates.insert(streams.to_string(), json!(quantile(&mut runs, 0.5)));
    }
    Ok(json!({ "tokens_per_s": rates }))
}

/// How long prompts take to their first token while others decode, and what that does to the others.
fn mixed(server: &Server) -> Outcome<Value> {
    let stop = Arc::new(AtomicBool::new(false));
    let other = |index: usize| {
        let (server, stop) = (server.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut times = Vec::new();
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                // The gap between two answers of a client is no gap between tokens.
                let mut answer = Vec::new();
                let prompt = server.prompt(70_000 + round * 100 + index as u64, DECODE.0);
                let mut stream = server.ask(&prompt, 400)?;
                while let Some(time) = stream.next()? {
                    answer.push(time);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                times.push(answer);
                round += 1;
            }
            Ok(times)
        })
    };
    let others: Vec<JoinHandle<Outcome<Vec<Vec<Instant>>>>> = (0..OTHERS).map(other).collect();
    std::thread::sleep(Duration::from_secs(6));
    let calm_from = Instant::now();
    std::thread::sleep(Duration::from_secs(6));
    let mixed_from = Instant::now();
    let mut first = Vec::new();
    let mut busy = Vec::new();
    for index in 0..PROMPTS.0 {
        let prompt = server.prompt(80_000 + index as u64, PROMPTS.1);
        let start = Instant::now();
        let mut stream = server.ask(&prompt, 4)?;
        let time = stream.next()?.ok_or("a prompt gave no token")?;
        first.push((time - start).as_secs_f64());
        busy.push((start, time));
        stream.all()?;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut calm, mut mixed) = (Vec::new(), Vec::new());
    for other in others {
        for answer in joined(other)? {
            for pair in answer.windows(2) {
                let gap = (pair[1] - pair[0]).as_secs_f64();
                if pair[0] > calm_from && pair[1] < mixed_from {
                    calm.push(gap);
                }
                if busy.iter().any(|(from, to)| pair[1] > *from && pair[1] <= *to) {
                    mixed.push(gap);
                }
            }
        }
    }
    let two = |values: &mut Vec<f64>| json!({ "p50": quantile(values, 0.5), "p95": quantile(values, 0.95) });
    Ok(json!({
        "first_token_s": two(&mut first), "between_tokens_alone_s": two(&mut calm), "between_tokens_beside_s": two(&mut mixed),
    }))
}

/// The time to the first token of two prompts that begin alike.
fn prefix(server: &Server) -> Outcome<Value> {
    let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
    for pair in 0..SHARED.2 {
        let shared = server.prompt(90_000 + pair as u64, SHARED.0);
        for (user, times) in [&mut firsts, &mut seconds].into_iter().enumerate() {
            let own = server.prompt(95_000 + (10 * pair + user) as u64, SHARED.1);
            let start = Instant::now();
            let mut stream = server.ask(&[&shared[..], &own].concat(), 2)?;
            times.push((stream.next()?.ok_or("a prompt gave no token")? - start).as_secs_f64());
            stream.all()?;
        }
    }
    let (first, second) = (quantile(&mut firsts, 0.5), quantile(&mut seconds, 0.5));
    Ok(json!({ "first_s": first, "second_s": second, "ratio": first / second }))
}
