//! Which kernels run: embedded, regenerated or portable, and of which tier.

use crate::RuntimeError;
use crate::mapping::EmbeddedCode;
use crate::recode::COMMON;
use crate::storage::Storage;
use crate::tuning::Tuner;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use trit_format::container::{Digest, Header, SectionKind};
use trit_format::kernel::KernelEntry;
use trit_format::manifest::{Manifest, Product};
use trit_format::target::Target;
use trit_gemm::tuning::Stream;
use trit_gemm::{CpuTiers, GemmError, KernelShape, Layout, MachineCode, generated_targets};

/// Most shapes of products that code is generated for. Models have two to ten; each costs some milliseconds at every load.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelReport {
    /// Where the kernels came from.
    pub source: KernelSource,
    /// Their tier; `None` for portable ones.
    pub target: Option<Target>,
    /// The digest of the bundle's code as it was copied and made executable; `None` where none was.
    pub code: Option<Digest>,
    /// Why it is not what the user would expect first, if it is not.
    pub note: Option<String>,
    /// Shapes of products that have machine code of their own.
    pub shapes: usize,
    /// Shapes that were timed in this load, because nothing was remembered of them.
    pub timed: usize,
}

impl fmt::Display for KernelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            KernelSource::Embedded => f.write_str("embedded")?,
            KernelSource::Jit => f.write_str("jit")?,
            KernelSource::Portable => f.write_str("portable")?,
        }
        if let Some(target) = self.target {
            write!(f, " {target}")?;
        }
        self.note.as_ref().map_or(Ok(()), |note| write!(f, " ({note})"))
    }
}

/// Every product's kernels, which keep the memory that their code stands in.
pub(crate) struct Kernels {
    /// By product.
    pub products: Vec<trit_gemm::Kernels>,
    /// What was chosen.
    pub report: KernelReport,
}

/// What [`bind`] needs to know besides the bundle.
pub(crate) struct BindOptions {
    pub choice: KernelChoice,
    pub cpu: Option<Target>,
    /// Whether the bundle's code may run, or why not.
    pub trust: Result<(), String>,
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
        return Err(RuntimeError::Unsupported(format!(
            "this CPU lacks {cpu}; it has {}",
            names(tiers.iter())
        )));
    }
    let wanted = |t: &Target| options.cpu.is_none_or(|cpu| cpu == *t);
    let Best { mut embedded, generated } = Best::of(manifest, options.cpu, &tiers);
    if stored == Stored::Anew {
        embedded = None;
    }

    match options.choice {
        KernelChoice::Portable => Ok(portable(manifest, None)),
        KernelChoice::Embedded => match (embedded, &options.trust) {
            (_, Err(why)) => {
                Err(RuntimeError::Untrusted { path: bundle.storage.path().to_owned(), why: why.clone() })
            }
            (Some(target), Ok(())) => bind_embedded(bundle, target, tuner),
            (None, Ok(())) => {
                let there: BTreeSet<Target> = manifest.kernels.iter().map(|k| k.target).collect();
                Err(RuntimeError::Unsupported(format!(
                    "the bundle has kernels for {}, this CPU runs {}; compile with --target, or pass --kernels auto",
                    names(there.into_iter()),
                    names(tiers.iter().filter(wanted)),
                )))
            }
        },
        KernelChoice::Jit => match generated {
            Some(target) => {
                let note = (stored == Stored::Anew).then(|| STORED_ANEW.to_owned());
                bind_jit(bundle, target, note, tuner)
            }
            None if cfg!(feature = "jit") => Err(RuntimeError::Unsupported(match options.cpu {
                Some(cpu) => {
                    format!(
                        "no code can be generated for {cpu} and this bundle's weights; it can for {}{}",
                        names(generable(manifest)),
                        other_code(bundle)
                    )
                }
                None => {
                    "this CPU has none of the tiers that code is generated for; use --kernels portable".into()
                }
            })),
            None => Err(RuntimeError::Unsupported("this trit-run was built without feature jit".into())),
        },
        KernelChoice::Auto => {
            let untrusted = |why: &str| {
                format!("the bundle's own code is not trusted and was not run: {why}; --trust runs it")
            };
            match (embedded, generated) {
                (Some(e), g) if options.trust.is_ok() && g.is_none_or(|g| g <= e) => {
                    bind_embedded(bundle, e, tuner)
                }
                (e, Some(g)) => {
                    let note = match (e, &options.trust) {
                        _ if stored == Stored::Anew => Some(STORED_ANEW.to_owned()),
                        (Some(_), Err(why)) => Some(untrusted(why)),
                        (Some(_), Ok(())) => None,
                        _ if manifest.kernels.is_empty() => None,
                        _ => Some("the bundle has no kernels for this CPU".to_owned()),
                    };
                    bind_jit(bundle, g, note, tuner)
                }
                (_, None) if options.cpu.is_some() => Err(RuntimeError::Unsupported(format!(
                    "there are no kernels for {}: the bundle has none that may run, and none can be generated here{}",
                    options.cpu.map_or(String::new(), |t| t.to_string()),
                    other_code(bundle),
                ))),
                (Some(_), None) => {
                    let why = options.trust.as_ref().err().map_or("", String::as_str);
                    Ok(portable(manifest, Some(untrusted(why))))
                }
                (None, None) => Ok(portable(
                    manifest,
                    Some(format!("slow: no kernels for this CPU{}", other_code(bundle))),
                )),
            }
        }
    }
}

/// What was done for a CPU that does not read the bundle's weights as they are.
const STORED_ANEW: &str =
    "the bundle's weights are stored for AVX-512 VBMI and were stored anew in memory for this CPU";

