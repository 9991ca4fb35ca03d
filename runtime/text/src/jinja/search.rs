//! Methods of strings that search, within bounds counted in characters.

use super::arguments::{Args, integer, required, string};
use super::error::{Result, failed};
use super::render::Run;
use super::value::Value;

pub fn search(run: &mut Run, text: &str, name: &str, args: Args) -> Result<Value> {
    let [wanted, start, stop] = args.only_positional(name)?;
    let wanted = required(wanted, name, "sub")?;
    let Some((from, part)) = part(run, text, [start, stop], name)? else {
        // The start lies beyond the end, where Python finds nothing, not even the empty string.
        return Ok(match name {
            "find" | "rfind" => Value::Int(-1),
            "count" => Value::Int(0),
            "startswith" | "endswith" => {
                check_affix(&wanted, name)?;
                Value::Bool(false)
            }
            _ => return failed("substring not found"),
        });
    };
    let place = |found: Option<usize>| match found {
        Some(at) => Value::Int((from + part[..at].chars().count()) as i128),
        None => Value::Int(-1),
    };
    if name == "startswith" || name == "endswith" {
        let fits =
            |affix: &str| if name == "startswith" { part.starts_with(affix) } else { part.ends_with(affix) };
        if let Value::Tuple(affixes) = &wanted {
            for affix in affixes.iter() {
                if fits(string(affix, name)?) {
                    return Ok(Value::Bool(true));
                }
            }
            return Ok(Value::Bool(false));
        }
        check_affix(&wanted, name)?;
        return Ok(Value::Bool(fits(string(&wanted, name)?)));
    }
    let wanted = string(&wanted, name)?;
    Ok(match name {
        "count" if wanted.is_empty() => Value::Int(part.chars().count() as i128 + 1),
        "count" => Value::Int(part.matches(wanted).count() as i128),
        "find" => place(part.find(wanted)),
        "rfind" => place(part.rfind(wanted)),
        _ => {
            let found = if name == "index" { part.find(wanted) } else { part.rfind(wanted) };
            if found.is_none() {
                return failed("substring not found");
            }
            place(found)
        }
    })
}

fn check_affix(affix: &Value, name: &str) -> Result<()> {
    match affix {
        Value::Tuple(_) => Ok(()),
        other => string(other, name).map(|_| ()),
    }
}

/// The part between two bounds, and the characters before it; `None` where it begins beyond the end.
fn part<'a>(
    run: &Run,
    text: &'a str,
    [start, stop]: [Option<Value>; 2],
    name: &str,
) -> Result<Option<(usize, &'a str)>> {
    if start.is_none() && stop.is_none() {
        return Ok(Some((0, text)));
    }
    run.budget.scan(text.len())?;
    let length = text.chars().count() as i128;
    let bound = |value: Option<Value>, default: i128| -> Result<i128> {
        match value {
            None | Some(Value::None) => Ok(default),
            Some(value) => {
                let index = integer(&value, name)?;
                Ok(if index < 0 { (index + length).max(0) } else { index })
            }
        }
    };
    let (start, stop) = (bound(start, 0)?, bound(stop, length)?.min(length));
    if start > stop {
        return Ok(None);
    }
    let byte = |chars: i128| text.char_indices().nth(chars as usize).map_or(text.len(), |(at, _)| at);
    Ok(Some((start as usize, &text[byte(start)..byte(stop)])))
}
