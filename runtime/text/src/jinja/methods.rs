//! Methods of strings.

use super::arguments::{Args, integer, integer_or, required, size, string};
use super::error::{Result, failed, unsupported};
use super::iterate::{collect, iter};
use super::render::Run;
use super::unicode::{self, is_line_end, is_space};
use super::value::{Str, Value};
use super::{search, template_format};

pub fn call(run: &mut Run, text: &Str, name: &'static str, args: Args) -> Result<Value> {
    run.budget.scan(text.len())?;
    match name {
        "format" => return template_format::format(run, text, &args).map(Value::str),
        "format_map" => {
            let [mapping] = args.only_positional(name)?;
            let mapping = required(mapping, name, "mapping")?;
            return template_format::format_map(run, text, &mapping).map(Value::str);
        }
        "split" | "rsplit" => return split(run, text, name, args),
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"])?;
            let lines = split_lines(text, keep.is_some_and(|keep| keep.truth()));
            run.budget.items(lines.len())?;
            return Value::list(lines.into_iter().map(Value::str).collect());
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"])?;
            return expand_tabs(run, text, integer_or(size, 8, name)?).map(Value::str);
        }
        "startswith" | "endswith" | "find" | "rfind" | "index" | "rindex" | "count" => {
            return search::search(run, text, name, args);
        }
        "center" | "ljust" | "rjust" | "zfill" => return pad_method(run, text, name, args),
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.only_positional(name)?;
            let stripped = match chars {
                None | Some(Value::None) => strip(text, name, is_space),
                Some(chars) => {
                    let chars = string(&chars, name)?;
                    run.budget.spend(chars.len().saturating_mul(text.len()) / 64)?;
                    strip(text, name, |c| chars.contains(c))
                }
            };
            return Ok(Value::str(stripped));
        }
        "join" => {
            let [items] = args.only_positional(name)?;
            let items = collect(run, &required(items, name, "iterable")?)?;
            return join(run, text, &items);
        }
        "replace" => {
            let [old, new, count] = args.only_positional(name)?;
            let (old, new) = (required(old, name, "old")?, required(new, name, "new")?);
            let count = size(integer_or(count, -1, name)?, name)?;
            return replace(run, text, string(&old, name)?, string(&new, name)?, count).map(Value::str);
        }
        "partition" | "rpartition" => {
            let [separator] = args.only_positional(name)?;
            let separator = required(separator, name, "sep")?;
            return partition(text, string(&separator, name)?, name == "rpartition");
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = args.only_positional(name)?;
            let affix = required(affix, name, "prefix")?;
            let affix = string(&affix, name)?;
            let rest =
                if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            return Ok(Value::str(rest.unwrap_or(text)));
        }
        _ => args.none(name)?,
    }
    run.budget.text(3 * text.len())?;
    Ok(match name {
        "capitalize" => Value::str(unicode::capitalize(text)),
        "lower" => Value::str(unicode::lower(text)),
        "title" => Value::str(unicode::title(text)),
        "upper" => Value::str(text.to_uppercase()),
        "casefold" if text.is_ascii() => Value::str(text.to_ascii_lowercase()),
        "casefold" => return unsupported("casefold of text beyond ASCII"),
        "swapcase" if text.is_ascii() => Value::str(
            text.chars()
                .map(|c| if c.is_ascii_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() })
                .collect::<String>(),
        ),
        "swapcase" => return unsupported("swapcase of text beyond ASCII"),
        "isascii" => Value::Bool(text.is_ascii()),
        "isprintable" => Value::Bool(text.chars().all(unicode::is_printable)),
        "islower" => Value::Bool(is_lower(text)),
        "isupper" => Value::Bool(is_upper(text)),
        "istitle" => Value::Bool(is_title(text)),
        "isidentifier" if text.is_ascii() => {
            let word = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            Value::Bool(word && text.starts_with(|c: char| !c.is_ascii_digit()))
        }
        "isidentifier" => return unsupported("isidentifier of text beyond ASCII"),
        _ => {
            let class = match name {
                "isalnum" => unicode::is_alphanumeric,
                "isalpha" => unicode::is_alphabetic,
                "isdecimal" => |c| unicode::decimal_value(c).is_some(),
                "isdigit" => unicode::is_digit,
                "isnumeric" => unicode::is_numeric,
                "isspace" => is_space,
                _ => return unsupported(format!("'{name}' of a value of type 'str'")),
            };
            Value::Bool(!text.is_empty() && text.chars().all(class))
        }
    })
}

