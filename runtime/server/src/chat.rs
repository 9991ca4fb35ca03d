//! What a client asks for, and what it gets, whichever interface it speaks.
//!
//! Each interface turns its own JSON into a [`ChatRequest`], gives it to the server's state, and turns the [`Delta`]s that come
//! back into its own JSON or events.

use crate::answer::Part;
use crate::error::{ApiError, ErrorKind};
use serde_json::{Map, Value};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Receiver;
use tokio::time::Sleep;
use tokio_stream::Stream;
use trit_runtime::sample::SamplerOverrides;

/// A text to continue, and how.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// What is to be continued.
    pub prompt: Prompt,
    /// How it is to be continued.
    pub generation: Generation,
}

/// What is to be continued.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// A conversation, of which the chat template makes the prompt. The answer is split into its parts.
    Messages(Messages),
    /// A text, to which the tokenizer adds what it adds to every text. The answer is text alone.
    Text(String),
    /// Tokens; none are added. The answer is text alone.
    Ids(Vec<u32>),
}

/// A conversation as chat templates know it.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    /// The messages, each an object with `role`, and mostly `content` as one text. Reasoning stands under `reasoning_content`,
    /// calls under `tool_calls` in OpenAI's form with arguments as an object; results are messages of the role `tool`.
    pub messages: Vec<Value>,
    /// Tools that the model may call, each `{"type": "function", "function": {"name", "description", "parameters"}}`.
    pub tools: Vec<Value>,
    /// Whether the model calls one of them.
    pub tool_choice: ToolChoice,
    /// Whether it may call more than one of them in an answer.
    pub parallel_tool_calls: bool,
    /// Further variables of the template, such as `enable_thinking`.
    pub arguments: Map<String, Value>,
    /// Whether the last message is the beginning of the answer, which is to be continued.
    pub continue_last: bool,
}

/// Whether the model calls a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// It does not, and does not see the tools.
    Never,
    /// It calls at least one.
    Required,
    /// It calls the tool of this name.
    Function(String),
}

/// How a text is to be continued. What is `None` is as the bundle suggests.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    /// Most tokens of an answer; `None`: as many as there is room for.
    pub max_tokens: Option<usize>,
    /// Texts that end an answer, and are no part of it.
    pub stop: Vec<String>,
    /// How many answers; 0 counts as 1.
    pub n: usize,
    /// Start of the random sequence. The answer `i` of `n` starts at `seed + i`.
    pub seed: Option<u64>,
    /// How tokens are chosen.
    pub sampling: SamplerOverrides,
    /// How many of the most probable tokens are told with each token; `None` tells no probabilities.
    pub logprobs: Option<usize>,
    /// Added to the logits of single tokens. Where it is `-infinity` the token is never chosen.
    pub logit_bias: Vec<(u32, f32)>,
    /// What the answer must be like.
    pub format: Format,
    /// Whether to go on after the model says that it is done.
    pub ignore_eos: bool,
    /// Who asks, by a name that the client gives. Users get turns in equal parts.
    pub user: Option<String>,
}

/// What an answer must be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that fits this schema.
    JsonSchema(Value),
    /// A text that matches this regular expression as a whole.
    Regex(String),
    /// A text of this grammar, in Lark's notation.
    Lark(String),
}

/// A step of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Which of the `n` answers, from 0.
    pub choice: usize,
    /// What is new.
    pub content: Content,
    /// The tokens that were chosen since the delta before, with their probabilities; none unless
    /// [`Generation::logprobs`] asks for them.
    pub tokens: Vec<TokenLogprob>,
}

/// What is new in an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A part of it.
    Part(Part),
    /// Nothing more comes of it.
    End {
        /// Why.
        finish: FinishReason,
        /// What it took. Each of `n` answers states the prompt that they have in common.
        usage: Usage,
    },
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// It came to this one of the texts to stop at.
    StopText(String),
    /// As many tokens were generated as were asked for, or as there is room for.
    Length,
    /// The model was done, and has called tools.
    ToolCalls,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// How many of them ran for an earlier request and did not have to run again.
    pub cached: usize,
    /// Tokens that were generated.
    pub generated: usize,
    /// How many of them belong to the reasoning.
    pub reasoning: usize,
    /// Tokens drafted, and how many of them were accepted.
    pub drafted: (usize, usize),
    /// Time until the prompt began to run, from then to the first token, and for the other tokens.
    pub times: [Duration; 3],
}

/// A token that was chosen, with probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenText,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most probable tokens with the same, most probable first.
    pub top: Vec<(TokenText, f32)>,
}

/// A token and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenText {
    /// Its id.
    pub id: u32,
    /// Its text; bytes that are no whole character give U+FFFD.
    pub text: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The answers to a request, while they are generated. Dropping this cancels those that have not ended. As a stream it gives
