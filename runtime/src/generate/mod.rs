//! Generation: a prompt enters, tokens and their text leave one by one.

pub(crate) mod draft;
pub mod guide;
mod guided;
mod rules;
pub mod sample;

use self::guide::Guide;
use self::guided::Guided;
use self::sample::Sampler;
use crate::{Logits, LogitsRequest, Model, Profile, RuntimeError, Session};
use draft::Drafts;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trit_text::conversation::shared_prefix;
use trit_text::{AnswerText, TextError, Tokenizer};

/// How many of a prompt's last tokens open the answer, at most: a role, and the beginning or an empty block of thoughts.
pub(crate) const OPENING: usize = 12;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop id was chosen, which is not among the ids, the text came to one of the stop texts, or the guide allowed
    /// nothing more.
    Stop,
    /// As many tokens were generated as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller ended it, or another thread did: see [`Session::interrupt_by`].
    Interrupted,
}

/// What a generation produced.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Generated tokens.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt that ran: those before them were known to the session.
    pub prompt: usize,
    /// Time for the prompt.
    pub prefill: Duration,
    /// Time for the generated tokens.
    pub decode: Duration,
    /// Tokens drafted.
    pub drafted: usize,
    /// How many of the drafted tokens were accepted, because the model chose the same.
    pub accepted: usize,
    /// Where the time went, for the prompt and for the generated tokens. `None` unless the engine keeps a profile.
    pub profiles: Option<[Profile; 2]>,
}

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_new: usize,
    /// Ids that end the generation.
    pub stop_ids: Vec<u32>,
    /// Texts that end the generation of a [`Generator`] before they begin. An empty text is ignored.
    pub stop_texts: Vec<String>,
    /// Whether to continue after a stop id, which is then among the ids.
    pub ignore_eos: bool,
    /// Whether to draft tokens, from the text before them or by the model's own block, and check several in one pass, where
    /// that saves time. The generated tokens are the same either way.
    pub draft: bool,
}

impl GenerateOptions {
    /// Generates until the model ends its text.
    pub fn of(model: &Model) -> GenerateOptions {
        GenerateOptions {
            max_new: usize::MAX,
            stop_ids: model.manifest().text.stop.clone(),
            stop_texts: Vec::new(),
            ignore_eos: false,
            draft: true,
        }
    }
}

/// Appends `prompt` to the session and generates tokens; `each` is called with every token as it is chosen. Where the
/// call is interrupted before the first token, the session does not change.
///
/// # Errors
/// As [`Session::prefill`], and [`RuntimeError::Suppressed`] where no token may be chosen.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    sampler: &mut Sampler,
    options: &GenerateOptions,
    each: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, RuntimeError> {
    let mut ongoing = Ongoing::begin(session, prompt, sampler, options.clone(), None)?;
    while let Some(id) = ongoing.next(session, sampler)? {
        if each(id).is_break() {
            ongoing.stop(Finish::Interrupted);
        }
    }
    ongoing.end(session);
    Ok(ongoing.generation)
}

/// A token, with the text that is complete since this token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The token. `None` for text at the end that was held back until then.
    pub id: Option<u32>,
    /// Whole characters, often none or one word. Empty where the model has no tokenizer.
    pub text: String,
}

/// An iterator over generated tokens and their text. It owns a session and a sampler.
///
/// ```no_run
/// # use trit_runtime::generate::{GenerateOptions, Generator};
/// # use trit_runtime::sample::{Sampler, SamplerOptions};
/// # use trit_runtime::{LoadOptions, Model, Session, SessionOptions};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let model = Model::load("fables-12m.trit".as_ref(), &LoadOptions::default())?;
/// let session = Session::new(model.clone(), SessionOptions::default())?;
/// let mut generator = Generator::new(session, Sampler::new(SamplerOptions::default()))?;
/// let prompt = model.tokenizer()?.ok_or("no tokenizer")?.encode("Once upon a time", true)?;
/// generator.begin(&prompt, GenerateOptions { max_new: 50, ..GenerateOptions::of(&model) })?;
/// for piece in &mut generator {
///     print!("{}", piece?.text);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Generator {
    session: Session,
    sampler: Sampler,
    tokenizer: Option<Arc<Tokenizer>>,
    /// The current generation, until it has ended.
    ongoing: Option<Ongoing>,
    text: AnswerText,
    /// The result of the last generation that ended.
    last: Option<Generation>,
}

