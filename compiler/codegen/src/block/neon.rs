//! Blocks of rows on aarch64: `smmla` where the CPU has it, else `sdot` with a quad of activations as one operand, else
//! `smlal`.
//!
//! | module | holds |
//! |---|---|
//! | `chunks` | many rows: digits pass through scratch memory |
//! | `few` | up to eight rows by `smmla`, up to four by `sdot`: weights stay in registers |
//! | `decode` | stored bytes to digits |
//! | `asm` | the instructions |

mod asm;
mod chunks;
mod decode;
mod few;

use asm::{Asm, SP, V, X, ZIP1_2D, ZIP2_2D};
use std::mem::offset_of;
use trit_format::kernel::{KernelArgs, KernelSpec};

/// Columns that are packed in one iteration, and multiplied in one of the inner loop. Activations are zero up to a multiple
/// of more.
const COLUMNS: usize = 16 * OPERANDS.len();

/// How products are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Products {
    /// `smlal`, `smlal2`: products one by one, added to i16.
    Long,
    /// `sdot` by element: sums of four.
    Dot,
    /// `smmla`: sums of eight, for two rows and two tile rows.
    Matrix,
}

impl Products {
    /// Vectors of activations that are multiplied with a vector of digits.
    const fn operands(self, rows: usize) -> usize {
        match self {
            Products::Long | Products::Dot => rows,
            Products::Matrix => rows.div_ceil(2),
        }
    }
}

/// How a block kernel of a tier multiplies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeonBlocking {
    pub(crate) products: Products,
    /// Most columns of a chunk, a multiple of [`COLUMNS`].
    pub(crate) columns: usize,
}

impl NeonBlocking {
    /// The most columns whose sums fit i16. A lane takes two products in 16 columns, each at most 128 in magnitude, and
    /// 256 of them could reach 32768.
    pub(crate) const MOST_LONG_COLUMNS: usize = 255 / 2 * 16;

    pub(crate) const fn new(products: Products, columns: usize) -> NeonBlocking {
        assert!(columns.is_multiple_of(COLUMNS));
        assert!(!matches!(products, Products::Long) || columns <= Self::MOST_LONG_COLUMNS);
        NeonBlocking { products, columns }
    }
}

// Registers. 16 and 17 and those from 19 on are for the moment; 18 belongs to the system.
const ARGS: X = X(0);
const WEIGHTS: X = X(1);
/// Scratch memory, which begins with digits.
const DIGITS: X = X(2);
/// Activations in the order in which they are multiplied.
const PACKED: X = X(3);
const OUT: X = X(4);
/// First activation row at the chunk's first column.
const ACTIVATIONS: X = X(5);
const STRIDE: X = X(6);
const OUT_STRIDE: X = X(7);
const TILES: X = X(8);
const CHUNKS: X = X(9);
/// How many times [`COLUMNS`].
const STEPS: X = X(10);
/// First row of the group.
const ROW: X = X(11);
const ROW_OUT: X = X(12);
const ROW_SUMS: X = X(13);
const SUM_STRIDE: X = X(14);
const ROWS_LEFT: X = X(15);
const SAVED: [(X, X); 5] = [(X(19), X(20)), (X(21), X(22)), (X(23), X(24)), (X(25), X(26)), (X(27), X(28))];
const SAVED_HALVES: [(V, V); 4] = [(V(8), V(9)), (V(10), V(11)), (V(12), V(13)), (V(14), V(15))];
const FRAME: usize = 16 * (SAVED.len() + SAVED_HALVES.len());

// Vector registers of activations, twice, so that the next are loaded while the others are multiplied.
const OPERANDS: [V; 2] = [V(16), V(20)];

pub(super) fn emit(spec: &KernelSpec, blocking: NeonBlocking) -> Result<Vec<u8>, String> {
    let mut assembler = Asm::default();
    let a = &mut assembler;
    a.sub(SP, SP, FRAME as u32);
    let slots = |from: usize| (from..).map(|n| 16 * n);
    SAVED.into_iter().zip(slots(0)).for_each(|(pair, at)| a.store_pair(pair, SP, at));
    SAVED_HALVES.into_iter().zip(slots(SAVED.len())).for_each(|(pair, at)| a.store_halves(pair, SP, at));
    a.load(WEIGHTS, ARGS, offset_of!(KernelArgs, weights));
    a.load(DIGITS, ARGS, offset_of!(KernelArgs, scratch));
    a.load(OUT, ARGS, offset_of!(KernelArgs, out));
    a.load(TILES, ARGS, offset_of!(KernelArgs, tiles));
    a.load(STRIDE, ARGS, offset_of!(KernelArgs, activation_stride));
    a.load(OUT_STRIDE, ARGS, offset_of!(KernelArgs, out_stride));
    a.shift_left(OUT_STRIDE, OUT_STRIDE, 2);

    let end = a.label();
    few::emit(a, spec, blocking.products, end);
    chunks::emit(a, spec, blocking);

    a.place(end);
    SAVED.into_iter().zip(slots(0)).for_each(|(pair, at)| a.load_pair(pair, SP, at));
    SAVED_HALVES.into_iter().zip(slots(SAVED.len())).for_each(|(pair, at)| a.load_halves(pair, SP, at));
    a.add(SP, SP, FRAME as u32);
    a.ret();
    assembler.finish()
}

/// The register that points to row `n` of those that are packed, before [`pack`].
fn row(n: usize) -> X {
    X(19 + n as u8)
}

/// The activations of [`row`]s 0 to `rows`, [`STEPS`] times, to [`PACKED`]: for each 16 columns a vector of each row; for
/// `smmla` for each eight columns a vector of each two.
fn pack(a: &mut Asm, products: Products, rows: usize) {
    let (to, left) = (X(16), X(17));
    let count = products.operands(rows);
    a.copy(to, PACKED);
    a.copy(left, STEPS);
    let again = a.here();
    for packed in OPERANDS {
        if products == Products::Matrix {
            (0..rows).for_each(|n| a.load_next(V(n as u8), row(n)));
            for (zip, packed) in [(ZIP1_2D, OPERANDS[0]), (ZIP2_2D, OPERANDS[1])] {
                for pair in 0..count {
                    // A row without another is taken twice; nobody reads what comes of the second.
                    let (even, odd) = (2 * pair, (2 * pair + 1).min(rows - 1));
                    a.op(zip, packed.plus(pair), V(even as u8), V(odd as u8));
                }
                a.store_all_next(packed, count, to, None);
            }
        } else {
            (0..rows).for_each(|n| a.load_next(packed.plus(n), row(n)));
            a.store_all_next(packed, count, to, None);
        }
    }
    a.count_down(left, 1);
    a.jump_if_not_equal(again);
}
