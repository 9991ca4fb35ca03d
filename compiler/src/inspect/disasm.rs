//! The kernels of a bundle as text, from the bytes in the bundle.

use crate::bundle::Bundle;
use crate::error::CompileError;
use std::fmt::Write;
use trit_format::kernel::KernelEntry;
use trit_format::target::Target;

/// The instructions of every kernel for `target` whose name contains `kernel`. Where either is `None`, it excludes no
/// kernel. Each kernel begins with a line that names it.
///
/// # Errors
/// [`CompileError::NoSuchKernel`] where there is no such kernel, with the names of those there are, and
/// [`CompileError::Invalid`] for code that does not match its digest.
pub fn disasm(bundle: &Bundle, target: Option<Target>, kernel: Option<&str>) -> Result<String, CompileError> {
    let wanted = |k: &&KernelEntry| {
        target.is_none_or(|t| t == k.target) && kernel.is_none_or(|name| k.spec.to_string().contains(name))
    };
    let mut text = String::new();
    for entry in bundle.manifest().kernels.iter().filter(wanted) {
        let code = bundle.kernel(entry)?;
        if !text.is_empty() {
            text.push('\n');
        }
        let head = format!("; {} for {}, {} bytes", entry.spec, entry.target, entry.len);
        writeln!(text, "{head}, blake3 {}", entry.digest).expect("writing to a string succeeds");
        text.push_str(&trit_codegen::disassemble_bytes(code, entry.target));
    }
    if text.is_empty() {
        return Err(no_such_kernel(bundle));
    }
    Ok(text)
}

fn no_such_kernel(bundle: &Bundle) -> CompileError {
    let name = |k: &KernelEntry| format!("{} for {}", k.spec, k.target);
    let names = bundle.manifest().kernels.iter().map(name).collect();
    CompileError::NoSuchKernel { path: bundle.path().to_owned(), kernels: names }
}
