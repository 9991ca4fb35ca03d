//! Blocks of rows by AMX-int8.
//!
//! ```text
//! for two tiles
//!   for 32 activation rows
//!     for block of k
//!       for digit                       4 accumulators of 16 by 16: 32 rows by this digit of both tiles
//!         for 64 columns of the block
//! ```
//!
//! Two panels of 16 tile rows and the activations of 64 columns are 4 KiB, which the multiplier consumes in 64
//! cycles; L2 does not deliver all of that, but half of it, the panels, at no cost. Within a block of k the
//! activations of 32 rows stay in L1, or nearly, while their sums pass through scratch memory. Where the panels come
//! from depends on the number of rows, see [`Panels`].
//!
//! On a Xeon of 2023 at 2.8 GHz the multiplier reaches 4.4 TOPS with operands from L1, and 3.8 where activations come
//! from L2 and results go there. Passing sums on costs a fifth of that with blocks of 512 columns, a sixth with 1280.

mod group;
pub(super) mod grouped;

use super::arguments;
use super::asm::{Asm, Emitted, Width, slot};
use super::decode::{self, Digits};
use group::Group;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use trit_format::dense243::Code;
use trit_format::kernel::{BLOCK_COLUMNS, KernelSpec};
use trit_format::tile::{self, QUAD, VECTOR, padded_k};

/// Where the trits of two tiles stand as the matrices B of `tdpbssd`, with 16 lanes of 4 columns a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Panels {
    /// All panels are in scratch memory, that is in L2, and are decoded before the first product. Stores bound
    /// decoding, five lines for each line of weights.
    Stored,
    /// The panels of one step are in L1. They are decoded anew for every 32 rows, while the multiplier works on the
    /// step before.
    Passing,
}

/// The most rows for which panels are decoded anew. With more rows, it is faster to decode once.
const FEW_ROWS: i32 = 128;
/// Rows of a tile register.
const TILE_ROWS: i32 = 16;
/// Bytes of two panels, or of 32 activation rows, by 64 columns.
const STEP: i32 = 2 * TILE_ROWS * 64;
/// Most steps of a block of k: 40 KiB of activations. Fewer passes of the sums are worth more than a place in L1 for
/// all.
const BLOCK_STEPS: usize = 20;
/// Quads of a step.
const STEP_QUADS: i32 = (BLOCK_COLUMNS / QUAD) as i32;
/// Bytes of weights of one tile in a step.
const STEP_WEIGHTS: i32 = STEP_QUADS * VECTOR as i32;
/// Activation rows handled together.
const GROUP: i32 = 2 * TILE_ROWS;
/// Bytes of the sums of 32 rows by one digit of two tiles.
const SUMS: i32 = 4 * TILE_ROWS * 64;
const SCRATCH: AsmRegister64 = r9;
const OUT: AsmRegister64 = r10;
const OUT_STRIDE: AsmRegister64 = r12;
/// First row of the group at the block's first column; bytes between rows, and between steps.
const ROW: AsmRegister64 = r11;
const ROW_STRIDE: AsmRegister64 = rdx;
const ROW_STEP: AsmRegister64 = r14;
/// 128: a row of two panels, or of their sums.
const LINE: AsmRegister64 = r13;
/// Weights that are decoded next, and where to.
const SOURCE: AsmRegister64 = r15;
const TARGET: AsmRegister64 = rdi;
/// Panels that are multiplied next.
const PANEL: AsmRegister64 = rbp;

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
    /// Panels, or weights, at the block's first column.
    BlockStart,
    Steps,
    Count,
}

/// Keeps the stack aligned: six registers and the return address come before.
const FRAME: i32 = 8 * (Local::Count as i32 / 2 * 2 + 1);

fn local(l: Local) -> AsmMemoryOperand {
    slot(l as i32)
}

