//! The kernels for one shape of matrix: machine code, or portable Rust.
#![allow(unsafe_code)]

use crate::{GemmError, KernelShape};
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use trit_format::kernel::{KernelArgs, KernelKind, KernelSpec};
use trit_format::target::Target;

/// Machine code of a ternary kernel: see [`KernelArgs`].
#[cfg(target_arch = "x86_64")]
pub type KernelFn = unsafe extern "sysv64" fn(*const KernelArgs);
/// Machine code of a ternary kernel: see [`KernelArgs`].
#[cfg(not(target_arch = "x86_64"))]
pub type KernelFn = unsafe extern "C" fn(*const KernelArgs);

/// Machine code that computes what its specification says on this CPU. Whoever holds a kernel also keeps its memory
/// alive.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub spec: KernelSpec,
    pub entry: KernelFn,
}

impl Kernel {
    pub fn shape(&self) -> KernelShape {
        KernelShape { k: self.spec.k, code: self.spec.code }
    }
}

/// Kernels that were placed in memory together: a bundle's own, or generated ones.
pub struct MachineCode {
    kernels: Vec<Kernel>,
    target: Target,
    owner: Arc<dyn Any + Send + Sync>,
}

impl MachineCode {
    /// Kernels for `target` with their specifications. Their memory exists as long as `owner`.
    ///
    /// # Safety
    /// Each function must be a kernel as [`KernelArgs`] documents it for its specification, and it must be callable
    /// until `owner` is dropped. This CPU and system must run code for `target`.
    pub unsafe fn new(
        kernels: impl IntoIterator<Item = (KernelSpec, KernelFn)>,
        target: Target,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> MachineCode {
        let kernels = kernels.into_iter().map(|(spec, entry)| Kernel { spec, entry }).collect();
        MachineCode { kernels, target, owner }
    }

    /// The tier that the code is for.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The kernels for one shape, or `None` if there are none for one row of activations. Several kernels for one row
    /// may differ in speed alone: `choose` gives the index of the one to use. If there is no such index, the first is
    /// used.
    pub fn kernels(&self, shape: KernelShape, choose: impl FnOnce(&Variants) -> usize) -> Option<Kernels> {
        let fits =
            |kind| self.kernels.iter().copied().filter(move |k| k.shape() == shape && k.spec.kind == kind);
        let rows: BTreeSet<u32> = fits(KernelKind::Stream).map(|k| k.spec.m).collect();
        if rows.first() != Some(&1) {
            return None;
        }
        let variants = |m| fits(KernelKind::Stream).filter(move |k| k.spec.m == m);
        let single = Variants { kernels: variants(1).collect(), target: self.target };
        let chosen = choose(&single);
        let single = *single.kernels.get(chosen).or(single.kernels.first())?;
        // `choose` is not asked about kernels for several rows, because these are bound by computation more than by
        // memory.
        let several = rows.into_iter().rev().filter(|&m| m > 1).filter_map(|m| variants(m).next());
        Some(Kernels(Some(Arc::new(CodeKernels {
            shape,
            target: self.target,
            streams: several.chain([single]).collect(),
            block: fits(KernelKind::Block).next(),
            grouped: fits(KernelKind::Grouped).next(),
            _owner: self.owner.clone(),
        }))))
    }
}

/// Kernels for one row of activations that give the same integers and differ in speed.
pub struct Variants {
    pub(crate) kernels: Vec<Kernel>,
    target: Target,
}

impl Variants {
    /// Number of variants, at least 1.
    pub fn count(&self) -> usize {
        self.kernels.len()
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.kernels.iter().map(|k| k.spec.to_string()).collect()
    }

    /// The tier they are for.
    pub fn target(&self) -> Target {
        self.target
    }
}

/// The kernels that multiply one shape of matrix.
#[derive(Clone)]
pub struct Kernels(Option<Arc<CodeKernels>>);

/// Machine code for one shape.
pub(crate) struct CodeKernels {
    pub shape: KernelShape,
    pub target: Target,
    /// One kernel for each number of activation rows that has one. Those for more rows come first; the last is for one
    /// row.
    pub streams: Vec<Kernel>,
    /// The kernel for blocks, which takes any number of rows.
    pub block: Option<Kernel>,
    /// The same for groups of columns, whose sums it turns into floats.
    pub grouped: Option<Kernel>,
    /// Keeps the code alive.
    _owner: Arc<dyn Any + Send + Sync>,
}

impl Kernels {
    /// Portable Rust, for every shape.
    pub fn portable() -> Kernels {
        Kernels(None)
    }

    /// The tier of the machine code; `None` for portable Rust.
    pub fn target(&self) -> Option<Target> {
        self.0.as_ref().map(|code| code.target)
    }

    /// The names of the kernels; none for portable Rust.
    pub fn names(&self) -> Vec<String> {
        let code = self.0.iter();
        code.flat_map(|c| c.streams.iter().chain(&c.block).chain(&c.grouped))
            .map(|k| k.spec.to_string())
            .collect()
    }

    #[inline]
    pub(crate) fn code(&self) -> Option<&CodeKernels> {
        self.0.as_deref()
    }

    /// Whether they multiply matrices of this shape.
    pub(crate) fn fit(&self, expected: KernelShape) -> Result<(), GemmError> {
        match self.code() {
            Some(code) if code.shape != expected => Err(GemmError::Kernels { expected, found: code.shape }),
            _ => Ok(()),
        }
    }
}

impl CodeKernels {
    /// The kernel for as many as possible of the `left` activation rows; `left` is at least 1.
    #[inline]
    pub fn stream(&self, left: usize) -> &Kernel {
        let found = self.streams.iter().find(|k| k.spec.m as usize <= left);
        found.expect("`MachineCode::kernels` puts one for one row last")
    }
}
