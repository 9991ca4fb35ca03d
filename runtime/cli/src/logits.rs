//! `trit-run logits`: the logits after every token, as a safetensors file.

use crate::args::Logits;
use crate::failure::Failure;
use crate::{interrupt, open};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Tokens between two looks at Ctrl-C and the disk.
const BLOCK: usize = 64;

/// Writes the file; it appears whole or not at all.
pub fn run(args: &Logits) -> Result<ExitCode, Failure> {
    let model = open::model(&args.bundle, &args.session.load, false)?;
    let mut session = open::session(&model, &args.session)?;
    let stoppable = interrupt::stoppable();
    let written = |e: io::Error| Failure::invalid(&args.output, format_args!("cannot be written: {e}"));
    let vocab = model.manifest().hyperparameters.vocab_size as usize;
    let mut file = Pending::create(&args.output).map_err(written)?;
    file.out.write_all(&header(args.ids.len(), vocab)).map_err(written)?;
    let progress = open::progress(args.ids.len() as u64, "logits");
    for block in args.ids.chunks(BLOCK) {
        let mut result = Ok(());
        let mut write = |_: usize, logits: &[f32]| {
            if result.is_ok() {
                result = logits.iter().try_for_each(|l| file.out.write_all(&l.to_le_bytes()));
            }
        };
        session.forward_all(block, &mut write).map_err(|e| Failure::runtime(&args.bundle, e))?;
        result.map_err(written)?;
        progress.inc(block.len() as u64);
        if stoppable.requested() {
            return Err(Failure::interrupted());
        }
    }
    progress.finish_and_clear();
    file.keep().map_err(written)?;
    open::tell_widened(&session);
    Ok(ExitCode::SUCCESS)
}

/// The head of a safetensors file with one tensor: its length, then JSON padded with spaces to 8 bytes. Written here
/// and not by a library so that the tensor need not be in memory.
fn header(tokens: usize, vocab: usize) -> Vec<u8> {
    let bytes = tokens as u64 * vocab as u64 * 4;
    let mut json =
        format!(r#"{{"logits":{{"dtype":"F32","shape":[{tokens},{vocab}],"data_offsets":[0,{bytes}]}}}}"#);
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

/// A file that is deleted unless it is kept.
struct Pending {
    out: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
}

impl Pending {
    /// Creates `path` with another ending, beside it, so that renaming cannot cross file systems.
    fn create(path: &Path) -> io::Result<Pending> {
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(temporary);
        let out = BufWriter::with_capacity(1 << 20, File::create_new(&temporary)?);
        Ok(Pending { out, temporary, path: path.to_owned() })
    }

    fn keep(mut self) -> io::Result<()> {
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        fs::rename(&self.temporary, &self.path)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Already renamed where it was kept; otherwise there is nobody left to tell.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn the_header_is_safetensors() {
        for (tokens, vocab) in [(1, 1), (3, 7), (12, 128)] {
            let mut file = header(tokens, vocab);
            file.resize(file.len() + tokens * vocab * 4, 0);
            let tensors = SafeTensors::deserialize(&file).unwrap();
            let logits = tensors.tensor("logits").unwrap();
            assert_eq!((logits.shape(), logits.dtype()), (&[tokens, vocab][..], safetensors::Dtype::F32));
        }
    }

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("trit-run-pending-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("l.safetensors");
        let mut file = Pending::create(&path).unwrap();
        file.out.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let mut file = Pending::create(&path).unwrap();
        file.out.write_all(b"whole").unwrap();
        assert!(!path.exists());
        file.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
