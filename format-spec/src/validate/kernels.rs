//! Checks the kernel directory: a kernel's code lies inside its section, and a packed matrix is given only kernels made
//! for it.

use super::{Ranges, ensure};
use crate::FormatError;
use crate::container::{Header, SectionKind};
use crate::kernel::{ABI_VERSION, GROUP_COLUMNS, KernelEntry, KernelKind, MAX_K, MAX_M, MAX_UNROLL};
use crate::manifest::Manifest;
use crate::target::Target;
use std::collections::BTreeSet;

/// Farthest prefetch in bytes. Some 12 KB are useful; the offset stands in the code as a 32-bit displacement.
const MAX_PREFETCH: u32 = 1 << 20;

pub(super) fn validate(manifest: &Manifest, header: &Header) -> Result<(), FormatError> {
    let mut seen = BTreeSet::new();
    for kernel in &manifest.kernels {
        let (record, spec) = (name(kernel), kernel.spec);
        ensure((1..=MAX_K).contains(&spec.k), &record, || format!("k is {}, not in 1..={MAX_K}", spec.k))?;
        ensure((1..=MAX_M).contains(&spec.m), &record, || format!("m is {}, not in 1..={MAX_M}", spec.m))?;
        ensure(
            spec.kind == KernelKind::Stream || spec.m > 1,
            &record,
            || "has m 1, but one row is for stream kernels; compile the model again",
        )?;
        ensure(spec.kind != KernelKind::Grouped || GROUP_COLUMNS.contains(&spec.k), &record, || {
            format!("k is {}, not one of {GROUP_COLUMNS:?}, the columns of a group", spec.k)
        })?;
        ensure((1..=MAX_UNROLL).contains(&spec.unroll), &record, || {
            format!("unroll is {}, not in 1..={MAX_UNROLL}", spec.unroll)
        })?;
        ensure(spec.prefetch <= MAX_PREFETCH, &record, || {
            format!("prefetch is {}, more than {MAX_PREFETCH}", spec.prefetch)
        })?;
        ensure(kernel.abi == ABI_VERSION, &record, || {
            format!(
                "has calling convention {}, this program's is {ABI_VERSION}; compile the model again",
                kernel.abi
            )
        })?;
        ensure(seen.insert((kernel.target, spec)), &record, || "is there twice")?;
        ensure(kernel.len > 0, &record, || "has no code")?;
    }
    for target in Target::ALL {
        code_section(manifest, header, target)?;
    }
    Ok(())
}

fn name(kernel: &KernelEntry) -> String {
    format!("kernel {} for {}", kernel.spec, kernel.target)
}

/// The kernels of one target: apart from each other, and enough for every packed matrix, so that a runtime that chose
/// the target needs no other.
fn code_section(manifest: &Manifest, header: &Header, target: Target) -> Result<(), FormatError> {
    let kernels: Vec<&KernelEntry> = manifest.kernels.iter().filter(|k| k.target == target).collect();
    let Some(first) = kernels.first() else { return Ok(()) };
    let kind = SectionKind::Code(target);
    let section = header.section(kind);
    ensure(section.is_some(), name(first), || format!("the bundle has no section with {kind}"))?;
    let mut ranges = Ranges::new(kind, section.map_or(0, |s| s.len), name);
    for kernel in &kernels {
        ranges.take(kernel, kernel.offset, Some(kernel.len))?;
    }
    ranges.disjoint()?;
    let single = kernels.iter().filter(|k| k.spec.kind == KernelKind::Stream && k.spec.m == 1);
    let single: BTreeSet<_> = single.map(|k| (k.spec.k, k.spec.code)).collect();
    for matrix in &manifest.packed_matrices {
        let k = matrix.kernel_k();
        ensure(single.contains(&(k, matrix.code)), format!("product {}", matrix.name), || {
            format!("has no stream kernel for {target} with k {k}, m 1 and code {}", matrix.code.name())
        })?;
    }
    Ok(())
}
