//! A JSON object whose keys are taken one by one, so that what nobody understood can be refused by name.

use crate::checkpoint::arithmetic;
use crate::error::{CompileError, Warnings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What is left of a configuration object.
pub(crate) struct Keys {
    path: PathBuf,
    /// `""`, or the object's own key and a dot.
    prefix: String,
    map: Map<String, Value>,
    /// Keys to leave out, with the names of the objects around them.
    ignored: Vec<String>,
}

impl Keys {
    /// The object `map` of the file `path`.
    pub(crate) fn new(path: &Path, map: Map<String, Value>) -> Keys {
        Keys { path: path.to_owned(), prefix: String::new(), map, ignored: Vec::new() }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves out the keys that the user wants ignored, each a dotted path, and says so. Asking for such a key later
    /// is an error, because then the key decides what the model computes.
    pub(crate) fn ignore(&mut self, ignored: &[String], warnings: &mut Warnings) {
        for key in ignored {
            match self.find(key) {
                Some(value) => {
                    warnings.push(format!("{}: {key} ({value}) is ignored, as asked", self.path.display()));
                    self.ignored.push(key.clone());
                }
                None => warnings.push(format!("{}: there is no {key} to ignore", self.path.display())),
            }
        }
    }

    /// The value of a dotted path, whose last part may have dots itself.
    fn find(&self, key: &str) -> Option<&Value> {
        if let Some(value) = self.map.get(key) {
            return Some(value);
        }
        let (parents, last) = key.rsplit_once('.')?;
        let object = parents
            .split('.')
            .try_fold(&self.map, |map, parent| map.get(parent).and_then(Value::as_object))?;
        object.get(last)
    }

    /// Whether the user wants that key ignored.
    fn is_ignored(&self, key: &str) -> bool {
        self.ignored.iter().any(|ignored| *ignored == self.named(key))
    }

    fn not_ignored(&self, key: &str) -> CompileError {
        arithmetic::not_ignored(&self.named(key), &self.path)
    }

    /// Takes an optional key; null counts as absent.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, CompileError> {
        match self.map.remove(key) {
            None => Ok(None),
            Some(_) if self.is_ignored(key) => Err(self.not_ignored(key)),
            Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|e| self.invalid(format!("{}: {e}", self.named(key)))),
        }
    }

    /// Whether a key is there and null.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// Takes a key that has no default.
    pub(crate) fn require<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, CompileError> {
        self.take(key)?.ok_or_else(|| self.invalid(format!("has no {}", self.named(key))))
    }

    /// Takes a key that must be `allowed`, or absent.
    pub(crate) fn expect(&mut self, key: &str, allowed: &Value) -> Result<(), CompileError> {
        match self.take::<Value>(key)? {
            Some(value) if !same(&value, allowed) => Err(self.unsupported(format!(
                "{} is {value}, which is not supported (only {allowed})",
                self.named(key)
            ))),
            _ => Ok(()),
        }
    }

    /// Takes a nested object.
    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Keys>, CompileError> {
        let map = self.take(key)?;
        let (path, ignored) = (self.path.clone(), self.ignored.clone());
        Ok(map.map(|map| Keys { path, prefix: format!("{}.", self.named(key)), map, ignored }))
    }

    /// Refuses every key that is left, is not null, not harmless and not to be ignored.
    ///
    /// # Errors
    /// The first such key, by its name; [`CompileError::Choice`] where one that is known to change the arithmetic is to
    /// be ignored.
    pub(crate) fn refuse_rest(self, harmless: &[&str]) -> Result<(), CompileError> {
        let on = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        let mut unknown = Vec::new();
        for (key, value) in &self.map {
            if value.is_null() || harmless.contains(&key.as_str()) {
                continue;
            }
            if !self.is_ignored(key) {
                unknown.push((self.named(key), value));
            } else if on(value) && arithmetic::is_known(&self.named(key)) {
                return Err(self.not_ignored(key));
            }
        }
        // The first by name is reported, but one that cannot be ignored comes before all others.
        let fatal =
            unknown.iter().position(|(key, _)| arithmetic::suggests_it(key) || arithmetic::is_known(key));
        let Some(&(ref key, value)) = unknown.get(fatal.unwrap_or(0)) else { return Ok(()) };
        let others = unknown.iter().map(|(other, _)| other).filter(|other| *other != key).cloned().collect();
        Err(arithmetic::unknown(
            &self.path,
            key,
            &format!("unknown key {key} = {}", shortened(value)),
            others,
        ))
    }

    /// The key with the names of the objects around it.
    pub(crate) fn named(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// An error: the configuration is wrong.
    pub(crate) fn invalid(&self, problem: impl Into<String>) -> CompileError {
        CompileError::Invalid { path: self.path.clone(), problem: problem.into() }
    }

    /// An error: the configuration asks for something that cannot be compiled.
    pub(crate) fn unsupported(&self, problem: impl Into<String>) -> CompileError {
        CompileError::Unsupported { path: self.path.clone(), problem: problem.into() }
    }
}

/// The value as text, cut where it is long.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// JSON equality where `1` and `1.0` are the same number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}