/// `str.islower`: there are cased characters, and all are in lower case.
pub fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase)
        && !text.chars().any(|c| c.is_uppercase() || unicode::is_titlecase(c))
}

/// `str.isupper`.
pub fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase)
        && !text.chars().any(|c| c.is_lowercase() || unicode::is_titlecase(c))
}

fn is_title(text: &str) -> bool {
    let (mut any, mut after_cased) = (false, false);
    for c in text.chars() {
        let upper = c.is_uppercase() || unicode::is_titlecase(c);
        if (upper && after_cased) || (c.is_lowercase() && !after_cased) {
            return false;
        }
        after_cased = upper || c.is_lowercase();
        any |= after_cased;
    }
    any
}

fn strip<'a>(text: &'a str, name: &str, of: impl Fn(char) -> bool) -> &'a str {
    match name {
        "lstrip" => text.trim_start_matches(of),
        "rstrip" => text.trim_end_matches(of),
        _ => text.trim_start_matches(&of).trim_end_matches(&of),
    }
}

/// `text.strip(chars)` for the filter `trim`.
pub fn trim(run: &Run, text: &str, chars: Option<&str>) -> Result<String> {
    run.budget.text(text.len())?;
    run.budget.scan(text.len())?;
    Ok(match chars {
        None => strip(text, "strip", is_space).to_owned(),
        Some(chars) => {
            run.budget.spend(chars.len().saturating_mul(text.len()) / 64)?;
            strip(text, "strip", |c| chars.contains(c)).to_owned()
        }
    })
}

/// `separator.join(items)`.
fn join(run: &Run, separator: &str, items: &[Value]) -> Result<Value> {
    let mut out = String::new();
    for (at, item) in items.iter().enumerate() {
        let Value::Str(text) = item else {
            if matches!(item, Value::Markup(_)) {
                return unsupported("joining text marked as safe");
            }
            return failed(format!("sequence item {at}: expected str instance, {} found", item.type_name()));
        };
        run.budget.grown(out.len() + separator.len() + text.len(), separator.len() + text.len())?;
        if at > 0 {
            out.push_str(separator);
        }
        out.push_str(text);
    }
    Ok(Value::str(out))
}

/// `text.replace(old, new, count)`; a negative count is none.
pub fn replace(run: &Run, text: &str, old: &str, new: &str, count: i128) -> Result<String> {
    run.budget.scan(text.len())?;
    let limit = usize::try_from(count).unwrap_or(usize::MAX);
    let found = match old.is_empty() {
        true => text.chars().count() + 1,
        false => text.matches(old).take(limit).count(),
    }
    .min(limit);
    run.budget.text((text.len() + found.saturating_mul(new.len())).saturating_sub(found * old.len()))?;
    run.budget.spend(found / 8)?;
    Ok(text.replacen(old, new, limit.min(found)))
}

