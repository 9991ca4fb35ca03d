//! Groups of columns by AMX-int8, whose sums become floats beside the products.
//!
//! ```text
//! for two tiles
//!   for group of columns
//!     for 32 activation rows
//!       for digit
//!         for product of 16 by 16 by 64   4 accumulators: 32 rows by this digit of both tiles
//!           an accumulator of the digit before goes to one of two buffers, before it is used anew
//!           some sums of the digit before that become floats, times scales, and are added to the results
//!           a vector of the next group's weights is decoded to panels
//! ```
//!
//! A product keeps the multiplier busy for 16 cycles, and all else takes longer. The CPU looks some 500 instructions and 100
//! stores ahead, so everything stands between products, evenly, and nothing waits for what was stored just before.

mod digits;

use super::super::arguments;
use super::super::asm::{Asm, Emitted, Width, slot};
use super::super::decode::{self, Digits};
use super::{GROUP, TILE_ROWS, enter, leave};
use digits::{digits, flush};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use trit_format::kernel::{BLOCK_COLUMNS, KernelSpec};
use trit_format::tile::{self, QUAD, VECTOR};

const SCRATCH: AsmRegister64 = r9;
const OUT_STRIDE: AsmRegister64 = r12;
/// Bytes from the scales of one activation row to those of the next.
const SCALE_STRIDE: AsmRegister64 = r10;
/// The first 16 and the other activation rows at the group's first column, and bytes between rows.
const ROWS: [AsmRegister64; 2] = [rax, rbx];
const ROW_STRIDE: AsmRegister64 = rdx;
/// 128: a row of the sums of two tiles.
const LINE: AsmRegister64 = r13;
/// Where the sums at hand go, and those of the digit before are.
const SUMS: AsmRegister64 = rbp;
const PENDING: AsmRegister64 = r11;
/// The panels of the digit at hand, and bytes from quad to quad.
const PANELS: AsmRegister64 = rdi;
const PANEL_STRIDE: AsmRegister64 = rcx;
/// Of the pending sums: results, and the scales of their activations.
const RESULTS: AsmRegister64 = r8;
const SCALES: AsmRegister64 = r14;
/// Weights of two tiles that are decoded, and where to. [`SCRATCH`] is not needed meanwhile.
const SOURCES: [AsmRegister64; 2] = [rsi, r15];
const TARGET: AsmRegister64 = SCRATCH;

/// Bytes of the sums of 32 rows by one digit of two tiles. Two such buffers come first in scratch memory.
const BUFFER: i32 = 4 * TILE_ROWS * 64;
/// Where in scratch memory packed activations begin, `[32, columns]`, rows at multiples of 64.
const PACKED: i32 = 2 * BUFFER;
/// A vector register apart from those that decoding uses.
const VALUE: u8 = 20;

/// Local variables.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Local {
    Args,
    Tiles,
    /// The tiles at hand: their first weights, first results, and the scales of their weights in the group at hand.
    Tile,
    Out,
    WeightScales,
    /// Bytes from one tile to the next, and from the scales of one tile's weights to those of the next.
    TileBytes,
    TileScales,
    GroupsLeft,
    /// Of the group at hand: panels, and activations and their scales of the first row.
    Panels,
    Activations,
    Scales,
    /// Of the group after it: weights that are not decoded yet, how often so many as [`Sizes::quads`], where they go, and
    /// where its panels begin.
    Source,
    DecodesLeft,
    Target,
    NextPanels,
    Scratch,
    /// 64 times the digit at hand.
    Digit,
    /// Of the rows at hand.
    RowsLeft,
    Row,
    RowOut,
    RowScales,
    /// Of how many digits the sums of 32 rows are pending: the last are in accumulators, those before in a buffer.
    Pending,
    /// Of the last: results, and the scales of their activations and weights. Then of those before.
    LastOut,
    LastScales,
    LastWeightScales,
    PendingOut,
    PendingScales,
    PendingWeightScales,
    Count,
}

const FRAME: i32 = 8 * (Local::Count as i32 / 2 * 2 + 1);

fn local(l: Local) -> AsmMemoryOperand {
    slot(l as i32)
}

/// The sizes that follow from the columns and the code.
#[derive(Clone, Copy)]
struct Sizes {
    spec: KernelSpec,
    columns: i32,
}

impl Sizes {
    fn digits(self) -> i32 {
        self.spec.code.digits() as i32
    }

