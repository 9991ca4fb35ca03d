//! Numbers and text laid out by a format: what `%` and `str.format` share.

use super::error::{Result, failed, unsupported};
use super::render::Run;

/// How a value is laid out.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    pub fill: Option<char>,
    pub align: Option<char>,
    pub sign: Option<char>,
    pub alternate: bool,
    pub zero: bool,
    pub width: usize,
    pub grouping: Option<char>,
    pub precision: Option<usize>,
    pub kind: Option<char>,
}

/// A number: its sign, a prefix such as `0x`, digits, and what follows the digits of the whole part.
pub struct Parts {
    pub negative: bool,
    pub prefix: &'static str,
    pub whole: String,
    pub rest: String,
}

/// Most digits after the point. Python allows more, and nobody asks for them.
const MAX_PRECISION: usize = 5_000;

pub fn check_precision(precision: Option<usize>) -> Result<()> {
    match precision {
        Some(digits) if digits > MAX_PRECISION => unsupported(format!("{digits} digits after the point")),
        _ => Ok(()),
    }
}

/// Digits of a float for `e`, `f`, `g` and `%` and their capitals.
pub fn float_parts(f: f64, kind: char, precision: Option<usize>, alternate: bool) -> Result<Parts> {
    check_precision(precision)?;
    let upper = kind.is_ascii_uppercase();
    let value = if kind == '%' { f * 100.0 } else { f }.abs();
    let precision = precision.unwrap_or(6);
    let mut text = if !value.is_finite() {
        if value.is_nan() { "nan" } else { "inf" }.to_owned()
    } else {
        match kind.to_ascii_lowercase() {
            'e' => exponential(value, precision, alternate),
            'g' => general(value, precision.max(1), alternate),
            _ => {
                let point = if alternate && precision == 0 { "." } else { "" };
                format!("{value:.precision$}{point}")
            }
        }
    };
    if upper {
        text = text.to_ascii_uppercase();
    }
    if kind == '%' {
        text.push('%');
    }
    let end = match value.is_finite() {
        true => text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()),
        false => 0,
    };
    let rest = text.split_off(end);
    Ok(Parts { negative: f.is_sign_negative() && !f.is_nan(), prefix: "", whole: text, rest })
}

fn exponential(value: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    let point = if alternate && precision == 0 { "." } else { "" };
    format!("{mantissa}{point}e{sign}{:02}", exponent.abs())
}

/// So many significant digits, without an exponent where that is not too long.
fn general(value: f64, digits: usize, alternate: bool) -> String {
    let text = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let shorten = |text: String| match text.contains('.') && !alternate {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    let point = |text: String| if alternate && !text.contains('.') { text + "." } else { text };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", point(shorten(mantissa.to_owned())), exponent.abs());
    }
    let places = (digits as i32 - 1 - exponent).max(0) as usize;
    point(shorten(format!("{value:.places$}")))
}

/// Digits of an integer in a base.
pub fn int_parts(i: i128, kind: char, alternate: bool) -> Parts {
    let magnitude = i.unsigned_abs();
    let (whole, prefix) = match kind {
        'b' => (format!("{magnitude:b}"), "0b"),
        'o' => (format!("{magnitude:o}"), "0o"),
        'x' => (format!("{magnitude:x}"), "0x"),
        'X' => (format!("{magnitude:X}"), "0X"),
        _ => (magnitude.to_string(), ""),
    };
    Parts { negative: i < 0, prefix: if alternate { prefix } else { "" }, whole, rest: String::new() }
}

/// A number in its field.
pub fn lay_out(run: &Run, parts: Parts, spec: &Spec) -> Result<String> {
    let sign = match (parts.negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    };
    let head = format!("{sign}{}", parts.prefix);
    let mut whole = parts.whole;
    let align = spec.align.unwrap_or(if spec.zero { '=' } else { '>' });
    let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
    let others = head.len() + parts.rest.chars().count();
    if let Some(separator) = spec.grouping {
        let group = if matches!(spec.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
        run.budget.text(2 * spec.width)?;
        let wanted = if align == '=' && fill == '0' { spec.width.saturating_sub(others) } else { 0 };
        whole = grouped(&whole, separator, group, wanted);
    }
    let length = others + whole.len();
    let missing = spec.width.saturating_sub(length);
    run.budget.text(length.saturating_add(missing.saturating_mul(fill.len_utf8())))?;
    let fills = |count| std::iter::repeat_n(fill, count).collect::<String>();
    Ok(match align {
        '<' => format!("{head}{whole}{}{}", parts.rest, fills(missing)),
        '^' => format!("{}{head}{whole}{}{}", fills(missing / 2), parts.rest, fills(missing - missing / 2)),
        '=' => format!("{head}{}{whole}{}", fills(missing), parts.rest),
        _ => format!("{}{head}{whole}{}", fills(missing), parts.rest),
    })
}

/// Digits in groups, with zeros before them up to a width. A separator never comes first.
fn grouped(digits: &str, separator: char, group: usize, width: usize) -> String {
    let mut reversed = String::new();
    let mut count = 0;
    let mut digits = digits.bytes().rev().map(char::from);
    loop {
        let next = digits.next();
        let pending = usize::from(count > 0 && count % group == 0);
        let Some(digit) = next.or((reversed.len() < width).then_some('0')) else { break };
        if pending == 1 {
            reversed.push(separator);
        }
        reversed.push(digit);
        count += 1;
    }
    reversed.chars().rev().collect()
}

/// Text in its field; the precision is the most characters of it.
pub fn lay_out_text(run: &Run, text: &str, spec: &Spec, default: char) -> Result<String> {
    run.budget.scan(text.len())?;
    let text = match spec.precision {
        Some(limit) => text.char_indices().nth(limit).map_or(text, |(end, _)| &text[..end]),
        None => text,
    };
    let align = spec.align.unwrap_or(default);
    if align == '=' {
        return failed("'=' alignment not allowed in string format specifier");
    }
    let fill = spec.fill.unwrap_or(' ');
    let missing = spec.width.saturating_sub(text.chars().count());
    run.budget.text(text.len().saturating_add(missing.saturating_mul(fill.len_utf8())))?;
    let fills = |count| std::iter::repeat_n(fill, count).collect::<String>();
    Ok(match align {
        '>' => format!("{}{text}", fills(missing)),
        '^' => format!("{}{text}{}", fills(missing / 2), fills(missing - missing / 2)),
        _ => format!("{text}{}", fills(missing)),
    })
}
