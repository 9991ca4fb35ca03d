//! One sequence of tokens: its text so far, its KV cache, and the logits that were asked for last.

use super::kv::{KvCache, KvType};
use super::logits::{Logits, OwnLogits};
use crate::RuntimeError;
use crate::load::Model;
use std::sync::Arc;

/// What a sequence is to be like.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceOptions {
    /// Most tokens; by default what the model was made for.
    pub context: Option<usize>,
    /// Element type of the KV cache; see [`Sequence::widened`].
    pub kv: KvType,
}

/// Tokens, with the keys and values that continuing them needs. It runs in steps of an [`Engine`](super::Engine).
///
/// An empty sequence takes no memory to speak of. Its cache grows by pages of 256 positions, and a [fork](Sequence::fork)
/// shares them.
pub struct Sequence {
    model: Arc<Model>,
    pub(super) tokens: Vec<u32>,
    pub(super) cache: KvCache,
    context: usize,
    widened: Option<usize>,
    /// Of the last step, and how many of them there are.
    logits: (Vec<OwnLogits>, usize),
}

impl Sequence {
    /// An empty sequence for engines of `model`.
    ///
    /// # Errors
    /// [`RuntimeError::Context`] where the model takes no context of that length.
    pub fn new(model: Arc<Model>, options: SequenceOptions) -> Result<Sequence, RuntimeError> {
        let manifest = model.manifest();
        let longest = manifest.hyperparameters.context_length as usize;
        let context = options.context.unwrap_or(longest);
        if context == 0 || context > longest {
            return Err(RuntimeError::Context { asked: context, longest });
        }
        Ok(Sequence {
            tokens: Vec::new(),
            cache: KvCache::new(&manifest.plan.kv, options.kv),
            context,
            widened: None,
            logits: (Vec::new(), 0),
            model,
        })
    }

    /// A sequence that begins with the first `position` tokens of this one, or all where there are fewer. It shares their keys
    /// and values: neither sequence sees what the other appends, and nothing is copied but, when one of them goes on, the page
    /// that both would write to.
    pub fn fork(&self, position: usize) -> Sequence {
        let position = position.min(self.position());
        Sequence {
            model: self.model.clone(),
            tokens: self.tokens[..position].to_vec(),
            cache: self.cache.fork(position),
            context: self.context,
            widened: self.widened,
            logits: (Vec::new(), 0),
        }
    }

    /// Forgets all but the first `position` tokens; shorter sequences stay as they are. Its memory is kept for what follows.
    pub fn truncate(&mut self, position: usize) {
        self.tokens.truncate(position);
    }

    /// The model it belongs to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens so far.
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

    /// Bytes of address space of its keys and values, shared pages included. The system commits them as they are filled.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Element type of the KV cache: the one that was asked for, or f32 after [`Sequence::widened`].
    pub fn kv(&self) -> KvType {
        self.cache.kv()
    }

    /// The position from which on the KV cache is one of f32, because f16 cannot hold the keys or values there.
    pub fn widened(&self) -> Option<usize> {
        self.widened
    }

    /// What the last step was asked for after its `row`th row that was asked about; `None` where there is no such row.
    pub fn logits(&self, row: usize) -> Option<Logits<'_>> {
        let (rows, len) = &self.logits;
        rows[..*len].get(row).map(OwnLogits::get)
    }

    /// Goes on with an f32 cache from the next position on.
    pub(super) fn widen(&mut self) -> Result<(), RuntimeError> {
        let position = self.position();
        self.cache.widen(position)?;
        self.widened.get_or_insert(position);
        Ok(())
    }

    /// Whether tokens can be appended.
    pub(super) fn check(&self, ids: &[u32]) -> Result<(), RuntimeError> {
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

    /// Keeps the logits of the next row.
    pub(super) fn keep_logits(&mut self, logits: Logits) {
        let (rows, len) = &mut self.logits;
        if rows.len() == *len {
            rows.push(OwnLogits::default());
        }
        rows[*len].set(logits);
        *len += 1;
    }
}
