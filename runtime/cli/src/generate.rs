//! `trit-run BUNDLE -p PROMPT`: continues a prompt.

use crate::args::Generate;
use crate::failure::{Failure, note, print, print_json};
use crate::stop::Stops;
use crate::{chat, interrupt, mistaken, open, profile};
use serde::Serialize;
use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use trit_command::signals::INTERRUPTED;
use trit_runtime::generate::{Finish, GenerateOptions, Generation, generate};
use trit_runtime::sample::Sampler;
use trit_runtime::text::printable::TerminalFilter;
use trit_runtime::text::{Conversation, Detokenizer, Tokenizer};
use trit_runtime::{Model, Session};

/// Most tokens that are generated where `-n` does not say.
pub const DEFAULT_TOKENS: usize = 256;

/// What is to be continued.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// Runs the command: interactive, or one generation.
pub fn run(args: &Generate) -> Result<ExitCode, Failure> {
    let bundle = args.bundle.as_deref().ok_or_else(|| Failure::usage("give a .trit bundle to run"))?;
    mistaken::expect_order(bundle, args.text.as_deref())?;
    mistaken::expect_bundle(bundle)?;
    let Some(prompt) = prompt(args)? else {
        return chat::run(args, bundle);
    };
    let chat = args.chat || args.system.is_some();
    let terminal = io::stderr().is_terminal();
    let model = open::model(bundle, &args.session.load, args.verbose)?;
    let tokenizer = match &prompt {
        Prompt::Ids(_) => open::tokenizer_if_usable(&model),
        Prompt::Text(_) => Some(open::tokenizer(&model, "--ids")?),
    };
    let mut session = open::session(&model, &args.session)?;
    let ids = match (prompt, tokenizer) {
        (Prompt::Text(text), Some(tokenizer)) if chat => question(args, &session, tokenizer, text)?,
        (Prompt::Text(text), Some(tokenizer)) => {
            let context = session.context_length();
            tokenizer.encode_within(&text, true, context).map_err(|e| Failure::prompt(&session, e))?
        }
        (Prompt::Text(_), None) => Vec::new(),
        (Prompt::Ids(ids), _) => ids,
    };
    if args.profile {
        session.start_profile();
    }
    let mut sampler = args.sampling.sampler(&model.manifest().text.sampling);
    let mut request = Request {
        model: &model,
        tokenizer,
        max_new: args.n.unwrap_or(if chat { usize::MAX } else { DEFAULT_TOKENS }),
        ignore_eos: args.ignore_eos,
        speculate: !args.no_speculation,
        show: !args.json,
        stop: &args.stop,
    };
    let answer = request.run(&mut session, &ids, &mut sampler)?;
    let timings = answer.timings();
    if args.json {
        let Answer { generation, text, .. } = &answer;
        let text = tokenizer.map(|_| text.as_str());
        let seed = sampler.options().seed;
        print_json(&Report { ids: &generation.ids, text, finish: finish(generation.finish), seed, timings })?;
    } else {
        print("\n")?;
        if terminal || args.verbose {
            note(timings.line(session.threads()));
        }
    }
    profile::show_generation(&answer.generation);
    open::tell_widened(&session);
    Ok(match answer.generation.finish {
        Finish::Interrupted => ExitCode::from(INTERRUPTED),
        _ => ExitCode::SUCCESS,
    })
}

/// The ids of a conversation that begins with `text`.
fn question(
    args: &Generate,
    session: &Session,
    tokenizer: &Tokenizer,
    text: String,
) -> Result<Vec<u32>, Failure> {
    let model = session.model();
    let failed = |e| Failure::prompt(session, e);
    let template = tokenizer.chat_template().map_err(failed)?.ok_or_else(|| open::no_template(model))?;
    let mut conversation = Conversation::new(args.system.as_deref());
    conversation.ask(text);
    let stoppable = interrupt::stoppable();
    let stop = || stoppable.requested();
    let ids = conversation.prompt(tokenizer, &template, session.context_length(), &stop).map_err(failed)?;
    if stop() { Err(Failure::interrupted()) } else { Ok(ids) }
}

