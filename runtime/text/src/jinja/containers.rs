//! Methods of lists, tuples, dicts, ranges and numbers.

use super::arguments::{Args, integer, required};
use super::compare::equal;
use super::dict::{Dict, View, ViewKind};
use super::error::{Result, failed, unsupported};
use super::iterate::iter;
use super::operators::contains;
use super::render::Run;
use super::value::Value;
use std::rc::Rc;

pub fn call(run: &mut Run, of: &Value, name: &'static str, args: Args) -> Result<Value> {
    match (of, name) {
        (Value::Dict(dict), _) => dict_method(run, dict, name, args),
        (Value::List(items), "copy") => {
            args.none("copy")?;
            run.budget.items(items.len())?;
            Value::list(items.to_vec())
        }
        (Value::List(_) | Value::Tuple(_) | Value::Range(_), "count") => {
            let [wanted] = args.only_positional("count")?;
            let wanted = required(wanted, "count", "value")?;
            let items = iter(of)?;
            let mut count = 0;
            while let Some(item) = items.next(run)? {
                count += i128::from(equal(run.budget, &item, &wanted)?);
            }
            Ok(Value::Int(count))
        }
        (Value::List(items) | Value::Tuple(items), "index") => {
            let [wanted, start, stop] = args.only_positional("index")?;
            let wanted = required(wanted, "index", "value")?;
            let bound = |value: Option<Value>, default: usize| -> Result<usize> {
                let Some(value) = value else { return Ok(default) };
                let index = integer(&value, "index")?;
                let index = if index < 0 { index + items.len() as i128 } else { index };
                Ok(index.clamp(0, items.len() as i128) as usize)
            };
            let (start, stop) = (bound(start, 0)?, bound(stop, items.len())?);
            for at in start..stop {
                if equal(run.budget, &items[at], &wanted)? {
                    return Ok(Value::Int(at as i128));
                }
            }
            failed(format!("the value is not in the {}", of.type_name()))
        }
        (Value::Range(range), "index") => {
            let [wanted] = args.only_positional("index")?;
            let wanted = required(wanted, "index", "value")?;
            match (contains(run, of, &wanted)?, wanted.as_int()) {
                (true, Some(wanted)) => Ok(Value::Int((wanted - range.start) / range.step)),
                (true, None) => unsupported("the place of a float in a range"),
                (false, _) => failed("the value is not in range"),
            }
        }
        (Value::Float(f), "is_integer") => {
            args.none(name)?;
            Ok(Value::Bool(f.is_finite() && f.fract() == 0.0))
        }
        (Value::Float(_), _) => {
            args.none(name)?;
            Ok(of.clone())
        }
        _ => {
            args.none(name)?;
            let i = of.as_int().unwrap_or_default();
            Ok(Value::Int(match name {
                "bit_count" => i128::from(i.unsigned_abs().count_ones()),
                "bit_length" => i128::from(128 - i.unsigned_abs().leading_zeros()),
                _ => i,
            }))
        }
    }
}

fn dict_method(run: &mut Run, dict: &Rc<Dict>, name: &str, args: Args) -> Result<Value> {
    let view = |kind| Value::View(Rc::new(View { dict: dict.clone(), kind }));
    match name {
        "get" => {
            let [key, default] = args.only_positional("get")?;
            let key = required(key, "get", "key")?;
            Ok(dict.get(&key)?.cloned().unwrap_or(default.unwrap_or(Value::None)))
        }
        "items" => args.none(name).map(|()| view(ViewKind::Items)),
        "keys" => args.none(name).map(|()| view(ViewKind::Keys)),
        "values" => args.none(name).map(|()| view(ViewKind::Values)),
        "copy" => {
            args.none(name)?;
            run.budget.items(dict.len())?;
            dict.copied().map(Value::dict)
        }
        _ => from_keys(run, args),
    }
}

/// `dict.fromkeys(iterable, value=None)`.
pub fn from_keys(run: &mut Run, args: Args) -> Result<Value> {
    let [keys, value] = args.only_positional("fromkeys")?;
    let keys = iter(&required(keys, "fromkeys", "iterable")?)?;
    let value = value.unwrap_or(Value::None);
    let mut dict = Dict::default();
    while let Some(key) = keys.next(run)? {
        run.budget.items(4)?;
        dict.insert(key, value.clone())?;
    }
    Ok(Value::dict(dict))
}
