//! Ternary matrix kernels: what one computes, how it is called, where its code stands.

use crate::container::Digest;
use crate::dense243::Code;
use crate::target::Target;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the calling convention of [`KernelArgs`].
pub const ABI_VERSION: u32 = 3;

/// Largest `k` for which every code is exact in wrapping i32: `2 * 127 * k * 256 < 2^31`.
pub const MAX_K: u32 = 33_000;

/// Columns that a group may have.
pub const GROUP_COLUMNS: [u32; 4] = [32, 64, 128, 256];

/// Most columns of a grouped packed matrix, whose integer sums are those of a group.
pub const MAX_GROUPED_K: u32 = 1 << 20;

/// Most columns of a group whose activations are three int8 digits: sums of that many integers of 24 bits fit i32.
pub const MAX_DIGIT_COLUMNS: u32 = 128;

/// Most activation rows of a call of a stream kernel, by which runtimes size their memory for partial sums; and most
/// that a block kernel leaves to stream kernels.
pub const MAX_M: u32 = 16;

/// Most quads that one iteration of a kernel's inner loop handles. A runtime regenerates code from its record, so this
/// bounds that work.
pub const MAX_UNROLL: u32 = 16;

/// A block kernel reads activations in steps of this many columns, which is one row of an AMX tile.
pub const BLOCK_COLUMNS: usize = 64;

/// How a kernel goes over the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KernelKind {
    /// Weights stream from memory once, decoded in registers, for exactly `m` activation rows: decode.
    Stream,
    /// Each tile is decoded once into scratch memory and meets all of [`KernelArgs::rows`] from the cache: prefill.
    Block,
    /// As [`KernelKind::Block`], for tiles in groups of columns: the sums of each group become floats, which are multiplied
    /// by scales and added up, so that integers do not leave the kernel.
    Grouped,
}

/// What a ternary kernel computes, apart from the machine it runs on.
///
/// For each tile `t` and each of its activation rows `r`, with all sums exact in i32:
/// `out[r * out_stride + t * tile_rows + row] = sum over k of trit[row, k] * activations[r * activation_stride + k]`,
/// where a tile has [`Code::tile_rows`] rows.
///
/// A [`KernelKind::Grouped`] kernel adds, for each group `g` in order and with each of the three operations rounded to f32,
/// `out[r * out_stride + t * tile_rows + row] += sum as f32 * (activation_scales[r * activation_scale_stride + g] *
/// weight_scales[(t * groups + g) * tile_rows + row])`, where `sum` is that over the group's `k` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelSpec {
    /// Columns of the matrix or of a group, a constant in the code. One of [`GROUP_COLUMNS`] in a [`KernelKind::Grouped`]
    /// kernel.
    pub k: u32,
    /// Activation rows. A [`KernelKind::Stream`] kernel takes exactly this many in a call. Others take any number, and are
    /// faster than stream kernels from this many on.
    pub m: u32,
    /// How it goes over the weights.
    pub kind: KernelKind,
    /// How weight bytes are stored.
    pub code: Code,
    /// Quads of `k` handled by one iteration of the inner loop. A kernel copes with any `k` whatever its unroll.
    pub unroll: u32,
    /// Bytes ahead of the current weight that are prefetched; 0 for none.
    pub prefetch: u32,
}

impl KernelSpec {
    /// Bytes of [`KernelArgs::scratch`]: for a block kernel two decoded tiles, 32 activation rows in the kernel's own
    /// order, 4 KiB for their sums by each digit of a byte, and 4 KiB for what passes through L1; for a grouped kernel two
    /// decoded groups of two tiles, and the same. As many for any number of activation rows.
    pub const fn scratch_bytes(&self, _rows: usize) -> usize {
        let k = (self.k as usize).next_multiple_of(BLOCK_COLUMNS);
        let tiles = match self.kind {
            KernelKind::Stream => return 0,
            KernelKind::Block => 2,
            KernelKind::Grouped => 4,
        };
        (tiles * self.code.tile_rows() + 32) * k + (self.code.digits() + 1) * 4096
    }
}

