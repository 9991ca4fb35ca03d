//! What sets one target apart from the others: its emitter, the registers that decide the form of a program, its
//! block kernels, and the numbers that were found by measuring. A new target is one more entry here, besides its name
//! and features in [`Target`] itself.

use crate::block::asm::Width;
use crate::block::neon::{NeonBlocking, Products};
use crate::block::vector::VectorBlocking;
use crate::program::Dot;
use trit_format::dense243::Code;
use trit_format::target::Target;

/// One target, as far as generating code for it goes.
pub(crate) struct Tier {
    pub backend: Backend,
    /// How a program for weights of [`Code::SignedFix`] is shaped.
    pub fix: RegisterBudget,
    /// The same for [`Code::Spread`]; `None` where the target has no tables of 64 bytes to look up.
    pub spread: Option<RegisterBudget>,
    /// The same for [`Code::Binary`], whose eight features take eight accumulators.
    pub binary: RegisterBudget,
    pub block: Option<Block>,
    /// Kernels for whole rows of a matrix. Of those for the same number of activation rows, the first is a good guess
    /// and the others are to be timed.
    pub matrix: &'static [Variant],
    /// Kernels for the groups of a row. The weights of successive groups are contiguous, so prefetching goes on from
    /// one group to the next. Kernels of three rows are for activations of 24 bits, whose three digits share a pass.
    /// An unroll of 8 takes a group of 32 columns in one iteration.
    pub group: &'static [Variant],
}

/// What turns a program into instructions.
#[derive(Clone, Copy)]
pub(crate) enum Backend {
    /// Cranelift, for vectors of 128 bits.
    Cranelift {
        /// Instruction sets it may use, by its own names.
        flags: &'static [&'static str],
        /// Whether sums of two products are formed in i16 first. That is so where no instruction sums four products.
        pairs: bool,
    },
    /// `wide`, for vectors of 256 and 512 bits.
    Wide,
}

/// The numbers of registers of a tier, which decide the form of a program.
#[derive(Clone, Copy)]
pub(crate) struct RegisterBudget {
    /// Bytes of a vector.
    pub vector: u32,
    /// Groups of accumulators, one for each feature, that fit the registers beside the operands.
    pub accumulator_groups: u32,
    /// Activation rows that share features.
    pub most_rows: u32,
    /// Parts whose features are computed side by side.
    pub together: u8,
    /// Sets of accumulators for a single row.
    pub sets: u32,
    pub dot: Dot,
}

/// Kernels for blocks of rows.
pub(crate) struct Block {
    pub method: Method,
    /// For weights of [`Code::SignedFix`].
    pub fix: FewestRows,
    /// For weights of [`Code::Spread`], where the target reads them.
    pub spread: Option<FewestRows>,
    /// For weights of [`Code::Binary`].
    pub binary: FewestRows,
}

/// How a block kernel multiplies.
#[derive(Clone, Copy)]
pub(crate) enum Method {
    Vector(VectorBlocking),
    Amx,
    Neon(NeonBlocking),
}

/// From how many activation rows on a block kernel is faster than stream kernels, as measured
/// (`examples/group_speed.rs`); for aarch64, as counted (`examples/instructions`). The more decoding in registers costs,
/// the fewer rows make up for decoding to memory.
#[derive(Clone, Copy)]
pub(crate) struct FewestRows {
    pub matrix: u32,
    /// A call of a block kernel serves one group, one of a stream kernel many.
    pub group: u32,
}

/// A kernel that differs from its siblings only in speed.
#[derive(Clone, Copy)]
pub(crate) struct Variant {
    /// Activation rows.
    pub m: u32,
    /// Quads of one iteration.
    pub unroll: u32,
    pub prefetch: Ahead,
}

/// How far ahead of the weights in use a kernel prefetches.
#[derive(Clone, Copy)]
pub(crate) enum Ahead {
    /// By so many bytes; with 0, nothing is prefetched.
    Bytes(u32),
    /// By one tile. Several rows take several passes over a tile, and meanwhile the next tile arrives.
    Tile,
}

