//! What a chat template is rendered with, as JSON says it: messages alone, or what is sent to servers.

use super::{TemplateInput, Value};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// Messages that are no bare list.
#[derive(Deserialize)]
struct Request {
    messages: List,
    tools: Option<List>,
    documents: Option<List>,
    add_generation_prompt: Option<bool>,
    /// Further variables of the template, such as `enable_thinking`.
    chat_template_kwargs: Option<BTreeMap<String, Value>>,
}

/// Tools that are no bare list.
#[derive(Deserialize)]
struct Tools {
    tools: List,
}

/// A value that is a list.
struct List(Value);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List, D::Error> {
        deserializer.deserialize_seq(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<List, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(items)).map(List)
    }
}

impl TemplateInput {
    /// Reads a list of messages, or an object with `messages` and perhaps `tools`, `documents`, `add_generation_prompt` and
    /// `chat_template_kwargs`. The prompt ends where the assistant is to speak, unless the object says otherwise.
    ///
    /// # Errors
    /// What is wrong with the JSON, and where.
    pub fn from_json(json: &[u8]) -> Result<TemplateInput, serde_json::Error> {
        let of_list = |messages| Request {
            messages,
            tools: None,
            documents: None,
            add_generation_prompt: None,
            chat_template_kwargs: None,
        };
        let request = read(json, of_list)?;
        Ok(TemplateInput {
            messages: request.messages.0,
            tools: request.tools.map(|list| list.0),
            documents: request.documents.map(|list| list.0),
            add_generation_prompt: request.add_generation_prompt.unwrap_or(true),
            variables: request.chat_template_kwargs.unwrap_or_default().into_iter().collect(),
        })
    }

    /// Reads a list of tools, or an object with `tools`.
    ///
    /// # Errors
    /// What is wrong with the JSON, and where.
    pub fn tools_from_json(json: &[u8]) -> Result<Value, serde_json::Error> {
        Ok(read(json, |tools| Tools { tools })?.tools.0)
    }
}

/// An object, or the list that is the most important of its members.
fn read<T: DeserializeOwned>(json: &[u8], of_list: impl Fn(List) -> T) -> Result<T, serde_json::Error> {
    match json.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(json).map(of_list),
        _ => serde_json::from_slice(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChatTemplate;

    #[test]
    fn a_list_and_an_object_say_the_same() {
        let template = "{{ messages[0].content }} {{ add_generation_prompt }} {{ tools }} {{ thinking }}";
        let template = ChatTemplate::new(template, &[]).unwrap();
        let render = |json: &str| {
            let input = TemplateInput::from_json(json.as_bytes()).unwrap();
            template.render_input(&input, &|| false).unwrap()
        };
        assert_eq!(render(r#" [{"role": "user", "content": "Hi"}]"#), "Hi True None ");
        let object = r#"{"messages": [{"role": "user", "content": "Hi"}], "tools": ["t"], "add_generation_prompt": false,
            "chat_template_kwargs": {"thinking": 1}}"#;
        assert_eq!(render(object), "Hi False ['t'] 1");
        for wrong in ["", "{", "{}", "7", r#"{"messages": {}}"#, r#"{"messages": [], "tools": 1}"#, "[] []"] {
            assert!(TemplateInput::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(TemplateInput::tools_from_json(br#"{"tools": []}"#).is_ok());
        assert!(TemplateInput::tools_from_json(b"{}").is_err());
    }
}
