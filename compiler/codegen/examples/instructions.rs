//! Instructions that the generated kernels spend on a weight, for every target, whatever machine this runs on:
//! `cargo run --release -p trit-codegen --example instructions`.
//!
//! Counts what one more quad of `k` adds to the code where quads are not looped over, per product of a weight and an
//! activation row. The loop's own instructions are left out: a handful, divided by its unroll.

use trit_codegen::{CodegenError, Program, disassemble_bytes, emit, supported};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile::{LANES, QUAD};

fn main() -> Result<(), CodegenError> {
    println!("{:18} {:7} {:>2}  instructions per weight and row", "target", "code", "m");
    for &target in supported() {
        for code in Code::ALL {
            for m in [1, 2, 4] {
                let spec = KernelSpec { k: 0, m, kind: KernelKind::Stream, code, unroll: 4, prefetch: 0 };
                // One iteration, and one more quad.
                let [with, without] = [20, 16].map(|k| instructions(&KernelSpec { k, ..spec }, target));
                if let (Ok(with), Ok(without)) = (with, without) {
                    let products = products(&KernelSpec { k: 20, ..spec }, target)?;
                    let each = (with - without) as f64 / products as f64;
                    println!("{:18} {:7} {m:2}  {each:.4}", target.name(), code.name());
                }
            }
        }
    }
    Ok(())
}

fn instructions(spec: &KernelSpec, target: Target) -> Result<usize, CodegenError> {
    let text = disassemble_bytes(&emit(spec, target)?, target);
    Ok(text.lines().filter(|line| !line.contains(".byte")).count())
}

/// Products of one quad in the code as it stands: a group of rows by the lanes of a pass, or of all passes where the
/// emitter writes them out.
fn products(spec: &KernelSpec, target: Target) -> Result<usize, CodegenError> {
    let program = Program::new(spec, target)?;
    let text = program.to_string();
    let step = |what: &str| {
        let found =
            text.lines().find_map(|line| line.trim().strip_prefix(what)?.split_once("step ")?.1.parse().ok());
        found.unwrap_or(1)
    };
    let lanes: usize = if program.vector() == 16 { step("for lane") } else { LANES };
    Ok(step("for row") * lanes * QUAD * spec.code.digits())
}
