//! From how many activation rows on a block kernel is faster than stream kernels for products with groups, one thread:
//! `cargo run --release -p trit-codegen --features jit --example group_speed [COLUMNS [TARGET [ROWS,...]]]`.
//!
//! A product of 8 tiles and 2560 columns in groups, which stays in the L2 cache. Stream kernels take all groups of a
//! tile in a call, by as many rows as the best of them take at once; the block kernel takes one group in a call, by all
//! rows; the grouped kernel, which alone also turns the sums into floats, takes all groups of two tiles, by 64 rows. Prints 10^12 operations (two for a weight by an activation) a second, of the best run within a fraction of a second.

mod common;

use common::{best, runs_here};
use std::time::Duration;
use trit_codegen::{JitCode, default_specs};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelArgs, KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile;

const K: usize = 2560;
const TILES: usize = 8;
const TIME: Duration = Duration::from_millis(300);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let columns: usize = std::env::args().nth(1).map_or(Ok(128), |s| s.parse())?;
    let only = std::env::args().nth(2);
    let rows = std::env::args().nth(3).unwrap_or("1,2,3,4,6,8,12,16,32,64,128,256,512".to_owned());
    let rows = rows.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    for target in Target::ALL.into_iter().filter(|&target| runs_here(target)) {
        if only.as_ref().is_some_and(|name| name != target.name()) {
            continue;
        }
        for code in Code::ALL {
            let mut specs = default_specs(columns as u32, code, target);
            // The most rows first, and of variants the first.
            specs.dedup_by_key(|spec| (spec.kind, spec.m));
            specs.reverse();
            let of = |kind| specs.iter().copied().filter(|spec| spec.kind == kind).collect::<Vec<_>>();
            let [streams, blocks, grouped] =
                [KernelKind::Stream, KernelKind::Block, KernelKind::Grouped].map(of);
            if streams.is_empty() {
                continue;
            }
            println!("{target} {}, groups of {columns}", code.name());
            for &rows in &rows {
                let stream = Product::new(columns, rows, code, &streams, target)?.best(Product::stream);
                print!("  {rows:3} rows: streams {stream:6.3}");
                if !blocks.is_empty() {
                    let block = Product::new(columns, rows, code, &blocks, target)?.best(Product::block);
                    print!(", block {block:6.3}, {:.2} of the time", stream / block);
                }
                if !grouped.is_empty() {
                    let grouped = Product::new(columns, rows, code, &grouped, target)?.best(Product::grouped);
                    print!(", grouped {grouped:6.3}, {:.2}", stream / grouped);
                }
                println!();
            }
        }
    }
    Ok(())
}

struct Product {
    columns: usize,
    rows: usize,
    specs: Vec<KernelSpec>,
    /// Rows of a tile.
    in_tile: usize,
    code: JitCode,
    weights: Lines,
    activations: Lines,
    sums: Vec<i32>,
    /// Of weights and of activations.
    scales: [Vec<f32>; 2],
    out: Lines,
    scratch: Lines,
}

impl Product {
    fn new(
        columns: usize,
        rows: usize,
        code: Code,
        specs: &[KernelSpec],
        target: Target,
    ) -> Result<Product, Box<dyn std::error::Error>> {
        let pairs: Vec<_> = specs.iter().map(|&spec| (spec, target)).collect();
        let groups = K / columns;
        Ok(Product {
            columns,
            rows,
            specs: specs.to_vec(),
            in_tile: code.tile_rows(),
            code: JitCode::new(&pairs)?,
            weights: Lines::new(TILES * groups * tile::bytes(columns), |i| {
                code.store((i * 7 % 243) as u8).unwrap()
            }),
            // A line more: block kernels read whole ones.
            activations: Lines::new(rows * K + 64, |i| (i % 251) as u8),
            sums: vec![0; rows * groups],
            scales: [vec![0.5; TILES * groups * code.tile_rows()], vec![0.5; rows * groups]],
            out: Lines::new(4 * rows * groups.max(TILES) * code.tile_rows(), |_| 0),
            scratch: Lines::new(
                specs.iter().map(|s| s.scratch_bytes(rows)).max().unwrap_or(0).max(64),
                |_| 0,
            ),
        })
    }