    /// Bytes of a row of results of one tile, and of the scales of its weights in a group.
    fn tile_out(self) -> i32 {
        4 * self.spec.code.tile_rows() as i32
    }

    /// Columns of one product.
    fn step(self) -> i32 {
        self.columns.min(BLOCK_COLUMNS as i32)
    }

    /// Bytes from row to row of packed activations.
    fn packed_stride(self) -> i32 {
        (self.columns as usize).next_multiple_of(BLOCK_COLUMNS) as i32
    }

    /// Where in scratch memory the panels of two groups begin, `[quad, digit, tile, 64]` each. What is stored together lies
    /// together, because the CPU knows the addresses of few pages for stores.
    fn panels(self) -> [i32; 2] {
        let first = PACKED + GROUP * self.packed_stride();
        [first, first + self.columns / QUAD as i32 * self.panel_stride(2)]
    }

    /// Bytes from quad to quad.
    fn panel_stride(self, tiles: u8) -> i32 {
        self.digits() * i32::from(tiles) * 64
    }

    /// Quads of each tile that are decoded at a time: one vector for each product.
    fn quads(self) -> i32 {
        2 * self.columns / self.step()
    }

    /// How often so many are decoded for a group.
    fn decodes(self) -> i32 {
        self.columns / QUAD as i32 / self.quads()
    }

    /// Bytes of the weights of a group.
    fn weights(self) -> i32 {
        tile::bytes(self.columns as usize) as i32
    }
}

pub(in super::super) fn emit(spec: &KernelSpec) -> Result<Vec<u8>, IcedError> {
    let mut assembler = Asm::new(Width::Zmm)?;
    let a = &mut assembler;
    let sizes = Sizes { spec: *spec, columns: spec.k as i32 };
    // Four accumulators, two registers of activations and two of panels.
    let [sums, activations, panels] = [
        (TILE_ROWS as u8, 64),
        (TILE_ROWS as u8, sizes.step() as u8),
        ((sizes.step() / QUAD as i32) as u8, 64),
    ];
    enter(a, FRAME, [sums, sums, sums, sums, activations, activations, panels, panels])?;
    a.code.mov(local(Local::Args), rdi)?;
    for (to, from) in [
        (Local::Tile, arguments::weights()),
        (Local::Tiles, arguments::tiles()),
        (Local::Out, arguments::out()),
        (Local::WeightScales, arguments::weight_scales()),
        (Local::TileBytes, arguments::weight_stride()),
    ] {
        a.code.mov(rax, from)?;
        a.code.mov(local(to), rax)?;
    }
    a.code.mov(local(Local::Pending), 0)?;
    a.code.mov(rax, arguments::scratch())?;
    a.code.mov(local(Local::Scratch), rax)?;
    a.code.imul_3(rax, arguments::groups(), sizes.tile_out())?;
    a.code.mov(local(Local::TileScales), rax)?;
    a.code.mov(OUT_STRIDE, arguments::out_stride())?;
    a.code.shl(OUT_STRIDE, 2)?;
    a.code.mov(SCALE_STRIDE, arguments::activation_scale_stride())?;
    a.code.shl(SCALE_STRIDE, 2)?;
    a.code.mov(SCRATCH, arguments::scratch())?;
    a.code.mov(LINE, 128u64)?;
    a.code.mov(SUMS, SCRATCH)?;
    a.code.lea(PENDING, ptr(SCRATCH + BUFFER))?;
    decode::constants(a, spec.code, Digits::Signed)?;

    let mut decoders = [a.code.create_label(), a.code.create_label()];
    let (mut one, mut end) = (a.code.create_label(), a.code.create_label());
    let two = a.here()?;
    a.code.cmp(local(Local::Tiles), 1)?;
    a.code.je(one)?;
    groups(a, Blocking { sizes, tiles: 2, decoder: decoders[1] })?;
    a.code.mov(rax, local(Local::TileBytes))?;
    a.code.shl(rax, 1)?;
    a.code.add(local(Local::Tile), rax)?;
    a.code.add(local(Local::Out), 2 * sizes.tile_out())?;
    // The groups have moved on over the scales of one tile.
    a.code.mov(rax, local(Local::TileScales))?;
    a.code.add(local(Local::WeightScales), rax)?;
    a.code.sub(local(Local::Tiles), 2)?;
    a.code.jne(two)?;
    a.code.jmp(end)?;
    a.place(&mut one)?;
    groups(a, Blocking { sizes, tiles: 1, decoder: decoders[0] })?;
    a.place(&mut end)?;

    leave(a, FRAME)?;
    for (tiles, label) in (1..).zip(&mut decoders) {
        a.place(label)?;
        decode_quads(a, sizes, tiles)?;
    }
    assembler.finish()
}

