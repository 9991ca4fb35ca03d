//! Which kernels run: embedded, regenerated or portable, and of which tier.

use crate::RuntimeError;
use crate::mapping::{EmbeddedCode, KernelFn};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use trit_format::kernel::{KernelEntry, KernelSpec};
use trit_format::manifest::Manifest;
use trit_format::target::{Arch, Target};

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
    /// Why it is not what the user would expect first, if it is not.
    pub note: Option<String>,
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

/// The tiers of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuTiers(Vec<Target>);

impl CpuTiers {
    /// Asks the CPU.
    pub fn detect() -> CpuTiers {
        let host = if cfg!(target_arch = "x86_64") {
            Some(Arch::X86_64)
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            Some(Arch::Aarch64)
        } else {
            None
        };
        let runs = |t: &Target| Some(t.arch()) == host && t.features().iter().all(|f| has_feature(f));
        CpuTiers(Target::ALL.into_iter().filter(runs).collect())
    }

    /// Whether this CPU runs code of that tier.
    pub fn contains(&self, target: Target) -> bool {
        self.0.contains(&target)
    }

    /// The tiers, least capable first.
    pub fn iter(&self) -> impl Iterator<Item = Target> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(target_arch = "x86_64")]
fn has_feature(name: &str) -> bool {
    use std::arch::is_x86_feature_detected as has;
    match name {
        "sse3" => has!("sse3"),
        "ssse3" => has!("ssse3"),
        "sse4.1" => has!("sse4.1"),
        "sse4.2" => has!("sse4.2"),
        "avx" => has!("avx"),
        "avx2" => has!("avx2"),
        "avxvnni" => has!("avxvnni"),
        "avx512f" => has!("avx512f"),
        "avx512bw" => has!("avx512bw"),
        "avx512vl" => has!("avx512vl"),
        "avx512vnni" => has!("avx512vnni"),
        "avx512vbmi" => has!("avx512vbmi"),
        // AMX also needs the system's permission; until that is asked for, its tier is not offered.
        _ => false,
    }
}

#[cfg(target_arch = "aarch64")]
fn has_feature(name: &str) -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    match name {
        "neon" => has!("neon"),
        "dotprod" => has!("dotprod"),
        _ => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_feature(_: &str) -> bool {
    false
}

/// The kernels of one product.
#[derive(Clone)]
pub(crate) enum ProductKernels {
    /// Safe Rust.
    Portable,
    /// Machine code, for one row and, where there is one, for a block of rows.
    Code {
        /// For one activation row.
        single: KernelFn,
        /// For `.0` activation rows at once.
        block: Option<(usize, KernelFn)>,
    },
}

/// Every product's kernels, and the memory their code stands in.
pub(crate) struct Kernels {
    /// By product.
    pub products: Vec<ProductKernels>,
    /// What was chosen.
    pub report: KernelReport,
    /// Keeps the code alive while `products` points into it.
    _code: Code,
}

enum Code {
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
    pub trusted: bool,
}

/// Chooses and prepares kernels. `section` gives the bytes of a target's code section.
pub(crate) fn bind<'a>(
    path: &Path,
    manifest: &Manifest,
    section: impl Fn(Target) -> Option<&'a [u8]>,
    options: &BindOptions,
) -> Result<Kernels, RuntimeError> {
    let tiers = CpuTiers::detect();
    if let Some(cpu) = options.cpu.filter(|&cpu| !tiers.contains(cpu)) {
        return Err(RuntimeError::Unsupported(format!(
            "this CPU lacks {cpu}; it has {}",
            names(tiers.iter())
        )));
    }
    let wanted = |t: &Target| options.cpu.is_none_or(|cpu| cpu == *t);
    let best =
        |targets: &mut dyn Iterator<Item = Target>| targets.filter(|t| tiers.contains(*t) && wanted(t)).max();
    let embedded = best(&mut manifest.kernels.iter().map(|k| k.target));
    let generated = best(&mut generable());

    match options.choice {
        KernelChoice::Portable => Ok(portable(manifest, None)),
        KernelChoice::Embedded if !options.trusted => Err(RuntimeError::Untrusted { path: path.to_owned() }),
        KernelChoice::Embedded => match embedded {
            Some(target) => bind_embedded(path, manifest, section, target),
            None => {
                let there: std::collections::BTreeSet<Target> =
                    manifest.kernels.iter().map(|k| k.target).collect();
                Err(RuntimeError::Unsupported(format!(
                    "the bundle has kernels for {}, this CPU runs {}; compile with --target, or pass --kernels auto",
                    names(there.into_iter()),
                    names(tiers.iter().filter(wanted)),
                )))
            }
        },
        KernelChoice::Jit => match generated {
            Some(target) => bind_jit(manifest, target, None),
            None if cfg!(feature = "jit") => Err(RuntimeError::Unsupported(match options.cpu {
                Some(cpu) => {
                    format!("no code can be generated for {cpu} yet; it can for {}", names(generable()))
                }
                None => {
                    "this CPU has none of the tiers that code is generated for; use --kernels portable".into()
                }
            })),
            None => Err(RuntimeError::Unsupported("this trit-run was built without feature jit".into())),
        },
        KernelChoice::Auto => {
            let untrusted = "the bundle's own code is not trusted and was not run; --trust runs it";
            match (embedded, generated) {
                (Some(e), g) if options.trusted && g.is_none_or(|g| g <= e) => {
                    bind_embedded(path, manifest, section, e)
                }
                (e, Some(g)) => {
                    let note = match e {
                        Some(_) if !options.trusted => Some(untrusted.to_owned()),
                        Some(_) => None,
                        None if manifest.kernels.is_empty() => None,
                        None => Some("the bundle has no kernels for this CPU".to_owned()),
                    };
                    bind_jit(manifest, g, note)
                }
                (_, None) if options.cpu.is_some() => Err(RuntimeError::Unsupported(format!(
                    "there are no kernels for {}: the bundle has none that may run, and none can be generated here",
                    options.cpu.map_or(String::new(), |t| t.to_string()),
                ))),
                (Some(_), None) => Ok(portable(manifest, Some(untrusted.to_owned()))),
                (None, None) => Ok(portable(manifest, Some("slow: no kernels for this CPU".to_owned()))),
            }
        }
    }
}

