//! What can be wrong with a bundle.

use crate::container::SectionKind;
use crate::container::{MAJOR, MINOR};
use crate::target::Target;

/// Why bytes are not a bundle that can be used. The caller adds the file's name and what its user can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Shorter than a header.
    #[error("is {len} bytes, too short for a .trit bundle; it may have been cut off while copying")]
    TooShort {
        /// Bytes there are.
        len: u64,
    },
    /// The magic is another.
    #[error("is no .trit bundle (its first bytes are {found:02x?})")]
    Magic {
        /// First bytes.
        found: [u8; 8],
    },
    /// A newer or older format.
    #[error(
        "has format version {major}.{minor}, this program reads {MAJOR}.{MINOR}: it was made by {}",
        other_version(*major, *minor)
    )]
    Version {
        /// Found.
        major: u16,
        /// Found.
        minor: u16,
    },
    /// A feature bit that this reader does not know.
    #[error("needs format feature bit {bit}, which this program does not know; use a newer version of it")]
    Feature {
        /// Lowest unknown bit.
        bit: u32,
    },
    /// The header's own length field disagrees with the file.
    #[error("should be {expected} bytes but is {found}; it was cut off or has something appended")]
    Length {
        /// By the header.
        expected: u64,
        /// Of the file.
        found: u64,
    },
    /// A field that must be zero, or padding, is not.
    #[error("has a byte that is not zero in the padding at offset {offset}")]
    Padding {
        /// Where.
        offset: u64,
    },
    /// Too many sections, or a table that does not fit.
    #[error("has {count} sections; 1 to {} are possible", crate::container::MAX_SECTIONS)]
    SectionCount {
        /// By the header.
        count: u32,
    },
    /// A section kind that this reader does not know.
    #[error("has a section of unknown kind {kind}, which a newer version of this program may know; use one")]
    SectionKind {
        /// Found.
        kind: u32,
    },
    /// Code for a target that this reader does not know.
    #[error(
        "has code for target {index}, this program knows 0 to {}: it was made by a newer program",
        Target::ALL.len() - 1
    )]
    CodeTarget {
        /// Found.
        index: u32,
    },
    /// Out of order, overlapping, misaligned or past the end.
    #[error("section {index} ({kind}) at offset {offset} with {len} bytes {problem}")]
    Section {
        /// Position in the table.
        index: usize,
        /// Its kind.
        kind: SectionKind,
        /// Its offset.
        offset: u64,
        /// Its length.
        len: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A section that every bundle needs.
    #[error("has no {0} section")]
    Missing(SectionKind),
    /// A digest does not match.
    #[error("section {0} does not match its digest; the file is damaged, copy it again")]
    Digest(SectionKind),
    /// The manifest's bytes.
    #[error("manifest {0}")]
    Manifest(String),
    /// The draft section's bytes.
    #[error("draft plan {0}")]
    Draft(String),
    /// A record of the manifest contradicts another or the sections.
    #[error("{record}: {problem}")]
    Record {
        /// Which record, with its name or index.
        record: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Whose bundle that is, and what to do.
fn other_version(major: u16, minor: u16) -> &'static str {
    match (major, minor).cmp(&(MAJOR, MINOR)) {
        _ if (major.swap_bytes(), minor.swap_bytes()) == (MAJOR, MINOR) => {
            "a program that writes numbers in the other byte order, which is no .trit bundle; compile the model again"
        }
        std::cmp::Ordering::Less => "an older version of the compiler; compile the model again with this one",
        _ => {
            "a newer version of the compiler; use a newer version of this program, or compile the model again with this one"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_say_which_way_they_are_off() {
        let say = |major, minor| FormatError::Version { major, minor }.to_string();
        assert!(say(MAJOR, MINOR - 1).contains("an older version"));
        assert!(say(MAJOR, MINOR + 1).contains("a newer version of the compiler"));
        assert!(say(MAJOR + 1, 0).contains("a newer version of the compiler"));
        assert!(say(MAJOR.swap_bytes(), MINOR.swap_bytes()).contains("other byte order"));
    }
}
