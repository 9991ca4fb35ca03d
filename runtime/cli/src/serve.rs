//! `trit-run serve`: a model over HTTP.

use crate::args::SessionArgs;
use crate::failure::{DONE, Failure, note, print_lines};
use crate::prompt_cache::{self, PromptCache};
use crate::{interrupt, mistaken, open, remedies, values};
use clap::{Args, ValueEnum};
use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use trit_runtime::scheduler::{Scheduler, SchedulerOptions};
use trit_runtime::{Engine, EngineOptions, Pooling};
use trit_server::{Drained, Keys, Origins, Server, ServerOptions};

/// The environment variable that may hold the key.
const KEY: &str = "TRIT_API_KEY";

#[derive(Debug, Args)]
#[command(
    after_help = "Interfaces: /v1/chat/completions, /v1/completions, /v1/models and, with --embeddings, /v1/embeddings as OpenAI has them; /tokenize, \
                        /detokenize, /apply-template, /slots as llama-server has them; /health; /metrics for Prometheus.\n\n\
                        Without a key, everybody who reaches the address may ask. A key stands in a file (--api-key-file), or \
                        in the environment as TRIT_API_KEY; clients send it as `Authorization: Bearer KEY` or `x-api-key: \
                        KEY`.\n\nSIGTERM or Ctrl-C: new requests get 503, those that have begun are answered, then the \
                        program ends with 0. A second signal ends it at once."
)]
pub struct Serve {
    /// The .trit bundle to serve.
    pub bundle: PathBuf,
    /// Address and port to listen at; port 0 is any that is free.
    #[arg(short, long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = values::address)]
    pub listen: String,
    /// Most requests that run at a time; others wait.
    #[arg(long, value_name = "N", default_value_t = SchedulerOptions::default().slots, value_parser = values::some)]
    pub slots: usize,
    /// Most requests that wait; others are told to come back later.
    #[arg(long, value_name = "N", default_value_t = SchedulerOptions::default().queue)]
    pub queue: usize,
    /// Most memory for the KV caches of all requests, such as 4G [default: half of what the system grants, and no more than
    /// full slots need].
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    pub kv_memory: Option<usize>,
    /// File that keeps the KV caches of texts when the program ends, for requests that begin alike after it was started
    /// again. It is made where there is none. A file of another bundle is refused, and stays. Who can read it can read
    /// the texts.
    #[arg(long, value_name = "FILE")]
    pub prompt_cache: Option<PathBuf>,
    /// Leave the file of --prompt-cache as it is.
    #[arg(long, requires = "prompt_cache")]
    pub prompt_cache_ro: bool,
    /// Do not draft tokens, be it from the text before them or by the model's own block; the tokens generated are the same
    /// either way.
    #[arg(long)]
    pub no_speculation: bool,
    /// Make embeddings at /v1/embeddings, too, of the last token's state or the mean of all; for models that were trained
    /// for them.
    #[arg(long, value_name = "POOLING")]
    pub embeddings: Option<Embeddings>,
    /// File with keys, one a line, of which a client must have one.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Pages that may ask from a browser, by scheme and host, or * for all; may be given more than once.
    #[arg(long, value_name = "ORIGIN", value_parser = values::origin)]
    pub cors: Vec<String>,
    /// Most bytes of a request.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = values::bytes)]
    pub max_body: usize,
    /// Most connections at a time.
    #[arg(long, value_name = "N", default_value_t = ServerOptions::default().max_connections, value_parser = values::some)]
    pub max_connections: usize,
    /// Seconds that an answer may take, waiting included; 0: any time.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub timeout: u32,
    /// Seconds that answers may take to end after the program was told to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain: u32,
    /// What is logged on standard error.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: Level,
    /// Log prompts and answers, too.
    #[arg(long)]
    pub log_prompts: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// What embeddings are made of.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Embeddings {
    /// The state of a text's last token.
    Last,
    /// The mean of all tokens' states.
    Mean,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Level {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What may become a problem, too.
    Warn,
    /// Every request, too.
    Info,
    /// Connections, too, and requests for /health and /metrics.
    Debug,
    /// Everything.
    Trace,
}

/// Runs the command.
pub fn run(args: &Serve) -> Result<u8, Failure> {
    let bundle = &args.bundle;
    mistaken::expect_bundle(bundle)?;
    let cache = args.prompt_cache.as_deref();
    PromptCache::check(cache, args.prompt_cache_ro, bundle)?;
    let options = options(args)?;
    let log = Targets::new().with_target("trit_server", level(args.log));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false);
    // Nothing else in this process sets a log.
    let _ = tracing_subscriber::registry().with(lines).with(log).try_init();