impl fmt::Display for KernelSpec {
    /// The kernel's name: operation, activation type, weight code, kind, tile rows by `m`, columns, unroll, prefetch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, rows) = (self.code.name(), self.code.tile_rows());
        let kind = match self.kind {
            KernelKind::Stream => "",
            KernelKind::Block => "_block",
            KernelKind::Grouped => "_grouped",
        };
        write!(f, "ternary_i8_{code}{kind}_{rows}x{}_k{}_u{}_p{}", self.m, self.k, self.unroll, self.prefetch)
    }
}

/// The single argument of a kernel, by pointer: `extern "sysv64"` on x86-64, `extern "C"` on aarch64.
///
/// A [`KernelKind::Stream`] kernel reads `tiles * tile::bytes(k)` weight bytes, `m` rows of `padded_k(k)` activations
/// and `m` sums, and writes `m` rows of `tiles * tile_rows` i32. A [`KernelKind::Block`] kernel does so for `rows` rows, reads
/// each up to the next multiple of [`BLOCK_COLUMNS`], and uses the scratch memory. A [`KernelKind::Grouped`] kernel reads
/// `groups * tile::bytes(k)` weight bytes of each tile, `rows` rows of `groups * k` activations, `groups` sums and `groups`
/// scales, and adds to `rows` rows of `tiles * tile_rows` f32. Nothing else is touched; prefetches may name any address.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KernelArgs {
    /// First tile, 64-byte aligned. Offset 0.
    pub weights: *const u8,
    /// First activation row, 4-byte aligned; entries from `k` to `padded_k(k)` are zero. For a block kernel 64-byte
    /// aligned, and zero up to the next multiple of [`BLOCK_COLUMNS`]. Offset 8.
    pub activations: *const i8,
    /// Sum of the activations of each row, which unsigned codes subtract; of a grouped kernel's rows one for each group,
    /// side by side. Offset 16.
    pub sums: *const i32,
    /// First result, an f32 of a grouped kernel. Offset 24.
    pub out: *mut i32,
    /// Number of tiles, at least 1. Offset 32.
    pub tiles: u64,
    /// Bytes from one activation row to the next, a multiple of 4; of 64 for a block or grouped kernel. Offset 40.
    pub activation_stride: u64,
    /// i32 elements from one sum to the next. Offset 48.
    pub sum_stride: u64,
    /// i32 elements from one result row to the next. Offset 56.
    pub out_stride: u64,
    /// Activation rows, at least 1. Stream kernels take their `m` and do not look here. Offset 64.
    pub rows: u64,
    /// [`KernelSpec::scratch_bytes`] for a block or grouped kernel, 64-byte aligned. It may hold anything. Offset 72.
    pub scratch: *mut u8,
    /// Bytes that `activations` moves on after each tile, a multiple of 4: 0, or the columns of a group where the tiles
    /// of a call are the groups of one tile of a packed matrix. Only stream kernels look here. Offset 80.
    pub activation_advance: u64,
    /// i32 elements that `sums` moves on after each tile: 0, or 1 with groups. Only stream kernels look here. Offset
    /// 88.
    pub sum_advance: u64,
    /// Scales of the weights, `[tiles, groups, tile_rows]`. Only grouped kernels look here and below. Offset 96.
    pub weight_scales: *const f32,
    /// Scales of the first activation row, one for each group. Offset 104.
    pub activation_scales: *const f32,
    /// f32 elements from the scales of one activation row to those of the next. Offset 112.
    pub activation_scale_stride: u64,
    /// Groups of a tile, at least 1. Offset 120.
    pub groups: u64,
    /// Bytes from one tile to the next, a multiple of 64. Offset 128.
    pub weight_stride: u64,
}

impl KernelArgs {
    /// Nothing, to be filled in with what a kind of kernel looks at.
    pub const NOTHING: KernelArgs = KernelArgs {
        weights: std::ptr::null(),
        activations: std::ptr::null(),
        sums: std::ptr::null(),
        out: std::ptr::null_mut(),
        tiles: 0,
        activation_stride: 0,
        sum_stride: 0,
        out_stride: 0,
        rows: 0,
        scratch: std::ptr::null_mut(),
        activation_advance: 0,
        sum_advance: 0,
        weight_scales: std::ptr::null(),
        activation_scales: std::ptr::null(),
        activation_scale_stride: 0,
        groups: 0,
        weight_stride: 0,
    };
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
