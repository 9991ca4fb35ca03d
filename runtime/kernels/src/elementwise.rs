//! Element-wise arithmetic of trits: on packed bytes of five trits each, and on int8 arrays.
//!
//! | operation | of trits `a`, `b`, `c` |
//! |---|---|
//! | [`TritOp::Add`] | `clamp(a + b, -1, 1)`, the saturating sum |
//! | [`TritOp::Mul`] | `a * b` |
//! | [`TritOp::Min`], [`TritOp::Max`] | the smaller, the larger: Kleene's and, or |
//! | not ([`negate`]) | `-a`, which is also Kleene's not |
//! | fused multiply-add ([`multiply_add`]) | `clamp(a * b + c, -1, 1)`. A product of trits is a trit, so this is the saturating sum of the product and `c` |
//!
//! All operations of trits that are 0 give 0. So the zeros that fill up the last byte of packed trits stay zeros, and
//! packed arrays of the same shape need no more than their bytes.
//!
//! Packed bytes must be canonical Dense243, at most 242; [`first_invalid`] finds others. Int8 values are checked while they
//! are used. [`program`] has several operations in one pass over memory. How the kernels work is said in `isa/trits.rs`;
//! [`TritOp::reference`] is what they are compared with.

mod convert;
pub mod program;
#[cfg(test)]
mod tests;

pub use crate::isa::TritTier;
use crate::isa::{CHUNK, TritIsa, bytes_of, bytes_of_mut, dispatch_trits};
pub use convert::{pack, unpack};

/// An operation of two trits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TritOp {
    /// `clamp(a + b, -1, 1)`.
    Add,
    /// `a * b`.
    Mul,
    /// The smaller.
    Min,
    /// The larger.
    Max,
}

impl TritOp {
    /// Every operation.
    pub const ALL: [TritOp; 4] = [TritOp::Add, TritOp::Mul, TritOp::Min, TritOp::Max];

    /// Its name in the field.
    pub const fn name(self) -> &'static str {
        match self {
            TritOp::Add => "tadd",
            TritOp::Mul => "tmul",
            TritOp::Min => "tmin",
            TritOp::Max => "tmax",
        }
    }

    /// What it gives for two trits.
    #[inline]
    pub const fn reference(self, a: i8, b: i8) -> i8 {
        match self {
            TritOp::Add => (a + b).signum(),
            TritOp::Mul => a * b,
            TritOp::Min => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            TritOp::Max => {
                if a > b {
                    a
                } else {
                    b
                }
            }
        }
    }

    /// What it gives for planes of trits.
    #[inline(always)]
    pub(crate) fn on_planes<I: TritIsa>(
        self,
        isa: I,
        [ap, an]: [I::Bytes; 2],
        [bp, bn]: [I::Bytes; 2],
    ) -> [I::Bytes; 2] {
        match self {
            TritOp::Add => {
                let (plus, minus) = (isa.or(ap, bp), isa.or(an, bn));
                [isa.and_not(plus, minus), isa.and_not(minus, plus)]
            }
            TritOp::Mul => {
                [isa.or(isa.and(ap, bp), isa.and(an, bn)), isa.or(isa.and(ap, bn), isa.and(an, bp))]
            }
            TritOp::Min => [isa.and(ap, bp), isa.or(an, bn)],
            TritOp::Max => [isa.or(ap, bp), isa.and(an, bn)],
        }
    }

    /// What it gives for int8 trits.
    #[inline(always)]
    pub(crate) fn on_trits<I: TritIsa>(self, isa: I, a: I::Bytes, b: I::Bytes) -> I::Bytes {
        match self {
            TritOp::Add => {
                let sum = isa.add(a, b);
                isa.max_signed(isa.min_signed(sum, isa.splat(1)), isa.splat(255))
            }
            TritOp::Mul => isa.mul_trits(a, b),
            TritOp::Min => isa.min_signed(a, b),
            TritOp::Max => isa.max_signed(a, b),
        }
    }
}

/// An int8 value that is no trit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTrit {
    /// Which operand has it, counted from 0.
    pub operand: usize,
    /// Its index.
    pub index: usize,
    /// What it is.
    pub value: i8,
}

/// The first value of `operands` that is no trit.
pub fn first_no_trit(operands: &[&[i8]]) -> Option<NoTrit> {
    operands.iter().enumerate().find_map(|(operand, values)| {
        let index = values.iter().position(|v| !(-1..=1).contains(v))?;
        Some(NoTrit { operand, index, value: values[index] })
    })
}

