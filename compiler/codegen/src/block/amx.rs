//! Blocks of rows by AMX-int8.
//!
//! ```text
//! for two tiles                         their trits go to scratch: panels of 16 rows, as matrix B of `tdpbssd`
//!   for 32 activation rows
//!     for block of k
//!       for two panels                  4 accumulators of 16 by 16
//!         for 64 columns of the block
//! ```
//!
//! A panel pair and the activations of 64 columns are 4 KiB, which the multiplier consumes in 64 cycles. L2 does not
//! deliver that. Within a block of k the activations of 32 rows stay in L1, and so do their sums, which pass through
//! scratch memory; only panels come from L2.

use super::asm::{Asm, Emitted, Width, slot};
use super::decode::{self, Digits};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use trit_format::dense243::TRITS;
use trit_format::kernel::{BLOCK_COLUMNS, KernelSpec};
use trit_format::tile::{self, LANES, QUAD, ROWS, VECTOR, padded_k};

/// Rows of a tile register, and its bytes.
const TILE_ROWS: i32 = 16;
const TILE: i32 = TILE_ROWS * 64;
/// Bytes of two panels, or of 32 activation rows, by 64 columns.
const STEP: i32 = 2 * TILE;
/// Most steps of a block of k: 16 KiB of activations.
const BLOCK_STEPS: usize = 8;
/// Activation rows handled together.
const GROUP: i32 = 2 * TILE_ROWS;
/// Panels of a tile.
const TILE_PANELS: i32 = (ROWS / LANES) as i32;
/// Bytes of the sums of 32 rows by two panels.
const PAIR_SUMS: i32 = 4 * TILE;
/// Where in scratch memory the packed activations begin; sums come first.
const PACKED: i32 = 5 * PAIR_SUMS;

const WEIGHTS: AsmRegister64 = r8;
const SCRATCH: AsmRegister64 = r9;
const OUT: AsmRegister64 = r10;
/// First row of the group at the block's first column, bytes between rows and between steps.
const ROW: AsmRegister64 = r11;
const ROW_STRIDE: AsmRegister64 = rdx;
const ROW_STEP: AsmRegister64 = r14;
const OUT_STRIDE: AsmRegister64 = r12;
/// 64, as stride.
const LINE: AsmRegister64 = r13;
const SUMS: AsmRegister64 = rsi;
/// The panel pair at the block's first column.
const PAIR: AsmRegister64 = r15;

const TILES: i32 = 0;
const ROWS_LEFT: i32 = 1;
/// Panel pairs of the tiles at hand: five of two tiles, three of one, the last half empty.
const PAIRS: i32 = 2;
const PAIRS_LEFT: i32 = 3;
const BLOCKS_LEFT: i32 = 4;
const STEPS: i32 = 5;
const ROW_OUT: i32 = 6;
const GROUP_ROWS: i32 = 7;
const PANELS: i32 = 8;
const NEXT_ROWS: i32 = 9;
const FRAME: i32 = 8 * 10 + 8;

/// Steps of 64 columns: in all, in a block, in the last block; and blocks.
struct Steps {
    all: i32,
    block: i32,
    last: i32,
    blocks: i32,
}

impl Steps {
    fn new(k: usize) -> Steps {
        let all = k.div_ceil(BLOCK_COLUMNS);
        let block = all.div_ceil(all.div_ceil(BLOCK_STEPS));
        let blocks = all.div_ceil(block);
        let last = all - (blocks - 1) * block;
        Steps { all: all as i32, block: block as i32, last: last as i32, blocks: blocks as i32 }
    }

    /// Bytes from a panel pair to the next.
    fn pair(&self) -> i32 {
        self.all * STEP
    }

    /// Where in scratch memory the panels begin, after one group of packed activations.
    fn panels(&self) -> i32 {
        PACKED + self.all * STEP
    }
}

