//! SHA-256 of every input file, the digest that publishers of checkpoints use.

use crate::error::CompileError;
use crate::ingest::files::file_name;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use trit_format::manifest::Source;

/// Digests `files` in parallel and lists them in their order. Read, not mapped: no page of it stays resident.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn sources(files: &[PathBuf]) -> Result<Vec<Source>, CompileError> {
    files.par_iter().map(|path| source(path)).collect()
}

fn source(path: &Path) -> Result<Source, CompileError> {
    let io = |source| CompileError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
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
    Ok(Source { file: file_name(path), len, sha256: hasher.finalize().into() })
}
