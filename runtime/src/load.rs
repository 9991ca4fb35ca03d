//! A bundle on disk becomes a model that sessions share.

use crate::bind::{BindOptions, Bundle, KernelChoice, KernelReport, Kernels, bind};
use crate::storage::{Memory, Storage, Streamed};
use crate::tuning::{self, Tuner, Tuning};
use crate::{RuntimeError, mapping};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trit_format::container::{Digest, Header, SectionKind};
use trit_format::manifest::{Manifest, Tensor};
use trit_format::plan::{DType, PlanesId, TensorId};
use trit_format::planes::Layout;
use trit_format::target::Target;
use trit_format::{FormatError, trust};
use trit_kernels::planes::{Planes, WAYS, Way};
use trit_text::Tokenizer;

/// How to load a bundle.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Which kernels to run.
    pub kernels: KernelChoice,
    /// The tier to use instead of the best there is.
    pub cpu: Option<Target>,
    /// Run embedded code whoever compiled it.
    pub trust: bool,
    /// Check the digests of weights and tensors; the manifest's and the code's are always checked.
    pub verify: bool,
    /// Where weights are kept.
    pub memory: Memory,
    /// Whether kernels are timed.
    pub tuning: Tuning,
    /// The file where timings are remembered; by default `trit/kernels.json` in the user's folder for caches.
    pub timings: Option<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            kernels: KernelChoice::Auto,
            cpu: None,
            trust: false,
            verify: true,
            memory: Memory::Auto,
            tuning: Tuning::Remembered,
            timings: None,
        }
    }
}

/// A loaded bundle: verified, bound to this machine, immutable.
pub struct Model {
    path: PathBuf,
    storage: Storage,
    weights: Streamed,
    planes: Option<Streamed>,
    /// By planes, how to scan the high one, and both.
    ways: Vec<[Way; 2]>,
    header: Header,
    manifest: Manifest,
    kernels: Kernels,
    /// f32 tensors used as vectors, by tensor; empty for others.
    vectors: Vec<Vec<f32>>,
    tokenizer: Option<Tokenizer>,
}

impl Model {
    /// Maps, verifies and binds a bundle.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] and [`RuntimeError::Format`] where the file cannot be read or is no valid bundle,
    /// [`RuntimeError::Unsupported`] and [`RuntimeError::Untrusted`] where the kernels asked for cannot run.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Arc<Model>, RuntimeError> {
        let format = |source: FormatError| RuntimeError::Format { path: path.to_owned(), source };
        let storage = mapping::open(path)?;
        let map = storage.bytes();
        let header = Header::parse(map).map_err(format)?;
        for section in &header.sections {
            let streams = matches!(section.kind, SectionKind::Weights | SectionKind::Planes);
            let large = streams || section.kind == SectionKind::Tensors;
            if !streams && (options.verify || !large) {
                header.verify(map, section.kind).map_err(format)?;
            }
            if section.kind == SectionKind::Tensors {
                storage.release(section.range());
            }
        }
        let bytes = |kind| header.section(kind).map(|s| &map[s.range()]);
        let manifest = Manifest::decode(bytes(SectionKind::Manifest).unwrap_or_default()).map_err(format)?;
        manifest.validate(&header).map_err(format)?;
        let stream = |kind| {
            let section = header.section(kind).ok_or(FormatError::Missing(kind))?;
            let streamed = storage.stream(section.range(), options.memory);
            match options.verify && Digest::of(streamed.bytes(&storage)) != section.digest {
                true => Err(FormatError::Digest(kind)),
                false => Ok(streamed),
            }
        };
        let weights = stream(SectionKind::Weights).map_err(format)?;
        let planes = match header.section(SectionKind::Planes) {
            Some(_) => Some(stream(SectionKind::Planes).map_err(format)?),
            None => None,
        };

