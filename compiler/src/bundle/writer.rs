//! Writes a bundle, or a program with one, beside its final name, section by section, and renames it when it is whole.

use crate::bundle::program::{self, Stub};
use crate::error::CompileError;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use trit_format::container::{Digest, Header, MAGIC, Section, SectionKind};
use trit_format::program::{ALIGNMENT, Trailer};
use trit_text::output::{self, Kind, Pending, Unfinished};

const BUNDLE: Kind = Kind { name: ".trit bundle", example: "model.trit", is: begins_as_bundle };

fn begins_as_bundle(file: &mut File) -> std::io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic).map(|()| magic == MAGIC)
}

/// Refuses to replace anything but a bundle.
///
/// # Errors
/// [`CompileError::Output`] as [`output::check`].
pub fn check_output(out: &Path) -> Result<(), CompileError> {
    output::check(out, &BUNDLE, &[]).map_err(CompileError::Output)
}

/// A bundle that is being written. Where it is dropped unfinished, it leaves nothing behind.
pub(crate) struct BundleWriter {
    file: Pending,
    out: PathBuf,
    /// Where the bundle begins in the file. Everything else is counted from here.
    base: u64,
    /// Bytes written, those of the header included.
    at: u64,
    count: usize,
    sections: Vec<Section>,
}

impl BundleWriter {
    /// Begins a bundle of exactly `count` sections that will stand at `out`, or a program that begins with `stub`.
    pub fn create(
        out: &Path,
        stub: Option<&Stub>,
        count: usize,
        unfinished: &Unfinished,
    ) -> Result<BundleWriter, CompileError> {
        let io = |path: &Path, source| CompileError::Io { path: path.to_owned(), source };
        let mut file = Pending::create(out, unfinished).map_err(|e| io(out, e))?;
        let stub = stub.map_or(&[][..], Stub::bytes);
        file.file().write_all(stub).map_err(|e| io(out, e))?;
        let (base, at) = ((stub.len() as u64).next_multiple_of(ALIGNMENT), Header::bytes(count));
        file.file().seek(SeekFrom::Start(base + at)).map_err(|e| io(out, e))?;
        Ok(BundleWriter { file, out: out.to_owned(), base, at, count, sections: Vec::new() })
    }

    /// Begins a section, at the next offset of its alignment.
    pub fn section(&mut self, kind: SectionKind) -> Result<SectionWriter<'_>, CompileError> {
        let offset = self.at.next_multiple_of(kind.alignment());
        self.write(&vec![0; (offset - self.at) as usize])?;
        Ok(SectionWriter { kind, offset, hasher: blake3::Hasher::new(), bundle: self })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CompileError> {
        let io = |source| CompileError::Io { path: self.out.clone(), source };
        self.file.file().write_all(bytes).map_err(io)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes the header, lets `check` see the whole file, and gives it its name.
    ///
    /// # Errors
    /// [`CompileError::Io`], and what `check` gives; `out` is then as it was.
    pub fn finish(
        mut self,
        check: impl FnOnce(&Path) -> Result<(), CompileError>,
    ) -> Result<Header, CompileError> {
        if self.sections.len() != self.count {
            let (found, expected) = (self.sections.len(), self.count);
            return Err(CompileError::Internal(format!("{found} sections were written, not {expected}")));
        }
        let header = Header { sections: std::mem::take(&mut self.sections) };
        let path = self.out.clone();
        let io = |source| CompileError::Io { path: path.clone(), source };
        let (file, head) = (self.file.file(), header.encode());
        file.seek(SeekFrom::Start(self.base)).map_err(io)?;
        file.write_all(&head).map_err(io)?;
        if self.base > 0 {
            let trailer = Trailer { offset: self.base, len: header.total_len(), signature: 0 };
            program::finish(&mut self.file, trailer, &head, b"").map_err(io)?;
        }
        check(self.file.temporary())?;
        self.file.keep().map_err(io)?;
        Ok(header)
    }
}

/// A section that is being written.
pub(crate) struct SectionWriter<'b> {
    kind: SectionKind,
    offset: u64,
    hasher: blake3::Hasher,
    bundle: &'b mut BundleWriter,
}

impl SectionWriter<'_> {
    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CompileError> {
        if bytes.len() < 1 << 20 {
            self.hasher.update(bytes);
        } else {
            self.hasher.update_rayon(bytes);
        }
        self.bundle.write(bytes)
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.bundle.at - self.offset
    }

    /// Ends the section.
    pub fn finish(self) {
        let (kind, offset, len) = (self.kind, self.offset, self.len());
        let digest = Digest(self.hasher.finalize().into());
        self.bundle.sections.push(Section { kind, offset, len, digest });
    }
}
