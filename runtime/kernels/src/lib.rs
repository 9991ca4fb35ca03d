//! CPU kernels that are not generated: all that runs between two ternary products, and those products in portable Rust.
//!
//! Every function works on slices of f32 or i8, and a readable reference stands beside it.
//!
//! A result depends neither on how rows or heads are divided among threads, nor on what is computed together with it,
//! nor on the CPU. Three rules make it so: each sum has one fixed order; a product is rounded before it is added,
//! except where the code says `mul_add`, which is rounded once on every CPU; and `e^x` is our own function. Each kernel
//! is compiled for several instruction sets from one source and runs on the best one that the CPU has.
//!
//! These functions run inside loops, for every token. Their callers made the slices and checked the lengths once. So a
//! slice of another length than a function documents is a defect of the caller: the function then panics, and never
//! reads outside the slice.
//!
//! `unsafe` stands in 8 files: `isa.rs`, `isa/neon.rs`, `isa/nibbles.rs`, `isa/product.rs`, `isa/x86.rs`, `isa/trits/tier.rs`,
//! `isa/trits/neon.rs` and `isa/trits/x86.rs`, which wrap intrinsics and call functions that are compiled for CPUs with
//! certain features. The others deny it.
#![deny(unsafe_code)]
// Several arrays of lanes are indexed in step; zipped iterators would hide that.
#![allow(clippy::needless_range_loop)]

pub mod attention;
pub mod convolve;
pub mod delta;
mod dot;
pub mod elementwise;
pub mod epilogue;
mod exp;
pub mod hadamard;
pub mod head;
mod isa;
mod load_float;
pub mod norm;
pub mod planes;
pub mod quantize;
pub mod rope;
mod table;
pub mod ternary;

#[cfg(test)]
mod testing {
    /// xorshift64*, seeded, for operands.
    pub struct Random(pub u64);

    impl Random {
        pub fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20
        }
    }

    /// `n` floats in -1..1.
    pub fn floats(n: usize, seed: u64) -> Vec<f32> {
        let mut random = Random(seed);
        (0..n).map(|_| (random.next() % 65536) as f32 / 32768.0 - 1.0).collect()
    }
}
