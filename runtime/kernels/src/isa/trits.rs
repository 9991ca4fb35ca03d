//! The vector operations that element-wise kernels of trits are written in, on each instruction set: on bytes that hold
//! five trits each (canonical Dense243), and on int8 trits.
//!
//! A [`TritIsa`] is a value that proves CPU support, as an [`Isa`](super::Isa) is. Vectors look nothing up in memory: their tables
//! stand in registers and have 16, 32 or 64 bytes. Only [`Portable`], which has no such registers, reads larger ones from memory.
//!
//! # Trits as bits
//!
//! A byte `b` is a number of five digits in base 3, and no bitwise operation acts on such digits. So a kernel first turns
//! it into bits, two for each digit. [`TritIsa::unpack`] gives two planes: bit `i` of the first is set where trit `i` is
//! +1, and bit `i` of the second where it is -1. On planes every operation of trits is two or four bitwise operations, for
//! all five trits of all bytes at once, and [`TritIsa::repack`] turns them back: `121 + V(first) - V(second)`, where
//! `V(bits)` is the sum of the powers of 3 whose bits are set.
//!
//! The digits come out in two parts, because no register holds a table of 243 bytes: `b = 27 h + l`, where `h` are the
//! upper two digits and `l` the lower three. An upper bound of `27 h` is looked up by the upper bits of `b`; the difference
//! is negative where the bound was too large by 27, which is then made good.
//!
//! # One operation on two bytes
//!
//! For [`TritIsa::binary`] the two parts need not be put together, and the two bits of a digit may mean whatever makes
//! the operation one instruction:
//!
//! | operation | first bit `x` | second bit `y` | bits of the result | digit |
//! |---|---|---|---|---|
//! | saturating sum | is +1 | is -1 | `x or x`, `y or y` | `1 + x - y`; both set cancel out |
//! | product | is not 0 | is -1 | `x and x`, `y xor y` | 0 without `x`, else by `y` |
//! | minimum | is +1 | is not -1 | `x and x`, `y and y` | `x + y` |
//! | maximum | is +1 | is not -1 | `x or x`, `y or y` | `x + y` |

#[cfg(target_arch = "aarch64")]
mod neon;
mod tier;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Portable;
use crate::elementwise::TritOp;
pub(crate) use tier::dispatch_trits;
pub use tier::{TritTier, bytes_of, bytes_of_mut};
#[cfg(target_arch = "x86_64")]
pub use x86::Avx512Vbmi;

/// Bytes of a chunk, which kernels go over one part after the other.
pub const CHUNK: usize = 64;
/// Trits of a chunk of packed bytes.
pub const CHUNK_TRITS: usize = 5 * CHUNK;
/// Powers of 3, the weights of a byte's digits.
pub const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Two bits that an operation gives each trit, as the table of the module says.
pub const fn bits_of(op: TritOp, trit: i8) -> [bool; 2] {
    match op {
        TritOp::Add => [trit > 0, trit < 0],
        TritOp::Mul => [trit != 0, trit < 0],
        TritOp::Min | TritOp::Max => [trit > 0, trit >= 0],
    }
}

/// The digit, 0 to 2, that two bits of an operation's result mean.
pub const fn digit_of(op: TritOp, x: bool, y: bool) -> u8 {
    match op {
        TritOp::Add => 1 + x as u8 - y as u8,
        TritOp::Mul if !x => 1,
        TritOp::Mul => 2 - 2 * y as u8,
        TritOp::Min | TritOp::Max => x as u8 + y as u8,
    }
}

/// Trit `i` of a canonical byte.
pub const fn trit(byte: u8, i: usize) -> i8 {
    (byte / POWERS[i] % 3) as i8 - 1
}

/// The vectors of one instruction set, and the operations on them that element-wise kernels need.
///
/// Bytes that are not canonical give some bytes, which are not the same on every CPU.
pub trait TritIsa: Copy {
    /// [`TritIsa::BYTES`] bytes.
    type Bytes: Copy;
    /// Bytes of a vector, which divide [`CHUNK`].
    const BYTES: usize;