impl Tier {
    pub fn of(target: Target) -> &'static Tier {
        match target {
            Target::X86_64V2 => &V2,
            Target::X86_64V3 => &V3,
            Target::X86_64V3Vnni => &V3_VNNI,
            Target::X86_64V4Vnni => &V4_VNNI,
            Target::X86_64V4Vbmi => &V4_VBMI,
            Target::X86_64Amx => &AMX,
            Target::Aarch64 => &NEON,
            Target::Aarch64Dotprod => &NEON_DOTPROD,
            Target::Aarch64I8mm => &NEON_I8MM,
            // `Target` may get a new variant in its own crate first. `tests/text.rs` compiles a kernel for each, so
            // that it shows.
            _ => unreachable!("every target has an entry"),
        }
    }

    /// `None` where no emitter of the target reads the code.
    pub fn registers(&self, code: Code) -> Option<RegisterBudget> {
        match code {
            Code::SignedFix => Some(self.fix),
            Code::Spread => self.spread,
            Code::Binary => Some(self.binary),
            _ => None,
        }
    }

    /// From how many rows on a block kernel for `code` is the faster one; `None` where there is none.
    pub fn fewest_rows(&self, code: Code) -> Option<FewestRows> {
        let block = self.block.as_ref()?;
        match code {
            Code::SignedFix => Some(block.fix),
            Code::Spread => block.spread,
            Code::Binary => Some(block.binary),
            _ => None,
        }
    }
}

const fn ahead(m: u32, unroll: u32, bytes: u32) -> Variant {
    Variant { m, unroll, prefetch: Ahead::Bytes(bytes) }
}

const fn tile_ahead(m: u32, unroll: u32) -> Variant {
    Variant { m, unroll, prefetch: Ahead::Tile }
}

const fn rows(matrix: u32, group: u32) -> FewestRows {
    FewestRows { matrix, group }
}

// The activation's sign goes into the features, so rows have no features in common. 12 of 16 registers hold
// accumulators; a spilled temporary costs less than preparing the activations for two more passes.
const SSE: RegisterBudget = RegisterBudget {
    vector: 16,
    accumulator_groups: 2,
    most_rows: 1,
    together: 1,
    sets: 1,
    dot: Dot::SignedMagnitude,
};

const V2: Tier = Tier {
    backend: Backend::Cranelift { flags: &["has_sse3", "has_ssse3", "has_sse41"], pairs: true },
    fix: SSE,
    spread: None,
    // 8 of 16 registers hold accumulators.
    binary: RegisterBudget { accumulator_groups: 1, dot: Dot::UnsignedPairs, ..SSE },
    block: None,
    // These kernels pass over a tile more than once; `clif` says what is prefetched.
    matrix: &[tile_ahead(1, 2), ahead(4, 2, 0)],
    group: &[ahead(1, 4, 0), ahead(4, 4, 0)],
};

const V3: Tier = Tier {
    backend: Backend::Wide,
    fix: RegisterBudget { vector: 32, ..SSE },
    spread: None,
    binary: RegisterBudget { vector: 32, ..V2.binary },
    block: Some(Block {
        method: Method::Vector(VectorBlocking {
            width: Width::Ymm,
            dot: false,
            rows: 6,
            vectors: 2,
            tail_vectors: 2,
            quads: 64,
        }),
        fix: rows(2, 2),
        spread: None,
        binary: rows(2, 4),
    }),
    // The kernel computes for longer than it waits for memory. It was fastest where weights had arrived in the L2
    // cache.
    matrix: &[ahead(1, 8, 32768), ahead(1, 4, 8192), ahead(1, 8, 65536), tile_ahead(2, 4), tile_ahead(4, 4)],
    group: &[ahead(1, 8, 32768), ahead(1, 4, 8192), ahead(2, 4, 8192), ahead(4, 4, 8192)],
};

const V3_VNNI: Tier = Tier {
    backend: Backend::Wide,
    // 12 of 16 registers.
    fix: RegisterBudget { vector: 32, most_rows: 2, dot: Dot::UnsignedSigned, ..SSE },
    spread: None,
    // 8 of 16 registers.
    binary: RegisterBudget { vector: 32, accumulator_groups: 1, dot: Dot::UnsignedSigned, ..SSE },
    block: Some(Block {
        method: Method::Vector(VectorBlocking {
            width: Width::Ymm,
            dot: true,
            rows: 6,
            vectors: 2,
            tail_vectors: 2,
            quads: 96,
        }),
        fix: rows(10, 10),
        spread: None,
        binary: rows(6, 6),
    }),
    matrix: &[ahead(1, 4, 12288), ahead(1, 2, 8192), ahead(1, 4, 16384), tile_ahead(2, 8), tile_ahead(4, 4)],
    group: &[ahead(1, 8, 12288), ahead(1, 4, 12288), ahead(2, 8, 8192), ahead(4, 4, 8192)],
};

