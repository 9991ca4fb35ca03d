//! Sequences in files, so that what has run once need not run again in another process.
//!
//! A file holds any number of sequences of one bundle: `format-spec/SPEC.md`, section 12, and [`trit_format::saved`]
//! say what its bytes are. Continuing a restored sequence gives the same bits as continuing the one that was saved. A
//! restored sequence has its own memory and does not depend on the file any more.
//!
//! Everything in a file counts as hostile until it was checked: heads when the file is opened, each page and state when it
//! is restored, on the copy that is used. No size is allocated before it was compared with the length of the file. Digests
//! show damage, but not who wrote a file. Whoever can write to it decides what the model takes for its text so far.
//!
//! ```no_run
//! # use trit_runtime::{LoadOptions, Model, RuntimeError, SavedSequences, SequenceOptions, Session, SessionOptions};
//! # fn main() -> Result<(), RuntimeError> {
//! # let (prompt, file) = ([4093, 46, 1218, 605], std::path::Path::new("system.cache"));
//! let model = Model::load("fables-12m.trit".as_ref(), &LoadOptions::default())?;
//! let mut session = Session::new(model.clone(), SessionOptions::default())?;
//! session.prefill(&prompt)?;
//! session.save(file)?;
//!
//! // In another process, or after a restart: as much of the prompt as the file holds need not run.
//! let mut session = Session::new(model, SessionOptions::default())?;
//! let reused = session.restore(file, &prompt)?;
//! session.prefill(&prompt[reused..])?;
//! # Ok(())
//! # }
//! ```

use super::Engine;
use super::kv::{KvType, POSITIONS};
use super::sequence::{Sequence, SequenceOptions};
use super::state::StateType;
use crate::RuntimeError;
use crate::load::Model;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trit_format::container::Digest;
use trit_format::saved::{
    Expected, HEADER_BYTES, Head, KvElement, MAGIC, MAX_RECORDS, MAX_STATES, Part, RecordHeader, SavedError,
    Shapes, StateElement,
};
use trit_text::conversation::shared_prefix;
use trit_text::output::{Kind, Pending, Unfinished};

// Numbers are copied between memory and files as they are.
const _: () = assert!(cfg!(target_endian = "little") && POSITIONS == trit_format::saved::POSITIONS as usize);

/// The files that may be replaced by saved sequences: others of their kind, and empty ones, which hold nothing.
pub const SAVED_FILE: Kind = Kind { name: "file of saved sequences", example: "prompt.cache", is: is_saved };

fn is_saved(file: &mut File) -> io::Result<bool> {
    let mut first = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut first)?;
    Ok(first.is_empty() || first == MAGIC)
}

/// Writes sequences of one model to a file that only its owner can read. It appears whole or not at all, in the place of
/// one that [`SAVED_FILE`] allows to replace. `unfinished` lists it meanwhile. Empty sequences are left out.
///
/// # Errors
/// [`RuntimeError::Output`] where something else stands there, [`RuntimeError::Io`] where the file cannot be written,
/// [`RuntimeError::Input`] where sequences belong to different models, or there are too many or none that is not empty.
pub fn save(path: &Path, sequences: &[&Sequence], unfinished: &Unfinished) -> Result<(), RuntimeError> {
    trit_text::output::check(path, &SAVED_FILE, &[]).map_err(RuntimeError::Output)?;
    let sequences: Vec<&Sequence> = sequences.iter().filter(|s| s.position() > 0).copied().collect();
    let records = u32::try_from(sequences.len()).ok().filter(|n| (1..=MAX_RECORDS).contains(n));
    let records = records.ok_or_else(|| {
        RuntimeError::Input(format!(
            "1 to {MAX_RECORDS} sequences can be saved in a file, not {}",
            sequences.len()
        ))
    })?;
    if sequences.iter().any(|sequence| !Arc::ptr_eq(sequence.model(), sequences[0].model())) {
        return Err(RuntimeError::Input("sequences of different models cannot be saved in one file".into()));
    }
    // A link stays, and the file that it leads to is replaced.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |source| RuntimeError::Io { path: path.to_owned(), source };
    let mut file = Pending::private(&target, unfinished).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, file.file());
    for (record, sequence) in (0..).zip(sequences) {
        sequence.write(record, records, &mut out).map_err(failed)?;
    }
    out.flush().map_err(failed)?;
    drop(out);
    file.keep().map_err(failed)
}

