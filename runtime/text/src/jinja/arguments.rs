//! Arguments of calls, matched to parameters as Python does.

use super::error::{Result, failed};
use super::value::Value;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Args {
    pub positional: Vec<Value>,
    pub named: Vec<(Arc<str>, Value)>,
}

impl Args {
    /// Values of the parameters, `None` where an argument is missing.
    ///
    /// # Errors
    /// Too many arguments, unknown names, and parameters given twice.
    pub fn bind<const N: usize>(self, of: &str, parameters: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            return failed(format!("{of}() takes at most {N} arguments ({} given)", self.positional.len()));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            match parameters.iter().position(|parameter| **parameter == *name) {
                None => return failed(format!("{of}() got an unexpected keyword argument '{name}'")),
                Some(at) if bound[at].is_some() => {
                    return failed(format!("{of}() got multiple values for argument '{name}'"));
                }
                Some(at) => bound[at] = Some(value),
            }
        }
        Ok(bound)
    }

    /// The same for functions that know no names.
    pub fn only_positional<const N: usize>(self, of: &str) -> Result<[Option<Value>; N]> {
        if let Some((name, _)) = self.named.first() {
            return failed(format!("{of}() takes no keyword arguments, not {name}"));
        }
        self.bind(of, [""; N])
    }

    pub fn none(self, of: &str) -> Result<()> {
        self.only_positional::<0>(of).map(|_| ())
    }
}

/// An argument that has to be there.
pub fn required(argument: Option<Value>, of: &str, name: &str) -> Result<Value> {
    match argument {
        Some(value) => Ok(value),
        None => failed(format!("{of}() missing 1 required positional argument: '{name}'")),
    }
}

/// An argument that is a string.
pub fn string<'a>(value: &'a Value, of: &str) -> Result<&'a str> {
    match value.as_str() {
        Some(text) => Ok(text),
        None => failed(format!("{of}() argument must be str, not {}", value.type_name())),
    }
}

/// An argument that is an integer.
pub fn integer(value: &Value, of: &str) -> Result<i128> {
    match value.as_int() {
        Some(i) => Ok(i),
        None => failed(format!("{of}(): '{}' object cannot be interpreted as an integer", value.type_name())),
    }
}

/// An integer with a default for an absent argument.
pub fn integer_or(value: Option<Value>, default: i128, of: &str) -> Result<i128> {
    value.map_or(Ok(default), |value| integer(&value, of))
}

/// What Python takes for a size or an index of its own: 64 bits.
pub fn size(value: i128, of: &str) -> Result<i128> {
    match i64::try_from(value) {
        Ok(_) => Ok(value),
        Err(_) => failed(format!("{of}(): Python int too large to convert to C ssize_t")),
    }
}
