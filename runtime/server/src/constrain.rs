//! What an answer must be like becomes a guide, which says of every token whether it may come next.

use crate::chat::{ChatRequest, Format, Prompt};
use crate::error::ApiError;
use crate::prompt::Made;
use crate::state::AppState;
use std::sync::Arc;
use trit_runtime::generate::guide::{Guide, GuideError};
use trit_runtime::guide::{Grammar, GuideFactory};

impl AppState {
    /// The guides of the answers to a request, one for each; none of them where answers may be any text.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::InvalidRequest`] where no answer can be like that.
    pub async fn guides(
        self: &Arc<Self>,
        request: &ChatRequest,
        made: &Made,
    ) -> Result<Vec<Option<Box<dyn Guide>>>, ApiError> {
        let count = request.generation.n.max(1);
        let format = grammar(&request.generation.format);
        let demanded = match (&request.prompt, &self.form) {
            (Prompt::Messages(messages), Some(form)) => {
                form.grammar(messages, &made.text, &request.generation.format)
            }
            _ => None,
        };
        // What a format demands of the answer stands in the grammar, too.
        let param = format.as_ref().map_or("tools", |(_, param)| param);
        let demanded = demanded.map(|grammar| (Grammar::Lark(grammar), param));
        let Some((grammar, param)) = demanded.or(format) else {
            return Ok((0..count).map(|_| None).collect());
        };
        let state = self.clone();
        // Grammars take up to some tenths of a second, and the first one waits for the tree of all tokens.
        self.blocking(move |_| {
            let invalid = |error: &GuideError| {
                ApiError::invalid_param(param, error.0.clone()).with_code("invalid_value")
            };
            let factory = state.guide_factory().map_err(|error| invalid(&error))?;
            let guide = |_| factory.guide(&grammar, None).map(Some).map_err(|error| invalid(&error));
            (0..count).map(guide).collect()
        })
        .await
    }

    /// What makes guides, made when it is first needed.
    fn guide_factory(&self) -> Result<&GuideFactory, GuideError> {
        self.guides.get_or_init(|| GuideFactory::new(&self.model)).as_ref().map_err(GuideError::clone)
    }
}

/// The grammar of a format, and the field that asks for it; `None` where an answer may be any text.
fn grammar(format: &Format) -> Option<(Grammar, &'static str)> {
    match format {
        Format::Text => None,
        Format::JsonObject => Some((Grammar::JsonObject, "response_format")),
        Format::JsonSchema(schema) => {
            Some((Grammar::JsonSchema(schema.clone()), "response_format.json_schema.schema"))
        }
        Format::Regex(regex) => Some((Grammar::Regex(regex.clone()), "response_format.pattern")),
        Format::Lark(grammar) => Some((Grammar::Lark(grammar.clone()), "response_format.grammar")),
    }
}
