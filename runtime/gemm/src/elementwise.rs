//! Element-wise arithmetic of arrays of trits, packed or int8, and several operations in one pass over memory.
//!
//! | operation | of trits `a`, `b`, `c` |
//! |---|---|
//! | `tadd` | `clamp(a + b, -1, 1)`, the saturating sum |
//! | `tmul` | `a * b` |
//! | `tmin`, `tmax` | the smaller, the larger: Kleene's and, or |
//! | `tnot` | `-a`, Kleene's not |
//! | `ternary_fma` | `clamp(a * b + c, -1, 1)`. The product of two trits is a trit, so that it saturates only once |
//!
//! ```
//! use trit_gemm::{Chain, PackedTrits};
//!
//! let a = PackedTrits::pack(&[1, 1, 0, -1, -1, 1, 0], 7)?;
//! let b = PackedTrits::pack(&[1, -1, 0, -1, 0, 0, 1], 7)?;
//! assert_eq!(a.tadd(&b)?.unpack(), [1, 0, 0, -1, -1, 1, 1]);
//!
//! // not (a min b), without an array in between.
//! let mut chain = Chain::builder();
//! let (x, y) = (chain.input(), chain.input());
//! let smaller = chain.tmin(x, y);
//! let result = chain.tnot(smaller);
//! let chain = chain.finish(result)?;
//! assert_eq!(chain.run(&[&a, &b])?.unpack(), a.tmin(&b)?.tnot()?.unpack());
//! # Ok::<(), trit_gemm::GemmError>(())
//! ```
//!
//! Arrays of some size are shared out among the threads of the caller's pool. Results depend on neither threads nor the
//! CPU.

mod chain;
mod packed;

pub use chain::{Chain, ChainBuilder, Value};
pub use packed::PackedTrits;
pub use trit_kernels::elementwise::TritOp;

use crate::GemmError;
use rayon::prelude::*;
use trit_kernels::elementwise::{NoTrit, TritTier, binary_i8, first_no_trit, multiply_add_i8, negate_i8};

/// Bytes of an array that a thread takes at a time; shorter arrays are not shared out. It is a multiple of a chunk.
const PIECE: usize = 256 << 10;

/// Runs `work` on pieces of equal places of `inputs` and of `out`, on the threads of the caller's pool. Returns the first
/// error of some piece.
fn shared<T: Sync, U: Send, E: Send>(
    inputs: &[&[T]],
    out: &mut [U],
    work: impl Fn(&[&[T]], &mut [U]) -> Result<(), E> + Sync,
) -> Result<(), E> {
    if out.len() <= PIECE || rayon::current_num_threads() == 1 {
        return work(inputs, out);
    }
    out.par_chunks_mut(PIECE).enumerate().try_for_each(|(i, out)| {
        let from = i * PIECE;
        let inputs: Vec<&[T]> = inputs.iter().map(|input| &input[from..from + out.len()]).collect();
        work(&inputs, out)
    })
}

/// Checks that operands are as long as the result.
fn same_lengths(operands: &[&[i8]], out: &[i8]) -> Result<(), GemmError> {
    match operands.iter().find(|operand| operand.len() != out.len()) {
        Some(other) => Err(GemmError::Length { what: "an operand", expected: out.len(), found: other.len() }),
        None => Ok(()),
    }
}

/// An operation on int8 trits.
fn on_trits(
    operands: &[&[i8]],
    out: &mut [i8],
    work: impl Fn(&[&[i8]], &mut [i8]) -> Result<(), NoTrit> + Sync,
) -> Result<(), GemmError> {
    same_lengths(operands, out)?;
    // Which piece failed first depends on the threads, so the first value is looked for again.
    shared(operands, out, work).map_err(|found| {
        let NoTrit { operand, index, value } = first_no_trit(operands).unwrap_or(found);
        GemmError::Operand { operand, index, value }
    })
}

macro_rules! binary_functions {
    ($($(#[$meta:meta])* $name:ident = $op:ident;)*) => {
        $(
            $(#[$meta])*
            ///
            /// # Errors
            /// [`GemmError::Length`] where lengths differ, [`GemmError::Operand`] with the first value that is no trit; then
            /// `out` holds nothing of use.
            pub fn $name(a: &[i8], b: &[i8], out: &mut [i8]) -> Result<(), GemmError> {
                on_trits(&[a, b], out, |x, out| binary_i8(TritTier::best(), TritOp::$op, x[0], x[1], out))
            }
        )*
    };
}

binary_functions! {
    /// The saturating sum of int8 trits, `clamp(a + b, -1, 1)`.
    tadd_i8 = Add;
    /// The product of int8 trits.
    tmul_i8 = Mul;
    /// The smaller of int8 trits.
    tmin_i8 = Min;
    /// The larger of int8 trits.
    tmax_i8 = Max;
}

/// The opposite of int8 trits.
///
/// # Errors
/// As [`tadd_i8`].
pub fn tnot_i8(a: &[i8], out: &mut [i8]) -> Result<(), GemmError> {
    on_trits(&[a], out, |x, out| negate_i8(TritTier::best(), x[0], out))
}

/// `clamp(a * b + c, -1, 1)` of int8 trits.
///
/// # Errors
/// As [`tadd_i8`].
pub fn ternary_fma_i8(a: &[i8], b: &[i8], c: &[i8], out: &mut [i8]) -> Result<(), GemmError> {
    on_trits(&[a, b, c], out, |x, out| multiply_add_i8(TritTier::best(), x[0], x[1], x[2], out))
}
