//! Binding: decides which kernels run (embedded in the bundle, generated here, or portable) and of which tier.

use super::embedded::EmbeddedCode;
use super::notes::{CodeLimit, KernelNote, NoKernels};
use super::tuning::Tuner;
use crate::RuntimeError;
use crate::bundle::recode::common;
use crate::bundle::storage::Storage;
use crate::bundle::trust::{NotTrusted, Trusted};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use trit_format::container::{Digest, Header, SectionKind};
use trit_format::kernel::KernelEntry;
use trit_format::manifest::{Manifest, PackedMatrix};
use trit_format::target::Target;
use trit_gemm::tuning::Stream;
use trit_gemm::{CpuTiers, GemmError, KernelShape, Layout, MachineCode, generated_targets};

/// Most shapes of packed matrices for which code is generated. Models have two to ten, and each costs some milliseconds
/// at every load.
const MOST_SHAPES: usize = 64;

/// Where kernels are to come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The bundle's own code where it is trusted and of the best tier, else code generated here, else portable kernels.
    #[default]
    Auto,
    /// The bundle's own code, which must be trusted.
    Embedded,
    /// Code generated on this machine.
    Jit,
    /// Safe Rust code, which reads the same layout.
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

/// Which kernels were bound.
#[derive(Clone, Debug)]
pub struct KernelReport {
    /// Where the kernels came from.
    pub source: KernelSource,
    /// Their tier; `None` for portable ones.
    pub target: Option<Target>,
    /// The digest of the bundle's code that was copied and made executable; `None` where none of it runs.
    pub code: Option<Digest>,
    /// Why other kernels run than the user would expect first; empty where the expected ones run.
    pub notes: Vec<KernelNote>,
    /// How many shapes of packed matrices have machine code.
    pub shapes: usize,
    /// How many shapes were timed in this load, because nothing was remembered of them.
    pub timed: usize,
}

impl KernelReport {
    /// Where the kernels came from, and their tier, without the notes.
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

/// The kernels of every packed matrix. They own the memory that their code stands in.
pub(crate) struct Kernels {
    /// One entry for each packed matrix.
    pub by_matrix: Vec<trit_gemm::Kernels>,
    /// What was chosen, for the user.
    pub report: KernelReport,
}

/// What [`bind`] needs to know besides the bundle.
pub(crate) struct BindOptions {
    pub choice: KernelChoice,
    pub cpu: Option<Target>,
    /// Which rule lets the bundle's code run, or why none does.
    pub trust: Result<Trusted, NotTrusted>,
}

/// Whether the weights in memory are stored as in the bundle.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Stored {
    /// As in the bundle.
    AsWritten,
    /// Stored anew in the code that every CPU reads. The bundle's own kernels cannot read them any more.
    Anew,
    /// As in the bundle, although this CPU would be faster with another code: they stay in the file, where they cannot
    /// be changed.
    InFile,
}

/// The parts of the bundle that binding looks at.
pub(crate) struct Bundle<'a> {
    pub storage: &'a Storage,
    pub header: &'a Header,
    /// Its packed matrices say how the weights are stored in memory.
    pub manifest: &'a Manifest,
    pub stored: Stored,
    /// The weight section.
    pub weights: &'a [u8],
}

/// The best tiers for which there are kernels, among those that this CPU has and the user allows.
struct BestTiers {
    embedded: Option<Target>,
    generated: Option<Target>,
}

impl BestTiers {
    fn of(manifest: &Manifest, cpu: Option<Target>, tiers: &CpuTiers) -> BestTiers {
        let runs = |t: &Target| tiers.contains(*t) && cpu.is_none_or(|cpu| cpu == *t);
        BestTiers {
            embedded: manifest.kernels.iter().map(|k| k.target).filter(runs).max(),
            generated: generable(manifest).filter(runs).max(),
        }
    }
}

