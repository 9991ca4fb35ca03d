//! One request: its text so far, and how it goes on.

use super::guided::{Guided, Next};
use super::request::{Chosen, Ended, Event, Request, RequestError};
use crate::engine::{Logits, LogitsRequest, Sequence};
use crate::generate::Finish;
use crate::generate::draft::{self, Drafts};
use crate::{Model, RuntimeError};
use std::cmp::Ordering as Order;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is called with each event of a request.
pub(super) type Receive = Box<dyn FnMut(Event) -> ControlFlow<()> + Send>;

/// A request that has not ended. It waits, or runs with a sequence.
pub(super) struct Job {
    pub number: u64,
    pub user: u64,
    pub arrived: Instant,
    request: Request,
    receive: Receive,
    cancelled: Arc<AtomicBool>,
    /// The text, answer included. The last token has not run yet, once there is an answer.
    history: Vec<u32>,
    /// Tokens of the prompt that did not have to run.
    cached: usize,
    generated: usize,
    drafts: Option<Drafts>,
    /// Its guide, from when it gets a slot. Nothing is drafted for answers that have one.
    guided: Option<Guided>,
    /// Tokens drafted so far, and how many were accepted.
    drafted: (usize, usize),
    began: Option<Instant>,
    first: Option<Instant>,
    ended: bool,
}

/// How a step went for a job.
pub(super) enum Outcome {
    Continues,
    Ended,
}

/// Whether the next token of an answer may be chosen.
pub(super) enum Ahead {
    Ready,
    /// Its guide is not ready.
    Waits,
    /// Nothing may come: the answer ends.
    Over,
}

impl Job {
    pub fn new(number: u64, mut request: Request, receive: Receive, cancelled: Arc<AtomicBool>) -> Job {
        let history = std::mem::take(&mut request.ids);
        request.sampler.begin(history.len());
        Job {
            number,
            user: request.user,
            arrived: Instant::now(),
            request,
            receive,
            cancelled,
            history,
            cached: 0,
            generated: 0,
            drafts: None,
            guided: None,
            drafted: (0, 0),
            began: None,
            first: None,
            ended: false,
        }
    }

    /// The text so far.
    pub fn history(&self) -> &[u32] {
        &self.history
    }

    pub fn generated(&self) -> usize {
        self.generated
    }

