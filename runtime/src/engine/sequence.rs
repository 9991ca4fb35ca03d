//! One sequence: its tokens so far, its KV cache, and the logits that the last step was asked for.

use super::follower::Follower;
use super::kv::{KvCache, KvType};
use super::live::LiveBytes;
use super::logits::{Logits, OwnLogits};
use super::state::{State, StateType};
use crate::RuntimeError;
use crate::load::Model;
use std::sync::Arc;

/// Options of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct SequenceOptions {
    /// Most tokens of the sequence; by default the model's context length.
    pub context: Option<usize>,
    /// Element type of the KV cache; see [`Sequence::widened`].
    pub kv: KvType,
    /// Element type of the matrices of the recurrent state, for models that have one.
    pub state: StateType,
    /// Most [snapshots](Sequence::keep) of the recurrent state, for models that have one.
    pub snapshots: usize,
}

impl Default for SequenceOptions {
    fn default() -> SequenceOptions {
        SequenceOptions { context: None, kv: KvType::default(), state: StateType::default(), snapshots: 2 }
    }
}

/// Tokens, together with the keys and values that are needed to continue them. A sequence runs in steps of an
/// [`Engine`](super::Engine).
///
/// An empty sequence takes hardly any memory. Its cache grows by pages of 256 positions, which a [fork](Sequence::fork)
/// shares.
pub struct Sequence {
    model: Arc<Model>,
    pub(super) tokens: Vec<u32>,
    pub(super) cache: KvCache,
    /// The recurrent state, where the plan has one.
    pub(super) state: Option<State>,
    context: usize,
    pub(super) widened: Option<usize>,
    /// What the block that drafts tokens knows of the text, where it follows it.
    pub(super) follower: Option<Box<Follower>>,
    /// The logits of the last step, and how many of these entries are in use.
    logits: (Vec<OwnLogits>, usize),
}

impl Sequence {
    /// An empty sequence for engines of `model`.
    ///
    /// # Errors
    /// [`RuntimeError::Context`] where the context is 0 or longer than the model's.
    pub fn new(model: Arc<Model>, options: SequenceOptions) -> Result<Sequence, RuntimeError> {
        Sequence::counted(model, options, &LiveBytes::default())
    }

    /// As [`Sequence::new`], with memory that is counted.
    pub(super) fn counted(
        model: Arc<Model>,
        options: SequenceOptions,
        live: &LiveBytes,
    ) -> Result<Sequence, RuntimeError> {
        let manifest = model.manifest();
        let longest = manifest.hyperparameters.context_length as usize;
        let context = options.context.unwrap_or(longest);
        if context == 0 || context > longest {
            return Err(RuntimeError::Context { asked: context, longest });
        }
        Ok(Sequence {
            tokens: Vec::new(),
            cache: KvCache::new(&manifest.plan.kv, options.kv, live.clone()),
            state: model
                .states(options.state)
                .map(|layout| State::new(layout.clone(), options.snapshots, live.clone())),
            context,
            widened: None,
            follower: None,
            logits: (Vec::new(), 0),
            model,
        })
    }

    /// A new sequence that begins with the first `position` tokens of this one, or with all where there are fewer. It
    /// shares their keys and values, and neither sequence sees what the other appends. Nothing is copied until one of
    /// them continues; then the last shared page is copied, which both would write to.
    pub fn fork(&self, position: usize) -> Sequence {
        let position = position.min(self.position());
        Sequence {
            model: self.model.clone(),
            tokens: self.tokens[..position].to_vec(),
            cache: self.cache.fork(position),
            state: self.state.as_ref().map(|state| state.fork(position)),
            context: self.context,
            widened: self.widened,
            follower: self.follower.as_ref().map(|follower| Box::new(follower.fork(position))),
            logits: (Vec::new(), 0),
        }
    }

    /// Forgets all but the first `position` tokens. A shorter sequence stays as it is. The memory is kept for later
    /// tokens.
    ///
    /// A recurrent state goes back to the nearest [snapshot](Sequence::keep); the next step then runs the tokens after
    /// it again. Drafted tokens are taken back at no cost.
    pub fn truncate(&mut self, position: usize) {
        if position < self.tokens.len() {
            self.tokens.truncate(position);
            if let Some(state) = &mut self.state {
                state.truncate(position);
            }
            if let Some(follower) = &mut self.follower {
                follower.truncate(position);
            }
        }
    }

    /// Keeps a snapshot of the recurrent state, so that [`Sequence::truncate`] and [`Sequence::fork`] can go back to the
    /// present position at no cost. A snapshot takes as much memory as the state, from the next step on. The oldest goes
    /// where there are more than [`SequenceOptions::snapshots`]. Models without a recurrent state need none.
    pub fn keep(&mut self) {
        if let Some(state) = &mut self.state {
            state.keep();
        }
    }

    /// Bytes of the recurrent state and its snapshots, shared ones included; 0 for models without one.
    pub fn state_bytes(&self) -> usize {
        self.state.as_ref().map_or(0, State::bytes)
    }

