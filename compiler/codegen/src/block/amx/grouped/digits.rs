//! The products of one group of columns, and what is done between them.

use super::*;
use crate::block::asm::{VADDPS, VCVTDQ2PS, VMULPS};

/// Vector registers beside [`VALUE`]: scales of two tiles' weights, those of an activation row, and a temporary.
const WEIGHTS: u8 = 16;
const SCALE: u8 = 18;
const FACTOR: u8 = 19;

/// All digits by one or two registers of activation rows. `whole` are 32 rows, whose last sums stay pending.
pub(super) fn digits(a: &mut Asm, blocking: Blocking, rows: u8, whole: bool) -> Emitted {
    let sizes = blocking.sizes;
    if rows == 2 {
        a.code.mov(ROWS[1], ROW_STRIDE)?;
        a.code.shl(ROWS[1], TILE_ROWS.ilog2())?;
        a.code.add(ROWS[1], ROWS[0])?;
    }
    a.code.mov(PANELS, local(Local::Panels))?;
    a.code.mov(PANEL_STRIDE, sizes.panel_stride(blocking.tiles) as u64)?;
    a.code.mov(local(Local::Digit), 0)?;
    let digit = a.here()?;
    if whole {
        let [mut first, mut second, mut rest, mut multiplied] =
            std::array::from_fn(|_| a.code.create_label());
        a.code.cmp(local(Local::Pending), 1)?;
        a.code.jl(first)?;
        a.code.je(second)?;
        a.code.cmp(local(Local::DecodesLeft), 0)?;
        a.code.je(rest)?;
        products(a, blocking, rows, Beside { stores: true, floats: true, decodes: true })?;
        a.code.jmp(multiplied)?;
        a.place(&mut rest)?;
        products(a, blocking, rows, Beside { stores: true, floats: true, decodes: false })?;
        a.code.jmp(multiplied)?;
        a.place(&mut second)?;
        products(a, blocking, rows, Beside { stores: true, ..Beside::default() })?;
        a.code.mov(local(Local::Pending), 2)?;
        a.code.jmp(multiplied)?;
        a.place(&mut first)?;
        products(a, blocking, rows, Beside::default())?;
        a.code.mov(local(Local::Pending), 1)?;
        a.place(&mut multiplied)?;
        a.code.xchg(SUMS, PENDING)?;
        last_is_pending(a)?;
    } else {
        products(a, blocking, rows, Beside::default())?;
    }
    for (to, from, digit) in [
        (Local::LastOut, Local::RowOut, true),
        (Local::LastScales, Local::RowScales, false),
        (Local::LastWeightScales, Local::WeightScales, true),
    ] {
        a.code.mov(rsi, local(from))?;
        if digit {
            a.code.add(rsi, local(Local::Digit))?;
        }
        a.code.mov(local(to), rsi)?;
    }
    if !whole {
        accumulators(rows, blocking.tiles).try_for_each(|(i, j)| store(a, i, j))?;
        a.code.xchg(SUMS, PENDING)?;
        last_is_pending(a)?;
        a.code.mov(rsi, local(Local::RowsLeft))?;
        floats(a, blocking)?;
    }
    a.code.add(PANELS, i32::from(blocking.tiles) * 64)?;
    a.code.add(local(Local::Digit), 64)?;
    a.code.cmp(local(Local::Digit), 64 * sizes.digits())?;
    a.code.jne(digit)
}

/// The last sums take the place of those before.
fn last_is_pending(a: &mut Asm) -> Emitted {
    for (to, from) in [
        (Local::PendingOut, Local::LastOut),
        (Local::PendingScales, Local::LastScales),
        (Local::PendingWeightScales, Local::LastWeightScales),
    ] {
        a.code.mov(rsi, local(from))?;
        a.code.mov(local(to), rsi)?;
    }
    Ok(())
}

/// Activations `i` by tile `j`, which are summed in register `2 * i + j`.
fn accumulators(rows: u8, tiles: u8) -> impl Iterator<Item = (u8, u8)> {
    (0..rows).flat_map(move |i| (0..tiles).map(move |j| (i, j)))
}

/// The sums of one accumulator to [`SUMS`].
fn store(a: &mut Asm, i: u8, j: u8) -> Emitted {
    let at = i64::from(i32::from(i) * TILE_ROWS * 128 + i32::from(j) * 64);
    a.tile_store(SUMS, LINE, at, 2 * i + j)
}

/// What is done between products.
#[derive(Clone, Copy, Default)]
struct Beside {
    /// The accumulators' sums of the digit before are stored.
    stores: bool,
    /// The 32 rows at [`PENDING`] become floats.
    floats: bool,
    /// [`Sizes::quads`] of the next group are decoded.
    decodes: bool,
}

