//! What an answer must be like becomes a guide, which says of every token whether it may come next.

use crate::chat::Format;
use crate::error::ApiError;
use crate::state::AppState;
use trit_runtime::generate::guide::Guide;

/// The guide of an answer; `None` where it may be any text.
///
/// # Errors
/// [`crate::error::ErrorKind::InvalidRequest`] where there is no such guide.
pub fn guide(state: &AppState, format: &Format) -> Result<Option<Box<dyn Guide>>, ApiError> {
    let _ = state;
    match format {
        Format::Text => Ok(None),
        _ => {
            let message = "this server cannot make answers follow a format; leave it out, or ask for text";
            Err(ApiError::invalid_param("response_format", message).with_code("unsupported_parameter"))
        }
    }
}