impl Sequence {
    /// Writes the sequence as record `record` of `records` at the present place of `out`.
    fn write<W: Write + Seek>(&self, record: u32, records: u32, out: &mut W) -> io::Result<()> {
        let start = out.stream_position()?;
        let shapes = Shapes::of(self.model().manifest());
        let states = self.state.as_ref().map(|state| (state.layout(), state.saved()));
        let (layout, mut states) =
            states.map_or((None, Vec::new()), |(layout, states)| (Some(layout), states));
        // The present state is the last.
        states.drain(..states.len().saturating_sub(MAX_STATES as usize));
        let mut header = RecordHeader {
            record,
            records,
            // A context is at most 2^24 tokens, and positions are tokens.
            tokens: self.position() as u32,
            states: states.len() as u32,
            widened: self.widened().map(|at| at as u32),
            kv: self.kv().into(),
            state: self.state.as_ref().map_or(StateType::default(), |state| state.kind()).into(),
            len: 0,
            bundle: self.model().digest(),
        };
        let len = header.record_bytes(&shapes);
        header.len = len.ok_or_else(|| io::Error::other("the sequence is larger than any file"))?;
        let mut head = Head {
            header,
            tokens: self.tokens().to_vec(),
            positions: states.iter().map(|(position, _)| *position as u32).collect(),
            pages: vec![Digest([0; 32]); header.pages() as usize],
            states: vec![Digest([0; 32]); states.len()],
        };
        // Digests are known once everything is written.
        out.write_all(&head.encode())?;
        let mut bytes = Vec::new();
        for (page, digest) in (0..).zip(&mut head.pages) {
            bytes.clear();
            self.cache.save_page(page as usize, header.rows(page) as usize, &mut bytes);
            *digest = Digest::of(&bytes);
            out.write_all(&bytes)?;
        }
        for ((_, memory), digest) in states.iter().zip(&mut head.states) {
            bytes.clear();
            layout.expect("only layouts have states").save(memory, &mut bytes);
            *digest = Digest::of(&bytes);
            out.write_all(&bytes)?;
        }
        let end = out.stream_position()?;
        let padding = (start + header.len).saturating_sub(end);
        out.write_all(&vec![0; padding as usize])?;
        out.seek(SeekFrom::Start(start))?;
        out.write_all(&head.encode())?;
        out.seek(SeekFrom::Start(start + header.len)).map(drop)
    }
}

/// An open file of saved sequences, whose heads were checked.
pub struct SavedSequences {
    path: PathBuf,
    file: File,
    model: Arc<Model>,
    shapes: Shapes,
    /// Each record, and where it begins.
    records: Vec<(u64, Head)>,
}

