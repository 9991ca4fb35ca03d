//! Which kernels run: embedded, regenerated or portable, and of which tier.

use crate::RuntimeError;
use crate::cpu::CpuTiers;
use crate::kernel_notes::{CodeLimit, KernelNote, NoKernels};
use crate::mapping::{EmbeddedCode, KernelFn};
use crate::recode::COMMON;
use crate::storage::Storage;
use crate::trust::{NotTrusted, Trusted};
use crate::tuning::{Stream, Tuner};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use trit_format::container::{Digest, Header, SectionKind};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelEntry, KernelKind, KernelSpec};
use trit_format::manifest::{Manifest, Product};
use trit_format::target::Target;

/// Most shapes of products that code is generated for. Models have two to ten; each costs some milliseconds at every load.
#[cfg(feature = "jit")]
const MOST_SHAPES: usize = 64;

/// Where kernels come from, as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// Embedded where trusted and of the best tier, else regenerated here, else portable.
    #[default]
    Auto,
    /// The bundle's own code, which must be trusted.
    Embedded,
    /// Regenerated from the bundle's kernel specifications.
    Jit,
    /// Safe Rust over the same layout.
    Portable,
}

impl FromStr for KernelChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<KernelChoice, String> {
        match name {
            "auto" => Ok(KernelChoice::Auto),
            "embedded" => Ok(KernelChoice::Embedded),
            "jit" => Ok(KernelChoice::Jit),
            "portable" => Ok(KernelChoice::Portable),
            _ => Err("expected auto, embedded, jit or portable".into()),
        }
    }
}

/// Where kernels came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelSource {
    /// The bundle.
    Embedded,
    /// Generated on this machine.
    Jit,
    /// Built into the runtime.
    Portable,
}

/// What was bound, in one line.
#[derive(Clone, Debug)]
pub struct KernelReport {
    /// Where the kernels came from.
    pub source: KernelSource,
    /// Their tier; `None` for portable ones.
    pub target: Option<Target>,
    /// The digest of the bundle's code as it was copied and made executable; `None` where none was.
    pub code: Option<Digest>,
    /// Why it is not what the user would expect first; empty where it is.
    pub notes: Vec<KernelNote>,
    /// Shapes of products that have machine code of their own.
    pub shapes: usize,
    /// Shapes that were timed in this load, because nothing was remembered of them.
    pub timed: usize,
}

impl KernelReport {
    /// What runs, without notes: where the kernels came from, and their tier.
    pub fn name(&self) -> String {
        let source = match self.source {
            KernelSource::Embedded => "embedded",
            KernelSource::Jit => "jit",
            KernelSource::Portable => "portable",
        };
        self.target.map_or(source.to_owned(), |target| format!("{source} {target}"))
    }
}

impl fmt::Display for KernelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        let mut before = " (";
        for note in &self.notes {
            write!(f, "{before}{note}")?;
            before = "; ";
        }
        if self.notes.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// The kernels of one product.
#[derive(Clone)]
pub(crate) enum ProductKernels {
    /// Safe Rust.
    Portable,
    /// Machine code.
    Code(CodeKernels),
}

/// Machine code for one shape of product.
#[derive(Clone)]
pub(crate) struct CodeKernels {
    /// One for each number of activation rows there is, most rows first; the last is for one row.
    pub streams: Vec<(usize, KernelFn)>,
    /// For any number of rows.
    pub block: Option<(KernelSpec, KernelFn)>,
}

impl CodeKernels {
    /// The kernel for one activation row.
    pub fn single(&self) -> KernelFn {
        self.streams.last().expect("`assign` puts one for one row last").1
    }

    /// The kernel for as many activation rows as possible of `left`, at least 1, and how many it takes.
    pub fn stream(&self, left: usize) -> (usize, KernelFn) {
        *self.streams.iter().find(|(m, _)| *m <= left).expect("one takes one row")
    }
}

/// Every product's kernels, and the memory their code stands in.
pub(crate) struct Kernels {
    /// By product.
    pub products: Vec<ProductKernels>,
    /// What was chosen.
    pub report: KernelReport,
    /// Keeps the code alive while `products` points into it.
    _code: Memory,
}

enum Memory {
    None,
    Embedded {
        _code: EmbeddedCode,
    },
    #[cfg(feature = "jit")]
    Jit {
        _code: Box<trit_codegen::JitCode>,
    },
}

