//! A JSON object whose keys are taken one by one, so that what nobody understood can be refused by name.

use crate::error::CompileError;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What is left of a configuration object.
pub(crate) struct Keys {
    path: PathBuf,
    /// `""`, or the object's own key and a dot.
    prefix: String,
    map: Map<String, Value>,
}

impl Keys {
    /// The object `map` of the file `path`.
    pub(crate) fn new(path: &Path, map: Map<String, Value>) -> Keys {
        Keys { path: path.to_owned(), prefix: String::new(), map }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets the keys that the user wants ignored, each a dotted path, and says so.
    pub(crate) fn ignore(&mut self, ignored: &[String], warnings: &mut Vec<String>) {
        for key in ignored {
            let (object, last) = match key.rsplit_once('.') {
                Some((parents, last)) if !self.map.contains_key(key) => (
                    parents
                        .split('.')
                        .try_fold(&mut self.map, |map, parent| map.get_mut(parent)?.as_object_mut()),
                    last,
                ),
                _ => (Some(&mut self.map), key.as_str()),
            };
            match object.and_then(|map| map.remove(last)) {
                Some(value) => {
                    warnings.push(format!("{}: {key} ({value}) is ignored, as asked", self.path.display()))
                }
                None => warnings.push(format!("{}: there is no {key} to ignore", self.path.display())),
            }
        }
    }

    /// Takes an optional key; null counts as absent.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, CompileError> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
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
        Ok(map.map(|map| Keys { path: self.path.clone(), prefix: format!("{}.", self.named(key)), map }))
    }

    /// Refuses every key that is left, is not null and not harmless.
    pub(crate) fn refuse_rest(self, harmless: &[&str]) -> Result<(), CompileError> {
        let unknown =
            |(key, value): &(&String, &Value)| !value.is_null() && !harmless.contains(&key.as_str());
        let mut unknown = self.map.iter().filter(unknown);
        let Some((key, value)) = unknown.next() else {
            return Ok(());
        };
        let key = self.named(key);
        let more: Vec<String> = unknown.map(|(key, _)| self.named(key)).collect();
        let also =
            if more.is_empty() { String::new() } else { format!(" (also unknown: {})", more.join(", ")) };
        Err(self.unsupported(format!(
            "unknown key {key} = {value}: it may change the arithmetic, so it is not ignored in silence; \
             if it does not, compile with --ignore-config-key {key}{also}"
        )))
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

/// JSON equality where `1` and `1.0` are the same number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}
