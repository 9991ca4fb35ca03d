//! Arithmetic of integers and floats, and numbers read from text.

use super::ast::Binary;
use super::error::{Result, failed, unsupported};
use super::operators::too_large;
use super::unicode::{decimal_value, is_space};
use super::value::Value;

/// A number as a float; integers beyond 53 bits are rounded to the nearest, as Python does.
pub fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(f) => Some(*f),
        _ => value.as_int().map(|i| i as f64),
    }
}

pub fn integers(op: Binary, a: i128, b: i128) -> Result<Value> {
    let exact = |value: Option<i128>| value.map_or_else(too_large, |i| Ok(Value::Int(i)));
    match op {
        Binary::Add => exact(a.checked_add(b)),
        Binary::Subtract => exact(a.checked_sub(b)),
        Binary::Multiply => exact(a.checked_mul(b)),
        Binary::Divide if b == 0 => failed("division by zero"),
        Binary::FloorDivide | Binary::Remainder if b == 0 => failed("integer division or modulo by zero"),
        Binary::Divide => {
            let limit = 1 << 53;
            if a.abs() > limit || b.abs() > limit {
                return unsupported("division of integers beyond 53 bits");
            }
            Ok(Value::Float(a as f64 / b as f64))
        }
        Binary::FloorDivide => {
            let Some(quotient) = a.checked_div(b) else { return too_large() };
            Ok(Value::Int(quotient - i128::from(a % b != 0 && (a < 0) != (b < 0))))
        }
        Binary::Remainder => {
            let remainder = a.checked_rem(b).unwrap_or(0);
            Ok(Value::Int(if remainder != 0 && (remainder < 0) != (b < 0) {
                remainder + b
            } else {
                remainder
            }))
        }
        Binary::Power if b < 0 => floats(op, a as f64, b as f64),
        Binary::Power => match a {
            0 | 1 => Ok(Value::Int(if b == 0 { 1 } else { a })),
            -1 => Ok(Value::Int(if b % 2 == 0 { 1 } else { -1 })),
            _ => exact(u32::try_from(b).ok().and_then(|b| a.checked_pow(b))),
        },
    }
}

/// A whole number over a power of ten.
pub fn divide_values(number: i128, by: &Value) -> Result<Value> {
    match (by.as_int(), as_float(by)) {
        (Some(by), _) => integers(Binary::Divide, number, by),
        (None, Some(by)) => floats(Binary::Divide, number as f64, by),
        (None, None) => failed("not a number"),
    }
}

pub fn floats(op: Binary, a: f64, b: f64) -> Result<Value> {
    Ok(Value::Float(match op {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide if b == 0.0 => return failed("float division by zero"),
        Binary::Divide => a / b,
        Binary::FloorDivide if b == 0.0 => return failed("float floor division by zero"),
        Binary::Remainder if b == 0.0 => return failed("float modulo"),
        Binary::FloorDivide => divide(a, b).0,
        Binary::Remainder => divide(a, b).1,
        Binary::Power => return power(a, b),
    }))
}

/// Quotient and remainder, the remainder with the sign of the divisor (`float_divmod` of CPython).
fn divide(a: f64, b: f64) -> (f64, f64) {
    let mut remainder = a % b;
    let mut quotient = (a - remainder) / b;
    if remainder != 0.0 {
        if (b < 0.0) != (remainder < 0.0) {
            remainder += b;
            quotient -= 1.0;
        }
    } else {
        remainder = 0f64.copysign(b);
    }
    if quotient != 0.0 {
        let floor = quotient.floor();
        quotient = if quotient - floor > 0.5 { floor + 1.0 } else { floor };
    } else {
        quotient = 0f64.copysign(a / b);
    }
    (quotient, remainder)
}

fn power(a: f64, b: f64) -> Result<Value> {
    if a == 0.0 && b < 0.0 {
        return failed("0.0 cannot be raised to a negative power");
    }
    if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 {
        return unsupported("complex numbers");
    }
    let value = a.powf(b);
    if value.is_infinite() && a.is_finite() && b.is_finite() {
        return failed("(34, 'Numerical result out of range')");
    }
    Ok(Value::Float(value))
}

