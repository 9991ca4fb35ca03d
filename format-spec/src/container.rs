//! Header, section table, digests: the outer layer of a bundle.
//!
//! ```text
//!  0  magic            8 bytes  "\x89TRIT\r\n\x1a"
//!  8  major, minor     u16, u16
//! 12  section count    u32
//! 16  features         u64      bits a reader must know
//! 24  total length     u64
//! 32  zero             32 bytes
//! 64  section table    64 bytes each:
//!       0 kind u32, 4 target u32 (index for code, else 0), 8 offset u64, 16 length u64, 24 zero u64, 32 BLAKE3 [32]
//! ```
//!
//! Little-endian. Sections follow in the order of the table, each at the next multiple of its alignment; the gaps are
//! zero, and nothing follows the last.

use crate::FormatError;
use crate::target::Target;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// First bytes of every bundle. They are no text, and a conversion of line endings damages them, so that it is noticed.
pub const MAGIC: [u8; 8] = *b"\x89TRIT\r\n\x1a";
/// The format as a whole.
pub const MAJOR: u16 = 1;
/// Its records. 1.1 added `LogitRules`.
pub const MINOR: u16 = 1;
/// Most sections a bundle has.
pub const MAX_SECTIONS: u32 = 64;
/// Bytes of the fixed header, and of one entry of the section table.
pub const HEADER_BYTES: u64 = 64;
/// Feature bits this reader knows.
pub const KNOWN_FEATURES: u64 = 0;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digest of `bytes`, on all cores where there are many bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        if bytes.len() < 1 << 20 {
            hasher.update(bytes);
        } else {
            hasher.update_rayon(bytes);
        }
        Digest(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// The manifest. Alignment 64.
    Manifest,
    /// Tiles of every packed ternary matrix. Alignment 64 KiB.
    Weights,
    /// Tensors that are not ternary. Alignment 64 KiB.
    Tensors,
    /// Machine code of every kernel for one target. Alignment 64 KiB.
    Code(Target),
    /// `tokenizer.json`. Alignment 64.
    Tokenizer,
    /// Quantized copies of head tables, see [`crate::planes`]. Alignment 64 KiB.
    Planes,
    /// The plan of a draft block, see [`crate::draft`]. Alignment 64.
    Draft,
}

impl SectionKind {
    fn codes(self) -> (u32, u32) {
        match self {
            SectionKind::Manifest => (1, 0),
            SectionKind::Weights => (2, 0),
            SectionKind::Tensors => (3, 0),
            SectionKind::Code(target) => {
                (4, Target::ALL.iter().position(|&t| t == target).expect("ALL lists every target") as u32)
            }
            SectionKind::Tokenizer => (5, 0),
            SectionKind::Planes => (6, 0),
            SectionKind::Draft => (7, 0),
        }
    }

    fn from_codes(kind: u32, target: u32) -> Option<SectionKind> {
        match (kind, target) {
            (1, 0) => Some(SectionKind::Manifest),
            (2, 0) => Some(SectionKind::Weights),
            (3, 0) => Some(SectionKind::Tensors),
            (4, t) => Target::ALL.get(t as usize).map(|&t| SectionKind::Code(t)),
            (5, 0) => Some(SectionKind::Tokenizer),
            (6, 0) => Some(SectionKind::Planes),
            (7, 0) => Some(SectionKind::Draft),
            _ => None,
        }
    }

    /// Alignment of the section's offset in bytes: 64 KiB where one mapping must serve 4, 16 and 64 KiB pages.
    pub const fn alignment(self) -> u64 {
        match self {
            SectionKind::Manifest | SectionKind::Tokenizer | SectionKind::Draft => 64,
            _ => 64 << 10,
        }
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SectionKind::Manifest => f.write_str("manifest"),
            SectionKind::Weights => f.write_str("weights"),
            SectionKind::Tensors => f.write_str("tensors"),
            SectionKind::Code(target) => write!(f, "code for {target}"),
            SectionKind::Tokenizer => f.write_str("tokenizer"),
            SectionKind::Planes => f.write_str("planes"),
            SectionKind::Draft => f.write_str("draft"),
        }
    }
}

