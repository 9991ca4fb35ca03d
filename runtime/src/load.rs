//! Loading: a bundle on disk enters, a model leaves, which any number of engines and sessions can share.

use crate::MappingHook;
use crate::RuntimeError;
use crate::TrustPolicy;
use crate::bundle::front::Front;
use crate::bundle::recode;
use crate::bundle::source::Source;
use crate::bundle::storage::{LoadedBytes, Storage, WeightMemory};
use crate::bundle::tables::Tables;
use crate::bundle::trust::{NotTrusted, Trusted};
use crate::engine::state::{StateLayout, StateType};
use crate::kernels::bind::{self, BindOptions, Bundle, KernelChoice, KernelReport, Kernels, Stored};
use crate::kernels::tuning::{self, Tuner, Tuning};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use trit_format::FormatError;
use trit_format::container::{Digest, Section, SectionKind};
use trit_format::manifest::{Manifest, Tensor};
use trit_format::plan::{Plan, PlanesId, TensorId};
use trit_format::planes::Layout;
use trit_format::target::Target;
use trit_kernels::planes::{Planes, SCAN_VARIANTS, ScanVariant};
use trit_text::{TextError, Tokenizer};

/// How to load a bundle.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Which kernels to run.
    pub kernels: KernelChoice,
    /// The tier to use instead of the best there is.
    pub cpu: Option<Target>,
    /// Which bundles' own code may run.
    pub trust: TrustPolicy,
    /// Whether to check the digests of weights and tensors. Those of manifest and code are always checked.
    pub verify: bool,
    /// Where weights are kept.
    pub memory: WeightMemory,
    /// Whether variants of kernels are timed.
    pub tuning: Tuning,
    /// The file where timings are remembered; by default `trit/kernels.json` in the user's folder for caches.
    pub timings: Option<PathBuf>,
    /// Called for every part of the bundle's file that is mapped. By default nothing is called.
    pub mapped: Option<MappingHook>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            kernels: KernelChoice::Auto,
            cpu: None,
            trust: TrustPolicy::default(),
            verify: true,
            memory: WeightMemory::Auto,
            tuning: Tuning::Remembered,
            timings: None,
            mapped: None,
        }
    }
}

/// A loaded bundle. It is verified, bound to kernels for this machine, and immutable.
pub struct Model {
    shared: Arc<Shared>,
    /// The bundle's. That of a draft model has the draft's plan.
    manifest: Manifest,
    /// Where the recurrent states of the plan stand in the memory of a sequence, if it has any: with matrices of f32, and
    /// with those of f16.
    states: Option<[Arc<StateLayout>; 2]>,
    /// The block that drafts tokens, as a model of its own.
    draft: Option<Arc<Model>>,
}

/// What a model has in common with the block that drafts tokens for it.
struct Shared {
    storage: Storage,
    loaded: Loaded,
}

/// What was read from a model's storage, and what was made of it.
struct Loaded {
    weights: LoadedBytes,
    planes: Option<LoadedBytes>,
    /// For each of the planes how to scan the high plane alone, and how to scan both.
    scan_variants: Vec<[ScanVariant; 2]>,
    /// BLAKE3 of header and section table.
    digest: Digest,
    kernels: Kernels,
    trust: Result<Trusted, NotTrusted>,
    tables: Tables,
    /// The bytes of `tokenizer.json`, until the tokenizer is made of them.
    tokenizer_json: Mutex<Option<Vec<u8>>>,
    tokenizer: OnceLock<Result<Option<Arc<Tokenizer>>, TextError>>,
}

