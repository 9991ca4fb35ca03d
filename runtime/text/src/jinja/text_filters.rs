//! Filters of text.

use super::arguments::{Args, integer_or, required, size, string};
use super::error::{Result, failed, unsupported};
use super::filters::plain;
use super::format::to_str;
use super::iterate::{collect, iter};
use super::methods::{pad, replace, split_lines, trim};
use super::render::Run;
use super::unicode::{self, is_alphanumeric, is_space};
use super::value::{Str, Value, undefined_error};

pub const NAMES: [&str; 16] = [
    "capitalize",
    "center",
    "e",
    "escape",
    "forceescape",
    "indent",
    "lower",
    "replace",
    "safe",
    "title",
    "trim",
    "truncate",
    "upper",
    "urlencode",
    "wordcount",
    "join",
];

pub fn apply(run: &mut Run, name: &str, value: Value, args: Args) -> Result<Value> {
    match name {
        "join" => return join(run, value, args),
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let count = match count {
                None | Some(Value::None) => -1,
                count => size(integer_or(count, -1, name)?, name)?,
            };
            let text = to_str(run.budget, &value)?;
            let old = to_str(run.budget, &required(old, name, "old")?)?;
            let new = to_str(run.budget, &required(new, name, "new")?)?;
            return replace(run, &text, &old, &new, count).map(Value::str);
        }
        "indent" => return indent(run, value, args),
        "truncate" => return truncate(run, value, args),
        "trim" => {
            let [chars] = args.bind(name, ["chars"])?;
            let text = plain(run, &value)?;
            let chars = match &chars {
                None | Some(Value::None) => None,
                Some(chars) => Some(string(chars, name)?),
            };
            return trim(run, &text, chars).map(Value::str);
        }
        "center" => {
            let [width] = args.bind(name, ["width"])?;
            let width = size(integer_or(width, 80, name)?, name)?;
            let text = plain(run, &value)?;
            return pad(run, &text, "center", width, ' ').map(Value::str);
        }
        _ => args.none(name)?,
    }
    if name == "urlencode" {
        return url_encode(run, &value);
    }
    if matches!(name, "e" | "escape" | "safe") && matches!(value, Value::Markup(_)) {
        return Ok(value);
    }
    let text = match name {
        "e" | "escape" | "forceescape" | "safe" => to_str(run.budget, &value)?,
        _ => plain(run, &value)?,
    };
    run.budget.scan(text.len())?;
    run.budget.text(3 * text.len())?;
    Ok(match name {
        "capitalize" => Value::str(unicode::capitalize(&text)),
        "lower" => Value::str(unicode::lower(&text)),
        "upper" => Value::str(text.to_uppercase()),
        "title" => Value::str(title(&text)),
        "wordcount" => Value::Int(word_count(&text)),
        "safe" => Value::Markup(text),
        _ => Value::Markup(escape(run, &text)?),
    })
}

fn escape(run: &Run, text: &str) -> Result<Str> {
    let specials = text.bytes().filter(|b| b"&<>'\"".contains(b)).count();
    run.budget.text(text.len() + 5 * specials)?;
    let mut out = String::with_capacity(text.len() + 5 * specials);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    Ok(out.into())
}

fn join(run: &mut Run, value: Value, args: Args) -> Result<Value> {
    let [separator, attribute] = args.bind("join", ["d", "attribute"])?;
    let separator = match separator {
        Some(separator) => to_str(run.budget, &separator)?,
        None => Str::Const("".into()),
    };
    let items = match attribute {
        None | Some(Value::None) => value,
        Some(attribute) => super::sequence_filters::map_attribute(value, &attribute)?,
    };
    super::methods::join_strings(run, &separator, &items)
}

/// The filter `title`: words begin after spaces, hyphens and opening brackets.
fn title(text: &str) -> String {
    let begins = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| begins(c) != begins(first)).unwrap_or(rest.len());
        let (item, after) = rest.split_at(end);
        out.extend(first.to_uppercase());
        out.push_str(&unicode::lower(&item[first.len_utf8()..]));
        rest = after;
    }
    out
}

fn word_count(text: &str) -> i128 {
    let (mut count, mut inside) = (0, false);
    for c in text.chars() {
        let word = c == '_' || is_alphanumeric(c);
        count += i128::from(word && !inside);
        inside = word;
    }
    count
}

