//! Calls: macros, methods, loops, and the functions that every template has.

use super::arguments::{Args, integer, required};
use super::callable::{Callable, Global};
use super::compare::equal;
use super::dict::Dict;
use super::error::{Result, failed, unsupported};
use super::format;
use super::iterate::{collect, iter};
use super::render::{Run, check_attribute};
use super::value::{Range, Value, undefined_error};
use super::{containers, methods, time};
use std::cell::Cell;
use std::rc::Rc;

/// Most items of a range, as in the sandbox of Jinja2.
const MAX_RANGE: usize = 100_000;

pub fn call(run: &mut Run, callee: &Value, args: Args) -> Result<Value> {
    run.budget.enter()?;
    let value = call_inner(run, callee, args);
    run.budget.leave();
    value
}

fn call_inner(run: &mut Run, callee: &Value, args: Args) -> Result<Value> {
    let callable = match callee {
        Value::Undefined(missing) => return undefined_error(missing),
        Value::Callable(callable) => callable,
        _ => return failed(format!("'{}' object is not callable", callee.type_name())),
    };
    match &**callable {
        Callable::Macro(value) => run.call_macro(value, args),
        Callable::Global(global) => call_global(run, *global, args),
        Callable::Method { of, name } => method(run, of, name, args),
        Callable::Loop(value) => {
            let Some((node, scope)) = &value.recursive else {
                return failed("The loop must have the 'recursive' marker to be called recursively.");
            };
            let [iterable] = args.bind("loop", ["iterable"])?;
            run.recurse(node, required(iterable, "loop", "iterable")?, scope, value.depth0 + 1)
        }
        Callable::Joiner { separator, used } => {
            args.none("joiner")?;
            Ok(if used.replace(true) { separator.clone() } else { Value::str("") })
        }
        Callable::Cycler { .. } => failed("'Cycler' object is not callable"),
    }
}

fn method(run: &mut Run, of: &Value, name: &'static str, args: Args) -> Result<Value> {
    match of {
        Value::Str(text) => methods::call(run, text, name, args),
        Value::Callable(callable) => match (&**callable, name) {
            (Callable::Cycler { items, at }, "next") => {
                args.none("next")?;
                let current = items[at.get()].clone();
                at.set((at.get() + 1) % items.len());
                Ok(current)
            }
            (Callable::Cycler { at, .. }, _) => {
                args.none("reset")?;
                at.set(0);
                Ok(Value::None)
            }
            (Callable::Loop(value), "cycle") => {
                let Args { positional, named } = args;
                if !named.is_empty() || positional.is_empty() {
                    return failed("no items for cycling given");
                }
                let index = value.state.borrow().index0.rem_euclid(positional.len() as i128);
                Ok(positional[index as usize].clone())
            }
            (Callable::Loop(value), "changed") => {
                let now = Value::tuple(args.positional)?;
                let before = value.state.borrow().changed.clone();
                let same = match &before {
                    Some(before) => equal(run.budget, before, &now)?,
                    None => false,
                };
                value.state.borrow_mut().changed = Some(now);
                Ok(Value::Bool(!same))
            }
            _ => containers::from_keys(run, args),
        },
        Value::Markup(_) => unsupported(format!("'{name}' of text marked as safe")),
        _ => containers::call(run, of, name, args),
    }
}

fn call_global(run: &mut Run, global: Global, args: Args) -> Result<Value> {
    match global {
        Global::Range => range(args),
        Global::Dict => Ok(Value::dict(dict(run, args)?)),
        Global::Namespace => {
            let attributes = dict(run, args)?;
            for entry in attributes.entries() {
                if let Some(name) = entry.name.as_str() {
                    check_attribute(name)?;
                }
            }
            Ok(run.new_namespace(attributes))
        }
        Global::Cycler => {
            if !args.named.is_empty() || args.positional.is_empty() {
                return failed("at least one item has to be provided");
            }
            Ok(Value::Callable(Rc::new(Callable::Cycler { items: args.positional, at: Cell::new(0) })))
        }
        Global::Joiner => {
            let [separator] = args.bind("joiner", ["sep"])?;
            let separator = separator.unwrap_or_else(|| Value::str(", "));
            Ok(Value::Callable(Rc::new(Callable::Joiner { separator, used: Cell::new(false) })))
        }
        Global::RaiseException => {
            let [message] = args.bind("raise_exception", ["message"])?;
            let message = required(message, "raise_exception", "message")?;
            failed(format::to_str(run.budget, &message)?.to_string())
        }
        Global::StrftimeNow => {
            let [format] = args.bind("strftime_now", ["format"])?;
            match required(format, "strftime_now", "format")? {
                Value::Str(format) => {
                    // A directive may ask for a width.
                    run.budget.text(16 * format.len())?;
                    time::strftime_now(&format).map(Value::str)
                }
                other => failed(format!("strftime() argument 1 must be str, not {}", other.type_name())),
            }
        }
    }
}

fn range(args: Args) -> Result<Value> {
    let [first, second, step] = args.only_positional("range")?;
    let bound = |value: Option<Value>| -> Result<Option<i128>> {
        let Some(value) = value else { return Ok(None) };
        let number = integer(&value, "range")?;
        match i64::try_from(number) {
            Ok(_) => Ok(Some(number)),
            Err(_) => unsupported("a range beyond 64 bits"),
        }
    };
    let Some(first) = bound(first)? else { return failed("range expected at least 1 argument, got 0") };
    let (start, stop) = match bound(second)? {
        Some(stop) => (first, stop),
        None => (0, first),
    };
    let step = bound(step)?.unwrap_or(1);
    if step == 0 {
        return failed("range() arg 3 must not be zero");
    }
    let range = Range { start, stop, step };
    if range.len() > MAX_RANGE {
        return failed(format!(
            "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MAX_RANGE})."
        ));
    }
    Ok(Value::Range(Rc::new(range)))
}

/// `dict(mapping or pairs, **named)`.
pub fn dict(run: &mut Run, args: Args) -> Result<Dict> {
    let named = args.named;
    let [from] = Args { positional: args.positional, named: Vec::new() }.only_positional("dict")?;
    let mut dict = match from {
        None => Dict::default(),
        Some(Value::Dict(from)) => {
            run.budget.items(from.len())?;
            from.copied()?
        }
        Some(pairs) => {
            let mut dict = Dict::default();
            let pairs = iter(&pairs)?;
            while let Some(pair) = pairs.next(run)? {
                let mut pair = collect(run, &pair)?.into_iter();
                let (Some(key), Some(value), None) = (pair.next(), pair.next(), pair.next()) else {
                    return failed("dictionary update sequence element has to have length 2");
                };
                run.budget.items(4)?;
                dict.insert(key, value)?;
            }
            dict
        }
    };
    for (name, value) in named {
        dict.insert_str(&name, value)?;
    }
    Ok(dict)
}
