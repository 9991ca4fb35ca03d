//! `Model.chat` and `Model.apply_chat_template`: conversations, tools, and answers taken apart.
//!
//! What messages and tools must be like, how a model is told of tools and how its calls are read is what the server does
//! (`trit_server`), so that both give the same.

use crate::answers::{Answers, Prompt};
use crate::arguments::{Keywords, json, other_type, text, to_python, truth};
use crate::errors::{TritError, of_text};
use crate::follow::New;
use crate::generate::{Generation, Shape, given, takes_stream};
use crate::interrupt::{abandonable, stoppable};
use crate::model::Model;
use crate::sampling::{Asked, Form};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trit_runtime::guide::Grammar;
use trit_runtime::text::template::{self, TemplateInput};
use trit_server::answer::Part;
use trit_server::body::Fields;
use trit_server::chat::{Format, Messages};
use trit_server::error::{ApiError, ErrorKind};
use trit_server::openai;
use trit_server::prompt::render;

/// An answer in a conversation.
#[pyclass(frozen, module = "trit", name = "Answer")]
pub struct Answer {
    said: Parts,
    generation: Py<Generation>,
}

/// The parts of an answer so far.
#[derive(Clone, Default)]
struct Parts {
    text: String,
    reasoning: String,
    /// Id, name and the JSON text of the arguments of each call.
    calls: Vec<[String; 3]>,
}

impl Parts {
    fn add(&mut self, part: &Part) {
        match part {
            Part::Text(text) => self.text.push_str(text),
            Part::Reasoning(text) => self.reasoning.push_str(text),
            Part::ToolCall { id, name, .. } => {
                self.calls.push([id.clone(), name.clone(), String::new()]);
            }
            Part::ToolArguments { index, json } => {
                if let Some([_, _, arguments]) = self.calls.get_mut(*index) {
                    arguments.push_str(json);
                }
            }
        }
    }

    fn calls(&self) -> Value {
        let call = |[id, name, arguments]: &[String; 3]| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        self.calls.iter().map(call).collect()
    }
}

#[pymethods]
impl Answer {
    /// What the model said, without its thoughts and calls.
    #[getter]
    fn text(&self) -> &str {
        &self.said.text
    }

    /// What it thought; empty where it thinks nothing.
    #[getter]
    fn reasoning(&self) -> &str {
        &self.said.reasoning
    }

    /// Calls of tools: a list of {"id", "type": "function", "function": {"name", "arguments"}}, where arguments are JSON as
    /// text, as OpenAI has them.
    #[getter]
    fn tool_calls(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        to_python(py, &self.said.calls())
    }

    /// "stop", "tool_calls" where tools were called, "length" or "context".
    #[getter]
    fn finish(&self) -> &'static str {
        match self.generation.get().done().finish {
            "stop" if !self.said.calls.is_empty() => "tool_calls",
            finish => finish,
        }
    }

    /// The answer as a message, a dict to append to the conversation.
    #[getter]
    fn message(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut message = json!({"role": "assistant", "content": self.said.text});
        if !self.said.reasoning.is_empty() {
            message["reasoning_content"] = self.said.reasoning.clone().into();
        }
        if !self.said.calls.is_empty() {
            message["tool_calls"] = self.said.calls();
        }
        to_python(py, &message)
    }

    /// The tokens that the answer was made of, and how long they took.
    #[getter]
    fn generation(&self, py: Python<'_>) -> Py<Generation> {
        self.generation.clone_ref(py)
    }

    fn __str__(&self) -> &str {
        &self.said.text
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = PyString::new(py, &self.said.text).repr()?;
        let (calls, finish) = (self.said.calls.len(), self.finish());
        Ok(format!("<trit.Answer {text}, {calls} tool calls, finish {finish:?}>"))
    }
}

/// A part of an answer, or a piece of one. `str(part)` is its text.
#[pyclass(frozen, get_all, module = "trit", name = "AnswerPart")]
pub struct AnswerPart {
    /// "text", "reasoning", "tool_call" (a call begins) or "tool_arguments" (more of a call's arguments).
    kind: &'static str,
    /// More text, more thoughts, or more of the JSON of arguments; empty where a call begins.
    text: String,
    /// Which call, from 0; None for text and thoughts.
    index: Option<usize>,
    /// The call's id, where it begins.
    id: Option<String>,
    /// The tool's name, where a call begins.
    name: Option<String>,
}

#[pymethods]
impl AnswerPart {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = PyString::new(py, self.name.as_deref().unwrap_or(&self.text)).repr()?;
        Ok(format!("<trit.AnswerPart {}, {text}>", self.kind))
    }
}

