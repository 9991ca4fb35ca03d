//! Iteration: over containers, and through filters that give items one by one.
//!
//! As in Python, `map` and similar filters do nothing until someone asks for an item, and they give each item once.

use super::arguments::Args;
use super::ast::For;
use super::dict::{Dict, Key, ViewKind, viewed};
use super::error::{Error, Result, failed};
use super::filters;
use super::predicates;
use super::render::{Run, Scope};
use super::value::{MAX_DEPTH, Range, Seq, Str, Value, too_deep, undefined_error};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

/// Items that are given one by one, each once.
pub struct Iter {
    state: RefCell<State>,
    depth: u16,
    name: &'static str,
}

impl std::fmt::Debug for Iter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

enum State {
    Done,
    Items(Rc<Seq>, usize),
    ItemsBack(Rc<Seq>, usize),
    Entries(Rc<Dict>, ViewKind, usize),
    EntriesBack(Rc<Dict>, ViewKind, usize),
    Numbers(Rc<Range>, usize),
    NumbersBack(Rc<Range>, usize),
    Characters(Str, usize),
    /// The result of a filter whose source has not been asked for an item yet.
    Waiting(Value, Box<Stage>),
    Through(Rc<Iter>, Box<Stage>),
}

/// What happens to items on the way.
pub enum Stage {
    Map(Each),
    Select {
        attribute: Option<Path>,
        test: Option<(Str, Args)>,
        keep: bool,
    },
    Unique {
        attribute: Path,
        case_sensitive: bool,
        seen: HashSet<Key>,
    },
    Batch {
        size: i128,
        fill: Value,
        gathered: Vec<Value>,
    },
    Slices {
        count: i128,
        fill: Value,
    },
    Entries,
    /// A loop's `if`.
    If(Arc<For>, Rc<Scope>),
    /// Wrong arguments, which Python finds when the first item is asked for.
    Broken(Error),
}

/// What `map` does with an item.
pub enum Each {
    Filter(Str, Args),
    Attribute { path: Path, default: Value },
}

/// An attribute of an attribute, as in `attribute='function.name'`.
#[derive(Clone)]
pub struct Path(Vec<Value>);

impl Path {
    /// Parts between dots; digits are positions.
    pub fn new(attribute: &Value) -> Path {
        Path(match attribute {
            Value::None => Vec::new(),
            Value::Str(text) => text
                .split('.')
                .map(|part| match !part.is_empty() && part.chars().all(super::unicode::is_digit) {
                    true => part.parse().map_or(Value::str(part), Value::Int),
                    false => Value::str(part),
                })
                .collect(),
            other => vec![other.clone()],
        })
    }

    pub fn of(&self, run: &mut Run, item: &Value, default: &Value) -> Result<Value> {
        let mut item = item.clone();
        for part in &self.0 {
            item = run.item(&item, part)?;
            if item.is_undefined() && !matches!(default, Value::None) {
                item = default.clone();
            }
        }
        Ok(item)
    }
}

impl Iter {
    fn new(state: State, depth: u16, name: &'static str) -> Result<Rc<Iter>> {
        if depth >= MAX_DEPTH {
            return too_deep();
        }
        Ok(Rc::new(Iter { state: RefCell::new(state), depth: depth + 1, name }))
    }

    /// What a filter gives for `source`.
    pub fn waiting(source: Value, stage: Stage) -> Result<Value> {
        let more = match &stage {
            Stage::Map(Each::Filter(_, args)) | Stage::Select { test: Some((_, args)), .. } => {
                args.positional.iter().chain(args.named.iter().map(|(_, v)| v)).map(Value::depth).max()
            }
            Stage::Map(Each::Attribute { default: value, .. }) | Stage::Batch { fill: value, .. } => {
                Some(value.depth())
            }
            Stage::Slices { fill, .. } => Some(fill.depth()),
            _ => None,
        };
        let depth = source.depth().max(more.unwrap_or(0));
        Ok(Value::Iter(Iter::new(State::Waiting(source, Box::new(stage)), depth, "generator")?))
    }

    pub fn depth(&self) -> u16 {
        self.depth
    }