/// What [`bind`] needs to know besides the bundle.
pub(crate) struct BindOptions {
    pub choice: KernelChoice,
    pub cpu: Option<Target>,
    /// Which rule lets the bundle's code run, or why none does.
    pub trust: Result<Trusted, NotTrusted>,
}

/// How the weights stand in memory, compared with the bundle.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Stored {
    /// As in the bundle.
    AsWritten,
    /// Stored anew in the code that every CPU reads: the bundle's own kernels do not fit them.
    Anew,
    /// As in the bundle, though this CPU would be faster otherwise: they stay in the file.
    InFile,
}

/// The bundle, as far as binding looks at it.
pub(crate) struct Bundle<'a> {
    pub storage: &'a Storage,
    pub header: &'a Header,
    /// Its products say how the weights stand in memory.
    pub manifest: &'a Manifest,
    pub stored: Stored,
    /// The weight section.
    pub weights: &'a [u8],
}

/// The best tiers there are kernels of, among those that this CPU has and the user wants.
struct Best {
    embedded: Option<Target>,
    generated: Option<Target>,
}

impl Best {
    fn of(manifest: &Manifest, cpu: Option<Target>, tiers: &CpuTiers) -> Best {
        let runs = |t: &Target| tiers.contains(*t) && cpu.is_none_or(|cpu| cpu == *t);
        Best {
            embedded: manifest.kernels.iter().map(|k| k.target).filter(runs).max(),
            generated: generable(manifest).filter(runs).max(),
        }
    }
}

/// Whether kernels of a better tier could be had if the weights were stored in the code that every CPU reads.
pub(crate) fn wants_common_code(manifest: &Manifest, options: &BindOptions) -> bool {
    let generates = matches!(options.choice, KernelChoice::Auto | KernelChoice::Jit);
    if !generates || manifest.products.iter().all(|p| p.code == COMMON) {
        return false;
    }
    let tiers = CpuTiers::detect();
    let mut best = Best::of(manifest, options.cpu, &tiers);
    if options.choice == KernelChoice::Jit || options.trust.is_err() {
        best.embedded = None;
    }
    let mut other = manifest.clone();
    other.products.iter_mut().for_each(|p| p.code = COMMON);
    Best::of(&other, options.cpu, &tiers).generated > best.embedded.max(best.generated)
}

/// Chooses and prepares kernels.
pub(crate) fn bind(
    bundle: &Bundle,
    options: &BindOptions,
    tuner: &mut Tuner,
) -> Result<Kernels, RuntimeError> {
    let Bundle { manifest, stored, .. } = *bundle;
    let tiers = CpuTiers::detect();
    if let Some(cpu) = options.cpu.filter(|&cpu| !tiers.contains(cpu)) {
        return Err(refused(bundle, NoKernels::CpuLacks { wanted: cpu, has: tiers.iter().collect() }));
    }
    let wanted = |t: &Target| options.cpu.is_none_or(|cpu| cpu == *t);
    let Best { mut embedded, generated } = Best::of(manifest, options.cpu, &tiers);
    if stored == Stored::Anew {
        embedded = None;
    }

    match options.choice {
        KernelChoice::Portable => Ok(portable(manifest, Vec::new())),
        KernelChoice::Embedded => match (embedded, &options.trust) {
            (_, Err(why)) => {
                Err(RuntimeError::Untrusted { path: bundle.storage.path().to_owned(), why: why.clone() })
            }
            (Some(target), Ok(_)) => bind_embedded(bundle, target, tuner),
            (None, Ok(_)) => {
                let there: BTreeSet<Target> = manifest.kernels.iter().map(|k| k.target).collect();
                let (there, cpu) = (there.into_iter().collect(), tiers.iter().filter(wanted).collect());
                Err(refused(bundle, NoKernels::OtherCpu { bundle: there, cpu }))
            }
        },
        KernelChoice::Jit => match generated {
            Some(target) => {
                let notes = Vec::from_iter((stored == Stored::Anew).then_some(KernelNote::StoredAnew));
                bind_jit(bundle, target, notes, tuner)
            }
            None if cfg!(feature = "jit") => Err(refused(
                bundle,
                match options.cpu {
                    Some(wanted) => NoKernels::NotGenerated {
                        wanted,
                        possible: generable(manifest).collect(),
                        limit: code_limit(bundle),
                    },
                    None => NoKernels::NoTier,
                },
            )),
            None => Err(refused(bundle, NoKernels::WithoutJit)),
        },
        KernelChoice::Auto => match (embedded, generated, &options.trust) {
            (Some(e), g, Ok(_)) if g.is_none_or(|g| g <= e) => bind_embedded(bundle, e, tuner),
            (e, Some(g), trust) => {
                let note = match (e, trust) {
                    _ if stored == Stored::Anew => Some(KernelNote::StoredAnew),
                    (Some(_), Err(why)) => Some(KernelNote::Untrusted(why.clone())),
                    (Some(_), Ok(_)) => None,
                    _ if manifest.kernels.is_empty() => None,
                    _ => Some(KernelNote::OtherCpu),
                };
                bind_jit(bundle, g, Vec::from_iter(note), tuner)
            }
            (e, None, trust) => match (options.cpu, e, trust) {
                (Some(wanted), ..) => {
                    Err(refused(bundle, NoKernels::NoneFor { wanted, limit: code_limit(bundle) }))
                }
                (None, Some(_), Err(why)) => Ok(portable(manifest, vec![KernelNote::Untrusted(why.clone())])),
                (None, ..) => Ok(portable(manifest, vec![KernelNote::Slow(code_limit(bundle))])),
            },
        },
    }
}