pub(super) fn emit(spec: &KernelSpec) -> Result<Vec<u8>, IcedError> {
    let mut a = Asm::new(Width::Zmm)?;
    let steps = Steps::new(spec.k as usize);
    for register in [rbx, rbp, r12, r13, r14, r15] {
        a.code.push(register)?;
    }
    a.code.sub(rsp, FRAME)?;
    // Palette 1: eight tiles of 16 rows of 64 bytes.
    let mut configuration = [0; 64];
    configuration[0] = 1;
    configuration[16..32].copy_from_slice(&[64, 0].repeat(8));
    configuration[48..56].fill(TILE_ROWS as u8);
    let label = a.constant_label(configuration);
    a.code.ldtilecfg(ptr(label))?;
    a.code.mov(WEIGHTS, qword_ptr(rdi))?;
    a.code.mov(OUT, qword_ptr(rdi + 24))?;
    a.code.mov(rax, qword_ptr(rdi + 32))?;
    a.code.mov(slot(TILES), rax)?;
    a.code.mov(OUT_STRIDE, qword_ptr(rdi + 56))?;
    a.code.shl(OUT_STRIDE, 2)?;
    a.code.mov(SCRATCH, qword_ptr(rdi + 72))?;
    a.code.mov(LINE, 64u64)?;
    pack_tail(&mut a, &steps)?;

    let mut decoded = a.code.create_label();
    let tiles = a.here()?;
    decode_tile(&mut a, spec, &steps, 0)?;
    a.code.mov(slot(PAIRS), 3)?;
    a.code.cmp(slot(TILES), 2)?;
    a.code.jb(decoded)?;
    decode_tile(&mut a, spec, &steps, TRITS as i32)?;
    a.code.mov(slot(PAIRS), 5)?;
    a.place(&mut decoded)?;
    groups(&mut a, &steps)?;
    a.code.add(OUT, 2 * 4 * ROWS as i32)?;
    a.code.sub(slot(TILES), 2)?;
    a.code.jg(tiles)?;

    a.code.tilerelease()?;
    a.code.add(rsp, FRAME)?;
    for register in [r15, r14, r13, r12, rbp, rbx] {
        a.code.pop(register)?;
    }
    a.code.vzeroupper()?;
    a.code.ret()?;
    a.finish()
}

/// The rows past the last whole group go to scratch memory, so that whole tiles may be loaded: `[step, row, 64]`.
/// What stands in the missing rows is of no matter, as it only meets their results.
fn pack_tail(a: &mut Asm, steps: &Steps) -> Emitted {
    let mut none = a.code.create_label();
    a.code.mov(rcx, qword_ptr(rdi + 64))?;
    a.code.mov(rax, rcx)?;
    a.code.and(rax, -GROUP)?;
    a.code.sub(rcx, rax)?;
    a.code.je(none)?;
    a.code.mov(ROW_STRIDE, qword_ptr(rdi + 40))?;
    a.code.imul_2(rax, ROW_STRIDE)?;
    a.code.add(rax, qword_ptr(rdi + 8))?;
    a.code.lea(rbp, ptr(SCRATCH + PACKED))?;
    let row = a.here()?;
    a.code.mov(rbx, rbp)?;
    a.code.mov(rsi, rax)?;
    a.code.mov(r11, steps.all as u64)?;
    let step = a.here()?;
    a.load(0, rsi, 0)?;
    a.store(rbx, 0, 0)?;
    a.code.add(rsi, 64)?;
    a.code.add(rbx, STEP)?;
    a.code.dec(r11)?;
    a.code.jne(step)?;
    a.code.add(rax, ROW_STRIDE)?;
    a.code.add(rbp, 64)?;
    a.code.dec(rcx)?;
    a.code.jne(row)?;
    a.place(&mut none)
}

