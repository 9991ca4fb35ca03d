//! Sessions and samplers: one text, its logits, its continuation.

use crate::failure::{Failure, invalid};
use crate::model::{Opened, hold, is_busy};
use crate::options::Generation;
use crate::types::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use trit_runtime::generate::{Finish, GenerateOptions, Generator};
use trit_runtime::sample::Sampler;
use trit_runtime::text::conversation::shared_prefix;
use trit_runtime::{Logits, RuntimeError};

/// What errors call a session.
const SESSION: &str = "session";

/// One text on an open bundle.
pub struct Session {
    opened: Arc<Opened>,
    /// Set while another thread wants calls to end.
    stop: Arc<AtomicBool>,
    shared: Mutex<Text>,
}

/// What one call at a time has.
struct Text {
    /// Nothing during a generation, and after a defect in one.
    session: Option<trit_runtime::Session>,
    /// Tokens of the text that have not run yet: they need not before the text goes on.
    unrun: Vec<u32>,
}

impl Text {
    fn session(&mut self) -> Result<&mut trit_runtime::Session, Failure> {
        self.session.as_mut().ok_or_else(|| Failure::broken(SESSION))
    }

    fn ids(&mut self) -> Result<Vec<u32>, Failure> {
        let ran = self.session()?.tokens().to_vec();
        Ok([&ran[..], &self.unrun].concat())
    }

    fn len(&mut self) -> Result<usize, Failure> {
        Ok(self.session()?.position() + self.unrun.len())
    }

    /// Forgets all but the first `position` tokens.
    fn truncate(&mut self, position: usize) -> Result<(), Failure> {
        let ran = self.session()?.position();
        self.unrun.truncate(position.saturating_sub(ran));
        self.session()?.truncate(position);
        Ok(())
    }

    /// Runs what has not run, and then `ids`.
    fn append(&mut self, ids: &[u32]) -> Result<(), Failure> {
        let all = [&self.unrun[..], ids].concat();
        self.session()?.prefill(&all)?;
        self.unrun.clear();
        Ok(())
    }

    /// The logits after the last token.
    fn logits(&mut self) -> Result<&[f32], Failure> {
        let ran = self.unrun.is_empty();
        match self.session()?.last_logits() {
            Some(Logits::All(logits)) if ran => Ok(logits),
            _ => Err(Failure::new(
                trit_status::TRIT_NO_LOGITS,
                "the session has no logits after its last token: append a token, or take the last back and append it again".into(),
            )),
        }
    }
}

/// How an answer went: the result, and why it failed, if it did. An answer that failed has the tokens that came before.
pub struct Decoded {
    /// What the caller is told.
    pub result: trit_result,
    /// Why it failed.
    pub failure: Option<Failure>,
}

impl Session {
    /// An empty one.
    ///
    /// # Errors
    /// As [`Opened::engine`] and [`trit_runtime::Session::on`].
    pub fn new(opened: &Arc<Opened>) -> Result<Session, Failure> {
        let session = trit_runtime::Session::on(opened.engine()?.clone(), opened.sequence_options())?;
        Ok(Session::of(opened.clone(), session, Vec::new()))
    }

    fn of(opened: Arc<Opened>, mut session: trit_runtime::Session, unrun: Vec<u32>) -> Session {
        let stop = Arc::<AtomicBool>::default();
        session.interrupt_by(stop.clone());
        Session { opened, stop, shared: Mutex::new(Text { session: Some(session), unrun }) }
    }

    /// Lets calls end, or no longer.
    pub fn abort(&self, stop: bool) {
        self.stop.store(stop, Ordering::Relaxed);
    }

