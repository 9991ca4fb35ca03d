//! `trit-run logits`: the logits after every token, as a safetensors file.

use crate::args::Logits;
use crate::failure::{DONE, Failure};
use crate::{interrupt, open};
use serde::Deserialize;
use std::io::{self, BufWriter, Read, Write};
use trit_runtime::text::output::{self, Kind, Pending};

/// Tokens between two looks at Ctrl-C and the disk.
const CHUNK: usize = 64;

/// What may be replaced.
const LOGITS: Kind =
    Kind { name: "file that trit-run logits wrote", example: "logits.safetensors", is: |file| is_ours(file) };

/// Writes the file; it appears whole or not at all.
pub fn run(args: &Logits) -> Result<u8, Failure> {
    output::check(&args.output, &LOGITS, &[&args.bundle]).map_err(Failure::output)?;
    let model = open::model(&args.bundle, &args.session.load, false)?;
    let mut session = open::session(&model, &args.session)?;
    let stoppable = interrupt::stoppable();
    let written = |e: io::Error| Failure::invalid(&args.output, format_args!("cannot be written: {e}"));
    let vocab = model.manifest().hyperparameters.vocab_size as usize;
    let mut file = Pending::create(&args.output, interrupt::unfinished()).map_err(written)?;
    let mut out = BufWriter::with_capacity(1 << 20, file.file());
    out.write_all(&header(args.ids.len(), vocab)).map_err(written)?;
    let progress = open::progress(args.ids.len() as u64, "logits");
    for chunk in args.ids.chunks(CHUNK) {
        let mut result = Ok(());
        let mut write = |_: usize, logits: &[f32]| {
            if result.is_ok() {
                result = logits.iter().try_for_each(|l| out.write_all(&l.to_le_bytes()));
            }
        };
        session.forward_all(chunk, &mut write).map_err(|e| Failure::runtime(&args.bundle, e))?;
        result.map_err(written)?;
        progress.inc(chunk.len() as u64);
        if stoppable.requested() {
            return Err(Failure::interrupted());
        }
    }
    progress.finish_and_clear();
    out.flush().map_err(written)?;
    drop(out);
    file.keep().map_err(written)?;
    open::tell_widened(session.widened());
    Ok(DONE)
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

/// Whether a file has such a head. Others' safetensors files, a checkpoint's above all, are not replaced.
fn is_ours(file: &mut impl Read) -> io::Result<bool> {
    /// The longest head that [`header`] writes, and more.
    const LONGEST: u64 = 256;
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Head {
        #[serde(rename = "logits")]
        _logits: serde::de::IgnoredAny,
    }
    let mut len = [0; 8];
    file.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    let mut json = Vec::new();
    file.take(len.min(LONGEST)).read_to_end(&mut json)?;
    Ok(len <= LONGEST && serde_json::from_slice::<Head>(&json).is_ok())
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
    fn only_what_it_wrote_itself_is_replaced() {
        assert!(is_ours(&mut &header(1000, 1 << 20)[..]).unwrap());
        for other in [
            &br#"{"logits":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"more":{}}"#[..],
            br#"{"model.embed_tokens.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            b"{}",
        ] {
            let file = [&(other.len() as u64).to_le_bytes()[..], other, &[0; 4]].concat();
            assert!(!is_ours(&mut &file[..]).unwrap(), "{}", String::from_utf8_lossy(other));
        }
        assert!(!is_ours(&mut &[0xff; 500][..]).unwrap_or(false));
        assert!(!is_ours(&mut &b"short"[..]).unwrap_or(false));
    }
}
