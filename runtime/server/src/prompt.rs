//! From what a client says to the tokens that the model continues.
//!
//! Templates and tokenizers take time that grows with the text, so they run on threads of their own, a few at a time. When a
//! client goes away, its template ends.

use crate::answer::{ForTemplate, Form};
use crate::chat::{Messages, Prompt};
use crate::error::ApiError;
use crate::state::AppState;
use serde::Deserialize;
use serde_json::Value as Json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::Semaphore;
use trit_runtime::text::template::{TemplateInput, Value};
use trit_runtime::text::{ChatTemplate, TextError};

/// A prompt that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The text that the chat template made; empty where the prompt is no conversation.
    pub text: String,
}

/// Sets its flag when it is dropped.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl AppState {
    /// The tokens of a prompt, and what the chat template made of a conversation.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::InvalidRequest`] where the prompt cannot be made or is too long for the context.
    pub async fn make_prompt(self: &Arc<Self>, prompt: &Prompt) -> Result<Made, ApiError> {
        if let Prompt::Ids(ids) = prompt {
            return self.check_ids(ids).map(|()| Made { ids: ids.clone(), text: String::new() });
        }
        let (state, prompt) = (self.clone(), prompt.clone());
        self.blocking(move |stop| match &prompt {
            Prompt::Messages(messages) => {
                let text = state.render(messages, stop)?;
                let ids = state.encode(&text, false, "messages")?;
                Ok(Made { ids, text })
            }
            Prompt::Text(text) => Ok(Made { ids: state.encode(text, true, "prompt")?, text: String::new() }),
            Prompt::Ids(ids) => Ok(Made { ids: ids.clone(), text: String::new() }),
        })
        .await
    }

    /// The prompt that the chat template makes of a conversation.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::InvalidRequest`] where there is no template, or it refuses the conversation.
    pub async fn render_prompt(self: &Arc<Self>, messages: Messages) -> Result<String, ApiError> {
        let state = self.clone();
        self.blocking(move |stop| state.render(&messages, stop)).await
    }

    /// Runs work that takes long on a thread of its own. The flag is set when nobody waits for it any more.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AtomicBool) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.blocking_on(self.prompts.clone(), work).await
    }

    /// As [`AppState::blocking`], for work of which `permits` says how much is done at a time.
    pub(crate) async fn blocking_on<T: Send + 'static>(
        &self,
        permits: Arc<Semaphore>,
        work: impl FnOnce(&AtomicBool) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let stopped = || ApiError::internal("the work on a prompt broke off");
        let permit = permits.acquire_owned().await.map_err(|_| stopped())?;
        let gone = Gone(Arc::default());
        let flag = gone.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&flag)
        });
        let done = done.await;
        drop(gone);
        done.map_err(|_| stopped())?
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), ApiError> {
        let vocab = self.vocab_size();
        match ids.iter().find(|&&id| id >= vocab) {
            Some(id) => {
                let message = format!("the prompt has the token {id}, but the model has {vocab} tokens");
                Err(ApiError::invalid_param("prompt", message).with_code("invalid_value"))
            }
            None => Ok(()),
        }
    }

    fn encode(&self, text: &str, add_special: bool, param: &str) -> Result<Vec<u32>, ApiError> {
        // One token of the context is left for the answer.
        let limit = self.scheduler.context_length().saturating_sub(1);
        let ids = self.tokenizer()?.encode_within(text, add_special, limit);
        ids.map_err(|error| match error {
            TextError::TooLong { at_least, .. } => self.too_long(at_least, param),
            other => ApiError::invalid_param(param, other.to_string()),
        })
    }

    /// The error of a prompt of at least so many tokens.
    pub(crate) fn too_long(&self, at_least: usize, param: &str) -> ApiError {
        let context = self.scheduler.context_length();
        let message = format!(
            "this server's context length is {context} tokens, but the prompt has at least {at_least}, and an answer needs \
             one more; shorten the prompt"
        );
        ApiError::invalid_param(param, message).with_code("context_length_exceeded")
    }

    fn render(&self, messages: &Messages, stop: &AtomicBool) -> Result<String, ApiError> {
        let template = self.template.as_ref().ok_or_else(|| {
            ApiError::invalid("this model has no chat template; ask /v1/completions to continue a text")
        })?;
        let form =
            self.form.as_ref().ok_or_else(|| ApiError::internal("the chat template was not looked at"))?;
        render(template, form, messages, &|| stop.load(Relaxed))
    }
}

/// The prompt that a chat template makes of a conversation with a model of this form. While `stop` says so, it ends.
///
/// # Errors
/// [`crate::error::ErrorKind::InvalidRequest`] where the template refuses the conversation or makes nothing of it.
pub fn render(
    template: &ChatTemplate,
    form: &Form,
    messages: &Messages,
    stop: &dyn Fn() -> bool,
) -> Result<String, ApiError> {
    if messages.messages.is_empty() {
        return Err(ApiError::invalid_param("messages", "messages is empty, expected at least one message"));
    }
    let value = |json: &Json, param: &str| {
        Value::deserialize(json).map_err(|e| ApiError::invalid_param(param, format!("{param}: {e}")))
    };
    let ForTemplate { messages: said, tools } = form.for_template(messages);
    let any_tools = !tools.is_empty();
    let list = |items: Vec<Json>, param: &str| value(&Json::Array(items), param);
    let variables = messages.arguments.iter().map(|(name, argument)| {
        Ok((name.clone(), value(argument, &format!("chat_template_kwargs.{name}"))?))
    });
    let input = TemplateInput {
        messages: list(said, "messages")?,
        tools: any_tools.then(|| list(tools, "tools")).transpose()?,
        documents: None,
        add_generation_prompt: !messages.continue_last,
        variables: variables.collect::<Result<_, ApiError>>()?,
    };
    let rendered = template.render_input(&input, stop);
    let mut text = rendered.map_err(|error| ApiError::invalid_param("messages", error.to_string()))?;
    if messages.continue_last {
        cut_after_last(&mut text, &messages.messages)?;
    }
    if text.is_empty() {
        let problem = "the chat template makes an empty prompt of these messages";
        return Err(ApiError::invalid_param("messages", problem));
    }
    Ok(text)
}

/// Cuts off what the template writes after the last message, so that the model continues that message.
fn cut_after_last(text: &mut String, messages: &[Json]) -> Result<(), ApiError> {
    let last = messages.last();
    let content = last.and_then(|last| last.get("content")).and_then(Json::as_str).map(str::trim);
    let refused = |problem: &str| ApiError::invalid_param("messages", problem);
    match (last.and_then(|last| last.get("role")).and_then(Json::as_str), content) {
        (Some("assistant"), Some(content)) if !content.is_empty() => {
            let at = text.rfind(content);
            let at = at
                .ok_or_else(|| refused("the chat template leaves out the message that is to be continued"))?;
            text.truncate(at + content.len());
            Ok(())
        }
        _ => Err(refused("to be continued, the last message must be the assistant's, and have a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_message_is_continued_where_it_ends() {
        let messages =
            [json!({"role": "user", "content": "Tell"}), json!({"role": "assistant", "content": " Once "})];
        let mut text = "<u>Tell<e><a>Once<e>".to_owned();
        cut_after_last(&mut text, &messages).unwrap();
        assert_eq!(text, "<u>Tell<e><a>Once");
        assert!(cut_after_last(&mut text, &messages[..1]).is_err());
        assert!(cut_after_last(&mut "nothing".to_owned(), &messages).is_err());
        let empty = [json!({"role": "assistant", "content": " "})];
        assert!(cut_after_last(&mut text, &empty).is_err());
    }
}
