//! SHA-256 of every input file, the digest that publishers of checkpoints use.

use crate::error::CompileError;
use crate::files::locate::file_name;
use crate::files::unchanged::InputFile;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use trit_format::manifest::Source;
use trit_text::printable::escape;

/// Digests `files` in parallel and lists them in their order. The files are read, not mapped, so that none of their
/// pages stays resident. Control characters in names are spelled out.
///
/// # Errors
/// A file that cannot be read, or that is no longer the one that was opened.
pub(crate) fn sources(files: &[InputFile]) -> Result<Vec<Source>, CompileError> {
    files.par_iter().map(source).collect()
}

fn source(opened: &InputFile) -> Result<Source, CompileError> {
    let path = opened.path();
    let io = |source| CompileError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    opened.expect(&file.metadata().map_err(io)?)?;
    let (mut hasher, mut len, mut buffer) = (Sha256::new(), 0u64, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => break,
            n => {
                hasher.update(&buffer[..n]);
                len += n as u64;
            }
        }
    }
    Ok(Source { file: escape(&file_name(path)).into_owned(), len, sha256: hasher.finalize().into() })
}