    /// Bytes that this sequence would take from the system for `count` more tokens.
    pub(crate) fn missing(&self, count: usize) -> usize {
        let start = self.position();
        let followed = self.follower.as_ref().map_or(0, |follower| follower.missing(count));
        self.cache.missing(start + count, start) + self.state.as_ref().map_or(0, State::missing) + followed
    }

    /// How many of the first `position` tokens need not run again in a [fork](Sequence::fork) at `position`.
    pub(crate) fn resumes_at(&self, position: usize) -> usize {
        let position = position.min(self.position());
        self.state.as_ref().map_or(position, |state| state.resumes_at(position))
    }

    /// Prepares for `count` more tokens: their positions in the cache, and a recurrent state of this sequence alone.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused.
    pub(super) fn reserve(&mut self, count: usize) -> Result<(), RuntimeError> {
        let start = self.position();
        self.cache.reserve(start + count, start)?;
        self.state.as_mut().map_or(Ok(()), State::own)
    }

    /// The tokens that the recurrent state has not seen, although they are part of the text.
    pub(super) fn unseen(&self) -> &[u32] {
        self.state.as_ref().map_or(&[], |state| &self.tokens[state.position()..])
    }

    /// Appends tokens of which the first `ran` have run as rows of a pass of `count`, of which `kept` changed the
    /// recurrent state. If only some of the rows count, the state is lost.
    pub(super) fn append(&mut self, ids: &[u32], count: usize, kept: usize) {
        self.tokens.extend_from_slice(ids);
        if let Some(state) = &mut self.state {
            if ids.len() == count {
                state.ran(kept, count - kept);
            } else {
                state.lose();
            }
        }
    }

    /// Gives up the recurrent state after a pass that failed. The tokens that it has not seen then run again.
    pub(super) fn lose_state(&mut self) {
        if let Some(state) = &mut self.state {
            state.lose();
        }
    }

    /// The model it belongs to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How many tokens the sequence has.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens themselves.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Most tokens the sequence can have.
    pub fn context_length(&self) -> usize {
        self.context
    }

    /// Options with which a new sequence computes as this one does. Their KV cache is of the type that this one has now.
    pub(crate) fn options(&self) -> SequenceOptions {
        let state = self.state.as_ref().map_or_else(StateType::default, State::kind);
        SequenceOptions { context: Some(self.context), kv: self.kv(), state, ..SequenceOptions::default() }
    }

    /// The options that the sequence was made with.
    pub(crate) fn asked(&self) -> SequenceOptions {
        let kv = if self.widened.is_some() { KvType::F16 } else { self.kv() };
        let snapshots = self.state.as_ref().map_or(SequenceOptions::default().snapshots, State::most);
        SequenceOptions { kv, snapshots, ..self.options() }
    }

    /// Bytes of address space for its keys and values, shared pages included. The system provides the memory as it is
    /// filled.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Element type of the KV cache: the one that was asked for, or f32 after [`Sequence::widened`].
    pub fn kv(&self) -> KvType {
        self.cache.kv()
    }

    /// The position from which on the KV cache stores f32, because f16 could not hold the keys or values there. `None`
    /// while the cache has the type that was asked for.
    pub fn widened(&self) -> Option<usize> {
        self.widened
    }

    /// The logits that answer request `row` of the last step; `None` where it had no such request.
    pub fn logits(&self, row: usize) -> Option<Logits<'_>> {
        let (rows, len) = &self.logits;
        rows[..*len].get(row).map(OwnLogits::get)
    }

    /// Converts the cache to f32 for the next position and all later ones.
    pub(super) fn widen(&mut self) -> Result<(), RuntimeError> {
        let position = self.position();
        self.cache.widen(position)?;
        self.widened.get_or_insert(position);
        Ok(())
    }

    /// Checks that `ids` can be appended: that there are any, that they are of the vocabulary, and that they fit the
    /// context.
    pub(crate) fn check(&self, ids: &[u32]) -> Result<(), RuntimeError> {
        let hyperparameters = &self.model.manifest().hyperparameters;
        let vocab = hyperparameters.vocab_size;
        if ids.is_empty() {
            return Err(RuntimeError::Input("there are no tokens to run; give a prompt".into()));
        }
        if let Some(id) = ids.iter().find(|&&id| id >= vocab) {
            return Err(RuntimeError::Input(format!("token id {id} is outside the vocabulary of {vocab}")));
        }
        let tokens = self.position() + ids.len();
        if tokens > self.context {
            let longest = hyperparameters.context_length as usize;
            return Err(RuntimeError::ContextFull { tokens, context: self.context, longest });
        }
        Ok(())
    }

    /// Forgets the logits of the last step.
    pub(super) fn forget_logits(&mut self) {
        self.logits.1 = 0;
    }

    /// Keeps the logits that answer the next request.
    pub(super) fn keep_logits(&mut self, logits: Logits) {
        let (rows, len) = &mut self.logits;
        if rows.len() == *len {
            rows.push(OwnLogits::default());
        }
        rows[*len].set(logits);
        *len += 1;
    }
}
