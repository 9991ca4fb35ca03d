//! Why other kernels run than one would expect first, or why none can run. All of it is data; a command adds what its
//! user can do about it.

use crate::bundle::trust::NotTrusted;
use std::fmt;
use std::io;
use trit_format::target::Target;

/// Why other kernels run than the user would expect first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KernelNote {
    /// The bundle's weights are stored for AVX-512 VBMI. They were stored anew in memory, in the code that this CPU
    /// reads.
    StoredAnew,
    /// The bundle has code for this CPU, but no rule allows it to run.
    Untrusted(NotTrusted),
    /// The bundle has code, but none of it is for this CPU.
    OtherCpu {
        /// What it has code for.
        bundle: Vec<Target>,
        /// The best tier of this CPU.
        cpu: Option<Target>,
    },
    /// No machine code runs at all, which is slow.
    Slow(Option<CodeLimit>),
    /// Only some shapes of packed matrices have generated code; the others use portable kernels.
    FewShapes {
        /// Shapes with code.
        with_code: usize,
        /// All shapes.
        all: usize,
    },
}

impl fmt::Display for KernelNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelNote::StoredAnew => f.write_str(
                "the bundle's weights are stored for AVX-512 VBMI and were stored anew in memory for this CPU",
            ),
            KernelNote::Untrusted(why) => {
                write!(f, "the bundle's own code is not trusted and was not run: {why}")
            }
            KernelNote::OtherCpu { bundle, cpu } => {
                let bundle: Vec<&str> = bundle.iter().map(|target| target.name()).collect();
                write!(f, "the bundle has kernels for {} and none for this CPU", bundle.join(", "))?;
                cpu.map_or(Ok(()), |cpu| write!(f, ", which is {cpu}"))
            }
            KernelNote::Slow(limit) => write!(f, "slow: no kernels for this CPU{}", Because(*limit)),
            KernelNote::FewShapes { with_code, all } => write!(
                f,
                "{with_code} of {all} shapes of products have generated code; the others run portable, slowly"
            ),
        }
    }
}

/// Why most CPUs have no machine code for a bundle's weights: the weights are stored in the code that only AVX-512 VBMI
/// reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeLimit {
    /// Loading cannot change that.
    Stored,
    /// The weights stay in the file ([`crate::WeightMemory::Mapped`], or where memory is short), so that loading cannot
    /// store them anew.
    StoredInFile,
}

impl fmt::Display for CodeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CodeLimit::Stored => "its weights are stored as only AVX-512 VBMI reads them",
            CodeLimit::StoredInFile => {
                "its weights are stored as only AVX-512 VBMI reads them, and stay in the file, so that they cannot be \
                 stored anew"
            }
        })
    }
}

/// The end of a sentence that gives the reason, where it is known.
struct Because(Option<CodeLimit>);

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |limit| write!(f, "; {limit}"))
    }
}

/// Why the kernels that were asked for cannot run on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoKernels {
    /// The tier that was asked for is not one of this CPU's.
    #[error("this CPU lacks {wanted}; it has {}", names(has))]
    CpuLacks {
        /// What was asked for.
        wanted: Target,
        /// The tiers of this CPU.
        has: Vec<Target>,
    },
    /// The bundle's own kernels were asked for, and they are for other tiers.
    #[error("the bundle has kernels for {}, this CPU runs {}", names(bundle), names(cpu))]
    OtherCpu {
        /// The tiers of the bundle's kernels.
        bundle: Vec<Target>,
        /// The tiers of this CPU that were asked for.
        cpu: Vec<Target>,
    },
    /// Generated kernels were asked for, and none can be generated for the tier that was asked for.
    #[error(
        "no code can be generated for {wanted} and this bundle's weights; it can for {}{}",
        names(possible),
        Because(*limit)
    )]
    NotGenerated {
        /// The tier that was asked for.
        wanted: Target,
        /// The tiers for which code can be generated.
        possible: Vec<Target>,
        /// What limits them.
        limit: Option<CodeLimit>,
    },
    /// Generated kernels were asked for, and this CPU has no tier that code is generated for.
    #[error("this CPU has none of the tiers that code is generated for")]
    NoTier,
    /// Generated kernels were asked for, and this program cannot generate any.
    #[error("this program was built without feature jit")]
    WithoutJit,
    /// A tier was asked for, and neither the bundle nor this program has kernels for it.
    #[error(
        "there are no kernels for {wanted}: the bundle has none that may run, and none can be generated here{}",
        Because(*limit)
    )]
    NoneFor {
        /// The tier.
        wanted: Target,
        /// What limits them.
        limit: Option<CodeLimit>,
    },
    /// Generating kernels failed.
    #[error("kernels cannot be generated here: {problem}")]
    Generation {
        /// What the emitter said.
        problem: String,
    },
    /// The system gives no memory that code may run in.
    #[error("no executable memory for kernels: {0}")]
    Memory(io::Error),
    /// The instruction cache cannot be flushed, so that other cores might not see the code.
    #[error("cannot flush the instruction cache: {0}")]
    Flush(io::Error),
}

fn names(targets: &[Target]) -> String {
    let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
    if names.is_empty() { "no known tier".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_limits_kernels_ends_the_sentence_where_something_does() {
        assert_eq!(KernelNote::Slow(None).to_string(), "slow: no kernels for this CPU");
        let limited = NoKernels::NoneFor { wanted: Target::X86_64V3, limit: Some(CodeLimit::Stored) };
        let text = limited.to_string();
        assert!(text.contains("generated here; its weights are stored as only AVX-512 VBMI"), "{text}");
        let none = NoKernels::OtherCpu { bundle: vec![], cpu: vec![Target::X86_64V2, Target::X86_64V3] };
        assert_eq!(
            none.to_string(),
            "the bundle has kernels for no known tier, this CPU runs x86-64-v2, x86-64-v3"
        );
    }
}