fn indent(run: &mut Run, value: Value, args: Args) -> Result<Value> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
    let text = match &value {
        Value::Str(text) => text.clone(),
        Value::Undefined(missing) => return undefined_error(missing),
        Value::Markup(_) => return unsupported("this filter on text marked as safe"),
        _ => return failed(format!("unsupported operand type(s) for +=: '{}' and 'str'", value.type_name())),
    };
    let indentation = match width {
        Some(Value::Str(text)) => text.to_string(),
        width => {
            let width = usize::try_from(integer_or(width, 4, "indent")?).unwrap_or(0);
            run.budget.text(width)?;
            " ".repeat(width)
        }
    };
    let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let (first, blank) = (truth(first), truth(blank));
    let with_end = format!("{}\n", &*text);
    let lines = split_lines(&with_end, false);
    run.budget.scan(text.len())?;
    run.budget.text(text.len() + lines.len().saturating_add(1).saturating_mul(indentation.len() + 1))?;
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        let indented = if at == 0 { first } else { blank || !line.is_empty() };
        if indented {
            out.push_str(&indentation);
        }
        out.push_str(line);
    }
    Ok(Value::str(out))
}

fn truncate(run: &mut Run, value: Value, args: Args) -> Result<Value> {
    let name = "truncate";
    let [length, kill_words, end, leeway] = args.bind(name, ["length", "killwords", "end", "leeway"])?;
    let length = integer_or(length, 255, name)?;
    let end = end.unwrap_or_else(|| Value::constant("..."));
    let end = string(&end, name)?.to_owned();
    let leeway = match leeway {
        None | Some(Value::None) => 5,
        leeway => integer_or(leeway, 5, name)?,
    };
    let end_length = end.chars().count() as i128;
    if length < end_length || leeway < 0 {
        return failed(format!("expected length >= {end_length} and leeway >= 0, got {length} and {leeway}"));
    }
    let text = match &value {
        Value::Str(text) => text.clone(),
        Value::Undefined(_) => return Ok(value),
        Value::Markup(_) => return unsupported("this filter on text marked as safe"),
        other => {
            if super::iterate::length(run, other)? as i128 <= length.saturating_add(leeway) {
                return Ok(value);
            }
            return unsupported("truncating what is no text");
        }
    };
    run.budget.scan(text.len())?;
    if text.chars().count() as i128 <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let kept = (length - end_length) as usize;
    let cut = text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at);
    let mut cut = &text[..cut];
    if !kill_words.is_some_and(|kill| kill.truth()) {
        cut = cut.rsplit_once(' ').map_or(cut, |(before, _)| before);
    }
    run.budget.text(cut.len() + end.len())?;
    Ok(Value::str(format!("{cut}{end}")))
}

fn url_encode(run: &mut Run, value: &Value) -> Result<Value> {
    let pairs = match value {
        Value::Dict(dict) => {
            let pairs =
                dict.entries().iter().map(|entry| (entry.name.clone(), entry.value.clone())).collect();
            Some(pairs)
        }
        Value::Str(_) | Value::Markup(_) => None,
        other => match iter(other) {
            Err(_) => None,
            Ok(items) => {
                let mut pairs = Vec::new();
                while let Some(pair) = items.next(run)? {
                    let mut pair = collect(run, &pair)?.into_iter();
                    let (Some(key), Some(value), None) = (pair.next(), pair.next(), pair.next()) else {
                        return failed("expected pairs to encode");
                    };
                    pairs.push((key, value));
                }
                Some(pairs)
            }
        },
    };
    let mut out = String::new();
    let Some(pairs) = pairs else {
        let text = to_str(run.budget, value)?;
        quote(run, &mut out, &text, false)?;
        return Ok(Value::str(out));
    };
    for (at, (key, value)) in pairs.iter().enumerate() {
        out.push_str(if at > 0 { "&" } else { "" });
        let (key, value) = (to_str(run.budget, key)?, to_str(run.budget, value)?);
        quote(run, &mut out, &key, true)?;
        out.push('=');
        quote(run, &mut out, &value, true)?;
    }
    Ok(Value::str(out))
}

fn quote(run: &Run, out: &mut String, text: &str, query: bool) -> Result<()> {
    run.budget.scan(text.len())?;
    run.budget.grown(out.len() + 3 * text.len(), 3 * text.len())?;
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(char::from(b)),
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    Ok(())
}
