//! `str.format`, in the sandbox: fields look up attributes as templates do.

use super::arguments::Args;
use super::error::{Result, failed, unsupported};
use super::format::{self, push_escape, to_repr, to_str};
use super::numbers::as_float;
use super::render::Run;
use super::spec::{Parts, Spec, float_parts, int_parts, lay_out, lay_out_text};
use super::value::{Value, undefined_error};

/// What fields name.
struct Fields<'a> {
    args: &'a Args,
    mapping: Option<&'a Value>,
    /// The number of the next field without a name; `None` once fields have numbers.
    automatic: Option<usize>,
    numbered: bool,
}

pub fn format(run: &mut Run, text: &str, args: &Args) -> Result<String> {
    let mut fields = Fields { args, mapping: None, automatic: Some(0), numbered: false };
    expand(run, text, &mut fields, 2)
}

pub fn format_map(run: &mut Run, text: &str, mapping: &Value) -> Result<String> {
    let args = Args::default();
    let mut fields = Fields { args: &args, mapping: Some(mapping), automatic: Some(0), numbered: false };
    expand(run, text, &mut fields, 2)
}

/// `depth` is how many formats may still stand in each other.
fn expand(run: &mut Run, text: &str, fields: &mut Fields, depth: u32) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if after.starts_with(brace) {
            out.push_str(brace);
            rest = &after[1..];
            continue;
        }
        if brace == "}" {
            return failed("Single '}' encountered in format string");
        }
        let end = field_end(after)?;
        let field = field(run, &after[..end], fields, depth)?;
        run.budget.grown(out.len() + field.len(), field.len())?;
        out.push_str(&field);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    run.budget.text(out.len())?;
    Ok(out)
}

/// Where the field closes: braces inside of it are fields of its format.
fn field_end(text: &str) -> Result<usize> {
    let (mut open, mut bracket) = (1, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' if open == 1 => bracket = true,
            ']' => bracket = false,
            _ if bracket => {}
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Ok(at);
        }
    }
    failed("expected '}' before end of string")
}

fn field(run: &mut Run, text: &str, fields: &mut Fields, depth: u32) -> Result<String> {
    let mut bracket = false;
    let name_end = text.find(|c| {
        bracket = match c {
            '[' => true,
            ']' => false,
            _ => bracket,
        };
        !bracket && matches!(c, '!' | ':')
    });
    let (name, rest) = text.split_at(name_end.unwrap_or(text.len()));
    let (conversion, spec) = match rest.strip_prefix('!') {
        None => (None, rest.strip_prefix(':').unwrap_or("")),
        Some(rest) => {
            let mut chars = rest.chars();
            let Some(conversion) = chars.next() else {
                return failed("end of string while looking for conversion specifier");
            };
            match chars.next() {
                None => (Some(conversion), ""),
                Some(':') => (Some(conversion), chars.as_str()),
                Some(_) => return failed("expected ':' after conversion specifier"),
            }
        }
    };
    let value = lookup(run, name, fields)?;
    let Some(inside) = depth.checked_sub(1) else { return failed("Max string recursion exceeded") };
    let spec = expand(run, spec, fields, inside)?;
    let value = match conversion {
        None => value,
        Some('s') => Value::Str(to_str(run.budget, &value)?),
        Some('r') => Value::Str(to_repr(run.budget, &value)?),
        Some('a') => {
            let text = to_repr(run.budget, &value)?;
            let mut ascii = String::new();
            for c in text.chars() {
                if c.is_ascii() { ascii.push(c) } else { push_escape(&mut ascii, c) }
            }
            Value::str(ascii)
        }
        Some(other) => return failed(format!("Unknown conversion specifier {other}")),
    };
    lay_out_value(run, &value, &spec)
}

fn lookup(run: &mut Run, name: &str, fields: &mut Fields) -> Result<Value> {
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(end);
    let mut position = None;
    if first.is_empty() {
        let Some(next) = fields.automatic.filter(|_| !fields.numbered) else {
            return failed("cannot switch from manual field specification to automatic field numbering");
        };
        (position, fields.automatic) = (Some(next), Some(next + 1));
    } else if first.bytes().all(|b| b.is_ascii_digit()) {
        if fields.automatic != Some(0) {
            return failed("cannot switch from automatic field numbering to manual field specification");
        }
        fields.numbered = true;
        position = first.parse().ok();
    }
    let mut value = match (position, fields.mapping) {
        (Some(at), _) => match fields.args.positional.get(at) {
            Some(value) => value.clone(),
            None => return failed("Replacement index out of range for positional args tuple"),
        },
        (None, Some(Value::Dict(dict))) => match dict.get_str(first) {
            Some(value) => value.clone(),
            None => return failed(format!("'{first}'")),
        },
        (None, Some(_)) => return unsupported("format_map with what is no dict"),
        (None, None) => match fields.args.named.iter().find(|(name, _)| **name == *first) {
            Some((_, value)) => value.clone(),
            None => return failed(format!("'{first}'")),
        },
    };
    while !rest.is_empty() {
        if let Some(attribute) = rest.strip_prefix('.') {
            let end = attribute.find(['.', '[']).unwrap_or(attribute.len());
            if end == 0 {
                return failed("Empty attribute in format string");
            }
            value = run.attribute(&value, &attribute[..end])?;
            rest = &attribute[end..];
        } else {
            let Some(end) = rest.find(']') else { return failed("Missing ']' in format string") };
            let key = rest.get(1..end).unwrap_or_default();
            if key.is_empty() {
                return failed("Empty attribute in format string");
            }
            let key = match key.bytes().all(|b| b.is_ascii_digit()) {
                true => key.parse().map_or(Value::str(key), Value::Int),
                false => Value::str(key),
            };
            value = run.item(&value, &key)?;
            rest = &rest[end + 1..];
            if !rest.is_empty() && !rest.starts_with(['.', '[']) {
                return failed("Only '.' or '[' may follow ']' in format field specifier");
            }
        }
    }
    Ok(value)
}

