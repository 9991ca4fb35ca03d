//! Decodes stored weight bytes to digits. One vector of bytes gives five vectors, or eight of signs, one for each tile
//! digit.

use super::asm::{Asm, Emitted, VPADDB, VPAND, VPCMPEQB, VPSUBB, Width};
use iced_x86::code_asm::AsmRegister64;
use trit_format::dense243::{Code, SIGNS, TRITS};

/// What a digit becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digits {
    /// 0, 1 or 2, the trit plus 1, for products that take u8 weights; the sum of the activations is subtracted afterwards.
    Unsigned,
    /// The trit itself.
    Signed,
}

// Registers. The byte and two temporaries come first, the constants of a code after them.
const X: u8 = 0;
const T: u8 = 1;
const U: u8 = 2;
const CONSTANTS: u8 = 3;
const SPREAD: u8 = 9;
/// The bits of signs, after the two numbers that they become.
const BITS: u8 = CONSTANTS + 2;

/// Loads the constants that [`vector`] uses, into registers 3 to 8, or to 12 for signs.
pub(super) fn constants(a: &mut Asm, code: Code, digits: Digits) -> Emitted {
    let base = match digits {
        Digits::Unsigned => 0i8,
        Digits::Signed => -1,
    };
    let all = |value: i8| [value as u8; 64];
    match code {
        // What a clear bit becomes, the difference of a set one, and each bit.
        Code::Binary => {
            a.constant(CONSTANTS, all(base))?;
            a.constant(CONSTANTS + 1, all(base + 2))?;
            (0..SIGNS as u8).try_for_each(|digit| a.constant(BITS + digit, [1 << digit; 64]))
        }
        Code::Spread => {
            let table = |f: &dyn Fn(usize) -> u8| std::array::from_fn(f);
            // `h = 28 * (b' / 28)` by the upper six bits; then by `b' - h` the digits of 27 values, and by the
            // same six bits those of nine.
            a.constant(CONSTANTS, table(&|i| 28 * (i / 7).min(8) as u8))?;
            for (digit, at) in (CONSTANTS + 1..).enumerate().take(TRITS) {
                let value = move |i: usize| match digit {
                    0..3 => i / 3usize.pow(digit as u32) % 3,
                    _ => (i / 7).min(8) / 3usize.pow(digit as u32 - 3) % 3,
                };
                a.constant(at, table(&|i| (value(i) as i8 + base) as u8))?;
            }
            Ok(())
        }
        _ => {
            // A fraction x of 256 holds digit 1 from 86 on and 2 from 171 on, since 3 * 86 and 3 * 171 are the first
            // to reach 256 and 512. The sign bit is flipped, as in the stored byte.
            a.constant(CONSTANTS, [85 ^ 0x80; 64])?;
            a.constant(CONSTANTS + 1, [170 ^ 0x80; 64])?;
            a.constant(CONSTANTS + 2, all(base))?;
            a.constant(CONSTANTS + 3, all(base + 1))?;
            a.constant(CONSTANTS + 4, all(1))
        }
    }
}

/// Decodes the bytes at `from` and stores digit `d` of each at `to(d)`.
pub(super) fn vector(
    a: &mut Asm,
    code: Code,
    from: (AsmRegister64, i64),
    to: impl Fn(usize) -> (AsmRegister64, i64),
) -> Emitted {
    a.load(X, from.0, from.1)?;
    match (code, a.width) {
        (Code::Binary, _) => {
            for digit in 0..SIGNS {
                let (base, at) = to(digit);
                sign(a, digit as u8)?;
                a.store(base, at, T)?;
            }
        }
        (Code::Spread, _) => {
            a.shift_words_right(T, X, 2)?;
            a.lookup(U, T, CONSTANTS)?;
            a.op(VPSUBB, X, X, U)?;
            for digit in 0..TRITS {
                let (base, at) = to(digit);
                // The shift of 16-bit words leaves bits of the neighbouring byte above the six bits that the lookup
                // reads.
                a.lookup(U, if digit < 3 { X } else { T }, CONSTANTS + 1 + digit as u8)?;
                a.store(base, at, U)?;
            }
        }
        (_, width) => {
            for digit in (0..TRITS).rev() {
                let (base, at) = to(digit);
                if width == Width::Zmm {
                    a.greater_mask(1, X, CONSTANTS)?;
                    a.greater_mask(2, X, CONSTANTS + 1)?;
                    a.blend(T, 1, CONSTANTS + 2, CONSTANTS + 3)?;
                    a.op_masked(VPADDB, T, 2, T, CONSTANTS + 4)?;
                } else {
                    a.greater(T, X, CONSTANTS)?;
                    a.greater(U, X, CONSTANTS + 1)?;
                    a.op(VPADDB, T, T, U)?;
                    a.op(VPSUBB, T, CONSTANTS + 2, T)?;
                }
                a.store(base, at, T)?;
                if digit > 0 {
                    a.op(VPADDB, U, X, X)?;
                    a.op(VPADDB, X, X, U)?;
                }
            }
        }
    }
    Ok(())
}

