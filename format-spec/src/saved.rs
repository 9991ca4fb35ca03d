//! Saved sequences: the tokens of a text with the keys, values and recurrent states that continue it, in a file.
//!
//! A file holds one record for each sequence. A record is a [`Head`], then the pages of the KV cache, then the recurrent
//! states. The head names the bundle, and has the digest of everything that follows it. `SPEC.md`, section 12, is
//! normative.
//!
//! All sizes follow from the bundle's plan and a few counts of the header. A reader compares them with the length of the
//! file before it allocates anything.

mod error;
mod shapes;

pub use error::{Part, SavedError};
pub use shapes::Shapes;

use crate::container::Digest;

/// First bytes of a record.
pub const MAGIC: [u8; 8] = *b"\x89TRIS\r\n\x1a";
/// The layout of records.
pub const VERSION: u32 = 1;
/// What keys, values and states mean in number: it is raised whenever a runtime computes others from the same tokens.
pub const NUMERICS: u32 = 1;
/// Bytes of the fixed header.
pub const HEADER_BYTES: u64 = 128;
/// Most records of a file.
pub const MAX_RECORDS: u32 = 1 << 16;
/// Most recurrent states of a record: the present one and snapshots.
pub const MAX_STATES: u32 = 64;
/// Positions of a page; the last page has fewer.
pub const POSITIONS: u32 = 256;
/// The length of a record is a multiple of this many bytes.
pub const ALIGNMENT: u64 = 64;

/// Where the digest of the head stands, which is computed with zeros in its place.
const DIGEST_AT: usize = 96;
/// Stands for no position.
const NOWHERE: u32 = u32::MAX;

/// Element type of the keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvElement {
    /// 16-bit floats.
    F16,
    /// 32-bit floats.
    F32,
    /// 8-bit integers with an f32 scale for each key and each value of a head.
    Int8,
}

impl KvElement {
    /// Every type, in the order of their codes.
    pub const ALL: [KvElement; 3] = [KvElement::F16, KvElement::F32, KvElement::Int8];

    /// Bytes of an element, and of the scale of a key or a value.
    pub const fn bytes(self) -> (u64, u64) {
        match self {
            KvElement::F16 => (2, 0),
            KvElement::F32 => (4, 0),
            KvElement::Int8 => (1, 4),
        }
    }
}

/// Element type of the matrices of recurrent states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateElement {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
}

impl StateElement {
    /// Every type, in the order of their codes.
    pub const ALL: [StateElement; 2] = [StateElement::F32, StateElement::F16];

    /// Bytes of an element.
    pub const fn bytes(self) -> u64 {
        match self {
            StateElement::F32 => 4,
            StateElement::F16 => 2,
        }
    }
}

/// What a reader knows of the bundle that a file should belong to.
#[derive(Clone, Debug)]
pub struct Expected {
    /// BLAKE3 of the bundle's header and section table.
    pub bundle: Digest,
    /// Tokens of the vocabulary.
    pub vocab_size: u32,
    /// Most tokens of a sequence.
    pub context_length: u32,
    /// What a position and a state hold.
    pub shapes: Shapes,
}

/// The fixed header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Index of the record in the file.
    pub record: u32,
    /// Records of the file.
    pub records: u32,
    /// Tokens of the sequence.
    pub tokens: u32,
    /// Recurrent states.
    pub states: u32,
    /// The position from which on the cache is one of f32, because f16 could not hold the keys or values there.
    pub widened: Option<u32>,
    /// Element type of the cache.
    pub kv: KvElement,
    /// Element type of the states' matrices.
    pub state: StateElement,
    /// Bytes of the record.
    pub len: u64,
    /// The bundle: BLAKE3 of its header and section table.
    pub bundle: Digest,
}

/// A record without the pages and states that follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The fixed header.
    pub header: RecordHeader,
    /// The tokens of the text.
    pub tokens: Vec<u32>,
    /// How many tokens each recurrent state has seen, ascending. The last is the present state.
    pub positions: Vec<u32>,
    /// Digests of the pages.
    pub pages: Vec<Digest>,
    /// Digests of the states.
    pub states: Vec<Digest>,
}