fn refused(bundle: &Bundle, problem: NoKernels) -> RuntimeError {
    RuntimeError::Kernels { path: bundle.storage.path().to_owned(), problem }
}

/// Why a CPU may have no kernels for a bundle.
fn code_limit(bundle: &Bundle) -> Option<CodeLimit> {
    match bundle.stored {
        Stored::InFile => Some(CodeLimit::StoredInFile),
        _ if bundle.manifest.products.iter().any(|p| p.code != COMMON) => Some(CodeLimit::Stored),
        _ => None,
    }
}

/// Tiers for which kernels of this bundle can be generated: not every one reads every code.
#[cfg(feature = "jit")]
fn generable(manifest: &Manifest) -> impl Iterator<Item = Target> {
    let shapes = generated_shapes(manifest);
    let reads = move |t: &Target| {
        shapes.iter().all(|&(k, code)| !trit_codegen::default_specs(k, code, *t).is_empty())
    };
    trit_codegen::supported().iter().copied().filter(reads)
}

/// The shapes of products that code is generated for: where there are more than [`MOST_SHAPES`], those with the most weights.
#[cfg(feature = "jit")]
fn generated_shapes(manifest: &Manifest) -> Vec<Shape> {
    let mut bytes: BTreeMap<Shape, u64> = BTreeMap::new();
    for product in &manifest.products {
        *bytes.entry(shape(product)).or_default() += product.bytes().expect("validated");
    }
    let mut shapes: Vec<(Shape, u64)> = bytes.into_iter().collect();
    shapes.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
    shapes.into_iter().take(MOST_SHAPES).map(|(shape, _)| shape).collect()
}

#[cfg(not(feature = "jit"))]
fn generable(_: &Manifest) -> impl Iterator<Item = Target> {
    std::iter::empty()
}

/// What a kernel is made for: the columns that it goes over, and how weights are stored.
type Shape = (u32, Code);

fn shape(product: &Product) -> Shape {
    (product.kernel_k(), product.code)
}

fn portable(manifest: &Manifest, notes: Vec<KernelNote>) -> Kernels {
    Kernels {
        products: vec![ProductKernels::Portable; manifest.products.len()],
        report: KernelReport {
            source: KernelSource::Portable,
            target: None,
            code: None,
            notes,
            shapes: 0,
            timed: 0,
        },
        _code: Memory::None,
    }
}

fn bind_embedded(bundle: &Bundle, target: Target, tuner: &mut Tuner) -> Result<Kernels, RuntimeError> {
    let entries: Vec<&KernelEntry> = bundle.manifest.kernels.iter().filter(|k| k.target == target).collect();
    let kind = SectionKind::Code(target);
    let missing = || bundle.storage.format(trit_format::FormatError::Missing(kind));
    let code = EmbeddedCode::new(bundle.storage, bundle.header.section(kind).ok_or_else(missing)?, &entries)?;
    let kernels = entries.iter().enumerate().map(|(i, k)| (k.spec, code.kernel(i))).collect();
    let assigned = assign(bundle, kernels, target, tuner);
    Ok(assigned.kernels(KernelSource::Embedded, target, Vec::new(), Memory::Embedded { _code: code }))
}

