//! `/v1/models`: the one model that is served, as clients of OpenAI and of Anthropic read it.

use crate::error::ApiError;
use crate::front::Loaded;
use crate::state::AppState;
use axum::Json;
use axum::extract::Path;
use serde_json::{Value, json};
use trit_runtime::sample::SamplerOptions;

/// `GET /v1/models`.
pub async fn list(Loaded(state): Loaded) -> Json<Value> {
    let name = &state.name;
    Json(json!({
        "object": "list",
        "data": [model(&state)],
        "has_more": false,
        "first_id": name,
        "last_id": name,
    }))
}

/// `GET /v1/models/{id}`.
pub async fn one(Loaded(state): Loaded, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    state.expect_model(Some(&id))?;
    Ok(Json(model(&state)))
}

fn model(state: &AppState) -> Value {
    let manifest = state.model.manifest();
    let hyperparameters = &manifest.hyperparameters;
    let sampling = SamplerOptions::from_defaults(&manifest.text.sampling, 0);
    let template = manifest.text.chat_template.as_deref().unwrap_or_default();
    json!({
        "id": state.name,
        "object": "model",
        "created": state.created,
        "owned_by": "trit-run",
        "type": "model",
        "display_name": state.name,
        "created_at": timestamp(state.created),
        "meta": {
            "n_ctx": state.scheduler.context_length(),
            "n_ctx_train": hyperparameters.context_length,
            "n_vocab": hyperparameters.vocab_size,
            "chat_template": state.template.is_some(),
            // Whether a request can switch thinking on and off.
            "thinking": state.template.is_some() && template.contains("enable_thinking"),
            // What is done where a request says nothing.
            "sampling": {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repeat_penalty": sampling.repeat_penalty,
            },
        },
    })
}

/// A time in RFC 3339, such as `2025-01-31T12:00:00Z`, of seconds since 1970.
fn timestamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that a leap day is the last of its year (Howard Hinnant, chrono-compatible date algorithms).
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), expected);
        }
    }
}