fn parse(spec: &str) -> Result<Spec> {
    let mut parsed = Spec::default();
    let mut chars = spec.chars().peekable();
    let mut ahead = spec.chars();
    let (first, second) = (ahead.next(), ahead.next());
    let is_align = |c: Option<char>| matches!(c, Some('<' | '>' | '=' | '^'));
    if is_align(second) {
        (parsed.fill, parsed.align) = (first, second);
        chars.next();
        chars.next();
    } else if is_align(first) {
        parsed.align = first;
        chars.next();
    }
    parsed.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
    if chars.next_if_eq(&'z').is_some() {
        return unsupported("'z' in a format");
    }
    parsed.alternate = chars.next_if_eq(&'#').is_some();
    if chars.next_if_eq(&'0').is_some() {
        parsed.zero = true;
        parsed.fill = parsed.fill.or(Some('0'));
    }
    let number = |chars: &mut std::iter::Peekable<std::str::Chars>| {
        let mut value: Option<usize> = None;
        while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
            value = Some(value.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize));
        }
        value
    };
    parsed.width = number(&mut chars).unwrap_or(0);
    parsed.grouping = chars.next_if(|c| matches!(c, ',' | '_'));
    if chars.peek().is_some_and(|c| matches!(c, ',' | '_')) {
        return failed("Cannot specify both ',' and '_'.");
    }
    if chars.next_if_eq(&'.').is_some() {
        parsed.precision = number(&mut chars);
        if parsed.precision.is_none() {
            return failed("Format specifier missing precision");
        }
    }
    parsed.kind = chars.next();
    if chars.next().is_some() {
        return failed("Invalid format specifier");
    }
    Ok(parsed)
}

fn lay_out_value(run: &mut Run, value: &Value, spec: &str) -> Result<String> {
    if spec.is_empty() {
        return Ok(to_str(run.budget, value)?.to_string());
    }
    let unknown = |kind: char| {
        failed(format!("Unknown format code '{kind}' for object of type '{}'", value.type_name()))
    };
    match value {
        Value::Undefined(missing) => undefined_error(missing),
        Value::Markup(_) => unsupported("formatting text marked as safe"),
        Value::Str(text) => {
            let parsed = parse(spec)?;
            if let Some(kind) = parsed.kind.filter(|kind| *kind != 's') {
                return unknown(kind);
            }
            if parsed.sign.is_some() || parsed.alternate || parsed.grouping.is_some() {
                return failed("Sign, alternate form and grouping not allowed in string format specifier");
            }
            lay_out_text(run, text, &parsed, '<')
        }
        Value::Int(_) | Value::Bool(_) => {
            let parsed = parse(spec)?;
            let i = value.as_int().unwrap_or_default();
            match parsed.kind {
                None | Some('d' | 'b' | 'o' | 'x' | 'X') => {
                    if parsed.precision.is_some() {
                        return failed("Precision not allowed in integer format specifier");
                    }
                    if parsed.grouping == Some(',') && !matches!(parsed.kind, None | Some('d')) {
                        return failed("Cannot specify ',' with this type.");
                    }
                    let parts = int_parts(i, parsed.kind.unwrap_or('d'), parsed.alternate);
                    lay_out(run, parts, &parsed)
                }
                Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => lay_out_float(run, i as f64, &parsed),
                Some('c' | 'n') => unsupported("the types 'c' and 'n' of a format"),
                Some(kind) => unknown(kind),
            }
        }
        Value::Float(f) => {
            let parsed = parse(spec)?;
            match parsed.kind {
                None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => lay_out_float(run, *f, &parsed),
                Some('n') => unsupported("the type 'n' of a format"),
                Some(kind) => unknown(kind),
            }
        }
        _ => failed(format!("unsupported format string passed to {}.__format__", value.type_name())),
    }
}

fn lay_out_float(run: &mut Run, f: f64, spec: &Spec) -> Result<String> {
    debug_assert!(as_float(&Value::Float(f)).is_some());
    let parts = match (spec.kind, spec.precision) {
        // As `str` does.
        (None, None) => {
            let text = format::float(f.abs());
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let (whole, rest) = text.split_at(end);
            Parts {
                negative: f.is_sign_negative() && !f.is_nan(),
                prefix: "",
                whole: whole.into(),
                rest: rest.into(),
            }
        }
        // As `g`, but with an exponent one digit earlier and a digit after the point.
        (None, Some(_)) => return unsupported("a precision without a type in a format of a float"),
        (Some(kind), precision) => float_parts(f, kind, precision, spec.alternate)?,
    };
    lay_out(run, parts, spec)
}
