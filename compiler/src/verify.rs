//! Is a bundle whole, and is its code what this compiler generates?

use crate::bundle::Bundle;
use crate::error::CompileError;
use crate::kernels;
use trit_format::container::SectionKind;
use trit_format::kernel::{KernelEntry, KernelSpec};
use trit_format::target::Target;

/// What was checked, all of it in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Sections whose digest matched.
    pub sections: usize,
    /// Kernels whose digest matched.
    pub kernels: usize,
    /// Whether the code sections are byte for byte what this compiler generates.
    pub rebuilt: bool,
}

/// Checks the digest of every section and kernel of a bundle, whose records [`Bundle::open`] has validated. With
/// `rebuild`, also generates every code section again and compares it byte for byte.
///
/// # Errors
/// [`CompileError::Invalid`] with the first thing that does not match.
pub fn verify(bundle: &Bundle, rebuild: bool) -> Result<Verified, CompileError> {
    for section in &bundle.header().sections {
        bundle.header().verify(bundle.bytes(), section.kind).map_err(|e| bundle.invalid(e))?;
    }
    let entries = &bundle.manifest().kernels;
    for entry in entries {
        bundle.kernel(entry)?;
    }
    if rebuild {
        for section in &bundle.header().sections {
            if let SectionKind::Code(target) = section.kind {
                rebuild_section(bundle, target)?;
            }
        }
    }
    Ok(Verified { sections: bundle.header().sections.len(), kernels: entries.len(), rebuilt: rebuild })
}

/// Whole sections are compared, so that nothing hides between kernels.
fn rebuild_section(bundle: &Bundle, target: Target) -> Result<(), CompileError> {
    let entries: Vec<&KernelEntry> =
        bundle.manifest().kernels.iter().filter(|k| k.target == target).collect();
    let specs: Vec<KernelSpec> = entries.iter().map(|k| k.spec).collect();
    let rebuilt = kernels::assemble(&specs, target)?;
    let version = concat!("tritc ", env!("CARGO_PKG_VERSION"));
    let other = match bundle.manifest().compiler.as_str() {
        compiler if compiler == version => String::new(),
        compiler => format!(" (it says it was made by {compiler}, this is {version})"),
    };
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