impl RecordHeader {
    /// Pages of the cache.
    pub const fn pages(&self) -> u32 {
        self.tokens.div_ceil(POSITIONS)
    }

    /// Positions that page `page` holds.
    pub const fn rows(&self, page: u32) -> u32 {
        let left = self.tokens.saturating_sub(page.saturating_mul(POSITIONS));
        if left < POSITIONS { left } else { POSITIONS }
    }

    /// Bytes of the head: header, tokens, positions and digests.
    pub const fn head_bytes(&self) -> u64 {
        let (tokens, states) = (self.tokens as u64, self.states as u64);
        HEADER_BYTES + 4 * (tokens + states) + 32 * (self.pages() as u64 + states)
    }

    /// Where page `page` stands in the record; `None` where sizes overflow.
    pub fn page_at(&self, shapes: &Shapes, page: u32) -> Option<u64> {
        let full = shapes.page_bytes(self.kv, POSITIONS)?;
        full.checked_mul(u64::from(page))?.checked_add(self.head_bytes())
    }

    /// Where state `state` stands in the record; `None` where sizes overflow.
    pub fn state_at(&self, shapes: &Shapes, state: u32) -> Option<u64> {
        let pages = match self.pages() {
            0 => self.head_bytes(),
            pages => {
                let last = shapes.page_bytes(self.kv, self.rows(pages - 1))?;
                self.page_at(shapes, pages - 1)?.checked_add(last)?
            }
        };
        shapes.state_bytes(self.state)?.checked_mul(u64::from(state))?.checked_add(pages)
    }

    /// Bytes of the whole record, as the counts and the plan say; `None` where they overflow.
    pub fn record_bytes(&self, shapes: &Shapes) -> Option<u64> {
        self.state_at(shapes, self.states)?.checked_next_multiple_of(ALIGNMENT)
    }

    /// Reads the header at the beginning of a record. `left` are the bytes of the file from there on, and `record` is
    /// the record's index in it.
    ///
    /// # Errors
    /// Every [`SavedError`] but those about parts that follow the header.
    pub fn parse(
        bytes: &[u8; HEADER_BYTES as usize],
        record: u32,
        left: u64,
        expected: &Expected,
    ) -> Result<RecordHeader, SavedError> {
        let word = |at: usize| u32::from_le_bytes(array(bytes, at));
        let found: [u8; 8] = array(bytes, 0);
        if found != MAGIC {
            return Err(SavedError::Magic);
        }
        let (version, numerics) = (word(8), word(12));
        if (version, numerics) != (VERSION, NUMERICS) {
            return Err(SavedError::Version { version, numerics });
        }
        let bundle = Digest(array(bytes, 64));
        if bundle != expected.bundle {
            return Err(SavedError::OtherBundle { found: bundle, expected: expected.bundle });
        }
        let wrong = |problem: String| SavedError::Header { record, problem };
        let unknown = |what: &str, code: u32| wrong(format!("type {code} of the {what} is unknown"));
        let kv = KvElement::ALL.get(word(36) as usize).copied();
        let kv = kv.ok_or_else(|| unknown("KV cache", word(36)))?;
        let state = StateElement::ALL.get(word(40) as usize).copied();
        let state = state.ok_or_else(|| unknown("recurrent state", word(40)))?;
        let header = RecordHeader {
            record: word(16),
            records: word(20),
            tokens: word(24),
            states: word(28),
            widened: Some(word(32)).filter(|&at| at != NOWHERE),
            kv,
            state,
            len: u64::from_le_bytes(array(bytes, 48)),
            bundle,
        };
        if header.records == 0 || header.records > MAX_RECORDS || header.record >= header.records {
            return Err(wrong(format!("it is record {} of {}", header.record, header.records)));
        }
        if header.record != record {
            return Err(wrong(format!("it is record {} and stands in the place of {record}", header.record)));
        }
        if header.tokens == 0 || header.tokens > expected.context_length {
            let most = expected.context_length;
            return Err(wrong(format!("it has {} tokens; 1 to {most} are possible", header.tokens)));
        }
        let most = if expected.shapes.states.is_empty() { 0 } else { MAX_STATES };
        if header.states > most {
            return Err(wrong(format!(
                "it has {} recurrent states; up to {most} are possible",
                header.states
            )));
        }
        if header.widened.is_some_and(|at| kv != KvElement::F32 || at >= expected.context_length) {
            return Err(wrong("the position where the cache became one of f32 is impossible".into()));
        }
        if bytes[44..48].iter().chain(&bytes[56..64]).any(|&b| b != 0) {
            return Err(wrong("a byte that must be 0 is not".into()));
        }
        let len = header.record_bytes(&expected.shapes);
        let len = len.ok_or_else(|| wrong("its size is beyond all files".into()))?;
        if header.len != len {
            return Err(wrong(format!(
                "it says that it has {} bytes; by what it holds they are {len}",
                header.len
            )));
        }
        if len > left {
            return Err(SavedError::Short { expected: len, found: left });
        }
        Ok(header)
    }
}