/// A routine: decodes [`Sizes::quads`] of one or two tiles. It changes no pointers.
fn decode_quads(a: &mut Asm, sizes: Sizes, tiles: u8) -> Emitted {
    for (quad, tile) in (0..sizes.quads()).flat_map(|quad| (0..tiles).map(move |tile| (quad, tile))) {
        decode_vector(a, sizes, tiles, (quad, tile))?;
    }
    a.code.ret()
}

/// Decodes one quad of one of the tiles.
fn decode_vector(a: &mut Asm, sizes: Sizes, tiles: u8, (quad, tile): (i32, u8)) -> Emitted {
    let (source, at) = (SOURCES[usize::from(tile)], quad * VECTOR as i32);
    // The group after the next arrives meanwhile.
    a.code.prefetcht1(byte_ptr(source + (sizes.weights() + at)))?;
    let to = i64::from(quad * sizes.panel_stride(tiles)) + i64::from(tile) * 64;
    let digit = |d: usize| (TARGET, to + d as i64 * i64::from(tiles) * 64);
    decode::vector(a, sizes.spec.code, (source, i64::from(at)), digit)
}

/// What the routines below have in common.
#[derive(Clone, Copy)]
struct Blocking {
    sizes: Sizes,
    /// Tiles of weights, 1 or 2.
    tiles: u8,
    /// The routine that decodes so many.
    decoder: CodeLabel,
}

/// All groups of one or two tiles.
fn groups(a: &mut Asm, blocking: Blocking) -> Emitted {
    let sizes = blocking.sizes;
    a.code.mov(rdi, local(Local::Args))?;
    for (to, from) in [
        (Local::GroupsLeft, arguments::groups()),
        (Local::Activations, arguments::activations()),
        (Local::Scales, arguments::activation_scales()),
        (Local::Source, local(Local::Tile)),
    ] {
        a.code.mov(rax, from)?;
        a.code.mov(local(to), rax)?;
    }
    let [first, second] = sizes.panels();
    for (panels, begin) in [(Local::NextPanels, first), (Local::Panels, second)] {
        a.code.lea(rax, ptr(SCRATCH + begin))?;
        a.code.mov(local(panels), rax)?;
    }
    decode_next(a, sizes)?;
    let group = a.here()?;
    // What is left of the group, at first all of it.
    let (mut decoded, mut last) = (a.code.create_label(), a.code.create_label());
    let left = a.here()?;
    a.code.cmp(local(Local::DecodesLeft), 0)?;
    a.code.je(decoded)?;
    decode(a, blocking)?;
    a.code.jmp(left)?;
    a.place(&mut decoded)?;
    a.code.mov(rax, local(Local::Panels))?;
    a.code.mov(rcx, local(Local::NextPanels))?;
    a.code.mov(local(Local::NextPanels), rax)?;
    a.code.mov(local(Local::Panels), rcx)?;
    a.code.cmp(local(Local::GroupsLeft), 1)?;
    a.code.je(last)?;
    decode_next(a, sizes)?;
    a.place(&mut last)?;
    a.code.mov(rdi, local(Local::Args))?;
    pack_tail(a, sizes)?;
    rows(a, blocking)?;
    a.code.add(local(Local::Activations), sizes.columns)?;
    a.code.add(local(Local::Scales), size_of::<f32>() as i32)?;
    a.code.add(local(Local::WeightScales), sizes.tile_out())?;
    a.code.dec(local(Local::GroupsLeft))?;
    a.code.jne(group)?;
    flush(a, blocking)
}

/// From now on the next group is decoded.
fn decode_next(a: &mut Asm, sizes: Sizes) -> Emitted {
    a.code.mov(rax, local(Local::NextPanels))?;
    a.code.mov(local(Local::Target), rax)?;
    a.code.mov(local(Local::DecodesLeft), sizes.decodes())
}

/// Decodes [`Sizes::quads`] more of each tile.
fn decode(a: &mut Asm, blocking: Blocking) -> Emitted {
    sources(a, blocking)?;
    a.code.call(blocking.decoder)?;
    decoded(a, blocking)
}

