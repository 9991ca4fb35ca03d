//! Metadata keys. They are taken one by one, so that what is left was not understood.

use super::value::{Array, Value};
use crate::checkpoint::arithmetic;
use crate::error::CompileError;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The metadata of a file.
pub(super) struct Metadata {
    path: PathBuf,
    keys: BTreeMap<String, Value>,
    /// Keys that the user wants ignored. Asking for one of them is an error, because it decides what the model
    /// computes.
    ignored: BTreeSet<String>,
}

/// Starts of keys that say nothing about the arithmetic.
const HARMLESS: [&str; 4] = ["general.", "split.", "quantize.", "tokenizer."];

impl Metadata {
    pub(super) fn new(path: &Path, keys: BTreeMap<String, Value>) -> Metadata {
        Metadata { path: path.to_owned(), keys, ignored: BTreeSet::new() }
    }

    /// Leaves out a key that the user wants ignored; gives its value, if it is there.
    pub(super) fn ignore(&mut self, key: &str) -> Option<Value> {
        if HARMLESS.iter().any(|start| key.starts_with(start)) {
            return self.keys.remove(key);
        }
        let value = self.keys.get(key)?.clone();
        self.ignored.insert(key.to_owned());
        Some(value)
    }

    fn not_ignored(&self, key: &str) -> CompileError {
        arithmetic::not_ignored(key, &self.path)
    }

    /// Whether any key that nobody took starts so.
    pub(super) fn has_prefix(&self, prefix: &str) -> bool {
        self.keys.keys().any(|key| key.starts_with(prefix))
    }

    /// Treats `key` as absent; says whether it was there.
    pub(super) fn drop(&mut self, key: &str) -> Option<Value> {
        self.keys.remove(key)
    }

    /// What follows `start` in the names of keys that begin with it.
    pub(super) fn names_after(&self, start: &str) -> Vec<&str> {
        self.keys.keys().filter_map(|key| key.strip_prefix(start)).collect()
    }

    /// Takes a key that must not be negative.
    pub(super) fn unsigned(&mut self, key: &str) -> Result<Option<u64>, CompileError> {
        self.take(key, "an integer not below zero", |value| match value {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        })
    }

    /// Takes a number of any type.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, CompileError> {
        self.take(key, "a finite number", |value| match value {
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            Value::Float(value) => value.is_finite().then_some(*value),
            _ => None,
        })
    }

    pub(super) fn bool(&mut self, key: &str) -> Result<Option<bool>, CompileError> {
        self.take(key, "a bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, CompileError> {
        self.take(key, "a string", |value| match value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub(super) fn array(&mut self, key: &str) -> Result<Option<Array>, CompileError> {
        self.take(key, "an array", |value| match value {
            Value::Array(array) => Some(array.clone()),
            _ => None,
        })
    }

    fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, CompileError> {
        let Some(value) = self.keys.remove(key) else { return Ok(None) };
        if self.ignored.contains(key) {
            return Err(self.not_ignored(key));
        }
        let wrong = || self.invalid(key, format!("is {value}, expected {expected}"));
        read(&value).map(Some).ok_or_else(wrong)
    }

    /// Unwraps a key that has no default.
    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, CompileError> {
        value.ok_or_else(|| self.invalid(key, "is missing; convert the model again"))
    }

    /// Refuses what is left, but for keys that say nothing about the arithmetic and those to be ignored.
    pub(super) fn refuse_rest(self) -> Result<(), CompileError> {
        let mut unknown = Vec::new();
        for (key, value) in &self.keys {
            if HARMLESS.iter().any(|start| key.starts_with(start)) {
                continue;
            }
            if !self.ignored.contains(key) {
                unknown.push((key, value));
            } else if arithmetic::is_known(key) {
                return Err(self.not_ignored(key));
            }
        }
        // The first by name is reported, but one that cannot be ignored comes before all others.
        let fatal =
            unknown.iter().position(|(key, _)| arithmetic::suggests_it(key) || arithmetic::is_known(key));
        let Some(&(key, value)) = unknown.get(fatal.unwrap_or(0)) else { return Ok(()) };
        let others = unknown.iter().map(|(other, _)| *other).filter(|other| *other != key).cloned().collect();
        let said = format!("metadata key {key} is {value}, and is not known");
        Err(arithmetic::unknown(&self.path, key, &said, others))
    }

    /// An error: the value of a key is wrong.
    pub(super) fn invalid(&self, key: &str, problem: impl Display) -> CompileError {
        CompileError::Invalid { path: self.path.clone(), problem: format!("metadata key {key} {problem}") }
    }

    /// An error: the value of a key asks for what cannot be compiled.
    pub(super) fn unsupported(&self, key: &str, problem: impl Display) -> CompileError {
        CompileError::Unsupported {
            path: self.path.clone(),
            problem: format!("metadata key {key} {problem}"),
        }
    }
}
