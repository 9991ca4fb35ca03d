//! `trit-run BUNDLE -p PROMPT`: continues a prompt.

use crate::args::Generate;
use crate::failure::{Failure, INTERRUPTED, note, print, print_json};
use crate::{chat, interrupt, open, profile};
use serde::Serialize;
use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use trit_runtime::generate::{Finish, GenerateOptions, Generation, generate};
use trit_runtime::sample::Sampler;
use trit_runtime::text::{Detokenizer, Tokenizer};
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
    let Some(prompt) = prompt(args)? else {
        return chat::run(args, bundle);
    };
    let terminal = io::stderr().is_terminal();
    let model = open::model(bundle, &args.session.load, args.verbose)?;
    let ids = match prompt {
        Prompt::Ids(ids) => ids,
        Prompt::Text(text) => {
            let tokenizer = open::tokenizer(&model, "--ids")?;
            tokenizer.encode(&text, true).map_err(|e| Failure::text(bundle, e))?
        }
    };
    let mut session = open::session(&model, &args.session)?;
    if args.profile {
        session.start_profile();
    }
    let mut sampler = args.sampling.sampler(&model.manifest().text.sampling);
    let mut request = Request {
        model: &model,
        max_new: args.n.unwrap_or(DEFAULT_TOKENS),
        ignore_eos: args.ignore_eos,
        speculate: !args.no_speculation,
        show: !args.json,
    };
    let answer = request.run(&mut session, &ids, &mut sampler)?;
    let timings = answer.timings();
    if args.json {
        let Answer { generation, text, .. } = &answer;
        let text = model.tokenizer().map(|_| text.as_str());
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

/// Where the prompt comes from; `None` where a person is to type it.
fn prompt(args: &Generate) -> Result<Option<Prompt>, Failure> {
    if let Some(ids) = &args.ids {
        return Ok(Some(Prompt::Ids(ids.clone())));
    }
    if let Some(text) = &args.prompt {
        return Ok(Some(Prompt::Text(text.clone())));
    }
    let (name, bytes) = match args.file.as_deref() {
        Some(file) if file != Path::new("-") => (file, std::fs::read(file)),
        None if !args.json && io::stdin().is_terminal() && io::stdout().is_terminal() => return Ok(None),
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
    Ok(Some(Prompt::Text(text)))
}

/// One generation and where its text goes.
pub struct Request<'m> {
    pub model: &'m Model,
    pub max_new: usize,
    pub ignore_eos: bool,
    pub speculate: bool,
    /// Print text as it is generated.
    pub show: bool,
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
        let mut sink = Sink::new(self.model.tokenizer(), prompt, self.show);
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
                Ok(()) if stoppable.requested() => ControlFlow::Break(()),
                Ok(()) => ControlFlow::Continue(()),
            });
        let generation = generation.map_err(|e| Failure::runtime(bundle, e))?;
        failed.map_or(Ok(()), Err)?;
        sink.finish(bundle)?;
        let decoded = session.position() - start - prompt.len();
        Ok(Answer { generation, text: sink.text, prompt_tokens: prompt.len(), decoded })
    }
}

/// Collects text, and shows it.
struct Sink<'m> {
    stream: Option<Detokenizer<'m>>,
    text: String,
    show: bool,
}

impl<'m> Sink<'m> {
    fn new(tokenizer: Option<&'m Tokenizer>, prompt: &[u32], show: bool) -> Sink<'m> {
        Sink { stream: tokenizer.map(|t| Detokenizer::after(t, prompt)), text: String::new(), show }
    }

    fn push(&mut self, id: u32, bundle: &Path) -> Result<(), Failure> {
        let text = match &mut self.stream {
            Some(stream) => stream.push(id).map_err(|e| Failure::text(bundle, e))?,
            None if self.text.is_empty() => id.to_string(),
            None => format!(",{id}"),
        };
        self.add(&text)
    }

    fn finish(&mut self, bundle: &Path) -> Result<(), Failure> {
        let rest = self.stream.as_mut().map_or(Ok(String::new()), Detokenizer::finish);
        self.add(&rest.map_err(|e| Failure::text(bundle, e))?)
    }

    fn add(&mut self, text: &str) -> Result<(), Failure> {
        self.text.push_str(text);
        if self.show && !text.is_empty() { print(text) } else { Ok(()) }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ids: &'a [u32],
    /// `null` where the bundle has no tokenizer.
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