/// The tile at [`WEIGHTS`], which moves on, to panels `first` and following: `[pair, step, panel of the pair, quad]`.
fn decode_tile(a: &mut Asm, spec: &KernelSpec, steps: &Steps, first: i32) -> Emitted {
    let k = spec.k as usize;
    let quads = padded_k(k) / QUAD;
    let in_step = BLOCK_COLUMNS / QUAD;
    decode::constants(a, spec.code, Digits::Signed)?;
    let to = |quad: i64| -> [(AsmRegister64, i64); TRITS] {
        std::array::from_fn(|d| {
            let panel = first + d as i32;
            let at = i64::from(panel / 2) * i64::from(steps.pair()) + i64::from(panel % 2 * TILE);
            (rax, at + quad * VECTOR as i64)
        })
    };
    a.code.lea(rax, ptr(SCRATCH + steps.panels()))?;
    let ahead = 2 * tile::bytes(k) as i32;
    let one = |a: &mut Asm, quad: usize| -> Emitted {
        a.code.prefetcht1(byte_ptr(WEIGHTS + (ahead + (quad * VECTOR) as i32)))?;
        decode::vector(a, spec.code, (WEIGHTS, (quad * VECTOR) as i64), to(quad as i64))
    };
    if quads >= in_step {
        a.code.mov(rcx, (quads / in_step) as u64)?;
        let step = a.here()?;
        (0..in_step).try_for_each(|quad| one(a, quad))?;
        a.code.add(WEIGHTS, (in_step * VECTOR) as i32)?;
        a.code.add(rax, STEP)?;
        a.code.dec(rcx)?;
        a.code.jne(step)?;
    }
    (0..quads % in_step).try_for_each(|quad| one(a, quad))?;
    a.code.add(WEIGHTS, (quads % in_step * VECTOR) as i32)
}

/// All activation rows by the decoded tiles.
fn groups(a: &mut Asm, steps: &Steps) -> Emitted {
    a.code.mov(rax, qword_ptr(rdi + 64))?;
    a.code.mov(slot(ROWS_LEFT), rax)?;
    a.code.mov(slot(ROW_OUT), OUT)?;
    a.code.mov(ROW, qword_ptr(rdi + 8))?;
    a.code.mov(ROW_STRIDE, qword_ptr(rdi + 40))?;
    a.code.mov(ROW_STEP, LINE)?;
    let mut whole = a.code.create_label();
    let (mut few, mut multiplied, mut write) =
        (a.code.create_label(), a.code.create_label(), a.code.create_label());
    let again = a.here()?;
    a.code.mov(rax, slot(ROWS_LEFT))?;
    a.code.cmp(rax, GROUP)?;
    a.code.jae(whole)?;
    a.code.lea(ROW, ptr(SCRATCH + PACKED))?;
    a.code.mov(ROW_STRIDE, LINE)?;
    a.code.mov(ROW_STEP, STEP as u64)?;
    a.code.cmp(rax, TILE_ROWS)?;
    a.code.mov(slot(GROUP_ROWS), rax)?;
    a.code.jbe(few)?;
    a.code.jmp(multiplied)?;
    a.place(&mut whole)?;
    a.code.mov(slot(GROUP_ROWS), GROUP)?;
    a.place(&mut multiplied)?;
    blocks(a, steps, 2)?;
    a.code.jmp(write)?;
    a.place(&mut few)?;
    blocks(a, steps, 1)?;
    a.place(&mut write)?;
    write_results(a)?;
    a.code.mov(rax, slot(ROWS_LEFT))?;
    a.code.sub(rax, GROUP)?;
    a.code.mov(slot(ROWS_LEFT), rax)?;
    a.code.jg(again)
}

/// One group of rows, one or two tile registers of them, by all panels; the sums go to scratch memory.
fn blocks(a: &mut Asm, steps: &Steps, tiles: u8) -> Emitted {
    a.code.mov(slot(NEXT_ROWS), ROW)?;
    a.code.lea(rax, ptr(SCRATCH + steps.panels()))?;
    a.code.mov(slot(PANELS), rax)?;
    a.code.mov(slot(BLOCKS_LEFT), steps.blocks)?;
    let block = a.here()?;
    let mut sized = a.code.create_label();
    a.code.mov(rcx, steps.last as u64)?;
    a.code.cmp(slot(BLOCKS_LEFT), 1)?;
    a.code.je(sized)?;
    a.code.mov(rcx, steps.block as u64)?;
    a.place(&mut sized)?;
    a.code.mov(slot(STEPS), rcx)?;
    a.code.mov(PAIR, slot(PANELS))?;
    a.code.mov(SUMS, SCRATCH)?;
    a.code.mov(rax, slot(PAIRS))?;
    a.code.mov(slot(PAIRS_LEFT), rax)?;
    let pair = a.here()?;
    multiply_pair(a, steps, tiles)?;
    a.code.add(PAIR, steps.pair())?;
    a.code.add(SUMS, PAIR_SUMS)?;
    a.code.dec(slot(PAIRS_LEFT))?;
    a.code.jne(pair)?;
    a.code.mov(rax, ROW_STEP)?;
    a.code.imul_3(rax, rax, steps.block)?;
    a.code.add(ROW, rax)?;
    a.code.add(slot(PANELS), steps.block * STEP)?;
    a.code.dec(slot(BLOCKS_LEFT))?;
    a.code.jne(block)?;
    // The next group of rows.
    a.code.mov(rax, ROW_STRIDE)?;
    a.code.shl(rax, GROUP.ilog2())?;
    a.code.add(rax, slot(NEXT_ROWS))?;
    a.code.mov(ROW, rax)
}

