//! Guides for answers that follow a grammar: a JSON schema, a regular expression, some texts to choose from, or a context-free
//! grammar.
//!
//! A [`GuideFactory`] knows a model's vocabulary and is made once. It makes a [`Guide`] for each answer: a grammar enters, and
//! the tokens that may come next leave, one set for each token of the answer. Grammars work on the bytes of tokens, so that
//! a token may begin in one part of a grammar and end in another, and a character may lie across several tokens. Every way
//! to cut a text into tokens is allowed; the model decides.
//!
//! Grammars come from anybody. What one may cost is bounded: its text (`grammar`), the time and memory to prepare it and to
//! find out what may come next (`limits`). Preparing one takes up to some tenths of a second, so it does not belong on the
//! scheduler's thread.
//!
//! The library that does it, llguidance, wraps the process's panic hook when the first guide is made. Panics of its own,
//! which become errors, then print nothing; other panics reach the hook that was there before.

mod grammar;
mod vocabulary;

pub use grammar::{Grammar, bound_whitespace};

use crate::generate::guide::{Guide, GuideError, TokenSet};
use crate::load::Model;
use llguidance::api::{ParserLimits, StopReason};
use llguidance::toktrie::TokEnv;
use llguidance::{Matcher, ParserFactory};
use std::sync::Arc;
use trit_text::Tokenizer;

/// Address space for the stack on which a grammar is prepared. Rules refer to rules, and each takes some kilobytes; the
/// system provides the memory as it is used.
const STACK: usize = 512 << 20;

/// What preparing a grammar and following it may cost.
fn limits() -> ParserLimits {
    ParserLimits {
        // The library's own bounds, a few tenths of a second and some megabytes.
        max_items_in_row: 2_000,
        initial_lexer_fuel: 1_000_000,
        max_grammar_size: 500_000,
        // For each token: some 15 milliseconds.
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        // One or two kilobytes each, for every answer. A bounded string takes one for each of its characters.
        max_lexer_states: 32_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// Makes guides for the answers of one model. It is made once, which takes some tenths of a second for a large vocabulary;
/// any number of threads share it.
pub struct GuideFactory {
    parsers: ParserFactory,
    stop: Arc<[u32]>,
    /// The special tokens by what they are called.
    special: Vec<(String, u32)>,
}

impl GuideFactory {
    /// For the answers of a model.
    ///
    /// # Errors
    /// Where the model has no tokenizer that can be used, and as [`GuideFactory::of`].
    pub fn new(model: &Model) -> Result<GuideFactory, GuideError> {
        let tokenizer = model.tokenizer().map_err(|error| GuideError(error.to_string()))?;
        let tokenizer = tokenizer.ok_or_else(|| {
            GuideError("an answer cannot follow a grammar: the model has no tokenizer".to_owned())
        })?;
        let manifest = model.manifest();
        GuideFactory::of(tokenizer, &manifest.text.stop, manifest.hyperparameters.vocab_size)
    }

    /// For a vocabulary of `vocab` tokens. Each of the ids `stop` ends a text.
    ///
    /// # Errors
    /// Where the tokenizer's tokens have no bytes of their own, or there are too many of them.
    pub fn of(tokenizer: &Tokenizer, stop: &[u32], vocab: u32) -> Result<GuideFactory, GuideError> {
        let stop: Arc<[u32]> = stop.iter().copied().filter(|&id| id < vocab).collect();
        let (trie, special) = vocabulary::trie(tokenizer, &stop, vocab)?;
        let environment: TokEnv = Arc::new(vocabulary::Environment(trie));
        let mut parsers =
            ParserFactory::new_simple(&environment).map_err(|error| GuideError(said(&error)))?;
        parsers.set_stderr_log_level(0);
        *parsers.limits_mut() = limits();
        Ok(GuideFactory { parsers, stop, special })
    }

    /// A guide for one answer, which is a text of `grammar` and ends with a stop id.
    ///
    /// With `after` the answer may begin with any text up to and including that one, such as the `</think>` of a model
    /// that thinks first. The grammar begins after it, and after whitespace.
    ///
    /// # Errors
    /// What is wrong with the grammar: what of a schema is unknown or cannot be met, where a grammar has an error, or that it
    /// is too large.
    pub fn guide(&self, grammar: &Grammar, after: Option<&str>) -> Result<Box<dyn Guide>, GuideError> {
        let special = |name: &str| self.special.iter().find(|(of, _)| of == name).map(|(_, id)| *id);
        let source = grammar.source(after, special)?;
        let prepare = || {
            let parser = self.parsers.create_parser(source).map_err(|error| GuideError(said(&error)))?;
            let matcher = Matcher::new(Ok(parser));
            let mut follower = Follower { matcher, stop: self.stop.clone(), ended: false };
            // A grammar of which no text can begin is refused here, not when the prompt has run.
            follower.allowed()?;
            Ok(follower)
        };
        // Grammars are prepared by functions that call themselves, for some of them as often as a grammar has rules.
        let follower = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("grammar".to_owned()).stack_size(STACK);
            let thread = thread.spawn_scoped(scope, prepare);
            let thread = thread.map_err(|error| GuideError(format!("no thread for a grammar: {error}")))?;
            thread.join().unwrap_or_else(|_| Err(GuideError("the grammar cannot be prepared".to_owned())))
        })?;
        Ok(Box::new(follower))
    }
}

