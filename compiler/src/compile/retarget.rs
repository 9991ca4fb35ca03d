//! A bundle for other CPUs, made of a bundle: weights are stored in the code that its targets read, and kernels are
//! generated anew. The checkpoint is not needed.

use super::kernels::{self, CodeSection};
use super::{COPY_BYTES, Compiled, check, internal, pad_to};
use crate::bundle::Bundle;
use crate::bundle::program::Stub;
use crate::bundle::writer::BundleWriter;
use crate::error::CompileError;
use crate::progress::{Progress, Stage, advance, expect_wanted};
use std::path::Path;
use trit_format::container::SectionKind;
use trit_format::dense243::Code;
use trit_format::manifest::{Manifest, PackedMatrix};
use trit_format::target::Target;
use trit_format::trust;

/// The targets that a bundle has code for.
pub fn targets_of(bundle: &Bundle) -> Vec<Target> {
    let has = |target: &Target| bundle.header().section(SectionKind::Code(*target)).is_some();
    Target::ALL.into_iter().filter(has).collect()
}

/// Writes the model of `bundle` to `out` with code for `targets`: the bytes that [`super::compile`] writes for them. `out`
/// appears when it is whole, or not at all. With `stub` it is a program of one file.
///
/// # Errors
/// [`CompileError::Invalid`] where the bundle is not whole or has a byte that stands for no trits; an output that cannot be
/// written, code that cannot be generated; [`CompileError::Interrupted`].
pub fn retarget(
    bundle: &Bundle,
    out: &Path,
    stub: Option<&Stub>,
    targets: &[Target],
    progress: &dyn Progress,
) -> Result<Compiled, CompileError> {
    // Damage must not get a digest of its own.
    bundle.expect_whole()?;
    let old = bundle.manifest();
    let wanted = kernels::weight_code(targets);
    let code_of = |p: &PackedMatrix| if p.code.has_zero() { wanted } else { p.code };
    let packed_matrices: Vec<PackedMatrix> =
        old.packed_matrices.iter().map(|p| PackedMatrix { code: code_of(p), ..p.clone() }).collect();

    let mut code = Vec::with_capacity(targets.len());
    for &target in targets {
        code.push(kernels::assemble(&kernels::specs(&packed_matrices, target)?, target)?);
        expect_wanted(progress)?;
    }
    let is_code = |kind: SectionKind| matches!(kind, SectionKind::Code(_));
    let kept = bundle.header().sections.iter().filter(|section| !is_code(section.kind)).count();
    let mut writer = BundleWriter::create(out, stub, kept + code.len(), &progress.unfinished())?;

    let copy = |writer: &mut BundleWriter, kind: SectionKind| {
        if bundle.header().section(kind).is_none() {
            return Ok(());
        }
        let mut section = writer.section(kind)?;
        for piece in bundle.section(kind).chunks(COPY_BYTES) {
            section.write(piece)?;
            advance(progress, piece.len() as u64)?;
        }
        section.finish();
        Ok::<_, CompileError>(())
    };

    let weights = bundle.section(SectionKind::Weights);
    progress.begin(Stage::Pack, weights.len() as u64);
    let mut section = writer.section(SectionKind::Weights)?;
    for (from, to) in old.packed_matrices.iter().zip(&packed_matrices) {
        pad_to(from.offset, &mut section)?;
        // The manifest was validated: the matrix lies inside of the section.
        let tiles = &weights[from.offset as usize..][..from.bytes().unwrap_or(0) as usize];
        let tile = from.tile_bytes() as usize;
        for piece in tiles.chunks((COPY_BYTES / tile).max(1) * tile) {
            match from.code == to.code {
                true => section.write(piece)?,
                false => section.write(&recoded(bundle, piece, from, to.code)?)?,
            }
            advance(progress, piece.len() as u64)?;
        }
    }
    section.finish();

    progress.begin(Stage::Write, bundle.section(SectionKind::Tensors).len() as u64);
    copy(&mut writer, SectionKind::Tensors)?;
    copy(&mut writer, SectionKind::Planes)?;
    let mut entries = Vec::new();
    for CodeSection { target, bytes, entries: kernels } in code {
        let mut section = writer.section(SectionKind::Code(target))?;
        section.write(&bytes)?;
        section.finish();
        entries.extend(kernels);
    }
    copy(&mut writer, SectionKind::Tokenizer)?;
    copy(&mut writer, SectionKind::Draft)?;

    let (weights, kernels) = (super::weights(&packed_matrices), entries.len());
    let compiler = crate::lower::manifest::COMPILER.to_owned();
    let manifest = Manifest { compiler, packed_matrices, kernels: entries, ..old.clone() };
    let mut section = writer.section(SectionKind::Manifest)?;
    section.write(&manifest.encode().map_err(internal)?)?;
    section.finish();
    let header = writer.finish(|file| {
        bundle.expect_unchanged()?;
        check(file, &manifest)?;
        expect_wanted(progress)
    })?;
    progress.end();
    let fingerprint = trust::file_name(&header.encode());
    Ok(Compiled { header, weights, kernels, fingerprint })
}

/// Tiles of the matrix `from` with the same trits in another code. Scales, which follow a tile's codes, stay as they are.
fn recoded(bundle: &Bundle, tiles: &[u8], from: &PackedMatrix, to: Code) -> Result<Vec<u8>, CompileError> {
    let table = from.code.table_to(to);
    let (tile, codes) = (from.tile_bytes() as usize, from.code_bytes() as usize);
    let mut out = tiles.to_vec();
    match out.chunks_mut(tile).all(|tile| Code::recode(&table, &mut tile[..codes])) {
        true => Ok(out),
        false => Err(bundle.invalid(format!(
            "product {} has a byte that is no five trits stored as {}; compile the model again",
            from.name,
            from.code.name()
        ))),
    }
}
