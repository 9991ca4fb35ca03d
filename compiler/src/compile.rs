//! From a checkpoint to a bundle, stage by stage.

use crate::bundle::{self, Contents};
use crate::error::CompileError;
use crate::ingest::{self, LoadOptions};
use crate::lower::{Lowered, TensorData, lower};
use crate::model::Model;
use crate::reference;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trit_format::container::Digest;
use trit_format::kernel::{ABI_VERSION, KernelEntry};
use trit_format::manifest::{Golden, Manifest};
use trit_format::plan::DType;
use trit_format::target::Target;
use trit_format::trust;

/// What to compile and for whom.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// How to read the checkpoint.
    pub load: LoadOptions,
    /// Where the bundle goes; by default the model's name in the current directory.
    pub output: Option<PathBuf>,
    /// Tiers to generate code for.
    pub targets: Vec<Target>,
}

/// Something that happens while compiling, for a progress display.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A new stage begins, with its number of units.
    Stage(&'static str, usize),
    /// A unit of the stage begins.
    Unit(&'a str),
}

/// What was compiled.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The bundle.
    pub output: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// The model's name.
    pub name: String,
    /// Ternary weights, without padding.
    pub weights: u64,
    /// Bytes of their tiles.
    pub weight_bytes: u64,
    /// Tiers code was generated for.
    pub targets: Vec<Target>,
    /// Generated kernels.
    pub kernels: usize,
    /// Things the user should know.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Compiles the checkpoint at `path`.
///
/// # Errors
/// As [`ingest::load`] and [`bundle::write`]; [`CompileError::Unsupported`] for a target without an emitter.
pub fn compile(
    path: &Path,
    options: &CompileOptions,
    progress: &mut dyn FnMut(Event),
) -> Result<Summary, CompileError> {
    let start = Instant::now();
    progress(Event::Stage("read", 1));
    let model = ingest::load(path, &options.load)?;
    let output = options.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.trit", model.info.name)));
    refuse_to_overwrite(&output)?;

    let mut lowered = lower(&model);
    progress(Event::Stage("reference", 1));
    let golden = golden(&model, &mut lowered)?;
    let (kernels, code) = generate(&lowered, &options.targets)?;
    let manifest = Manifest {
        compiler: concat!("tritc ", env!("CARGO_PKG_VERSION")).to_owned(),
        model: model.info.clone(),
        hyperparameters: model.hyperparameters,
        tensors: lowered.tensors.iter().map(|(t, _)| t.clone()).collect(),
        products: lowered.products.iter().map(|p| p.record.clone()).collect(),
        plan: lowered.plan.clone(),
        kernels,
        text: model.text.clone(),
        goldens: vec![golden],
    };
    let contents =
        Contents { lowered: &lowered, code: &code, tokenizer: model.tokenizer.as_deref(), manifest: &manifest };
    progress(Event::Stage("pack", lowered.products.len()));
    let header = bundle::write(&output, &contents, &mut |unit| progress(Event::Unit(unit)))?;

    let mut warnings = model.warnings.clone();
    if let Err(problem) = record_trust(&header) {
        warnings.push(format!("the bundle could not be recorded as trusted ({problem}); trit-run will regenerate its kernels"));
    }
    let bytes = std::fs::metadata(&output).map_err(|source| CompileError::Io { path: output.clone(), source })?.len();
    Ok(Summary {
        output,
        bytes,
        name: model.info.name.clone(),
        weights: lowered.products.iter().map(|p| p.record.rows() * u64::from(p.record.k)).sum(),
        weight_bytes: lowered.products.iter().filter_map(|p| p.record.bytes()).sum(),
        targets: options.targets.clone(),
        kernels: manifest.kernels.len(),
        warnings,
        elapsed: start.elapsed(),
    })
}

/// Only bundles are replaced: a slip of the pen must not cost a checkpoint.
fn refuse_to_overwrite(output: &Path) -> Result<(), CompileError> {
    use std::io::Read;
    let mut magic = [0; 8];
    match std::fs::File::open(output) {
        Err(_) => Ok(()),
        Ok(mut file) => match file.read_exact(&mut magic) {
            Ok(()) if magic == trit_format::container::MAGIC => Ok(()),
            _ => Err(CompileError::Usage(format!(
                "{}: exists and is no .trit bundle; it is not replaced, choose another name with -o",
                output.display()
            ))),
        },
    }
}

/// The logits after a few tokens, by the compiler's own forward pass.
fn golden(model: &Model, lowered: &mut Lowered) -> Result<Golden, CompileError> {
    let vocab = model.hyperparameters.vocab_size;
    // The first token as in real use, then three spread over the vocabulary.
    let ids = vec![model.text.bos.unwrap_or(0), vocab / 3, vocab / 2, vocab / 5];
    let ids: Vec<u32> = ids.into_iter().take(model.hyperparameters.context_length as usize).collect();
    let logits = reference::logits(model, &ids)?;
    let shape = [logits.len()];
    let logits = lowered.tensor("golden.0.logits", DType::F32, &shape, TensorData::F32(logits));
    Ok(Golden { ids, logits })
}

/// The kernel directory and each target's code.
type Generated = (Vec<KernelEntry>, Vec<(Target, Vec<u8>)>);

/// Generates every kernel for every target.
fn generate(lowered: &Lowered, targets: &[Target]) -> Result<Generated, CompileError> {
    let shapes: BTreeSet<u32> = lowered.products.iter().map(|p| p.record.k).collect();
    let (mut kernels, mut sections) = (Vec::new(), Vec::new());
    for &target in targets {
        let mut section = Vec::new();
        for spec in shapes.iter().flat_map(|&k| trit_codegen::default_specs(k, target)) {
            let code = trit_codegen::emit(&spec, target)
                .map_err(|e| CompileError::Codegen { kernel: spec.to_string(), problem: e.to_string() })?;
            section.resize(section.len().next_multiple_of(64), 0);
            let (offset, len) = (section.len() as u64, code.len() as u64);
            kernels.push(KernelEntry { spec, target, abi: ABI_VERSION, offset, len, digest: Digest::of(&code) });
            section.extend_from_slice(&code);
        }
        sections.push((target, section));
    }
    Ok((kernels, sections))
}

/// Leaves the file that says: this user compiled this bundle.
fn record_trust(header: &[u8]) -> Result<(), String> {
    let folder = trust::folder(|name| std::env::var_os(name)).ok_or("there is no home folder")?;
    let file = folder.join(trust::file_name(header));
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&file, b""))
        .map_err(|e| format!("{}: {e}", file.display()))
}