const EVEX: RegisterBudget = RegisterBudget {
    vector: 64,
    accumulator_groups: 4,
    most_rows: 4,
    together: 1,
    sets: 1,
    dot: Dot::UnsignedSigned,
};

const V4_VNNI: Tier = Tier {
    backend: Backend::Wide,
    // 24 of 32 registers.
    fix: EVEX,
    spread: None,
    // 24 of 32 registers.
    binary: RegisterBudget { accumulator_groups: 3, most_rows: 3, ..EVEX },
    block: Some(Block {
        method: Method::Vector(VectorBlocking {
            width: Width::Zmm,
            dot: true,
            rows: 5,
            vectors: 5,
            tail_vectors: 5,
            quads: 96,
        }),
        fix: rows(7, 8),
        spread: None,
        binary: rows(7, 6),
    }),
    matrix: &[
        ahead(1, 4, 16384),
        ahead(1, 8, 12288),
        ahead(1, 4, 32768),
        ahead(2, 2, 16384),
        ahead(4, 4, 16384),
    ],
    group: &[
        ahead(1, 8, 16384),
        ahead(1, 4, 16384),
        ahead(1, 8, 32768),
        ahead(2, 8, 16384),
        ahead(3, 4, 16384),
        ahead(4, 4, 16384),
    ],
};

const V4_VBMI: Tier = Tier {
    // 20 of 32 registers, and four tables. One row takes 11 operations a vector on two ports: hardly more than the five
    // cycles that one accumulator waits for itself, hence two sets.
    spread: Some(RegisterBudget { sets: 2, ..EVEX }),
    block: match V4_VNNI.block {
        Some(block) => Some(Block { spread: Some(rows(7, 8)), ..block }),
        None => None,
    },
    ..V4_VNNI
};

const AMX: Tier = Tier {
    // With groups a block of 8 to 12 rows leaves half of the unit's tiles empty, and its sums become floats group by group:
    // whole steps of a model were 1.3 times as fast with stream kernels, although the products alone are not.
    block: Some(Block {
        method: Method::Amx,
        fix: rows(5, 16),
        spread: Some(rows(7, 16)),
        binary: rows(7, 16),
    }),
    ..V4_VBMI
};

// 24 of 32 registers. Chains of features are interleaved for cores that execute in order.
const ASIMD: RegisterBudget = RegisterBudget {
    vector: 16,
    accumulator_groups: 4,
    most_rows: 4,
    together: 2,
    sets: 1,
    dot: Dot::SignedSigned,
};

// No machine was there to measure on. By instructions alone (`examples/instructions`) a block kernel is ahead from fewer
// rows on than these in some shapes, by less than a tenth.
const NEON: Tier = Tier {
    backend: Backend::Cranelift { flags: &[], pairs: true },
    fix: ASIMD,
    spread: None,
    // 16 of 32 registers, beside the masks of the features.
    binary: RegisterBudget { accumulator_groups: 2, most_rows: 2, dot: Dot::UnsignedPairs, ..ASIMD },
    block: Some(Block {
        // The sums of a chunk are widened at its end, which costs less the longer it is. Digits from L2 are fast enough
        // for products one by one.
        method: Method::Neon(NeonBlocking::new(Products::Long, 768)),
        fix: rows(2, 2),
        spread: None,
        binary: rows(2, 3),
    }),
    // A tile is read once, in order, which hardware prefetches; several rows are bound by arithmetic.
    matrix: &[ahead(1, 2, 0), ahead(4, 2, 0)],
    group: &[ahead(1, 2, 0), ahead(3, 2, 0), ahead(4, 2, 0)],
};

const NEON_DOTPROD: Tier = Tier {
    backend: Backend::Cranelift { flags: &["has_dotprod"], pairs: false },
    fix: RegisterBudget { together: 4, ..ASIMD },
    // 24 of 32 registers.
    binary: RegisterBudget { accumulator_groups: 3, most_rows: 3, ..ASIMD },
    block: Some(Block {
        method: Method::Neon(NeonBlocking::new(Products::Dot, 384)),
        fix: rows(2, 6),
        spread: None,
        binary: rows(3, 6),
    }),
    ..NEON
};

const NEON_I8MM: Tier = Tier {
    block: Some(Block {
        method: Method::Neon(NeonBlocking::new(Products::Matrix, 384)),
        fix: rows(2, 4),
        spread: None,
        binary: rows(2, 4),
    }),
    ..NEON_DOTPROD
};
