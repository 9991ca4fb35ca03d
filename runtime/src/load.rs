//! A bundle on disk becomes a model that sessions share.

use crate::MappingHook;
use crate::TrustPolicy;
use crate::bind::{self, BindOptions, Bundle, KernelChoice, KernelReport, Kernels, Stored};
use crate::source::Source;
use crate::storage::{Memory, Storage, Streamed};
use crate::tables::Tables;
use crate::trust::{NotTrusted, Trusted};
use crate::tuning::{self, Tuner, Tuning};
use crate::{RuntimeError, recode};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use trit_format::FormatError;
use trit_format::container::{Digest, Header, Section, SectionKind};
use trit_format::manifest::{MAX_BYTES, Manifest, Tensor};
use trit_format::plan::{PlanesId, TensorId};
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
    /// Check the digests of weights and tensors; the manifest's and the code's are always checked.
    pub verify: bool,
    /// Where weights are kept.
    pub memory: Memory,
    /// Whether kernels are timed.
    pub tuning: Tuning,
    /// The file where timings are remembered; by default `trit/kernels.json` in the user's folder for caches.
    pub timings: Option<PathBuf>,
    /// Called for what is mapped of the bundle's file; nobody by default.
    pub mapped: Option<MappingHook>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            kernels: KernelChoice::Auto,
            cpu: None,
            trust: TrustPolicy::default(),
            verify: true,
            memory: Memory::Auto,
            tuning: Tuning::Remembered,
            timings: None,
            mapped: None,
        }
    }
}

/// Most bytes of a tokenizer that is taken into memory; the largest known have 30 MB.
const MAX_TOKENIZER: usize = 1 << 28;

/// What a bundle says of itself: read once, checked, and used as it was read.
pub(crate) struct Front {
    pub header: Header,
    /// The digest of the bytes that the header was parsed from: the bundle's name.
    pub digest: Digest,
    pub manifest: Manifest,
    /// `tokenizer.json`, where there is one.
    pub tokenizer: Option<Vec<u8>>,
}

impl Front {
    pub fn read(storage: &Storage) -> Result<Front, RuntimeError> {
        let (header, head) = storage.header()?;
        let section = header.section(SectionKind::Manifest);
        let section = section.ok_or_else(|| storage.format(FormatError::Missing(SectionKind::Manifest)))?;
        let manifest = Manifest::decode(&storage.copy(section, MAX_BYTES)?).map_err(|e| storage.format(e))?;
        manifest.validate(&header).map_err(|e| storage.format(e))?;
        let tokenizer = header.section(SectionKind::Tokenizer);
        let tokenizer = tokenizer.map(|section| storage.copy(section, MAX_TOKENIZER)).transpose()?;
        Ok(Front { header, digest: Digest::of(&head), manifest, tokenizer })
    }
}

/// A loaded bundle: verified, bound to this machine, immutable.
pub struct Model {
    storage: Storage,
    weights: Streamed,
    planes: Option<Streamed>,
    /// By planes, how to scan the high one, and both.
    scan_variants: Vec<[ScanVariant; 2]>,
    manifest: Manifest,
    kernels: Kernels,
    trust: Result<Trusted, NotTrusted>,
    tables: Tables,
    /// Bytes of `tokenizer.json`, until text is needed.
    tokenizer_json: Mutex<Option<Vec<u8>>>,
    tokenizer: OnceLock<Result<Option<Arc<Tokenizer>>, TextError>>,
}