/// A canonical byte of five zeros, which fills up a chunk.
const ZEROS: u8 = 121;
/// One more than the largest canonical byte.
const VALUES: u8 = 243;

/// What is done to a chunk of each of `N` operands. It is no closure, which would not be compiled for the CPU's features.
trait OnChunk<I: TritIsa, const N: usize> {
    fn run(&mut self, isa: I, from: [&[u8; CHUNK]; N], to: &mut [u8; CHUNK]);
}

/// Goes over whole chunks of `N` operands and of the result, and over what is left of them, filled up.
#[inline(always)]
fn over_chunks<I: TritIsa, const N: usize>(
    isa: I,
    operands: [&[u8]; N],
    out: &mut [u8],
    fill: u8,
    work: &mut impl OnChunk<I, N>,
) {
    assert!(operands.iter().all(|operand| operand.len() == out.len()), "operands of the same length");
    let (whole, rest) = out.as_chunks_mut::<CHUNK>();
    let heads = operands.map(|operand| &operand.as_chunks::<CHUNK>().0[..whole.len()]);
    for (i, to) in whole.iter_mut().enumerate() {
        work.run(isa, heads.map(|head| &head[i]), to);
    }
    if !rest.is_empty() {
        let tails = operands.map(|operand| filled(operand, fill));
        let mut to = [fill; CHUNK];
        work.run(isa, tails.each_ref(), &mut to);
        rest.copy_from_slice(&to[..rest.len()]);
    }
}

/// What lies behind the last whole chunk, filled up.
fn filled(operand: &[u8], fill: u8) -> [u8; CHUNK] {
    let (_, rest) = operand.as_chunks::<CHUNK>();
    let mut filled = [fill; CHUNK];
    filled[..rest.len()].copy_from_slice(rest);
    filled
}

/// One operation on packed trits: canonical bytes to canonical bytes.
///
/// # Panics
/// If the slices differ in length.
pub fn binary(tier: TritTier, op: TritOp, a: &[u8], b: &[u8], out: &mut [u8]) {
    binary_on(tier, op, a, b, out);
}
dispatch_trits!(fn binary_on(op: TritOp, a: &[u8], b: &[u8], out: &mut [u8]) = binary_body);

#[inline(always)]
fn binary_body<I: TritIsa>(isa: I, op: TritOp, a: &[u8], b: &[u8], out: &mut [u8]) {
    // Compiled for each operation.
    match op {
        TritOp::Add => over_chunks(isa, [a, b], out, ZEROS, &mut Binary(TritOp::Add)),
        TritOp::Mul => over_chunks(isa, [a, b], out, ZEROS, &mut Binary(TritOp::Mul)),
        TritOp::Min => over_chunks(isa, [a, b], out, ZEROS, &mut Binary(TritOp::Min)),
        TritOp::Max => over_chunks(isa, [a, b], out, ZEROS, &mut Binary(TritOp::Max)),
    }
}

struct Binary(TritOp);
impl<I: TritIsa> OnChunk<I, 2> for Binary {
    #[inline(always)]
    fn run(&mut self, isa: I, [a, b]: [&[u8; CHUNK]; 2], to: &mut [u8; CHUNK]) {
        for part in 0..CHUNK / I::BYTES {
            isa.store(isa.binary(self.0, isa.load(a, part), isa.load(b, part)), to, part);
        }
    }
}

/// The opposite of packed trits: canonical bytes to canonical bytes.
///
/// # Panics
/// If the slices differ in length.
pub fn negate(tier: TritTier, a: &[u8], out: &mut [u8]) {
    negate_on(tier, a, out);
}
dispatch_trits!(fn negate_on(a: &[u8], out: &mut [u8]) = negate_body);

#[inline(always)]
fn negate_body<I: TritIsa>(isa: I, a: &[u8], out: &mut [u8]) {
    over_chunks(isa, [a], out, ZEROS, &mut Negate);
}

struct Negate;
impl<I: TritIsa> OnChunk<I, 1> for Negate {
    #[inline(always)]
    fn run(&mut self, isa: I, [a]: [&[u8; CHUNK]; 1], to: &mut [u8; CHUNK]) {
        // Each digit d becomes 2 - d, and all digits are 2 in 242.
        for part in 0..CHUNK / I::BYTES {
            isa.store(isa.sub(isa.splat(VALUES - 1), isa.load(a, part)), to, part);
        }
    }
}