        let head = &map[..Header::bytes(header.sections.len()) as usize];
        let trusted = options.trust
            || trust::folder(|name| std::env::var_os(name))
                .is_some_and(|folder| folder.join(trust::file_name(head)).is_file());
        let bind_options = BindOptions { choice: options.kernels, cpu: options.cpu, trusted };
        let mut tuner = Tuner::new(options.tuning, options.timings.clone().or_else(tuning::file));
        let code = |t| bytes(SectionKind::Code(t));
        let bundle = Bundle { path, manifest: &manifest, code: &code, weights: weights.bytes(&storage) };
        let kernels = bind(&bundle, &bind_options, &mut tuner)?;
        let mut ways = Vec::new();
        if let Some(section) = &planes {
            for id in 0..manifest.planes.len() as u32 {
                let planes = self::planes(&manifest, PlanesId(id), section.bytes(&storage));
                ways.push([false, true].map(|full| WAYS[tuner.choose_way(&planes, full)]));
            }
        }
        tuner.remember();

        let tensors = bytes(SectionKind::Tensors).unwrap_or_default();
        let vectors = manifest.tensors.iter().map(|t| vector(t, tensors)).collect();
        let tokenizer = bytes(SectionKind::Tokenizer)
            .map(|json| Tokenizer::new(json, &manifest.text))
            .transpose()
            .map_err(|e| RuntimeError::Text { path: path.to_owned(), problem: e.to_string() })?;
        Ok(Arc::new(Model {
            path: path.to_owned(),
            kernels,
            vectors,
            tokenizer,
            manifest,
            weights,
            planes,
            ways,
            header,
            storage,
        }))
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the bundle says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Which kernels run.
    pub fn kernels(&self) -> &KernelReport {
        &self.kernels.report
    }

    /// Its tokenizer, where it has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    pub(crate) fn bound(&self) -> &Kernels {
        &self.kernels
    }

    fn section(&self, kind: SectionKind) -> &[u8] {
        self.header.section(kind).map_or(&[], |s| &self.storage.bytes()[s.range()])
    }

    /// The tiles of a product.
    pub(crate) fn weights(&self, product: usize) -> &[u8] {
        let product = &self.manifest.products[product];
        let len = product.bytes().expect("validated") as usize;
        &self.weights.bytes(&self.storage)[product.offset as usize..][..len]
    }

    /// Reads row `row` of a table of 16- or 32-bit floats into `to`, its bytes: for tables of which few rows are read.
    pub(crate) fn read_row(&self, table: TensorId, row: usize, to: &mut [u8]) {
        let tensor = &self.manifest.tensors[table.0 as usize];
        let section = self.header.section(SectionKind::Tensors).map_or(0, |s| s.offset as usize);
        assert!(row < tensor.shape[0] as usize && to.len() == tensor.shape[1] as usize * tensor.dtype.size());
        self.storage.read(section + tensor.offset as usize + row * to.len(), to);
    }

    /// The planes of a head's table.
    pub(crate) fn planes(&self, id: PlanesId) -> Planes<'_> {
        let bytes = self.planes.as_ref().map_or(&[][..], |s| s.bytes(&self.storage));
        let [high, full] = self.ways[id.0 as usize];
        planes(&self.manifest, id, bytes).scanned(false, high).scanned(true, full)
    }

    /// The bytes of a tensor.
    pub(crate) fn tensor(&self, id: TensorId) -> (&Tensor, &[u8]) {
        let tensor = &self.manifest.tensors[id.0 as usize];
        let len = tensor.bytes().expect("validated") as usize;
        (tensor, &self.section(SectionKind::Tensors)[tensor.offset as usize..][..len])
    }

    /// An f32 vector.
    pub(crate) fn vector(&self, id: TensorId) -> &[f32] {
        &self.vectors[id.0 as usize]
    }
}

/// Planes in their section.
fn planes<'a>(manifest: &Manifest, id: PlanesId, section: &'a [u8]) -> Planes<'a> {
    let planes = &manifest.planes[id.0 as usize];
    let shape = &manifest.tensors[planes.table.0 as usize].shape;
    let layout = Layout::new(shape[0], shape[1]).expect("validated");
    Planes::new(&section[planes.offset as usize..], layout)
}

/// The values of a one-dimensional f32 tensor; nothing for larger ones, which are read where they stand.
fn vector(tensor: &Tensor, section: &[u8]) -> Vec<f32> {
    if tensor.dtype != DType::F32 || tensor.shape.len() != 1 {
        return Vec::new();
    }
    let len = tensor.bytes().expect("validated") as usize;
    let bytes = &section[tensor.offset as usize..][..len];
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}
