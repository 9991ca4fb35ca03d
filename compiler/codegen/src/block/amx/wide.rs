//! Groups of 64 activation rows by one tile at a time.
//!
//! Four tile registers of activations meet one panel of trits. A step of 64 columns so takes one panel from memory in 64
//! cycles of the multiplier, instead of two, and its decoding, anew for every 64 rows, half of what it may.
//!
//! Panels are decoded [`AHEAD`] steps before they are multiplied, in the order in which they are: column by column of a
//! block of k, digit by digit, tile by tile, block by block, group by group. With one step between them the multiplier
//! would wait: what is stored for a tile to be loaded reaches L1 only after the products before it have retired, about
//! 50 cycles after their start, and the load takes as long again.

use super::*;

/// Activation rows of a group.
pub(super) const WIDE: i32 = 4 * TILE_ROWS;
/// Steps from decoding a panel to its products, one less than the ring holds.
const AHEAD: usize = 3;
/// Bytes of a panel, and of the ring of them: in scratch memory, within what holds the sums of narrower groups at other
/// times, at a multiple of twice its length, so that a bit says where it ends.
const PANEL_BYTES: i32 = 64 * TILE_ROWS;
const RING: i32 = PANEL_BYTES * (AHEAD as i32 + 1);
const _: () = assert!(3 * RING <= BUFFERS && RING & (RING - 1) == 0);
/// Tile registers: 0 to 3 hold sums, the next three activations in turn, the last the panel.
const ACTIVATIONS: [u8; 4] = [4, 5, 6, 4];
const TRITS_AT: u8 = 7;
/// Bytes of the sums of a group by one digit of one tile: `[row, 16]`.
const WIDE_SUMS: i32 = WIDE * 64;
/// Rows 0, 16, 32 and 48 of the group, at the columns that are multiplied next; of the results, when sums are stored.
const ROWS_AT: [AsmRegister64; 4] = [rax, rbx, rsi, r8];
/// 64: bytes between rows of sums and panels in scratch memory.
const LINE_64: AsmRegister64 = ROW_STEP;

/// As many groups as there are rows for, by one or two tiles.
pub(super) struct WideGroups<'a> {
    pub(super) shape: &'a Shape,
    pub(super) tiles: u8,
}

