//! The block of a model that drafts tokens (multi-token prediction), as a plan of its own.
//!
//! A model with such a block guesses the token after the next one from the next one and from its own hidden state: row `p`
//! of the draft plan takes token `p + 1` of the text and the hidden state of the model after token `p`, normalized as
//! the head's input is, and its logits are a guess at token `p + 2`. Its own hidden state takes the model's place for further
//! guesses. Guesses are checked by the model, so that they decide how fast a text comes and nothing else.
//!
//! The plan names tensors, packed matrices and planes of the bundle's manifest, and so may share the embedding and the head.
//! It has one layer, begins as every plan does, then joins the hidden state to the embedding
//! ([`JoinHidden`](crate::plan::Step::JoinHidden)), and keeps no recurrent state, because guesses are taken back.

use crate::FormatError;
use crate::manifest::{self, Hyperparameters, Manifest};
use crate::plan::Plan;

/// The bytes of the draft section.
///
/// # Errors
/// [`FormatError::Draft`] if they would exceed [`MAX_BYTES`](manifest::MAX_BYTES).
pub fn encode(plan: &Plan) -> Result<Vec<u8>, FormatError> {
    manifest::encode_records(plan).map_err(FormatError::Draft)
}

/// Reads the draft section of the bundle that the validated `model` belongs to. The result is `model` with the draft's
/// plan in place of its own, and is as valid.
///
/// # Errors
/// [`FormatError::Draft`] if the bytes are no plan or something follows it, [`FormatError::Record`] where the plan
/// contradicts itself or the manifest.
pub fn decode(bytes: &[u8], model: &Manifest) -> Result<Manifest, FormatError> {
    let draft = of_model(model, manifest::decode_records(bytes).map_err(FormatError::Draft)?);
    draft.validate_draft()?;
    Ok(draft)
}

/// The manifest of a model with the plan of its draft in place of its own.
pub fn of_model(model: &Manifest, plan: Plan) -> Manifest {
    let hyperparameters = Hyperparameters { n_layers: 1, ..model.hyperparameters };
    Manifest { hyperparameters, plan, goldens: Vec::new(), ..model.clone() }
}