/// Whether kernels of a better tier could run if the weights were stored in the code that every CPU reads.
pub(crate) fn wants_common_code(manifest: &Manifest, options: &BindOptions) -> bool {
    let generates = matches!(options.choice, KernelChoice::Auto | KernelChoice::Jit);
    if !generates || manifest.packed_matrices.iter().all(|p| p.code == common(p.code)) {
        return false;
    }
    let tiers = CpuTiers::detect();
    let mut best = BestTiers::of(manifest, options.cpu, &tiers);
    if options.choice == KernelChoice::Jit || options.trust.is_err() {
        best.embedded = None;
    }
    let mut other = manifest.clone();
    other.packed_matrices.iter_mut().for_each(|p| p.code = common(p.code));
    BestTiers::of(&other, options.cpu, &tiers).generated > best.embedded.max(best.generated)
}

/// Chooses kernels for every packed matrix, and makes their code executable.
///
/// # Errors
/// [`RuntimeError::Kernels`] and [`RuntimeError::Untrusted`] where the kernels asked for cannot run.
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
    let BestTiers { mut embedded, generated } = BestTiers::of(manifest, options.cpu, &tiers);
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
                let cpu = tiers.iter().filter(wanted).collect();
                Err(refused(bundle, NoKernels::OtherCpu { bundle: targets(manifest), cpu }))
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
                    _ => Some(other_cpu(manifest, &tiers)),
                };
                bind_jit(bundle, g, Vec::from_iter(note), tuner)
            }
            (e, None, trust) => match (options.cpu, e, trust) {
                (Some(wanted), ..) => {
                    Err(refused(bundle, NoKernels::NoneFor { wanted, limit: code_limit(bundle) }))
                }
                (None, Some(_), Err(why)) => Ok(portable(manifest, vec![KernelNote::Untrusted(why.clone())])),
                (None, None, _) if !manifest.kernels.is_empty() => {
                    let notes = vec![other_cpu(manifest, &tiers), KernelNote::Slow(code_limit(bundle))];
                    Ok(portable(manifest, notes))
                }
                (None, ..) => Ok(portable(manifest, vec![KernelNote::Slow(code_limit(bundle))])),
            },
        },
    }
}

/// What a bundle has code for.
fn targets(manifest: &Manifest) -> Vec<Target> {
    let there: BTreeSet<Target> = manifest.kernels.iter().map(|k| k.target).collect();
    there.into_iter().collect()
}

fn other_cpu(manifest: &Manifest, tiers: &CpuTiers) -> KernelNote {
    KernelNote::OtherCpu { bundle: targets(manifest), cpu: tiers.iter().max() }
}

fn refused(bundle: &Bundle, problem: NoKernels) -> RuntimeError {
    RuntimeError::Kernels { path: bundle.storage.path().to_owned(), problem }
}

/// What about the bundle's weights can be the reason that a CPU has no kernels for them.
fn code_limit(bundle: &Bundle) -> Option<CodeLimit> {
    match bundle.stored {
        Stored::InFile => Some(CodeLimit::StoredInFile),
        _ if bundle.manifest.packed_matrices.iter().any(|p| p.code != common(p.code)) => {
            Some(CodeLimit::Stored)
        }
        _ => None,
    }
}

/// The tiers for which kernels can be generated. It depends on the bundle, because not every tier reads every code.
fn generable(manifest: &Manifest) -> impl Iterator<Item = Target> {
    let targets: Vec<Target> = generated_targets(&generated_shapes(manifest)).collect();
    targets.into_iter()
}

/// The shapes of packed matrices for which code is generated. Where there are more than [`MOST_SHAPES`], these are the
/// ones with the most weights.
fn generated_shapes(manifest: &Manifest) -> Vec<KernelShape> {
    let mut bytes: BTreeMap<KernelShape, u64> = BTreeMap::new();
    for matrix in &manifest.packed_matrices {
        *bytes.entry(shape(matrix)).or_default() += matrix.bytes().expect("validated");
    }
    let mut shapes: Vec<(KernelShape, u64)> = bytes.into_iter().collect();
    shapes.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
    shapes.into_iter().take(MOST_SHAPES).map(|(shape, _)| shape).collect()
}