/// Two panels by one or two tiles of activations, for one block of k. Accumulator `2 * i + j` holds activations `i`
/// by panel `j`; in memory sums stand as `[pair, panel, row]`.
fn multiply_pair(a: &mut Asm, steps: &Steps, tiles: u8) -> Emitted {
    let accumulators: Vec<(u8, i64)> = (0..tiles)
        .flat_map(|i| (0..2).map(move |j| (2 * i + j, i64::from(TILE) * i64::from(2 * j + i))))
        .collect();
    let (mut later, mut ready) = (a.code.create_label(), a.code.create_label());
    a.code.mov(rax, ROW)?;
    a.code.mov(rbx, ROW_STRIDE)?;
    a.code.shl(rbx, TILE_ROWS.ilog2())?;
    a.code.add(rbx, ROW)?;
    a.code.mov(rbp, PAIR)?;
    a.code.mov(rcx, slot(STEPS))?;
    a.code.cmp(slot(BLOCKS_LEFT), steps.blocks)?;
    a.code.jne(later)?;
    for &(n, _) in &accumulators {
        a.tile_zero(n)?;
    }
    a.code.jmp(ready)?;
    a.place(&mut later)?;
    for &(n, at) in &accumulators {
        a.tile_load(n, SUMS, LINE, at)?;
    }
    a.place(&mut ready)?;
    let step = a.here()?;
    a.tile_load(6, rbp, LINE, 0)?;
    a.tile_load(4, rax, ROW_STRIDE, 0)?;
    a.tile_dot(0, 4, 6)?;
    a.tile_load(7, rbp, LINE, i64::from(TILE))?;
    a.tile_dot(1, 4, 7)?;
    if tiles == 2 {
        a.tile_load(5, rbx, ROW_STRIDE, 0)?;
        a.tile_dot(2, 5, 6)?;
        a.tile_dot(3, 5, 7)?;
        a.code.add(rbx, ROW_STEP)?;
    }
    a.code.add(rax, ROW_STEP)?;
    a.code.add(rbp, STEP)?;
    a.code.dec(rcx)?;
    a.code.jne(step)?;
    for &(n, at) in &accumulators {
        a.tile_store(SUMS, LINE, at, n)?;
    }
    Ok(())
}

/// The sums of a group to the results: of two tiles, or of one.
fn write_results(a: &mut Asm) -> Emitted {
    let (mut one, mut done) = (a.code.create_label(), a.code.create_label());
    a.code.mov(rcx, slot(GROUP_ROWS))?;
    a.code.mov(rbx, slot(ROW_OUT))?;
    a.code.mov(rax, SCRATCH)?;
    a.code.cmp(slot(PAIRS), 5)?;
    a.code.jne(one)?;
    for panels in [2 * TILE_PANELS, TILE_PANELS] {
        let row = a.here()?;
        for panel in 0..panels {
            a.load(0, rax, i64::from(panel * 2 * TILE))?;
            a.store(rbx, i64::from(panel * 64), 0)?;
        }
        a.code.add(rax, 64)?;
        a.code.add(rbx, OUT_STRIDE)?;
        a.code.dec(rcx)?;
        a.code.jne(row)?;
        if panels > TILE_PANELS {
            a.code.jmp(done)?;
            a.place(&mut one)?;
        }
    }
    a.place(&mut done)?;
    a.code.mov(slot(ROW_OUT), rbx)
}