impl SavedSequences {
    /// Opens a file and reads what its sequences are. An empty file holds none.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] where it cannot be read, [`RuntimeError::Saved`] where it belongs to another bundle or another
    /// version of this program, is damaged, or is no such file.
    pub fn open(path: &Path, model: &Arc<Model>) -> Result<SavedSequences, RuntimeError> {
        let failed = |source| RuntimeError::Io { path: path.to_owned(), source };
        // To open a pipe would wait for somebody who writes to it.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("is not an ordinary file")));
        }
        let mut file = File::open(path).map_err(failed)?;
        let manifest = model.manifest();
        let expected = Expected {
            bundle: model.digest(),
            vocab_size: manifest.hyperparameters.vocab_size,
            context_length: manifest.hyperparameters.context_length,
            shapes: Shapes::of(manifest),
        };
        let saved = |source| RuntimeError::Saved { path: path.to_owned(), source };
        let (mut at, end, mut records) = (0, file.metadata().map_err(failed)?.len(), Vec::new());
        while at < end {
            let head = read_head(&mut file, records.len() as u32, at, end - at, &expected);
            let head = head.map_err(failed)?.map_err(saved)?;
            let (len, last) = (head.header.len, records.len() + 1 == head.header.records as usize);
            records.push((at, head));
            at += len;
            if last && at < end {
                return Err(saved(SavedError::Long { bytes: end - at }));
            }
            if !last && at == end {
                return Err(saved(SavedError::Short { expected: HEADER_BYTES, found: 0 }));
            }
        }
        Ok(SavedSequences {
            path: path.to_owned(),
            file,
            model: model.clone(),
            shapes: expected.shapes,
            records,
        })
    }

    /// The model that it was opened for.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How many sequences it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The tokens of sequence `index`; none where there is no such sequence.
    pub fn tokens(&self, index: usize) -> &[u32] {
        self.records.get(index).map_or(&[], |(_, head)| &head.tokens)
    }

    /// Which sequence has most of a text's first tokens, and how many of them need not run; never all, because the last
    /// must run to give logits. `None` where no sequence helps.
    ///
    /// Where a sequence has a recurrent state, a position at which the file has one is what counts. Where it had to go on
    /// with a cache of f32, all of the part before does: the text from scratch would have a cache of f16 there.
    pub fn best(&self, ids: &[u32]) -> Option<(usize, usize)> {
        let usable = self.records.iter().map(|(_, head)| {
            let shared = shared_prefix(&head.tokens, ids);
            let positions = head.positions.iter().map(|&at| at as usize);
            match head.header.widened {
                Some(widened) if shared <= widened as usize => 0,
                _ if self.shapes.states.is_empty() => shared,
                _ => positions.filter(|&at| at <= shared).max().unwrap_or(0),
            }
        });
        // The first of several that are equally good.
        let best = usable.enumerate().rev().max_by_key(|(_, tokens)| *tokens);
        best.filter(|(_, tokens)| *tokens > 0)
    }

    /// A sequence that begins with the first `position` tokens of sequence `index`, or with all where there are fewer.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] where there is no such sequence; [`RuntimeError::Saved`] where the options ask for other
    /// types of numbers than it has, or where a part is damaged; [`RuntimeError::Context`] and
    /// [`RuntimeError::ContextFull`] where the options' context is impossible or too short; [`RuntimeError::Io`];
    /// [`RuntimeError::System`] and [`RuntimeError::SequenceMemory`] where memory is refused.
    pub fn restore(
        &self,
        index: usize,
        position: usize,
        options: SequenceOptions,
    ) -> Result<Sequence, RuntimeError> {
        self.fill(index, position, Sequence::new(self.model.clone(), options)?)
    }

    /// As [`SavedSequences::restore`]. The sequence counts as one of the engine: see [`Engine::sequence_bytes`].
    ///
    /// # Errors
    /// As [`SavedSequences::restore`], and [`RuntimeError::Input`] where the file was opened for another model.
    pub fn restore_on(
        &self,
        engine: &Engine,
        index: usize,
        position: usize,
        options: SequenceOptions,
    ) -> Result<Sequence, RuntimeError> {
        if !Arc::ptr_eq(&self.model, engine.model()) {
            let problem = "the saved sequences belong to another model than the engine";
            return Err(RuntimeError::Input(problem.into()));
        }
        self.fill(index, position, engine.sequence(options)?)
    }

    /// Fills an empty sequence.
    fn fill(&self, index: usize, position: usize, mut sequence: Sequence) -> Result<Sequence, RuntimeError> {
        let Some((start, head)) = self.records.get(index) else {
            return Err(RuntimeError::Input(format!("there is no saved sequence {index} of {}", self.len())));
        };
        let (header, position) = (&head.header, position.min(head.tokens.len()));
        self.expect_types(header, sequence.asked())?;
        if position > sequence.context_length() {
            let longest = self.model.manifest().hyperparameters.context_length as usize;
            let (tokens, context) = (position, sequence.context_length());
            return Err(RuntimeError::ContextFull { tokens, context, longest });
        }
        if header.widened.is_some() {
            sequence.widened = header.widened.map(|at| at as usize);
            sequence.cache = sequence.cache.emptied(KvType::F32);
        }
        sequence.cache.reserve(position, 0)?;
        let overflow = "sizes of a head that was checked do not overflow";
        for (page, digest) in (0..position.div_ceil(POSITIONS) as u32).zip(&head.pages) {
            let at = header.page_at(&self.shapes, page).expect(overflow);
            let len = self.shapes.page_bytes(header.kv, header.rows(page)).expect(overflow);
            let bytes = self.part(start + at, len, *digest, header.record, Part::Page(page))?;
            sequence.cache.restore_page(page as usize, header.rows(page) as usize, &bytes);
        }
        if let Some(state) = &mut sequence.state {
            let mut states = Vec::new();
            for ((index, &seen), digest) in (0..).zip(&head.positions).zip(&head.states) {
                if seen as usize <= position {
                    let at = header.state_at(&self.shapes, index).expect(overflow);
                    let len = self.shapes.state_bytes(header.state).expect(overflow);
                    let bytes = self.part(start + at, len, *digest, header.record, Part::State(index))?;
                    states.push(state.read(seen as usize, &bytes)?);
                }
            }
            state.restore(states);
        }
        sequence.tokens = head.tokens[..position].to_vec();
        Ok(sequence)
    }

    /// Checks that the numbers of a record are of the types that were asked for.
    fn expect_types(&self, header: &RecordHeader, options: SequenceOptions) -> Result<(), RuntimeError> {
        let refuse = |what, found, wanted| {
            let source = SavedError::Type { what, found, wanted };
            Err(RuntimeError::Saved { path: self.path.clone(), source })
        };
        // A cache that was widened was one of f16.
        let kv = if header.widened.is_some() { KvElement::F16 } else { header.kv };
        if kv != options.kv.into() {
            let name = |kv| match kv {
                KvElement::F16 => "f16",
                KvElement::F32 => "f32",
                KvElement::Int8 => "int8",
            };
            return refuse("KV cache", name(kv), name(options.kv.into()));
        }
        if !self.shapes.states.is_empty() && header.state != options.state.into() {
            let name = |state| match state {
                StateElement::F32 => "f32",
                StateElement::F16 => "f16",
            };
            return refuse("recurrent state", name(header.state), name(options.state.into()));
        }
        Ok(())
    }

    /// Reads a part, and checks its digest on what was read.
    fn part(
        &self,
        at: u64,
        len: u64,
        digest: Digest,
        record: u32,
        part: Part,
    ) -> Result<Vec<u8>, RuntimeError> {
        let failed = |source| RuntimeError::Io { path: self.path.clone(), source };
        let bytes = read(&mut &self.file, at, len).map_err(failed)?;
        match Digest::of(&bytes) == digest {
            true => Ok(bytes),
            false => {
                let source = SavedError::Damaged { record, part };
                Err(RuntimeError::Saved { path: self.path.clone(), source })
            }
        }
    }
}