    /// Part `part` of a chunk.
    fn load(self, from: &[u8; CHUNK], part: usize) -> Self::Bytes;
    /// Writes part `part` of a chunk.
    fn store(self, x: Self::Bytes, to: &mut [u8; CHUNK], part: usize);
    /// `x` in every byte.
    fn splat(self, x: u8) -> Self::Bytes;
    /// `a & b`.
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a | b`.
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a ^ b`.
    fn xor(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a & !b`.
    fn and_not(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a + b` modulo 256.
    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a - b` modulo 256.
    fn sub(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// The smaller of each two bytes as u8.
    fn min(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// The larger of each two bytes as u8.
    fn max(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// The smaller of each two bytes as i8.
    fn min_signed(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// The larger of each two bytes as i8.
    fn max_signed(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// The upper four bits of each byte, moved down.
    fn upper(self, x: Self::Bytes) -> Self::Bytes;
    /// The same, where the upper four bits of the result may be any.
    fn upper_mixed(self, x: Self::Bytes) -> Self::Bytes;
    /// The byte of `table` at each index; 0 for an index of 128 or more. Others are less than 16.
    fn lookup(self, table: &[u8; 16], index: Self::Bytes) -> Self::Bytes;
    /// The byte of `table` at each index, which is less than 32.
    #[inline(always)]
    fn lookup_wide(self, table: &[u8; 32], index: Self::Bytes) -> Self::Bytes {
        let (halves, _) = table.as_chunks::<16>();
        // An index outside of a half becomes one of 128 or more, which gives 0.
        let (below, above) = (self.add(index, self.splat(0x70)), self.sub(index, self.splat(16)));
        self.or(self.lookup(&halves[0], below), self.lookup(&halves[1], above))
    }
    /// The bytes of each 16 bytes of `x` at `index`; 0 for an index of 128 or more. Others are less than 16.
    fn shuffle(self, x: Self::Bytes, index: &[u8; 16]) -> Self::Bytes;
    /// The product of int8 trits.
    fn mul_trits(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Piece `piece` of five, of 16 bytes for each 16 bytes of the vector: bytes `80 i + 16 piece ..` of the part of
    /// `from` that begins at `5 * BYTES * part`, for `i` in `0..BYTES / 16`.
    fn load_piece(self, from: &[u8; CHUNK_TRITS], part: usize, piece: usize) -> Self::Bytes;
    /// Writes what [`TritIsa::load_piece`] reads.
    fn store_piece(self, x: Self::Bytes, to: &mut [u8; CHUNK_TRITS], part: usize, piece: usize);

    /// The planes of canonical bytes.
    #[inline(always)]
    fn unpack(self, b: Self::Bytes) -> [Self::Bytes; 2] {
        let (low, high) = split(self, b);
        [
            self.or(self.lookup_wide(&LOWER_PLANES[0], low), self.lookup(&UPPER_PLANES[0], high)),
            self.or(self.lookup_wide(&LOWER_PLANES[1], low), self.lookup(&UPPER_PLANES[1], high)),
        ]
    }

    /// The canonical bytes of planes. Where both bits of a trit are set it is 0.
    #[inline(always)]
    fn repack(self, [plus, minus]: [Self::Bytes; 2]) -> Self::Bytes {
        self.sub(self.lookup_wide(&PLUS, plus), self.lookup_wide(&MINUS, minus))
    }

    /// The canonical bytes of one operation.
    #[inline(always)]
    fn binary(self, op: TritOp, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        let tables = &NIBBLES[op as usize];
        let ((al, ah), (bl, bh)) = (split(self, a), split(self, b));
        let (al, ah) = (self.lookup_wide(&tables.lower, al), self.lookup(&tables.upper, ah));
        let bl = self.lookup_wide(&tables.lower, bl);
        // Bits x of the lower digits stand in bits 0 to 2, bits y in bits 4 to 6; of the upper ones in 0, 1 and 2, 3.
        let seven = self.splat(7);
        let (first, second, high) = match op {
            TritOp::Add | TritOp::Max => {
                let low = self.or(al, bl);
                (self.and(low, seven), self.upper(low), self.or(ah, self.lookup(&tables.upper, bh)))
            }
            TritOp::Min => {
                let low = self.and(al, bl);
                (self.and(low, seven), self.upper(low), self.and(ah, self.lookup(&tables.upper, bh)))
            }
            TritOp::Mul => {
                let nonzero = self.and(self.and(al, bl), seven);
                let negative = self.upper_mixed(self.xor(al, bl));
                // Of the upper digits bits x are kept where `b` is not 0, and bits y are changed where it is -1.
                let high = self.xor(self.and(ah, self.lookup(&KEPT, bh)), self.lookup(&CHANGED, bh));
                (self.and_not(nonzero, negative), self.and(nonzero, negative), high)
            }
        };
        let low = self.add(self.lookup(&tables.first, first), self.lookup(&tables.second, second));
        self.add(low, self.lookup(&tables.top, high))
    }

    /// Packs int8 trits: part `part` of a chunk.
    #[inline(always)]
    fn pack(self, from: &[u8; CHUNK_TRITS], part: usize) -> Self::Bytes {
        let mut pieces = [self.splat(0); 5];
        for (piece, x) in pieces.iter_mut().enumerate() {
            *x = self.load_piece(from, part, piece);
        }
        // The most significant digit first.
        let mut packed = self.splat(0);
        for digit in (0..5).rev() {
            let mut digits = self.splat(1);
            for (piece, x) in pieces.into_iter().enumerate() {
                digits = self.add(digits, self.shuffle(x, &GATHER[digit][piece]));
            }
            packed = self.add(self.add(self.add(packed, packed), packed), digits);
        }
        packed
    }

    /// Writes the int8 trits of canonical bytes, part `part` of a chunk.
    #[inline(always)]
    fn unpack_trits(self, b: Self::Bytes, to: &mut [u8; CHUNK_TRITS], part: usize) {
        let (low, high) = split(self, b);
        let digits = [
            self.lookup_wide(&LOWER_TRITS[0], low),
            self.lookup_wide(&LOWER_TRITS[1], low),
            self.lookup_wide(&LOWER_TRITS[2], low),
            self.lookup(&UPPER_TRITS[0], high),
            self.lookup(&UPPER_TRITS[1], high),
        ];
        for piece in 0..5 {
            let mut x = self.splat(0);
            for (digit, trits) in digits.into_iter().enumerate() {
                x = self.or(x, self.shuffle(trits, &SCATTER[piece][digit]));
            }
            self.store_piece(x, to, part, piece);
        }
    }
}

/// The lower three digits of canonical bytes as a number, 0 to 26, and an index that stands for the upper two: the lower
/// four bits of `27 h`, which are different for each `h`.
#[inline(always)]
fn split<I: TritIsa>(isa: I, b: I::Bytes) -> (I::Bytes, I::Bytes) {
    // The bound is right for the last of sixteen bytes, so that the difference is at least -15.
    let low = isa.sub(b, isa.lookup(&BOUNDS, isa.upper(b)));
    // As u8 a negative difference is more than 240, and with 27 less than 27.
    let low = isa.min(low, isa.add(low, isa.splat(27)));
    (low, isa.and(isa.sub(b, low), isa.splat(15)))
}

/// `27 h` for the largest `h` of the bytes with the same upper four bits.
const BOUNDS: [u8; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        // 243 and above are no canonical bytes.
        let last = if i == 15 { 242 } else { 16 * i as u8 + 15 };
        table[i] = last / 27 * 27;
        i += 1;
    }
    table
};

/// Bits of the planes: of three digits by their number, and of the upper two by the index that [`split`] gives.
const LOWER_PLANES: [[u8; 32]; 2] = [lower_planes(1), lower_planes(-1)];
const UPPER_PLANES: [[u8; 16]; 2] = [upper_planes(1), upper_planes(-1)];

const fn lower_planes(wanted: i8) -> [u8; 32] {
    let mut table = [0; 32];
    let mut low = 0;
    while low < 27 {
        table[low as usize] = plane(low, 0, 3, wanted);
        low += 1;
    }
    table
}

const fn upper_planes(wanted: i8) -> [u8; 16] {
    let mut table = [0; 16];
    let mut high = 0;
    while high < 9 {
        table[((27 * high) & 15) as usize] = plane(27 * high, 3, 5, wanted);
        high += 1;
    }
    table
}

/// Bit `i` for each of the trits `from..to` that is `wanted`.
pub const fn plane(byte: u8, from: usize, to: usize, wanted: i8) -> u8 {
    let (mut bits, mut i) = (0, from);
    while i < to {
        bits |= ((trit(byte, i) == wanted) as u8) << i;
        i += 1;
    }
    bits
}

/// What a plane adds to 121, and what it takes away.
const PLUS: [u8; 32] = weights(121);
const MINUS: [u8; 32] = weights(0);

/// `least` plus the sum of the powers of 3 whose bits are set.
const fn weights(least: u8) -> [u8; 32] {
    let mut table = [least; 32];
    let mut bits = 0;
    while bits < 32 {
        let mut i = 0;
        while i < 5 {
            table[bits] += POWERS[i] * (bits >> i & 1) as u8;
            i += 1;
        }
        bits += 1;
    }
    table
}

/// The tables of one operation on two bytes, for lookups of 16 bytes.
struct Nibbles {
    /// Of the number of the lower three digits: bits x in 0 to 2, bits y in 4 to 6.
    lower: [u8; 32],
    /// Of the index of the upper two: bits x in 0 and 1, bits y in 2 and 3.
    upper: [u8; 16],
    /// What the lower bits x of the result add. Of a product: what its positive trits add, and the least.
    first: [u8; 16],
    /// What the lower bits y of the result add, modulo 256. Of a product: what its negative trits add.
    second: [u8; 16],
    /// What the upper bits of the result add.
    top: [u8; 16],
}

const NIBBLES: [Nibbles; 4] =
    [nibbles(TritOp::Add), nibbles(TritOp::Mul), nibbles(TritOp::Min), nibbles(TritOp::Max)];

const fn nibbles(op: TritOp) -> Nibbles {
    let mut tables =
        Nibbles { lower: [0; 32], upper: [0; 16], first: [0; 16], second: [0; 16], top: [0; 16] };
    let mut low = 0;
    while low < 27 {
        let mut i = 0;
        while i < 3 {
            let [x, y] = bits_of(op, trit(low, i));
            tables.lower[low as usize] |= (x as u8) << i | (y as u8) << (i + 4);
            i += 1;
        }
        low += 1;
    }
    let mut high = 0;
    while high < 9 {
        let mut i = 0;
        while i < 2 {
            let [x, y] = bits_of(op, trit(27 * high, i + 3));
            tables.upper[((27 * high) & 15) as usize] |= (x as u8) << i | (y as u8) << (i + 2);
            i += 1;
        }
        high += 1;
    }
    let mut bits = 0;
    while bits < 16 {
        let mut i = 0;
        while i < 3 && bits < 8 {
            // A digit is the sum of what its two bits add to the least.
            let set = (bits >> i & 1) as u8;
            let (least, x, y) = match op {
                TritOp::Add => (1, 1, 255),
                // The first bits say that a trit of the product is positive, the second that it is negative.
                TritOp::Mul => (1, 1, 255),
                TritOp::Min | TritOp::Max => (0, 1, 1),
            };
            tables.first[bits] += POWERS[i] * (least + x * set);
            tables.second[bits] = tables.second[bits].wrapping_add((POWERS[i] * set).wrapping_mul(y));
            i += 1;
        }
        let mut i = 0;
        while i < 2 {
            let digit = digit_of(op, bits >> i & 1 == 1, bits >> (i + 2) & 1 == 1);
            tables.top[bits] += POWERS[i + 3] * digit;
            i += 1;
        }
        bits += 1;
    }
    tables
}

/// What a factor does to the bits of the upper digits of the other one: which it keeps, and which it changes.
const KEPT: [u8; 16] = factor([0b0001, 0b0000], 0b0100);
const CHANGED: [u8; 16] = factor([0b0000, 0b0100], 0);

/// For each of the upper two digits `bits[0]` where it is not 0, `bits[1]` where it is -1, and `always`.
const fn factor(bits: [u8; 2], always: u8) -> [u8; 16] {
    let mut table = [0; 16];
    let mut high = 0;
    while high < 9 {
        let mut i = 0;
        while i < 2 {
            let digit = trit(27 * high, i + 3);
            let some = if digit != 0 { bits[0] } else { 0 } | if digit < 0 { bits[1] } else { 0 } | always;
            table[((27 * high) & 15) as usize] |= some << i;
            i += 1;
        }
        high += 1;
    }
    table
}

/// Trits by the number of the lower three digits, and by the index of the upper two.
const LOWER_TRITS: [[u8; 32]; 3] = {
    let mut tables = [[0; 32]; 3];
    let mut at = 0;
    while at < 3 * 27 {
        tables[at / 27][at % 27] = trit((at % 27) as u8, at / 27) as u8;
        at += 1;
    }
    tables
};
const UPPER_TRITS: [[u8; 16]; 2] = {
    let mut tables = [[0; 16]; 2];
    let mut at = 0;
    while at < 2 * 9 {
        let byte = 27 * (at % 9) as u8;
        tables[at / 9][(byte & 15) as usize] = trit(byte, 3 + at / 9) as u8;
        at += 1;
    }
    tables
};

/// No byte: what is looked up is 0.
const NONE: u8 = 0x80;
/// Where the trits of one digit stand, by digit and piece.
const GATHER: [[[u8; 16]; 5]; 5] = {
    let mut tables = [[[NONE; 16]; 5]; 5];
    let mut at = 0;
    while at < 80 {
        tables[at % 5][at / 16][at / 5] = (at % 16) as u8;
        at += 1;
    }
    tables
};
/// The inverse, by piece and digit.
const SCATTER: [[[u8; 16]; 5]; 5] = {
    let mut tables = [[[NONE; 16]; 5]; 5];
    let mut at = 0;
    while at < 80 {
        tables[at / 16][at % 5][at % 16] = (at / 5) as u8;
        at += 1;
    }
    tables
};

impl TritIsa for Portable {
    type Bytes = [u8; 16];
    const BYTES: usize = 16;

    #[inline(always)]
    fn load(self, from: &[u8; CHUNK], part: usize) -> Self::Bytes {
        std::array::from_fn(|i| from[part * 16 + i])
    }
    #[inline(always)]
    fn store(self, x: Self::Bytes, to: &mut [u8; CHUNK], part: usize) {
        to[part * 16..][..16].copy_from_slice(&x);
    }
    #[inline(always)]
    fn splat(self, x: u8) -> Self::Bytes {
        [x; 16]
    }
    #[inline(always)]
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn xor(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn and_not(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i] & !b[i])
    }
    #[inline(always)]
    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn min(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i].min(b[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i].max(b[i]))
    }
    #[inline(always)]
    fn min_signed(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| (a[i] as i8).min(b[i] as i8) as u8)
    }
    #[inline(always)]
    fn max_signed(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| (a[i] as i8).max(b[i] as i8) as u8)
    }
    #[inline(always)]
    fn upper(self, x: Self::Bytes) -> Self::Bytes {
        x.map(|x| x >> 4)
    }
    #[inline(always)]
    fn upper_mixed(self, x: Self::Bytes) -> Self::Bytes {
        self.upper(x)
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], index: Self::Bytes) -> Self::Bytes {
        index.map(|i| if i < 128 { table[usize::from(i & 15)] } else { 0 })
    }
    #[inline(always)]
    fn lookup_wide(self, table: &[u8; 32], index: Self::Bytes) -> Self::Bytes {
        index.map(|i| table[usize::from(i & 31)])
    }
    #[inline(always)]
    fn shuffle(self, x: Self::Bytes, index: &[u8; 16]) -> Self::Bytes {
        self.lookup(&x, *index)
    }
    #[inline(always)]
    fn mul_trits(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| (a[i] as i8).wrapping_mul(b[i] as i8) as u8)
    }
    #[inline(always)]
    fn load_piece(self, from: &[u8; CHUNK_TRITS], part: usize, piece: usize) -> Self::Bytes {
        std::array::from_fn(|i| from[80 * part + 16 * piece + i])
    }
    #[inline(always)]
    fn store_piece(self, x: Self::Bytes, to: &mut [u8; CHUNK_TRITS], part: usize, piece: usize) {
        to[80 * part + 16 * piece..][..16].copy_from_slice(&x);
    }

    #[inline(always)]
    fn unpack(self, b: Self::Bytes) -> [Self::Bytes; 2] {
        [b.map(|b| PLANES[usize::from(b)][0]), b.map(|b| PLANES[usize::from(b)][1])]
    }
    #[inline(always)]
    fn binary(self, op: TritOp, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        self.repack(op.on_planes(self, self.unpack(a), self.unpack(b)))
    }
    #[inline(always)]
    fn pack(self, from: &[u8; CHUNK_TRITS], part: usize) -> Self::Bytes {
        let fives = &from.as_chunks::<5>().0[16 * part..][..16];
        std::array::from_fn(|i| fives[i].iter().rev().fold(0, |b: u8, t| 3 * b + t.wrapping_add(1)))
    }
    #[inline(always)]
    fn unpack_trits(self, b: Self::Bytes, to: &mut [u8; CHUNK_TRITS], part: usize) {
        for (five, b) in to.as_chunks_mut::<5>().0[16 * part..].iter_mut().zip(b) {
            *five = TRITS[usize::from(b)];
        }
    }
}

/// The planes and the trits of each byte. Where there are no registers for tables, these are read from memory.
const PLANES: [[u8; 2]; 256] = {
    let mut planes = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 243 {
        planes[byte as usize] = [plane(byte, 0, 5, 1), plane(byte, 0, 5, -1)];
        byte += 1;
    }
    planes
};
const TRITS: [[u8; 5]; 256] = {
    let mut trits = [[0; 5]; 256];
    let mut at = 0;
    while at < 243 * 5 {
        trits[at / 5][at % 5] = trit((at / 5) as u8, at % 5) as u8;
        at += 1;
    }
    trits
};