impl Generator {
    /// A generator of tokens and text; of tokens alone where the model has no tokenizer.
    ///
    /// # Errors
    /// [`RuntimeError::Text`] where the model has a tokenizer that cannot be used: see [`Generator::of_ids`].
    pub fn new(session: Session, sampler: Sampler) -> Result<Generator, RuntimeError> {
        let tokenizer = session.model().tokenizer()?.cloned();
        Ok(Generator { tokenizer, ..Generator::of_ids(session, sampler) })
    }

    /// A generator of tokens alone, without text.
    pub fn of_ids(session: Session, sampler: Sampler) -> Generator {
        let text = AnswerText::default();
        Generator { session, sampler, tokenizer: None, ongoing: None, text, last: None }
    }

    /// Begins to generate after `ids`, the tokens of the whole text so far. Those first tokens that the session has run
    /// already are kept, as many as possible; the others run before this returns. They are at least one, unless the session
    /// has run exactly this text and has [all logits](Session::last_logits) after it. Where running is interrupted, nothing
    /// is generated.
    ///
    /// # Errors
    /// As [`Session::prefill`]; the session then holds the prefix that it had in common with `ids`.
    /// [`RuntimeError::Input`] where there are stop texts but no tokenizer.
    pub fn begin(&mut self, ids: &[u32], options: GenerateOptions) -> Result<(), RuntimeError> {
        self.begin_with(ids, options, None)
    }

    /// As [`Generator::begin`], for an answer that a guide accompanies: only tokens that it allows are chosen.
    ///
    /// # Errors
    /// As [`Generator::begin`], and [`RuntimeError::Guide`] where the guide gives up.
    pub fn begin_guided(
        &mut self,
        ids: &[u32],
        options: GenerateOptions,
        guide: Box<dyn Guide>,
    ) -> Result<(), RuntimeError> {
        self.begin_with(ids, options, Some(guide))
    }

    fn begin_with(
        &mut self,
        ids: &[u32],
        options: GenerateOptions,
        guide: Option<Box<dyn Guide>>,
    ) -> Result<(), RuntimeError> {
        self.end();
        if self.tokenizer.is_none() && !options.stop_texts.is_empty() {
            return Err(RuntimeError::Input("without a tokenizer there are no texts to stop at".into()));
        }
        let held = self.session.tokens();
        let known =
            if held == ids && has_all_logits(&self.session) { ids.len() } else { shared_prefix(held, ids) };
        self.session.truncate(known);
        self.text = AnswerText::after(self.tokenizer.clone(), ids, &options.stop_texts);
        self.last = None;
        let (session, sampler) = (&mut self.session, &mut self.sampler);
        self.ongoing = Some(Ongoing::begin(session, &ids[known..], sampler, options, guide)?);
        Ok(())
    }

    /// Generates no more tokens, because the caller wants none. The iterator still returns the text that is held back, if
    /// there is any, and then `None`.
    pub fn interrupt(&mut self) {
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.stop(Finish::Interrupted);
        }
    }

    /// The result of the last generation, once the iterator has returned `None` or an error. `None` before that.
    pub fn generation(&self) -> Option<&Generation> {
        self.last.as_ref()
    }

    /// The part of `text` that stands before the first stop text. `text` is the whole text of an answer.
    pub fn before_stop<'a>(&self, text: &'a str) -> &'a str {
        self.text.before_stop(text)
    }

    /// Whether the pieces have text.
    pub fn has_text(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// The session. During a generation it may have run some tokens more than were returned.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The session, to be changed. The current generation ends.
    pub fn session_mut(&mut self) -> &mut Session {
        self.end();
        &mut self.session
    }

    /// The session. The current generation ends.
    pub fn into_session(mut self) -> Session {
        self.end();
        self.session
    }

    /// The sampler, which chooses the tokens.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// Replaces the sampler from the next token on.
    pub fn set_sampler(&mut self, sampler: Sampler) {
        self.sampler = sampler;
    }

    /// Ends the current generation, and leaves the session as it must be between generations.
    fn end(&mut self) {
        if let Some(mut ongoing) = self.ongoing.take() {
            ongoing.end(&mut self.session);
            self.last = Some(ongoing.generation);
        }
    }

    /// The next token with its text, or the text that is left at the end.
    fn piece(&mut self) -> Result<Option<Piece>, RuntimeError> {
        let Some(ongoing) = &mut self.ongoing else { return Ok(None) };
        let id = ongoing.next(&mut self.session, &mut self.sampler)?;
        let text = match id {
            Some(id) => self.text.push(id, |_| false).map(|(text, _)| text),
            None => self.text.finish(),
        };
        let text = text.map_err(|source: TextError| {
            let path = self.session.model().path().to_owned();
            RuntimeError::Text { path, source }
        })?;
        if self.text.stopped_at().is_some() {
            ongoing.stop(Finish::Stop);
        }
        if id.is_some() {
            return Ok(Some(Piece { id, text }));
        }
        self.end();
        Ok((!text.is_empty()).then_some(Piece { id, text }))
    }
}

