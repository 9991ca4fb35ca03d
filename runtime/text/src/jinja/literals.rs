//! Numbers and strings written in a template.

use super::error::{Error, Kind, Result};
use super::lexer::{Tok, syntax};

/// The number that `rest` begins with, and its bytes. After a dot, `1.2` is an element of an element.
pub fn number(rest: &str, after_dot: bool, line: u32) -> Result<(Tok, usize)> {
    if !after_dot && let Some(length) = float_length(rest) {
        let value: f64 =
            rest[..length].replace('_', "").parse().map_err(|_| syntax("invalid number", line))?;
        if value.is_infinite() {
            return Err(Error::new(
                Kind::Unsupported,
                format!("the number {}, which is infinite", &rest[..length]),
            )
            .at(line));
        }
        return Ok((Tok::Float(value), length));
    }
    let lower = rest.as_bytes().get(1).map(u8::to_ascii_lowercase);
    if rest.starts_with('0')
        && let Some(base) = match lower {
            Some(b'b') => Some(2),
            Some(b'o') => Some(8),
            Some(b'x') => Some(16),
            _ => None,
        }
    {
        let length = digits(&rest[2..], true, |c| c.is_digit(base));
        if length > 0 {
            return Ok((integer(&rest[2..2 + length], base, line)?, 2 + length));
        }
    }
    let length = match rest.starts_with('0') {
        true => 1 + digits(&rest[1..], true, |c| c == '0'),
        false => 1 + digits(&rest[1..], true, |c| c.is_ascii_digit()),
    };
    Ok((integer(&rest[..length], 10, line)?, length))
}

fn integer(text: &str, base: u32, line: u32) -> Result<Tok> {
    i128::from_str_radix(&text.replace('_', ""), base)
        .map(Tok::Int)
        .map_err(|_| Error::new(Kind::Unsupported, format!("the integer {text}, beyond 128 bits")).at(line))
}

/// Bytes of digits, each after at most one underscore; `leading` allows one before the first.
fn digits(text: &str, leading: bool, digit: impl Fn(char) -> bool) -> usize {
    let (mut length, mut underscore) = (0, false);
    for (at, c) in text.char_indices() {
        if digit(c) {
            length = at + 1;
            underscore = false;
        } else if c == '_' && !underscore && (leading || at > 0) {
            underscore = true;
        } else {
            break;
        }
    }
    length
}

/// Bytes of a float: digits with a fraction, an exponent, or both.
fn float_length(rest: &str) -> Option<usize> {
    let decimal = |text: &str| digits(text, false, |c| c.is_ascii_digit());
    let mut length = decimal(rest);
    let mut is_float = false;
    if let Some(fraction) = rest[length..].strip_prefix('.') {
        let more = decimal(fraction);
        if more > 0 {
            length += 1 + more;
            is_float = true;
        }
    }
    if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let more = decimal(&exponent[sign..]);
        if more > 0 {
            length += 1 + sign + more;
            is_float = true;
        }
    }
    is_float.then_some(length)
}

/// The string that `rest` begins with, its escapes resolved as Python's `unicode-escape` does, and its bytes.
pub fn string(rest: &str, line: u32) -> Result<(String, usize)> {
    let mut chars = rest.char_indices();
    let quote = chars.next().map(|(_, c)| c);
    let mut text = String::new();
    while let Some((at, c)) = chars.next() {
        if Some(c) == quote {
            return Ok((text, at + 1));
        }
        if c != '\\' {
            text.push(c);
            continue;
        }
        let Some((at, c)) = chars.next() else { break };
        let used = escape(&rest[at..], c, &mut text, line)?;
        for _ in 1..used {
            chars.next();
        }
    }
    let shown = rest.chars().next().unwrap_or_default();
    Err(syntax(format!("unexpected character {shown:?}; a string is not closed"), line))
}

/// Appends what an escape stands for; characters used after the backslash.
fn escape(rest: &str, c: char, text: &mut String, line: u32) -> Result<usize> {
    let simple = match c {
        '\n' => return Ok(1),
        '\\' | '\'' | '"' => c,
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '0'..='7' => {
            let octal: String = rest.chars().take(3).take_while(|c| c.is_digit(8)).collect();
            let code = u32::from_str_radix(&octal, 8).unwrap_or_default();
            text.extend(char::from_u32(code));
            return Ok(octal.len());
        }
        'x' => return hexadecimal(rest, 2, text, line),
        'u' => return hexadecimal(rest, 4, text, line),
        'U' => return hexadecimal(rest, 8, text, line),
        'N' => return Err(Error::new(Kind::Unsupported, "\\N{...} in a string").at(line)),
        // Jinja2 writes characters beyond ASCII as escapes before it resolves escapes, so that the backslash escapes
        // the backslash of that.
        c if !c.is_ascii() => {
            let code = c as u32;
            text.push('\\');
            text.push_str(&match code {
                0..=0xff => format!("x{code:02x}"),
                0x100..=0xffff => format!("u{code:04x}"),
                _ => format!("U{code:08x}"),
            });
            return Ok(1);
        }
        // Unknown escapes stay as they are.
        c => {
            text.push('\\');
            c
        }
    };
    text.push(simple);
    Ok(1)
}

fn hexadecimal(rest: &str, digits: usize, text: &mut String, line: u32) -> Result<usize> {
    let hex: String = rest.chars().skip(1).take(digits).take_while(char::is_ascii_hexdigit).collect();
    if hex.len() < digits {
        return Err(syntax(format!("truncated \\{} escape", &rest[..1]), line));
    }
    let code = u32::from_str_radix(&hex, 16).unwrap_or(u32::MAX);
    match char::from_u32(code) {
        Some(c) => text.push(c),
        None if (0xd800..0xe000).contains(&code) => {
            let message = format!("the lone surrogate \\u{hex} in a string, which is no character");
            return Err(Error::new(Kind::Unsupported, message).at(line));
        }
        None => return Err(syntax("illegal Unicode character", line)),
    }
    Ok(1 + digits)
}