impl Head {
    /// The bytes of the head, with its digest.
    pub fn encode(&self) -> Vec<u8> {
        let header = &self.header;
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        let kv = KvElement::ALL.iter().position(|&kv| kv == header.kv).expect("ALL has every type") as u32;
        let state =
            StateElement::ALL.iter().position(|&s| s == header.state).expect("ALL has every type") as u32;
        let widened = header.widened.unwrap_or(NOWHERE);
        for word in [
            VERSION,
            NUMERICS,
            header.record,
            header.records,
            header.tokens,
            header.states,
            widened,
            kv,
            state,
            0,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&header.len.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&header.bundle.0);
        out.resize(HEADER_BYTES as usize, 0);
        self.tokens.iter().chain(&self.positions).for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        self.pages.iter().chain(&self.states).for_each(|digest| out.extend_from_slice(&digest.0));
        let digest = Digest::of(&out);
        out[DIGEST_AT..HEADER_BYTES as usize].copy_from_slice(&digest.0);
        out
    }

    /// Reads a head: `bytes` are the [`RecordHeader::head_bytes`] first bytes of the record that `header` was parsed from.
    ///
    /// # Errors
    /// [`SavedError::Damaged`] where the digest does not match, [`SavedError::Header`] where a token or a position is
    /// impossible, and what [`RecordHeader::parse`] returns.
    pub fn parse(bytes: &[u8], record: u32, left: u64, expected: &Expected) -> Result<Head, SavedError> {
        let first = bytes.first_chunk().ok_or(SavedError::Short { expected: HEADER_BYTES, found: left })?;
        let header = RecordHeader::parse(first, record, left, expected)?;
        if bytes.len() as u64 != header.head_bytes() {
            return Err(SavedError::Short { expected: header.head_bytes(), found: bytes.len() as u64 });
        }
        let mut zeroed = bytes.to_vec();
        zeroed[DIGEST_AT..HEADER_BYTES as usize].fill(0);
        if Digest::of(&zeroed).0 != bytes[DIGEST_AT..HEADER_BYTES as usize] {
            return Err(SavedError::Damaged { record, part: Part::Head });
        }
        let (words, digests) =
            bytes[HEADER_BYTES as usize..].split_at(4 * (header.tokens as usize + header.states as usize));
        let words: Vec<u32> = words.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let digests: Vec<Digest> = digests.as_chunks().0.iter().map(|digest| Digest(*digest)).collect();
        let (tokens, positions) = words.split_at(header.tokens as usize);
        let (pages, states) = digests.split_at(header.pages() as usize);
        let wrong = |problem: String| Err(SavedError::Header { record, problem });
        if let Some(id) = tokens.iter().find(|&&id| id >= expected.vocab_size) {
            return wrong(format!("token id {id} is outside the vocabulary of {}", expected.vocab_size));
        }
        let ascending = positions.is_sorted_by(|a, b| a < b);
        if !ascending || positions.iter().any(|&at| at == 0 || at > header.tokens) {
            return wrong(format!("recurrent states at {positions:?} of {} tokens", header.tokens));
        }
        Ok(Head {
            header,
            tokens: tokens.to_vec(),
            positions: positions.to_vec(),
            pages: pages.to_vec(),
            states: states.to_vec(),
        })
    }
}

/// The `N` bytes at `at`, which is a constant place inside the header.
fn array<const N: usize>(bytes: &[u8; HEADER_BYTES as usize], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were taken")
}
