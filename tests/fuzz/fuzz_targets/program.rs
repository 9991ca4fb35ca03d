//! The end of a one-file program: where it says that a bundle and its signature stand. Bit 0 of the first byte gives the trailer
//! the digest of what it covers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io;
use trit_format::container::Header;
use trit_format::program::{TRAILER_BYTES, Trailer, find, stub_version};
use trit_fuzz::{assembled, running};
use trit_runtime::source::{MemorySource, Source};

fuzz_target!(|data: &[u8]| {
    let Some((&flags, short)) = data.split_first() else { return };
    let mut file = assembled::long(short);
    if flags & 1 != 0 {
        repair(&mut file);
    }
    let _ = stub_version(&file);
    let source = MemorySource::new(&file);
    let read = |offset: u64, to: &mut [u8]| -> io::Result<()> { source.read_at(offset, to) };
    let Ok(Some(program)) = find(source.len(), read) else { return };
    // The file has such a place, and the signature beside it.
    let end = program.offset.checked_add(program.len).expect("the places of a program are added");
    let signature = program.signature.map_or(0, |signature| signature.len() as u64);
    assert!(end.checked_add(signature).is_some_and(|end| end + TRAILER_BYTES <= source.len()));
    let bundle = file[program.offset as usize..end as usize].to_vec();
    running::open(bundle);
});

/// Writes the trailer anew, with the places that it names, where they are inside the file.
fn repair(file: &mut [u8]) {
    let Some(at) = file.len().checked_sub(TRAILER_BYTES as usize) else { return };
    let word = |from: usize| u64::from_le_bytes(file[at + from..][..8].try_into().expect("eight bytes"));
    let (offset, len) = (word(16), word(24));
    let signature = u32::from_le_bytes(file[at + 12..][..4].try_into().expect("four bytes"));
    let inside = |from: u64, len: u64| {
        let end = from.checked_add(len).filter(|&end| end <= at as u64)?;
        file.get(from as usize..end as usize)
    };
    let Some(bundle) = inside(offset, len) else { return };
    let head = &bundle[..bundle.len().min(Header::announced(bundle) as usize)];
    let Some(signed) = inside(offset + len, signature.into()) else { return };
    let trailer = Trailer { offset, len, signature }.encode(head, signed);
    file[at..].copy_from_slice(&trailer);
}