/// Why a CPU may have no kernels for a bundle, and what to do about it.
fn other_code(bundle: &Bundle) -> &'static str {
    match bundle.stored {
        Stored::InFile => {
            "; its weights are stored as only AVX-512 VBMI reads them, and stay in the file, because of --mmap or for want of \
             memory, so that they cannot be stored anew: run it without --mmap, or compile the model with --target all"
        }
        _ if bundle.manifest.products.iter().any(|p| p.code != COMMON) => {
            "; its weights are stored as only AVX-512 VBMI reads them: compile the model with --target all"
        }
        _ => "",
    }
}

fn names(targets: impl Iterator<Item = Target>) -> String {
    let names: Vec<&str> = targets.map(Target::name).collect();
    if names.is_empty() { "no known tier".into() } else { names.join(", ") }
}

/// Tiers for which kernels of this bundle can be generated: not every one reads every code.
fn generable(manifest: &Manifest) -> impl Iterator<Item = Target> {
    let targets: Vec<Target> = generated_targets(&generated_shapes(manifest)).collect();
    targets.into_iter()
}

/// The shapes of products that code is generated for: where there are more than [`MOST_SHAPES`], those with the most weights.
fn generated_shapes(manifest: &Manifest) -> Vec<KernelShape> {
    let mut bytes: BTreeMap<KernelShape, u64> = BTreeMap::new();
    for product in &manifest.products {
        *bytes.entry(shape(product)).or_default() += product.bytes().expect("validated");
    }
    let mut shapes: Vec<(KernelShape, u64)> = bytes.into_iter().collect();
    shapes.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
    shapes.into_iter().take(MOST_SHAPES).map(|(shape, _)| shape).collect()
}

fn shape(product: &Product) -> KernelShape {
    KernelShape { k: product.kernel_k(), code: product.code }
}

fn portable(manifest: &Manifest, note: Option<String>) -> Kernels {
    Kernels {
        products: vec![trit_gemm::Kernels::portable(); manifest.products.len()],
        report: KernelReport {
            source: KernelSource::Portable,
            target: None,
            code: None,
            note,
            shapes: 0,
            timed: 0,
        },
    }
}

fn bind_embedded(bundle: &Bundle, target: Target, tuner: &mut Tuner) -> Result<Kernels, RuntimeError> {
    let entries: Vec<&KernelEntry> = bundle.manifest.kernels.iter().filter(|k| k.target == target).collect();
    let kind = SectionKind::Code(target);
    let missing = || bundle.storage.format(trit_format::FormatError::Missing(kind));
    let code = EmbeddedCode::new(bundle.storage, bundle.header.section(kind).ok_or_else(missing)?, &entries)?;
    let digest = code.digest();
    let assigned = assign(bundle, &code.machine_code(&entries, target), tuner);
    Ok(assigned.kernels(KernelSource::Embedded, target, None, Some(digest)))
}

fn bind_jit(
    bundle: &Bundle,
    target: Target,
    note: Option<String>,
    tuner: &mut Tuner,
) -> Result<Kernels, RuntimeError> {
    let code = MachineCode::generate(&generated_shapes(bundle.manifest), target).map_err(|e| match e {
        GemmError::NoJit => RuntimeError::Unsupported("this trit-run was built without feature jit".into()),
        other => RuntimeError::Unsupported(format!("{other}; try --kernels portable")),
    })?;
    Ok(assign(bundle, &code, tuner).kernels(KernelSource::Jit, target, note, None))
}

/// What [`assign`] found.
struct Assigned {
    /// By product.
    products: Vec<trit_gemm::Kernels>,
    /// Shapes with machine code, and all.
    shapes: (usize, usize),
    timed: usize,
}

impl Assigned {
    fn kernels(
        self,
        source: KernelSource,
        target: Target,
        note: Option<String>,
        code: Option<Digest>,
    ) -> Kernels {
        let (with_code, all) = self.shapes;
        let few = (with_code < all).then(|| {
            format!(
                "{with_code} of {all} shapes of products have generated code; the others run portable, slowly"
            )
        });
        let note = match (note, few) {
            (Some(note), Some(few)) => Some(format!("{note}; {few}")),
            (note, few) => note.or(few),
        };
        let report =
            KernelReport { source, target: Some(target), code, note, shapes: with_code, timed: self.timed };
        Kernels { products: self.products, report }
    }
}

/// Finds each product's kernels, of variants the fastest. Products of a shape that has none run portable.
fn assign(bundle: &Bundle, code: &MachineCode, tuner: &mut Tuner) -> Assigned {
    let products = &bundle.manifest.products;
    let mut shapes: BTreeMap<KernelShape, (Vec<Stream>, usize)> = BTreeMap::new();
    for product in products {
        let len = product.bytes().expect("validated") as usize;
        let layout = Layout::of(product).expect("validated");
        let stream = Stream::of(&layout, &bundle.weights[product.offset as usize..][..len]);
        let (streams, bytes) = shapes.entry(shape(product)).or_default();
        streams.push(stream.expect("whole tiles"));
        *bytes += len;
    }
    let (all, timed) = (shapes.values().map(|(_, bytes)| bytes).sum(), tuner.timed());
    // Those with the most weights first: they are timed while others are not.
    let mut order: Vec<_> = shapes.into_iter().collect();
    order.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let count = order.len();
    let mut bound = BTreeMap::new();
    for (shape, (weights, _)) in order {
        let kernels = code.kernels(shape, |variants| tuner.choose(variants, &weights, all));
        bound.extend(kernels.map(|kernels| (shape, kernels)));
    }
    let kernels = |product| bound.get(&shape(product)).cloned().unwrap_or_else(trit_gemm::Kernels::portable);
    Assigned {
        products: products.iter().map(kernels).collect(),
        shapes: (bound.len(), count),
        timed: tuner.timed() - timed,
    }
}