impl Model {
    /// Opens, verifies and binds a bundle.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] and [`RuntimeError::Format`] where the file cannot be read or is no valid bundle,
    /// [`RuntimeError::Changed`] where it was written to meanwhile, [`RuntimeError::Kernels`] and
    /// [`RuntimeError::Untrusted`] where the kernels asked for cannot run, or trust is required and there is none,
    /// [`RuntimeError::TrustFolder`] where the
    /// folder of trust records is named by a relative path.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Arc<Model>, RuntimeError> {
        Model::on(Storage::open(path)?, options)
    }

    /// As [`Model::load`], from another source of bytes; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_source(
        source: Box<dyn Source>,
        path: &Path,
        options: &LoadOptions,
    ) -> Result<Arc<Model>, RuntimeError> {
        Model::on(Storage::new(source, path), options)
    }

    fn on(storage: Storage, options: &LoadOptions) -> Result<Arc<Model>, RuntimeError> {
        let storage = storage.with_hook(options.mapped.clone());
        match Model::read(&storage, options) {
            Ok((loaded, manifest, draft)) => {
                let shared = Arc::new(Shared { storage, loaded });
                let draft = draft.map(|plan| {
                    let manifest = trit_format::draft::of_model(&manifest, plan);
                    Arc::new(Model { shared: shared.clone(), manifest, states: None, draft: None })
                });
                let states = [StateType::F32, StateType::F16].map(|kind| StateLayout::new(&manifest, kind));
                let states = (states[0].bytes() > 0).then(|| states.map(Arc::new));
                Ok(Arc::new(Model { shared, manifest, states, draft }))
            }
            // A digest that does not match, or a file that ends early, can mean that the file was changed meanwhile.
            Err(error @ (RuntimeError::Format { .. } | RuntimeError::Io { .. })) => {
                Err(storage.unchanged().err().unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads everything that is used later. Somebody who can write to the file can make each read give different bytes.
    /// Therefore every byte is read once, and the copy is what is checked and used. The user trusts the digest of the
    /// header that was parsed, and that header holds the digests of the copies.
    fn read(
        storage: &Storage,
        options: &LoadOptions,
    ) -> Result<(Loaded, Manifest, Option<Plan>), RuntimeError> {
        let Front { header, head, digest, mut manifest, draft, tokenizer } = Front::read(storage)?;
        let trust = options.trust.decide(&head, || storage.signature())?;
        if let (true, Err(why)) = (options.trust.required, &trust) {
            return Err(RuntimeError::Untrusted { path: storage.path().to_owned(), why: why.clone() });
        }
        let section = |kind| header.section(kind).ok_or_else(|| storage.format(FormatError::Missing(kind)));
        for section in &header.sections {
            if let SectionKind::Code(_) = section.kind {
                // This finds damage only. Code that is to run is checked again on the copy that will run.
                storage.take(section, true, &mut [])?;
            }
        }
        let tensors = section(SectionKind::Tensors)?;
        let (verify, memory) = (options.verify, options.memory);
        let tables = Tables::take(storage, tensors, &manifest, draft.as_ref(), verify, memory)?;
        let load_section = |section: &Section| {
            let range = section.offset..section.offset + section.len;
            let loaded = storage.load(range, options.memory)?;
            if options.verify {
                storage.check(section, loaded.bytes())?;
            }
            Ok::<_, RuntimeError>(loaded)
        };
        let mut weights = load_section(section(SectionKind::Weights)?)?;
        let planes = header.section(SectionKind::Planes).map(load_section).transpose()?;

        let bind_options = BindOptions { choice: options.kernels, cpu: options.cpu, trust };
        let mut stored = Stored::AsWritten;
        if bind::wants_common_code(&manifest, &bind_options) {
            let packed_matrices = &mut manifest.packed_matrices;
            stored = match weights.rewrite(|bytes| recode::to_common(storage, packed_matrices, bytes))? {
                true => Stored::Anew,
                false => Stored::InFile,
            };
        }
        let bundle =
            Bundle { storage, header: &header, manifest: &manifest, stored, weights: weights.bytes() };
        let mut tuner = Tuner::new(options.tuning, options.timings.clone().or_else(tuning::file));
        let kernels = bind::bind(&bundle, &bind_options, &mut tuner)?;
        let mut scan_variants = Vec::new();
        if let Some(section) = &planes {
            for id in 0..manifest.planes.len() as u32 {
                let planes = self::planes(&manifest, PlanesId(id), section.bytes());
                scan_variants
                    .push([false, true].map(|full| SCAN_VARIANTS[tuner.choose_scan_variant(&planes, full)]));
            }
        }
        tuner.remember();

        storage.intact()?;
        let trust = bind_options.trust;
        let (tokenizer_json, tokenizer) = (Mutex::new(tokenizer), OnceLock::new());
        let loaded = Loaded {
            weights,
            planes,
            scan_variants,
            digest,
            kernels,
            trust,
            tables,
            tokenizer_json,
            tokenizer,
        };
        Ok((loaded, manifest, draft))
    }

    /// The bundle's path.
    pub fn path(&self) -> &Path {
        self.shared.storage.path()
    }

    /// The block that drafts tokens, as a model whose rows come with hidden states.
    pub(crate) fn draft(&self) -> Option<&Arc<Model>> {
        self.draft.as_ref()
    }

    /// Whether the bundle has a block that drafts tokens.
    pub fn has_draft_block(&self) -> bool {
        self.draft.is_some()
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bundle's name: the BLAKE3 digest of its header, which has the digests of all its sections.
    pub fn digest(&self) -> Digest {
        self.shared.loaded.digest
    }

    /// Which kernels run.
    pub fn kernels(&self) -> &KernelReport {
        &self.shared.loaded.kernels.report
    }

    /// Which rule allows the bundle's own code to run, or why none does. [`Model::kernels`] says whether that code does
    /// run.
    pub fn trust(&self) -> Result<&Trusted, &NotTrusted> {
        self.shared.loaded.trust.as_ref()
    }

    /// The bundle's tokenizer; `None` where it has none. It is made when it is first asked for, because programs that
    /// work with ids do not need it.
    ///
    /// # Errors
    /// [`RuntimeError::Text`] where the bundle's `tokenizer.json` cannot be used.
    pub fn tokenizer(&self) -> Result<Option<&Arc<Tokenizer>>, RuntimeError> {
        let made = self.shared.loaded.tokenizer.get_or_init(|| {
            let json =
                self.shared.loaded.tokenizer_json.lock().unwrap_or_else(PoisonError::into_inner).take();
            let vocab_size = self.manifest.hyperparameters.vocab_size;
            let made = json.map(|json| Tokenizer::new(&json, &self.manifest.text, vocab_size));
            made.transpose().map(|made| made.map(Arc::new))
        });
        match made {
            Ok(tokenizer) => Ok(tokenizer.as_ref()),
            Err(source) => Err(RuntimeError::Text { path: self.path().to_owned(), source: source.clone() }),
        }
    }

    /// Where the recurrent states of the plan stand, with matrices of that type; `None` where it has none.
    pub(crate) fn states(&self, kind: StateType) -> Option<&Arc<StateLayout>> {
        let [wide, narrow] = self.states.as_ref()?;
        Some(match kind {
            StateType::F32 => wide,
            StateType::F16 => narrow,
        })
    }

    /// Bytes of the recurrent state of one sequence, with matrices of f32; 0 for models without one.
    pub fn state_bytes(&self) -> usize {
        self.states(StateType::F32).map_or(0, |layout| layout.bytes())
    }

    pub(crate) fn bound(&self) -> &Kernels {
        &self.shared.loaded.kernels
    }

    /// Checks that everything computed so far came from the bytes that were loaded. It is called after every pass.
    pub(crate) fn intact(&self) -> Result<(), RuntimeError> {
        self.shared.storage.intact()
    }

    /// The tiles of a packed matrix.
    pub(crate) fn weights(&self, matrix: usize) -> &[u8] {
        let matrix = &self.manifest.packed_matrices[matrix];
        let len = matrix.bytes().expect("validated") as usize;
        &self.shared.loaded.weights.bytes()[matrix.offset as usize..][..len]
    }

    /// Bytes of a row of a table, of floats or of codes.
    pub(crate) fn row_bytes(&self, table: TensorId) -> usize {
        let tensor = self.tensor(table);
        tensor.dtype.row_bytes(tensor.shape[1]).expect("validated") as usize
    }

    /// Reads the bytes of row `row` of a table into `to`. This is for tables of which few rows are read. Where the row cannot
    /// be read, `to` gets zeros and [`Model::intact`] returns the error.
    pub(crate) fn read_row(&self, table: TensorId, row: usize, to: &mut [u8]) {
        assert!(row < self.tensor(table).shape[0] as usize && to.len() == self.row_bytes(table));
        self.shared.loaded.tables.part(&self.shared.storage, table, row * to.len(), to);
    }

    /// The planes of a head's table.
    pub(crate) fn planes(&self, id: PlanesId) -> Planes<'_> {
        let bytes = self.shared.loaded.planes.as_ref().map_or(&[][..], LoadedBytes::bytes);
        let [high, full] = self.shared.loaded.scan_variants[id.0 as usize];
        planes(&self.manifest, id, bytes).with_scan_variant(false, high).with_scan_variant(true, full)
    }

    /// The record of a tensor.
    pub(crate) fn tensor(&self, id: TensorId) -> &Tensor {
        &self.manifest.tensors[id.0 as usize]
    }

    /// All bytes of a table. `None` where they cannot be read any more; [`Model::intact`] then returns the error.
    pub(crate) fn table(&self, id: TensorId) -> Option<&[u8]> {
        self.shared.loaded.tables.whole(&self.shared.storage, id)
    }

    /// The values of an f32 vector.
    pub(crate) fn vector(&self, id: TensorId) -> &[f32] {
        self.shared.loaded.tables.vector(id)
    }
}

/// The planes `id` within the section of planes.
fn planes<'a>(manifest: &Manifest, id: PlanesId, section: &'a [u8]) -> Planes<'a> {
    let planes = &manifest.planes[id.0 as usize];
    let shape = &manifest.tensors[planes.table.0 as usize].shape;
    let layout = Layout::new(shape[0], shape[1]).expect("validated");
    Planes::new(&section[planes.offset as usize..], layout)
}