/// `clamp(a * b + c, -1, 1)` of packed trits.
///
/// # Panics
/// If the slices differ in length.
pub fn multiply_add(tier: TritTier, a: &[u8], b: &[u8], c: &[u8], out: &mut [u8]) {
    multiply_add_on(tier, a, b, c, out);
}
dispatch_trits!(fn multiply_add_on(a: &[u8], b: &[u8], c: &[u8], out: &mut [u8]) = multiply_add_body);

#[inline(always)]
fn multiply_add_body<I: TritIsa>(isa: I, a: &[u8], b: &[u8], c: &[u8], out: &mut [u8]) {
    over_chunks(isa, [a, b, c], out, ZEROS, &mut MultiplyAdd);
}

struct MultiplyAdd;
impl<I: TritIsa> OnChunk<I, 3> for MultiplyAdd {
    #[inline(always)]
    fn run(&mut self, isa: I, [a, b, c]: [&[u8; CHUNK]; 3], to: &mut [u8; CHUNK]) {
        for part in 0..CHUNK / I::BYTES {
            let (a, b) = (isa.unpack(isa.load(a, part)), isa.unpack(isa.load(b, part)));
            let [plus, minus] = isa.unpack(isa.load(c, part));
            let [product, negative] = TritOp::Mul.on_planes(isa, a, b);
            // Where both bits of a trit are set, they cancel out.
            isa.store(isa.repack([isa.or(product, plus), isa.or(negative, minus)]), to, part);
        }
    }
}

/// The index of the first byte that is no canonical byte.
pub fn first_invalid(tier: TritTier, bytes: &[u8]) -> Option<usize> {
    (largest(tier, bytes, 0) >= VALUES).then(|| bytes.iter().position(|&b| b >= VALUES))?
}
// The largest byte after something is added to each.
dispatch_trits!(fn largest(bytes: &[u8], plus: u8) -> u8 = largest_body);

#[inline(always)]
fn largest_body<I: TritIsa>(isa: I, bytes: &[u8], plus: u8) -> u8 {
    let (chunks, rest) = bytes.as_chunks::<CHUNK>();
    let mut seen = isa.splat(0);
    for chunk in chunks {
        for part in 0..CHUNK / I::BYTES {
            seen = isa.max(seen, isa.add(isa.load(chunk, part), isa.splat(plus)));
        }
    }
    rest.iter().map(|b| b.wrapping_add(plus)).fold(largest_of(isa, seen), u8::max)
}

/// The largest byte of a vector.
#[inline(always)]
fn largest_of<I: TritIsa>(isa: I, x: I::Bytes) -> u8 {
    let mut bytes = [0; CHUNK];
    isa.store(x, &mut bytes, 0);
    bytes[..I::BYTES].iter().copied().fold(0, u8::max)
}

/// Remembers that a value was no trit: trits plus 1 are at most 2 as u8.
#[inline(always)]
fn look<I: TritIsa>(isa: I, seen: I::Bytes, trits: I::Bytes) -> I::Bytes {
    isa.max(seen, isa.add(trits, isa.splat(1)))
}

/// One operation on int8 trits.
///
/// # Errors
/// The first value of an operand that is no trit; `out` then holds nothing of use.
///
/// # Panics
/// If the slices differ in length.
pub fn binary_i8(tier: TritTier, op: TritOp, a: &[i8], b: &[i8], out: &mut [i8]) -> Result<(), NoTrit> {
    let largest = binary_i8_on(tier, op, bytes_of(a), bytes_of(b), bytes_of_mut(out));
    checked(largest, &[a, b])
}
dispatch_trits!(fn binary_i8_on(op: TritOp, a: &[u8], b: &[u8], out: &mut [u8]) -> u8 = binary_i8_body);

fn checked(largest: u8, operands: &[&[i8]]) -> Result<(), NoTrit> {
    if largest <= 2 {
        return Ok(());
    }
    first_no_trit(operands).map_or(Ok(()), Err)
}