    pub fn type_name(&self) -> &'static str {
        self.name
    }

    /// The next item, `None` at the end.
    pub fn next(&self, run: &mut Run) -> Result<Option<Value>> {
        run.budget.spend(0)?;
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return failed("generator already executing");
        };
        if let State::Waiting(..) = &*state {
            let State::Waiting(source, stage) = std::mem::replace(&mut *state, State::Done) else {
                return Ok(None);
            };
            *state = open(run, source, stage)?;
        }
        let item = match &mut *state {
            State::Done | State::Waiting(..) => None,
            State::Items(items, at) => step(at, items.len()).map(|i| items[i].clone()),
            State::ItemsBack(items, left) => step_back(left).map(|i| items[i].clone()),
            State::Entries(dict, kind, at) => {
                step(at, dict.len()).map(|i| viewed(&dict.entries()[i], *kind)).transpose()?
            }
            State::EntriesBack(dict, kind, left) => {
                step_back(left).map(|i| viewed(&dict.entries()[i], *kind)).transpose()?
            }
            State::Numbers(range, at) => step(at, range.len()).map(|i| Value::Int(range.at(i))),
            State::NumbersBack(range, left) => step_back(left).map(|i| Value::Int(range.at(i))),
            State::Characters(text, at) => {
                let next = text[*at..].chars().next();
                *at += next.map_or(0, char::len_utf8);
                next.map(Value::str)
            }
            State::Through(items, stage) => {
                let item = through(run, items, stage);
                if !matches!(item, Ok(Some(_))) {
                    *state = State::Done;
                }
                item?
            }
        };
        Ok(item)
    }
}

fn step(at: &mut usize, length: usize) -> Option<usize> {
    let next = *at;
    *at += usize::from(next < length);
    (next < length).then_some(next)
}

fn step_back(left: &mut usize) -> Option<usize> {
    *left = left.checked_sub(1)?;
    Some(*left)
}

/// Begins to give items.
fn open(run: &mut Run, source: Value, stage: Box<Stage>) -> Result<State> {
    match *stage {
        Stage::Map(_) | Stage::Select { .. } | Stage::Broken(_) if !source.truth() => Ok(State::Done),
        Stage::Broken(error) => Err(error),
        Stage::Entries => match source {
            Value::Undefined(_) => Ok(State::Done),
            Value::Dict(dict) => Ok(State::Entries(dict, ViewKind::Items, 0)),
            _ => failed("Can only get item pairs from a mapping."),
        },
        Stage::Slices { count, fill } => {
            let Value::List(slices) = filters::slices(run, &source, count, &fill)? else {
                return Ok(State::Done);
            };
            Ok(State::Items(slices, 0))
        }
        _ => Ok(State::Through(iter(&source)?, stage)),
    }
}

/// Takes items until one comes out.
fn through(run: &mut Run, items: &Rc<Iter>, stage: &mut Stage) -> Result<Option<Value>> {
    run.budget.enter()?;
    let item = through_stage(run, items, stage);
    run.budget.leave();
    item
}

fn through_stage(run: &mut Run, items: &Rc<Iter>, stage: &mut Stage) -> Result<Option<Value>> {
    while let Some(item) = items.next(run)? {
        match stage {
            Stage::Map(Each::Filter(name, args)) => {
                return filters::apply(run, name, item, args.clone()).map(Some);
            }
            Stage::Map(Each::Attribute { path, default }) => return path.of(run, &item, default).map(Some),
            Stage::Select { attribute, test, keep } => {
                let tested = match attribute {
                    Some(path) => path.of(run, &item, &Value::None)?,
                    None => item.clone(),
                };
                let holds = match test {
                    Some((name, args)) => predicates::apply(run, name, tested, args.clone())?,
                    None => tested.truth(),
                };
                if holds == *keep {
                    return Ok(Some(item));
                }
            }
            Stage::Unique { attribute, case_sensitive, seen } => {
                let value = attribute.of(run, &item, &Value::None)?;
                let value = if *case_sensitive { value } else { filters::ignore_case(value) };
                if seen.insert(Key::of(&value)?) {
                    run.budget.items(4)?;
                    return Ok(Some(item));
                }
            }
            Stage::Batch { size, gathered, .. } => {
                if gathered.len() as i128 == *size {
                    let batch = std::mem::replace(gathered, vec![item]);
                    return Value::list(batch).map(Some);
                }
                run.budget.items(1)?;
                gathered.push(item);
            }
            Stage::If(node, scope) => {
                if run.loop_test(node, scope, &item)? {
                    return Ok(Some(item));
                }
            }
            Stage::Slices { .. } | Stage::Entries | Stage::Broken(_) => return Ok(None),
        }
    }
    if let Stage::Batch { size, fill, gathered } = stage
        && !gathered.is_empty()
    {
        let mut batch = std::mem::take(gathered);
        if !matches!(fill, Value::None) {
            let missing = usize::try_from((*size).saturating_sub(batch.len() as i128)).unwrap_or(0);
            run.budget.items(missing)?;
            batch.extend(std::iter::repeat_n(fill.clone(), missing));
        }
        return Value::list(batch).map(Some);
    }
    Ok(None)
}

