//! Filters of sequences.

use super::arguments::{Args, integer, required};
use super::ast::Binary;
use super::compare::{equal, order, sort};
use super::error::{Error, Kind, Result, failed, unsupported};
use super::iterate::{Each, Iter, Path, Stage, collect, iter, reversed};
use super::operators::binary;
use super::render::Run;
use super::unicode;
use super::value::{Seq, Value, undefined_error};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::rc::Rc;

pub const NAMES: [&str; 19] = [
    "batch",
    "dictsort",
    "first",
    "groupby",
    "items",
    "last",
    "list",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "slice",
    "sort",
    "sum",
    "unique",
];

pub fn apply(run: &mut Run, name: &str, value: Value, args: Args) -> Result<Value> {
    match name {
        "list" => {
            args.none(name)?;
            let items = collect(run, &value)?;
            Value::list(items)
        }
        "first" => {
            args.none(name)?;
            let first = iter(&value)?.next(run)?;
            Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
        }
        "last" => {
            args.none(name)?;
            let last = match (&value, reversed(&value)?) {
                (Value::Str(text), _) => text.chars().next_back().map(Value::str),
                (_, Some(items)) => items.next(run)?,
                (_, None) => return failed(format!("'{}' object is not reversible", value.type_name())),
            };
            Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
        }
        "items" => {
            args.none(name)?;
            Iter::waiting(value, Stage::Entries)
        }
        "reverse" => {
            args.none(name)?;
            reverse(run, value)
        }
        "map" => Iter::waiting(value, map_stage(args)),
        "select" | "reject" => Iter::waiting(value, select_stage(args, name == "select", false)),
        "selectattr" | "rejectattr" => Iter::waiting(value, select_stage(args, name == "selectattr", true)),
        "unique" => {
            let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
            let attribute = Path::new(&attribute.unwrap_or(Value::None));
            let seen = HashSet::new();
            Iter::waiting(value, Stage::Unique { attribute, case_sensitive: truth(&case), seen })
        }
        "batch" => {
            let [size, fill] = args.bind(name, ["linecount", "fill_with"])?;
            let size = integer(&required(size, name, "linecount")?, name)?;
            let fill = fill.unwrap_or(Value::None);
            Iter::waiting(value, Stage::Batch { size, fill, gathered: Vec::new() })
        }
        "slice" => {
            let [count, fill] = args.bind(name, ["slices", "fill_with"])?;
            let count = integer(&required(count, name, "slices")?, name)?;
            Iter::waiting(value, Stage::Slices { count, fill: fill.unwrap_or(Value::None) })
        }
        "min" | "max" => {
            let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
            extreme(run, &value, truth(&case), &attribute.unwrap_or(Value::None), name == "max")
        }
        "sum" => {
            let [attribute, start] = args.bind(name, ["attribute", "start"])?;
            sum(run, value, attribute, start)
        }
        "sort" => {
            let [descending, case, attribute] =
                args.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let paths = match &attribute {
                Some(Value::Str(names)) => {
                    names.split(',').map(|name| Path::new(&Value::str(name))).collect()
                }
                other => vec![Path::new(other.as_ref().unwrap_or(&Value::None))],
            };
            let mut keyed = Vec::new();
            for item in collect(run, &value)? {
                let mut keys = Vec::new();
                for path in &paths {
                    keys.push(folded(path.of(run, &item, &Value::None)?, truth(&case)));
                }
                keyed.push((Value::list(keys)?, item));
            }
            let sorted = sort(run.budget, keyed, truth(&descending))?;
            Value::list(sorted.into_iter().map(|(_, item)| item).collect())
        }
        "dictsort" => dict_sort(run, value, args),
        _ => group_by(run, &value, args),
    }
}

fn truth(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::truth)
}

/// Text in lower case, as sorting compares it unless asked otherwise.
pub fn ignore_case(value: Value) -> Value {
    match &value {
        Value::Str(text) | Value::Markup(text) => Value::str(unicode::lower(text)),
        _ => value,
    }
}

fn folded(value: Value, case_sensitive: bool) -> Value {
    if case_sensitive { value } else { ignore_case(value) }
}

pub fn map_attribute(value: Value, attribute: &Value) -> Result<Value> {
    let path = Path::new(attribute);
    // Unlike the filter `map`, `join` and `sum` ask for items of false values too.
    Ok(match value.truth() {
        true => Iter::waiting(value, Stage::Map(Each::Attribute { path, default: Value::None }))?,
        false => value,
    })
}

fn map_stage(args: Args) -> Stage {
    let Args { mut positional, mut named } = args;
    if positional.is_empty()
        && let Some(at) = named.iter().position(|(name, _)| &**name == "attribute")
    {
        let path = Path::new(&named.remove(at).1);
        let default = named.iter().position(|(name, _)| &**name == "default");
        let default = default.map_or(Value::None, |at| named.remove(at).1);
        return match named.first() {
            Some((name, _)) => {
                Stage::Broken(Error::new(Kind::Failed, format!("Unexpected keyword argument '{name}'")))
            }
            None => Stage::Map(Each::Attribute { path, default }),
        };
    }
    if positional.is_empty() {
        return Stage::Broken(Error::new(Kind::Failed, "map requires a filter argument"));
    }
    match positional.remove(0) {
        Value::Str(name) => Stage::Map(Each::Filter(name, Args { positional, named })),
        _ => Stage::Broken(Error::new(Kind::Failed, "No filter of that name found.")),
    }
}

