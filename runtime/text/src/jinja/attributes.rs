//! `value.name` and `value[key]`, as the sandbox of Jinja2 looks them up.
//!
//! A dot asks for an attribute first and then for an item; brackets ask the other way round. So `message.items` is the
//! method even where the dict has a key `items`, and `message['items']` is the key's value.

use super::callable::{Callable, Loop};
use super::error::{Result, unsupported};
use super::render::Run;
use super::value::{Missing, Value, undefined_error};
use std::rc::Rc;

/// Methods of text that this engine lacks. Nothing else in a template has methods of these names, so that a call is refused
/// when the template is parsed.
pub(super) const STR_REFUSED: &[&str] = &["encode", "maketrans", "translate"];

/// What an object has under a name.
enum Found {
    Value(Value),
    /// It exists, but the sandbox forbids it.
    Unsafe,
    Nothing,
}

const STR: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];
const LIST: &[&str] = &["copy", "count", "index"];
const LIST_CHANGES: &[&str] = &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const TUPLE: &[&str] = &["count", "index"];
const DICT: &[&str] = &["copy", "fromkeys", "get", "items", "keys", "values"];
const DICT_CHANGES: &[&str] = &["clear", "pop", "popitem", "setdefault", "update"];
const INT: &[&str] = &["bit_count", "bit_length", "conjugate"];
const INT_REFUSED: &[&str] =
    &["as_integer_ratio", "denominator", "from_bytes", "imag", "numerator", "real", "to_bytes"];
const FLOAT: &[&str] = &["conjugate", "is_integer"];
const FLOAT_REFUSED: &[&str] = &["as_integer_ratio", "fromhex", "hex", "imag", "real"];
const RANGE: &[&str] = &["count", "index"];

