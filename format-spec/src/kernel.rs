//! Ternary matrix kernels: what one computes, how it is called, where its code stands.

use crate::container::Digest;
use crate::dense243::Code;
use crate::target::Target;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the calling convention of [`KernelArgs`].
pub const ABI_VERSION: u32 = 1;

/// Largest `k` for which every code is exact in wrapping i32: `2 * 127 * k * 256 < 2^31`.
pub const MAX_K: u32 = 33_000;

/// What a ternary kernel computes, apart from the machine it runs on.
///
/// For each tile `t` and each of its activation rows `r`, with all sums exact in i32:
/// `out[r * out_stride + t * 80 + row] = sum over k of trit[row, k] * activations[r * activation_stride + k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelSpec {
    /// Columns of the matrix, a constant in the code.
    pub k: u32,
    /// Activation rows handled by one call: 1 for decode, more for blocks of rows.
    pub m: u32,
    /// How weight bytes are stored.
    pub code: Code,
    /// Quads of `k` handled by one iteration of the inner loop. A kernel copes with any `k` whatever its unroll.
    pub unroll: u32,
    /// Bytes ahead of the current weight that are prefetched; 0 for none.
    pub prefetch: u32,
}

impl fmt::Display for KernelSpec {
    /// The kernel's name: operation, activation type, weight code, tile rows by activation rows, columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.name();
        write!(f, "ternary_i8_{code}_80x{}_k{}_u{}_p{}", self.m, self.k, self.unroll, self.prefetch)
    }
}

/// The single argument of a kernel, by pointer: `extern "sysv64"` on x86-64, `extern "C"` on aarch64.
///
/// The code reads `tiles * tile::bytes(k)` weight bytes, `m` rows of `padded_k(k)` activations and `m` sums, writes
/// `m` rows of `tiles * 80` i32, and touches nothing else; prefetches may name any address.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KernelArgs {
    /// First tile, 64-byte aligned. Offset 0.
    pub weights: *const u8,
    /// First activation row, 4-byte aligned; entries from `k` to `padded_k(k)` are zero. Offset 8.
    pub activations: *const i8,
    /// Sum of the activations of each row, which unsigned codes subtract. Offset 16.
    pub sums: *const i32,
    /// First result. Offset 24.
    pub out: *mut i32,
    /// Number of tiles, at least 1. Offset 32.
    pub tiles: u64,
    /// Bytes from one activation row to the next, a multiple of 4. Offset 40.
    pub activation_stride: u64,
    /// i32 elements from one sum to the next. Offset 48.
    pub sum_stride: u64,
    /// i32 elements from one result row to the next. Offset 56.
    pub out_stride: u64,
}

/// One generated kernel in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelEntry {
    /// What it computes.
    pub spec: KernelSpec,
    /// The tier it was generated for; its code stands in that target's code section.
    pub target: Target,
    /// [`ABI_VERSION`] it was generated for.
    pub abi: u32,
    /// Byte offset in the code section, a multiple of 64.
    pub offset: u64,
    /// Bytes of code.
    pub len: u64,
    /// BLAKE3 of the code.
    pub digest: Digest,
}
