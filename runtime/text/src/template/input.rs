//! What a chat template is rendered with.

use crate::TextError;
use crate::jinja::dict::Dict;
use crate::jinja::error::Result as JinjaResult;
use crate::jinja::value::Value as Inner;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A value that a template computes with. Read from JSON, keys keep their order, and `1` is another number than `1.0`.
#[derive(Clone, Debug)]
pub struct Value(Inner);

impl Value {
    /// Text.
    pub fn text(text: impl Into<String>) -> Value {
        Value(Inner::str(text))
    }

    /// A truth value.
    pub fn bool(value: bool) -> Value {
        Value(Inner::Bool(value))
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self.0, Inner::None)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        Json { depth: 0 }.deserialize(deserializer).map(Value)
    }
}

/// Deepest nesting of what is read.
const MAX_DEPTH: u32 = 128;

#[derive(Clone, Copy)]
struct Json {
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for Json {
    type Value = Inner;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Inner, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json {
    type Value = Inner;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Inner, E> {
        Ok(Inner::None)
    }

    fn visit_none<E>(self) -> Result<Inner, E> {
        Ok(Inner::None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Inner, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Inner, E> {
        Ok(Inner::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Inner, E> {
        Ok(Inner::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Inner, E> {
        Ok(Inner::Int(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Inner, E> {
        // Integers beyond 64 bits arrive as floats, which Python would write otherwise.
        if value.fract() == 0.0 && (9e18..=1e40).contains(&value.abs()) {
            return Err(E::custom(format_args!("the number {value:e} is beyond 64 bits")));
        }
        Ok(Inner::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Inner, E> {
        Ok(Inner::str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Inner, A::Error> {
        let inside = Json { depth: self.depth + 1 };
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            all.push(item);
        }
        Inner::list(all).map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Inner, A::Error> {
        let inside = Json { depth: self.depth + 1 };
        let mut dict = Dict::default();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inside)?;
            dict.insert_str(&name, value).map_err(A::Error::custom)?;
        }
        Ok(Inner::dict(dict))
    }
}

/// What transformers hands to a chat template.
#[derive(Clone, Debug)]
pub struct TemplateInput {
    /// A list of messages, each an object with `role` and mostly `content`.
    pub messages: Value,
    /// Tools that the model may call, as JSON schemas.
    pub tools: Option<Value>,
    /// Documents that the answer is to draw on.
    pub documents: Option<Value>,
    /// Whether the prompt ends where the assistant is to speak.
    pub add_generation_prompt: bool,
    /// Further variables, such as (`enable_thinking`, false). They win over special tokens of the same name.
    pub variables: Vec<(String, Value)>,
}

/// Names that messages give reasoning under, the one that templates read first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl TemplateInput {
    /// A conversation of plain messages.
    ///
    /// # Errors
    /// None in practice: messages of text are not nested.
    pub fn new(messages: &[Message], add_generation_prompt: bool) -> Result<TemplateInput, TextError> {
        let message = |message: &Message| -> JinjaResult<Inner> {
            let mut dict = Dict::default();
            dict.insert_str("role", Inner::str(&*message.role))?;
            dict.insert_str("content", Inner::str(&*message.content))?;
            Ok(Inner::dict(dict))
        };
        let list = messages.iter().map(message).collect::<JinjaResult<_>>().and_then(Inner::list);
        let messages = Value(list.map_err(super::failed)?);
        Ok(TemplateInput {
            messages,
            tools: None,
            documents: None,
            add_generation_prompt,
            variables: Vec::new(),
        })
    }

    /// Bytes that the budget of a rendering grows with.
    pub(super) fn size(&self) -> usize {
        let Inner::List(messages) = &self.messages.0 else { return 0 };
        let text = |value: &Inner| value.as_str().map_or(0, |text| text.len());
        messages
            .iter()
            .map(|message| match message {
                Inner::Dict(dict) => dict.entries().iter().map(|entry| text(&entry.value)).sum(),
                _ => 0,
            })
            .sum()
    }

    /// The variables of the template.
    pub(super) fn variables(&self, special_tokens: &[(String, String)]) -> JinjaResult<Dict> {
        let mut all = Dict::default();
        for (name, token) in special_tokens {
            all.insert_str(name, Inner::str(&**token))?;
        }
        for (name, value) in &self.variables {
            all.insert_str(name, value.0.clone())?;
        }
        let given = |value: &Option<Value>| value.as_ref().map_or(Inner::None, |value| value.0.clone());
        all.insert_str("messages", normalized(&self.messages.0)?)?;
        all.insert_str("tools", given(&self.tools))?;
        all.insert_str("documents", given(&self.documents))?;
        all.insert_str("add_generation_prompt", Inner::Bool(self.add_generation_prompt))?;
        Ok(all)
    }
}

/// Messages as `apply_chat_template` passes them on: without keys that are null, and with reasoning under each name
/// that templates know it by.
fn normalized(messages: &Inner) -> JinjaResult<Inner> {
    let Inner::List(messages) = messages else {
        return crate::jinja::error::failed("the messages are no list");
    };
    let mut all = Vec::with_capacity(messages.len());
    for message in messages.iter() {
        let Inner::Dict(dict) = message else {
            return crate::jinja::error::failed("a message is no object");
        };
        let plain = REASONING.iter().all(|name| dict.get_str(name).is_none());
        if plain && dict.entries().iter().all(|entry| !matches!(entry.value, Inner::None)) {
            all.push(message.clone());
            continue;
        }
        let kept = |name: &&str| dict.get_str(name).filter(|value| !matches!(value, Inner::None)).cloned();
        let reasoning = REASONING.iter().find_map(kept);
        let mut copy = Dict::default();
        if let Some(reasoning) = &reasoning {
            copy.insert_str("thinking", reasoning.clone())?;
        }
        for entry in dict.entries().iter().filter(|entry| !matches!(entry.value, Inner::None)) {
            copy.insert(entry.name.clone(), entry.value.clone())?;
        }
        if let Some(reasoning) = reasoning {
            copy.insert_str("reasoning_content", reasoning)?;
        }
        all.push(Inner::dict(copy));
    }
    Inner::list(all)
}

/// Conversations that users have, and what to call them.
pub(super) fn usual() -> Vec<(&'static str, TemplateInput)> {
    let user = Message::new("user", "What is the weather in Paris?");
    let answer = Message::new("assistant", "It is raining.");
    let system = Message::new("system", "Be brief.");
    let tool = r#"[{"type": "function", "function": {"name": "weather", "description": "Gives the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "A city"}},
        "required": ["city"]}}}]"#;
    let input = |messages: &[Message]| TemplateInput::new(messages, true).ok();
    let with_tool = input(std::slice::from_ref(&user))
        .and_then(|input| Some(TemplateInput { tools: Some(serde_json::from_str(tool).ok()?), ..input }));
    [
        ("a question", input(std::slice::from_ref(&user))),
        ("a conversation", input(&[user.clone(), answer.clone(), user.clone()])),
        ("a conversation that begins with a system message", input(&[system, user.clone(), answer, user])),
        ("a question with a tool", with_tool),
    ]
    .into_iter()
    .filter_map(|(what, input)| Some((what, input?)))
    .collect()
}