/// Where the prompt comes from; `None` where a person is to type it.
fn prompt(args: &Generate) -> Result<Option<Prompt>, Failure> {
    if let Some(ids) = &args.ids {
        return Ok(Some(Prompt::Ids(ids.clone())));
    }
    if let Some(text) = args.prompt.as_ref().or(args.text.as_ref()) {
        return Ok(Some(Prompt::Text(text.clone())));
    }
    if args.file.is_none() && !args.json && io::stdin().is_terminal() && io::stdout().is_terminal() {
        return Ok(None);
    }
    read_text(args.file.as_deref()).map(|text| Some(Prompt::Text(text)))
}

/// The text of a file, or of standard input where there is none or it is called `-`, without its last line break.
///
/// # Errors
/// An invalid input where it cannot be read or is no text.
pub fn read_text(file: Option<&Path>) -> Result<String, Failure> {
    let (name, bytes) = match file {
        Some(file) if file != Path::new("-") => (file, std::fs::read(file)),
        _ => {
            let mut bytes = Vec::new();
            (Path::new("standard input"), io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes))
        }
    };
    let bytes = bytes.map_err(|e| Failure::invalid(name, e))?;
    let mut text =
        String::from_utf8(bytes).map_err(|e| Failure::invalid(name, format_args!("is no text: {e}")))?;
    // Editors and echo end every text with a line break, which the model would take for the end of a paragraph.
    if text.ends_with('\n') {
        text.truncate(text.len() - 1);
        text.truncate(text.strip_suffix('\r').map_or(text.len(), str::len));
    }
    Ok(text)
}

/// One generation and where its text goes.
pub struct Request<'m> {
    pub model: &'m Model,
    /// Makes text of what is generated; without it, ids are shown.
    pub tokenizer: Option<&'m Tokenizer>,
    pub max_new: usize,
    pub ignore_eos: bool,
    pub speculate: bool,
    /// Print text as it is generated.
    pub show: bool,
    /// Texts that end the answer and are no part of it.
    pub stop: &'m [String],
}

/// What was generated.
pub struct Answer {
    pub generation: Generation,
    /// Its text; ids separated by commas where there is no tokenizer.
    pub text: String,
    prompt_tokens: usize,
    decoded: usize,
}

impl Request<'_> {
    /// Appends `prompt` to the session and generates until the model, the limit, the context or the user ends it.
    pub fn run(
        &mut self,
        session: &mut Session,
        prompt: &[u32],
        sampler: &mut Sampler,
    ) -> Result<Answer, Failure> {
        let bundle = self.model.path();
        if !self.stop.is_empty() && self.tokenizer.is_none() {
            open::tokenizer(self.model, "no --stop")?;
        }
        let mut sink = Sink::new(self.tokenizer, prompt, self.show, self.stop);
        let start = session.position();
        let stoppable = interrupt::stoppable();
        let mut failed = None;
        let options = GenerateOptions {
            max_new: self.max_new,
            stop: &self.model.manifest().text.stop,
            ignore_eos: self.ignore_eos,
            speculate: self.speculate,
        };
        let generation =
            generate(session, prompt, sampler, &options, &mut |id| match sink.push(id, bundle) {
                Err(failure) => {
                    failed = Some(failure);
                    ControlFlow::Break(())
                }
                Ok(()) if sink.stops.found() || stoppable.requested() => ControlFlow::Break(()),
                Ok(()) => ControlFlow::Continue(()),
            });
        let mut generation = generation.map_err(|e| Failure::runtime(bundle, e))?;
        failed.map_or(Ok(()), Err)?;
        sink.finish(bundle)?;
        if sink.stops.found() {
            generation.finish = Finish::Stop;
        }
        // Interrupted in the prompt, the session is where it was.
        let decoded = session.position().saturating_sub(start + prompt.len());
        Ok(Answer { generation, text: sink.text, prompt_tokens: prompt.len(), decoded })
    }
}

