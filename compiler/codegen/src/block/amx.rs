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
//! Two panels and the activations of 64 columns are 4 KiB, which the multiplier consumes in 64 cycles; L2 does not
//! deliver that. Within a block of k the activations of 32 rows stay in L1, and their sums pass through scratch
//! memory. Only panels come from L2.
//!
//! Decoding is bound by stores, five lines of trits to L2 for each line of weights, about 20 cycles. To decode the next
//! tiles between products, while the multiplier works on its own, gains nothing: both wait for L2.

use super::asm::{Asm, Emitted, Width, slot};
use super::decode::{self, Digits};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use trit_format::dense243::{Code, TRITS};
use trit_format::kernel::{BLOCK_COLUMNS, KernelSpec};
use trit_format::tile::{self, QUAD, ROWS, VECTOR, padded_k};

/// Rows of a tile register.
const TILE_ROWS: i32 = 16;
/// Bytes of two panels, or of 32 activation rows, by 64 columns.
const STEP: i32 = 2 * TILE_ROWS * 64;
/// Most steps of a block of k: 16 KiB of activations.
const BLOCK_STEPS: usize = 8;
/// Activation rows handled together.
const GROUP: i32 = 2 * TILE_ROWS;
/// Panel pairs: one for each tile digit, of both tiles.
const PAIRS: i32 = TRITS as i32;
/// Bytes of the sums of 32 rows by two panels.
const PAIR_SUMS: i32 = 4 * TILE_ROWS * 64;
/// Where in scratch memory the packed activations begin; sums come first.
const PACKED: i32 = PAIRS * PAIR_SUMS;
/// Bytes of a row of results of one tile.
const TILE_OUT: i32 = 4 * ROWS as i32;
/// Quads decoded in one iteration.
const QUADS: i32 = 4;
const SCRATCH: AsmRegister64 = r9;
const OUT: AsmRegister64 = r10;
const OUT_STRIDE: AsmRegister64 = r12;
/// First row of the group at the block's first column; bytes between rows, and between steps.
const ROW: AsmRegister64 = r11;
const ROW_STRIDE: AsmRegister64 = rdx;
const ROW_STEP: AsmRegister64 = r14;
/// 128: a row of two panels, or of their sums.
const LINE: AsmRegister64 = r13;
const SUMS: AsmRegister64 = rsi;
/// Results of the panel pair.
const PAIR_OUT: AsmRegister64 = r8;
/// The quads being decoded, and where to.
const SOURCE: AsmRegister64 = r15;
const PANEL: AsmRegister64 = rdi;

/// Local variables.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Local {
    Args,
    Tiles,
    /// Weights of the tiles at hand.
    Weights,
    RowsLeft,
    GroupRows,
    /// 1 where the last block's sums go to the results at once, else 0.
    Direct,
    RowOut,
    GroupStart,
    BlocksLeft,
    BlockPanels,
    Steps,
    Pair,
    PairsLeft,
    Count,
}

/// Keeps the stack aligned: six registers and the return address come before.
const FRAME: i32 = 8 * (Local::Count as i32 / 2 * 2 + 1);

fn local(l: Local) -> AsmMemoryOperand {
    slot(l as i32)
}

/// What is known of `k`.
struct Shape {
    code: Code,
    /// Bytes of a tile of weights, and its quads.
    tile: i32,
    quads: i32,
    /// Steps of 64 columns: in all, in a block, in the last block; and blocks.
    steps: i32,
    block: i32,
    last: i32,
    blocks: i32,
}

impl Shape {
    fn new(spec: &KernelSpec) -> Shape {
        let k = spec.k as usize;
        let steps = k.div_ceil(BLOCK_COLUMNS);
        let block = steps.div_ceil(steps.div_ceil(BLOCK_STEPS));
        let blocks = steps.div_ceil(block);
        let last = steps - (blocks - 1) * block;
        let [steps, block, last, blocks] = [steps, block, last, blocks].map(|n| n as i32);
        let (tile, quads) = (tile::bytes(k) as i32, (padded_k(k) / QUAD) as i32);
        Shape { code: spec.code, tile, quads, steps, block, last, blocks }
    }

    /// Bytes from a panel pair to the next.
    fn pair(&self) -> i32 {
        self.steps * STEP
    }