/// One entry of the section table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
}

impl Section {
    /// Its place in the file. In a header that was parsed the place lies inside the file. The place of a section that
    /// was made up ends where addresses end.
    pub fn range(&self) -> Range<usize> {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        place(self.offset)..place(self.offset.saturating_add(self.len))
    }
}

/// The header and section table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// In file order.
    pub sections: Vec<Section>,
}

impl Header {
    /// Bytes of a header with that many sections.
    pub const fn bytes(sections: usize) -> u64 {
        HEADER_BYTES * (1 + sections as u64)
    }

    /// Length of the whole file.
    pub fn total_len(&self) -> u64 {
        self.sections.last().map_or(Header::bytes(0), |s| s.offset.saturating_add(s.len))
    }

    /// The section of that kind.
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind)
    }

    /// The bytes of the header and section table.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Header::bytes(self.sections.len()) as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&MAJOR.to_le_bytes());
        out.extend_from_slice(&MINOR.to_le_bytes());
        out.extend_from_slice(&(self.sections.len() as u32).to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes());
        out.extend_from_slice(&self.total_len().to_le_bytes());
        out.resize(HEADER_BYTES as usize, 0);
        for section in &self.sections {
            let (kind, target) = section.kind.codes();
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&target.to_le_bytes());
            out.extend_from_slice(&section.offset.to_le_bytes());
            out.extend_from_slice(&section.len.to_le_bytes());
            out.extend_from_slice(&[0; 8]);
            out.extend_from_slice(&section.digest.0);
        }
        out
    }

    /// Reads and validates the header of a whole bundle: bounds, order, alignment, zero padding. Section contents
    /// are not digested here.
    ///
    /// # Errors
    /// Every [`FormatError`] up to [`FormatError::Missing`].
    pub fn parse(file: &[u8]) -> Result<Header, FormatError> {
        let header = Header::parse_head(file, file.len() as u64)?;
        for gap in header.gaps() {
            let bytes = file.get(gap.start as usize..gap.end as usize);
            check_padding(bytes.ok_or(FormatError::TooShort { len: file.len() as u64 })?, gap.start)?;
        }
        Ok(header)
    }

    /// Bytes of the header and section table, as the first [`HEADER_BYTES`] bytes `first` announce them. The result is
    /// never more than [`MAX_SECTIONS`] sections take. A shorter `first` announces no section.
    pub fn announced(first: &[u8]) -> u64 {
        let count = first.get(12..16).map_or(0, |count| u32::from_le_bytes(array(count, 0)));
        Header::bytes(count.min(MAX_SECTIONS) as usize)
    }

    /// [`Header::parse`] for a caller that holds only `head`: the first bytes of a bundle of `len` bytes, with header
    /// and section table. It does not check what lies between sections: see [`Header::gaps`].
    ///
    /// # Errors
    /// Every [`FormatError`] up to [`FormatError::Missing`].
    pub fn parse_head(head: &[u8], len: u64) -> Result<Header, FormatError> {
        if len.min(head.len() as u64) < HEADER_BYTES {
            return Err(FormatError::TooShort { len });
        }
        let found: [u8; 8] = array(head, 0);
        if found != MAGIC {
            return Err(FormatError::Magic { found });
        }
        let (major, minor) = (u16::from_le_bytes(array(head, 8)), u16::from_le_bytes(array(head, 10)));
        if (major, minor) != (MAJOR, MINOR) {
            return Err(FormatError::Version { major, minor });
        }
        let unknown = u64::from_le_bytes(array(head, 16)) & !KNOWN_FEATURES;
        if unknown != 0 {
            return Err(FormatError::Feature { bit: unknown.trailing_zeros() });
        }
        let expected = u64::from_le_bytes(array(head, 24));
        if expected != len {
            return Err(FormatError::Length { expected, found: len });
        }
        check_padding(&head[32..64], 32)?;
        let count = u32::from_le_bytes(array(head, 12));
        if count == 0 || count > MAX_SECTIONS || Header::bytes(count as usize) > len {
            return Err(FormatError::SectionCount { count });
        }
        if (head.len() as u64) < Header::bytes(count as usize) {
            return Err(FormatError::TooShort { len: head.len() as u64 });
        }
        let mut sections: Vec<Section> = Vec::with_capacity(count as usize);
        let mut end = Header::bytes(count as usize);
        for index in 0..count as usize {
            let at = Header::bytes(index) as usize;
            let (code, target) =
                (u32::from_le_bytes(array(head, at)), u32::from_le_bytes(array(head, at + 4)));
            let kind = SectionKind::from_codes(code, target).ok_or(match code {
                4 => FormatError::CodeTarget { index: target },
                kind => FormatError::SectionKind { kind },
            })?;
            let (offset, len) =
                (u64::from_le_bytes(array(head, at + 8)), u64::from_le_bytes(array(head, at + 16)));
            check_padding(&head[at + 24..at + 32], at as u64 + 24)?;
            let problem = |problem| FormatError::Section { index, kind, offset, len, problem };
            if sections.iter().any(|s| s.kind == kind) {
                return Err(problem("is there twice"));
            }
            if Some(offset) != end.checked_next_multiple_of(kind.alignment()) {
                return Err(problem("does not start at the next aligned offset after the one before"));
            }
            let next = offset.checked_add(len).filter(|&next| next <= expected);
            end = next.ok_or_else(|| problem("reaches past the end of the file"))?;
            sections.push(Section { kind, offset, len, digest: Digest(array(head, at + 32)) });
        }
        if end != expected {
            return Err(FormatError::Length { expected: end, found: len });
        }
        let header = Header { sections };
        for kind in [SectionKind::Manifest, SectionKind::Weights, SectionKind::Tensors] {
            header.section(kind).ok_or(FormatError::Missing(kind))?;
        }
        Ok(header)
    }

    /// What lies between the sections, all of which must be zero ([`check_padding`]): less than 64 KiB each.
    pub fn gaps(&self) -> impl Iterator<Item = Range<u64>> {
        let mut end = Header::bytes(self.sections.len());
        self.sections.iter().filter_map(move |section| {
            let gap = end..section.offset;
            end = section.offset.saturating_add(section.len);
            (!gap.is_empty()).then_some(gap)
        })
    }

    /// Checks the digest of one section.
    ///
    /// # Errors
    /// [`FormatError::Digest`] on a mismatch, [`FormatError::Missing`] where there is no such section,
    /// [`FormatError::TooShort`] if `file` is not the one this header was parsed from.
    pub fn verify(&self, file: &[u8], kind: SectionKind) -> Result<(), FormatError> {
        let section = self.section(kind).ok_or(FormatError::Missing(kind))?;
        let bytes = file.get(section.range()).ok_or(FormatError::TooShort { len: file.len() as u64 })?;
        match Digest::of(bytes) == section.digest {
            true => Ok(()),
            false => Err(FormatError::Digest(kind)),
        }
    }
}

/// The `N` bytes at `at`, which the caller has checked to be inside.
fn array<const N: usize>(file: &[u8], at: usize) -> [u8; N] {
    file[at..at + N].try_into().expect("N bytes were taken")
}

/// Checks that `gap`, which stands at `offset` in the file, is zero.
///
/// # Errors
/// [`FormatError::Padding`] with the place of the first byte that is not.
pub fn check_padding(gap: &[u8], offset: u64) -> Result<(), FormatError> {
    match gap.iter().position(|&b| b != 0) {
        None => Ok(()),
        Some(at) => Err(FormatError::Padding { offset: offset + at as u64 }),
    }
}
