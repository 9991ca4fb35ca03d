//! `str()` and `repr()`: values as Python writes them.

use super::budget::Budget;
use super::callable::Callable;
use super::dict::{Entry, ViewKind};
use super::error::{Result, unsupported};
use super::unicode::is_printable;
use super::value::{Str, Value};
use std::fmt::Write;

/// `str(value)`.
pub fn to_str(budget: &Budget, value: &Value) -> Result<Str> {
    if let Some(text) = value.as_str() {
        return Ok(text.clone());
    }
    let mut out = String::new();
    push_str(budget, &mut out, value)?;
    Ok(out.into())
}

/// `repr(value)`.
pub fn to_repr(budget: &Budget, value: &Value) -> Result<Str> {
    let mut out = String::new();
    push_repr(budget, &mut out, value)?;
    Ok(out.into())
}

/// Appends `str(value)`.
pub fn push_str(budget: &Budget, out: &mut String, value: &Value) -> Result<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Str(text) | Value::Markup(text) => {
            budget.grown(out.len() + text.len(), text.len())?;
            out.push_str(text);
            Ok(())
        }
        _ => push_repr(budget, out, value),
    }
}

/// Appends `repr(value)`.
pub fn push_repr(budget: &Budget, out: &mut String, value: &Value) -> Result<()> {
    budget.enter()?;
    let done = push_repr_inner(budget, out, value);
    budget.leave();
    budget.grown(out.len(), 0).and(done)
}

fn push_repr_inner(budget: &Budget, out: &mut String, value: &Value) -> Result<()> {
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(i) => number(out, i),
        Value::Float(f) => out.push_str(&float(*f)),
        Value::Str(text) => push_quoted(budget, out, text)?,
        Value::Markup(text) => {
            out.push_str("Markup(");
            push_quoted(budget, out, text)?;
            out.push(')');
        }
        Value::List(items) => {
            out.push('[');
            push_items(budget, out, items)?;
            out.push(']');
        }
        Value::Tuple(items) => {
            out.push('(');
            push_items(budget, out, items)?;
            out.push_str(if items.len() == 1 { ",)" } else { ")" });
        }
        Value::Dict(dict) => push_dict(budget, out, dict.entries())?,
        Value::Range(range) if range.step == 1 => {
            push(out, format_args!("range({}, {})", range.start, range.stop))
        }
        Value::Range(range) => {
            push(out, format_args!("range({}, {}, {})", range.start, range.stop, range.step))
        }
        Value::View(view) => {
            push(out, format_args!("{}([", view.type_name()));
            for (i, entry) in view.dict.entries().iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                match view.kind {
                    ViewKind::Keys => push_repr(budget, out, &entry.name)?,
                    ViewKind::Values => push_repr(budget, out, &entry.value)?,
                    ViewKind::Items => {
                        out.push('(');
                        push_repr(budget, out, &entry.name)?;
                        out.push_str(", ");
                        push_repr(budget, out, &entry.value)?;
                        out.push(')');
                    }
                }
            }
            out.push_str("])");
        }
        Value::Namespace(namespace) => {
            let Ok(dict) = namespace.0.try_borrow() else { return unsupported("printing this namespace") };
            out.push_str("<Namespace ");
            push_dict(budget, out, dict.entries())?;
            out.push('>');
        }
        Value::Callable(callable) => match &**callable {
            Callable::Macro(value) => match &value.name {
                Some(name) => push(out, format_args!("<Macro '{name}'>")),
                None => out.push_str("<Macro anonymous>"),
            },
            // Python writes where in memory these are.
            _ => return unsupported(format!("printing a {}", callable.type_name())),
        },
        Value::Iter(iter) => return unsupported(format!("printing a {}", iter.type_name())),
    }
    Ok(())
}

fn push(out: &mut String, arguments: std::fmt::Arguments) {
    out.write_fmt(arguments).expect("writing to a string succeeds");
}

fn number(out: &mut String, i: &i128) {
    push(out, format_args!("{i}"));
}

fn push_items(budget: &Budget, out: &mut String, items: &[Value]) -> Result<()> {
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        push_repr(budget, out, item)?;
    }
    Ok(())
}

fn push_dict(budget: &Budget, out: &mut String, entries: &[Entry]) -> Result<()> {
    out.push('{');
    for (i, entry) in entries.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        push_repr(budget, out, &entry.name)?;
        out.push_str(": ");
        push_repr(budget, out, &entry.value)?;
    }
    out.push('}');
    Ok(())
}

/// `repr` of a string.
fn push_quoted(budget: &Budget, out: &mut String, text: &str) -> Result<()> {
    budget.grown(out.len() + text.len(), text.len())?;
    budget.scan(text.len())?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => push_escape(out, c),
        }
    }
    out.push(quote);
    Ok(())
}

/// A character as a Python escape.
pub fn push_escape(out: &mut String, c: char) {
    match c as u32 {
        code @ 0..=0xff => push(out, format_args!("\\x{code:02x}")),
        code @ 0x100..=0xffff => push(out, format_args!("\\u{code:04x}")),
        code => push(out, format_args!("\\U{code:08x}")),
    }
}

/// `repr` of a float: the shortest digits that give the same number, as a decimal between 1e-4 and 1e16.
pub fn float(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{f:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if f != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{f}");
    if plain.contains('.') { plain } else { plain + ".0" }
}