#[inline(always)]
fn binary_i8_body<I: TritIsa>(isa: I, op: TritOp, a: &[u8], b: &[u8], out: &mut [u8]) -> u8 {
    match op {
        TritOp::Add => int8(isa, [a, b], out, Binary(TritOp::Add)),
        TritOp::Mul => int8(isa, [a, b], out, Binary(TritOp::Mul)),
        TritOp::Min => int8(isa, [a, b], out, Binary(TritOp::Min)),
        TritOp::Max => int8(isa, [a, b], out, Binary(TritOp::Max)),
    }
}

/// An operation of int8 trits.
trait OnTrits<I: TritIsa, const N: usize> {
    fn trits(&self, isa: I, operands: [I::Bytes; N]) -> I::Bytes;
}
impl<I: TritIsa> OnTrits<I, 1> for Negate {
    #[inline(always)]
    fn trits(&self, isa: I, [a]: [I::Bytes; 1]) -> I::Bytes {
        isa.sub(isa.splat(0), a)
    }
}
impl<I: TritIsa> OnTrits<I, 2> for Binary {
    #[inline(always)]
    fn trits(&self, isa: I, [a, b]: [I::Bytes; 2]) -> I::Bytes {
        self.0.on_trits(isa, a, b)
    }
}
impl<I: TritIsa> OnTrits<I, 3> for MultiplyAdd {
    #[inline(always)]
    fn trits(&self, isa: I, [a, b, c]: [I::Bytes; 3]) -> I::Bytes {
        TritOp::Add.on_trits(isa, isa.mul_trits(a, b), c)
    }
}

/// An operation of int8 trits that remembers what it has seen.
struct Checked<I: TritIsa, T> {
    operation: T,
    seen: I::Bytes,
}
impl<I: TritIsa, const N: usize, T: OnTrits<I, N>> OnChunk<I, N> for Checked<I, T> {
    #[inline(always)]
    fn run(&mut self, isa: I, from: [&[u8; CHUNK]; N], to: &mut [u8; CHUNK]) {
        for part in 0..CHUNK / I::BYTES {
            let mut operands = [isa.splat(0); N];
            for (operand, from) in operands.iter_mut().zip(from) {
                *operand = isa.load(from, part);
                self.seen = look(isa, self.seen, *operand);
            }
            isa.store(self.operation.trits(isa, operands), to, part);
        }
    }
}

/// An operation on int8 trits; returns the largest of all operands, plus 1 as u8.
#[inline(always)]
fn int8<I: TritIsa, const N: usize>(
    isa: I,
    operands: [&[u8]; N],
    out: &mut [u8],
    operation: impl OnTrits<I, N>,
) -> u8 {
    let mut work = Checked { operation, seen: isa.splat(0) };
    over_chunks(isa, operands, out, 0, &mut work);
    largest_of(isa, work.seen)
}

/// The opposite of int8 trits.
///
/// # Errors
/// The first value that is no trit; `out` then holds nothing of use.
///
/// # Panics
/// If the slices differ in length.
pub fn negate_i8(tier: TritTier, a: &[i8], out: &mut [i8]) -> Result<(), NoTrit> {
    checked(negate_i8_on(tier, bytes_of(a), bytes_of_mut(out)), &[a])
}
dispatch_trits!(fn negate_i8_on(a: &[u8], out: &mut [u8]) -> u8 = negate_i8_body);

#[inline(always)]
fn negate_i8_body<I: TritIsa>(isa: I, a: &[u8], out: &mut [u8]) -> u8 {
    int8(isa, [a], out, Negate)
}

/// `clamp(a * b + c, -1, 1)` of int8 trits.
///
/// # Errors
/// The first value of an operand that is no trit; `out` then holds nothing of use.
///
/// # Panics
/// If the slices differ in length.
pub fn multiply_add_i8(tier: TritTier, a: &[i8], b: &[i8], c: &[i8], out: &mut [i8]) -> Result<(), NoTrit> {
    let largest = multiply_add_i8_on(tier, bytes_of(a), bytes_of(b), bytes_of(c), bytes_of_mut(out));
    checked(largest, &[a, b, c])
}
dispatch_trits!(fn multiply_add_i8_on(a: &[u8], b: &[u8], c: &[u8], out: &mut [u8]) -> u8 = multiply_add_i8_body);

#[inline(always)]
fn multiply_add_i8_body<I: TritIsa>(isa: I, a: &[u8], b: &[u8], c: &[u8], out: &mut [u8]) -> u8 {
    int8(isa, [a, b, c], out, MultiplyAdd)
}
