//! The filter `tojson` of transformers: `json.dumps` with its keywords.

use super::arguments::Args;
use super::budget::Budget;
use super::compare;
use super::dict::Entry;
use super::error::{Result, failed, unsupported};
use super::format::float;
use super::iterate::collect;
use super::render::Run;
use super::value::Value;
use std::fmt::Write;

/// Widest indentation of a level.
const MAX_INDENT: usize = 1 << 16;

struct Style {
    ascii: bool,
    indent: Option<String>,
    between: String,
    colon: String,
    sorted: bool,
}

pub fn to_json(run: &mut Run, value: &Value, args: Args) -> Result<String> {
    let [ascii, indent, separators, sorted] =
        args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.to_string()),
        Some(width) => match width.as_int() {
            Some(width) => match usize::try_from(width.max(0)) {
                Ok(width) if width <= MAX_INDENT => Some(" ".repeat(width)),
                _ => return unsupported(format!("an indentation of {width}")),
            },
            None => {
                return failed(format!("can't multiply sequence by non-int of type '{}'", width.type_name()));
            }
        },
    };
    let (between, colon) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => match collect(run, &pair)?.as_slice() {
            [Value::Str(between), Value::Str(colon)] => (between.to_string(), colon.to_string()),
            [_, _] => return failed("separators must be strings"),
            _ => return failed("separators must be two"),
        },
    };
    let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let style = Style { ascii: truth(ascii), indent, between, colon, sorted: truth(sorted) };
    let mut out = String::new();
    write(run.budget, &mut out, value, &style, 0)?;
    Ok(out)
}

fn write(budget: &Budget, out: &mut String, value: &Value, style: &Style, level: usize) -> Result<()> {
    budget.enter()?;
    budget.grown(out.len(), 0)?;
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Int(i) => out.write_fmt(format_args!("{i}")).expect("writing to a string succeeds"),
        Value::Float(f) => out.push_str(&number(*f)),
        Value::Str(text) | Value::Markup(text) => quote(budget, out, text, style.ascii)?,
        Value::List(items) | Value::Tuple(items) => {
            bracketed(budget, out, "[]", items.len(), style, level, |out, at| {
                write(budget, out, &items[at], style, level + 1)
            })?;
        }
        Value::Dict(dict) => {
            let entries = ordered(budget, dict.entries(), style.sorted)?;
            bracketed(budget, out, "{}", entries.len(), style, level, |out, at| {
                let entry = entries[at];
                key(budget, out, &entry.name, style)?;
                out.push_str(&style.colon);
                write(budget, out, &entry.value, style, level + 1)
            })?;
        }
        _ => return failed(format!("Object of type {} is not JSON serializable", value.type_name())),
    }
    budget.leave();
    Ok(())
}

fn ordered<'a>(budget: &Budget, entries: &'a [Entry], sorted: bool) -> Result<Vec<&'a Entry>> {
    budget.items(entries.len())?;
    if !sorted {
        return Ok(entries.iter().collect());
    }
    let keyed =
        entries.iter().enumerate().map(|(at, entry)| (entry.name.clone(), Value::Int(at as i128))).collect();
    let sorted = compare::sort(budget, keyed, false)?;
    Ok(sorted.iter().filter_map(|(_, at)| entries.get(at.as_int()? as usize)).collect())
}

/// Items between brackets: in one line, or one a line where there is an indentation.
fn bracketed(
    budget: &Budget,
    out: &mut String,
    brackets: &str,
    count: usize,
    style: &Style,
    level: usize,
    mut item: impl FnMut(&mut String, usize) -> Result<()>,
) -> Result<()> {
    out.push_str(&brackets[..1]);
    let new_line = |out: &mut String, level: usize| -> Result<()> {
        if let Some(indent) = &style.indent {
            budget.grown(out.len() + 1 + level * indent.len(), level * indent.len())?;
            out.push('\n');
            (0..level).for_each(|_| out.push_str(indent));
        }
        Ok(())
    };
    for at in 0..count {
        if at > 0 {
            out.push_str(&style.between);
        }
        new_line(out, level + 1)?;
        item(out, at)?;
    }
    if count > 0 {
        new_line(out, level)?;
    }
    out.push_str(&brackets[1..]);
    Ok(())
}

fn number(f: f64) -> String {
    match f {
        f if f.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        f => float(f),
    }
}

fn key(budget: &Budget, out: &mut String, name: &Value, style: &Style) -> Result<()> {
    let plain = match name {
        Value::Str(text) | Value::Markup(text) => return quote(budget, out, text, style.ascii),
        Value::None => "null".into(),
        Value::Bool(true) => "true".into(),
        Value::Bool(false) => "false".into(),
        Value::Int(i) => i.to_string(),
        Value::Float(f) => number(*f),
        _ => return failed(format!("keys must be str, int, float, bool or None, not {}", name.type_name())),
    };
    quote(budget, out, &plain, style.ascii)
}

fn quote(budget: &Budget, out: &mut String, text: &str, ascii: bool) -> Result<()> {
    budget.grown(out.len() + text.len(), text.len())?;
    budget.scan(text.len())?;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || (ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.write_fmt(format_args!("\\u{unit:04x}")).expect("writing to a string succeeds");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}