/// The sizes that follow from `k`, and where its panels come from.
struct AmxBlocking {
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

impl AmxBlocking {
    fn new(spec: &KernelSpec) -> AmxBlocking {
        let k = spec.k as usize;
        let steps = k.div_ceil(BLOCK_COLUMNS);
        let block = steps.div_ceil(steps.div_ceil(BLOCK_STEPS));
        let blocks = steps.div_ceil(block);
        let last = steps - (blocks - 1) * block;
        let [steps, block, last, blocks] = [steps, block, last, blocks].map(|n| n as i32);
        let (tile, quads) = (tile::bytes(k) as i32, (padded_k(k) / QUAD) as i32);
        AmxBlocking { code: spec.code, tile, quads, steps, block, last, blocks }
    }

    /// Digits of a byte.
    fn digits(&self) -> usize {
        self.code.digits()
    }

    /// Bytes of a row of results of one tile.
    fn tile_out(&self) -> i32 {
        4 * self.code.tile_rows() as i32
    }

    /// Where in scratch memory two buffers begin, for the panels of one step each. Sums come first.
    fn buffers(&self) -> i32 {
        self.digits() as i32 * SUMS
    }

    /// Where in scratch memory the packed activations begin.
    fn packed(&self) -> i32 {
        self.buffers() + 2 * STEP
    }

    /// The code from which passing panels are decoded.
    fn passing(&self) -> Code {
        if self.code == Code::Binary { Code::Binary } else { Code::Spread }
    }

    /// Where in scratch memory decoded tiles begin, after a group of packed activations: `[digit, quad, tile, 64]`
    /// where panels are stored, else copies of the tiles in the code [`AmxBlocking::passing`] with a whole last step.
    fn decoded(&self) -> i32 {
        self.packed() + self.steps * STEP
    }

    /// Bytes of the panels of one digit.
    fn digit(&self) -> i32 {
        self.steps * STEP
    }

