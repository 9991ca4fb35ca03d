//! Texts, or their tokens, as completions and embeddings take them.

use serde::Deserialize;

/// One text or several, each as text or as tokens. An empty array counts as the tokens of one text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string, an array of strings, token ids, or an array of these")]
pub enum Texts {
    /// One text.
    One(String),
    /// The tokens of one.
    Ids(Vec<u32>),
    /// Several texts.
    Several(Vec<String>),
    /// The tokens of several.
    Lists(Vec<Vec<u32>>),
}
