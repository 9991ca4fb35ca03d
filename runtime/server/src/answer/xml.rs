//! A call in the form of Qwen 3.5 and Qwen 3 Coder, whose arguments are written without quotation marks:
//!
//! ```text
//! <function=weather>
//! <parameter=city>
//! Paris
//! </parameter>
//! </function>
//! ```
//!
//! They become a JSON object. Values of parameters that are strings are given out as they come; others are held back until
//! they are whole, because only then it shows what they are.

use super::json::Invalid;
use super::schema::Kinds;
use super::tools::Tools;

const FUNCTION: &str = "<function=";
const PARAMETER: &str = "<parameter=";
const END_PARAMETER: &str = "</parameter>";
const END_FUNCTION: &str = "</function>";

/// Reads one call, character by character.
#[derive(Clone, Debug, Default)]
pub(super) struct XmlCall {
    state: State,
    /// What may become a mark, or a name that is read.
    partial: String,
    tool: String,
    /// How many parameters have begun.
    parameters: usize,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// The mark of a function must come.
    #[default]
    Function,
    /// Its name.
    Name,
    /// Between parameters.
    Inside,
    /// The name of a parameter.
    Key,
    Value(Value),
}

#[derive(Clone, Debug)]
struct Value {
    kinds: Kinds,
    /// Whether nothing came yet.
    first: bool,
    /// Whether a line ended, which belongs to the value only if more comes.
    line_ended: bool,
    /// What is held back.
    held: String,
}

/// What a character leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is part of the call.
    Goes,
    /// It begins a call of this tool.
    Begins(String),
    /// It ends the call.
    Ends,
    /// It does not belong to the call, which ended before this text.
    Ended(String),
}

impl XmlCall {
    /// Takes the next character, and adds what it says of the arguments to `json`. An error says that this is no call of one
    /// of the tools.
    pub fn step(&mut self, c: char, tools: &Tools, json: &mut String) -> Result<Step, Invalid> {
        match &mut self.state {
            State::Function | State::Inside if self.partial.is_empty() && c.is_whitespace() => Ok(Step::Goes),
            State::Function => {
                self.partial.push(c);
                if !FUNCTION.starts_with(&self.partial) {
                    return Err(Invalid);
                }
                if self.partial == FUNCTION {
                    self.partial.clear();
                    self.state = State::Name;
                }
                Ok(Step::Goes)
            }
            State::Name if c == '>' => {
                let name = std::mem::take(&mut self.partial);
                if !tools.names().any(|tool| tool == name) {
                    return Err(Invalid);
                }
                self.tool.clone_from(&name);
                self.state = State::Inside;
                json.push('{');
                Ok(Step::Begins(name))
            }
            State::Name => {
                self.partial.push(c);
                let known = tools.names().any(|tool| tool.starts_with(&self.partial));
                if known { Ok(Step::Goes) } else { Err(Invalid) }
            }
            State::Inside => {
                self.partial.push(c);
                match self.partial.as_str() {
                    PARAMETER => {
                        self.partial.clear();
                        self.state = State::Key;
                        Ok(Step::Goes)
                    }
                    END_FUNCTION => {
                        json.push('}');
                        Ok(Step::Ends)
                    }
                    partial if PARAMETER.starts_with(partial) || END_FUNCTION.starts_with(partial) => {
                        Ok(Step::Goes)
                    }
                    _ => {
                        json.push('}');
                        Ok(Step::Ended(std::mem::take(&mut self.partial)))
                    }
                }
            }
            State::Key if c == '>' => {
                let name = std::mem::take(&mut self.partial);
                if self.parameters > 0 {
                    json.push_str(", ");
                }
                self.parameters += 1;
                json.push_str(&serde_json::Value::from(name.as_str()).to_string());
                json.push_str(": ");
                let kinds = tools.kinds(&self.tool, &name);
                if kinds.only_string() {
                    json.push('"');
                }
                let value = Value { kinds, first: true, line_ended: false, held: String::new() };
                self.state = State::Value(value);
                Ok(Step::Goes)
            }
            State::Key if matches!(c, '\n' | '<') => {
                json.push('}');
                Ok(Step::Ended(format!("{PARAMETER}{}{c}", std::mem::take(&mut self.partial))))
            }
            State::Key => {
                self.partial.push(c);
                Ok(Step::Goes)
            }
            State::Value(value) => {
                self.partial.push(c);
                while !END_PARAMETER.starts_with(&self.partial) {
                    let certain = self.partial.remove(0);
                    value.take(certain, json);
                }
                if self.partial == END_PARAMETER {
                    self.partial.clear();
                    value.end(json);
                    self.state = State::Inside;
                }
                Ok(Step::Goes)
            }
        }
    }

    /// Gives what is held back of arguments that break off.
    pub fn finish(&mut self, json: &mut String) {
        if let State::Value(value) = &mut self.state {
            std::mem::take(&mut self.partial).chars().for_each(|c| value.take(c, json));
            json.push_str(&value.held);
        }
    }
}

impl Value {
    fn take(&mut self, c: char, json: &mut String) {
        // The line after the mark, and the one before the mark that ends the value, end for the sake of layout.
        if std::mem::replace(&mut self.first, false) && c == '\n' {
            return;
        }
        if self.line_ended {
            self.give('\n', json);
        }
        self.line_ended = c == '\n';
        if !self.line_ended {
            self.give(c, json);
        }
    }

    fn give(&mut self, c: char, json: &mut String) {
        if !self.kinds.only_string() {
            self.held.push(c);
            return;
        }
        let quoted = serde_json::Value::from(c.to_string()).to_string();
        json.push_str(&quoted[1..quoted.len() - 1]);
    }

    fn end(&mut self, json: &mut String) {
        match self.kinds.only_string() {
            true => json.push('"'),
            false => json.push_str(&self.kinds.json(&self.held)),
        }
    }
}
