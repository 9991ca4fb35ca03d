//! How a model writes thoughts and calls of tools, found out from its chat template.

use trit_runtime::text::ChatTemplate;
use trit_runtime::text::template::TemplateInput;
use trit_runtime::{Model, RuntimeError};

/// Where a thought begins.
pub(super) const START_THOUGHT: &str = "<think>";
/// Where it ends.
pub(super) const END_THOUGHT: &str = "</think>";
/// Where calls begin, in most forms.
pub(super) const START_CALL: &str = "<tool_call>";
/// Where they end.
pub(super) const END_CALL: &str = "</tool_call>";
/// The token of Llama 3 after which something is not meant for the reader.
pub(super) const PYTHON: &str = "<|python_tag|>";

/// How a model writes what is not text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Whether it may think before it answers.
    pub(super) thoughts: bool,
    pub(super) calls: Calls,
    /// Whether the template tells the model of tools.
    pub(super) tells_tools: bool,
    /// What the template takes the arguments of earlier calls for; `None` where it does not write such calls.
    pub(super) earlier: Option<Arguments>,
    /// Marks that are special tokens, which no text spells.
    pub(super) special: Vec<&'static str>,
}

/// How calls are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    /// JSON objects, or a list of them, between marks. Qwen 2.5 and 3, Bonsai, Falcon 3, Hermes.
    Marked,
    /// A JSON object as the whole answer, or after a token. Llama 3.
    Bare,
    /// Tags for function and parameters between marks. Qwen 3.5 and 3.6, Qwen 3 Coder.
    Xml,
}

/// What a template takes the arguments of earlier calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// An object.
    Object,
    /// JSON as text.
    Text,
}

impl Calls {
    /// The mark that begins calls.
    pub fn start(self) -> &'static str {
        match self {
            Calls::Marked | Calls::Xml => START_CALL,
            Calls::Bare => PYTHON,
        }
    }

    /// The marks around calls.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Calls::Marked | Calls::Xml => &[START_CALL, END_CALL],
            Calls::Bare => &[PYTHON],
        }
    }
}

/// A name that no template says by itself.
const PROBE: &str = "probe_7c1f";

impl Form {
    /// A model's chat template and its form; `None` where it has no template.
    ///
    /// # Errors
    /// [`RuntimeError::Text`] where the tokenizer or the template cannot be used.
    pub fn of(model: &Model) -> Result<Option<(ChatTemplate, Form)>, RuntimeError> {
        let Some(tokenizer) = model.tokenizer()? else { return Ok(None) };
        let failed = |source| RuntimeError::Text { path: model.path().to_owned(), source };
        let Some(template) = tokenizer.chat_template().map_err(failed)? else { return Ok(None) };
        let is_special = |token: &str| tokenizer.id_of(token).is_some_and(|id| tokenizer.is_special(id));
        let source = model.manifest().text.chat_template.as_deref().unwrap_or_default();
        let form = Form::find(&template, source, &is_special);
        Ok(Some((template, form)))
    }

    /// The form of a model with this template, whose text is `source`. What the template does with an earlier call shows how
    /// calls are written; where it writes none, its text may say so. `is_special` says which tokens are special.
    pub fn find(template: &ChatTemplate, source: &str, is_special: &dyn Fn(&str) -> bool) -> Form {
        let written = |arguments| earlier_call(template, arguments);
        let (object, text) = (written(Arguments::Object), written(Arguments::Text));
        // Where a template writes an object as it is, it comes out in Python's notation.
        let object_fits = object.as_ref().is_some_and(|out| !out.contains(&format!("': '{PROBE}_value'")));
        let (earlier, example) = match (object, text) {
            (Some(out), _) if object_fits => (Some(Arguments::Object), out),
            (_, Some(out)) => (Some(Arguments::Text), out),
            _ => (None, String::new()),
        };
        let says = |text: &str| example.contains(text) || source.contains(text);
        let bare = example.contains(&format!(r#""name": "{PROBE}", "parameters": "#))
            || source.contains(r#"{"name": function name, "parameters": "#);
        let calls = if says(START_CALL) && says("<function=") {
            Calls::Xml
        } else if says(START_CALL) {
            Calls::Marked
        } else if bare || says(PYTHON) {
            Calls::Bare
        } else {
            Calls::Marked
        };
        let (thoughts, tells_tools) = (source.contains(END_THOUGHT), tells_tools(template));
        let marks = [START_THOUGHT, END_THOUGHT, START_CALL, END_CALL, PYTHON];
        let special = marks.into_iter().filter(|mark| is_special(mark)).collect();
        Form { thoughts, calls, tells_tools, earlier, special }
    }

    /// Whether a prompt ends where a thought has begun.
    pub(super) fn opens_thought(&self, prompt: &str) -> bool {
        self.thoughts && prompt.trim_end().ends_with(START_THOUGHT)
    }
}

fn render(template: &ChatTemplate, json: &str, tools: Option<&str>) -> Option<String> {
    let parsed = |json: &str| serde_json::from_str(json).ok();
    let input = TemplateInput {
        messages: parsed(json)?,
        tools: tools.and_then(parsed),
        documents: None,
        add_generation_prompt: false,
        variables: Vec::new(),
    };
    template.render_input(&input, &|| false).ok()
}

fn tool() -> String {
    format!(
        r#"[{{"type": "function", "function": {{"name": "{PROBE}", "description": "", "parameters":
        {{"type": "object", "properties": {{"key": {{"type": "string"}}}}}}}}}}]"#
    )
}

/// Whether a template tells the model of tools.
fn tells_tools(template: &ChatTemplate) -> bool {
    let question = r#"[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]"#;
    render(template, question, Some(&tool())).is_some_and(|out| out.contains(PROBE))
}

/// How a template writes an earlier call, if it does.
fn earlier_call(template: &ChatTemplate, arguments: Arguments) -> Option<String> {
    let arguments = match arguments {
        Arguments::Object => format!(r#"{{"key": "{PROBE}_value"}}"#),
        Arguments::Text => format!(r#""{{\"key\": \"{PROBE}_value\"}}""#),
    };
    let messages = format!(
        r#"[{{"role": "user", "content": "u"}}, {{"role": "assistant", "content": "", "tool_calls": [{{"id": "call12345",
        "type": "function", "function": {{"name": "{PROBE}", "arguments": {arguments}}}}}]}},
        {{"role": "tool", "tool_call_id": "call12345", "name": "{PROBE}", "content": "{PROBE}_result"}}]"#
    );
    let said =
        |out: &String| out.contains(&format!("{PROBE}_value")) && out.contains(&format!("{PROBE}_result"));
    let with = |tools: Option<&str>| render(template, &messages, tools).filter(said);
    with(Some(&tool())).or_else(|| with(None))
}

#[cfg(test)]
mod tests;