impl WideGroups<'_> {
    /// Moves [`ROW`], [`Local::RowOut`] and [`Local::RowsLeft`] on past the groups.
    pub(super) fn emit(&self, a: &mut Asm) -> Emitted {
        let shape = self.shape;
        let mut end = a.code.create_label();
        a.code.cmp(local(Local::RowsLeft), WIDE)?;
        a.code.jl(end)?;
        let mut decoders: Vec<CodeLabel> = self.panels().map(|_| a.code.create_label()).collect();
        a.code.lea(rax, ptr(decoders[0]))?;
        a.code.mov(local(Local::Decoder), rax)?;
        a.code.mov(local(Local::DecodeBlocks), shape.blocks)?;
        a.code.mov(local(Local::DecodeSteps), shape.first_block())?;
        a.code.mov(local(Local::ToDecode), shape.first_block())?;
        self.base(a, SOURCE)?;
        a.code.mov(local(Local::DecodeStart), SOURCE)?;
        a.code.lea(TARGET, ptr(SCRATCH + (2 * RING - 1)))?;
        a.code.and(TARGET, -2 * RING)?;
        a.code.mov(PANEL, TARGET)?;
        (0..AHEAD).try_for_each(|_| self.decode(a))?;

        let group = a.here()?;
        a.code.mov(local(Local::GroupStart), ROW)?;
        a.code.mov(local(Local::BlocksLeft), shape.blocks)?;
        let block = a.here()?;
        let mut sized = a.code.create_label();
        a.code.mov(rcx, shape.last as u64)?;
        a.code.cmp(local(Local::BlocksLeft), 1)?;
        a.code.je(sized)?;
        a.code.mov(rcx, shape.block as u64)?;
        a.place(&mut sized)?;
        a.code.mov(local(Local::Steps), rcx)?;
        self.panels().try_for_each(|(tile, digit)| self.multiply(a, tile, digit))?;
        a.code.add(ROW, shape.block * BLOCK_COLUMNS as i32)?;
        a.code.dec(local(Local::BlocksLeft))?;
        a.code.jne(block)?;
        // The next group.
        for (stride, start) in [(ROW_STRIDE, Local::GroupStart), (OUT_STRIDE, Local::RowOut)] {
            a.code.mov(rax, stride)?;
            a.code.shl(rax, WIDE.ilog2())?;
            a.code.add(local(start), rax)?;
        }
        a.code.mov(ROW, local(Local::GroupStart))?;
        a.code.sub(local(Local::RowsLeft), WIDE)?;
        a.code.cmp(local(Local::RowsLeft), WIDE)?;
        a.code.jge(group)?;
        a.code.jmp(end)?;
        for (i, (tile, digit)) in self.panels().enumerate() {
            a.place(&mut decoders[i])?;
            let next = (i + 1) % decoders.len();
            self.decoder(a, tile, digit, decoders[next])?;
        }
        a.place(&mut end)
    }

    /// Tiles and digits in the order in which they are multiplied.
    fn panels(&self) -> impl Iterator<Item = (u8, u8)> + use<> {
        (0..self.tiles).flat_map(|tile| (0..TRITS as u8).map(move |digit| (tile, digit)))
    }

    /// Where the bytes that are decoded begin.
    fn base(&self, a: &mut Asm, to: AsmRegister64) -> Emitted {
        match self.shape.copied() {
            true => a.code.lea(to, ptr(SCRATCH + self.shape.decoded())),
            false => a.code.mov(to, local(Local::Weights)),
        }
    }

    /// Decodes the panel that is next to [`TARGET`].
    fn decode(&self, a: &mut Asm) -> Emitted {
        a.code.call(local(Local::Decoder))?;
        next_panel(a, TARGET)
    }

    /// A routine: one digit of one tile for the step at [`SOURCE`]. What is decoded after the block's last step is what
    /// the routine `next` is for. Once all has been, all of it is decoded again, for the next group of rows.
    fn decoder(&self, a: &mut Asm, tile: u8, digit: u8, next: CodeLabel) -> Emitted {
        let shape = self.shape;
        // The return address stands on the stack.
        let local = |l: Local| slot(l as i32 + 1);
        let mut done = a.code.create_label();
        for quad in 0..STEP_QUADS {
            let at = i64::from(quad * VECTOR as i32);
            if (tile, digit) == (0, 0) && shape.prefetch > 0 && !shape.copied() {
                a.code.prefetcht1(byte_ptr(SOURCE + (at as i32 + shape.prefetch)))?;
            }
            decode::one_digit(a, digit, (SOURCE, at), (TARGET, at))?;
        }
        a.code.add(SOURCE, STEP_WEIGHTS)?;
        a.code.dec(local(Local::ToDecode))?;
        a.code.jne(done)?;
        a.code.lea(SOURCE, ptr(next))?;
        a.code.mov(local(Local::Decoder), SOURCE)?;
        let last = (tile + 1, usize::from(digit) + 1) == (self.tiles, TRITS);
        if last {
            let (mut again, mut known) = (a.code.create_label(), a.code.create_label());
            a.code.dec(local(Local::DecodeBlocks))?;
            a.code.je(again)?;
            a.code.add(local(Local::DecodeStart), shape.block * STEP_WEIGHTS)?;
            a.code.cmp(local(Local::DecodeBlocks), 1)?;
            a.code.jne(known)?;
            a.code.mov(local(Local::DecodeSteps), shape.last)?;
            a.code.jmp(known)?;
            a.place(&mut again)?;
            a.code.mov(local(Local::DecodeBlocks), shape.blocks)?;
            a.code.mov(local(Local::DecodeSteps), shape.first_block())?;
            match shape.copied() {
                true => a.code.lea(SOURCE, ptr(SCRATCH + shape.decoded()))?,
                false => a.code.mov(SOURCE, local(Local::Weights))?,
            }
            a.code.mov(local(Local::DecodeStart), SOURCE)?;
            a.place(&mut known)?;
        }
        a.code.mov(SOURCE, local(Local::DecodeSteps))?;
        a.code.mov(local(Local::ToDecode), SOURCE)?;
        a.code.mov(SOURCE, local(Local::DecodeStart))?;
        let next_tile = if usize::from(digit) + 1 < TRITS { tile } else { (tile + 1) % self.tiles };
        if next_tile > 0 {
            a.code.add(SOURCE, shape.decoded_tile())?;
        }
        a.place(&mut done)?;
        a.code.ret()
    }

    /// One digit of one tile for one block of k.
    fn multiply(&self, a: &mut Asm, tile: u8, digit: u8) -> Emitted {
        let shape = self.shape;
        let several = shape.blocks > 1;
        let sums = |i: u8| {
            let first = (i32::from(tile) * TRITS as i32 + i32::from(digit)) * WIDE_SUMS;
            i64::from(shape.wide_sums() + first + i32::from(i) * TILE_ROWS * 64)
        };
        let (mut later, mut ready) = (a.code.create_label(), a.code.create_label());
        a.code.mov(ROWS_AT[0], ROW)?;
        rows_after_first(a, ROW_STRIDE)?;
        a.code.mov(rcx, local(Local::Steps))?;
        if several {
            a.code.cmp(local(Local::BlocksLeft), shape.blocks)?;
            a.code.jne(later)?;
        }
        (0..4).try_for_each(|i| a.tile_zero(i))?;
        if several {
            a.code.jmp(ready)?;
            a.place(&mut later)?;
            (0..4).try_for_each(|i| a.tile_load(i, SCRATCH, LINE_64, sums(i)))?;
            a.place(&mut ready)?;
        }
        let step = a.here()?;
        self.decode(a)?;
        self.step(a)?;
        a.code.dec(rcx)?;
        a.code.jne(step)?;
        let (mut indirect, mut stored) = (a.code.create_label(), a.code.create_label());
        if several {
            a.code.cmp(local(Local::BlocksLeft), 1)?;
            a.code.jne(indirect)?;
        }
        a.code.mov(ROWS_AT[0], local(Local::RowOut))?;
        rows_after_first(a, OUT_STRIDE)?;
        let at = i64::from(i32::from(tile) * TILE_OUT + i32::from(digit) * 64);
        (0..4).try_for_each(|i| a.tile_store(ROWS_AT[usize::from(i)], OUT_STRIDE, at, i))?;
        if several {
            a.code.jmp(stored)?;
            a.place(&mut indirect)?;
            (0..4).try_for_each(|i| a.tile_store(SCRATCH, LINE_64, sums(i), i))?;
            a.place(&mut stored)?;
        }
        Ok(())
    }

    /// The panel at [`PANEL`] by the activations at [`ROWS_AT`], all of which move on.
    fn step(&self, a: &mut Asm) -> Emitted {
        a.tile_load(TRITS_AT, PANEL, LINE_64, 0)?;
        for (i, activations) in (0..).zip(ACTIVATIONS) {
            a.tile_load(activations, ROWS_AT[usize::from(i)], ROW_STRIDE, 0)?;
            a.tile_dot(i, activations, TRITS_AT)?;
        }
        ROWS_AT.into_iter().try_for_each(|row| a.code.add(row, BLOCK_COLUMNS as i32))?;
        next_panel(a, PANEL)
    }
}

/// Around the ring.
fn next_panel(a: &mut Asm, pointer: AsmRegister64) -> Emitted {
    a.code.add(pointer, PANEL_BYTES)?;
    a.code.and(pointer, !RING)
}

/// Lets [`ROWS_AT`] after the first point to rows 16, 32 and 48 from it. Changes `rcx`.
fn rows_after_first(a: &mut Asm, stride: AsmRegister64) -> Emitted {
    a.code.mov(rcx, stride)?;
    a.code.shl(rcx, TILE_ROWS.ilog2())?;
    ROWS_AT.windows(2).try_for_each(|pair| a.code.lea(pair[1], ptr(pair[0] + rcx)))
}
