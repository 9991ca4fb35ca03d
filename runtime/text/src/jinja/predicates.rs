//! Tests: what stands after `is`.

use super::arguments::{Args, required};
use super::ast::{Binary, Comparison};
use super::callable::Callable;
use super::compare::identical;
use super::error::{Result, failed};
use super::expressions::Support;
use super::format::to_str;
use super::iterate;
use super::operators::binary;
use super::render::Run;
use super::value::Value;
use super::{filters, methods};

const TESTS: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Every test of Jinja2 is there.
pub fn support(name: &str) -> Support {
    if TESTS.contains(&name) { Support::Yes } else { Support::Unknown }
}

pub fn apply(run: &mut Run, name: &str, value: Value, args: Args) -> Result<bool> {
    if let Some(comparison) = comparison(name) {
        let [other] = args.only_positional(name)?;
        return run.compare(comparison, &value, &required(other, name, "b")?);
    }
    match name {
        "divisibleby" => {
            let [number] = args.bind(name, ["num"])?;
            let number = required(number, name, "num")?;
            return remainder_is(run, &value, &number, 0);
        }
        "sameas" => {
            let [other] = args.bind(name, ["other"])?;
            return identical(&value, &required(other, name, "other")?);
        }
        "in" => {
            let [container] = args.bind(name, ["seq"])?;
            return run.compare(Comparison::In, &value, &required(container, name, "seq")?);
        }
        _ if support(name) == Support::Unknown => return failed(format!("No test named '{name}' found.")),
        _ => args.none(name)?,
    }
    Ok(match name {
        "odd" => remainder_is(run, &value, &Value::Int(2), 1)?,
        "even" => remainder_is(run, &value, &Value::Int(2), 0)?,
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "filter" => value.as_str().is_some_and(|name| filters::support(name) != Support::Unknown),
        "test" => value.as_str().is_some_and(|name| support(name) != Support::Unknown),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "lower" => methods::is_lower(&to_str(run.budget, &value)?),
        "upper" => methods::is_upper(&to_str(run.budget, &value)?),
        "string" => value.as_str().is_some(),
        "mapping" => matches!(value, Value::Dict(_)),
        "number" => matches!(value, Value::Float(_)) || value.as_int().is_some(),
        // What has a length and items: views of dicts have no items.
        "sequence" => matches!(
            value,
            Value::Undefined(_)
                | Value::Str(_)
                | Value::Markup(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Dict(_)
                | Value::Range(_)
        ),
        "iterable" => match &value {
            Value::Callable(callable) => matches!(**callable, Callable::Loop(_)),
            _ => iterate::iter(&value).is_ok(),
        },
        "callable" => match &value {
            Value::Callable(callable) => callable.is_callable(),
            // The class of undefined values can be called, and raises.
            _ => value.is_undefined(),
        },
        _ => matches!(value, Value::Markup(_)),
    })
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "==" | "eq" | "equalto" => Comparison::Equal,
        "!=" | "ne" => Comparison::NotEqual,
        ">" | "gt" | "greaterthan" => Comparison::Greater,
        ">=" | "ge" => Comparison::GreaterEqual,
        "<" | "lt" | "lessthan" => Comparison::Less,
        "<=" | "le" => Comparison::LessEqual,
        _ => return None,
    })
}

fn remainder_is(run: &mut Run, value: &Value, of: &Value, wanted: i128) -> Result<bool> {
    let remainder = binary(run, Binary::Remainder, value, of)?;
    run.compare(Comparison::Equal, &remainder, &Value::Int(wanted))
}
