//! Filters: what stands after `|`. Here those of values and numbers, and the way to the others.

use super::arguments::{Args, integer, integer_or, required};
use super::ast::Binary;
use super::error::{Error, Kind, Result, failed, unsupported};
use super::expressions::Support;
use super::format::to_str;
use super::iterate::{self, defined};
use super::numbers::{as_float, integers, parse_float, parse_int, round, truncate};
use super::operators::{sign, too_large};
use super::render::Run;
use super::value::{Str, Value, undefined_error};
use super::{json, numbers, percent, sequence_filters, text_filters};

pub use super::sequence_filters::{ignore_case, slices};

const REFUSED: [&str; 6] = ["pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"];

/// Whether a filter of that name is there.
pub fn support(name: &str) -> Support {
    const VALUES: [&str; 13] = [
        "abs",
        "attr",
        "count",
        "d",
        "default",
        "filesizeformat",
        "float",
        "format",
        "int",
        "length",
        "round",
        "string",
        "tojson",
    ];
    if VALUES.contains(&name)
        || sequence_filters::NAMES.contains(&name)
        || text_filters::NAMES.contains(&name)
    {
        Support::Yes
    } else if REFUSED.contains(&name) {
        Support::No
    } else {
        Support::Unknown
    }
}

pub fn apply(run: &mut Run, name: &str, value: Value, args: Args) -> Result<Value> {
    run.budget.enter()?;
    let filtered = apply_inner(run, name, value, args);
    run.budget.leave();
    filtered
}

fn apply_inner(run: &mut Run, name: &str, value: Value, args: Args) -> Result<Value> {
    match name {
        "default" | "d" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
            let replaced = value.is_undefined() || boolean.is_some_and(|b| b.truth()) && !value.truth();
            Ok(if replaced { default.unwrap_or_else(|| Value::str("")) } else { value })
        }
        "length" | "count" => {
            args.none("len")?;
            if let Value::Callable(callable) = &value
                && let super::callable::Callable::Loop(looped) = &**callable
            {
                return run.loop_length(looped).map(Value::Int);
            }
            Ok(Value::Int(iterate::length(run, &value)? as i128))
        }
        "string" => {
            args.none(name)?;
            match value {
                Value::Str(_) | Value::Markup(_) => Ok(value),
                _ => Ok(Value::Str(to_str(run.budget, &value)?)),
            }
        }
        "tojson" => json::to_json(run, &value, args).map(Value::str),
        "int" => int(&value, args),
        "float" => float(&value, args),
        "abs" => {
            args.none(name)?;
            match &value {
                Value::Float(f) => Ok(Value::Float(f.abs())),
                _ => match value.as_int() {
                    Some(i) if i < 0 => sign(&value, true),
                    Some(i) => Ok(Value::Int(i)),
                    None => failed(format!("bad operand type for abs(): '{}'", value.type_name())),
                },
            }
        }
        "round" => round_filter(&value, args),
        "attr" => {
            let [attribute] = args.bind(name, ["name"])?;
            let attribute = required(attribute, name, "name")?;
            match (&value, attribute.as_str()) {
                (Value::Undefined(missing), _) => undefined_error(missing),
                (_, Some(attribute)) => run.only_attribute(&value, attribute),
                (_, None) => failed("attribute name must be string"),
            }
        }
        "format" => {
            if !args.named.is_empty() && !args.positional.is_empty() {
                return failed("can't handle positional and keyword arguments at the same time");
            }
            let values = match args.named.is_empty() {
                true => Value::tuple(args.positional)?,
                false => {
                    let mut dict = super::dict::Dict::default();
                    for (name, value) in args.named {
                        dict.insert_str(&name, value)?;
                    }
                    Value::dict(dict)
                }
            };
            let format = plain(run, &value)?;
            percent::format(run, &format, &values).map(Value::str)
        }
        "filesizeformat" => file_size(&value, args),
        _ if text_filters::NAMES.contains(&name) => text_filters::apply(run, name, value, args),
        _ if sequence_filters::NAMES.contains(&name) => sequence_filters::apply(run, name, value, args),
        _ if REFUSED.contains(&name) => unsupported(format!("the filter '{name}'")),
        _ => failed(format!("No filter named '{name}' found.")),
    }
}

/// `str(value)`. Text that is marked as safe is refused, because the result would have to be marked too.
pub fn plain(run: &Run, value: &Value) -> Result<Str> {
    match value {
        Value::Markup(_) => unsupported("this filter on text marked as safe"),
        _ => to_str(run.budget, value),
    }
}