/// One sign of the bytes in [`X`] to [`T`], from the constants of signs.
fn sign(a: &mut Asm, digit: u8) -> Emitted {
    if a.width == Width::Zmm {
        a.test_mask(1, X, BITS + digit)?;
        return a.blend(T, 1, CONSTANTS, CONSTANTS + 1);
    }
    // -1 where the bit is set. Only unsigned digits, 0 and 2, are made with this width.
    a.op(VPAND, T, X, BITS + digit)?;
    a.op(VPCMPEQB, T, T, BITS + digit)?;
    a.op(VPAND, T, T, CONSTANTS + 1)
}

/// Decodes one digit of the bytes at `from`, stored as [`Code::Spread`] or [`Code::Binary`], with the constants of that
/// code.
pub(super) fn one_digit(
    a: &mut Asm,
    code: Code,
    digit: u8,
    from: (AsmRegister64, i64),
    to: (AsmRegister64, i64),
) -> Emitted {
    if let Code::Binary = code {
        a.load(X, from.0, from.1)?;
        sign(a, digit)?;
        return a.store(to.0, to.1, T);
    }
    let index = if digit < 3 {
        a.load(X, from.0, from.1)?;
        a.shift_words_right(T, X, 2)?;
        a.lookup(U, T, CONSTANTS)?;
        a.op(VPSUBB, X, X, U)?;
        X
    } else {
        a.load_words_shifted_right(T, from.0, from.1, 2)?;
        T
    };
    a.lookup(U, index, CONSTANTS + 1 + digit)?;
    a.store(to.0, to.1, U)
}

/// Loads the constants that [`spread`] uses, into registers 9 to 14.
pub(super) fn spread_constants(a: &mut Asm) -> Emitted {
    for low in 0..4u8 {
        // No weight is stored as these bytes, so their results do not matter.
        let spread = |i: usize| {
            let byte = Code::SignedFix.load(i as u8 * 4 + low);
            byte.and_then(|byte| Code::Spread.store(byte)).unwrap_or(0)
        };
        a.constant(SPREAD + low, std::array::from_fn(spread))?;
    }
    a.constant(SPREAD + 4, [1; 64])?;
    a.constant(SPREAD + 5, [2; 64])
}

/// Bytes at `from`, stored as [`Code::SignedFix`], to [`Code::Spread`]: the lower two bits select one of four tables,
/// which are looked up by the upper six bits.
pub(super) fn spread(a: &mut Asm, from: (AsmRegister64, i64), to: (AsmRegister64, i64)) -> Emitted {
    a.load(X, from.0, from.1)?;
    a.shift_words_right(T, X, 2)?;
    a.test_mask(1, X, SPREAD + 4)?;
    a.test_mask(2, X, SPREAD + 5)?;
    a.lookup(U, T, SPREAD)?;
    a.lookup_masked(U, 1, T, SPREAD + 1)?;
    a.lookup(X, T, SPREAD + 2)?;
    a.lookup_masked(X, 1, T, SPREAD + 3)?;
    a.blend(U, 2, U, X)?;
    a.store(to.0, to.1, U)
}