/// Prepares the registers for decoding.
fn sources(a: &mut Asm, blocking: Blocking) -> Emitted {
    a.code.mov(SOURCES[0], local(Local::Source))?;
    if blocking.tiles == 2 {
        a.code.mov(SOURCES[1], SOURCES[0])?;
        a.code.add(SOURCES[1], local(Local::TileBytes))?;
    }
    a.code.mov(TARGET, local(Local::Target))
}

/// [`Sizes::quads`] were decoded.
fn decoded(a: &mut Asm, blocking: Blocking) -> Emitted {
    let Blocking { sizes, tiles, .. } = blocking;
    a.code.mov(SCRATCH, local(Local::Scratch))?;
    a.code.add(local(Local::Source), sizes.quads() * VECTOR as i32)?;
    a.code.add(local(Local::Target), sizes.quads() * sizes.panel_stride(tiles))?;
    a.code.dec(local(Local::DecodesLeft))
}

/// The rows past the last whole 32 go to scratch memory, so that whole registers may be loaded. What stands in the missing
/// rows does not matter, because it only enters the sums of these rows.
fn pack_tail(a: &mut Asm, sizes: Sizes) -> Emitted {
    let mut none = a.code.create_label();
    a.code.mov(rcx, arguments::rows())?;
    a.code.mov(rax, rcx)?;
    a.code.and(rax, -GROUP)?;
    a.code.sub(rcx, rax)?;
    a.code.je(none)?;
    a.code.mov(ROW_STRIDE, arguments::activation_stride())?;
    a.code.imul_2(rax, ROW_STRIDE)?;
    a.code.add(rax, local(Local::Activations))?;
    a.code.lea(rsi, ptr(SCRATCH + PACKED))?;
    let row = a.here()?;
    if sizes.columns < BLOCK_COLUMNS as i32 {
        for at in (0..sizes.columns).step_by(8) {
            a.code.mov(rbx, qword_ptr(rax + at))?;
            a.code.mov(qword_ptr(rsi + at), rbx)?;
        }
    } else {
        for at in (0..i64::from(sizes.columns)).step_by(64) {
            a.load(VALUE, rax, at)?;
            a.store(rsi, at, VALUE)?;
        }
    }
    a.code.add(rax, ROW_STRIDE)?;
    a.code.add(rsi, sizes.packed_stride())?;
    a.code.dec(rcx)?;
    a.code.jne(row)?;
    a.place(&mut none)
}

/// All activation rows by the panels of a group.
fn rows(a: &mut Asm, blocking: Blocking) -> Emitted {
    let sizes = blocking.sizes;
    for (to, from) in [
        (Local::RowsLeft, arguments::rows()),
        (Local::Row, local(Local::Activations)),
        (Local::RowOut, local(Local::Out)),
        (Local::RowScales, local(Local::Scales)),
    ] {
        a.code.mov(rax, from)?;
        a.code.mov(local(to), rax)?;
    }
    let [mut tail, mut few, mut end] = std::array::from_fn(|_| a.code.create_label());
    let again = a.here()?;
    a.code.cmp(local(Local::RowsLeft), GROUP)?;
    a.code.jl(tail)?;
    a.code.mov(rdi, local(Local::Args))?;
    a.code.mov(ROWS[0], local(Local::Row))?;
    a.code.mov(ROW_STRIDE, arguments::activation_stride())?;
    digits(a, blocking, 2, true)?;
    a.code.mov(rax, ROW_STRIDE)?;
    a.code.shl(rax, GROUP.ilog2())?;
    a.code.add(local(Local::Row), rax)?;
    for (pointer, stride) in [(Local::RowOut, OUT_STRIDE), (Local::RowScales, SCALE_STRIDE)] {
        a.code.mov(rax, stride)?;
        a.code.shl(rax, GROUP.ilog2())?;
        a.code.add(local(pointer), rax)?;
    }
    a.code.sub(local(Local::RowsLeft), GROUP)?;
    a.code.jne(again)?;
    a.code.jmp(end)?;
    a.place(&mut tail)?;
    flush(a, blocking)?;
    a.code.lea(ROWS[0], ptr(SCRATCH + PACKED))?;
    a.code.mov(ROW_STRIDE, sizes.packed_stride() as u64)?;
    a.code.cmp(local(Local::RowsLeft), TILE_ROWS)?;
    a.code.jle(few)?;
    digits(a, blocking, 2, false)?;
    a.code.jmp(end)?;
    a.place(&mut few)?;
    digits(a, blocking, 1, false)?;
    a.place(&mut end)
}