    /// Whether passing panels are decoded from copies of the tiles.
    fn copied(&self) -> bool {
        self.code != self.passing() || self.quads % STEP_QUADS != 0
    }
}

/// The routines that decode each digit of a step, of one tile and of two.
type Decoders = [Vec<CodeLabel>; 2];

pub(super) fn emit(spec: &KernelSpec) -> Result<Vec<u8>, IcedError> {
    let mut assembler = Asm::new(Width::Zmm)?;
    let a = &mut assembler;
    let blocking = &AmxBlocking::new(spec);
    enter(a, FRAME, [(TILE_ROWS as u8, 64); 8])?;
    a.code.mov(local(Local::Args), rdi)?;
    for (to, from) in [(Local::Weights, arguments::weights()), (Local::Tiles, arguments::tiles())] {
        a.code.mov(rax, from)?;
        a.code.mov(local(to), rax)?;
    }
    a.code.mov(OUT, arguments::out())?;
    a.code.mov(OUT_STRIDE, arguments::out_stride())?;
    a.code.shl(OUT_STRIDE, 2)?;
    a.code.mov(SCRATCH, arguments::scratch())?;
    a.code.mov(LINE, 128u64)?;
    pack_tail(a, blocking)?;

    let mut decoders: Decoders =
        std::array::from_fn(|_| (0..blocking.digits()).map(|_| a.code.create_label()).collect());
    let (mut few, mut end) = (a.code.create_label(), a.code.create_label());
    a.code.cmp(arguments::rows(), FEW_ROWS)?;
    a.code.jbe(few)?;
    tiles(a, blocking, Panels::Stored, &decoders)?;
    a.code.jmp(end)?;
    a.place(&mut few)?;
    tiles(a, blocking, Panels::Passing, &decoders)?;
    a.place(&mut end)?;

    leave(a, FRAME)?;
    for (tiles, labels) in (1..).zip(&mut decoders) {
        for (digit, label) in (0..).zip(labels) {
            a.place(label)?;
            decode_step(a, blocking, tiles, digit)?;
        }
    }
    assembler.finish()
}

/// What a function gives back as it was.
const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

/// Begins a kernel with `frame` bytes of local variables and tile registers of so many rows, and bytes in each.
fn enter(a: &mut Asm, frame: i32, shapes: [(u8, u8); 8]) -> Emitted {
    SAVED.into_iter().try_for_each(|register| a.code.push(register))?;
    a.code.sub(rsp, frame)?;
    let mut configuration = [0; 64];
    // The palette of eight registers.
    configuration[0] = 1;
    for (register, (rows, bytes)) in shapes.into_iter().enumerate() {
        configuration[16 + 2 * register] = bytes;
        configuration[48 + register] = rows;
    }
    let label = a.constant_label(configuration);
    a.code.ldtilecfg(ptr(label))
}

/// Ends such a kernel.
fn leave(a: &mut Asm, frame: i32) -> Emitted {
    a.code.tilerelease()?;
    a.code.add(rsp, frame)?;
    SAVED.into_iter().rev().try_for_each(|register| a.code.pop(register))?;
    a.code.vzeroupper()?;
    a.code.ret()
}

/// The rows past the last whole group go to scratch memory, so that whole tiles may be loaded: `[step, row, 64]`.
/// What stands in the missing rows does not matter, because it only enters the results of these rows.
fn pack_tail(a: &mut Asm, blocking: &AmxBlocking) -> Emitted {
    let mut none = a.code.create_label();
    a.code.mov(rcx, arguments::rows())?;
    a.code.mov(rax, rcx)?;
    a.code.and(rax, -GROUP)?;
    a.code.sub(rcx, rax)?;
    a.code.je(none)?;
    a.code.mov(ROW_STRIDE, arguments::activation_stride())?;
    a.code.imul_2(rax, ROW_STRIDE)?;
    a.code.add(rax, arguments::activations())?;
    a.code.lea(rbp, ptr(SCRATCH + blocking.packed()))?;
    let row = a.here()?;
    a.code.mov(rbx, rbp)?;
    a.code.mov(rsi, rax)?;
    a.code.mov(r11, blocking.steps as u64)?;
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

/// All tiles, two at a time, and one that may be left.
fn tiles(a: &mut Asm, blocking: &AmxBlocking, panels: Panels, decoders: &Decoders) -> Emitted {
    match panels {
        Panels::Stored => decode::constants(a, blocking.code, Digits::Signed)?,
        Panels::Passing => decode::constants(a, blocking.passing(), Digits::Signed)?,
    }
    if panels == Panels::Passing && blocking.code != blocking.passing() {
        decode::spread_constants(a)?;
    }
    let (mut one, mut end) = (a.code.create_label(), a.code.create_label());
    let two = a.here()?;
    a.code.cmp(local(Local::Tiles), 1)?;
    a.code.je(one)?;
    for tiles in [2, 1] {
        match panels {
            Panels::Stored => store_panels(a, blocking, tiles)?,
            Panels::Passing if blocking.copied() => copy(a, blocking, tiles)?,
            Panels::Passing => {}
        }
        groups(a, blocking, panels, tiles, decoders)?;
        if tiles == 2 {
            a.code.add(local(Local::Weights), 2 * blocking.tile)?;
            a.code.add(OUT, 2 * blocking.tile_out())?;
            a.code.sub(local(Local::Tiles), 2)?;
            a.code.jne(two)?;
            a.code.jmp(end)?;
            a.place(&mut one)?;
        }
    }
    a.place(&mut end)
}

/// Decodes one or two tiles.
fn store_panels(a: &mut Asm, blocking: &AmxBlocking, tiles: u8) -> Emitted {
    const QUADS: i32 = 4;
    let each = |a: &mut Asm, quads: i32| -> Emitted {
        for (quad, tile) in (0..quads).flat_map(|quad| (0..i32::from(tiles)).map(move |tile| (quad, tile))) {
            let from = i64::from(quad * VECTOR as i32 + tile * blocking.tile);
            let to = i64::from(quad * 128 + tile * 64);
            let digit = |d: usize| (TARGET, d as i64 * i64::from(blocking.digit()) + to);
            decode::vector(a, blocking.code, (SOURCE, from), digit)?;
        }
        Ok(())
    };
    a.code.mov(SOURCE, local(Local::Weights))?;
    a.code.lea(TARGET, ptr(SCRATCH + blocking.decoded()))?;
    if blocking.quads >= QUADS {
        a.code.mov(rcx, (blocking.quads / QUADS) as u64)?;
        let quads = a.here()?;
        each(a, QUADS)?;
        a.code.add(SOURCE, QUADS * VECTOR as i32)?;
        a.code.add(TARGET, QUADS * 128)?;
        a.code.dec(rcx)?;
        a.code.jne(quads)?;
    }
    each(a, blocking.quads % QUADS)
}

/// Copies one or two tiles to scratch memory, each followed by what fills its last step.
fn copy(a: &mut Asm, blocking: &AmxBlocking, tiles: u8) -> Emitted {
    a.code.mov(SOURCE, local(Local::Weights))?;
    for tile in 0..i32::from(tiles) {
        a.code.lea(TARGET, ptr(SCRATCH + (blocking.decoded() + tile * blocking.steps * STEP_WEIGHTS)))?;
        a.code.mov(rcx, blocking.quads as u64)?;
        let quad = a.here()?;
        if blocking.code == blocking.passing() {
            a.load(0, SOURCE, 0)?;
            a.store(TARGET, 0, 0)?;
        } else {
            decode::spread(a, (SOURCE, 0), (TARGET, 0))?;
        }
        a.code.add(SOURCE, VECTOR as i32)?;
        a.code.add(TARGET, VECTOR as i32)?;
        a.code.dec(rcx)?;
        a.code.jne(quad)?;
    }
    Ok(())
}

/// All activation rows by one or two tiles.
fn groups(a: &mut Asm, blocking: &AmxBlocking, panels: Panels, tiles: u8, decoders: &Decoders) -> Emitted {
    a.code.mov(rdi, local(Local::Args))?;
    a.code.mov(rax, arguments::rows())?;
    a.code.mov(local(Local::RowsLeft), rax)?;
    a.code.mov(ROW, arguments::activations())?;
    a.code.mov(ROW_STRIDE, arguments::activation_stride())?;
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
    a.code.lea(ROW, ptr(SCRATCH + blocking.packed()))?;
    a.code.mov(ROW_STRIDE, 64u64)?;
    a.code.mov(ROW_STEP, STEP as u64)?;
    a.code.cmp(rax, TILE_ROWS)?;
    a.code.jle(few)?;
    a.place(&mut whole)?;
    Group { blocking, panels, rows: 2, tiles, decoders }.blocks(a)?;
    a.code.jmp(many)?;
    a.place(&mut few)?;
    Group { blocking, panels, rows: 1, tiles, decoders }.blocks(a)?;
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
    write_results(a, blocking, tiles)?;
    a.place(&mut next)
}

/// The sums of a group that is not whole to the results of its rows.
fn write_results(a: &mut Asm, blocking: &AmxBlocking, tiles: u8) -> Emitted {
    a.code.mov(rcx, local(Local::GroupRows))?;
    a.code.mov(rbx, local(Local::RowOut))?;
    a.code.mov(rax, SCRATCH)?;
    let row = a.here()?;
    for tile in 0..i32::from(tiles) {
        for digit in 0..blocking.digits() as i32 {
            a.load(0, rax, i64::from(digit * SUMS + tile * 64))?;
            a.store(rbx, i64::from(tile * blocking.tile_out() + digit * 64), 0)?;
        }
    }
    a.code.add(rax, 128)?;
    a.code.add(rbx, OUT_STRIDE)?;
    a.code.dec(rcx)?;
    a.code.jne(row)
}

/// A routine: one digit of one or two tiles for the step at [`SOURCE`], which moves on, to the panels at [`TARGET`].
fn decode_step(a: &mut Asm, blocking: &AmxBlocking, tiles: i32, digit: u8) -> Emitted {
    let tile_bytes = if blocking.copied() { blocking.steps * STEP_WEIGHTS } else { blocking.tile };
    for (quad, tile) in (0..STEP_QUADS).flat_map(|quad| (0..tiles).map(move |tile| (quad, tile))) {
        let from = (SOURCE, i64::from(quad * VECTOR as i32 + tile * tile_bytes));
        decode::one_digit(a, blocking.passing(), digit, from, (TARGET, i64::from(quad * 128 + tile * 64)))?;
    }
    a.code.add(SOURCE, STEP_WEIGHTS)?;
    a.code.ret()
}
