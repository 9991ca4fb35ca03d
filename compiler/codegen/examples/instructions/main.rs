//! Instructions that the generated kernels spend on a weight, for every target, whatever machine this runs on:
//! `cargo run --release -p trit-codegen --example instructions`.
//!
//! Of stream kernels it counts what one more quad of `k` adds to the code where quads are not looped over, per product of
//! a weight and an activation row. The loop's own instructions are left out: a handful, divided by its unroll.
//!
//! Of block kernels for aarch64 it counts every instruction of a call as runtimes make it, for two tiles or one group,
//! decoding and the passing on of results included, beside the stream kernels for the same rows.

mod executed;

use trit_codegen::program::Node;
use trit_codegen::{CodegenError, Program, default_specs, disassemble_bytes, emit, supported};
use trit_format::dense243::Code;
use trit_format::kernel::{BLOCK_COLUMNS, KernelArgs, KernelKind, KernelSpec};
use trit_format::target::{Arch, Target};
use trit_format::tile::{LANES, QUAD};

/// Columns of the matrices that block kernels are counted on, and of groups.
const COLUMNS: [u32; 3] = [2560, 128, 64];

fn main() -> Result<(), CodegenError> {
    println!("{:18} {:7} {:>2}  instructions per weight and row", "target", "code", "m");
    for &target in supported() {
        for code in Code::ALL {
            for m in [1, 2, 4] {
                if let Some(each) = of_stream(2560, m, code, target)? {
                    println!("{:18} {:7} {m:2}  {each:.4}", target.name(), code.name());
                }
            }
        }
    }
    println!("\n{:18} {:7} {:>5} {:>4}  stream  block  times fewer", "target", "code", "k", "rows");
    for &target in supported().iter().filter(|target| target.arch() == Arch::Aarch64) {
        for (code, k) in
            [Code::SignedFix, Code::Binary].into_iter().flat_map(|code| COLUMNS.map(|k| (code, k)))
        {
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 64, 256] {
                let stream = of_streams(k, rows, code, target)?;
                let block = of_block(k, rows, code, target)?;
                println!(
                    "{:18} {:7} {k:5} {rows:4}  {stream:.4}  {block:.4}  {:.2}",
                    target.name(),
                    code.name(),
                    stream / block
                );
            }
        }
    }
    Ok(())
}

/// Instructions of a stream kernel for `m` rows, per weight and row; `None` where there is none.
fn of_stream(k: u32, m: u32, code: Code, target: Target) -> Result<Option<f64>, CodegenError> {
    let spec = KernelSpec { k, m, kind: KernelKind::Stream, code, unroll: 4, prefetch: 0 };
    let Ok(program) = Program::new(&spec, target) else { return Ok(None) };
    // Rows that do not share features in one group come in groups of their own.
    let [first, ..] = program.body() else { return Ok(None) };
    let Node::Tiles(groups) = first else { return Ok(None) };
    let groups = groups.iter().filter_map(|group| match group {
        Node::Rows { groups, rows, .. } => Some((*groups, *rows)),
        _ => None,
    });
    let mut total = 0.0;
    for (groups, rows) in groups {
        let [with, without] = [8, 4].map(|unroll| KernelSpec { m: rows, unroll, ..spec });
        let added = (instructions(&with, target)? - instructions(&without, target)?) / 4;
        total += f64::from(groups * rows) * added as f64 / products(&with, target)? as f64;
    }
    Ok(Some(total / f64::from(m)))
}

/// Instructions of the stream kernels that serve `rows` rows, per weight and row: those for most rows first.
fn of_streams(k: u32, rows: u32, code: Code, target: Target) -> Result<f64, CodegenError> {
    let specs = default_specs(k, code, target);
    let (mut left, mut total) = (rows, 0.0);
    while left > 0 {
        let fits = specs.iter().filter(|spec| spec.kind == KernelKind::Stream && spec.m <= left);
        let m = fits.map(|spec| spec.m).max().unwrap_or(1);
        total += f64::from(m) * of_stream(k, m, code, target)?.unwrap_or(f64::NAN);
        left -= m;
    }
    Ok(total / f64::from(rows))
}

/// Instructions of a call of a block kernel, for two tiles or one group, per weight and row.
fn of_block(k: u32, rows: u32, code: Code, target: Target) -> Result<f64, CodegenError> {
    let tiles = if k > 256 { 2 } else { 1 };
    let spec = KernelSpec { k, m: 1, kind: KernelKind::Block, code, unroll: 1, prefetch: 0 };
    let n = tiles * code.tile_rows() as u32;
    // Nothing is read or written, so that pointers may be any.
    let args = KernelArgs {
        weights: std::ptr::null(),
        activations: std::ptr::null(),
        sums: std::ptr::null(),
        out: std::ptr::null_mut(),
        tiles: u64::from(tiles),
        activation_stride: (k as usize).next_multiple_of(BLOCK_COLUMNS) as u64,
        sum_stride: 1,
        out_stride: u64::from(n),
        rows: u64::from(rows),
        scratch: std::ptr::null_mut(),
        activation_advance: 0,
        sum_advance: 0,
        ..KernelArgs::NOTHING
    };
    let executed = executed::instructions(&emit(&spec, target)?, &args);
    Ok(executed as f64 / (f64::from(k) * f64::from(n) * f64::from(rows)))
}

fn instructions(spec: &KernelSpec, target: Target) -> Result<usize, CodegenError> {
    let text = disassemble_bytes(&emit(spec, target)?, target);
    Ok(text.lines().filter(|line| !line.contains(".byte")).count())
}

/// Products of one quad in the code as it stands, of a kernel of one group of rows: these by the lanes of a pass, or of
/// all passes where the emitter writes them out.
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