impl Iterator for Generator {
    type Item = Result<Piece, RuntimeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.piece();
        if piece.is_err() {
            self.end();
        }
        piece.transpose()
    }
}

/// The state of a generation that has not ended. It does not own the session and the sampler, which each call receives.
struct Ongoing {
    options: GenerateOptions,
    /// The whole text, as the sampler sees it. It includes the last token, which the session has not run yet.
    history: Vec<u32>,
    guided: Guided,
    drafts: Option<Drafts>,
    /// The drafted tokens of the last pass, which ran after the last token that was chosen.
    drafted: Vec<u32>,
    /// How many rows the last pass ran.
    ran: usize,
    /// The row from whose logits the next token is chosen; `ran` where another pass must run first.
    row: usize,
    /// When the last pass began, and how many tokens the text had then. `None` before the first pass after the prompt.
    pass: Option<(Instant, usize)>,
    started: Instant,
    of_prompt: Option<Profile>,
    ended: bool,
    generation: Generation,
}

impl Ongoing {
    fn begin(
        session: &mut Session,
        prompt: &[u32],
        sampler: &mut Sampler,
        options: GenerateOptions,
        guide: Option<Box<dyn Guide>>,
    ) -> Result<Ongoing, RuntimeError> {
        let start = Instant::now();
        if options.draft {
            session.let_block_follow();
        }
        let history = [session.tokens(), prompt].concat();
        sampler.begin(history.len());
        let mut guided = Guided::new(guide);
        guided.look_ahead(&mut Vec::new())?;
        let requests = guided.asks(sampler.asks(&history, &[], vocab(session)));
        let advanced = advance(session, prompt, &requests);
        let prefill = start.elapsed();
        let interrupted = matches!(advanced, Err(RuntimeError::Interrupted));
        if !interrupted {
            advanced?;
        }
        let of_prompt = session.profile();
        if of_prompt.is_some() {
            session.start_profile();
        }
        let mut ongoing = Ongoing {
            guided,
            drafts: options.draft.then(|| Drafts::new(session.model().has_draft_block())),
            drafted: Vec::new(),
            ran: 1,
            row: 0,
            pass: None,
            started: Instant::now(),
            of_prompt,
            ended: false,
            generation: Generation {
                ids: Vec::new(),
                finish: Finish::Length,
                prompt: prompt.len(),
                prefill,
                decode: Duration::ZERO,
                drafted: 0,
                accepted: 0,
                profiles: None,
            },
            history,
            options,
        };
        if interrupted {
            // The session has not run the prompt, so the text ends where the session does.
            ongoing.history.truncate(session.position());
            ongoing.stop(Finish::Interrupted);
        }
        Ok(ongoing)
    }

    fn stop(&mut self, finish: Finish) {
        if !self.ended {
            self.generation.finish = finish;
            self.ended = true;
        }
    }

    /// The next token; `None` where the generation has ended.
    fn next(&mut self, session: &mut Session, sampler: &mut Sampler) -> Result<Option<u32>, RuntimeError> {
        if self.generation.ids.len() == self.options.max_new {
            self.stop(Finish::Length);
        }
        if !self.ended && self.row == self.ran {
            self.pass(session, sampler)?;
        }
        if !self.ended && self.guided.ends(self.row) {
            self.stop(Finish::Stop);
        }
        if self.ended {
            return Ok(None);
        }
        let allowed = self.guided.allowed(self.row);
        let chosen = session.logits(self.row);
        let chosen = chosen.and_then(|logits| sampler.choose_among(logits, &self.history, allowed));
        let id = chosen.ok_or(RuntimeError::Suppressed { tokens: self.history.len() })?;
        self.guided.accept(id)?;
        if !self.options.ignore_eos && self.options.stop_ids.contains(&id) {
            self.stop(Finish::Stop);
            return Ok(None);
        }
        self.generation.ids.push(id);
        self.history.push(id);
        let right = self.drafted.get(self.row) == Some(&id);
        if right && self.generation.ids.len() < self.options.max_new {
            self.generation.accepted += 1;
            self.row += 1;
        } else {
            self.row = self.ran;
        }
        Ok(Some(id))
    }