/// Reads the head of record `record`, which begins at byte `at`; `left` bytes of the file follow from there.
fn read_head(
    file: &mut File,
    record: u32,
    at: u64,
    left: u64,
    expected: &Expected,
) -> io::Result<Result<Head, SavedError>> {
    if left < HEADER_BYTES {
        let first = read(file, at, left.min(MAGIC.len() as u64))?;
        let ours = MAGIC.starts_with(&first);
        return Ok(Err(if ours {
            SavedError::Short { expected: HEADER_BYTES, found: left }
        } else {
            SavedError::Magic
        }));
    }
    let mut bytes = read(file, at, HEADER_BYTES)?;
    let first = bytes.first_chunk().expect("as many bytes were read");
    let header = match RecordHeader::parse(first, record, left, expected) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    bytes.extend(read(file, at + HEADER_BYTES, header.head_bytes() - HEADER_BYTES)?);
    let head = Head::parse(&bytes, record, left, expected);
    // What fills up the record is part of no digest.
    let end = header.state_at(&expected.shapes, header.states).unwrap_or(header.len);
    let padding = read(file, at + end, header.len - end)?;
    Ok(head.and_then(|head| match padding.iter().all(|&b| b == 0) {
        true => Ok(head),
        false => Err(SavedError::Header { record, problem: "a byte of the padding is not 0".into() }),
    }))
}

/// Reads `len` bytes at `at`, which the caller has compared with the length of the file.
fn read(file: &mut (impl Read + Seek), at: u64, len: u64) -> io::Result<Vec<u8>> {
    let too_large =
        || io::Error::new(io::ErrorKind::OutOfMemory, format!("there is no memory for {len} bytes of it"));
    let len = usize::try_from(len).map_err(|_| too_large())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| too_large())?;
    bytes.resize(len, 0);
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