/// An answer that follows a grammar.
struct Follower {
    matcher: Matcher,
    stop: Arc<[u32]>,
    /// Whether a stop id was accepted.
    ended: bool,
}

impl Guide for Follower {
    fn allowed(&mut self) -> Result<TokenSet, GuideError> {
        if self.ended {
            return Ok(TokenSet::default());
        }
        if self.matcher.stop_reason() != StopReason::NotStopped {
            return match self.matcher.get_error() {
                Some(error) => Err(GuideError(told(&error))),
                // Nothing can follow but the end.
                None => Ok(self.stop.iter().copied().collect()),
            };
        }
        let mask = self.matcher.compute_mask();
        let mut mask = mask.map_err(|error| GuideError(told(&error.to_string())))?;
        // A grammar may ask for a stop id where more must follow; but the answer would end there.
        let may_end = self.matcher.is_accepting().map_err(|error| GuideError(told(&error.to_string())))?;
        if !may_end {
            self.stop.iter().for_each(|&id| mask.disallow_token(id));
            if mask.is_zero() {
                return Err(GuideError(DEAD_END.to_owned()));
            }
        }
        Ok(TokenSet::from_words(mask.as_slice().to_vec()))
    }

    fn allowed_along(&mut self, drafted: &[u32]) -> Result<Vec<TokenSet>, GuideError> {
        let mut sets = vec![self.allowed()?];
        let mut taken = 0;
        for &id in drafted {
            if self.stop.contains(&id) || !sets[taken].contains(id) {
                break;
            }
            self.accept(id)?;
            taken += 1;
            sets.push(self.allowed()?);
        }
        self.matcher.rollback(taken).map_err(|error| GuideError(told(&error.to_string())))?;
        Ok(sets)
    }

    fn accept(&mut self, id: u32) -> Result<(), GuideError> {
        if self.stop.contains(&id) {
            self.ended = true;
            return Ok(());
        }
        self.matcher.consume_token(id).map_err(|error| GuideError(told(&error.to_string())))
    }
}

/// Most bytes of an error's words.
const MOST_WORDS: usize = 600;
const DEAD_END: &str = "the grammar demands a text here that the model has no tokens for";

/// What a library's error says, with its causes.
fn said(error: &impl std::fmt::Display) -> String {
    told(&format!("{error:#}"))
}

/// An error's words, without what only helps to find faults in the library.
fn told(error: &str) -> String {
    let end = ["\n<backtrace>", "\n<state>", "\n<non-verbose/>"].into_iter();
    let end = end.filter_map(|mark| error.find(mark)).min().unwrap_or(error.len());
    match error[..end].trim() {
        "NoExtensionBias" | "NoExtension" => DEAD_END.to_owned(),
        "ParserTooComplex" | "LexerTooComplex" | "Parser Error: ParserTooComplex" => {
            "the grammar is too large or too ambiguous to be followed any further".to_owned()
        }
        error => shortened(error.strip_prefix("panic: ").unwrap_or(error)),
    }
}

/// At most [`MOST_WORDS`] bytes: errors quote whole lines of a grammar.
fn shortened(error: &str) -> String {
    match error.len() {
        ..=MOST_WORDS => error.to_owned(),
        _ => format!("{} ...", &error[..error.floor_char_boundary(MOST_WORDS)]),
    }
}

#[cfg(test)]
mod tests;
