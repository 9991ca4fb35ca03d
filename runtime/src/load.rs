//! A bundle on disk becomes a model that sessions share.

use crate::bind::{BindOptions, KernelChoice, KernelReport, Kernels, bind};
use crate::text::Tokenizer;
use crate::{RuntimeError, mapping};
use memmap2::Mmap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trit_format::container::{Header, SectionKind};
use trit_format::manifest::{Manifest, Tensor};
use trit_format::plan::{DType, TensorId};
use trit_format::target::Target;
use trit_format::{FormatError, trust};

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
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions { kernels: KernelChoice::Auto, cpu: None, trust: false, verify: true }
    }
}

/// A loaded bundle: verified, bound to this machine, immutable.
pub struct Model {
    path: PathBuf,
    map: Mmap,
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
        let map = mapping::map(path)?;
        let header = Header::parse(&map).map_err(format)?;
        for section in &header.sections {
            let large = matches!(section.kind, SectionKind::Weights | SectionKind::Tensors);
            if options.verify || !large {
                header.verify(&map, section.kind).map_err(format)?;
            }
        }
        let bytes = |kind| header.section(kind).map(|s| &map[s.range()]);
        let manifest = Manifest::decode(bytes(SectionKind::Manifest).unwrap_or_default()).map_err(format)?;
        manifest.validate(&header).map_err(format)?;

        let head = &map[..Header::bytes(header.sections.len()) as usize];
        let trusted = options.trust
            || trust::folder(|name| std::env::var_os(name))
                .is_some_and(|folder| folder.join(trust::file_name(head)).is_file());
        let bind_options = BindOptions { choice: options.kernels, cpu: options.cpu, trusted };
        let kernels = bind(path, &manifest, |t| bytes(SectionKind::Code(t)), &bind_options)?;

        let tensors = bytes(SectionKind::Tensors).unwrap_or_default();
        let vectors = manifest.tensors.iter().map(|t| vector(t, tensors)).collect();
        let tokenizer = bytes(SectionKind::Tokenizer)
            .map(|json| Tokenizer::new(json, &manifest.text))
            .transpose()
            .map_err(|e| RuntimeError::Text { path: path.to_owned(), problem: e.to_string() })?;
        Ok(Arc::new(Model { path: path.to_owned(), kernels, vectors, tokenizer, manifest, header, map }))
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
        self.header.section(kind).map_or(&[], |s| &self.map[s.range()])
    }

    /// The tiles of a product.
    pub(crate) fn weights(&self, product: usize) -> &[u8] {
        let product = &self.manifest.products[product];
        let len = product.bytes().expect("validated") as usize;
        &self.section(SectionKind::Weights)[product.offset as usize..][..len]
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

/// The values of a one-dimensional f32 tensor; nothing for larger ones, which are read where they stand.
fn vector(tensor: &Tensor, section: &[u8]) -> Vec<f32> {
    if tensor.dtype != DType::F32 || tensor.shape.len() != 1 {
        return Vec::new();
    }
    let len = tensor.bytes().expect("validated") as usize;
    let bytes = &section[tensor.offset as usize..][..len];
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}