    /// 10^12 operations a second of the best run.
    fn best(mut self, run: impl Fn(&mut Product)) -> f64 {
        let seconds = best(TIME, || run(&mut self));
        (2 * self.rows * TILES * self.in_tile * K) as f64 / seconds / 1e12
    }

    /// Operands from a tile, group and row on.
    fn args(&mut self, tile: usize, group: usize, row: usize) -> KernelArgs {
        let groups = K / self.columns;
        let weights = &self.weights.bytes()[(tile * groups + group) * tile::bytes(self.columns)..];
        KernelArgs {
            weights: weights.as_ptr(),
            activations: self.activations.bytes()[row * K + group * self.columns..].as_ptr().cast(),
            sums: &self.sums[row * groups + group],
            out: self.out.bytes().as_mut_ptr().cast(),
            tiles: groups as u64,
            activation_stride: K as u64,
            sum_stride: groups as u64,
            out_stride: (groups * self.in_tile) as u64,
            rows: self.rows as u64,
            scratch: self.scratch.bytes().as_mut_ptr(),
            activation_advance: self.columns as u64,
            sum_advance: 1,
            ..KernelArgs::NOTHING
        }
    }

    fn stream(&mut self) {
        for tile in 0..TILES {
            let mut row = 0;
            while row < self.rows {
                let left = self.rows - row;
                let fits = |spec: &KernelSpec| spec.m as usize <= left;
                let kernel = self.specs.iter().position(fits).expect("one takes one row");
                let args = self.args(tile, 0, row);
                // SAFETY: the operands have the sizes that `KernelArgs` asks for; `runs_here` has checked the CPU.
                unsafe { self.code.kernels()[kernel](&raw const args) };
                row += self.specs[kernel].m as usize;
            }
        }
    }

    fn block(&mut self) {
        let groups = K / self.columns;
        for i in 0..TILES * groups {
            let out_stride = self.in_tile as u64;
            let args = KernelArgs { tiles: 1, out_stride, ..self.args(i / groups, i % groups, 0) };
            // SAFETY: as above. Where columns are no multiple of 64, what is read past them spoils only the results.
            unsafe { self.code.kernels()[0](&raw const args) };
        }
    }

    fn grouped(&mut self) {
        const TILES_TOGETHER: usize = 2;
        const ROWS: usize = 64;
        let groups = K / self.columns;
        for row in (0..self.rows).step_by(ROWS) {
            for tile in (0..TILES).step_by(TILES_TOGETHER) {
                let args = KernelArgs {
                    tiles: TILES_TOGETHER as u64,
                    rows: (self.rows - row).min(ROWS) as u64,
                    out_stride: (TILES_TOGETHER * self.in_tile) as u64,
                    weight_scales: &self.scales[0][tile * groups * self.in_tile],
                    activation_scales: &self.scales[1][row * groups],
                    activation_scale_stride: groups as u64,
                    groups: groups as u64,
                    weight_stride: (groups * tile::bytes(self.columns)) as u64,
                    ..self.args(tile, 0, row)
                };
                // SAFETY: as above; integers and floats have the same size.
                unsafe { self.code.kernels()[0](&raw const args) };
            }
        }
    }
}

/// Bytes that begin with a line of the cache.
struct Lines(Vec<u8>, usize);

impl Lines {
    fn new(len: usize, byte: impl Fn(usize) -> u8) -> Lines {
        let mut bytes: Vec<u8> = Vec::with_capacity(len + 64);
        let first = bytes.as_ptr().align_offset(64);
        bytes.resize(first, 0);
        bytes.extend((0..len).map(byte));
        Lines(bytes, first)
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0[self.1..]
    }
}