/// Collects text, and shows it.
struct Sink<'m> {
    stream: Option<Detokenizer<'m>>,
    stops: Stops<'m>,
    text: String,
    show: bool,
    /// Where a terminal shows it.
    filter: Option<TerminalFilter>,
}

impl<'m> Sink<'m> {
    fn new(tokenizer: Option<&'m Tokenizer>, prompt: &[u32], show: bool, stop: &'m [String]) -> Sink<'m> {
        Sink {
            stream: tokenizer.map(|t| Detokenizer::after(t, prompt)),
            stops: Stops::new(stop),
            text: String::new(),
            show,
            filter: io::stdout().is_terminal().then_some(TerminalFilter),
        }
    }

    fn push(&mut self, id: u32, bundle: &Path) -> Result<(), Failure> {
        let text = match &mut self.stream {
            Some(stream) => stream.push(id).map_err(|e| Failure::text(bundle, e))?,
            None if self.text.is_empty() => id.to_string(),
            None => format!(",{id}"),
        };
        let text = self.stops.push(&text);
        self.add(&text)
    }

    fn finish(&mut self, bundle: &Path) -> Result<(), Failure> {
        let rest = self.stream.as_mut().map_or(Ok(String::new()), Detokenizer::finish);
        let mut text = self.stops.push(&rest.map_err(|e| Failure::text(bundle, e))?);
        text.push_str(&self.stops.finish());
        self.add(&text)
    }

    fn add(&mut self, text: &str) -> Result<(), Failure> {
        self.text.push_str(text);
        match &self.filter {
            _ if !self.show || text.is_empty() => Ok(()),
            Some(filter) => print(filter.piece(text)),
            None => print(text),
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ids: &'a [u32],
    /// `null` where the bundle has no tokenizer that can be used.
    text: Option<&'a str>,
    finish: &'static str,
    seed: u64,
    timings: Timings,
}

/// How long it took.
#[derive(Clone, Copy, Serialize)]
pub struct Timings {
    prompt_tokens: usize,
    prompt_s: f64,
    prompt_tokens_per_s: f64,
    generated_tokens: usize,
    generated_s: f64,
    generated_tokens_per_s: f64,
    /// Tokens guessed from the text before them, and how many of them were right.
    guessed_tokens: usize,
    guessed_right: usize,
}

impl Answer {
    /// Rates count forward passes: the first generated token comes out of the prompt's.
    pub fn timings(&self) -> Timings {
        let rate = |tokens: usize, s: f64| if tokens == 0 || s <= 0.0 { 0.0 } else { tokens as f64 / s };
        let (prompt_s, generated_s) =
            (self.generation.prefill.as_secs_f64(), self.generation.decode.as_secs_f64());
        Timings {
            prompt_tokens: self.prompt_tokens,
            prompt_s,
            prompt_tokens_per_s: rate(self.prompt_tokens, prompt_s),
            generated_tokens: self.generation.ids.len(),
            generated_s,
            generated_tokens_per_s: rate(self.decoded, generated_s),
            guessed_tokens: self.generation.guesses.0,
            guessed_right: self.generation.guesses.1,
        }
    }
}

impl Timings {
    /// One line for people.
    pub fn line(&self, threads: usize) -> String {
        let Timings { prompt_tokens, prompt_tokens_per_s, generated_tokens, generated_tokens_per_s, .. } =
            self;
        let plural = if threads == 1 { "thread" } else { "threads" };
        format!(
            "prompt {prompt_tokens} tokens at {prompt_tokens_per_s:.1}/s, \
             generated {generated_tokens} at {generated_tokens_per_s:.1}/s, {threads} {plural}"
        )
    }
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Context => "context",
        Finish::Interrupted => "interrupted",
    }
}