fn int(value: &Value, args: Args) -> Result<Value> {
    let [default, base] = args.bind("int", ["default", "base"])?;
    let base = integer_or(base, 10, "int")?;
    if !(base == 0 || (2..=36).contains(&base)) {
        // Python raises ValueError here, which the filter takes for text that is no number.
        return unsupported("this base of an integer");
    }
    let default = default.unwrap_or(Value::Int(0));
    let of_float = |f: f64| match truncate(f) {
        Ok(i) => Ok(Value::Int(i)),
        Err(error) if error.kind == Kind::Failed => Ok(default.clone()),
        Err(error) => Err(error),
    };
    match value {
        Value::Str(text) | Value::Markup(text) => match parse_int(text, base as u32)? {
            Some(i) => Ok(Value::Int(i)),
            None => parse_float(text).map_or(Ok(default.clone()), of_float),
        },
        Value::Float(f) if f.is_infinite() => failed("cannot convert float infinity to integer"),
        Value::Float(f) => of_float(*f),
        Value::Undefined(missing) => undefined_error(missing),
        _ => Ok(value.as_int().map_or(default, Value::Int)),
    }
}

fn float(value: &Value, args: Args) -> Result<Value> {
    let [default] = args.bind("float", ["default"])?;
    let default = default.unwrap_or(Value::Float(0.0));
    Ok(match value {
        Value::Str(text) | Value::Markup(text) => parse_float(text).map_or(default, Value::Float),
        Value::Undefined(missing) => return undefined_error(missing),
        _ => as_float(value).map_or(default, Value::Float),
    })
}

fn round_filter(value: &Value, args: Args) -> Result<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"])?;
    let method = method.unwrap_or_else(|| Value::constant("common"));
    let method = method.as_str().map_or("", |method| method).to_owned();
    if !matches!(method.as_str(), "common" | "ceil" | "floor") {
        return failed("method must be common, ceil or floor");
    }
    let digits = match &precision {
        Some(precision) => integer(precision, "round")?,
        None => 0,
    };
    let value = defined(value.clone())?;
    if method == "common" {
        return match (&value, value.as_int()) {
            (Value::Float(f), _) => Ok(Value::Float(round(*f, digits))),
            (_, Some(i)) if digits >= 0 => Ok(Value::Int(i)),
            (_, Some(i)) => round_int(i, digits),
            _ => failed(format!("type {} doesn't define __round__ method", value.type_name())),
        };
    }
    let Some(number) = as_float(&value) else {
        return failed(format!("'{method}' of a value of type '{}'", value.type_name()));
    };
    let factor = integers(Binary::Power, 10, digits)?;
    let scaled = match (value.as_int(), factor.as_int()) {
        (Some(i), Some(factor)) => match i.checked_mul(factor) {
            Some(scaled) => scaled,
            None => return too_large(),
        },
        _ => {
            let scaled = number * as_float(&factor).unwrap_or(1.0);
            truncate(if method == "ceil" { scaled.ceil() } else { scaled.floor() })?
        }
    };
    numbers::divide_values(scaled, &factor)
}

fn round_int(i: i128, digits: i128) -> Result<Value> {
    let Some(unit) = u32::try_from(-digits).ok().and_then(|places| 10i128.checked_pow(places)) else {
        return Ok(Value::Int(0));
    };
    let (quotient, remainder) = (i.div_euclid(unit), i.rem_euclid(unit));
    // Halves go to the even multiple.
    let up = remainder > unit - remainder || remainder == unit - remainder && quotient % 2 != 0;
    (quotient + i128::from(up)).checked_mul(unit).map_or_else(too_large, |i| Ok(Value::Int(i)))
}

fn file_size(value: &Value, args: Args) -> Result<Value> {
    let [binary] = args.bind("filesizeformat", ["binary"])?;
    let bytes = match float(value, Args { positional: vec![Value::None], named: Vec::new() })? {
        Value::Float(bytes) => bytes,
        _ => return Err(Error::new(Kind::Failed, "could not convert the value to a float")),
    };
    let binary = binary.is_some_and(|binary| binary.truth());
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok(Value::str("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::str(format!("{} Bytes", truncate(bytes)?)));
    }
    let names = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut unit = base;
    let mut text = String::new();
    for name in names {
        unit *= base;
        let name = if binary { format!("{}iB", name.to_uppercase()) } else { format!("{name}B") };
        text = format!("{:.1} {name}", base * bytes / unit);
        if bytes < unit {
            break;
        }
    }
    Ok(Value::str(text))
}
