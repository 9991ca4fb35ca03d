//! Compiles a model to a bundle.

pub(crate) mod kernels;
pub mod retarget;
pub mod targets;

use crate::bundle::Bundle;
use crate::bundle::program::Stub;
use crate::bundle::writer::{BundleWriter, SectionWriter};
use crate::error::{CompileError, Warning};
use crate::lower::manifest::manifest;
use crate::lower::{Lowered, TensorData, packed_bytes};
use crate::model::Model;
use crate::pack::{self, planes};
use crate::progress::{Progress, Stage, advance, expect_wanted};
use crate::reference::golden::{self, KnownResult};
use kernels::CodeSection;
use std::path::Path;
use trit_format::container::{Header, SectionKind};
use trit_format::draft;
use trit_format::manifest::{Manifest, PackedMatrix};
use trit_format::target::Target;
use trit_format::trust;

/// Bytes of a tensor that are digested and written at a time.
const COPY_BYTES: usize = 8 << 20;

/// What was made.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Header and section table.
    pub header: Header,
    /// Ternary weights, without padding.
    pub weights: u64,
    /// Generated kernels, over all targets.
    pub kernels: usize,
    /// The name that stands for the whole bundle, see [`trust::file_name`].
    pub fingerprint: String,
}

impl Compiled {
    /// Bytes of the bundle.
    pub fn bytes(&self) -> u64 {
        self.header.total_len()
    }

    /// Bytes of the weight section.
    pub fn weight_bytes(&self) -> u64 {
        self.header.section(SectionKind::Weights).map_or(0, |s| s.len)
    }

    /// Bits of the weight section for each ternary weight, padding included.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.weight_bytes() as f64 / self.weights.max(1) as f64
    }
}

/// Compiles `model` to `out`, with code for `targets`. The same model and targets give the same bytes, on any machine
/// and any number of threads; work is done on the current rayon pool. `out` appears when it is whole, or not at all.
///
/// # Errors
/// Damage in the checkpoint that shows only when weights are read, an output that cannot be written, code that cannot
/// be generated; [`CompileError::Interrupted`]; [`CompileError::Internal`] if the result is no valid bundle.
pub fn compile(
    model: &Model,
    out: &Path,
    targets: &[Target],
    progress: &dyn Progress,
) -> Result<Compiled, CompileError> {
    compile_after(None, model, out, targets, progress)
}

/// As [`compile`], with the bundle after `stub`: a program of one file.
///
/// # Errors
/// As [`compile`].
pub fn compile_program(
    model: &Model,
    out: &Path,
    stub: &Stub,
    targets: &[Target],
    progress: &dyn Progress,
) -> Result<Compiled, CompileError> {
    compile_after(Some(stub), model, out, targets, progress)
}

fn compile_after(
    stub: Option<&Stub>,
    model: &Model,
    out: &Path,
    targets: &[Target],
    progress: &dyn Progress,
) -> Result<Compiled, CompileError> {
    model.check()?;
    expect_wanted(progress)?;
    let mut lowered = Lowered::new(model, kernels::weight_code(targets))?;
    let mut code = Vec::with_capacity(targets.len());
    for &target in targets {
        code.push(kernels::assemble(&kernels::specs(&lowered.packed_matrices, target)?, target)?);
        expect_wanted(progress)?;
    }
    // Manifest, weights, tensors; then planes, code, the tokenizer and the plan of a draft block.
    let optional = [!lowered.planes.is_empty(), model.tokenizer.is_some(), lowered.draft.is_some()];
    let count = 3 + code.len() + optional.iter().filter(|there| **there).count();
    let mut bundle = BundleWriter::create(out, stub, count, &progress.unfinished())?;

    let mut section = bundle.section(SectionKind::Weights)?;
    write_weights(&lowered, &mut section, progress)?;
    section.finish();

    match golden::known_result(model, progress)? {
        Some(KnownResult { ids, logits }) => lowered.push_golden(ids, logits),
        None => progress.warn(Warning::NoKnownResult),
    }

    let mut section = bundle.section(SectionKind::Tensors)?;
    write_tensors(&lowered, &mut section, progress)?;
    section.finish();

    if !lowered.planes.is_empty() {
        let mut section = bundle.section(SectionKind::Planes)?;
        write_planes(&lowered, &mut section, progress)?;
        section.finish();
    }

    let mut entries = Vec::new();
    for CodeSection { target, bytes, entries: kernels } in code {
        let mut section = bundle.section(SectionKind::Code(target))?;
        section.write(&bytes)?;
        section.finish();
        entries.extend(kernels);
    }
    if let Some(tokenizer) = &model.tokenizer {
        let mut section = bundle.section(SectionKind::Tokenizer)?;
        section.write(tokenizer)?;
        section.finish();
    }
    if let Some(plan) = &lowered.draft {
        let mut section = bundle.section(SectionKind::Draft)?;
        section.write(&draft::encode(plan).map_err(internal)?)?;
        section.finish();
    }

    let weights = weights(&lowered.packed_matrices);
    let kernels = entries.len();
    let manifest = Manifest { kernels: entries, ..manifest(model, lowered) };
    let mut section = bundle.section(SectionKind::Manifest)?;
    section.write(&manifest.encode().map_err(internal)?)?;
    section.finish();
    let header = bundle.finish(|file| {
        model.inputs.expect_unchanged()?;
        check(file, &manifest)?;
        // From here on it is whole.
        expect_wanted(progress)
    })?;
    progress.end();
    let fingerprint = trust::file_name(&header.encode());
    Ok(Compiled { header, weights, kernels, fingerprint })
}

