//! The 128-bit emitter: lowers a [`Program`] to Cranelift IR, and that to machine code for x86-64 and aarch64.
//!
//! Cranelift has neither a dot-product operation nor wider vectors. A dot product is written as the exact tree of
//! widened products that its instruction selection folds into one instruction; which operand is widened first decides
//! whether it folds, so that tests assert the mnemonics.
//!
//! Code is compiled at optimization level "none": the IR below is already in the order and form wanted, whereas the
//! optimizer moves pure operations down to their uses, which makes the features of all unrolled quads live at once.
//!
//! Cranelift has no prefetch operation either. A [`Touch`](crate::program::Touch) becomes a plain byte load inside
//! the weights. It loads from the next tile instead of
//! [`KernelSpec::prefetch`](trit_format::kernel::KernelSpec::prefetch) bytes ahead, because a tile is passed over
//! several times and only the first pass would gain from reading ahead within it.

mod lower;
mod ops;

use crate::error::CodegenError;
use crate::program::Program;
use crate::tier::{Backend, Tier};
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{CompiledCode, Context};
use cranelift_control::ControlPlane;
use trit_format::target::{Arch, Target};

/// Machine code of `program`.
pub(crate) fn emit(program: &Program) -> Result<Vec<u8>, CodegenError> {
    let compiled = compile(program, false)?;
    let count = compiled.buffer.relocs().len();
    if count > 0 {
        return Err(CodegenError::Relocations { spec: program.spec, target: program.target, count });
    }
    Ok(compiled.code_buffer().to_vec())
}

/// What Cranelift calls the instructions of `program`, with its labels.
pub(crate) fn disassemble(program: &Program) -> Result<String, CodegenError> {
    Ok(compile(program, true)?.vcode.unwrap_or_default())
}

fn compile(program: &Program, text: bool) -> Result<CompiledCode, CodegenError> {
    let failed = |message: String| CodegenError::backend(&program.spec, program.target, message);
    let isa = isa(program.target, Placing::Anywhere).map_err(failed)?;
    let mut context = Context::for_function(lower::function(program, isa.frontend_config()));
    context.set_disasm(text);
    context.compile(&*isa, &mut ControlPlane::default()).map_err(|e| failed(format!("{:?}", e.inner)))?;
    context.take_compiled_code().ok_or_else(|| failed("no code".to_owned()))
}

/// Where code may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placing {
    /// At any address.
    Anywhere,
    /// In memory of this process; what cranelift-jit asks for.
    #[cfg(feature = "jit")]
    Here,
}

pub(crate) fn isa(target: Target, placing: Placing) -> Result<OwnedTargetIsa, String> {
    let mut shared = settings::builder();
    let anywhere = if placing == Placing::Anywhere { "true" } else { "false" };
    for (name, value) in [("opt_level", "none"), ("is_pic", anywhere), ("enable_verifier", "true")] {
        shared.set(name, value).map_err(|e| e.to_string())?;
    }
    let architecture = match target.arch() {
        Arch::X86_64 => "x86_64",
        Arch::Aarch64 => "aarch64",
    };
    let mut builder = isa::lookup_by_name(architecture).map_err(|e| e.to_string())?;
    if let Backend::Cranelift { flags, .. } = Tier::of(target).backend {
        flags.iter().try_for_each(|flag| builder.enable(flag)).map_err(|e| e.to_string())?;
    }
    builder.finish(settings::Flags::new(shared)).map_err(|e| e.to_string())
}
