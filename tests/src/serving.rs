//! A server that runs, and a client that speaks plain HTTP to it.

use crate::workbench::{trit_run, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a client waits for anything. Nothing that works takes as long.
const PATIENCE: Duration = Duration::from_secs(300);

/// `trit-run serve` on a free port of loopback. It is killed when this is dropped.
pub struct Served {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    printed: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Served {
    /// Starts a server for a bundle and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(bundle: &str, args: &[&str]) -> Served {
        Served::run(trit_run(&[&["serve", bundle, "--listen", "127.0.0.1:0", "-t", "2"], args].concat()))
    }

    /// Starts a server that several tests share, and that nobody drops: it ends after the tests' process, because its
    /// standard input ends then.
    ///
    /// # Panics
    /// If it does not start.
    pub fn shared(bundle: &str, args: &[&str]) -> Served {
        let server = trit_run(&[&["serve", bundle, "--listen", "127.0.0.1:0", "-t", "2"], args].concat());
        let mut command = Command::new("sh");
        command
            .args(["-c", "\"$@\" & server=$!; read -r line; kill -9 $server", "sh"])
            .arg(server.get_program());
        command.args(server.get_args());
        let set = server.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(set).stdin(Stdio::piped());
        Served::run(command)
    }

    /// Starts a server by a command, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub fn run(mut command: Command) -> Served {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let printed = Arc::new(Mutex::new(String::new()));
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let readers = vec![follow(out, printed.clone()), follow(err, printed.clone())];
        let text = || printed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wait_for("the server is ready", || {
            let ended = child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the server ended: {}", text());
            text().lines().any(|line| line == "ready")
        });
        let address = text()
            .lines()
            .find_map(|line| line.strip_prefix("listening on http://")?.parse().ok())
            .expect("the server says where it listens");
        Served { child, address, printed, readers }
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A connection to it.
    ///
    /// # Panics
    /// If there is none.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out can be set");
        stream
    }

    /// Sends bytes on a connection of their own, and gives the answer.
    ///
    /// # Panics
    /// If there is none.
    pub fn send(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // The server may answer before it has read everything.
        let _ = stream.write_all(bytes);
        Reply::read(stream)
    }

    /// Sends a request with headers besides those that every request has.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.send(self.head(method, path, headers, body).as_bytes())
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            head.push_str(&format!("host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{head}\r\n{body}")
    }

    /// `GET path`.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], "")
    }

    /// Whether it answers that it takes no requests. A connection that it had accepted and not read from when it was told to end
    /// is closed without an answer: it takes that one for idle.
    pub fn refuses(&self) -> bool {
        let mut stream = self.connect();
        let mut answer = Vec::new();
        let asked = stream.write_all(self.head("GET", "/health", &[], "").as_bytes());
        let read = stream.read_to_end(&mut answer);
        asked.is_ok() && read.is_ok() && answer.starts_with(b"HTTP/1.1 503 ")
    }

    /// `POST path` with JSON.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &[("content-type", "application/json")], &body.to_string())
    }

    /// `POST path` with JSON, answered by a stream.
    ///
    /// # Panics
    /// If the server does not accept it.
    pub fn stream(&self, path: &str, body: &Value) -> Events {
        let mut stream = self.connect();
        let request = self.head("POST", path, &[("content-type", "application/json")], &body.to_string());
        stream.write_all(request.as_bytes()).expect("the request is sent");
        Events::begin(stream)
    }

    /// Sends a signal, such as `-TERM`.
    ///
    /// # Panics
    /// If there is no `kill`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.id().to_string()]).status();
        assert!(status.expect("there is kill").success());
    }

    /// Waits until it ends; gives how, and everything that it printed.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("a child can be waited for");
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader does not panic"));
        (status, self.printed())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(from: impl Read + Send + 'static, to: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            to.lock().unwrap_or_else(PoisonError::into_inner).push_str(&format!("{line}\n"));
        }
    })
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl Reply {
    /// Reads an answer to its end.
    ///
    /// # Panics
    /// If it is none.
    pub fn read(stream: TcpStream) -> Reply {
        let mut stream = BufReader::new(stream);
        let (status, headers) = head(&mut stream);
        let mut reply = Reply { status, headers, body: String::new() };
        let mut body = Vec::new();
        match reply.header("transfer-encoding") {
            Some(_) => {
                while let Some(chunk) = chunk(&mut stream) {
                    body.extend(chunk);
                }
            }
            None => {
                let length = reply.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
                body.resize(length, 0);
                stream.read_exact(&mut body).expect("the body is as long as it says");
            }
        }
        reply.body = String::from_utf8(body).expect("answers are text");
        reply
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body as JSON, of a request that must have succeeded.
    ///
    /// # Panics
    /// If it has not.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

/// Server-sent events, as they come. Dropping this closes the connection.
pub struct Events {
    stream: BufReader<TcpStream>,
    /// What of the stream is not yet an event.
    text: String,
}

impl Events {
    fn begin(stream: TcpStream) -> Events {
        let mut stream = BufReader::new(stream);
        let (status, headers) = head(&mut stream);
        let mut body = String::new();
        if status != 200 {
            let _ = stream.read_to_string(&mut body);
        }
        assert_eq!(status, 200, "{body}");
        let kind = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
        assert_eq!(kind, Some("text/event-stream"));
        Events { stream, text: String::new() }
    }

    /// All events that are left.
    pub fn all(self) -> Vec<String> {
        self.collect()
    }
}

impl Iterator for Events {
    type Item = String;

    /// The data of the next event; comments are passed over.
    fn next(&mut self) -> Option<String> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                let data = data.join("\n");
                self.text = rest.to_owned();
                if !data.is_empty() {
                    return Some(data);
                }
            }
            let chunk = chunk(&mut self.stream)?;
            self.text.push_str(&String::from_utf8(chunk).expect("events are text"));
        }
    }
}

/// The status and headers of an answer.
fn head(stream: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    stream.read_line(&mut line).expect("there is an answer");
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("the head ends");
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => return (status, headers),
        }
    }
}

/// The next chunk of a body; `None` at its end.
fn chunk(stream: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    stream.read_line(&mut line).expect("the connection lives");
    let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
    let mut chunk = vec![0; length + 2];
    stream.read_exact(&mut chunk).expect("a chunk is as long as it says");
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}
