//! `trit-run BUNDLE -p PROMPT`: continues a prompt.

use crate::args::Generate;
use crate::failure::{DONE, Failure, note, print, print_json};
use crate::prompt_cache::PromptCache;
use crate::{chat, interrupt, mistaken, open, profile};
use serde::Serialize;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use trit_command::signals::INTERRUPTED;
use trit_runtime::generate::{Finish, GenerateOptions, Generation, Generator, Piece};
use trit_runtime::text::printable::TerminalFilter;
use trit_runtime::text::{Conversation, Tokenizer};
use trit_runtime::{RuntimeError, Session};

/// Most tokens that are generated where `-n` does not say.
pub const DEFAULT_TOKENS: usize = 256;

/// What is to be continued.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// Runs the command: interactive, or one generation.
pub fn run(args: &Generate) -> Result<u8, Failure> {
    let bundle = args.bundle.as_deref().ok_or_else(|| Failure::usage("give a .trit bundle to run"))?;
    mistaken::expect_order(bundle, args.text.as_deref())?;
    mistaken::expect_bundle(bundle)?;
    PromptCache::check(args.prompt_cache.as_deref(), args.prompt_cache_ro, bundle)?;
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
    let mut cache = PromptCache::open(args, &model)?;
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
    if let Some(cache) = &mut cache {
        cache.warm(&mut session, &ids)?;
    }
    if args.profile {
        session.start_profile();
    }
    let sampler = args.sampling.sampler(&model.manifest().text.sampling);
    let (seed, threads) = (sampler.options().seed, session.threads());
    let request = Request {
        max_new: args.n.unwrap_or(if chat { usize::MAX } else { DEFAULT_TOKENS }),
        ignore_eos: args.ignore_eos,
        speculate: !args.no_speculation,
        show: !args.json,
        stop: &args.stop,
        #[cfg(feature = "guide")]
        guides: crate::grammar::Guides::new(args, &model)?,
    };
    let mut generator = match tokenizer {
        Some(_) => Generator::new(session, sampler).map_err(|e| Failure::runtime(bundle, e))?,
        None => Generator::of_ids(session, sampler),
    };
    let answer = request.run(&mut generator, &ids)?;
    let timings = answer.timings();
    if args.json {
        let Answer { generation, text, .. } = &answer;
        let text = tokenizer.map(|_| text.as_str());
        print_json(&Report { ids: &generation.ids, text, finish: finish(generation.finish), seed, timings })?;
    } else {
        print("\n")?;
        if terminal || args.verbose {
            note(timings.line(threads));
        }
    }
    profile::show_generation(&answer.generation);
    open::tell_widened(generator.session().widened());
    if let Some(cache) = cache.filter(|_| answer.generation.finish != Finish::Interrupted) {
        cache.save(generator.session())?;
    }
    Ok(match answer.generation.finish {
        Finish::Interrupted => INTERRUPTED,
        _ => DONE,
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
pub struct Request<'a> {
    pub max_new: usize,
    pub ignore_eos: bool,
    pub speculate: bool,
    /// Print text as it is generated.
    pub show: bool,
    /// Texts that end the answer and are no part of it.
    pub stop: &'a [String],
    /// What the answer must be like.
    #[cfg(feature = "guide")]
    pub guides: Option<crate::grammar::Guides>,
}

/// What was generated.
pub struct Answer {
    pub generation: Generation,
    /// Its text; ids separated by commas where there is no tokenizer.
    pub text: String,
    decoded: usize,
    /// Tokens of the prompt that the session had run before.
    cached: usize,
}

impl Request<'_> {
    /// Generates after `ids` until the model, the limit, the context or the user ends it.
    pub fn run(&self, generator: &mut Generator, ids: &[u32]) -> Result<Answer, Failure> {
        let model = generator.session().model().clone();
        let bundle = model.path();
        if !self.stop.is_empty() {
            open::tokenizer(&model, "no --stop")?;
        }
        let options = GenerateOptions {
            max_new: self.max_new,
            stop_texts: self.stop.to_vec(),
            ignore_eos: self.ignore_eos,
            draft: self.speculate,
            ..GenerateOptions::of(&model)
        };
        let stoppable = interrupt::stoppable();
        let failed = |e| Failure::runtime(bundle, e);
        self.begin(generator, ids, options).map_err(failed)?;
        // A terminal shows what is printed.
        let filter = io::stdout().is_terminal().then_some(TerminalFilter);
        let mut text = String::new();
        while let Some(piece) = generator.next() {
            let piece = match piece.map_err(failed)? {
                Piece { id: Some(id), .. } if !generator.has_text() => {
                    if text.is_empty() {
                        id.to_string()
                    } else {
                        format!(",{id}")
                    }
                }
                Piece { text, .. } => text,
            };
            text.push_str(&piece);
            match &filter {
                _ if !self.show || piece.is_empty() => {}
                Some(filter) => print(filter.piece(&piece))?,
                None => print(&piece)?,
            }
            if stoppable.requested() {
                generator.interrupt();
            }
        }
        let generation = generator.generation().cloned();
        let generation =
            generation.ok_or_else(|| Failure::internal("a generation ended without a result"))?;
        // Interrupted in the prompt, the session is where it was.
        let decoded = generator.session().position().saturating_sub(ids.len());
        let cached = ids.len().saturating_sub(generation.prompt);
        Ok(Answer { generation, text, decoded, cached })
    }
}

impl Request<'_> {
    fn begin(
        &self,
        generator: &mut Generator,
        ids: &[u32],
        options: GenerateOptions,
    ) -> Result<(), RuntimeError> {
        #[cfg(feature = "guide")]
        if let Some(guides) = &self.guides {
            return generator.begin_guided(ids, options, guides.guide()?);
        }
        generator.begin(ids, options)
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
    /// Tokens of the prompt that ran, and those that the session had run before.
    prompt_tokens: usize,
    cached_tokens: usize,
    prompt_s: f64,
    prompt_tokens_per_s: f64,
    generated_tokens: usize,
    generated_s: f64,
    generated_tokens_per_s: f64,
    /// Tokens drafted, and how many of them were accepted.
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
            prompt_tokens: self.generation.prompt,
            cached_tokens: self.cached,
            prompt_s,
            prompt_tokens_per_s: rate(self.generation.prompt, prompt_s),
            generated_tokens: self.generation.ids.len(),
            generated_s,
            generated_tokens_per_s: rate(self.decoded, generated_s),
            guessed_tokens: self.generation.drafted,
            guessed_right: self.generation.accepted,
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
