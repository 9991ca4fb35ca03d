//! The chat template in metadata.

use super::metadata::Metadata;
use super::tokenizer::Vocabulary;
use crate::error::{CompileError, Warnings};

/// In the template that Microsoft's converter puts into every BitNet file, whatever the model was trained with.
const PLACEHOLDER: &str = "BITNETAssistant";

/// What BitNet b1.58 2B-4T was trained with: `Role: content<|eot_id|>` for each message, without line breaks.
const BITNET: &str = "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: \
                      {{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}\
                      {% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";

/// Takes `tokenizer.chat_template`.
pub(super) fn chat_template(
    metadata: &mut Metadata,
    vocabulary: &Vocabulary,
    warnings: &mut Warnings,
) -> Result<Option<String>, CompileError> {
    let key = "tokenizer.chat_template";
    let template = metadata.text(key)?;
    let others = metadata.names_after("tokenizer.chat_template.").join(", ");
    if !others.is_empty() {
        warnings.push(match template {
            Some(_) => {
                format!("of several chat templates {key} is used; the bundle has no others ({others})")
            }
            None => {
                format!("metadata key {key} is missing, and of the named templates ({others}) none is used")
            }
        });
    }
    if !template.as_ref().is_some_and(|template| template.contains(PLACEHOLDER)) {
        return Ok(template);
    }
    if vocabulary.id("<|eot_id|>").is_none() {
        warnings.push(format!(
            "metadata key {key} is its converter's placeholder, not the model's; it is left out"
        ));
        return Ok(None);
    }
    warnings.push(format!(
        "metadata key {key} is its converter's placeholder, not the model's; that of BitNet b1.58 2B-4T is used"
    ));
    Ok(Some(BITNET.to_owned()))
}