/// `int(text, base)`, `None` where Python raises `ValueError`.
pub fn parse_int(text: &str, base: u32) -> Result<Option<i128>> {
    let text = text.trim_matches(is_space);
    let (negative, mut digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut base = base;
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let named = match prefix.as_deref() {
        Some("0b") => 2,
        Some("0o") => 8,
        Some("0x") => 16,
        _ => 0,
    };
    let mut after_prefix = false;
    if named != 0 && (base == named || base == 0) {
        (base, digits, after_prefix) = (named, &digits[2..], true);
    } else if base == 0 {
        base = 10;
        let nonzero = digits.contains(|c: char| c != '0' && c != '_');
        if digits.starts_with('0') && nonzero {
            return Ok(None);
        }
    }
    let mut value: i128 = 0;
    let mut underscore = !after_prefix;
    let mut any = false;
    for c in digits.chars() {
        if c == '_' {
            if underscore {
                return Ok(None);
            }
            underscore = true;
            continue;
        }
        let digit = decimal_value(c).or_else(|| c.to_digit(36)).filter(|d| *d < base);
        let Some(digit) = digit else { return Ok(None) };
        (underscore, any) = (false, true);
        match value.checked_mul(i128::from(base)).and_then(|v| v.checked_add(i128::from(digit))) {
            Some(next) => value = next,
            None => return too_large(),
        }
    }
    Ok((any && !underscore).then_some(if negative { -value } else { value }))
}

/// `float(text)`, `None` where Python raises `ValueError`.
pub fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    let mut plain = String::with_capacity(text.len());
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '_' {
            let next = chars.peek().copied().unwrap_or(' ');
            if !before.is_ascii_digit() || !next.is_ascii_digit() {
                return None;
            }
        } else {
            plain.push(decimal_value(c).and_then(|d| char::from_digit(d, 10)).unwrap_or(c));
        }
        before = c;
    }
    let bare = plain.trim_start_matches(['+', '-']).to_ascii_lowercase();
    let is_word = matches!(bare.as_str(), "inf" | "infinity" | "nan");
    if !is_word && !bare.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    plain.parse().ok()
}

/// `int(value)` of a float.
pub fn truncate(f: f64) -> Result<i128> {
    if f.is_nan() {
        return failed("cannot convert float NaN to integer");
    }
    if f.is_infinite() {
        return failed("cannot convert float infinity to integer");
    }
    if f.abs() >= 1e38 { too_large() } else { Ok(f as i128) }
}

/// `round(f, digits)`: the decimal nearest to the exact value, even ones first.
pub fn round(f: f64, digits: i128) -> f64 {
    if !f.is_finite() || digits > 330 {
        return f;
    }
    if digits >= 0 {
        return format!("{f:.*}", digits as usize).parse().unwrap_or(f);
    }
    if digits < -308 {
        return 0f64.copysign(f);
    }
    // The digits of the whole number, rounded as text.
    let places = (-digits) as usize;
    let whole = format!("{:.0}", f.trunc().abs());
    let fraction = f.fract() != 0.0;
    let padded = format!("{whole:0>width$}", width = places + 1);
    let (kept, dropped) = padded.split_at(padded.len() - places);
    let half = format!("5{}", "0".repeat(places - 1));
    let last_is_odd = kept.bytes().last().is_some_and(|b| b % 2 == 1);
    let up = match dropped.cmp(half.as_str()) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => fraction || last_is_odd,
        std::cmp::Ordering::Less => false,
    };
    let zeros = "0".repeat(places);
    let value: f64 = match up {
        false => format!("{kept}{zeros}").parse().unwrap_or(f),
        true => {
            // One more in the last place kept, carried on.
            let mut digits: Vec<u8> = kept.bytes().collect();
            let mut at = digits.len();
            loop {
                if at == 0 {
                    digits.insert(0, b'1');
                    break;
                }
                at -= 1;
                if digits[at] == b'9' {
                    digits[at] = b'0';
                } else {
                    digits[at] += 1;
                    break;
                }
            }
            format!("{}{zeros}", String::from_utf8_lossy(&digits)).parse().unwrap_or(f)
        }
    };
    value.copysign(f)
}