    /// Runs the last token, and the tokens that are drafted after it.
    fn pass(&mut self, session: &mut Session, sampler: &mut Sampler) -> Result<(), RuntimeError> {
        // What ran after the last accepted draft is taken back.
        session.truncate(self.history.len() - 1);
        if session.position() == session.context_length() {
            self.stop(Finish::Context);
            return Ok(());
        }
        if let (Some(drafts), Some((since, before))) = (&mut self.drafts, self.pass) {
            drafts.learn(self.drafted.len(), self.history.len() - before, 1, since.elapsed());
        }
        self.pass = Some((Instant::now(), self.history.len()));
        let last = self.history[self.history.len() - 1];
        match self.draft(session, last) {
            Err(RuntimeError::Interrupted) => {
                self.stop(Finish::Interrupted);
                return Ok(());
            }
            drafted => self.drafted = drafted?,
        }
        self.guided.look_ahead(&mut self.drafted)?;
        self.generation.drafted += self.drafted.len();
        let request = sampler.asks(&self.history, &self.drafted, vocab(session));
        let requests = self.guided.asks(request);
        match session.advance_drafted(last, &self.drafted, &requests) {
            Err(RuntimeError::Interrupted) => self.stop(Finish::Interrupted),
            ran => (self.ran, self.row) = (ran?, 0),
        }
        Ok(())
    }

    /// Tokens that may come after `last`.
    fn draft(&mut self, session: &mut Session, last: u32) -> Result<Vec<u32>, RuntimeError> {
        let Some(drafts) = &mut self.drafts else { return Ok(Vec::new()) };
        let room = session.context_length() - session.position() - 1;
        let left = self.options.max_new - self.generation.ids.len() - 1;
        let most = room.min(left).min(session.chunk() - 1).min(draft::MOST);
        drafts.draft(&self.history, most, |count| session.draft(last, count))
    }

    /// Takes back the drafts that were not accepted. The session then ends before the last token, which did not have to
    /// run; but where a stop id was chosen after that token, it has run and stays.
    fn end(&mut self, session: &mut Session) {
        self.stop(Finish::Interrupted);
        let run = match self.generation.finish {
            Finish::Stop if self.row < self.ran => self.history.len(),
            _ => self.history.len() - usize::from(!self.generation.ids.is_empty()),
        };
        session.truncate(run);
        self.generation.decode = self.started.elapsed();
        let profiles = self.of_prompt.take().zip(session.profile());
        self.generation.profiles = profiles.map(|(prompt, decode)| [prompt, decode]);
    }
}

/// Runs a prompt. Where it is empty, the session has the logits after its last token. A recurrent state is kept shortly
/// before its end, because the next prompt of a conversation usually repeats this one but for the last tokens, which open
/// the answer.
fn advance(session: &mut Session, prompt: &[u32], request: &[LogitsRequest]) -> Result<(), RuntimeError> {
    if prompt.is_empty() && has_all_logits(session) {
        return Ok(());
    }
    let start = session.position();
    let before = prompt.len().saturating_sub(OPENING);
    if session.model().state_bytes() > 0 && before > OPENING {
        session.advance(&prompt[..before], &[])?;
        session.keep();
        let rest = session.advance(&prompt[before..], request);
        if rest.is_err() {
            session.truncate(start);
        }
        return rest;
    }
    session.advance(prompt, request)
}

/// Whether the session has all logits after its last token, in the row from which a generation chooses its first token.
fn has_all_logits(session: &Session) -> bool {
    session.last_row() == Some(0) && matches!(session.last_logits(), Some(Logits::All(_)))
}

fn vocab(session: &Session) -> usize {
    session.model().manifest().hyperparameters.vocab_size as usize
}
