//! Packs int8 trits into canonical bytes, and back.

use super::{NoTrit, ZEROS, checked, largest};
use crate::isa::{CHUNK, CHUNK_TRITS, TritIsa, TritTier, bytes_of, bytes_of_mut, dispatch_trits};

/// Packs a row: five trits to a byte, the first least significant, where missing trits are 0.
///
/// # Errors
/// The first value that is no trit; `out` then holds nothing of use.
///
/// # Panics
/// If `out` is not `ceil(trits / 5)` bytes.
pub fn pack(tier: TritTier, trits: &[i8], out: &mut [u8]) -> Result<(), NoTrit> {
    let bytes = bytes_of(trits);
    checked(largest(tier, bytes, 1), &[trits])?;
    pack_on(tier, bytes, out);
    Ok(())
}
dispatch_trits!(fn pack_on(trits: &[u8], out: &mut [u8]) = pack_body);

#[inline(always)]
fn pack_body<I: TritIsa>(isa: I, trits: &[u8], out: &mut [u8]) {
    assert_eq!(out.len(), trits.len().div_ceil(5), "a byte for five trits");
    let (chunks, rest) = trits.as_chunks::<CHUNK_TRITS>();
    let (whole, tail) = out.split_at_mut(chunks.len() * CHUNK);
    for (from, to) in chunks.iter().zip(whole.as_chunks_mut::<CHUNK>().0) {
        for part in 0..CHUNK / I::BYTES {
            isa.store(isa.pack(from, part), to, part);
        }
    }
    if !rest.is_empty() {
        let (mut from, mut to) = ([0; CHUNK_TRITS], [ZEROS; CHUNK]);
        from[..rest.len()].copy_from_slice(rest);
        for part in 0..CHUNK / I::BYTES {
            isa.store(isa.pack(&from, part), &mut to, part);
        }
        tail.copy_from_slice(&to[..tail.len()]);
    }
}

/// The trits of a row of canonical bytes.
///
/// # Panics
/// If `bytes` is not `ceil(out / 5)` bytes.
pub fn unpack(tier: TritTier, bytes: &[u8], out: &mut [i8]) {
    unpack_on(tier, bytes, bytes_of_mut(out));
}
dispatch_trits!(fn unpack_on(bytes: &[u8], out: &mut [u8]) = unpack_body);

#[inline(always)]
fn unpack_body<I: TritIsa>(isa: I, bytes: &[u8], out: &mut [u8]) {
    assert_eq!(bytes.len(), out.len().div_ceil(5), "a byte for five trits");
    let (chunks, rest) = bytes.as_chunks::<CHUNK>();
    // The last whole chunk may have fewer trits.
    let whole = chunks.len().min(out.len() / CHUNK_TRITS);
    let (head, tail) = out.split_at_mut(whole * CHUNK_TRITS);
    for (from, to) in chunks.iter().zip(head.as_chunks_mut::<CHUNK_TRITS>().0) {
        for part in 0..CHUNK / I::BYTES {
            isa.unpack_trits(isa.load(from, part), to, part);
        }
    }
    if !tail.is_empty() {
        let (mut from, mut to) = ([ZEROS; CHUNK], [0; CHUNK_TRITS]);
        let last = if whole < chunks.len() { &chunks[whole][..] } else { rest };
        from[..last.len()].copy_from_slice(last);
        for part in 0..CHUNK / I::BYTES {
            isa.unpack_trits(isa.load(&from, part), &mut to, part);
        }
        tail.copy_from_slice(&to[..tail.len()]);
    }
}
