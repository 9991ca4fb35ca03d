//! Dicts: keys in the order they came, found by Python's equality.

use super::error::{Error, Kind, Result, failed, unsupported};
use super::memory;
use super::value::{MAX_DEPTH, Str, Value, too_deep};
use std::collections::HashMap;
use std::rc::Rc;

/// From this many entries on, a dict keeps a table. With fewer, searching along the entries is as fast.
const INDEXED: usize = 12;

/// Values in a key that is a tuple.
const MAX_KEY_PARTS: usize = 10_000;

/// A key as equality sees it: `1`, `1.0` and `True` are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    None,
    Int(i128),
    Float(u64),
    Str(Box<str>),
    Tuple(Vec<Key>),
    /// What is equal to itself only.
    Object(usize),
}

impl Key {
    /// # Errors
    /// Values that Python cannot hash, and tuples of very many values.
    pub fn of(value: &Value) -> Result<Key> {
        Key::within(value, &mut 0)
    }

    /// Tuples may hold one tuple many times, so that few values spell out a great many: `seen` counts them.
    fn within(value: &Value, seen: &mut usize) -> Result<Key> {
        *seen += 1;
        if *seen > MAX_KEY_PARTS {
            return Err(Error::new(Kind::Budget, format!("a key of more than {MAX_KEY_PARTS} values")));
        }
        Ok(match value {
            Value::None => Key::None,
            Value::Bool(b) => Key::Int(i128::from(*b)),
            Value::Int(i) => Key::Int(*i),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 1e38 => Key::Int(*f as i128),
            Value::Float(f) => Key::Float(f.to_bits()),
            Value::Str(text) | Value::Markup(text) => Key::Str((&**text).into()),
            Value::Tuple(items) => {
                Key::Tuple(items.iter().map(|item| Key::within(item, seen)).collect::<Result<_>>()?)
            }
            // All undefined values are equal.
            Value::Undefined(_) => Key::Object(0),
            Value::Iter(it) => Key::Object(Rc::as_ptr(it) as usize),
            Value::Namespace(namespace) => Key::Object(Rc::as_ptr(namespace) as usize),
            Value::Callable(callable) => Key::Object(Rc::as_ptr(callable) as usize),
            Value::Range(_) => return unsupported("a range as a key"),
            Value::List(_) | Value::Dict(_) | Value::View(_) => {
                return failed(format!("unhashable type: '{}'", value.type_name()));
            }
        })
    }

    fn bytes(&self) -> usize {
        match self {
            Key::Str(text) => text.len(),
            Key::Tuple(keys) => keys.iter().map(|k| size_of::<Key>() + k.bytes()).sum(),
            _ => 0,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    key: Key,
    pub name: Value,
    pub value: Value,
}

#[derive(Debug, Default)]
pub struct Dict {
    entries: Vec<Entry>,
    index: HashMap<Key, usize>,
    depth: u16,
    bytes: usize,
}

impl Dict {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn depth(&self) -> u16 {
        self.depth.max(1)
    }

    fn position(&self, key: &Key) -> Option<usize> {
        match self.entries.len() >= INDEXED {
            true => self.index.get(key).copied(),
            false => self.entries.iter().position(|entry| entry.key == *key),
        }
    }

    pub fn get(&self, name: &Value) -> Result<Option<&Value>> {
        if let Value::Str(text) = name {
            return Ok(self.get_str(text));
        }
        Ok(self.position(&Key::of(name)?).map(|at| &self.entries[at].value))
    }

    pub fn get_str(&self, name: &str) -> Option<&Value> {
        if self.entries.len() >= INDEXED {
            return self.index.get(&Key::Str(name.into())).map(|at| &self.entries[*at].value);
        }
        let same = |entry: &&Entry| matches!(&entry.key, Key::Str(text) if **text == *name);
        self.entries.iter().find(same).map(|entry| &entry.value)
    }

    /// Adds an entry, or gives the entry of an equal key another value.
    pub fn insert(&mut self, name: Value, value: Value) -> Result<()> {
        let key = Key::of(&name)?;
        let depth = name.depth().max(value.depth());
        if depth >= MAX_DEPTH {
            return too_deep();
        }
        self.depth = self.depth.max(depth + 1);
        if let Some(at) = self.position(&key) {
            self.entries[at].value = value;
            return Ok(());
        }
        let bytes = key.bytes() + 2 * size_of::<Entry>();
        memory::charge(bytes);
        self.bytes += bytes;
        self.entries.push(Entry { key: key.clone(), name, value });
        match self.entries.len() {
            INDEXED => self.index = self.entries.iter().map(|e| e.key.clone()).zip(0..).collect(),
            n if n > INDEXED => {
                self.index.insert(key, n - 1);
            }
            _ => {}
        }
        Ok(())
    }

    pub fn insert_str(&mut self, name: &str, value: Value) -> Result<()> {
        self.insert(Value::Str(Str::from(name.to_owned())), value)
    }

    /// The same entries again.
    pub fn copied(&self) -> Result<Dict> {
        let mut copy = Dict::default();
        for entry in &self.entries {
            copy.insert(entry.name.clone(), entry.value.clone())?;
        }
        Ok(copy)
    }
}

impl Drop for Dict {
    fn drop(&mut self) {
        memory::release(self.bytes);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewKind {
    Keys,
    Values,
    Items,
}

/// What `keys()`, `values()` and `items()` give.
#[derive(Debug)]
pub struct View {
    pub dict: Rc<Dict>,
    pub kind: ViewKind,
}

impl View {
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            ViewKind::Keys => "dict_keys",
            ViewKind::Values => "dict_values",
            ViewKind::Items => "dict_items",
        }
    }
}

/// What a view gives for an entry.
pub fn viewed(entry: &Entry, kind: ViewKind) -> Result<Value> {
    match kind {
        ViewKind::Keys => Ok(entry.name.clone()),
        ViewKind::Values => Ok(entry.value.clone()),
        ViewKind::Items => Value::tuple(vec![entry.name.clone(), entry.value.clone()]),
    }
}