fn names(targets: impl Iterator<Item = Target>) -> String {
    let names: Vec<&str> = targets.map(Target::name).collect();
    if names.is_empty() { "no known tier".into() } else { names.join(", ") }
}

#[cfg(feature = "jit")]
fn generable() -> impl Iterator<Item = Target> {
    trit_codegen::supported().iter().copied()
}

#[cfg(not(feature = "jit"))]
fn generable() -> impl Iterator<Item = Target> {
    std::iter::empty()
}

fn portable(manifest: &Manifest, note: Option<String>) -> Kernels {
    Kernels {
        products: vec![ProductKernels::Portable; manifest.products.len()],
        report: KernelReport { source: KernelSource::Portable, target: None, note },
        _code: Code::None,
    }
}

fn bind_embedded<'a>(
    path: &Path,
    manifest: &Manifest,
    section: impl Fn(Target) -> Option<&'a [u8]>,
    target: Target,
) -> Result<Kernels, RuntimeError> {
    let entries: Vec<&KernelEntry> = manifest.kernels.iter().filter(|k| k.target == target).collect();
    let bytes = section(target).unwrap_or_default();
    let code = EmbeddedCode::new(path, bytes, &entries)?;
    let specs: Vec<KernelSpec> = entries.iter().map(|k| k.spec).collect();
    let products = assign(manifest, &specs, |i| code.kernel(i))?;
    let report = KernelReport { source: KernelSource::Embedded, target: Some(target), note: None };
    Ok(Kernels { products, report, _code: Code::Embedded { _code: code } })
}

#[cfg(feature = "jit")]
fn bind_jit(manifest: &Manifest, target: Target, note: Option<String>) -> Result<Kernels, RuntimeError> {
    let shapes: std::collections::BTreeSet<(u32, trit_format::dense243::Code)> =
        manifest.products.iter().map(|p| (p.k, p.code)).collect();
    let specs: Vec<KernelSpec> =
        shapes.into_iter().flat_map(|(k, code)| trit_codegen::default_specs(k, code, target)).collect();
    let pairs: Vec<(KernelSpec, Target)> = specs.iter().map(|&s| (s, target)).collect();
    let code = trit_codegen::JitCode::new(&pairs).map_err(|e| {
        RuntimeError::Unsupported(format!("kernels cannot be generated here: {e}; try --kernels portable"))
    })?;
    let products = assign(manifest, &specs, |i| code.kernel(i))?;
    let report = KernelReport { source: KernelSource::Jit, target: Some(target), note };
    Ok(Kernels { products, report, _code: Code::Jit { _code: Box::new(code) } })
}

#[cfg(not(feature = "jit"))]
fn bind_jit(_: &Manifest, _: Target, _: Option<String>) -> Result<Kernels, RuntimeError> {
    Err(RuntimeError::Unsupported("this trit-run was built without feature jit".into()))
}

/// Finds each product's kernels among `specs`.
fn assign(
    manifest: &Manifest,
    specs: &[KernelSpec],
    kernel: impl Fn(usize) -> KernelFn,
) -> Result<Vec<ProductKernels>, RuntimeError> {
    let find = |product: &trit_format::manifest::Product| {
        let fits = |s: &&(usize, &KernelSpec)| s.1.k == product.k && s.1.code == product.code;
        let specs: Vec<(usize, &KernelSpec)> = specs.iter().enumerate().collect();
        let single = specs.iter().filter(fits).find(|s| s.1.m == 1)?;
        let block = specs.iter().filter(fits).filter(|s| s.1.m > 1).max_by_key(|s| s.1.m);
        let block = block.map(|s| (s.1.m as usize, kernel(s.0)));
        Some(ProductKernels::Code { single: kernel(single.0), block })
    };
    manifest
        .products
        .iter()
        .map(|p| {
            find(p).ok_or_else(|| {
                RuntimeError::Unsupported(format!("no kernel for product {} (k = {})", p.name, p.k))
            })
        })
        .collect()
}
