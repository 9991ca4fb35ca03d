//! A call that is written as a JSON object: `{"name": "weather", "arguments": {"city": "Paris"}}`.
//!
//! Llama 3 says `parameters`, others `arguments`; some write OpenAI's `{"type": "function", "function": {...}}`. Once the name of a
//! tool that there is and the beginning of its arguments have come, it is a call, and its arguments are given out as they
//! come. Where the arguments come before the name, or as a string of JSON, they are held back until they are whole.

use super::json::{Invalid, Role, Scanner};
use super::tools::Tools;

/// What the object of a call may say.
const KEYS: [&str; 6] = ["name", "arguments", "parameters", "function", "type", "id"];

/// Reads one call, character by character, from its opening brace.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonCall {
    scanner: Scanner,
    /// The key that is read, or was read last, with its quotation marks.
    key: String,
    /// The value that is read, where it is held back.
    value: String,
    slot: Slot,
    name: Option<String>,
    arguments: Arguments,
}

/// Which value is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    None,
    Name,
    Arguments,
    /// An object with name and arguments.
    Function,
    /// What makes no difference.
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Arguments {
    #[default]
    None,
    /// They are given out as they come.
    Streaming,
    /// All of them were given out.
    Streamed,
    /// They are whole, and wait for the name.
    Held(String),
}

/// What a character leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is part of the call, and gives nothing.
    Held,
    /// It is the first character of the arguments of a call of this tool.
    Begins(String),
    /// It is another character of the arguments.
    Argument,
    /// It ends the call, all of which was given out.
    Ends,
    /// It ends a call of this tool with these arguments.
    Whole(String, String),
}

impl JsonCall {
    /// Whether arguments have begun to be given out, and have not ended.
    pub fn is_in_arguments(&self) -> bool {
        self.arguments == Arguments::Streaming
    }

    /// Takes the next character. An error says that this is no call of one of the tools, or not any more.
    pub fn step(&mut self, c: char, tools: &Tools) -> Result<Step, Invalid> {
        let depth = self.scanner.depth();
        let role = self.scanner.step(c)?;
        match (depth, role) {
            (0, _) if c != '{' => Err(Invalid),
            (0, _) => Ok(Step::Held),
            (1, Role::Key) => {
                self.key.push(c);
                let known = KEYS.iter().any(|key| format!("\"{key}\"").starts_with(&self.key));
                if known { Ok(Step::Held) } else { Err(Invalid) }
            }
            (1, Role::Colon) => {
                self.slot = self.slot_of_key()?;
                self.key.clear();
                Ok(Step::Held)
            }
            (1, Role::Comma) => {
                self.end_value(tools)?;
                Ok(Step::Held)
            }
            (1, Role::Close) => {
                self.end_value(tools)?;
                self.end()
            }
            (1, Role::Space) => Ok(Step::Held),
            _ => self.value(c, role, tools),
        }
    }

    fn slot_of_key(&self) -> Result<Slot, Invalid> {
        let slot = match self.key.trim_matches('"') {
            "name" => Slot::Name,
            "arguments" | "parameters" => Slot::Arguments,
            "function" => Slot::Function,
            _ => Slot::Other,
        };
        let again = match slot {
            Slot::Name => self.name.is_some(),
            Slot::Arguments => self.arguments != Arguments::None,
            Slot::Function => self.name.is_some() || self.arguments != Arguments::None,
            _ => false,
        };
        if again { Err(Invalid) } else { Ok(slot) }
    }

    /// A character of a value.
    fn value(&mut self, c: char, role: Role, tools: &Tools) -> Result<Step, Invalid> {
        let first = self.value.is_empty();
        match self.slot {
            Slot::Arguments if self.arguments == Arguments::Streaming => {
                if self.scanner.depth() == 1 && role == Role::Close {
                    self.arguments = Arguments::Streamed;
                }
                return Ok(Step::Argument);
            }
            Slot::Arguments if first && c == '{' => {
                if let Some(name) = &self.name {
                    self.arguments = Arguments::Streaming;
                    return Ok(Step::Begins(name.clone()));
                }
            }
            Slot::Arguments if first && !matches!(c, '"' | 'n') => return Err(Invalid),
            Slot::Function if first && c != '{' => return Err(Invalid),
            Slot::Other if role != Role::Scalar => return Err(Invalid),
            Slot::Other => return Ok(Step::Held),
            _ => {}
        }
        self.value.push(c);
        if self.slot == Slot::Name && !tools.names().any(|name| quoted(name).starts_with(&self.value)) {
            return Err(Invalid);
        }
        Ok(Step::Held)
    }

