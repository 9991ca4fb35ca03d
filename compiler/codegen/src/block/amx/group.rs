//! The products of one group of activation rows.

use super::*;

/// One or two tile registers of activation rows by one or two tiles.
pub(super) struct Group<'a> {
    pub(super) blocking: &'a AmxBlocking,
    pub(super) panels: Panels,
    /// Tile registers of activation rows, 1 or 2.
    pub(super) rows: u8,
    /// Tiles of weights, 1 or 2.
    pub(super) tiles: u8,
    pub(super) decoders: &'a Decoders,
}

impl Group<'_> {
    /// Accumulators `(i, j)`: activations `i` by tile `j`, in register `2 * i + j`.
    fn accumulators(&self) -> impl Iterator<Item = (u8, u8)> + use<> {
        let tiles = self.tiles;
        (0..self.rows).flat_map(move |i| (0..tiles).map(move |j| (i, j)))
    }

    /// All blocks of k and all digits.
    pub(super) fn blocks(&self, a: &mut Asm) -> Emitted {
        let blocking = self.blocking;
        a.code.mov(local(Local::GroupStart), ROW)?;
        let bytes = match self.panels {
            Panels::Stored => STEP,
            Panels::Passing => STEP_WEIGHTS,
        };
        if self.panels == Panels::Stored || blocking.copied() {
            a.code.lea(rax, ptr(SCRATCH + blocking.decoded()))?;
        } else {
            a.code.mov(rax, local(Local::Weights))?;
        }
        a.code.mov(local(Local::BlockStart), rax)?;
        a.code.mov(local(Local::BlocksLeft), blocking.blocks)?;
        let block = a.here()?;
        let mut sized = a.code.create_label();
        a.code.mov(rcx, blocking.last as u64)?;
        a.code.cmp(local(Local::BlocksLeft), 1)?;
        a.code.je(sized)?;
        a.code.mov(rcx, blocking.block as u64)?;
        a.place(&mut sized)?;
        a.code.mov(local(Local::Steps), rcx)?;
        if self.panels == Panels::Passing {
            a.code.mov(SOURCE, local(Local::BlockStart))?;
            a.code.lea(TARGET, ptr(SCRATCH + blocking.buffers()))?;
            a.code.lea(PANEL, ptr(SCRATCH + (blocking.buffers() + STEP)))?;
            self.decode(a, 0)?;
            a.code.xchg(PANEL, TARGET)?;
        }
        (0..blocking.digits()).try_for_each(|digit| self.multiply(a, digit))?;
        a.code.mov(rax, ROW_STEP)?;
        a.code.imul_3(rax, rax, blocking.block)?;
        a.code.add(ROW, rax)?;
        a.code.add(local(Local::BlockStart), blocking.block * bytes)?;
        a.code.dec(local(Local::BlocksLeft))?;
        a.code.jne(block)?;
        // The next group of rows.
        a.code.mov(rax, ROW_STRIDE)?;
        a.code.shl(rax, GROUP.ilog2())?;
        a.code.add(rax, local(Local::GroupStart))?;
        a.code.mov(ROW, rax)
    }

    fn decode(&self, a: &mut Asm, digit: usize) -> Emitted {
        a.code.call(self.decoders[usize::from(self.tiles) - 1][digit])
    }

    /// One digit for one block of k.
    fn multiply(&self, a: &mut Asm, digit: usize) -> Emitted {
        let blocking = self.blocking;
        // In scratch memory sums stand as `[digit, row, tile, 16]`.
        let sums = |i: u8, j: u8| {
            i64::from(digit as i32 * SUMS + i32::from(i) * TILE_ROWS * 128 + i32::from(j) * 64)
        };
        let (mut later, mut ready) = (a.code.create_label(), a.code.create_label());
        a.code.mov(rax, ROW)?;
        a.code.mov(rbx, ROW_STRIDE)?;
        a.code.shl(rbx, TILE_ROWS.ilog2())?;
        a.code.add(rbx, ROW)?;
        a.code.mov(rcx, local(Local::Steps))?;
        a.code.cmp(local(Local::BlocksLeft), blocking.blocks)?;
        a.code.jne(later)?;
        self.accumulators().try_for_each(|(i, j)| a.tile_zero(2 * i + j))?;
        a.code.jmp(ready)?;
        a.place(&mut later)?;
        self.accumulators().try_for_each(|(i, j)| a.tile_load(2 * i + j, SCRATCH, LINE, sums(i, j)))?;
        a.place(&mut ready)?;
        match self.panels {
            Panels::Stored => {
                a.code.mov(PANEL, local(Local::BlockStart))?;
                a.code.add(PANEL, digit as i32 * blocking.digit())?;
                let step = a.here()?;
                self.step(a)?;
                a.code.add(PANEL, STEP)?;
                a.code.dec(rcx)?;
                a.code.jne(step)?;
            }
            Panels::Passing => {
                // Stores reach L1 only after all that stands before them, products too, has retired. So the next
                // step is decoded ahead of the products of this one, else these would wait.
                let mut last = a.code.create_label();
                a.code.dec(rcx)?;
                a.code.je(last)?;
                let step = a.here()?;
                self.decode(a, digit)?;
                self.step(a)?;
                a.code.xchg(PANEL, TARGET)?;
                a.code.dec(rcx)?;
                a.code.jne(step)?;
                a.place(&mut last)?;
                if digit + 1 < blocking.digits() {
                    a.code.mov(SOURCE, local(Local::BlockStart))?;
                    self.decode(a, digit + 1)?;
                }
                self.step(a)?;
                a.code.xchg(PANEL, TARGET)?;
            }
        }
        let (mut indirect, mut stored) = (a.code.create_label(), a.code.create_label());
        if self.rows == 2 {
            // Whole groups store the last block's sums where they belong.
            a.code.mov(rax, local(Local::Direct))?;
            a.code.cmp(rax, local(Local::BlocksLeft))?;
            a.code.jne(indirect)?;
            a.code.mov(rax, local(Local::RowOut))?;
            a.code.mov(rbx, OUT_STRIDE)?;
            a.code.shl(rbx, TILE_ROWS.ilog2())?;
            a.code.add(rbx, rax)?;
            for (i, j) in self.accumulators() {
                let at = i64::from(i32::from(j) * blocking.tile_out() + digit as i32 * 64);
                a.tile_store([rax, rbx][usize::from(i)], OUT_STRIDE, at, 2 * i + j)?;
            }
            a.code.jmp(stored)?;
        }
        a.place(&mut indirect)?;
        self.accumulators().try_for_each(|(i, j)| a.tile_store(SCRATCH, LINE, sums(i, j), 2 * i + j))?;
        a.place(&mut stored)
    }

    /// The panels at [`PANEL`] by the activations at `rax` and `rbx`, which move on.
    fn step(&self, a: &mut Asm) -> Emitted {
        for (i, j) in self.accumulators() {
            if i == 0 {
                match self.panels {
                    Panels::Stored => a.tile_stream(6 + j, PANEL, LINE, i64::from(j) * 64)?,
                    Panels::Passing => a.tile_load(6 + j, PANEL, LINE, i64::from(j) * 64)?,
                }
            }
            if j == 0 {
                a.tile_load(4 + i, [rax, rbx][usize::from(i)], ROW_STRIDE, 0)?;
            }
            a.tile_dot(2 * i + j, 4 + i, 6 + j)?;
        }
        a.code.add(rax, ROW_STEP)?;
        a.code.add(rbx, ROW_STEP)
    }
}