    /// Where in scratch memory the panels begin, after one group of packed activations: `[digit, quad, tile, 64]`.
    fn panels(&self) -> i32 {
        PACKED + self.steps * STEP
    }
}

pub(super) fn emit(spec: &KernelSpec) -> Result<Vec<u8>, IcedError> {
    let mut assembler = Asm::new(Width::Zmm)?;
    let a = &mut assembler;
    let shape = &Shape::new(spec);
    let saved = [rbx, rbp, r12, r13, r14, r15];
    saved.into_iter().try_for_each(|register| a.code.push(register))?;
    a.code.sub(rsp, FRAME)?;
    // Palette 1: eight tiles of 16 rows of 64 bytes.
    let mut configuration = [0; 64];
    configuration[0] = 1;
    configuration[16..32].copy_from_slice(&[64, 0].repeat(8));
    configuration[48..56].fill(TILE_ROWS as u8);
    let label = a.constant_label(configuration);
    a.code.ldtilecfg(ptr(label))?;
    decode::constants(a, spec.code, Digits::Signed)?;
    a.code.mov(local(Local::Args), rdi)?;
    for (to, at) in [(Local::Weights, 0), (Local::Tiles, 32)] {
        a.code.mov(rax, qword_ptr(rdi + at))?;
        a.code.mov(local(to), rax)?;
    }
    a.code.mov(OUT, qword_ptr(rdi + 24))?;
    a.code.mov(OUT_STRIDE, qword_ptr(rdi + 56))?;
    a.code.shl(OUT_STRIDE, 2)?;
    a.code.mov(SCRATCH, qword_ptr(rdi + 72))?;
    a.code.mov(LINE, 128u64)?;
    pack_tail(a, shape)?;

    let (mut one, mut end) = (a.code.create_label(), a.code.create_label());
    let two = a.here()?;
    a.code.cmp(local(Local::Tiles), 1)?;
    a.code.je(one)?;
    decode_tiles(a, shape, 2)?;
    groups(a, shape, 2)?;
    a.code.add(local(Local::Weights), 2 * shape.tile)?;
    a.code.add(OUT, 2 * TILE_OUT)?;
    a.code.sub(local(Local::Tiles), 2)?;
    a.code.jne(two)?;
    a.code.jmp(end)?;
    a.place(&mut one)?;
    decode_tiles(a, shape, 1)?;
    groups(a, shape, 1)?;
    a.place(&mut end)?;

    a.code.tilerelease()?;
    a.code.add(rsp, FRAME)?;
    saved.into_iter().rev().try_for_each(|register| a.code.pop(register))?;
    a.code.vzeroupper()?;
    a.code.ret()?;
    assembler.finish()
}

