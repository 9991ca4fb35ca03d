//! Grammars, in Lark's notation as llguidance reads it, for answers that must call tools, or must have a format although the
//! model may think before it answers.

use super::form::{Calls, END_CALL, END_THOUGHT, Form, START_CALL, START_THOUGHT};
use crate::chat::{Format, Messages, ToolChoice};
use serde_json::{Value, json};
use trit_runtime::guide::bound_whitespace;

impl Form {
    /// The grammar of an answer to `messages`, of which the template made `prompt`. `None` where the answer is free, or where
    /// `format` alone says what it must be like.
    pub fn grammar(&self, messages: &Messages, prompt: &str, format: &Format) -> Option<String> {
        let tools = match &messages.tool_choice {
            ToolChoice::Never => Vec::new(),
            ToolChoice::Function(only) => {
                functions(messages).filter(|f| f["name"] == only.as_str()).collect()
            }
            ToolChoice::Auto | ToolChoice::Required => functions(messages).collect::<Vec<_>>(),
        };
        let must_call = matches!(messages.tool_choice, ToolChoice::Required | ToolChoice::Function(_));
        let answer = match format {
            _ if must_call => None,
            Format::Text | Format::Lark(_) => return None,
            Format::JsonObject => Some(inline(json!({"type": "object"}))),
            Format::JsonSchema(schema) => Some(inline(schema.clone())),
            Format::Regex(regex) => Some(format!("/{}/", regex.replace('/', "\\/"))),
        };
        if tools.is_empty() && (answer.is_none() || !self.thoughts) {
            return None;
        }
        let mut rules = String::new();
        let thought = match (self.opens_thought(prompt), self.thoughts) {
            (true, _) => "thought ",
            (false, true) => "opened_thought? ",
            (false, false) => "",
        };
        let body = if answer.is_some() && !tools.is_empty() {
            "answer | calls"
        } else if answer.is_some() {
            "answer"
        } else {
            "calls"
        };
        rules.push_str(&format!("start: {thought}body\nbody: {body}\n"));
        if let Some(answer) = answer {
            rules.push_str(&format!("answer: {answer}\n"));
        }
        if self.thoughts {
            let start = self.mark(START_THOUGHT);
            rules.push_str(&format!("opened_thought: {start} thought\n"));
            match self.special.contains(&END_THOUGHT) {
                true => rules.push_str(&format!("thought: /(?s:.*)/ {END_THOUGHT} /\\n*/\n")),
                false => {
                    rules.push_str(&format!(
                        "thought: thinking /\\n*/\nthinking[suffix=\"{END_THOUGHT}\"]: /(?s:.*)/\n"
                    ));
                }
            }
        }
        if !tools.is_empty() {
            self.add_calls(&mut rules, &tools, messages.parallel_tool_calls);
        }
        Some(rules)
    }

    fn mark(&self, mark: &'static str) -> String {
        if self.special.contains(&mark) { mark.to_owned() } else { quoted(mark) }
    }

    fn add_calls(&self, rules: &mut String, tools: &[&Value], parallel: bool) {
        let (start, end) = (self.mark(START_CALL), self.mark(END_CALL));
        let call = (0..tools.len()).map(|at| format!("call_{at}")).collect::<Vec<_>>().join(" | ");
        rules.push_str(&match self.calls {
            Calls::Bare => format!("calls: call\ncall: {call}\n"),
            Calls::Marked | Calls::Xml => {
                let more = if parallel { " (\"\\n\" marked)*" } else { "" };
                format!("calls: marked{more}\nmarked: {start} \"\\n\" call \"\\n\" {end}\ncall: {call}\n")
            }
        });
        for (at, tool) in tools.iter().enumerate() {
            let name = tool["name"].as_str().unwrap_or_default();
            let parameters = tool.get("parameters").filter(|p| p.is_object()).cloned();
            let parameters = parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
            if self.calls == Calls::Xml {
                add_tags(rules, at, name, &parameters);
                continue;
            }
            let key = if self.calls == Calls::Bare { "parameters" } else { "arguments" };
            let open = format!("{{\"name\": {}, \"{key}\": ", Value::from(name));
            rules.push_str(&format!("call_{at}: {} arguments_{at} \"}}\"\n", quoted(&open)));
            rules.push_str(&format!("arguments_{at}: %json {}\n", compact(parameters)));
        }
    }
}

/// Tags for a function and its parameters, in the order of the schema.
fn add_tags(rules: &mut String, at: usize, name: &str, schema: &Value) {
    let empty = serde_json::Map::new();
    let parameters = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required = |name: &str| {
        schema.get("required").and_then(Value::as_array).is_some_and(|all| all.contains(&name.into()))
    };
    let mut call = format!("call_{at}: {}", quoted(&format!("<function={name}>\n")));
    let mut values = String::new();
    for (number, (name, parameter)) in parameters.iter().enumerate() {
        let rule = format!("parameter_{at}_{number}");
        call.push_str(&format!(" {rule}{}", if required(name) { "" } else { "?" }));
        let open = quoted(&format!("<parameter={name}>\n"));
        let end = quoted("\n</parameter>\n");
        let free = super::schema::Kinds::of(schema, name).only_string()
            && parameter.get("enum").is_none()
            && parameter.get("const").is_none();
        if free {
            values.push_str(&format!("{rule}: {open} value_{at}_{number}\n"));
            values.push_str(&format!("value_{at}_{number}[suffix={end}]: /(?s:.*)/\n"));
            continue;
        }
        let choices =
            parameter.get("enum").and_then(Value::as_array).filter(|all| all.iter().all(Value::is_string));
        let value = match choices {
            Some(all) => {
                let all: Vec<String> = all.iter().filter_map(Value::as_str).map(quoted).collect();
                format!("({})", all.join(" | "))
            }
            None => {
                let mut parameter = parameter.clone();
                for definitions in ["$defs", "definitions"] {
                    if let (Some(all), Some(object)) = (schema.get(definitions), parameter.as_object_mut()) {
                        object.insert(definitions.to_owned(), all.clone());
                    }
                }
                values.push_str(&format!("value_{at}_{number}: %json {}\n", compact(parameter)));
                format!("value_{at}_{number}")
            }
        };
        values.push_str(&format!("{rule}: {open} {value} {end}\n"));
    }
    rules.push_str(&format!("{call} \"</function>\"\n{values}"));
}

/// A schema inside of a grammar.
fn inline(mut schema: Value) -> String {
    bound_whitespace(&mut schema);
    format!("%json {schema}")
}

/// A schema whose JSON is written as templates write it, without any more white space.
fn compact(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        let layout = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
        object.entry("x-guidance").or_insert(layout);
    }
    schema
}

/// A text as a grammar writes it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn functions(messages: &Messages) -> impl Iterator<Item = &Value> {
    messages.tools.iter().filter_map(|tool| tool.get("function"))
}

#[cfg(test)]
mod tests;