/// The shape of an answer in a chat.
struct Chat {
    seed: u64,
    said: Mutex<Parts>,
}

impl Chat {
    fn said(&self) -> MutexGuard<'_, Parts> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shape for Chat {
    fn see(&self, new: &New) {
        if let New::Part(part) = new {
            self.said().add(part);
        }
    }

    fn piece(&self, py: Python<'_>, _: usize, new: New) -> PyResult<Py<PyAny>> {
        let part = |kind, text, index, id, name| AnswerPart { kind, text, index, id, name };
        let part = match new {
            New::Piece { text, .. } | New::Part(Part::Text(text)) => part("text", text, None, None, None),
            New::Part(Part::Reasoning(text)) => part("reasoning", text, None, None, None),
            New::Part(Part::ToolCall { index, id, name }) => {
                part("tool_call", String::new(), Some(index), Some(id), Some(name))
            }
            New::Part(Part::ToolArguments { index, json }) => {
                part("tool_arguments", json, Some(index), None, None)
            }
        };
        Ok(Py::new(py, part)?.into_any())
    }

    fn result(&self, py: Python<'_>, answers: &Answers) -> PyResult<Py<PyAny>> {
        let generation = Py::new(py, Generation::of(&answers.follows()[0], self.seed))?;
        let said = self.said().clone();
        Ok(Py::new(py, Answer { said, generation })?.into_any())
    }
}

/// What is wrong with messages or tools.
fn refused(error: ApiError) -> PyErr {
    match error.kind {
        ErrorKind::Internal => TritError::new_err(error.message),
        _ => PyValueError::new_err(error.message),
    }
}

/// A list of messages, or a text that the user says, as such a list.
fn list_of_messages(messages: &Bound<'_, PyAny>) -> PyResult<Value> {
    let said = match messages.is_instance_of::<PyString>() {
        true => json!([{"role": "user", "content": text("messages", messages)?}]),
        false => json("messages", messages)?,
    };
    match said.is_array() {
        true => Ok(said),
        false => Err(other_type("messages", "a list of dicts with role and content, or a str", messages)),
    }
}

/// A conversation: a list of messages, or a text that the user says.
fn conversation(
    messages: &Bound<'_, PyAny>,
    tools: Option<&Bound<'_, PyAny>>,
    keywords: &mut Keywords<'_>,
) -> PyResult<Messages> {
    let mut fields = Map::new();
    fields.insert("messages".into(), list_of_messages(messages)?);
    if let Some(tools) = tools {
        fields.insert("tools".into(), json("tools", tools)?);
    }
    if let Some(choice) = keywords.take("tool_choice")? {
        let choice = match json("tool_choice", &choice)? {
            Value::String(word) if !["auto", "none", "required"].contains(&word.as_str()) => {
                json!({"type": "function", "function": {"name": word}})
            }
            choice => choice,
        };
        fields.insert("tool_choice".into(), choice);
    }
    for (argument, field) in
        [("parallel_tool_calls", "parallel_tool_calls"), ("continue_last", "continue_final_message")]
    {
        if let Some(value) = keywords.take(argument)? {
            fields.insert(field.into(), truth(argument, &value)?.into());
        }
    }
    if let Some(variables) = keywords.take("template_variables")? {
        if !variables.is_instance_of::<PyDict>() {
            return Err(other_type("template_variables", "a dict", &variables));
        }
        fields.insert("chat_template_kwargs".into(), json("template_variables", &variables)?);
    }
    let mut fields = Fields::parse(Value::Object(fields).to_string().as_bytes()).map_err(refused)?;
    openai::messages::take(&mut fields).map_err(refused)
}

/// `Model.chat`.
pub fn chat(
    py: Python<'_>,
    model: &Model,
    messages: &Bound<'_, PyAny>,
    tools: Option<&Bound<'_, PyAny>>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let mut keywords = Keywords::new("chat", options)?;
    let stream = takes_stream(&mut keywords)?;
    let asked = Asked::take(&mut keywords, model.vocab(py)?, true)?;
    let messages = conversation(messages, tools, &mut keywords)?;
    keywords.finish()?;
    let formed = model.chat_form(py)?;
    let (context, longest) = model.context(py)?;
    let tokenizer = model.tokenizer(py)?;
    let made = stoppable(py, |stop| {
        let (template, form) = &*formed;
        let prompt = render(template, form, &messages, &|| stop.load(Relaxed))?;
        // One token of the context is left for the answer.
        let ids = tokenizer.encode_within(&prompt, false, context.saturating_sub(1));
        Ok((prompt, ids))
    })?;
    let (prompt, ids) = made.map_err(refused)?;
    let ids = ids.map_err(|error| of_text(py, model.path(), error, context, longest))?;
    if ids.is_empty() {
        return Err(PyValueError::new_err("messages: the chat template makes an empty prompt of them"));
    }
    let form = &formed.1;
    let demanded = form.grammar(&messages, &prompt, &format(asked.form.as_ref()));
    let argument = asked.form.as_ref().map_or("tools", |form| form.argument);
    let form = match (demanded, &asked.form) {
        (Some(grammar), _) => Some(Form { argument, grammar: Grammar::Lark(grammar), after: None }),
        (None, asked) => asked.clone(),
    };
    let splitter = Some(formed.1.splitter(&messages, &prompt));
    let answers = Answers::begin(py, model, vec![Prompt { ids, form, splitter }], &asked)?;
    let shape = Chat { seed: asked.seed, said: Mutex::default() };
    given(py, answers, Box::new(shape), stream)
}

