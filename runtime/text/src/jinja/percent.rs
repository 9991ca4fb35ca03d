//! `format % values`.

use super::error::{Result, failed, unsupported};
use super::format::{push_escape, to_repr, to_str};
use super::numbers::{as_float, truncate};
use super::render::Run;
use super::spec::{Spec, check_precision, float_parts, int_parts, lay_out, lay_out_text};
use super::value::{Value, undefined_error};
use std::iter::Peekable;
use std::str::Chars;

/// Widest field, so that a format cannot ask for gigabytes.
const MAX_WIDTH: usize = 1 << 24;

/// The values that directives take one after the other.
struct Values<'a> {
    all: &'a Value,
    next: usize,
}

impl Values<'_> {
    fn take(&mut self) -> Result<Value> {
        let at = self.next;
        self.next += 1;
        match self.all {
            Value::Tuple(values) => match values.get(at) {
                Some(value) => Ok(value.clone()),
                None => failed("not enough arguments for format string"),
            },
            other if at == 0 => Ok(other.clone()),
            _ => failed("not enough arguments for format string"),
        }
    }

    /// Python lets values be that may be looked up by a key.
    fn all_used(&self, by_name: bool) -> bool {
        match self.all {
            Value::Tuple(values) => self.next >= values.len(),
            Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_) => true,
            _ => self.next > 0 || by_name,
        }
    }
}

pub fn format(run: &mut Run, format: &str, values: &Value) -> Result<String> {
    run.budget.scan(format.len())?;
    let mut out = String::new();
    let mut values = Values { all: values, next: 0 };
    let mut by_name = false;
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = directive(run, &mut chars, &mut values, &mut by_name)?;
        run.budget.grown(out.len() + directive.len(), directive.len())?;
        out.push_str(&directive);
    }
    run.budget.text(out.len())?;
    if !values.all_used(by_name) {
        return failed("not all arguments converted during string formatting");
    }
    Ok(out)
}

fn directive(
    run: &mut Run,
    chars: &mut Peekable<Chars>,
    values: &mut Values,
    by_name: &mut bool,
) -> Result<String> {
    let mut named = None;
    if chars.next_if_eq(&'(').is_some() {
        let Value::Dict(dict) = values.all else { return failed("format requires a mapping") };
        named = match dict.get_str(&key(chars)?) {
            Some(value) => Some(value.clone()),
            None => return failed("the mapping lacks a key of the format"),
        };
        *by_name = true;
    }
    let mut spec = Spec::default();
    let mut left = false;
    while let Some(flag) = chars.next_if(|c| "-+ #0".contains(*c)) {
        match flag {
            '-' => left = true,
            '+' => spec.sign = Some('+'),
            ' ' => spec.sign = spec.sign.or(Some(' ')),
            '#' => spec.alternate = true,
            _ => spec.zero = true,
        }
    }
    let width = number(chars, values, &mut left)?;
    if width > MAX_WIDTH {
        return unsupported(format!("a field of {width} characters"));
    }
    spec.width = width;
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = Some(number(chars, values, &mut false)?);
    }
    while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
    let Some(kind) = chars.next() else { return failed("incomplete format") };
    if kind == '%' {
        return Ok("%".into());
    }
    if left {
        (spec.align, spec.zero) = (Some('<'), false);
    }
    if !"sradiuxXoeEfFgGc".contains(kind) {
        return failed(format!("unsupported format character '{kind}'"));
    }
    let value = match named {
        Some(value) => value,
        None => values.take()?,
    };
    convert(run, kind, &value, spec)
}

fn key(chars: &mut Peekable<Chars>) -> Result<String> {
    let (mut key, mut open) = (String::new(), 1);
    for c in chars {
        match c {
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Ok(key);
        }
        key.push(c);
    }
    failed("incomplete format key")
}

/// A number in the format, or the next value where there is a `*`.
fn number(chars: &mut Peekable<Chars>, values: &mut Values, left: &mut bool) -> Result<usize> {
    if chars.next_if_eq(&'*').is_some() {
        let Value::Int(width) = values.take()? else { return failed("* wants int") };
        *left |= width < 0;
        return Ok(usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX));
    }
    let mut number: usize = 0;
    while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
        number = number.saturating_mul(10).saturating_add(digit as usize);
    }
    Ok(number)
}

fn convert(run: &mut Run, kind: char, value: &Value, mut spec: Spec) -> Result<String> {
    let default = '>';
    match kind {
        's' => {
            let text = to_str(run.budget, value)?;
            lay_out_text(run, &text, &Spec { zero: false, ..spec }, default)
        }
        'r' => {
            let text = to_repr(run.budget, value)?;
            lay_out_text(run, &text, &spec, default)
        }
        'a' => {
            let text = to_repr(run.budget, value)?;
            let mut ascii = String::new();
            for c in text.chars() {
                if c.is_ascii() { ascii.push(c) } else { push_escape(&mut ascii, c) }
            }
            lay_out_text(run, &ascii, &spec, default)
        }
        'c' => {
            let text = match value {
                Value::Str(text) if text.chars().count() == 1 => text.to_string(),
                _ => match value.as_int().map(|code| u32::try_from(code).ok().and_then(char::from_u32)) {
                    Some(Some(c)) => c.to_string(),
                    Some(None) => return failed("%c arg not in range(0x110000)"),
                    None => return failed("%c requires int or char"),
                },
            };
            lay_out_text(run, &text, &Spec { precision: None, ..spec }, default)
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let whole = match value {
                Value::Float(f) if matches!(kind, 'd' | 'i' | 'u') => truncate(*f)?,
                Value::Undefined(missing) => return undefined_error(missing),
                _ => match value.as_int() {
                    Some(whole) => whole,
                    None => {
                        return failed(format!(
                            "%{kind} format: a number is required, not {}",
                            value.type_name()
                        ));
                    }
                },
            };
            check_precision(spec.precision)?;
            let mut parts = int_parts(whole, kind, spec.alternate);
            if let Some(digits) = spec.precision {
                parts.whole = format!("{:0>digits$}", parts.whole);
            }
            lay_out(run, parts, &spec)
        }
        _ => {
            if let Value::Undefined(missing) = value {
                return undefined_error(missing);
            }
            let Some(f) = as_float(value) else {
                return failed(format!("must be real number, not {}", value.type_name()));
            };
            let parts = float_parts(f, kind, spec.precision, spec.alternate)?;
            spec.kind = Some(kind);
            lay_out(run, parts, &spec)
        }
    }
}
