//! `/v1/completions`: texts are continued as they are.

use super::chat::{MOST_LOGPROBS, StreamOptions};
use super::sampling;
use super::shapes::{self, finish_reason, finite};
use super::texts::Texts;
use crate::answer::Part;
use crate::body::Fields;
use crate::chat::{Answer, ChatRequest, Content, Delta, Prompt, TokenLogprob, Usage};
use crate::error::ApiError;
use crate::front::Loaded;
use crate::sse::{self, Events};
use crate::state::{AppState, Caller};
use axum::Json;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Tokens that are generated where `max_tokens` does not say, as in OpenAI's interface.
const DEFAULT_TOKENS: usize = 16;

/// `POST /v1/completions`.
pub async fn create(Loaded(state): Loaded, caller: Caller, mut fields: Fields) -> Result<Response, ApiError> {
    state.expect_model(fields.take::<String>("model")?.as_deref())?;
    let stream = fields.take("stream")?.unwrap_or(false);
    let options: StreamOptions = fields.take("stream_options")?.unwrap_or_default();
    let prompts = prompts(&mut fields)?;
    let limited = ["max_tokens", "max_completion_tokens"].iter().any(|name| fields.has(name));
    let mut generation = sampling::take(&mut fields, state.vocab_size())?;
    if !limited {
        generation.max_tokens = Some(DEFAULT_TOKENS);
    }
    generation.logprobs = fields.count("logprobs", 0..=MOST_LOGPROBS)?;
    let unsupported = |name: &str, message: &str| {
        Err(ApiError::invalid_param(name, message).with_code("unsupported_parameter"))
    };
    if fields.take::<String>("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
        return unsupported(
            "suffix",
            "suffix is not supported: this model continues texts, and fills no gaps",
        );
    }
    if fields.count("best_of", 1..=usize::MAX)?.is_some_and(|best| best != generation.n) {
        return unsupported("best_of", "best_of is not supported but where it equals n");
    }
    let echo = fields.take("echo")?.unwrap_or(false);
    if echo && generation.logprobs.is_some() {
        return unsupported(
            "echo",
            "echo with logprobs is not supported: prompts have no probabilities here",
        );
    }
    let each = generation.n;
    let echoes = if echo { echoes(&state, &prompts, each)? } else { Vec::new() };
    let request = |prompt| ChatRequest { prompt, generation: generation.clone() };
    let answers = state.answer_all(prompts.into_iter().map(request).collect(), &caller).await?;
    let body = Body {
        id: shapes::new_id("cmpl-"),
        created: shapes::now(),
        model: state.name.clone(),
        each,
        echoes,
        logprobs: generation.logprobs.is_some(),
    };
    if stream {
        let offsets = vec![0; answers.count()];
        let usages = vec![Usage::default(); answers.count()];
        let events = Chunks { body, include_usage: options.include_usage, offsets, usages };
        return Ok(sse::stream(answers, events, state.options.keep_alive));
    }
    let answers = answers.collect().await?;
    Ok(Json(body.whole(&answers)).into_response())
}

/// The texts to be continued, or their tokens.
fn prompts(fields: &mut Fields) -> Result<Vec<Prompt>, ApiError> {
    let prompts: Vec<Prompt> = match fields.required("prompt")? {
        Texts::One(text) => vec![Prompt::Text(text)],
        Texts::Ids(ids) => vec![Prompt::Ids(ids)],
        Texts::Several(texts) => texts.into_iter().map(Prompt::Text).collect(),
        Texts::Lists(lists) => lists.into_iter().map(Prompt::Ids).collect(),
    };
    Ok(prompts)
}

/// The text that stands before each answer.
fn echoes(state: &AppState, prompts: &[Prompt], each: usize) -> Result<Vec<String>, ApiError> {
    let text = |prompt: &Prompt| match prompt {
        Prompt::Ids(ids) => state
            .tokenizer()?
            .decode(ids, false)
            .map_err(|error| ApiError::invalid_param("prompt", error.to_string())),
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Messages(_) => Ok(String::new()),
    };
    let texts: Vec<String> = prompts.iter().map(text).collect::<Result<_, _>>()?;
    Ok(texts.into_iter().flat_map(|text| std::iter::repeat_n(text, each)).collect())
}

/// What whole answers and chunks have in common.
struct Body {
    id: String,
    created: u64,
    model: String,
    /// Answers to each prompt.
    each: usize,
    /// The prompt's text before each answer; empty where it is not asked for.
    echoes: Vec<String>,
    logprobs: bool,
}

impl Body {
    fn object(&self, choices: Value) -> Map<String, Value> {
        let mut map = Map::new();
        for (name, value) in [
            ("id", json!(self.id)),
            ("object", json!("text_completion")),
            ("created", json!(self.created)),
            ("model", json!(self.model)),
            ("choices", choices),
        ] {
            map.insert(name.to_owned(), value);
        }
        map
    }

