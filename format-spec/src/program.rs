//! One-file programs: the runtime's executable with a bundle after it.
//!
//! ```text
//! the executable, filled up with zeros to a multiple of 64 KiB
//! the bundle
//! the file of its signature ([`crate::signature`]), or nothing
//! trailer, 64 bytes:
//!    0  magic              8 bytes  "\x89TRITX\r\n"
//!    8  version            u32      1
//!   12  signature length   u32
//!   16  bundle offset      u64
//!   24  bundle length      u64
//!   32  BLAKE3 [32] of the 32 bytes before, the bundle's header and section table, and the signature's file
//! ```
//!
//! Little-endian. Systems load what the executable's own header describes and ignore what follows. The bundle begins at a
//! page, whatever the size of pages is, so that it can be mapped where it stands.

use crate::container::{self, HEADER_BYTES, Header, MAJOR, MINOR};
use crate::signature;
use std::io;

/// First bytes of the trailer.
pub const MAGIC: [u8; 8] = *b"\x89TRITX\r\n";
/// Version of the trailer.
pub const VERSION: u32 = 1;
/// Bytes of the trailer.
pub const TRAILER_BYTES: u64 = 64;
/// Alignment in bytes of the bundle, that of its sections.
pub const ALIGNMENT: u64 = 64 << 10;

/// Why the end of a program is no valid trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// Another version of the trailer.
    #[error("is a program with a bundle in form {0}, and only form {VERSION} is known here")]
    Version(u32),
    /// Places that contradict each other or the length of the file.
    #[error("is a program whose bundle is not where it says; copy it again")]
    Places,
    /// Something was changed.
    #[error("is a program whose end does not match its digest; copy it again")]
    Digest,
}

/// Where a program's bundle and signature stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Offset of the bundle, a multiple of [`ALIGNMENT`].
    pub offset: u64,
    /// Bytes of the bundle.
    pub len: u64,
    /// Bytes of the signature's file, which follows the bundle; 0 where there is none.
    pub signature: u32,
}

impl Trailer {
    /// The bytes of the trailer, given the bundle's header and section table and the signature's file.
    pub fn encode(&self, header: &[u8], signature: &[u8]) -> [u8; TRAILER_BYTES as usize] {
        let mut bytes = [0; TRAILER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.signature.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.len.to_le_bytes());
        let digest = digest(&bytes[..32], header, signature);
        bytes[32..].copy_from_slice(&digest);
        bytes
    }

    /// Reads the last bytes of a file of `file` bytes; `None` where they are no trailer at all.
    ///
    /// # Errors
    /// [`ProgramError::Version`] and [`ProgramError::Places`].
    fn parse(bytes: &[u8; TRAILER_BYTES as usize], file: u64) -> Result<Option<Trailer>, ProgramError> {
        let (fields, _) = bytes.as_chunks::<8>();
        if fields[0] != MAGIC {
            return Ok(None);
        }
        let [version, signature] =
            [8, 12].map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        if version != VERSION {
            return Err(ProgramError::Version(version));
        }
        let (offset, len) = (u64::from_le_bytes(fields[2]), u64::from_le_bytes(fields[3]));
        let parts = [len, signature.into(), TRAILER_BYTES];
        let end = parts.into_iter().try_fold(offset, u64::checked_add);
        let fits = offset > 0
            && offset.is_multiple_of(ALIGNMENT)
            && len >= HEADER_BYTES
            && signature as usize <= signature::MAX_BYTES
            && end == Some(file);
        if fits { Ok(Some(Trailer { offset, len, signature })) } else { Err(ProgramError::Places) }
    }
}

/// A program's bundle and signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Offset of the bundle, a multiple of [`ALIGNMENT`].
    pub offset: u64,
    /// Bytes of the bundle.
    pub len: u64,
    /// The file of its signature, where it is signed.
    pub signature: Option<Vec<u8>>,
}

