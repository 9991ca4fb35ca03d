//! Chat templates: a conversation to the prompt that transformers makes of it.
//!
//! Templates come from strangers. They run in an engine of our own (`jinja`) inside a budget of steps,
//! bytes, depth and time, and can be interrupted.

mod input;
mod request;

pub use input::{Message, TemplateInput, Value};

use crate::TextError;
use crate::jinja::budget::Budget;
use crate::jinja::error::{Error, Kind};
use crate::jinja::{self, memory};
use trit_format::manifest::TextInfo;

/// A parsed chat template.
pub struct ChatTemplate {
    tree: jinja::Tree,
    special_tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Parses a template. `special_tokens` are variables of it, such as (`bos_token`, `<s>`).
    ///
    /// # Errors
    /// [`TextError::Template`] with the line of what Jinja2 refuses too, of what is not supported, and for a template
    /// of more than a mebibyte.
    pub fn new(source: &str, special_tokens: &[(String, String)]) -> Result<ChatTemplate, TextError> {
        let tree = jinja::parse(source).map_err(failed)?;
        Ok(ChatTemplate { tree, special_tokens: special_tokens.to_vec() })
    }

    /// The template that a bundle has; `None` where it has none.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`].
    pub fn of(info: &TextInfo) -> Result<Option<ChatTemplate>, TextError> {
        let compile = |source: &String| ChatTemplate::new(source, &info.special_tokens);
        info.chat_template.as_ref().map(compile).transpose()
    }

    /// The prompt for a conversation. `add_generation_prompt` ends it where the assistant is to speak.
    ///
    /// # Errors
    /// As [`ChatTemplate::render_input`].
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        self.render_input(&TemplateInput::new(messages, add_generation_prompt)?, &|| false)
    }

    /// The prompt for anything that transformers could hand to the template. `interrupted` is called every few thousand steps,
    /// which take a fraction of a millisecond. Where it returns true, the rendering ends.
    ///
    /// # Errors
    /// [`TextError::Template`] with what the template refused, or where it went wrong, or what took too much;
    /// [`TextError::Interrupted`].
    pub fn render_input(
        &self,
        input: &TemplateInput,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<String, TextError> {
        let before = memory::live();
        let variables = input.variables(&self.special_tokens).map_err(failed)?;
        let size = memory::live().saturating_sub(before) + input.size();
        jinja::render(&self.tree, &variables, &Budget::new(size, interrupted)).map_err(failed)
    }

    /// Renders what users of a chat ask for, and names each case that fails: a question, a conversation, a conversation that
    /// begins with a system message, and one with a tool.
    pub fn check(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (what, input) in input::usual() {
            for add_generation_prompt in [true, false] {
                let input = TemplateInput { add_generation_prompt, ..input.clone() };
                if let Err(error) = self.render_input(&input, &|| false) {
                    failures.push(format!("the chat template fails for {what}: {}", reason(&error)));
                    break;
                }
            }
        }
        failures
    }
}

/// An error without the words that every error of a template begins with.
fn reason(error: &TextError) -> String {
    match error {
        TextError::Template(reason) => reason.clone(),
        other => other.to_string(),
    }
}

