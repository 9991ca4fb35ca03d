//! Decodes stored weight bytes to digits of one byte, four vectors of each at a time.

use super::asm::{Asm, CMTST_16B, EOR, MUL_16B, UMULL, UMULL2, UZP2_16B, V, X};
use trit_format::dense243::{Code, SIGNS};

/// Vectors that are decoded together, in successive registers from [`BYTES`] on.
pub(super) const TOGETHER: usize = 4;
/// The stored bytes; and then the index of the lower two digits.
pub(super) const BYTES: V = V(0);
/// Free until decoding begins: registers in which bytes may be brought into order. Then temporaries.
pub(super) const FREE: V = V(4);
/// The index of the upper three digits.
const UPPER: V = V(8);
/// Two sets of digits, so that one is stored while the next is made.
const DIGITS: [V; 2] = [V(12), V(4)];
const CONSTANTS: V = V(16);

// Among the constants of trits: three tables of 27 digits, two of nine, and three numbers.
const UPPER_TABLES: usize = 0;
const LOWER_TABLES: usize = 6;
const SIGN: usize = 8;
const TWENTY_SEVEN: usize = 9;
const NINE: usize = 10;

/// Loads the constants that [`bytes`] uses, into registers from 16 on. Changes `temporary`.
pub(super) fn constants(a: &mut Asm, code: Code, temporary: X) {
    let vectors: Vec<[u8; 16]> = if code == Code::Binary {
        (0..SIGNS).map(|digit| [1 << digit; 16]).collect()
    } else {
        let trit = |index: usize, digit: u32| (index / 3usize.pow(digit) % 3) as u8 as i8 - 1;
        let table = |digit, from: usize| std::array::from_fn(|i| trit(from + i, digit) as u8);
        let upper = (0..3).flat_map(|digit| [table(digit, 0), table(digit, 16)]);
        let lower = (0..2).map(|digit| table(digit, 0));
        upper.chain(lower).chain([[0x80; 16], [27; 16], [9; 16]]).collect()
    };
    let count = vectors.len();
    a.constants(temporary, vectors);
    for first in (0..count).step_by(4) {
        a.load_all_next(CONSTANTS.plus(first), (count - first).min(4), temporary, None);
    }
}

/// Decodes [`TOGETHER`] vectors from [`BYTES`] on, and stores digit after digit of them at `to`, which moves on by `step`
/// each time.
///
/// Trits become -1, 0 or 1. A sign becomes -1 where it is +1, and else 0, which is what one instruction makes of a bit.
pub(super) fn bytes(a: &mut Asm, code: Code, to: X, step: X) {
    if code != Code::Binary {
        for i in 0..TOGETHER {
            indices(a, i);
        }
    }
    for digit in 0..code.digits() {
        let digits = DIGITS[digit % 2];
        for i in 0..TOGETHER {
            let (d, lower, upper) = (digits.plus(i), BYTES.plus(i), UPPER.plus(i));
            match (code, digit) {
                (Code::Binary, _) => a.op(CMTST_16B, d, BYTES.plus(i), CONSTANTS.plus(digit)),
                (_, 0..2) => a.lookup(d, CONSTANTS.plus(LOWER_TABLES + digit), 1, lower),
                _ => a.lookup(d, CONSTANTS.plus(UPPER_TABLES + 2 * (digit - 2)), 2, upper),
            }
        }
        a.store_all_next(digits, TOGETHER, to, Some(step));
    }
}

/// Splits a vector of stored trits. A byte read as u8 is a fraction `x` of 256: the upper half of `27 x` is the number of
/// the upper three trits, its lower half a fraction again, and the upper half of nine times that the number of the lower
/// two. All five digits cost 13 instructions by lookups in these, 19 by comparing each with thirds and tripling.
fn indices(a: &mut Asm, i: usize) {
    let (x, upper) = (BYTES.plus(i), UPPER.plus(i));
    let [low, high] = [0, 1].map(|half| FREE.plus(2 * (i % 2) + half));
    let constant = |n: usize| CONSTANTS.plus(n);
    a.op(EOR, x, x, constant(SIGN));
    a.op(UMULL, low, x, constant(TWENTY_SEVEN));
    a.op(UMULL2, high, x, constant(TWENTY_SEVEN));
    a.op(UZP2_16B, upper, low, high);
    a.op(MUL_16B, x, x, constant(TWENTY_SEVEN));
    a.op(UMULL, low, x, constant(NINE));
    a.op(UMULL2, high, x, constant(NINE));
    a.op(UZP2_16B, x, low, high);
}