/// Ternary weights, without padding.
fn weights(packed_matrices: &[PackedMatrix]) -> u64 {
    packed_matrices.iter().map(|p| p.rows() * u64::from(p.k)).sum()
}

fn internal(error: impl std::fmt::Display) -> CompileError {
    CompileError::Internal(format!("the bundle {error}"))
}

/// Reads back what was written, as a reader would.
fn check(file: &Path, manifest: &Manifest) -> Result<(), CompileError> {
    let bundle = Bundle::open(file).map_err(|error| match error {
        CompileError::Invalid { problem, .. } => internal(problem),
        other => other,
    })?;
    if bundle.manifest() == manifest { Ok(()) } else { Err(internal("reads back as another one")) }
}

fn write_weights(
    lowered: &Lowered,
    section: &mut SectionWriter,
    progress: &dyn Progress,
) -> Result<(), CompileError> {
    progress.begin(Stage::Pack, lowered.packed_matrices.iter().map(packed_bytes).sum());
    for (packed, matrices) in lowered.packed_matrices.iter().zip(&lowered.matrices) {
        pad_to(packed.offset, section)?;
        pack::pack(packed, matrices, |tiles| {
            section.write(tiles)?;
            advance(progress, tiles.len() as u64)
        })?;
    }
    Ok(())
}

fn write_planes(
    lowered: &Lowered,
    section: &mut SectionWriter,
    progress: &dyn Progress,
) -> Result<(), CompileError> {
    for record in &lowered.planes {
        let table = record.table.0 as usize;
        let (layout, data) = (planes::layout(&lowered.tensors[table].shape), &lowered.data[table]);
        let (Some(layout), TensorData::Checkpoint(dense)) = (layout, data) else {
            return Err(CompileError::Internal(format!("tensor {table} has no planes")));
        };
        progress.begin(Stage::Quantize, layout.bytes());
        pad_to(record.offset, section)?;
        planes::encode(
            |row, out| dense.read_row(row, out),
            layout,
            |bytes| {
                dense.data.release();
                section.write(bytes)?;
                advance(progress, bytes.len() as u64)
            },
        )?;
    }
    Ok(())
}

/// Fills up with zeros to `offset`, where the next record says it starts.
fn pad_to(offset: u64, section: &mut SectionWriter) -> Result<(), CompileError> {
    match offset.checked_sub(section.len()) {
        Some(gap) => section.write(&vec![0; gap as usize]),
        None => Err(CompileError::Internal(format!("offset {offset} is already written"))),
    }
}

fn write_tensors(
    lowered: &Lowered,
    section: &mut SectionWriter,
    progress: &dyn Progress,
) -> Result<(), CompileError> {
    progress.begin(Stage::Write, lowered.tensors.iter().filter_map(|t| t.bytes()).sum());
    for (tensor, data) in lowered.tensors.iter().zip(&lowered.data) {
        pad_to(tensor.offset, section)?;
        let mut write = |bytes: &[u8]| {
            section.write(bytes)?;
            advance(progress, bytes.len() as u64)
        };
        match data {
            TensorData::F32(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                bytes.chunks(COPY_BYTES).try_for_each(write)?;
            }
            TensorData::Checkpoint(dense) => dense.write(COPY_BYTES, &mut write)?,
        }
    }
    Ok(())
}