    /// A comma or brace follows a value.
    fn end_value(&mut self, tools: &Tools) -> Result<(), Invalid> {
        let value = std::mem::take(&mut self.value);
        match std::mem::take(&mut self.slot) {
            Slot::Name => self.name = Some(serde_json::from_str(&value).map_err(|_| Invalid)?),
            Slot::Arguments if self.arguments == Arguments::None => {
                self.arguments = Arguments::Held(whole_arguments(&value)?);
            }
            Slot::Function => {
                let (name, arguments) = whole_call(&value, tools)?;
                (self.name, self.arguments) = (Some(name), Arguments::Held(arguments));
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Step, Invalid> {
        match (std::mem::take(&mut self.arguments), self.name.take()) {
            (Arguments::Streamed, _) => Ok(Step::Ends),
            (Arguments::Held(arguments), Some(name)) => Ok(Step::Whole(name, arguments)),
            _ => Err(Invalid),
        }
    }
}

/// A name as JSON writes it.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

/// Arguments that are an object, a string of one, or null.
fn whole_arguments(value: &str) -> Result<String, Invalid> {
    let object = |text: &str| serde_json::from_str::<serde_json::Map<_, _>>(text).is_ok();
    match value {
        "null" => Ok("{}".to_owned()),
        value if value.starts_with('"') => {
            let text: String = serde_json::from_str(value).map_err(|_| Invalid)?;
            if object(&text) { Ok(text) } else { Err(Invalid) }
        }
        value if object(value) => Ok(value.to_owned()),
        _ => Err(Invalid),
    }
}

/// The name and arguments of a call inside a call.
fn whole_call(value: &str, tools: &Tools) -> Result<(String, String), Invalid> {
    let (mut call, mut begun, mut arguments) = (JsonCall::default(), None, String::new());
    for c in value.chars() {
        // One inside another, and no deeper.
        if call.slot == Slot::Function {
            return Err(Invalid);
        }
        match call.step(c, tools)? {
            Step::Held => {}
            Step::Begins(name) => {
                begun = Some(name);
                arguments.push(c);
            }
            Step::Argument => arguments.push(c),
            Step::Ends => return Ok((begun.ok_or(Invalid)?, arguments)),
            Step::Whole(name, arguments) => return Ok((name, arguments)),
        }
    }
    Err(Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What a text gives: characters that were held, the arguments as they came, and how it ended.
    fn read(text: &str) -> Result<(Option<String>, String), usize> {
        let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
        let tools = Tools::new(&[tool("weather"), tool("noop")]);
        let (mut call, mut name, mut arguments) = (JsonCall::default(), None, String::new());
        for (at, c) in text.chars().enumerate() {
            match call.step(c, &tools).map_err(|_| at)? {
                Step::Held => {}
                Step::Begins(tool) => {
                    name = Some(tool);
                    arguments.push(c);
                }
                Step::Argument => arguments.push(c),
                Step::Ends => return Ok((name, arguments)),
                Step::Whole(tool, all) => return Ok((Some(tool), format!("whole {all}"))),
            }
        }
        Err(text.len())
    }

    #[test]
    fn every_way_to_write_a_call_is_read() {
        let ok = |name: &str, arguments: &str| Ok((Some(name.to_owned()), arguments.to_owned()));
        for (text, expected) in [
            (r#"{"name": "weather", "arguments": {"a": [1, {}]}}"#, ok("weather", r#"{"a": [1, {}]}"#)),
            (r#"{"name":"noop","parameters":{}}"#, ok("noop", "{}")),
            (r#"{"type": "function", "name": "noop", "parameters": { } , "id": "x"}"#, ok("noop", "{ }")),
            (r#"{"arguments": {"a": "}"}, "name": "weather"}"#, ok("weather", r#"whole {"a": "}"}"#)),
            (r#"{"name": "weather", "arguments": "{\"a\": 1}"}"#, ok("weather", r#"whole {"a": 1}"#)),
            (r#"{"name": "noop", "arguments": null}"#, ok("noop", "whole {}")),
            (
                r#"{"type": "function", "function": {"name": "weather", "arguments": {"a": 1}}}"#,
                ok("weather", r#"whole {"a": 1}"#),
            ),
            (
                r#"{"function": {"arguments": "{}", "name": "noop"}, "type": "function"}"#,
                ok("noop", "whole {}"),
            ),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_call_is_known_as_early_as_can_be() {
        for (text, at) in [
            ("[", 0),
            (r#"{"title": 1}"#, 3),
            (r#"{"name": "weathen"}"#, 16),
            (r#"{"name": 5}"#, 9),
            (r#"{"name": "weather"}"#, 18),
            (r#"{"name": "noop", "arguments": [1]}"#, 30),
            (r#"{"name": "noop", "arguments": "x"}"#, 33),
            (r#"{"name": "noop", "name": "noop"}"#, 23),
            (r#"{"function": {"function": {"name": "noop", "arguments": {}}}}"#, 60),
            (r#"{"type": {"a": 1}}"#, 9),
        ] {
            assert_eq!(read(text), Err(at), "{text}");
        }
    }
}