/// The products of one digit.
fn products(a: &mut Asm, blocking: Blocking, rows: u8, beside: Beside) -> Emitted {
    let Blocking { sizes, tiles, .. } = blocking;
    if beside.floats {
        pending(a, blocking)?;
    }
    if beside.decodes {
        sources(a, blocking)?;
    }
    let steps = sizes.columns / sizes.step();
    let each = GROUP / (steps * i32::from(rows * tiles));
    for (n, step) in (0..).zip(0..steps) {
        for ((i, j), at) in accumulators(rows, tiles).zip(n * i32::from(rows * tiles)..) {
            if i == 0 {
                let quads = step * sizes.step() / QUAD as i32;
                let panel = quads * sizes.panel_stride(tiles) + i32::from(j) * 64;
                a.tile_load(6 + j, PANELS, PANEL_STRIDE, i64::from(panel))?;
            }
            if j == 0 {
                a.tile_load(4 + i, ROWS[usize::from(i)], ROW_STRIDE, i64::from(step * sizes.step()))?;
            }
            if step == 0 {
                if beside.stores {
                    store(a, i, j)?;
                }
                a.tile_zero(2 * i + j)?;
            }
            a.tile_dot(2 * i + j, 4 + i, 6 + j)?;
            if beside.floats {
                (at * each..(at + 1) * each).try_for_each(|row| float_row(a, blocking, row))?;
            }
            if beside.decodes {
                let quad_and_tile = (at / i32::from(tiles), (at % i32::from(tiles)) as u8);
                decode_vector(a, sizes, tiles, quad_and_tile)?;
            }
        }
    }
    if beside.decodes {
        decoded(a, blocking)?;
    }
    Ok(())
}

/// Prepares the registers for the pending sums.
fn pending(a: &mut Asm, blocking: Blocking) -> Emitted {
    a.code.mov(r15, local(Local::PendingWeightScales))?;
    for tile in 0..blocking.tiles {
        if tile > 0 {
            a.code.add(r15, local(Local::TileScales))?;
        }
        a.load(WEIGHTS + tile, r15, 0)?;
    }
    a.code.mov(RESULTS, local(Local::PendingOut))?;
    a.code.mov(SCALES, local(Local::PendingScales))
}

/// Row `row` of the sums at [`PENDING`] as floats, times scales, added to the results at hand. Moves on to the next.
fn float_row(a: &mut Asm, blocking: Blocking, row: i32) -> Emitted {
    a.broadcast(SCALE, SCALES, None, 0)?;
    for tile in 0..blocking.tiles {
        let at = i64::from(i32::from(tile) * blocking.sizes.tile_out());
        a.convert_mem(VCVTDQ2PS, VALUE, PENDING, i64::from(row * 128 + i32::from(tile) * 64))?;
        a.op(VMULPS, FACTOR, SCALE, WEIGHTS + tile)?;
        a.op(VMULPS, VALUE, VALUE, FACTOR)?;
        a.op_mem(VADDPS, VALUE, VALUE, RESULTS, at)?;
        a.store(RESULTS, at, VALUE)?;
    }
    a.code.add(RESULTS, OUT_STRIDE)?;
    a.code.add(SCALES, SCALE_STRIDE)
}

/// The first `rsi` rows of the sums at [`PENDING`] become floats.
fn floats(a: &mut Asm, blocking: Blocking) -> Emitted {
    pending(a, blocking)?;
    a.code.mov(r15, PENDING)?;
    let row = a.here()?;
    float_row(a, blocking, 0)?;
    a.code.add(PENDING, 128)?;
    a.code.dec(rsi)?;
    a.code.jne(row)?;
    a.code.mov(PENDING, r15)
}

/// All sums that are pending become floats.
pub(super) fn flush(a: &mut Asm, blocking: Blocking) -> Emitted {
    let (mut none, mut one) = (a.code.create_label(), a.code.create_label());
    a.code.cmp(local(Local::Pending), 1)?;
    a.code.jl(none)?;
    a.code.je(one)?;
    a.code.mov(rsi, GROUP as u64)?;
    floats(a, blocking)?;
    a.place(&mut one)?;
    accumulators(2, blocking.tiles).try_for_each(|(i, j)| store(a, i, j))?;
    a.code.xchg(SUMS, PENDING)?;
    last_is_pending(a)?;
    a.code.mov(rsi, GROUP as u64)?;
    floats(a, blocking)?;
    a.code.mov(local(Local::Pending), 0)?;
    a.place(&mut none)
}
