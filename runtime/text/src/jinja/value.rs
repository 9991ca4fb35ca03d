//! Python's values, as far as templates see them.
//!
//! Lists, tuples and dicts never change once made: the sandbox that transformers uses forbids the methods that would.
//! Only namespaces, loops and iterators have a state. How deep a container is nested is counted when it is made, and bounded,
//! so that walking or dropping one never exhausts the stack.

use super::callable::Callable;
use super::dict::{Dict, View};
use super::error::{Error, Kind, Result};
use super::iterate::Iter;
use super::memory;
use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// Deepest nesting of containers. Python itself stops printing at about three times that.
pub const MAX_DEPTH: u16 = 250;

#[derive(Clone, Debug)]
pub enum Value {
    Undefined(Rc<Missing>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Str),
    /// Text marked as safe HTML (`markupsafe.Markup`).
    Markup(Str),
    List(Rc<Seq>),
    Tuple(Rc<Seq>),
    Dict(Rc<Dict>),
    Range(Rc<Range>),
    View(Rc<View>),
    Iter(Rc<Iter>),
    Namespace(Rc<Namespace>),
    Callable(Rc<Callable>),
}

/// Why a value is undefined. An error says so when the value is used.
#[derive(Debug)]
pub enum Missing {
    Name(Arc<str>),
    Attribute {
        of: &'static str,
        name: String,
    },
    Element {
        of: &'static str,
        key: String,
    },
    /// An attribute that the sandbox keeps away.
    Unsafe {
        of: &'static str,
        name: String,
    },
    Hint(&'static str),
    Parameter(Arc<str>),
}

impl Missing {
    pub fn message(&self) -> String {
        match self {
            Missing::Name(name) => format!("'{name}' is undefined"),
            Missing::Attribute { of, name } => format!("'{of}' has no attribute '{name}'"),
            Missing::Element { of, key } => format!("{of} has no element {key}"),
            Missing::Unsafe { of, name } => {
                format!("access to attribute '{name}' of '{of}' object is unsafe")
            }
            Missing::Hint(hint) => (*hint).to_owned(),
            Missing::Parameter(name) => format!("parameter '{name}' was not provided"),
        }
    }
}

/// Text: written in the template, or made while rendering and then counted.
#[derive(Clone, Debug)]
pub enum Str {
    Const(Arc<str>),
    Made(Rc<Text>),
}

#[derive(Debug)]
pub struct Text(String);

impl Drop for Text {
    fn drop(&mut self) {
        memory::release(self.0.len());
    }
}

impl Deref for Str {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Str::Const(text) => text,
            Str::Made(text) => &text.0,
        }
    }
}

impl From<String> for Str {
    fn from(text: String) -> Str {
        memory::charge(text.len());
        Str::Made(Rc::new(Text(text)))
    }
}

/// Items of a list or a tuple.
#[derive(Debug)]
pub struct Seq {
    items: Vec<Value>,
    depth: u16,
    /// `grouper` and `list` are attributes of the tuples that `groupby` makes.
    pub is_group: bool,
}

impl Seq {
    pub fn new(items: Vec<Value>) -> Result<Seq> {
        let depth = items.iter().map(Value::depth).max().unwrap_or(0);
        if depth >= MAX_DEPTH {
            return too_deep();
        }
        memory::charge(items.len() * size_of::<Value>());
        Ok(Seq { items, depth: depth + 1, is_group: false })
    }
}

pub fn too_deep<T>() -> Result<T> {
    Err(Error::new(Kind::Budget, format!("values are nested deeper than {MAX_DEPTH}")))
}

impl Deref for Seq {
    type Target = [Value];
    fn deref(&self) -> &[Value] {
        &self.items
    }
}

impl Drop for Seq {
    fn drop(&mut self) {
        memory::release(self.items.len() * size_of::<Value>());
    }
}

/// `range(start, stop, step)`; at most 100,000 numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    pub start: i128,
    pub stop: i128,
    pub step: i128,
}

impl Range {
    pub fn len(&self) -> usize {
        let span = match self.step > 0 {
            true => self.stop.saturating_sub(self.start),
            false => self.start.saturating_sub(self.stop),
        };
        if span <= 0 { 0 } else { ((span - 1) / self.step.unsigned_abs() as i128 + 1) as usize }
    }

    /// The number at `index`, which is below `len`.
    pub fn at(&self, index: usize) -> i128 {
        self.start + self.step * index as i128
    }
}

/// What `namespace()` makes: attributes that `set` changes.
#[derive(Debug)]
pub struct Namespace(pub RefCell<Dict>);

impl Value {
    pub fn str(text: impl Into<String>) -> Value {
        Value::Str(Str::from(text.into()))
    }

    pub fn constant(text: &'static str) -> Value {
        Value::Str(Str::Const(text.into()))
    }

    pub fn list(items: Vec<Value>) -> Result<Value> {
        Ok(Value::List(Rc::new(Seq::new(items)?)))
    }

    pub fn tuple(items: Vec<Value>) -> Result<Value> {
        Ok(Value::Tuple(Rc::new(Seq::new(items)?)))
    }

    pub fn dict(dict: Dict) -> Value {
        Value::Dict(Rc::new(dict))
    }

    pub fn undefined(hint: &'static str) -> Value {
        Value::Undefined(Rc::new(Missing::Hint(hint)))
    }

    /// How deep containers are nested in the value. It is 0 for a value that contains nothing. What a namespace contains may
    /// change, so it counts as the deepest that is allowed, less a few. The renderer keeps namespaces and drops them one by one.
    pub fn depth(&self) -> u16 {
        match self {
            Value::List(seq) | Value::Tuple(seq) => seq.depth,
            Value::Dict(dict) => dict.depth(),
            Value::View(view) => view.dict.depth() + 1,
            Value::Iter(iter) => iter.depth(),
            Value::Callable(callable) => callable.depth(),
            Value::Namespace(_) => 1,
            _ => 0,
        }
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    /// Text, marked as safe or not.
    pub fn as_str(&self) -> Option<&Str> {
        match self {
            Value::Str(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, which a boolean is too.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(i) => Some(*i),
            Value::Bool(b) => Some(i128::from(*b)),
            _ => None,
        }
    }

    /// The name of the type in Python.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Range(_) => "range",
            Value::View(view) => view.type_name(),
            Value::Iter(iter) => iter.type_name(),
            Value::Namespace(_) => "Namespace",
            Value::Callable(callable) => callable.type_name(),
        }
    }

    /// `bool(value)`.
    pub fn truth(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::Str(text) | Value::Markup(text) => !text.is_empty(),
            Value::List(seq) | Value::Tuple(seq) => !seq.is_empty(),
            Value::Dict(dict) => dict.len() > 0,
            Value::Range(range) => range.len() > 0,
            Value::View(view) => view.dict.len() > 0,
            Value::Callable(callable) => callable.truth(),
            Value::Iter(_) | Value::Namespace(_) => true,
        }
    }
}

/// Using an undefined value.
pub fn undefined_error<T>(missing: &Missing) -> Result<T> {
    Err(Error::new(Kind::Failed, missing.message()))
}