    /// Tokens of the prompt.
    pub fn prompt(&self) -> usize {
        self.history.len() - self.generated
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// When it got a slot for the first time.
    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    fn tell(&mut self, event: Event) {
        if (self.receive)(event).is_break() {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// It gets a slot. `cached` tokens of its text need not run.
    pub fn begin(&mut self, cached: usize, drafts: Option<Drafts>) {
        // One that was preempted has begun before.
        if self.began.is_none() {
            self.began = Some(Instant::now());
            self.cached = cached;
            self.drafts = drafts.filter(|_| self.request.guide.is_none());
            self.tell(Event::Began { cached });
        }
    }

    /// Whether the answer's next token may be chosen: what its guide allows is known, or it has none. Waits until
    /// `deadline` for it.
    ///
    /// # Errors
    /// [`RequestError::Guide`].
    pub fn look_ahead(&mut self, deadline: Instant) -> Result<Ahead, RequestError> {
        if let Some(guide) = self.request.guide.take() {
            self.guided = Some(Guided::new(guide)?);
        }
        let Some(guided) = &mut self.guided else { return Ok(Ahead::Ready) };
        Ok(match guided.next(deadline)? {
            Next::Unknown => Ahead::Waits,
            Next::Some => Ahead::Ready,
            Next::Nothing => Ahead::Over,
        })
    }

    /// Tokens that may come after the text, at most `most`; see [`Drafts::draft`].
    ///
    /// # Errors
    /// Those of `guess`.
    pub fn draft(
        &mut self,
        most: usize,
        guess: impl FnOnce(usize) -> Result<Vec<u32>, RuntimeError>,
    ) -> Result<Vec<u32>, RuntimeError> {
        let most = most.min(draft::MOST).min((self.request.max_new - self.generated).saturating_sub(1));
        let drafts = self.drafts.as_mut();
        drafts.map_or(Ok(Vec::new()), |drafts| drafts.draft(&self.history, most, guess))
    }

    /// Whether tokens are drafted for its answer.
    pub fn drafts(&self) -> bool {
        self.drafts.is_some()
    }

    /// Learns from a step in which `answers` answers went on and this one by `tokens`, of which `drafted` were drafted.
    pub fn learn(&mut self, drafted: usize, tokens: usize, answers: usize, time: Duration) {
        if let Some(drafts) = &mut self.drafts {
            drafts.learn(drafted, tokens, answers, time);
        }
    }

    /// What is asked of the logits after the text, and after each of the tokens drafted after it.
    pub fn asks(&self, drafted: &[u32], vocab: usize) -> LogitsRequest {
        match self.request.logprobs {
            Some(_) => LogitsRequest::All,
            None => {
                let request = self.request.sampler.asks(&self.history, drafted, vocab);
                match self.guided.as_ref().and_then(Guided::allowed) {
                    Some(allowed) => request.among(allowed),
                    None => request,
                }
            }
        }
    }

    /// Chooses tokens after a step that ran the rest of the text and then `drafted`, of which `rows` rows have logits.
    /// Drafts that were not chosen are taken back from the sequence.
    ///
    /// # Errors
    /// [`RuntimeError::Suppressed`].
    pub fn choose(
        &mut self,
        sequence: &mut Sequence,
        drafted: &[u32],
        rows: usize,
    ) -> Result<Outcome, RequestError> {
        let context = sequence.context_length();
        self.drafted.0 += drafted.len();
        for row in 0..rows {
            if self.generated == self.request.max_new {
                return Ok(self.end(Finish::Length));
            }
            let logits = sequence.logits(row).expect("as many rows were asked for");
            let allowed = self.guided.as_ref().and_then(Guided::allowed).map(|allowed| &**allowed);
            let id = self.request.sampler.choose_among(logits, &self.history, allowed);
            let id = id.ok_or(RuntimeError::Suppressed { tokens: self.history.len() })?;
            if !self.request.ignore_eos && self.request.stop_ids.contains(&id) {
                sequence.truncate(self.history.len());
                return Ok(self.end(Finish::Stop));
            }
            if let Some(guided) = &mut self.guided {
                guided.accept(id);
            }
            let chosen = Chosen::describe(id, self.request.logprobs, logits);
            self.first.get_or_insert_with(Instant::now);
            self.generated += 1;
            self.history.push(id);
            self.tell(Event::Token(chosen));
            if drafted.get(row) != Some(&id) {
                break;
            }
            self.drafted.1 += 1;
        }
        sequence.truncate(self.history.len() - 1);
        Ok(if self.generated == self.request.max_new {
            self.end(Finish::Length)
        } else if self.history.len() > context {
            self.end(Finish::Context)
        } else {
            Outcome::Continues
        })
    }

    /// Tokens drafted so far, and how many were accepted.
    pub fn drafted(&self) -> (usize, usize) {
        self.drafted
    }

    /// Ends the request, and tells so.
    pub fn end(&mut self, finish: Finish) -> Outcome {
        let now = Instant::now();
        let began = self.began.unwrap_or(now);
        let first = self.first.unwrap_or(now);
        let ended = Ended {
            finish,
            prompt: self.prompt(),
            cached: self.cached,
            generated: self.generated,
            drafted: self.drafted,
            times: [began - self.arrived, first.saturating_duration_since(began), now - first],
        };
        self.close(Ok(ended));
        Outcome::Ended
    }

    /// Ends the request with an error.
    pub fn fail(&mut self, error: RequestError) {
        self.close(Err(error));
    }

    fn close(&mut self, how: Result<Ended, RequestError>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.tell(Event::Ended(how));
        }
    }
}

impl Drop for Job {
    /// No request is lost without a word, whatever happens to the thread that runs it.
    fn drop(&mut self) {
        self.close(Err(RequestError::Stopped));
    }
}

impl Chosen {
    /// A token that was chosen after these logits, with as many probabilities as were asked for. There are none without all
    /// logits.
    pub fn describe(id: u32, logprobs: Option<usize>, logits: Logits) -> Chosen {
        let (Some(count), Logits::All(logits)) = (logprobs, logits) else {
            return Chosen { id, logprob: None, top: Vec::new() };
        };
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
        let logprob = |logit: f32| (f64::from(logit - max) - sum.ln()) as f32;
        let greater = |a: &u32, b: &u32| -> Order {
            logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b))
        };
        let mut top: Vec<u32> = (0..logits.len() as u32).collect();
        let count = count.min(top.len());
        if count > 0 && count < top.len() {
            top.select_nth_unstable_by(count - 1, greater);
        }
        top.truncate(count);
        top.sort_unstable_by(greater);
        let top = top.into_iter().map(|id| (id, logprob(logits[id as usize]))).collect();
        Chosen { id, logprob: Some(logprob(logits[id as usize])), top }
    }
}

impl Request {
    /// A request with the model's own way to choose tokens and to end, and a random sequence that begins with seed 0.
    pub fn new(model: &Model, ids: Vec<u32>) -> Request {
        let text = &model.manifest().text;
        let options = crate::sample::SamplerOptions::from_defaults(&text.sampling, 0);
        Request {
            ids,
            sampler: crate::sample::Sampler::with_rules(options, &text.sampling.rules),
            max_new: usize::MAX,
            stop_ids: text.stop.clone(),
            ignore_eos: false,
            guide: None,
            logprobs: None,
            user: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_all_logits() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        let sum: f64 = logits.iter().map(|&l: &f32| f64::from(l).exp()).sum();
        let expected = |id: usize| (f64::from(logits[id]).exp() / sum).ln() as f32;
        let chosen = Chosen::describe(0, Some(3), Logits::All(&logits));
        assert!((chosen.logprob.unwrap() - expected(0)).abs() < 1e-6);
        assert_eq!(chosen.top.iter().map(|t| t.0).collect::<Vec<u32>>(), [1, 3, 0]);
        assert!(chosen.top.iter().all(|&(id, logprob)| (logprob - expected(id as usize)).abs() < 1e-6));
        assert_eq!(Chosen::describe(0, Some(9), Logits::All(&logits)).top.len(), 4);
        assert!(Chosen::describe(0, Some(0), Logits::All(&logits)).top.is_empty());
        assert_eq!(Chosen::describe(1, None, Logits::All(&logits)).logprob, None);
    }
}