/// what [`Answers::next`] gives.
pub struct Answers {
    n: usize,
    /// Tokens of the prompts.
    prompt: usize,
    /// Answers that have not ended.
    open: usize,
    deltas: Receiver<Result<Delta, ApiError>>,
    /// When the answers take too long.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Answers {
    pub(crate) fn new(
        n: usize,
        prompt: usize,
        deltas: Receiver<Result<Delta, ApiError>>,
        deadline: Option<Instant>,
    ) -> Answers {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        Answers { n, prompt, open: n, deltas, deadline }
    }

    /// How many answers there are.
    pub fn count(&self) -> usize {
        self.n
    }

    /// How many tokens their prompts have together.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt
    }

    /// The next step of one of the answers; `None` after each of them has ended, or one of them has failed.
    ///
    /// # Errors
    /// What made an answer fail. Nothing comes after it.
    pub async fn next(&mut self) -> Option<Result<Delta, ApiError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The answers as a whole.
    ///
    /// # Errors
    /// What made one of them fail.
    pub async fn collect(mut self) -> Result<Vec<Answer>, ApiError> {
        let mut answers = vec![Answer::default(); self.n];
        while let Some(delta) = self.next().await {
            let delta = delta?;
            if let Some(answer) = answers.get_mut(delta.choice) {
                answer.push(delta);
            }
        }
        Ok(answers)
    }
}

impl Stream for Answers {
    type Item = Result<Delta, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.open == 0 {
            return Poll::Ready(None);
        }
        let error = match self.deltas.poll_recv(context) {
            Poll::Ready(Some(Ok(delta))) => {
                self.open -= usize::from(matches!(delta.content, Content::End { .. }));
                return Poll::Ready(Some(Ok(delta)));
            }
            Poll::Ready(Some(Err(error))) => error,
            Poll::Ready(None) => ApiError::internal("an answer broke off"),
            Poll::Pending => {
                let deadline = self.deadline.as_mut().map(|deadline| deadline.as_mut().poll(context));
                if deadline != Some(Poll::Ready(())) {
                    return Poll::Pending;
                }
                ApiError::new(ErrorKind::Timeout, "the answer took longer than this server allows")
            }
        };
        self.open = 0;
        self.deltas.close();
        Poll::Ready(Some(Err(error)))
    }
}

/// An answer as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// What the model thought; empty where it did not.
    pub reasoning: String,
    /// What it said.
    pub text: String,
    /// The tools that it called.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended; `None` while it has not.
    pub finish: Option<FinishReason>,
    /// What it took.
    pub usage: Usage,
    /// Its tokens, where [`Generation::logprobs`] asks for them.
    pub tokens: Vec<TokenLogprob>,
}

/// A call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Names the call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments as JSON, as the model wrote them.
    pub arguments: String,
}

impl Answer {
    /// Adds a step.
    pub fn push(&mut self, delta: Delta) {
        self.tokens.extend(delta.tokens);
        match delta.content {
            Content::Part(Part::Reasoning(text)) => self.reasoning.push_str(&text),
            Content::Part(Part::Text(text)) => self.text.push_str(&text),
            Content::Part(Part::ToolCall { id, name, .. }) => {
                self.tool_calls.push(ToolCall { id, name, arguments: String::new() });
            }
            Content::Part(Part::ToolArguments { index, json }) => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.arguments.push_str(&json);
                }
            }
            Content::End { finish, usage } => (self.finish, self.usage) = (Some(finish), usage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_to_an_answer() {
        let usage = Usage { prompt: 3, generated: 4, ..Usage::default() };
        let mut answer = Answer::default();
        for content in [
            Content::Part(Part::Reasoning("hm".into())),
            Content::Part(Part::Text("It ".into())),
            Content::Part(Part::Text("rains.".into())),
            Content::Part(Part::ToolCall { index: 0, id: "a".into(), name: "weather".into() }),
            Content::Part(Part::ToolArguments { index: 0, json: "{\"city\":".into() }),
            Content::Part(Part::ToolArguments { index: 0, json: "\"Paris\"}".into() }),
            Content::End { finish: FinishReason::ToolCalls, usage },
        ] {
            answer.push(Delta { choice: 0, content, tokens: Vec::new() });
        }
        let call =
            ToolCall { id: "a".into(), name: "weather".into(), arguments: r#"{"city":"Paris"}"#.into() };
        assert_eq!((answer.reasoning.as_str(), answer.text.as_str()), ("hm", "It rains."));
        assert_eq!((answer.tool_calls, answer.finish), (vec![call], Some(FinishReason::ToolCalls)));
        assert_eq!(answer.usage, usage);
    }
}