#[cfg(feature = "jit")]
fn bind_jit(
    bundle: &Bundle,
    target: Target,
    notes: Vec<KernelNote>,
    tuner: &mut Tuner,
) -> Result<Kernels, RuntimeError> {
    let shapes = generated_shapes(bundle.manifest).into_iter();
    let specs = shapes.flat_map(|(k, code)| trit_codegen::default_specs(k, code, target));
    let pairs: Vec<(KernelSpec, Target)> = specs.map(|s| (s, target)).collect();
    let code = trit_codegen::JitCode::new(&pairs)
        .map_err(|e| refused(bundle, NoKernels::Generation { problem: e.to_string() }))?;
    let kernels = pairs.iter().enumerate().map(|(i, (spec, _))| (*spec, code.kernel(i))).collect();
    let assigned = assign(bundle, kernels, target, tuner);
    Ok(assigned.kernels(KernelSource::Jit, target, notes, Memory::Jit { _code: Box::new(code) }))
}

#[cfg(not(feature = "jit"))]
fn bind_jit(bundle: &Bundle, _: Target, _: Vec<KernelNote>, _: &mut Tuner) -> Result<Kernels, RuntimeError> {
    Err(refused(bundle, NoKernels::WithoutJit))
}

/// What [`assign`] found.
struct Assigned {
    /// By product.
    products: Vec<ProductKernels>,
    /// Shapes with machine code, and all.
    shapes: (usize, usize),
    timed: usize,
}

impl Assigned {
    fn kernels(
        self,
        source: KernelSource,
        target: Target,
        mut notes: Vec<KernelNote>,
        code: Memory,
    ) -> Kernels {
        let (with_code, all) = self.shapes;
        if with_code < all {
            notes.push(KernelNote::FewShapes { with_code, all });
        }
        let digest = match &code {
            Memory::Embedded { _code } => Some(_code.digest()),
            _ => None,
        };
        let report = KernelReport {
            source,
            target: Some(target),
            code: digest,
            notes,
            shapes: with_code,
            timed: self.timed,
        };
        Kernels { products: self.products, report, _code: code }
    }
}

/// Finds each product's kernels, of variants the fastest. Products of a shape that has none run portable.
fn assign(
    bundle: &Bundle,
    kernels: Vec<(KernelSpec, KernelFn)>,
    target: Target,
    tuner: &mut Tuner,
) -> Assigned {
    let products = &bundle.manifest.products;
    let mut shapes: BTreeMap<Shape, (Vec<Stream>, usize)> = BTreeMap::new();
    for product in products {
        let len = product.bytes().expect("validated") as usize;
        let stream = Stream::of(product, &bundle.weights[product.offset as usize..][..len]);
        let (streams, bytes) = shapes.entry(shape(product)).or_default();
        streams.push(stream);
        *bytes += len;
    }
    let mut fitting: BTreeMap<Shape, Vec<(KernelSpec, KernelFn)>> = BTreeMap::new();
    for kernel in kernels {
        fitting.entry((kernel.0.k, kernel.0.code)).or_default().push(kernel);
    }
    let (all, timed) = (shapes.values().map(|(_, bytes)| bytes).sum(), tuner.timed());
    // Those with the most weights first: they are timed while others are not.
    let mut order: Vec<_> = shapes.into_iter().collect();
    order.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let count = order.len();
    let mut bound = BTreeMap::new();
    for (shape, (weights, _)) in order {
        let fitting = fitting.remove(&shape).unwrap_or_default();
        let fits = |kind: KernelKind| fitting.iter().copied().filter(move |(s, _)| s.kind == kind);
        let rows: BTreeSet<u32> = fits(KernelKind::Stream).map(|(s, _)| s.m).collect();
        if rows.first() != Some(&1) {
            continue;
        }
        let stream = |m: u32| {
            let variants: Vec<_> = fits(KernelKind::Stream).filter(|(s, _)| s.m == m).collect();
            // Several rows are bound by computation more than by memory: what suits one row is not asked for.
            let chosen = if m == 1 { tuner.choose(target, &variants, &weights, all) } else { 0 };
            (m as usize, variants[chosen].1)
        };
        let streams: Vec<(usize, KernelFn)> = rows.into_iter().rev().map(stream).collect();
        bound.insert(shape, CodeKernels { streams, block: fits(KernelKind::Block).next() });
    }
    let kernels = |product| match bound.get(&shape(product)) {
        Some(kernels) => ProductKernels::Code(kernels.clone()),
        None => ProductKernels::Portable,
    };
    Assigned {
        products: products.iter().map(kernels).collect(),
        shapes: (bound.len(), count),
        timed: tuner.timed() - timed,
    }
}
