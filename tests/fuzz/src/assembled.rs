//! Bundles from their parts: a manifest and a seed enter, the bytes of a bundle leave; so do they from a short form, because
//! sections begin at multiples of 64 KiB and a fuzzer should not work on zeros.

use crate::bundle;
use trit_format::container::{Digest, Header, Section, SectionKind};
use trit_format::manifest::Manifest;
use trit_format::plan::{DType, Plan};

/// Longest bundle that is made of the short form, in bytes.
pub const LONGEST: usize = 2 << 20;

/// A tokenizer of ten tokens, for bundles whose vocabulary has so many.
pub const TOKENIZER: &[u8] = include_bytes!("tokenizer.json");

/// The small bundles of the format's tests: `index` chooses, counted round.
pub fn manifest(index: u8) -> Manifest {
    match index % 6 {
        0 => bundle::manifest(),
        1 => bundle::grouped(),
        2 => bundle::of_signs(),
        3 => bundle::recurrent::recurrent(),
        4 => bundle::coded::coded(),
        _ => bundle::drafting::drafting().0,
    }
}

/// The plan of the small bundle's draft block, where it has one.
pub fn draft(index: u8) -> Option<Plan> {
    (index % 6 == 5).then(|| bundle::drafting::drafting().1)
}

/// The sections of a small bundle beside its manifest: codes of any bytes, tensors and scales of small floats. With seed 255 all
/// are of any bytes, so floats may be no numbers.
pub fn sections(original: &Manifest, seed: u8) -> Vec<(SectionKind, Vec<u8>)> {
    let mut sections = bundle::sections(original);
    // Without padding that nobody needs a bundle loads in less time.
    sections.retain(|(kind, _)| !matches!(kind, SectionKind::Code(_)) || !original.kernels.is_empty());
    let mut state = u64::from(seed);
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for (kind, bytes) in &mut sections {
        match kind {
            SectionKind::Tensors if seed != 255 => {
                for tensor in &original.tensors {
                    let len = tensor.bytes().unwrap_or(0) as usize;
                    fill(&mut bytes[tensor.offset as usize..][..len], tensor.dtype, &mut random);
                }
            }
            SectionKind::Weights if seed != 255 => {
                for matrix in &original.packed_matrices {
                    let (codes, tile) = (matrix.code_bytes() as usize, matrix.tile_bytes() as usize);
                    let matrix_bytes = &mut bytes[matrix.offset as usize..][..tile * matrix.tiles() as usize];
                    for tile in matrix_bytes.chunks_exact_mut(tile) {
                        tile[..codes].iter_mut().for_each(|byte| *byte = random() as u8);
                        fill(
                            &mut tile[codes..],
                            matrix.grouping.map_or(DType::F32, |g| g.scale),
                            &mut random,
                        );
                    }
                }
            }
            SectionKind::Tensors | SectionKind::Weights | SectionKind::Planes => {
                bytes.iter_mut().for_each(|byte| *byte = random() as u8);
            }
            SectionKind::Tokenizer => *bytes = TOKENIZER.to_vec(),
            _ => {}
        }
    }
    sections
}

/// Floats below 1, of either sign.
fn fill(bytes: &mut [u8], dtype: DType, random: &mut impl FnMut() -> u32) {
    // Exponents of an eighth and a quarter.
    let half = match dtype {
        DType::F16 => 0x3000,
        DType::Bf16 => 0x3e00,
        // Codes may be any bytes; the scales beside them are floats of 32 bits.
        _ => {
            for float in bytes.chunks_exact_mut(4) {
                let x = random() as f32 / (1u64 << 31) as f32 - 0.5;
                float.copy_from_slice(&x.to_le_bytes());
            }
            return;
        }
    };
    for float in bytes.chunks_exact_mut(2) {
        let random = random();
        let bits = half | (random & 0xff) as u16 | (random >> 8 & 1) as u16 * 0x8000;
        float.copy_from_slice(&bits.to_le_bytes());
    }
}

/// A whole bundle, with digests.
pub fn file(manifest: &Manifest, sections: Vec<(SectionKind, Vec<u8>)>) -> Option<Vec<u8>> {
    let mut all = vec![(SectionKind::Manifest, manifest.encode().ok()?)];
    all.extend(sections);
    Some(bundle::assemble(&all))
}

/// The bytes that a short form stands for: runs of zeros, each followed by bytes. A run is two numbers of 16 bits, the zeros in
/// units of 64 and how many bytes follow. It is cut off where it gets too long.
pub fn long(short: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), short);
    while let Some(([a, b, c, d], after)) = rest.split_first_chunk() {
        let zeros = 64 * usize::from(u16::from_le_bytes([*a, *b]));
        let len = usize::from(u16::from_le_bytes([*c, *d])).min(after.len());
        if out.len() + zeros + len > LONGEST {
            break;
        }
        out.resize(out.len() + zeros, 0);
        out.extend_from_slice(&after[..len]);
        rest = &after[len..];
    }
    out
}

/// The short form of `bytes`.
pub fn short(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let blocks = |from: usize| bytes[from..].chunks_exact(64);
        let zeros = blocks(at).take_while(|block| block.iter().all(|&b| b == 0)).count().min(u16::MAX.into());
        at += 64 * zeros;
        let full = blocks(at).take_while(|block| block.iter().any(|&b| b != 0)).count().min(1000);
        let tail = bytes[at..].len() < 64;
        let len = if tail { bytes.len() - at } else { 64 * full };
        out.extend_from_slice(&(zeros as u16).to_le_bytes());
        out.extend_from_slice(&(len as u16).to_le_bytes());
        out.extend_from_slice(&bytes[at..at + len]);
        at += len;
    }
    out
}

/// Gives every section of a bundle the digest of its bytes, so that what was changed is not found by digests alone.
pub fn repair(file: &mut [u8]) {
    let Ok(mut header) = Header::parse(file) else { return };
    for Section { offset, len, digest, .. } in &mut header.sections {
        *digest = Digest::of(&file[*offset as usize..][..*len as usize]);
    }
    let head = header.encode();
    file[..head.len()].copy_from_slice(&head);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_stands_for_the_bundle() {
        for index in 0..5 {
            let manifest = manifest(index);
            let file = file(&manifest, sections(&manifest, index)).unwrap();
            let short = short(&file);
            assert!(long(&short) == file && short.len() * 8 < file.len(), "{} bytes", short.len());
            let mut damaged = file.clone();
            *damaged.last_mut().unwrap() ^= 1;
            let spoilt = damaged.clone();
            repair(&mut damaged);
            assert!(damaged != spoilt && Header::parse(&damaged).is_ok());
        }
    }
}
