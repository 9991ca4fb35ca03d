//! Writes a bundle: to a temporary file beside its name, then renamed, so that a bundle is there whole or not at all.

use crate::error::CompileError;
use crate::ingest::mapped::MappedFile;
use crate::lower::{Lowered, TensorData};
use crate::pack;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use trit_format::container::{Digest, Header, Section, SectionKind};
use trit_format::manifest::Manifest;
use trit_format::target::Target;

/// What goes into a bundle.
pub struct Contents<'a> {
    /// Products and tensors, streamed from the checkpoint.
    pub lowered: &'a Lowered,
    /// Machine code, one blob a target.
    pub code: &'a [(Target, Vec<u8>)],
    /// tokenizer.json.
    pub tokenizer: Option<&'a [u8]>,
    /// The manifest.
    pub manifest: &'a Manifest,
}

/// Writes `contents` to `path` and gives the bytes of its header. `progress` is told the name of each product.
///
/// # Errors
/// [`CompileError::Io`] with the file; what reading the checkpoint gives; [`CompileError::Internal`] where the result
/// is no valid bundle. No file stands at `path` then that was not there before.
pub fn write(path: &Path, contents: &Contents, progress: &mut dyn FnMut(&str)) -> Result<Vec<u8>, CompileError> {
    let io = |source| CompileError::Io { path: path.to_owned(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tritc-").suffix(".part");
    // Readable like any file the user makes; temporary files are private by default.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder).map_err(io)?;
    let sections = 3 + contents.code.len() + usize::from(contents.tokenizer.is_some());
    let mut writer = Writer::new(temporary.as_file(), path, sections)?;

    writer.begin(SectionKind::Weights)?;
    for product in &contents.lowered.products {
        progress(&product.record.name);
        pack::pack(product, &mut |tiles| writer.bytes(tiles))?;
    }
    writer.begin(SectionKind::Tensors)?;
    let mut at = 0;
    for (tensor, data) in &contents.lowered.tensors {
        writer.zeros(tensor.offset - at)?;
        at = tensor.offset + tensor.bytes().unwrap_or(0);
        match data {
            TensorData::Dense(dense) => writer.bytes((*dense.data).as_ref())?,
            TensorData::F32(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                writer.bytes(&bytes)?;
            }
        }
    }
    for (target, code) in contents.code {
        writer.begin(SectionKind::Code(*target))?;
        writer.bytes(code)?;
    }
    if let Some(tokenizer) = contents.tokenizer {
        writer.begin(SectionKind::Tokenizer)?;
        writer.bytes(tokenizer)?;
    }
    writer.begin(SectionKind::Manifest)?;
    writer.bytes(&contents.manifest.encode().map_err(|e| CompileError::Internal(e.to_string()))?)?;
    let header = writer.close()?;

    check(temporary.path(), path)?;
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(path).map_err(|e| io(e.error))?;
    Ok(header)
}

/// Reads what was written as a runtime would.
fn check(file: &Path, path: &Path) -> Result<(), CompileError> {
    let file = MappedFile::open(file)?;
    let valid = || {
        let header = Header::parse(file.bytes())?;
        let section = header.section(SectionKind::Manifest).map(Section::range).unwrap_or_default();
        Manifest::decode(&file.bytes()[section])?.validate(&header)
    };
    valid().map_err(|e| CompileError::Internal(format!("the bundle for {} is invalid: {e}", path.display())))
}

/// Writes section after section, digesting on the way.
struct Writer<'a> {
    file: BufWriter<&'a File>,
    path: PathBuf,
    /// Bytes written so far.
    at: u64,
    /// The section being written and its digest so far.
    open: Option<(Section, blake3::Hasher)>,
    sections: Vec<Section>,
}

impl<'a> Writer<'a> {
    /// Leaves room for a header with that many sections.
    fn new(file: &'a File, path: &Path, sections: usize) -> Result<Writer<'a>, CompileError> {
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut writer = Writer { file, path: path.to_owned(), at: 0, open: None, sections: Vec::new() };
        writer.zeros(Header::bytes(sections))?;
        Ok(writer)
    }

    /// Ends the section before and starts one at its alignment.
    fn begin(&mut self, kind: SectionKind) -> Result<(), CompileError> {
        self.end();
        self.zeros(self.at.next_multiple_of(kind.alignment()) - self.at)?;
        let section = Section { kind, offset: self.at, len: 0, digest: Digest([0; 32]) };
        self.open = Some((section, blake3::Hasher::new()));
        Ok(())
    }

    fn end(&mut self) {
        if let Some((section, hasher)) = self.open.take() {
            let digest = Digest(hasher.finalize().into());
            self.sections.push(Section { len: self.at - section.offset, digest, ..section });
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), CompileError> {
        if let Some((_, hasher)) = &mut self.open {
            hasher.update_rayon(bytes);
        }
        self.at += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| CompileError::Io { path: self.path.clone(), source })
    }

    fn zeros(&mut self, count: u64) -> Result<(), CompileError> {
        self.bytes(&vec![0; count as usize])
    }

    /// Writes the header in the room left for it and gives its bytes.
    fn close(mut self) -> Result<Vec<u8>, CompileError> {
        self.end();
        let header = Header { sections: self.sections }.encode();
        let mut finish = || {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.flush()
        };
        finish().map_err(|source| CompileError::Io { path: self.path.clone(), source })?;
        Ok(header)
    }
}