/// Looks for a bundle in a file of `len` bytes, which `read_at` reads: fills memory with the bytes from an offset on. `None`
/// where the file does not end as a program does, or is itself a bundle. The bundle in it is not checked.
///
/// # Errors
/// Those of `read_at`; [`ProgramError`] as one of kind [`io::ErrorKind::InvalidData`].
pub fn find(len: u64, read_at: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> io::Result<Option<Program>> {
    let invalid = |e: ProgramError| io::Error::new(io::ErrorKind::InvalidData, e);
    let Some(at) = len.checked_sub(TRAILER_BYTES) else { return Ok(None) };
    let mut start = [0; container::MAGIC.len()];
    read_at(0, &mut start)?;
    // A bundle ends with its last section, whatever stands there.
    if start == container::MAGIC {
        return Ok(None);
    }
    let mut bytes = [0; TRAILER_BYTES as usize];
    read_at(at, &mut bytes)?;
    let Some(trailer) = Trailer::parse(&bytes, len).map_err(invalid)? else { return Ok(None) };
    let mut head = vec![0; HEADER_BYTES as usize];
    read_at(trailer.offset, &mut head)?;
    head.resize(Header::announced(&head).min(trailer.len) as usize, 0);
    read_at(trailer.offset, &mut head)?;
    let mut signature = vec![0; trailer.signature as usize];
    read_at(trailer.offset + trailer.len, &mut signature)?;
    if trailer.encode(&head, &signature) != bytes {
        return Err(invalid(ProgramError::Digest));
    }
    let signature = (!signature.is_empty()).then_some(signature);
    Ok(Some(Program { offset: trailer.offset, len: trailer.len, signature }))
}

fn digest(fields: &[u8], header: &[u8], signature: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(fields).update(header).update(signature);
    hasher.finalize().into()
}

/// What an executable of the runtime says of itself, so that nothing else is taken for one: a sentence that ends with the
/// format's version. It is put together here, so that it does not stand in the compiler.
pub const STUB_MARK_BEGIN: &str = "This is trit-run ";
/// What follows the beginning of the mark; the major and minor version follow as two bytes.
pub const STUB_MARK_END: &str = "and reads bundles of format ";
/// Bytes of the mark.
pub const STUB_MARK_BYTES: usize = STUB_MARK_BEGIN.len() + STUB_MARK_END.len() + 2;

/// The mark of this version.
pub const fn stub_mark() -> [u8; STUB_MARK_BYTES] {
    let mut mark = [0; STUB_MARK_BYTES];
    let (begin, end) = (STUB_MARK_BEGIN.as_bytes(), STUB_MARK_END.as_bytes());
    let mut i = 0;
    while i < STUB_MARK_BYTES - 2 {
        mark[i] = if i < begin.len() { begin[i] } else { end[i - begin.len()] };
        i += 1;
    }
    mark[i] = MAJOR as u8;
    mark[i + 1] = MINOR as u8;
    mark
}

/// The version of the format, major and minor, that an executable of the runtime reads; `None` for any other file.
pub fn stub_version(executable: &[u8]) -> Option<(u8, u8)> {
    let begin = STUB_MARK_BEGIN.as_bytes();
    let mut rest = executable;
    // The mark begins with a letter that is rare enough in machine code to look for.
    while let Some(at) = rest.iter().position(|&b| b == begin[0]) {
        rest = &rest[at..];
        let after = rest.strip_prefix(begin).and_then(|rest| rest.strip_prefix(STUB_MARK_END.as_bytes()));
        if let Some(&[major, minor, ..]) = after {
            return Some((major, minor));
        }
        rest = &rest[1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Digest, Section, SectionKind};

    /// A file as programs are, and the places in it of trailer and bundle.
    fn program(signature: &[u8]) -> Vec<u8> {
        let sections =
            vec![Section { kind: SectionKind::Manifest, offset: 128, len: 8, digest: Digest([5; 32]) }];
        let header = Header { sections }.encode();
        let mut file = vec![1; ALIGNMENT as usize];
        file.extend(&header);
        file.extend([9; 8]);
        file.extend(signature);
        let trailer =
            Trailer { offset: ALIGNMENT, len: header.len() as u64 + 8, signature: signature.len() as u32 };
        file.extend(trailer.encode(&header, signature));
        file
    }

    fn find_in(file: &[u8]) -> io::Result<Option<Program>> {
        find(file.len() as u64, |offset, to| {
            let from = file.get(offset as usize..offset as usize + to.len());
            to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    #[test]
    fn a_bundle_is_found_and_the_trailer_has_golden_bytes() {
        let file = program(b"sig");
        let trailer = &file[file.len() - 64..];
        assert_eq!(&trailer[..16], b"\x89TRITX\r\n\x01\0\0\0\x03\0\0\0");
        assert_eq!(&trailer[16..32], b"\0\0\x01\0\0\0\0\0\x88\0\0\0\0\0\0\0");
        let found = Program { offset: ALIGNMENT, len: 136, signature: Some(b"sig".to_vec()) };
        assert_eq!(find_in(&file).unwrap(), Some(found));
        assert_eq!(find_in(&program(b"")).unwrap().unwrap().signature, None);
        for other in [&file[..64], &file[..10], b"", &file[..file.len() - 1]] {
            assert_eq!(find_in(other).unwrap(), None);
        }
        let bundle = [&container::MAGIC, &file[8..]].concat();
        assert_eq!(find_in(&bundle).unwrap(), None);
    }

    #[test]
    fn every_changed_bit_of_header_signature_and_trailer_is_seen() {
        let file = program(b"sig");
        let magic = file.len() - 64..file.len() - 56;
        for at in ALIGNMENT as usize..file.len() {
            for bit in 0..8 {
                let mut changed = file.clone();
                changed[at] ^= 1 << bit;
                match find_in(&changed) {
                    // Without its first bytes the trailer is none.
                    Ok(None) => assert!(magic.contains(&at), "{at}"),
                    // What follows the header is a section's, which has a digest of its own.
                    Ok(Some(_)) => assert!((ALIGNMENT as usize + 128..).take(8).any(|b| b == at), "{at}"),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{at}"),
                }
            }
        }
    }

    #[test]
    fn places_outside_of_the_file_are_refused() {
        for (offset, len, signature) in [
            (0, 1000, 0),
            (ALIGNMENT + 64, 936, 3),
            (u64::MAX - 10, 1000, 3),
            (ALIGNMENT, 63, 3),
            (ALIGNMENT, 1000, 9000),
        ] {
            let bytes = Trailer { offset, len, signature }.encode(&[], b"");
            let file = offset.wrapping_add(len).wrapping_add(signature.into()).wrapping_add(TRAILER_BYTES);
            assert_eq!(Trailer::parse(&bytes, file), Err(ProgramError::Places), "{offset} {len} {signature}");
        }
    }

    #[test]
    fn the_mark_is_found_and_says_the_version() {
        let mut executable = b"TTT This is trit-run, no: ".to_vec();
        assert_eq!(stub_version(&executable), None);
        executable.extend(stub_mark());
        assert_eq!(stub_version(&executable), Some((MAJOR as u8, MINOR as u8)));
        assert_eq!(stub_version(&executable[..executable.len() - 1]), None);
    }
}