/// The rows past the last whole group go to scratch memory, so that whole tiles may be loaded: `[step, row, 64]`.
/// What stands in the missing rows is of no matter, as it only meets their results.
fn pack_tail(a: &mut Asm, shape: &Shape) -> Emitted {
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
    a.code.mov(r11, shape.steps as u64)?;
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

/// One quad of one tile, `quad` after [`SOURCE`], to its five panels.
fn decode_quad(a: &mut Asm, shape: &Shape, quad: i32, tile: i32) -> Emitted {
    let from = i64::from(quad * VECTOR as i32 + tile * shape.tile);
    let to = i64::from(quad * 128 + tile * 64);
    let digit = |d: usize| (PANEL, d as i64 * i64::from(shape.pair()) + to);
    decode::vector(a, shape.code, (SOURCE, from), std::array::from_fn(digit))
}

/// One or two tiles.
fn decode_tiles(a: &mut Asm, shape: &Shape, tiles: i32) -> Emitted {
    let each = |a: &mut Asm, quads: i32| -> Emitted {
        (0..quads).try_for_each(|quad| (0..tiles).try_for_each(|tile| decode_quad(a, shape, quad, tile)))
    };
    a.code.mov(SOURCE, local(Local::Weights))?;
    a.code.lea(PANEL, ptr(SCRATCH + shape.panels()))?;
    if shape.quads >= QUADS {
        a.code.mov(rcx, (shape.quads / QUADS) as u64)?;
        let quads = a.here()?;
        each(a, QUADS)?;
        a.code.add(SOURCE, QUADS * VECTOR as i32)?;
        a.code.add(PANEL, QUADS * 128)?;
        a.code.dec(rcx)?;
        a.code.jne(quads)?;
    }
    each(a, shape.quads % QUADS)
}

/// All activation rows by the panels of one or two decoded tiles.
fn groups(a: &mut Asm, shape: &Shape, panels: u8) -> Emitted {
    a.code.mov(rdi, local(Local::Args))?;
    a.code.mov(rax, qword_ptr(rdi + 64))?;
    a.code.mov(local(Local::RowsLeft), rax)?;
    a.code.mov(ROW, qword_ptr(rdi + 8))?;
    a.code.mov(ROW_STRIDE, qword_ptr(rdi + 40))?;
    a.code.mov(ROW_STEP, 64u64)?;
    a.code.mov(local(Local::RowOut), OUT)?;
    let [mut whole, mut few, mut many, mut indirect, mut next] =
        std::array::from_fn(|_| a.code.create_label());
    let again = a.here()?;
    a.code.mov(rax, local(Local::RowsLeft))?;
    a.code.mov(local(Local::Direct), 1)?;
    a.code.cmp(rax, GROUP)?;
    a.code.jge(whole)?;
    a.code.mov(local(Local::GroupRows), rax)?;
    a.code.mov(local(Local::Direct), 0)?;
    a.code.lea(ROW, ptr(SCRATCH + PACKED))?;
    a.code.mov(ROW_STRIDE, 64u64)?;
    a.code.mov(ROW_STEP, STEP as u64)?;
    a.code.cmp(rax, TILE_ROWS)?;
    a.code.jle(few)?;
    a.place(&mut whole)?;
    blocks(a, shape, 2, panels)?;
    a.code.jmp(many)?;
    a.place(&mut few)?;
    blocks(a, shape, 1, panels)?;
    a.place(&mut many)?;
    a.code.cmp(local(Local::Direct), 0)?;
    a.code.je(indirect)?;
    a.code.mov(rax, OUT_STRIDE)?;
    a.code.shl(rax, GROUP.ilog2())?;
    a.code.add(local(Local::RowOut), rax)?;
    a.code.sub(local(Local::RowsLeft), GROUP)?;
    a.code.jg(again)?;
    a.code.jmp(next)?;
    a.place(&mut indirect)?;
    write_results(a, panels)?;
    a.place(&mut next)
}

/// One group of rows, one or two tile registers of them, by all panels; the sums go to scratch memory.
fn blocks(a: &mut Asm, shape: &Shape, tiles: u8, panels: u8) -> Emitted {
    a.code.mov(local(Local::GroupStart), ROW)?;
    a.code.lea(rax, ptr(SCRATCH + shape.panels()))?;
    a.code.mov(local(Local::BlockPanels), rax)?;
    a.code.mov(local(Local::BlocksLeft), shape.blocks)?;
    let block = a.here()?;
    let mut sized = a.code.create_label();
    a.code.mov(rcx, shape.last as u64)?;
    a.code.cmp(local(Local::BlocksLeft), 1)?;
    a.code.je(sized)?;
    a.code.mov(rcx, shape.block as u64)?;
    a.place(&mut sized)?;
    a.code.mov(local(Local::Steps), rcx)?;
    a.code.mov(rax, local(Local::BlockPanels))?;
    a.code.mov(local(Local::Pair), rax)?;
    a.code.mov(SUMS, SCRATCH)?;
    a.code.mov(PAIR_OUT, local(Local::RowOut))?;
    a.code.mov(local(Local::PairsLeft), PAIRS)?;
    let pair = a.here()?;
    multiply_pair(a, shape, tiles, panels)?;
    a.code.add(local(Local::Pair), shape.pair())?;
    a.code.add(SUMS, PAIR_SUMS)?;
    a.code.add(PAIR_OUT, 64)?;
    a.code.dec(local(Local::PairsLeft))?;
    a.code.jne(pair)?;
    a.code.mov(rax, ROW_STEP)?;
    a.code.imul_3(rax, rax, shape.block)?;
    a.code.add(ROW, rax)?;
    a.code.add(local(Local::BlockPanels), shape.block * STEP)?;
    a.code.dec(local(Local::BlocksLeft))?;
    a.code.jne(block)?;
    // The next group of rows.
    a.code.mov(rax, ROW_STRIDE)?;
    a.code.shl(rax, GROUP.ilog2())?;
    a.code.add(rax, local(Local::GroupStart))?;
    a.code.mov(ROW, rax)
}

/// One or two panels by one or two tile registers of activations, for one block of k. Accumulator `2 * i + j` holds
/// activations `i` by panel `j`; in memory sums stand as `[pair, row, panel, 16]`.
fn multiply_pair(a: &mut Asm, shape: &Shape, tiles: u8, panels: u8) -> Emitted {
    let accumulators: Vec<(u8, u8)> = (0..tiles).flat_map(|i| (0..panels).map(move |j| (i, j))).collect();
    let sums = |i: u8, j: u8| i64::from(i) * i64::from(TILE_ROWS) * 128 + i64::from(j) * 64;
    let (mut later, mut ready) = (a.code.create_label(), a.code.create_label());
    a.code.mov(rax, ROW)?;
    a.code.mov(rbx, ROW_STRIDE)?;
    a.code.shl(rbx, TILE_ROWS.ilog2())?;
    a.code.add(rbx, ROW)?;
    a.code.mov(rbp, local(Local::Pair))?;
    a.code.mov(rcx, local(Local::Steps))?;
    a.code.cmp(local(Local::BlocksLeft), shape.blocks)?;
    a.code.jne(later)?;
    accumulators.iter().try_for_each(|&(i, j)| a.tile_zero(2 * i + j))?;
    a.code.jmp(ready)?;
    a.place(&mut later)?;
    accumulators.iter().try_for_each(|&(i, j)| a.tile_load(2 * i + j, SUMS, LINE, sums(i, j)))?;
    a.place(&mut ready)?;
    let step = a.here()?;
    for &(i, j) in &accumulators {
        if i == 0 {
            a.tile_stream(6 + j, rbp, LINE, i64::from(j) * 64)?;
        }
        if j == 0 {
            a.tile_load(4 + i, [rax, rbx][usize::from(i)], ROW_STRIDE, 0)?;
        }
        a.tile_dot(2 * i + j, 4 + i, 6 + j)?;
    }
    a.code.add(rax, ROW_STEP)?;
    a.code.add(rbx, ROW_STEP)?;
    a.code.add(rbp, STEP)?;
    a.code.dec(rcx)?;
    a.code.jne(step)?;

    let (mut indirect, mut stored) = (a.code.create_label(), a.code.create_label());
    if tiles == 2 {
        // Whole groups store the last block's sums where they belong.
        a.code.mov(rax, local(Local::Direct))?;
        a.code.cmp(rax, local(Local::BlocksLeft))?;
        a.code.jne(indirect)?;
        a.code.mov(rbx, OUT_STRIDE)?;
        a.code.shl(rbx, TILE_ROWS.ilog2())?;
        a.code.add(rbx, PAIR_OUT)?;
        for &(i, j) in &accumulators {
            let at = i64::from(j) * i64::from(TILE_OUT);
            a.tile_store([PAIR_OUT, rbx][usize::from(i)], OUT_STRIDE, at, 2 * i + j)?;
        }
        a.code.jmp(stored)?;
    }
    a.place(&mut indirect)?;
    accumulators.iter().try_for_each(|&(i, j)| a.tile_store(SUMS, LINE, sums(i, j), 2 * i + j))?;
    a.place(&mut stored)
}

/// The sums of a group that is not whole to the results of its rows.
fn write_results(a: &mut Asm, panels: u8) -> Emitted {
    a.code.mov(rcx, local(Local::GroupRows))?;
    a.code.mov(rbx, local(Local::RowOut))?;
    a.code.mov(rax, SCRATCH)?;
    let row = a.here()?;
    for tile in 0..i32::from(panels) {
        for digit in 0..PAIRS {
            a.load(0, rax, i64::from(digit * PAIR_SUMS + tile * 64))?;
            a.store(rbx, i64::from(tile * TILE_OUT + digit * 64), 0)?;
        }
    }
    a.code.add(rax, 128)?;
    a.code.add(rbx, OUT_STRIDE)?;
    a.code.dec(rcx)?;
    a.code.jne(row)
}
