//! Arithmetic, comparison and membership with Python's rules.
//!
//! Integers have 128 bits. What would be larger is refused, never rounded.

use super::ast::Binary;
use super::budget::Budget;
use super::compare::equal;
use super::error::{Result, failed, unsupported};
use super::iterate::iter;
use super::render::Run;
use super::value::{Value, undefined_error};
use super::{numbers, percent};

fn symbol(op: Binary) -> &'static str {
    match op {
        Binary::Add => "+",
        Binary::Subtract => "-",
        Binary::Multiply => "*",
        Binary::Divide => "/",
        Binary::FloorDivide => "//",
        Binary::Remainder => "%",
        Binary::Power => "** or pow()",
    }
}

pub fn too_large<T>() -> Result<T> {
    unsupported("an integer beyond 128 bits")
}

pub fn binary(run: &mut Run, op: Binary, left: &Value, right: &Value) -> Result<Value> {
    let budget = run.budget;
    // A string on the left of % formats whatever stands on the right.
    if op == Binary::Remainder
        && let Value::Str(format) = left
    {
        return percent::format(run, format, right).map(Value::str);
    }
    if let Value::Undefined(missing) = left {
        return undefined_error(missing);
    }
    if let Value::Undefined(missing) = right {
        return undefined_error(missing);
    }
    if matches!(left, Value::Markup(_)) || matches!(right, Value::Markup(_)) {
        return unsupported(format!("'{}' with text marked as safe", symbol(op)));
    }
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return numbers::integers(op, a, b);
    }
    if let (Some(a), Some(b)) = (numbers::as_float(left), numbers::as_float(right)) {
        return numbers::floats(op, a, b);
    }
    match (op, left, right) {
        (Binary::Add, Value::Str(a), Value::Str(b)) => {
            budget.text(a.len() + b.len())?;
            Ok(Value::str([&**a, &**b].concat()))
        }
        (Binary::Add, Value::List(a), Value::List(b)) => {
            budget.items(a.len() + b.len())?;
            Value::list([&***a, &***b].concat())
        }
        (Binary::Add, Value::Tuple(a), Value::Tuple(b)) => {
            budget.items(a.len() + b.len())?;
            Value::tuple([&***a, &***b].concat())
        }
        (Binary::Multiply, of, times) if times.as_int().is_some() && is_sequence(of) => {
            repeat(budget, of, times.as_int().unwrap_or_default())
        }
        (Binary::Multiply, times, of) if times.as_int().is_some() && is_sequence(of) => {
            repeat(budget, of, times.as_int().unwrap_or_default())
        }
        _ => failed(format!(
            "unsupported operand type(s) for {}: '{}' and '{}'",
            symbol(op),
            left.type_name(),
            right.type_name()
        )),
    }
}

fn is_sequence(value: &Value) -> bool {
    matches!(value, Value::Str(_) | Value::List(_) | Value::Tuple(_))
}

fn repeat(budget: &Budget, of: &Value, times: i128) -> Result<Value> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    match of {
        Value::Str(text) => {
            budget.text(text.len().saturating_mul(times))?;
            Ok(Value::str(if text.is_empty() { String::new() } else { text.repeat(times) }))
        }
        Value::List(items) | Value::Tuple(items) => {
            budget.items(items.len().saturating_mul(times))?;
            let mut all = Vec::with_capacity(items.len() * times);
            if !items.is_empty() {
                (0..times).for_each(|_| all.extend(items.iter().cloned()));
            }
            if matches!(of, Value::List(_)) { Value::list(all) } else { Value::tuple(all) }
        }
        _ => failed("can't multiply"),
    }
}

/// `-value` and `+value`.
pub fn sign(value: &Value, negative: bool) -> Result<Value> {
    match value {
        Value::Undefined(missing) => undefined_error(missing),
        Value::Float(f) => Ok(Value::Float(if negative { -f } else { *f })),
        _ => match value.as_int() {
            Some(i) if !negative => Ok(Value::Int(i)),
            Some(i) => i.checked_neg().map_or_else(too_large, |i| Ok(Value::Int(i))),
            None => {
                let op = if negative { '-' } else { '+' };
                failed(format!("bad operand type for unary {op}: '{}'", value.type_name()))
            }
        },
    }
}