fn shape(matrix: &PackedMatrix) -> KernelShape {
    KernelShape { k: matrix.kernel_k(), code: matrix.code }
}

fn portable(manifest: &Manifest, notes: Vec<KernelNote>) -> Kernels {
    Kernels {
        by_matrix: vec![trit_gemm::Kernels::portable(); manifest.packed_matrices.len()],
        report: KernelReport {
            source: KernelSource::Portable,
            target: None,
            code: None,
            notes,
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
    Ok(assigned.kernels(KernelSource::Embedded, target, Vec::new(), Some(digest)))
}

fn bind_jit(
    bundle: &Bundle,
    target: Target,
    notes: Vec<KernelNote>,
    tuner: &mut Tuner,
) -> Result<Kernels, RuntimeError> {
    let code = MachineCode::generate(&generated_shapes(bundle.manifest), target).map_err(|e| match e {
        GemmError::NoJit => refused(bundle, NoKernels::WithoutJit),
        other => refused(bundle, NoKernels::Generation { problem: other.to_string() }),
    })?;
    Ok(assign(bundle, &code, tuner).kernels(KernelSource::Jit, target, notes, None))
}

/// What [`assign`] found.
struct Assigned {
    /// One entry for each packed matrix.
    by_matrix: Vec<trit_gemm::Kernels>,
    /// How many shapes have machine code, and how many shapes there are.
    shapes: (usize, usize),
    timed: usize,
}

impl Assigned {
    fn kernels(
        self,
        source: KernelSource,
        target: Target,
        mut notes: Vec<KernelNote>,
        code: Option<Digest>,
    ) -> Kernels {
        let (with_code, all) = self.shapes;
        if with_code < all {
            notes.push(KernelNote::FewShapes { with_code, all });
        }
        let report =
            KernelReport { source, target: Some(target), code, notes, shapes: with_code, timed: self.timed };
        Kernels { by_matrix: self.by_matrix, report }
    }
}

/// Finds the kernels of each packed matrix, with the fastest variant of each. Matrices whose shape has no code get
/// portable kernels.
fn assign(bundle: &Bundle, code: &MachineCode, tuner: &mut Tuner) -> Assigned {
    let packed_matrices = &bundle.manifest.packed_matrices;
    let mut shapes: BTreeMap<KernelShape, (Vec<Stream>, usize)> = BTreeMap::new();
    for matrix in packed_matrices {
        let len = matrix.bytes().expect("validated") as usize;
        let layout = Layout::of(matrix).expect("validated");
        let stream = Stream::of(&layout, &bundle.weights[matrix.offset as usize..][..len]);
        let (streams, bytes) = shapes.entry(shape(matrix)).or_default();
        streams.push(stream.expect("whole tiles"));
        *bytes += len;
    }
    let (all, timed) = (shapes.values().map(|(_, bytes)| bytes).sum(), tuner.timed());
    // Shapes with the most weights come first, because the time for tuning may not suffice for all.
    let mut order: Vec<_> = shapes.into_iter().collect();
    order.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let count = order.len();
    let mut bound = BTreeMap::new();
    for (shape, (weights, _)) in order {
        let kernels = code.kernels(shape, |variants| tuner.choose(variants, &weights, all));
        bound.extend(kernels.map(|kernels| (shape, kernels)));
    }
    let kernels = |matrix| bound.get(&shape(matrix)).cloned().unwrap_or_else(trit_gemm::Kernels::portable);
    Assigned {
        by_matrix: packed_matrices.iter().map(kernels).collect(),
        shapes: (bound.len(), count),
        timed: tuner.timed() - timed,
    }
}