impl Model {
    /// Opens, verifies and binds a bundle.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] and [`RuntimeError::Format`] where the file cannot be read or is no valid bundle,
    /// [`RuntimeError::Changed`] where it was written to meanwhile, [`RuntimeError::Kernels`] and
    /// [`RuntimeError::Untrusted`] where the kernels asked for cannot run, [`RuntimeError::TrustFolder`] where the folder of
    /// trust records is named by a relative path.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Arc<Model>, RuntimeError> {
        Model::on(Storage::open(path)?, options)
    }

    /// [`Model::load`] from wherever bytes come from; `path` names it in errors.
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
            Ok(parts) => Ok(Arc::new(parts.on(storage))),
            // Why a digest does not match, or a file ends early, where that can be told.
            Err(error @ (RuntimeError::Format { .. } | RuntimeError::Io { .. })) => {
                Err(storage.unchanged().err().unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads everything that is used from here on. Whoever can write to the file can have each read give something else,
    /// so every byte is read once, and what was read is what is checked and used: the trust of the user is in the digest of
    /// the header that was parsed, whose digests are those of the copies.
    fn read(storage: &Storage, options: &LoadOptions) -> Result<Parts, RuntimeError> {
        let Front { header, digest, mut manifest, tokenizer } = Front::read(storage)?;
        let section = |kind| header.section(kind).ok_or_else(|| storage.format(FormatError::Missing(kind)));
        for section in &header.sections {
            if let SectionKind::Code(_) = section.kind {
                // For damage only: code that is to run is checked where it will run.
                storage.take(section, true, &mut [])?;
            }
        }
        let tensors = section(SectionKind::Tensors)?;
        let tables = Tables::take(storage, tensors, &manifest, options.verify, options.memory)?;
        let stream = |section: &Section| {
            let range = section.offset..section.offset + section.len;
            let streamed = storage.stream(range, options.memory)?;
            if options.verify {
                storage.check(section, streamed.bytes())?;
            }
            Ok::<_, RuntimeError>(streamed)
        };
        let mut weights = stream(section(SectionKind::Weights)?)?;
        let planes = header.section(SectionKind::Planes).map(stream).transpose()?;

        let bind_options =
            BindOptions { choice: options.kernels, cpu: options.cpu, trust: options.trust.decide(digest)? };
        let mut stored = Stored::AsWritten;
        if bind::wants_common_code(&manifest, &bind_options) {
            let products = &mut manifest.products;
            stored = match weights.rewrite(|bytes| recode::to_common(storage, products, bytes))? {
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
        Ok(Parts { weights, planes, scan_variants, manifest, kernels, trust, tables, tokenizer })
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        self.storage.path()
    }

    /// What the bundle says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Which kernels run.
    pub fn kernels(&self) -> &KernelReport {
        &self.kernels.report
    }

    /// Which rule lets the bundle's own code run, or why none does. Whether that code runs is another matter: see
    /// [`Model::kernels`].
    pub fn trust(&self) -> Result<&Trusted, &NotTrusted> {
        self.trust.as_ref()
    }

    /// Its tokenizer, where it has one. It is made when it is first asked for: who gives and takes ids needs none.
    ///
    /// # Errors
    /// [`RuntimeError::Text`] where the bundle's `tokenizer.json` cannot be used.
    pub fn tokenizer(&self) -> Result<Option<&Arc<Tokenizer>>, RuntimeError> {
        let made = self.tokenizer.get_or_init(|| {
            let json = self.tokenizer_json.lock().unwrap_or_else(PoisonError::into_inner).take();
            let vocab_size = self.manifest.hyperparameters.vocab_size;
            let made = json.map(|json| Tokenizer::new(&json, &self.manifest.text, vocab_size));
            made.transpose().map(|made| made.map(Arc::new))
        });
        match made {
            Ok(tokenizer) => Ok(tokenizer.as_ref()),
            Err(source) => Err(RuntimeError::Text { path: self.path().to_owned(), source: source.clone() }),
        }
    }

    pub(crate) fn bound(&self) -> &Kernels {
        &self.kernels
    }

    /// Whether everything computed so far came from the bytes that were loaded: asked after every pass.
    pub(crate) fn intact(&self) -> Result<(), RuntimeError> {
        self.storage.intact()
    }

    /// The tiles of a product.
    pub(crate) fn weights(&self, product: usize) -> &[u8] {
        let product = &self.manifest.products[product];
        let len = product.bytes().expect("validated") as usize;
        &self.weights.bytes()[product.offset as usize..][..len]
    }

    /// Reads row `row` of a table of 16- or 32-bit floats into `to`, its bytes: for tables of which few rows are read. Where
    /// it cannot be read, it is zero and [`Model::intact`] says why.
    pub(crate) fn read_row(&self, table: TensorId, row: usize, to: &mut [u8]) {
        let tensor = self.tensor(table);
        assert!(row < tensor.shape[0] as usize && to.len() == tensor.shape[1] as usize * tensor.dtype.size());
        self.tables.part(&self.storage, table, row * to.len(), to);
    }

    /// The planes of a head's table.
    pub(crate) fn planes(&self, id: PlanesId) -> Planes<'_> {
        let bytes = self.planes.as_ref().map_or(&[][..], Streamed::bytes);
        let [high, full] = self.scan_variants[id.0 as usize];
        planes(&self.manifest, id, bytes).with_scan_variant(false, high).with_scan_variant(true, full)
    }

    /// What a tensor is.
    pub(crate) fn tensor(&self, id: TensorId) -> &Tensor {
        &self.manifest.tensors[id.0 as usize]
    }

    /// All bytes of a table. `None` where they cannot be had any more, and [`Model::intact`] says why.
    pub(crate) fn table(&self, id: TensorId) -> Option<&[u8]> {
        self.tables.whole(&self.storage, id)
    }

    /// An f32 vector.
    pub(crate) fn vector(&self, id: TensorId) -> &[f32] {
        self.tables.vector(id)
    }
}

/// A model without the storage that it was read from.
struct Parts {
    weights: Streamed,
    planes: Option<Streamed>,
    scan_variants: Vec<[ScanVariant; 2]>,
    manifest: Manifest,
    kernels: Kernels,
    trust: Result<Trusted, NotTrusted>,
    tables: Tables,
    tokenizer: Option<Vec<u8>>,
}

impl Parts {
    fn on(self, storage: Storage) -> Model {
        let Parts { weights, planes, scan_variants, manifest, kernels, trust, tables, tokenizer } = self;
        let tokenizer_json = Mutex::new(tokenizer);
        let tokenizer = OnceLock::new();
        Model {
            storage,
            weights,
            planes,
            scan_variants,
            manifest,
            kernels,
            trust,
            tables,
            tokenizer_json,
            tokenizer,
        }
    }
}

/// Planes in their section.
fn planes<'a>(manifest: &Manifest, id: PlanesId, section: &'a [u8]) -> Planes<'a> {
    let planes = &manifest.planes[id.0 as usize];
    let shape = &manifest.tensors[planes.table.0 as usize].shape;
    let layout = Layout::new(shape[0], shape[1]).expect("validated");
    Planes::new(&section[planes.offset as usize..], layout)
}