/// A form in the words of the server.
fn format(form: Option<&Form>) -> Format {
    match form {
        // Who says where the form begins says it all.
        Some(Form { after: Some(_), .. }) | None => Format::Text,
        Some(form) => match &form.grammar {
            Grammar::JsonObject => Format::JsonObject,
            Grammar::JsonSchema(schema) => Format::JsonSchema(schema.clone()),
            Grammar::Regex(regex) => Format::Regex(regex.clone()),
            Grammar::Lark(grammar) => Format::Lark(grammar.clone()),
            Grammar::Choice(_) => Format::Text,
        },
    }
}

/// What a template is given.
pub struct Said<'a, 'py> {
    /// Messages, or what the user says.
    pub messages: &'a Bound<'py, PyAny>,
    /// Tools that the model may call.
    pub tools: Option<&'a Bound<'py, PyAny>>,
    /// Documents that the answer is to draw on.
    pub documents: Option<&'a Bound<'py, PyAny>>,
    /// Whether the prompt ends where the assistant is to speak.
    pub add_generation_prompt: bool,
    /// Further variables.
    pub variables: Option<&'a Bound<'py, PyDict>>,
}

/// `Model.apply_chat_template`.
pub fn apply_chat_template(
    py: Python<'_>,
    model: &Model,
    said: &Said<'_, '_>,
    tokenize: bool,
) -> PyResult<Py<PyAny>> {
    let &Said { messages, tools, documents, add_generation_prompt, variables } = said;
    let said = list_of_messages(messages)?;
    let list = |name: &str, value: &Bound<'_, PyAny>| {
        let value = json(name, value)?;
        match value.is_array() {
            true => Ok(value),
            false => Err(PyTypeError::new_err(format!("{name} must be a list of dicts"))),
        }
    };
    let mut named = Vec::new();
    for (name, value) in variables.into_iter().flatten() {
        let name = text("a name of a variable", &name)?;
        let value = json(&name, &value)?;
        named.push((name, value));
    }
    let tools = tools.map(|tools| list("tools", tools)).transpose()?;
    let documents = documents.map(|documents| list("documents", documents)).transpose()?;
    let formed = model.chat_form(py)?;
    // A template's values belong to one thread.
    let render = move |stop: &Arc<AtomicBool>| {
        let given =
            |name: &str, value: Option<Value>| value.map(|value| as_template(name, &value)).transpose();
        let variable = |(name, value): (String, Value)| {
            let value = as_template(&name, &value)?;
            Ok((name, value))
        };
        let input = TemplateInput {
            messages: as_template("messages", &said)?,
            tools: given("tools", tools)?,
            documents: given("documents", documents)?,
            add_generation_prompt,
            variables: named.into_iter().map(variable).collect::<Result<_, String>>()?,
        };
        Ok(formed.0.render_input(&input, &|| stop.load(Relaxed)))
    };
    let rendered =
        abandonable(py, render, |_| Ok(()))?.map_err(|words: String| PyValueError::new_err(words))?;
    let (context, longest) = model.context(py)?;
    let failed = |error| of_text(py, model.path(), error, context, longest);
    let prompt = rendered.map_err(failed)?;
    match tokenize {
        false => Ok(PyString::new(py, &prompt).into_any().unbind()),
        true => {
            let tokenizer = model.tokenizer(py)?;
            let ids = abandonable(py, move |_| tokenizer.encode(&prompt, false), |_| Ok(()))?;
            Ok(ids.map_err(failed)?.into_pyobject(py)?.into_any().unbind())
        }
    }
}

fn as_template(name: &str, value: &Value) -> Result<template::Value, String> {
    template::Value::deserialize(value).map_err(|error| format!("{name}: {error}"))
}