    fn choice(&self, index: usize, text: &str, logprobs: Value, finish: Value) -> Value {
        json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish})
    }

    fn whole(&self, answers: &[Answer]) -> Value {
        let choices = answers.iter().enumerate().map(|(index, answer)| {
            let echo = self.echoes.get(index).map_or("", String::as_str);
            let finish = answer.finish.as_ref().map(finish_reason);
            let text = format!("{echo}{}", answer.text);
            let logprobs = self.logprobs(&answer.tokens, &mut 0);
            self.choice(index, &text, logprobs, json!(finish))
        });
        let mut whole = self.object(Value::Array(choices.collect()));
        let usages: Vec<Usage> = answers.iter().map(|answer| answer.usage).collect();
        whole.insert("usage".to_owned(), self.usage(&usages));
        if let [usage] = &usages[..] {
            whole.insert("timings".to_owned(), shapes::timings(usage));
        }
        Value::Object(whole)
    }

    /// What all answers took. Each prompt counts once.
    fn usage(&self, usages: &[Usage]) -> Value {
        let first = || usages.iter().step_by(self.each.max(1));
        let prompt = first().map(|usage| usage.prompt).sum();
        shapes::usage_of(prompt, first().map(|usage| usage.cached).sum(), usages)
    }

    /// Probabilities in the shape of completions. `offset` is the length of the text before the tokens, and grows.
    fn logprobs(&self, tokens: &[TokenLogprob], offset: &mut usize) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        let offsets: Vec<usize> = tokens
            .iter()
            .map(|token| {
                let start = *offset;
                *offset += token.token.text.chars().count();
                start
            })
            .collect();
        let top = tokens.iter().map(|token| {
            let mut all = Map::new();
            for (other, logprob) in &token.top {
                all.insert(other.text.clone(), json!(finite(*logprob)));
            }
            // The token that was chosen is always among them.
            all.entry(token.token.text.clone()).or_insert_with(|| json!(finite(token.logprob)));
            Value::Object(all)
        });
        json!({
            "tokens": tokens.iter().map(|token| &token.token.text).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| finite(token.logprob)).collect::<Vec<_>>(),
            "top_logprobs": top.collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }
}

/// The events of a stream.
struct Chunks {
    body: Body,
    include_usage: bool,
    /// Characters of each answer that were sent.
    offsets: Vec<usize>,
    usages: Vec<Usage>,
}

impl Chunks {
    fn event(&self, choices: Value, usage: Value, timings: Value) -> Event {
        let mut chunk = self.body.object(choices);
        if self.include_usage {
            chunk.insert("usage".to_owned(), usage);
        }
        if !timings.is_null() {
            chunk.insert("timings".to_owned(), timings);
        }
        shapes::event(&Value::Object(chunk))
    }
}

impl Events for Chunks {
    fn begin(&mut self) -> Vec<Event> {
        let echoes = self.body.echoes.iter().enumerate();
        let event = |(index, echo): (usize, &String)| {
            let choice = self.body.choice(index, echo, Value::Null, Value::Null);
            self.event(json!([choice]), Value::Null, Value::Null)
        };
        echoes.map(event).collect()
    }

    fn delta(&mut self, delta: Delta) -> Vec<Event> {
        let index = delta.choice;
        let mut logprobs = Value::Null;
        if !delta.tokens.is_empty() {
            logprobs = self.body.logprobs(&delta.tokens, &mut self.offsets[index]);
        }
        let (text, finish, timings) = match delta.content {
            Content::Part(Part::Text(text) | Part::Reasoning(text)) => (text, Value::Null, Value::Null),
            Content::Part(_) => return Vec::new(),
            Content::End { finish, usage } => {
                self.usages[index] = usage;
                (String::new(), json!(finish_reason(&finish)), shapes::timings(&usage))
            }
        };
        let choice = self.body.choice(index, &text, logprobs, finish);
        vec![self.event(json!([choice]), Value::Null, timings)]
    }

    fn error(&mut self, error: &ApiError) -> Vec<Event> {
        vec![shapes::error_event(error)]
    }

    fn end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.include_usage {
            events.push(self.event(json!([]), self.body.usage(&self.usages), Value::Null));
        }
        events.push(shapes::done());
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::TokenText;

    #[test]
    fn prompts_are_texts_or_tokens() {
        let taken =
            |json: &str| prompts(&mut Fields::parse(format!("{{\"prompt\": {json}}}").as_bytes()).unwrap());
        let count = |json: &str| taken(json).unwrap().len();
        assert!(matches!(&taken("\"a\"").unwrap()[..], [Prompt::Text(text)] if text == "a"));
        assert!(matches!(&taken("[1, 2]").unwrap()[..], [Prompt::Ids(ids)] if ids == &[1, 2]));
        assert_eq!((count("[\"a\", \"b\"]"), count("[[1], [2], [3]]")), (2, 3));
        for wrong in ["5", "[\"a\", 1]", "[-1]", "{}", "null"] {
            assert_eq!(taken(wrong).unwrap_err().param.as_deref(), Some("prompt"), "{wrong}");
        }
    }

    #[test]
    fn offsets_go_on_from_chunk_to_chunk() {
        let body = Body {
            id: String::new(),
            created: 0,
            model: String::new(),
            each: 1,
            echoes: Vec::new(),
            logprobs: true,
        };
        let token = |text: &str| TokenLogprob {
            token: TokenText { id: 1, text: text.into(), bytes: text.into() },
            logprob: -1.0,
            top: vec![],
        };
        let mut offset = 0;
        let first = body.logprobs(&[token("né"), token("e")], &mut offset);
        assert_eq!((&first["text_offset"], offset), (&json!([0, 2]), 3));
        assert_eq!(first["top_logprobs"][0], json!({"né": -1.0}));
        assert_eq!(body.logprobs(&[token("x")], &mut offset)["text_offset"], json!([3]));
    }
}