impl Run<'_> {
    /// `of.name`.
    pub fn attribute(&mut self, of: &Value, name: &str) -> Result<Value> {
        match self.own(of, name)? {
            Found::Value(value) => Ok(value),
            Found::Unsafe => Ok(unsafe_attribute(of, name)),
            Found::Nothing => match of {
                Value::Dict(dict) if dict.get_str(name).is_some() => {
                    Ok(dict.get_str(name).cloned().unwrap_or(Value::None))
                }
                _ => Ok(no_attribute(of, name)),
            },
        }
    }

    /// `of.name` without a look at items, as the filter `attr` asks.
    pub fn only_attribute(&mut self, of: &Value, name: &str) -> Result<Value> {
        match self.own(of, name)? {
            Found::Value(value) => Ok(value),
            Found::Unsafe => Ok(unsafe_attribute(of, name)),
            Found::Nothing => Ok(no_attribute(of, name)),
        }
    }

    /// `of[key]`.
    pub fn item(&mut self, of: &Value, key: &Value) -> Result<Value> {
        if let Value::Undefined(missing) = of {
            return undefined_error(missing);
        }
        let position = |length: usize| {
            let index = key.as_int()?;
            let index = if index < 0 { index + length as i128 } else { index };
            usize::try_from(index).ok().filter(|index| *index < length)
        };
        let found = match of {
            Value::Dict(dict) => match key {
                Value::List(_) | Value::Dict(_) => None,
                _ => dict.get(key)?.cloned(),
            },
            Value::List(items) | Value::Tuple(items) => position(items.len()).map(|at| items[at].clone()),
            Value::Range(range) => position(range.len()).map(|at| Value::Int(range.at(at))),
            Value::Str(text) if text.is_ascii() => {
                position(text.len()).map(|at| Value::str(char::from(text.as_bytes()[at])))
            }
            Value::Str(text) if key.as_int().is_some() => {
                self.budget.scan(text.len())?;
                position(text.chars().count()).and_then(|at| text.chars().nth(at)).map(Value::str)
            }
            Value::Markup(_) if key.as_int().is_some() => return unsupported("items of text marked as safe"),
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let Some(name) = key.as_str() else {
            let key = super::format::to_repr(self.budget, key)?.to_string();
            return Ok(Value::Undefined(Rc::new(Missing::Element { of: of.type_name(), key })));
        };
        match self.own(of, name)? {
            Found::Value(value) => Ok(value),
            Found::Unsafe => Ok(unsafe_attribute(of, name)),
            Found::Nothing => Ok(no_attribute(of, name)),
        }
    }

    fn own(&mut self, of: &Value, name: &str) -> Result<Found> {
        if let Value::Undefined(missing) = of {
            return undefined_error(missing);
        }
        if let Value::Namespace(namespace) = of {
            let attributes = namespace.0.borrow();
            return Ok(attributes.get_str(name).cloned().map_or(Found::Nothing, Found::Value));
        }
        if name.starts_with("__") && name.ends_with("__") && is_special(name) {
            return Ok(Found::Unsafe);
        }
        let (methods, changes, refused): (&[&'static str], &[&str], &[&str]) = match of {
            Value::Str(_) | Value::Markup(_) => (STR, &[], STR_REFUSED),
            Value::List(_) => (LIST, LIST_CHANGES, &[]),
            Value::Tuple(group) if group.is_group && matches!(name, "grouper" | "list") => {
                return Ok(Found::Value(group[usize::from(name == "list")].clone()));
            }
            Value::Tuple(_) => (TUPLE, &[], &[]),
            Value::Dict(_) => (DICT, DICT_CHANGES, &[]),
            Value::Int(_) | Value::Bool(_) => (INT, &[], INT_REFUSED),
            Value::Float(_) => (FLOAT, &[], FLOAT_REFUSED),
            Value::Range(range) => {
                let bound = match name {
                    "start" => Some(range.start),
                    "stop" => Some(range.stop),
                    "step" => Some(range.step),
                    _ => None,
                };
                if let Some(bound) = bound {
                    return Ok(Found::Value(Value::Int(bound)));
                }
                (RANGE, &[], &[])
            }
            Value::View(_) => (&[], &[], &["isdisjoint", "mapping"]),
            Value::Iter(_) => {
                (&[], &["gi_code", "gi_frame"], &["close", "gi_running", "gi_yieldfrom", "send", "throw"])
            }
            Value::Callable(callable) => return self.own_of_callable(callable, name),
            Value::Undefined(_) | Value::None | Value::Namespace(_) => (&[], &[], &[]),
        };
        if changes.contains(&name) {
            return Ok(Found::Unsafe);
        }
        if refused.contains(&name) {
            return unsupported(format!("'{name}' of a value of type '{}'", of.type_name()));
        }
        Ok(match methods.iter().find(|method| **method == name) {
            Some(name) => Found::Value(method(of, name)),
            None => Found::Nothing,
        })
    }

    fn own_of_callable(&mut self, callable: &Rc<Callable>, name: &str) -> Result<Found> {
        let of = || Value::Callable(callable.clone());
        Ok(match (&**callable, name) {
            (Callable::Loop(value), _) => return self.own_of_loop(value, callable, name),
            (Callable::Cycler { items, at }, "current") => Found::Value(items[at.get()].clone()),
            (Callable::Cycler { items, .. }, "items") => Found::Value(Value::tuple(items.clone())?),
            (Callable::Cycler { at, .. }, "pos") => Found::Value(Value::Int(at.get() as i128)),
            (Callable::Cycler { .. }, "next") => Found::Value(method(&of(), "next")),
            (Callable::Cycler { .. }, "reset") => Found::Value(method(&of(), "reset")),
            (Callable::Joiner { separator, .. }, "sep") => Found::Value(separator.clone()),
            (Callable::Joiner { used, .. }, "used") => Found::Value(Value::Bool(used.get())),
            (Callable::Global(super::callable::Global::Dict), "fromkeys") => {
                Found::Value(method(&of(), "fromkeys"))
            }
            (Callable::Macro(value), "name") => {
                Found::Value(value.name.as_ref().map_or(Value::None, |name| Value::str(&**name)))
            }
            (Callable::Macro(value), "arguments") => {
                let names = value.node.parameters.iter().map(|name| Value::str(&**self.name(*name)));
                Found::Value(Value::tuple(names.collect())?)
            }
            (Callable::Macro(value), "caller" | "catch_kwargs" | "catch_varargs") => {
                let special = value.node.special.get().copied().unwrap_or_default();
                Found::Value(Value::Bool(match name {
                    "caller" => special.caller,
                    "catch_kwargs" => special.kwargs,
                    _ => special.varargs,
                }))
            }
            (Callable::Macro(_), "explicit_caller") => return unsupported("'explicit_caller' of a macro"),
            (Callable::Method { .. } | Callable::Global(_), _) if !name.starts_with('_') => {
                return unsupported(format!("'{name}' of a value of type '{}'", callable.type_name()));
            }
            _ => Found::Nothing,
        })
    }

    fn own_of_loop(&mut self, value: &Loop, callable: &Rc<Callable>, name: &str) -> Result<Found> {
        let index0 = value.state.borrow().index0;
        Ok(Found::Value(match name {
            "index" => Value::Int(index0 + 1),
            "index0" => Value::Int(index0),
            "first" => Value::Bool(index0 == 0),
            "last" => Value::Bool(self.peek(value)?.is_none()),
            "length" => Value::Int(self.loop_length(value)?),
            "revindex" => Value::Int(self.loop_length(value)? - index0),
            "revindex0" => Value::Int(self.loop_length(value)? - index0 - 1),
            "depth" => Value::Int(value.depth0 + 1),
            "depth0" => Value::Int(value.depth0),
            "previtem" => match &value.state.borrow().before {
                Some(before) if index0 > 0 => before.clone(),
                _ => Value::undefined("there is no previous item"),
            },
            "nextitem" => match self.peek(value)? {
                Some(next) => next,
                None => Value::undefined("there is no next item"),
            },
            "cycle" => method(&Value::Callable(callable.clone()), "cycle"),
            "changed" => method(&Value::Callable(callable.clone()), "changed"),
            _ => return Ok(Found::Nothing),
        }))
    }
}

fn method(of: &Value, name: &'static str) -> Value {
    Value::Callable(Rc::new(Callable::Method { of: of.clone(), name }))
}

fn unsafe_attribute(of: &Value, name: &str) -> Value {
    Value::Undefined(Rc::new(Missing::Unsafe { of: of.type_name(), name: name.to_owned() }))
}

fn no_attribute(of: &Value, name: &str) -> Value {
    Value::Undefined(Rc::new(Missing::Attribute { of: of.type_name(), name: name.to_owned() }))
}

/// Attributes that Python's objects have besides their methods. Which of them differs between types, but all are
/// unsafe, and a key of that name is rare enough.
fn is_special(name: &str) -> bool {
    matches!(
        name.trim_matches('_'),
        "class"
            | "doc"
            | "init"
            | "new"
            | "repr"
            | "str"
            | "hash"
            | "eq"
            | "ne"
            | "lt"
            | "le"
            | "gt"
            | "ge"
            | "getattribute"
            | "setattr"
            | "delattr"
            | "dir"
            | "format"
            | "reduce"
            | "reduce_ex"
            | "sizeof"
            | "subclasshook"
            | "init_subclass"
            | "getstate"
            | "len"
            | "getitem"
            | "contains"
            | "iter"
            | "add"
            | "mul"
            | "call"
            | "dict"
            | "module"
            | "name"
            | "self"
            | "globals"
            | "code"
            | "closure"
            | "defaults"
            | "bool"
            | "setitem"
            | "delitem"
            | "reversed"
            | "class_getitem"
            | "or"
            | "ror"
            | "ior"
    )
}