    let listen = &args.listen;
    let refused = |e: io::Error| {
        Failure::refused(format_args!("cannot listen at {listen}: {e}; --listen names another address"))
    };
    let listener = TcpListener::bind(listen.as_str()).map_err(refused)?;
    let every_page = args.cors.iter().any(|origin| origin == "*");
    let keyless = options.keys.is_empty();
    let server = Server::start(listener, options)
        .map_err(|e| Failure::refused(format_args!("the server cannot be started: {e}")))?;
    let address = server.address();
    if keyless && !address.ip().is_loopback() {
        note("everybody who reaches this address may ask, because there is no key: see --api-key-file");
    } else if keyless && every_page {
        note(
            "every page that a browser on this machine shows may ask, because of --cors *: see --api-key-file",
        );
    }
    let loaded = Arc::new(AtomicBool::new(false));
    let _drains = interrupt::drain_by({
        let (ender, loaded) = (server.ender(), loaded.clone());
        move || match loaded.load(SeqCst) {
            true => ender.drain(),
            // Nothing was begun that could be ended.
            false => interrupt::unfinished().abandon(|| std::process::exit(0)),
        }
    });
    tell(format_args!("listening on http://{address}"));

    let model = open::model(bundle, &args.session.load, false)?;
    let failed = |e| Failure::runtime(bundle, e);
    let threads = args.session.threads.map(usize::from);
    let engine =
        Engine::new(model.clone(), EngineOptions { threads, ..EngineOptions::default() }).map_err(failed)?;
    if threads.is_some_and(|asked| asked > engine.threads()) {
        note(format_args!("using {} threads: the system grants this process no more", engine.threads()));
    }
    let defaults = SchedulerOptions::default();
    let mut sequence = defaults.sequence;
    sequence.context = args.session.context.filter(|&c| c > 0).map(|c| c as usize);
    (sequence.kv, sequence.state) = (args.session.load.kv, args.session.load.state);
    let scheduler_options = SchedulerOptions {
        slots: args.slots,
        queue: args.queue,
        kv_memory: args.kv_memory,
        sequence,
        draft: !args.no_speculation,
    };
    let scheduler = Arc::new(Scheduler::new(engine, scheduler_options).map_err(failed)?);
    if let Some(path) = cache
        && let Some(saved) = prompt_cache::open(path, &model)?
    {
        let texts = scheduler.restore(&saved).map_err(|e| prompt_cache::failed(path, &model, e))?;
        tell(format_args!("prompt cache: {texts} of {} texts of {}", saved.len(), path.display()));
    }
    let name = bundle.file_stem().unwrap_or_default().to_string_lossy();
    tell(format_args!(
        "model {name}; kernels: {}\nlimits: {} threads, context {} tokens, {} slots, {} waiting, KV caches {}",
        remedies::kernels(model.kernels()),
        scheduler.engine().threads(),
        scheduler.context_length(),
        args.slots,
        args.queue,
        size(scheduler.kv_memory()),
    ));
    loaded.store(true, SeqCst);
    server.open(scheduler.clone()).map_err(failed)?;
    tell("ready");
    if let Drained::CutOff { requests } = server.wait() {
        note(format_args!("{requests} requests were cut off: they took longer than --drain allows"));
    }
    if let Some(path) = cache.filter(|_| !args.prompt_cache_ro) {
        let saved = scheduler.save(path, interrupt::unfinished());
        let texts = saved.map_err(|e| prompt_cache::not_written(path, &model, e))?;
        if texts > 0 {
            tell(format_args!("prompt cache: {texts} texts are in {}", path.display()));
        }
    }
    Ok(DONE)
}

fn options(args: &Serve) -> Result<ServerOptions, Failure> {
    let origins = Origins::new(&args.cors)
        .map_err(|origin| Failure::usage(format_args!("--cors {origin}: expected an origin or *")))?;
    Ok(ServerOptions {
        keys: keys(args.api_key_file.as_deref())?,
        origins,
        max_body: args.max_body,
        max_connections: args.max_connections,
        request_timeout: (args.timeout > 0).then(|| Duration::from_secs(args.timeout.into())),
        drain: Duration::from_secs(args.drain.into()),
        log_prompts: args.log_prompts,
        embeddings: args.embeddings.map(|pooling| match pooling {
            Embeddings::Last => Pooling::Last,
            Embeddings::Mean => Pooling::Mean,
        }),
        ..ServerOptions::default()
    })
}

/// The keys of the file, and that of the environment. None of them is ever part of a message.
fn keys(file: Option<&Path>) -> Result<Keys, Failure> {
    let mut keys = Vec::new();
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).map_err(|e| Failure::invalid(file, e))?;
        keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        if keys.is_empty() {
            return Err(Failure::invalid(file, "has no key; a key stands on a line of its own"));
        }
    }
    match std::env::var(KEY) {
        Ok(key) => keys.push(key),
        Err(std::env::VarError::NotPresent) => {}
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(Failure::usage(format_args!("{KEY} is no text")));
        }
    }
    Keys::new(keys).map_err(|e| match file {
        Some(file) => Failure::usage(format_args!("{} or {KEY}: {e}", file.display())),
        None => Failure::usage(format_args!("{KEY}: {e}")),
    })
}

fn level(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// Says something on standard output. A server goes on where nobody reads it.
fn tell(text: impl Display) {
    let _ = print_lines(format_args!("{text}\n"));
}

/// A number of bytes in words.
fn size(bytes: usize) -> String {
    match bytes {
        0..0x4000_0000 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
