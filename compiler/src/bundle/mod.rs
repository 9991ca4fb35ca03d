//! Opens a bundle on disk to look at it, for `inspect` and for the check of a bundle that was just written.
//!
//! | module | does |
//! |---|---|
//! | `writer` | writes a bundle, section by section |
//! | [`program`] | programs of one file: the runtime with a bundle after it |
//! | [`sign`] | keys and signatures |
//! | [`trust`] | records that a bundle is this user's own |

pub mod program;
pub mod sign;
pub mod trust;
pub(crate) mod writer;

use crate::error::CompileError;
use crate::files::mapped::MappedFile;
use crate::files::unchanged::Inputs;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trit_format::FormatError;
use trit_format::container::{Digest, Header, MAGIC, SectionKind};
use trit_format::draft;
use trit_format::kernel::KernelEntry;
use trit_format::manifest::Manifest;
use trit_format::program::Program;

pub use writer::check_output;

/// Whether `path` is a file that starts as bundles do, or a program with a bundle in it.
pub fn is_bundle(path: &Path) -> bool {
    // Opening a pipe waits for whoever writes to it.
    if !path.is_file() {
        return false;
    }
    let mut start = [0; MAGIC.len()];
    let Ok(mut file) = File::open(path) else { return false };
    // What is wrong with a damaged program shows when it is opened.
    file.read_exact(&mut start).is_ok()
        && (start == MAGIC || !matches!(program::find_in(&mut file), Ok(None)))
}

/// A model's name as a bundle's file in the current directory; names may hold anything.
pub fn file_of(name: &str) -> PathBuf {
    let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let stem: String = name.chars().map(safe).collect();
    // Not hidden, and not `.trit` alone.
    let stem = stem.trim_start_matches('.');
    PathBuf::from(format!("{}.trit", if stem.is_empty() { "model" } else { stem }))
}

/// A bundle whose header and manifest are valid. Other sections are not digested yet.
pub struct Bundle {
    file: Arc<MappedFile>,
    /// The place of the bundle in a program; `None` where it is the whole file.
    program: Option<Program>,
    header: Header,
    manifest: Manifest,
    draft: Option<Manifest>,
}

/// Where a bundle stands in its file: all of it, or a part of a program, which was found in it.
fn place(file: &MappedFile, program: Option<&Program>) -> Range<usize> {
    program.map_or(0..file.bytes().len(), |program| {
        program.offset as usize..(program.offset + program.len) as usize
    })
}

impl Bundle {
    /// Maps the bundle at `path` and reads what it says about itself.
    ///
    /// # Errors
    /// [`CompileError::Io`], [`CompileError::NotABundle`] and [`CompileError::Invalid`] where the file cannot be
    /// read, is no bundle, or is no valid one.
    pub fn open(path: &Path) -> Result<Bundle, CompileError> {
        let name = path.to_string_lossy();
        let checkpoint = [".safetensors", ".json", ".gguf", ".bin"].iter().any(|end| name.ends_with(end));
        if path.is_dir() || checkpoint {
            return Err(CompileError::NotABundle { path: path.to_owned(), may_be_checkpoint: true });
        }
        let file = MappedFile::open(path)?;
        let damaged = |problem: std::io::Error| CompileError::Invalid {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        let program = program::find_in_bytes(file.bytes()).map_err(damaged)?;
        let bytes = &file.bytes()[place(&file, program.as_ref())];
        // The format's own advice to a user of the runtime would read oddly where bundles are made.
        if !bytes.starts_with(&MAGIC) {
            return Err(CompileError::NotABundle { path: path.to_owned(), may_be_checkpoint: false });
        }
        let invalid =
            |error: FormatError| CompileError::Invalid { path: path.to_owned(), problem: error.to_string() };
        let header = Header::parse(bytes).map_err(invalid)?;
        header.verify(bytes, SectionKind::Manifest).map_err(invalid)?;
        let section = header.section(SectionKind::Manifest).map_or(0..0, |s| s.range());
        let manifest = Manifest::decode(&bytes[section]).map_err(invalid)?;
        manifest.validate(&header).map_err(invalid)?;
        let draft = match header.section(SectionKind::Draft) {
            Some(section) => {
                header.verify(bytes, SectionKind::Draft).map_err(invalid)?;
                Some(draft::decode(&bytes[section.range()], &manifest).map_err(invalid)?)
            }
            None => None,
        };
        Ok(Bundle { file, program, header, manifest, draft })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Header and section table.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest with the plan of the block that drafts tokens in place of its own, where there is such a block.
    pub fn draft(&self) -> Option<&Manifest> {
        self.draft.as_ref()
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[place(&self.file, self.program.as_ref())]
    }

    /// What stands before it in its file: the runtime of a program.
    pub(crate) fn before(&self) -> &[u8] {
        &self.file.bytes()[..place(&self.file, self.program.as_ref()).start]
    }

    /// Whether it is in a program.
    pub fn is_program(&self) -> bool {
        self.program.is_some()
    }

    /// The bytes of a section. They are none where there is no such section.
    pub fn section(&self, kind: SectionKind) -> &[u8] {
        self.header.section(kind).map_or(&[], |s| &self.bytes()[s.range()])
    }

    /// The code of one of its kernels.
    ///
    /// # Errors
    /// [`CompileError::Invalid`] where the code does not match its digest.
    pub fn kernel(&self, entry: &KernelEntry) -> Result<&[u8], CompileError> {
        let section = self.section(SectionKind::Code(entry.target));
        let range = entry.offset.checked_add(entry.len).map(|end| entry.offset as usize..end as usize);
        match range.and_then(|range| section.get(range)) {
            Some(code) if Digest::of(code) == entry.digest => Ok(code),
            _ => Err(self.invalid(format!(
                "the code of kernel {} for {} does not match its digest; copy or compile the bundle again",
                entry.spec, entry.target
            ))),
        }
    }

    /// Checks the digest of every section and kernel.
    ///
    /// # Errors
    /// [`CompileError::Invalid`] with the first that does not match.
    pub fn expect_whole(&self) -> Result<(), CompileError> {
        for section in &self.header.sections {
            self.header.verify(self.bytes(), section.kind).map_err(|e| self.invalid(e))?;
        }
        self.manifest.kernels.iter().try_for_each(|entry| self.kernel(entry).map(drop))
    }

    /// Refuses a file that is no longer what it was when it was opened.
    ///
    /// # Errors
    /// [`CompileError::Invalid`].
    pub(crate) fn expect_unchanged(&self) -> Result<(), CompileError> {
        Inputs(vec![self.file.source().clone()]).expect_unchanged()
    }

    /// Something is wrong with this bundle.
    pub(crate) fn invalid(&self, problem: impl ToString) -> CompileError {
        CompileError::Invalid { path: self.path().to_owned(), problem: problem.to_string() }
    }

    /// The name that stands for the whole bundle, see [`trit_format::trust::file_name`].
    pub fn fingerprint(&self) -> String {
        trit_format::trust::file_name(&self.header.encode())
    }
}