fn failed(error: Error) -> TextError {
    match error.kind {
        Kind::Interrupted => TextError::Interrupted,
        _ => TextError::Template(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{cases, fables, ids};

    fn render(source: &str, messages: &[Message]) -> Result<String, TextError> {
        ChatTemplate::new(source, &[("bos_token".to_owned(), "<s>".to_owned())])?.render(messages, true)
    }

    #[test]
    fn the_shipped_template_renders_as_in_transformers_with_one_bos() {
        let (tokenizer, cases) = (fables(), cases());
        let messages: Vec<Message> = serde_json::from_value(cases["chat"]["messages"].clone()).unwrap();
        let template = tokenizer.chat_template().unwrap().unwrap();
        assert_eq!(template.render(&messages, true).unwrap(), cases["chat"]["rendered"].as_str().unwrap());
        let prompt = template.render(&messages, true).unwrap();
        assert_eq!(tokenizer.encode(&prompt, false).unwrap(), ids(&cases["chat"]["ids"]));
        assert_eq!(template.check(), Vec::<String>::new());
    }

    #[test]
    fn errors_say_what_and_where() {
        let message = |source: &str| render(source, &[]).unwrap_err().to_string();
        assert_eq!(
            message("{{ raise_exception('roles must alternate') }}"),
            "chat template: roles must alternate (line 1)"
        );
        let syntax = message("\n{% for %}");
        assert!(syntax.contains("syntax error") && syntax.contains("(line 2)"), "{syntax}");
        assert_eq!(
            message("{{ messages.frob() }}"),
            "chat template: 'list' has no attribute 'frob' (line 1)"
        );
        assert_eq!(
            message("a\n{% include 'x' %}"),
            "chat template: not supported: the tag 'include' (line 2)"
        );
        assert_eq!(
            message("a\n\n{{ 'x' | pprint }}"),
            "chat template: not supported: the filter 'pprint' (line 3)"
        );
        assert_eq!(
            message("{{ 1 }}\n{{ none[0].x + 1 }}"),
            "chat template: NoneType has no element 0 (line 2)"
        );
    }

    #[test]
    fn the_check_names_the_conversation_that_fails() {
        let source =
            "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}x";
        let failures = ChatTemplate::new(source, &[]).unwrap().check();
        assert_eq!(
            failures,
            [
                "the chat template fails for a conversation that begins with a system message: No system role (line 1)"
            ]
        );
        assert!(ChatTemplate::new("{{ tools[0] }}{{ missing.x }}", &[]).unwrap().check().len() == 4);
    }

    #[test]
    fn values_from_json_keep_their_order_and_their_numbers() {
        let input = TemplateInput {
            messages: serde_json::from_str(
                r#"[{"z": 1, "a": 1.0, "m": [true, null], "n": 18446744073709551615}]"#,
            )
            .unwrap(),
            ..TemplateInput::new(&[], false).unwrap()
        };
        let template = ChatTemplate::new("{{ messages[0] }}", &[]).unwrap();
        assert_eq!(
            template.render_input(&input, &|| false).unwrap(),
            "{'z': 1, 'a': 1.0, 'm': [True, None], 'n': 18446744073709551615}"
        );
        let beyond = serde_json::from_str::<Value>("[123456789012345678901234567890]").unwrap_err();
        assert!(beyond.to_string().contains("beyond 64 bits"), "{beyond}");
    }

    #[test]
    fn messages_are_prepared_as_transformers_does() {
        let render = |messages: &str, source: &str| {
            let input = TemplateInput {
                messages: serde_json::from_str(messages).unwrap(),
                ..TemplateInput::new(&[], false).unwrap()
            };
            ChatTemplate::new(source, &[]).unwrap().render_input(&input, &|| false)
        };
        let null = r#"[{"role": "assistant", "content": null}]"#;
        assert_eq!(render(null, "{{ messages[0].content is defined }}").unwrap(), "False");
        let thinking = r#"[{"role": "assistant", "reasoning": "hm"}]"#;
        assert_eq!(
            render(thinking, "{{ messages[0] }}").unwrap(),
            "{'thinking': 'hm', 'role': 'assistant', 'reasoning': 'hm', 'reasoning_content': 'hm'}"
        );
        assert!(render("[1]", "").is_err() && render("{}", "").is_err());
    }

    /// Also where no conversation reaches them.
    #[test]
    fn methods_that_are_lacking_are_refused_when_a_template_is_made() {
        for method in ["encode()", "translate({})", "maketrans('a', 'b')"] {
            let source = format!("a\n{{% if false %}}{{{{ messages[0].content.{method} }}}}{{% endif %}}");
            let error = ChatTemplate::new(&source, &[]).err().unwrap().to_string();
            let name = method.split('(').next().unwrap();
            assert!(error.contains(&format!("the method '{name}' (line 2)")), "{error}");
        }
    }
}
