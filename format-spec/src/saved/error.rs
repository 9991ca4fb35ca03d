//! What can be wrong with a file of saved sequences.

use super::{NUMERICS, VERSION};
use crate::container::Digest;
use std::fmt;

/// A part of a record that has a digest of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Header, tokens and digests.
    Head,
    /// A page of the KV cache.
    Page(u32),
    /// A recurrent state.
    State(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Head => f.write_str("the head"),
            Part::Page(page) => write!(f, "page {page} of the KV cache"),
            Part::State(state) => write!(f, "recurrent state {state}"),
        }
    }
}

/// Why a file of saved sequences cannot be used. The caller adds the file's name and what its user can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// Another magic.
    #[error("holds no saved sequence (its first bytes are others)")]
    Magic,
    /// It was written by a program that lays sequences out, or computes, in another way.
    #[error(
        "was saved by another version of this program (layout {version}, numerics {numerics}; this one has {VERSION} and {NUMERICS})"
    )]
    Version {
        /// Found.
        version: u32,
        /// Found.
        numerics: u32,
    },
    /// It belongs to another bundle.
    #[error("was saved with another bundle ({}..., this one is {}...)", short(found), short(expected))]
    OtherBundle {
        /// The digest of the other bundle's header.
        found: Digest,
        /// The digest of this bundle's header.
        expected: Digest,
    },
    /// The file ends too early.
    #[error("is cut off: {found} bytes stand where {expected} should")]
    Short {
        /// Bytes that the header announces, or that every header has.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Something follows the last record.
    #[error("has {bytes} bytes after its end")]
    Long {
        /// How many.
        bytes: u64,
    },
    /// A field has an impossible value.
    #[error("is damaged: in the head of sequence {record} {problem}")]
    Header {
        /// Index of the record.
        record: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// A digest does not match.
    #[error("is damaged: {part} of sequence {record} does not match its digest")]
    Damaged {
        /// Index of the record.
        record: u32,
        /// The part.
        part: Part,
    },
    /// Its numbers are of another type than the ones that are wanted.
    #[error("was saved with a {what} of {found}, and {wanted} is wanted")]
    Type {
        /// KV cache or recurrent state.
        what: &'static str,
        /// The type in the file.
        found: &'static str,
        /// The type that was asked for.
        wanted: &'static str,
    },
}

/// The first digits of a digest, enough to tell bundles apart.
fn short(digest: &Digest) -> String {
    digest.to_string()[..12].to_owned()
}