/// `iter(value)`.
///
/// # Errors
/// Values that Python does not iterate over.
pub fn iter(value: &Value) -> Result<Rc<Iter>> {
    let state = match value {
        Value::Iter(items) => return Ok(items.clone()),
        Value::Undefined(_) => State::Done,
        Value::Str(text) | Value::Markup(text) => State::Characters(text.clone(), 0),
        Value::List(items) | Value::Tuple(items) => State::Items(items.clone(), 0),
        Value::Dict(dict) => State::Entries(dict.clone(), ViewKind::Keys, 0),
        Value::View(view) => State::Entries(view.dict.clone(), view.kind, 0),
        Value::Range(range) => State::Numbers(range.clone(), 0),
        _ => return failed(format!("'{}' object is not iterable", value.type_name())),
    };
    Iter::new(state, value.depth(), "iterator")
}

/// `iter(value)` for a loop with an `if`.
pub fn iter_if(value: &Value, node: &Arc<For>, scope: &Rc<Scope>) -> Result<Rc<Iter>> {
    let items = iter(value)?;
    Iter::new(
        State::Through(items, Box::new(Stage::If(node.clone(), scope.clone()))),
        value.depth(),
        "generator",
    )
}

/// `reversed(value)`; `None` for what Python cannot reverse.
pub fn reversed(value: &Value) -> Result<Option<Rc<Iter>>> {
    let (state, name) = match value {
        Value::List(items) => (State::ItemsBack(items.clone(), items.len()), "list_reverseiterator"),
        Value::Tuple(items) => (State::ItemsBack(items.clone(), items.len()), "reversed"),
        Value::Dict(dict) => {
            (State::EntriesBack(dict.clone(), ViewKind::Keys, dict.len()), "dict_reversekeyiterator")
        }
        Value::View(view) => {
            (State::EntriesBack(view.dict.clone(), view.kind, view.dict.len()), "dict_reverseiterator")
        }
        Value::Range(range) => (State::NumbersBack(range.clone(), range.len()), "range_iterator"),
        Value::Undefined(_) => (State::Done, "reversed"),
        _ => return Ok(None),
    };
    Iter::new(state, value.depth(), name).map(Some)
}

/// All items.
///
/// # Errors
/// As [`iter`]; what asking for items gives; too many of them.
pub fn collect(run: &mut Run, value: &Value) -> Result<Vec<Value>> {
    if let Value::List(items) | Value::Tuple(items) = value {
        run.budget.items(items.len())?;
        return Ok(items.to_vec());
    }
    let items = iter(value)?;
    let mut all = Vec::new();
    while let Some(item) = items.next(run)? {
        run.budget.items(1)?;
        all.push(item);
    }
    Ok(all)
}

/// `len(value)`.
///
/// # Errors
/// Values that have no length.
pub fn length(run: &Run, value: &Value) -> Result<usize> {
    Ok(match value {
        Value::Undefined(_) => 0,
        Value::Str(text) | Value::Markup(text) => {
            run.budget.scan(text.len())?;
            text.chars().count()
        }
        Value::List(items) | Value::Tuple(items) => items.len(),
        Value::Dict(dict) => dict.len(),
        Value::View(view) => view.dict.len(),
        Value::Range(range) => range.len(),
        _ => return failed(format!("object of type '{}' has no len()", value.type_name())),
    })
}

/// Raises for an undefined value, and passes any other on.
pub fn defined(value: Value) -> Result<Value> {
    match &value {
        Value::Undefined(missing) => undefined_error(missing),
        _ => Ok(value),
    }
}