fn partition(text: &str, separator: &str, from_right: bool) -> Result<Value> {
    if separator.is_empty() {
        return failed("empty separator");
    }
    let found = if from_right { text.rfind(separator) } else { text.find(separator) };
    let parts = match found {
        Some(at) => [&text[..at], separator, &text[at + separator.len()..]],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Value::tuple(parts.map(Value::str).into())
}

fn split(run: &mut Run, text: &str, name: &str, args: Args) -> Result<Value> {
    let [separator, limit] = args.bind(name, ["sep", "maxsplit"])?;
    let limit = size(integer_or(limit, -1, name)?, name)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let from_right = name == "rsplit";
    let parts: Vec<&str> = match &separator {
        None | Some(Value::None) => split_space(text, limit, from_right),
        Some(separator) => {
            let separator = string(separator, name)?;
            if separator.is_empty() {
                return failed("empty separator");
            }
            let limit = limit.saturating_add(1);
            if from_right {
                let mut parts: Vec<&str> = text.rsplitn(limit, separator).collect();
                parts.reverse();
                parts
            } else {
                text.splitn(limit, separator).collect()
            }
        }
    };
    run.budget.items(2 * parts.len())?;
    run.budget.text(text.len())?;
    Value::list(parts.into_iter().map(Value::str).collect())
}

fn split_space(text: &str, limit: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    if from_right {
        loop {
            rest = rest.trim_end_matches(is_space);
            if rest.is_empty() || parts.len() == limit {
                break;
            }
            let start =
                rest.char_indices().rev().find(|(_, c)| is_space(*c)).map_or(0, |(i, c)| i + c.len_utf8());
            parts.push(&rest[start..]);
            rest = &rest[..start];
        }
        if !rest.is_empty() {
            parts.push(rest);
        }
        parts.reverse();
        return parts;
    }
    loop {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() || parts.len() == limit {
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

/// `text.splitlines(keepends)`.
pub fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((at, c)) = rest.char_indices().find(|(_, c)| is_line_end(*c)) else {
            lines.push(rest);
            break;
        };
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { c.len_utf8() };
        lines.push(&rest[..if keep_ends { end } else { at }]);
        rest = &rest[end..];
    }
    lines
}

fn expand_tabs(run: &Run, text: &str, size: i128) -> Result<String> {
    let size = usize::try_from(size).unwrap_or(0);
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        if c == '\t' {
            if size > 0 {
                let spaces = size - column % size;
                run.budget.grown(out.len().saturating_add(spaces), spaces)?;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            continue;
        }
        out.push(c);
        column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
    }
    run.budget.text(out.len())?;
    Ok(out)
}

fn pad_method(run: &mut Run, text: &Str, name: &str, args: Args) -> Result<Value> {
    let (width, fill) = if name == "zfill" {
        let [width] = args.only_positional(name)?;
        (width, None)
    } else {
        let [width, fill] = args.only_positional(name)?;
        (width, fill)
    };
    let width = size(integer(&required(width, name, "width")?, name)?, name)?;
    let fill = match &fill {
        None => ' ',
        Some(fill) => {
            let mut chars = string(fill, name)?.chars();
            match (chars.next(), chars.next()) {
                (Some(fill), None) => fill,
                _ => return failed("The fill character must be exactly one character long"),
            }
        }
    };
    pad(run, text, name, width, fill).map(Value::str)
}

/// Text filled up to a width in characters.
pub fn pad(run: &Run, text: &str, how: &str, width: i128, fill: char) -> Result<String> {
    run.budget.scan(text.len())?;
    let length = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
    run.budget.text(text.len().saturating_add(missing.saturating_mul(fill.len_utf8())))?;
    let fills = |count: usize| std::iter::repeat_n(fill, count);
    let mut out = String::new();
    match how {
        "ljust" => {
            out.push_str(text);
            out.extend(fills(missing));
        }
        "rjust" => {
            out.extend(fills(missing));
            out.push_str(text);
        }
        "center" => {
            // CPython puts the odd one to the left where the width is odd.
            let left = missing / 2 + (missing & (length + missing) & 1);
            out.extend(fills(left));
            out.push_str(text);
            out.extend(fills(missing - left));
        }
        _ => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            out.push_str(&text[..text.len() - digits.len()]);
            out.extend(std::iter::repeat_n('0', missing));
            out.push_str(digits);
        }
    }
    Ok(out)
}

/// Whether a value can be iterated over and what that gives, for callers of [`join`].
pub fn join_strings(run: &mut Run, separator: &str, items: &Value) -> Result<Value> {
    let items = iter(items)?;
    let mut out = String::new();
    let mut first = true;
    while let Some(item) = items.next(run)? {
        if !first {
            run.budget.grown(out.len() + separator.len(), separator.len())?;
            out.push_str(separator);
        }
        first = false;
        super::format::push_str(run.budget, &mut out, &item)?;
    }
    Ok(Value::str(out))
}