    /// Whether a call uses it.
    pub fn is_busy(&self) -> bool {
        is_busy(&self.shared)
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// As [`trit_runtime::Session::prefill`]; the text stays as it was.
    pub fn append(&self, ids: &[u32]) -> Result<(), Failure> {
        let mut text = hold(SESSION, &self.shared)?;
        self.opened.engine()?;
        self.opened.check_ids(ids)?;
        if ids.is_empty() {
            return Err(invalid("count is 0: there are no tokens to run; pass at least one".into()));
        }
        text.append(ids)
    }

    /// Makes the text these tokens, and gives how many of them need not run because the text begins with them.
    ///
    /// # Errors
    /// As [`Session::append`]; what both texts begin with is left.
    pub fn set(&self, ids: &[u32]) -> Result<usize, Failure> {
        let mut text = hold(SESSION, &self.shared)?;
        self.opened.engine()?;
        self.opened.check_ids(ids)?;
        if ids.is_empty() {
            return Err(invalid(
                "count is 0: there are no tokens to run; pass at least one, or truncate".into(),
            ));
        }
        let known = match text.ids()? == ids && text.logits().is_ok() {
            true => return Ok(ids.len()),
            false => shared_prefix(text.session()?.tokens(), ids),
        };
        text.truncate(known)?;
        text.append(&ids[known..])?;
        Ok(known)
    }

    /// A new session with the first `position` tokens of this one.
    ///
    /// # Errors
    /// Where the text has fewer, and where another call has the session.
    pub fn fork(&self, position: usize) -> Result<Session, Failure> {
        let mut text = hold(SESSION, &self.shared)?;
        check_position(position, text.len()?)?;
        let fork = text.session()?.fork(position);
        let unrun = text.unrun[..position.saturating_sub(fork.position())].to_vec();
        Ok(Session::of(self.opened.clone(), fork, unrun))
    }

    /// Forgets all but the first `position` tokens.
    ///
    /// # Errors
    /// Where the text has fewer, and where another call has the session.
    pub fn truncate(&self, position: usize) -> Result<(), Failure> {
        let mut text = hold(SESSION, &self.shared)?;
        check_position(position, text.len()?)?;
        text.truncate(position)
    }

    /// The tokens.
    ///
    /// # Errors
    /// Where another call has the session.
    pub fn ids(&self) -> Result<Vec<u32>, Failure> {
        hold(SESSION, &self.shared)?.ids()
    }

    /// How many tokens there are.
    ///
    /// # Errors
    /// Where another call has the session.
    pub fn len(&self) -> Result<usize, Failure> {
        hold(SESSION, &self.shared)?.len()
    }

    /// Hands the logits after the last token to `give`.
    ///
    /// # Errors
    /// Where there are none, and where another call has the session.
    pub fn logits(&self, give: impl FnOnce(&[f32]) -> Result<(), Failure>) -> Result<(), Failure> {
        give(hold(SESSION, &self.shared)?.logits()?)
    }

    /// Chooses a token after the text. `changed` are logits to choose by instead of the session's.
    ///
    /// # Errors
    /// Where there are no logits or not as many as tokens, where every token is forbidden, where another call has the session or the
    /// sampler.
    pub fn choose(&self, sampler: &AnswerSampler, changed: Option<&[f32]>) -> Result<u32, Failure> {
        let mut text = hold(SESSION, &self.shared)?;
        let mut choosing = hold("sampler", &sampler.shared)?;
        let vocab = self.opened.vocab_size() as usize;
        if let Some(logits) = changed.filter(|logits| logits.len() != vocab) {
            return Err(invalid(format!(
                "logits are {}; {vocab} are expected, one for each token",
                logits.len()
            )));
        }
        let history = text.ids()?;
        let Choosing { sampler, begin } = &mut *choosing;
        if begin.is_none_or(|begin| begin > history.len()) {
            *begin = Some(history.len());
            sampler.begin(history.len());
        }
        let logits = match changed {
            Some(logits) => logits,
            None => text.logits()?,
        };
        let chosen = sampler.choose(Logits::All(logits), &history);
        Ok(chosen.ok_or(RuntimeError::Suppressed { tokens: history.len() })?)
    }

    /// Continues the text, which gets the new tokens. `each` is given them with their text, and ends the answer by `false`.
    ///
    /// # Errors
    /// Where nothing can be generated: another call has the session, the text is empty, stop texts have no tokenizer.
    pub fn decode(
        &self,
        asked: &Generation,
        each: &mut dyn FnMut(Option<u32>, &str) -> bool,
    ) -> Result<Decoded, Failure> {
        let mut text = hold(SESSION, &self.shared)?;
        self.opened.engine()?;
        let before = text.ids()?;
        if before.is_empty() {
            return Err(invalid(
                "the session is empty, and there is nothing to continue: append a prompt".into(),
            ));
        }
        let sampler = self.opened.sampler(asked);
        let options = GenerateOptions {
            max_new: asked.max_tokens,
            stop_texts: asked.stop_texts.clone(),
            ignore_eos: asked.ignore_stop_ids,
            draft: asked.draft,
            ..GenerateOptions::of(self.opened.model())
        };
        // Whether there is one that can be used is known before the session is taken.
        let has_text = self.opened.model().tokenizer()?.is_some();
        if !has_text && !asked.stop_texts.is_empty() {
            return Err(Failure::unsupported(
                "the bundle has no tokenizer, so that no text can end an answer".into(),
            ));
        }
        let session = text.session.take().ok_or_else(|| Failure::broken(SESSION))?;
        let mut generator = Generator::new(session, sampler)?;
        let mut ids = Vec::new();
        let mut error = generator.begin(&before, options).err();
        let mut stopped = false;
        while error.is_none() && !stopped {
            match generator.next() {
                None => break,
                Some(Err(failed)) => error = Some(failed),
                Some(Ok(piece)) => {
                    ids.extend(piece.id);
                    stopped = !each(piece.id, &piece.text);
                    if self.stop.load(Ordering::Relaxed) {
                        generator.interrupt();
                    }
                }
            }
        }
        generator.session_mut();
        let generation = generator.generation().cloned();
        let session = generator.into_session();
        // What the session has not run of the text is kept until it goes on.
        let all = [before, ids.clone()].concat();
        text.unrun = all[session.position().min(all.len())..].to_vec();
        text.session = Some(session);
        let aborted = generation.as_ref().is_some_and(|done| done.finish == Finish::Interrupted) && !stopped;
        if error.is_none() && aborted {
            error = Some(RuntimeError::Interrupted);
        }
        let mut result = trit_result {
            size: size_of::<trit_result>(),
            generated: ids.len(),
            seed: asked.seed,
            finish: match (&error, stopped, generation.as_ref().map(|done| done.finish)) {
                (Some(RuntimeError::Interrupted), ..) => TRIT_FINISH_ABORTED,
                (Some(_), ..) => TRIT_FINISH_ERROR,
                (None, true, _) => TRIT_FINISH_CALLBACK,
                (None, false, Some(Finish::Length)) => TRIT_FINISH_LENGTH,
                (None, false, Some(Finish::Context)) => TRIT_FINISH_CONTEXT,
                (None, false, _) => TRIT_FINISH_STOP,
            },
            ..trit_result::default()
        };
        if let Some(done) = generation {
            (result.prompt_tokens, result.drafted, result.accepted) =
                (done.prompt, done.drafted, done.accepted);
            result.prefill_seconds = done.prefill.as_secs_f64();
            result.decode_seconds = done.decode.as_secs_f64();
        }
        Ok(Decoded { result, failure: error.map(Failure::from) })
    }
}

fn check_position(position: usize, length: usize) -> Result<(), Failure> {
    match position <= length {
        true => Ok(()),
        false => Err(invalid(format!("position is {position}; the session has {length} tokens"))),
    }
}

/// What chooses the tokens of one answer.
pub struct AnswerSampler {
    shared: Mutex<Choosing>,
}

struct Choosing {
    sampler: Sampler,
    /// Where the answer begins, once a token was chosen.
    begin: Option<usize>,
}

impl Opened {
    /// What chooses tokens of this model.
    fn sampler(&self, asked: &Generation) -> Sampler {
        let defaults = &self.model().manifest().text.sampling;
        Sampler::with_rules(asked.sampling.over(defaults, asked.seed), &defaults.rules)
    }
}

impl AnswerSampler {
    /// For an answer of this model.
    pub fn new(opened: &Opened, asked: &Generation) -> AnswerSampler {
        AnswerSampler { shared: Mutex::new(Choosing { sampler: opened.sampler(asked), begin: None }) }
    }

    /// Whether a call uses it.
    pub fn is_busy(&self) -> bool {
        is_busy(&self.shared)
    }
}