fn select_stage(args: Args, keep: bool, by_attribute: bool) -> Stage {
    let Args { mut positional, named } = args;
    let mut attribute = None;
    if by_attribute {
        if positional.is_empty() {
            return Stage::Broken(Error::new(Kind::Failed, "Missing parameter for attribute name"));
        }
        attribute = Some(Path::new(&positional.remove(0)));
    }
    if positional.is_empty() {
        return Stage::Select { attribute, test: None, keep };
    }
    match positional.remove(0) {
        Value::Str(name) => Stage::Select { attribute, test: Some((name, Args { positional, named })), keep },
        _ => Stage::Broken(Error::new(Kind::Failed, "No test of that name found.")),
    }
}

fn reverse(run: &mut Run, value: Value) -> Result<Value> {
    if let Value::Str(text) = &value {
        run.budget.text(text.len())?;
        run.budget.scan(text.len())?;
        return Ok(Value::str(text.chars().rev().collect::<String>()));
    }
    match reversed(&value)? {
        Some(items) => Ok(Value::Iter(items)),
        None if matches!(value, Value::Markup(_)) => unsupported("this filter on text marked as safe"),
        None => {
            let mut items = collect(run, &value)?;
            items.reverse();
            Value::list(items)
        }
    }
}

fn extreme(
    run: &mut Run,
    value: &Value,
    case_sensitive: bool,
    attribute: &Value,
    largest: bool,
) -> Result<Value> {
    let path = Path::new(attribute);
    let items = iter(value)?;
    let mut best: Option<(Value, Value)> = None;
    while let Some(item) = items.next(run)? {
        let key = folded(path.of(run, &item, &Value::None)?, case_sensitive);
        let better = match &best {
            None => true,
            Some((best, _)) => {
                let (op, wanted) = if largest { (">", Ordering::Greater) } else { ("<", Ordering::Less) };
                order(run.budget, &key, best, op)? == Some(wanted)
            }
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::undefined("No aggregated item, sequence was empty."), |(_, item)| item))
}

fn sum(run: &mut Run, value: Value, attribute: Option<Value>, start: Option<Value>) -> Result<Value> {
    let mut total = start.unwrap_or(Value::Int(0));
    if total.as_str().is_some() {
        return failed("sum() can't sum strings [use ''.join(seq) instead]");
    }
    let value = match attribute {
        None | Some(Value::None) => value,
        Some(attribute) => map_attribute(value, &attribute)?,
    };
    let items = iter(&value)?;
    let mut floats = 0;
    while let Some(item) = items.next(run)? {
        floats += usize::from(matches!(item, Value::Float(_)));
        total = binary(run, Binary::Add, &total, &item)?;
    }
    // Python 3.12 and later sum floats with a correction, earlier ones without.
    if floats > 2 {
        return unsupported("the sum of more than two floats, which depends on the version of Python");
    }
    Ok(total)
}

fn dict_sort(run: &mut Run, value: Value, args: Args) -> Result<Value> {
    let [case, by, descending] = args.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let by_value = match by.as_ref().and_then(Value::as_str).map(|by| by.to_string()).as_deref() {
        None if by.is_none() => false,
        Some("key") => false,
        Some("value") => true,
        _ => return failed("You can only sort by either \"key\" or \"value\""),
    };
    let dict = match &value {
        Value::Dict(dict) => dict,
        Value::Undefined(missing) => return undefined_error(missing),
        _ => return failed(format!("'{}' object has no attribute 'items'", value.type_name())),
    };
    run.budget.items(2 * dict.len())?;
    let mut keyed = Vec::new();
    for entry in dict.entries() {
        let key = if by_value { &entry.value } else { &entry.name };
        let pair = Value::tuple(vec![entry.name.clone(), entry.value.clone()])?;
        keyed.push((folded(key.clone(), truth(&case)), pair));
    }
    let sorted = sort(run.budget, keyed, truth(&descending))?;
    Value::list(sorted.into_iter().map(|(_, pair)| pair).collect())
}

fn group_by(run: &mut Run, value: &Value, args: Args) -> Result<Value> {
    let [attribute, default, case] = args.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let path = Path::new(&required(attribute, "groupby", "attribute")?);
    let default = default.unwrap_or(Value::None);
    let case_sensitive = truth(&case);
    let mut keyed = Vec::new();
    for item in collect(run, value)? {
        keyed.push((folded(path.of(run, &item, &default)?, case_sensitive), item));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in sort(run.budget, keyed, false)? {
        match groups.last_mut() {
            Some((last, items)) if equal(run.budget, last, &key)? => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut all = Vec::new();
    for (mut key, items) in groups {
        if !case_sensitive {
            // The key as the first of its items spells it.
            key = path.of(run, &items[0], &default)?;
        }
        let mut group = Seq::new(vec![key, Value::list(items)?])?;
        group.is_group = true;
        all.push(Value::Tuple(Rc::new(group)));
    }
    Value::list(all)
}

/// The filter `slice`: so many lists of about the same length.
pub fn slices(run: &mut Run, value: &Value, count: i128, fill: &Value) -> Result<Value> {
    let items = collect(run, value)?;
    if count == 0 {
        return failed("integer division or modulo by zero");
    }
    let Ok(count) = usize::try_from(count) else { return Value::list(Vec::new()) };
    run.budget.items(count)?;
    let (each, longer) = (items.len() / count, items.len() % count);
    let mut rest = items.as_slice();
    let mut all = Vec::new();
    for number in 0..count {
        let (part, after) = rest.split_at(each + usize::from(number < longer));
        rest = after;
        let mut part = part.to_vec();
        if number >= longer && !matches!(fill, Value::None) {
            part.push(fill.clone());
        }
        all.push(Value::list(part)?);
    }
    Value::list(all)
}
