//! Equality and order.

use super::budget::Budget;
use super::dict::ViewKind;
use super::error::{Result, failed, unsupported};
use super::value::{Value, undefined_error};
use std::cmp::Ordering;
use std::rc::Rc;

/// `a == b`.
pub fn equal(budget: &Budget, a: &Value, b: &Value) -> Result<bool> {
    budget.enter()?;
    let same = equal_inner(budget, a, b);
    budget.leave();
    same
}

fn equal_inner(budget: &Budget, a: &Value, b: &Value) -> Result<bool> {
    if let (Some(a), Some(b)) = (a.as_int(), b.as_int()) {
        return Ok(a == b);
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        budget.spend(a.len().min(b.len()) / 64)?;
        return Ok(**a == **b);
    }
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Float(f), other) | (other, Value::Float(f)) => match other.as_int() {
            Some(i) => compare_mixed(i, *f) == Some(Ordering::Equal),
            None => false,
        },
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                if !same(a, b) && !equal(budget, a, b)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for entry in a.entries() {
                match b.get(&entry.name)? {
                    Some(other) if same(&entry.value, other) || equal(budget, &entry.value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Range(a), Value::Range(b)) => {
            a.len() == b.len() && (a.len() == 0 || a.start == b.start && (a.len() == 1 || a.step == b.step))
        }
        (Value::Iter(a), Value::Iter(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Callable(a), Value::Callable(b)) => Rc::ptr_eq(a, b),
        (Value::View(a), Value::View(b)) if a.kind != ViewKind::Values || b.kind != ViewKind::Values => {
            return unsupported("comparing views of dicts");
        }
        _ => false,
    })
}

/// Whether two values are the same object. In containers Python takes those for equal without comparing them.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}

/// `a is b`, where that does not depend on how CPython keeps its objects.
pub fn identical(a: &Value, b: &Value) -> Result<bool> {
    Ok(match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        // CPython keeps these numbers as one object each.
        (Value::Int(a), Value::Int(b)) if (-5..=256).contains(a) => a == b,
        (Value::List(a), Value::List(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Callable(a), Value::Callable(b)) => Rc::ptr_eq(a, b),
        (Value::Iter(a), Value::Iter(b)) => Rc::ptr_eq(a, b),
        (Value::Int(a), Value::Int(b)) if a != b => false,
        (Value::Str(a), Value::Str(b)) if **a != **b => false,
        _ if a.type_name() == b.type_name() => {
            return unsupported(format!("whether two values of type {} are the same object", a.type_name()));
        }
        _ => false,
    })
}

/// An integer against a float, exactly; `None` for NaN.
fn compare_mixed(i: i128, f: f64) -> Option<Ordering> {
    if f.is_nan() {
        return None;
    }
    if f.abs() >= 1e38 {
        return Some(if f > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = f.trunc();
    Some(i.cmp(&(whole as i128)).then_with(|| 0.0.partial_cmp(&(f - whole)).unwrap_or(Ordering::Equal)))
}

/// How two values are ordered; `None` where one is NaN, and neither less nor greater nor equal.
///
/// # Errors
/// Values that Python does not order.
pub fn order(budget: &Budget, a: &Value, b: &Value, op: &str) -> Result<Option<Ordering>> {
    budget.enter()?;
    let ordering = order_inner(budget, a, b, op);
    budget.leave();
    ordering
}

fn order_inner(budget: &Budget, a: &Value, b: &Value, op: &str) -> Result<Option<Ordering>> {
    if let Value::Undefined(missing) = a {
        return undefined_error(missing);
    }
    if let Value::Undefined(missing) = b {
        return undefined_error(missing);
    }
    if let (Some(a), Some(b)) = (a.as_int(), b.as_int()) {
        return Ok(Some(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        budget.spend(a.len().min(b.len()) / 64)?;
        // UTF-8 sorts as code points do.
        return Ok(Some((**a).cmp(&**b)));
    }
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => return Ok(a.partial_cmp(b)),
        (Value::Float(f), other) if other.as_int().is_some() => {
            return Ok(compare_mixed(other.as_int().unwrap_or_default(), *f).map(Ordering::reverse));
        }
        (other, Value::Float(f)) if other.as_int().is_some() => {
            return Ok(compare_mixed(other.as_int().unwrap_or_default(), *f));
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.iter().zip(b.iter()) {
                if !same(a, b) && !equal(budget, a, b)? {
                    return order(budget, a, b, op);
                }
            }
            return Ok(Some(a.len().cmp(&b.len())));
        }
        (Value::View(_), Value::View(_)) => return unsupported("comparing views of dicts"),
        _ => {}
    }
    failed(format!("'{op}' not supported between instances of '{}' and '{}'", a.type_name(), b.type_name()))
}

/// Sorts by keys. The sort is stable, and equal items keep their order in a reversed sort too.
///
/// # Errors
/// Keys that Python does not order.
pub fn sort(budget: &Budget, items: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<(Value, Value)>> {
    if items.len() < 2 {
        return Ok(items);
    }
    budget.enter()?;
    let mut left = items;
    let right = left.split_off(left.len() / 2);
    let (left, right) = (sort(budget, left, reverse)?, sort(budget, right, reverse)?);
    budget.leave();
    budget.items(left.len() + right.len())?;
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let Some(ordering) = order(budget, &b.0, &a.0, "<")? else {
            return unsupported("sorting with a number that is not a number");
        };
        let right_first = ordering == if reverse { Ordering::Greater } else { Ordering::Less };
        merged.extend(if right_first { right.next() } else { left.next() });
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}
