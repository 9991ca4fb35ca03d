//! What answers have in common: names, usage, reasons, probabilities.

use crate::chat::{FinishReason, TokenLogprob, TokenText, Usage};
use crate::error::{ApiError, Interface};
use axum::response::sse::Event;
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

/// A name for an answer that no other has.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// OpenAI's word for why an answer ended.
pub fn finish_reason(finish: &FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop | FinishReason::StopText(_) => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}

/// What several answers to one prompt took together. The prompt counts once.
pub fn usage(answers: &[Usage]) -> Value {
    let prompt = answers.iter().map(|usage| usage.prompt).max().unwrap_or(0);
    let cached = answers.first().map_or(0, |usage| usage.cached);
    usage_of(prompt, cached, answers)
}

/// What answers took together, to prompts of so many tokens, so many of them cached.
pub fn usage_of(prompt: usize, cached: usize, answers: &[Usage]) -> Value {
    let sum = |of: fn(&Usage) -> usize| answers.iter().map(of).sum::<usize>();
    let generated = sum(|usage| usage.generated);
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {
            "reasoning_tokens": sum(|usage| usage.reasoning),
            "accepted_prediction_tokens": sum(|usage| usage.drafted.1),
            "rejected_prediction_tokens": sum(|usage| usage.drafted.0 - usage.drafted.1.min(usage.drafted.0)),
        },
    })
}

/// How long an answer took, in the shape of llama-server. The first token comes out of the prompt.
pub fn timings(usage: &Usage) -> Value {
    let [waited, prompt, generated] = usage.times.map(|time| time.as_secs_f64());
    let ran = usage.prompt - usage.cached.min(usage.prompt);
    let rate = |tokens: usize, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
    json!({
        "queued_ms": waited * 1e3,
        "cache_n": usage.cached,
        "prompt_n": ran,
        "prompt_ms": prompt * 1e3,
        "prompt_per_second": rate(ran, prompt),
        "predicted_n": usage.generated,
        "predicted_ms": generated * 1e3,
        "predicted_per_second": rate(usage.generated.saturating_sub(1), generated),
        "draft_n": usage.drafted.0,
        "draft_n_accepted": usage.drafted.1,
    })
}

/// Probabilities of tokens in the shape of chats; `null` where there are none.
pub fn chat_logprobs(tokens: &[TokenLogprob]) -> Value {
    let one = |token: &TokenText, logprob: f32| json!({"token": token.text, "logprob": finite(logprob), "bytes": token.bytes});
    let all = tokens.iter().map(|token| {
        let mut value = one(&token.token, token.logprob);
        let top = token.top.iter().map(|(token, logprob)| one(token, *logprob));
        value["top_logprobs"] = Value::Array(top.collect());
        value
    });
    match tokens.is_empty() {
        true => Value::Null,
        false => json!({"content": Value::Array(all.collect()), "refusal": null}),
    }
}

/// A logarithm that JSON can hold: impossible tokens get OpenAI's -9999.
pub fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}

/// An event with JSON.
pub fn event(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// The event of an error in the middle of a stream.
pub fn error_event(error: &ApiError) -> Event {
    event(&error.body(Interface::OpenAi))
}

/// The event after the last one.
pub fn done() -> Event {
    Event::default().data("[DONE]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_counts_once_and_answers_add_up() {
        let one = Usage { prompt: 5, cached: 4, generated: 3, ..Usage::default() };
        let value = usage(&[one, Usage { generated: 2, ..one }]);
        assert_eq!((&value["prompt_tokens"], &value["completion_tokens"]), (&json!(5), &json!(5)));
        assert_eq!(
            (&value["total_tokens"], &value["prompt_tokens_details"]["cached_tokens"]),
            (&json!(10), &json!(4))
        );
    }

    #[test]
    fn impossible_tokens_have_a_number() {
        let token = TokenText { id: 1, text: "x".into(), bytes: vec![120] };
        let tokens =
            [TokenLogprob { token: token.clone(), logprob: -0.5, top: vec![(token, f32::NEG_INFINITY)] }];
        let value = chat_logprobs(&tokens);
        assert_eq!(value["content"][0]["logprob"], json!(-0.5));
        assert_eq!(value["content"][0]["top_logprobs"][0]["logprob"], json!(-9999.0));
        assert_eq!(chat_logprobs(&[]), Value::Null);
    }
}
