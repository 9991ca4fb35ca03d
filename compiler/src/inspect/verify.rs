//! Checks that a bundle is whole, and that its code is what this compiler generates.

use crate::bundle::Bundle;
use crate::compile::kernels;
use crate::error::CompileError;
use crate::model::float::widen_row;
use crate::pack::planes;
use trit_format::container::SectionKind;
use trit_format::kernel::{KernelEntry, KernelSpec};
use trit_format::planes::Layout;
use trit_format::target::Target;

/// What was checked, all of it in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Sections whose digest matched.
    pub sections: usize,
    /// Kernels whose digest matched.
    pub kernels: usize,
    /// Whether the code sections and planes are byte for byte what this compiler generates.
    pub rebuilt: bool,
}

/// Checks the digest of every section and kernel of a bundle, whose records [`Bundle::open`] has validated. With
/// `rebuild`, also generates every code section and all planes again and compares them byte for byte.
///
/// # Errors
/// [`CompileError::Invalid`] with the first thing that does not match.
pub fn verify(bundle: &Bundle, rebuild: bool) -> Result<Verified, CompileError> {
    bundle.expect_whole()?;
    let entries = &bundle.manifest().kernels;
    if rebuild {
        for section in &bundle.header().sections {
            if let SectionKind::Code(target) = section.kind {
                rebuild_section(bundle, target)?;
            }
        }
        rebuild_planes(bundle)?;
    }
    Ok(Verified { sections: bundle.header().sections.len(), kernels: entries.len(), rebuilt: rebuild })
}

/// A remark for bundles that another version made, because that explains differences.
fn other_compiler(bundle: &Bundle) -> String {
    let version = concat!("tritc ", env!("CARGO_PKG_VERSION"));
    match bundle.manifest().compiler.as_str() {
        compiler if compiler == version => String::new(),
        compiler => format!(" (it says it was made by {compiler}, this is {version})"),
    }
}

/// Makes the planes again from their tables and compares them. Their bounds decide which logits are computed, so
/// planes of another table would give wrong tokens.
fn rebuild_planes(bundle: &Bundle) -> Result<(), CompileError> {
    let manifest = bundle.manifest();
    for record in &manifest.planes {
        // The manifest was validated: the table is a matrix, and both lie inside their sections.
        let tensor = &manifest.tensors[record.table.0 as usize];
        let layout = Layout::new(tensor.shape[0], tensor.shape[1]);
        let bytes = tensor.bytes().unwrap_or_default() as usize;
        let table = &bundle.section(SectionKind::Tensors)[tensor.offset as usize..][..bytes];
        let mut rest = &bundle.section(SectionKind::Planes)[record.offset as usize..];
        let Some(layout) = layout else { continue };
        planes::encode(
            |row, out| widen_row(tensor.dtype, table, row, out),
            layout,
            |rebuilt| match rest.split_at_checked(rebuilt.len()) {
                Some((found, after)) if found == rebuilt => {
                    rest = after;
                    Ok(())
                }
                _ => Err(bundle.invalid(format!(
                    "the planes of {} are not those of its values{}",
                    tensor.name,
                    other_compiler(bundle)
                ))),
            },
        )?;
    }
    Ok(())
}

/// Compares whole sections, so that nothing hides between kernels.
fn rebuild_section(bundle: &Bundle, target: Target) -> Result<(), CompileError> {
    let entries: Vec<&KernelEntry> =
        bundle.manifest().kernels.iter().filter(|k| k.target == target).collect();
    let specs: Vec<KernelSpec> = entries.iter().map(|k| k.spec).collect();
    let rebuilt = kernels::assemble(&specs, target)?;
    let other = other_compiler(bundle);
    for (found, expected) in entries.iter().zip(&rebuilt.entries) {
        if found.digest != expected.digest || found.len != expected.len {
            return Err(bundle.invalid(format!(
                "kernel {} for {target} is not the code that is generated for it{other}",
                found.spec
            )));
        }
    }
    if bundle.section(SectionKind::Code(target)) != rebuilt.bytes {
        return Err(bundle.invalid(format!(
            "the kernels for {target} are those that are generated, but their section holds more, or in another \
             order{other}"
        )));
    }
    Ok(())
}