/// `item in container`.
pub fn contains(run: &mut Run, container: &Value, item: &Value) -> Result<bool> {
    match container {
        Value::Str(text) | Value::Markup(text) => match item.as_str() {
            Some(part) => {
                run.budget.scan(text.len())?;
                Ok(text.contains(&**part))
            }
            None => {
                failed(format!("'in <string>' requires string as left operand, not {}", item.type_name()))
            }
        },
        Value::Dict(dict) => Ok(dict.get(item)?.is_some()),
        Value::Range(range) => match item {
            Value::Int(_) | Value::Bool(_) => {
                let offset = item.as_int().unwrap_or_default().saturating_sub(range.start);
                Ok(offset % range.step == 0 && (0..range.len() as i128).contains(&(offset / range.step)))
            }
            _ => any_equal(run, container, item),
        },
        Value::View(view) if view.kind == super::dict::ViewKind::Keys => Ok(view.dict.get(item)?.is_some()),
        Value::Undefined(_) | Value::List(_) | Value::Tuple(_) | Value::View(_) | Value::Iter(_) => {
            any_equal(run, container, item)
        }
        _ => failed(format!("argument of type '{}' is not iterable", container.type_name())),
    }
}

fn any_equal(run: &mut Run, container: &Value, item: &Value) -> Result<bool> {
    let items = iter(container)?;
    while let Some(other) = items.next(run)? {
        if equal(run.budget, item, &other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where a slice begins, how many items it takes, and the step between them, for a sequence of `length` items.
pub fn slice_indices(bounds: &[Value; 3], length: usize) -> Result<(i128, usize, i128)> {
    let length = length as i128;
    let bound = |value: &Value| match value {
        Value::None => Ok(None),
        _ => match value.as_int() {
            Some(i) => Ok(Some(i.clamp(-(1 << 62), 1 << 62))),
            // Python raises, but not where all of it is written in the template and printed.
            None => unsupported(format!("a slice with a bound of type '{}'", value.type_name())),
        },
    };
    let step = bound(&bounds[2])?.unwrap_or(1);
    if step == 0 {
        return failed("slice step cannot be zero");
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let place = |value: Option<i128>, default: i128| match value {
        None => default,
        Some(i) if i < 0 => (i + length).max(low),
        Some(i) => i.min(high),
    };
    let start = place(bound(&bounds[0])?, if step > 0 { low } else { high });
    let stop = place(bound(&bounds[1])?, if step > 0 { high } else { low });
    let span = if step > 0 { stop - start } else { start - stop };
    let count = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
    Ok((start, count as usize, step))
}

/// `value[start:stop:step]`.
pub fn slice(budget: &Budget, of: &Value, bounds: &[Value; 3]) -> Result<Value> {
    let pick = |items: &[Value]| -> Result<Vec<Value>> {
        let (start, count, step) = slice_indices(bounds, items.len())?;
        budget.items(count)?;
        Ok((0..count as i128).map(|i| items[(start + i * step) as usize].clone()).collect())
    };
    match of {
        Value::Undefined(missing) => undefined_error(missing),
        Value::List(items) => Value::list(pick(items)?),
        Value::Tuple(items) => Value::tuple(pick(items)?),
        Value::Markup(_) => unsupported("slices of text marked as safe"),
        Value::Str(text) => {
            budget.text(text.len())?;
            budget.scan(text.len())?;
            if text.is_ascii() {
                let (start, count, step) = slice_indices(bounds, text.len())?;
                if step == 1 {
                    return Ok(Value::str(&text[start.max(0) as usize..][..count]));
                }
                let bytes = text.as_bytes();
                return Ok(Value::str(
                    (0..count as i128)
                        .map(|i| char::from(bytes[(start + i * step) as usize]))
                        .collect::<String>(),
                ));
            }
            budget.text(text.len() * 4)?;
            let chars: Vec<char> = text.chars().collect();
            let (start, count, step) = slice_indices(bounds, chars.len())?;
            Ok(Value::str((0..count as i128).map(|i| chars[(start + i * step) as usize]).collect::<String>()))
        }
        Value::Range(range) => {
            let (start, count, step) = slice_indices(bounds, range.len())?;
            let first = range.start + range.step * start;
            let step = range.step * step;
            let stop = first + step * count as i128;
            let slice = super::value::Range { start: first, stop, step };
            // Python keeps other bounds of an empty slice, which only printing it shows.
            Ok(Value::Range(std::rc::Rc::new(slice)))
        }
        Value::Dict(_) => failed("unhashable type: 'slice'"),
        _ => failed(format!("'{}' object is not subscriptable", of.type_name())),
    }
}
