//! Packed ternary matrices, and their products with int8 and float activations.
//!
//! A [`TernaryMatrix`] owns a matrix of -1, 0 and 1 in 1.6 bits a weight, or in 1 bit where there is no 0, with scales by
//! tensor, by row or by group of columns, and multiplies rows of activations by machine code that is generated for its
//! shape and this CPU, or by portable Rust:
//!
//! ```
//! use trit_gemm::{Precision, Scales, TernaryMatrix};
//!
//! // Three rows of four columns, row-major `[n, k]`.
//! let trits = [1, 0, -1, 1, /* */ 0, 1, 1, 0, /* */ -1, -1, 0, 1];
//! let matrix = TernaryMatrix::pack(&trits, 3, 4, Scales::Rows(&[0.5, 1.0, 2.0]))?;
//! assert_eq!(matrix.unpack(), trits);
//!
//! // Int8 activations `[m, k]`: exact sums `[m, n]`, without the scales.
//! assert_eq!(matrix.gemm_i8(&[1, 2, 3, 4, 100, -100, 0, 27])?, [2, 5, 1, 127, -100, 27]);
//!
//! // Float activations: as precise as f32.
//! let y = matrix.gemm(&[0.25, -1.5, 3.0, 0.125], Precision::Float)?;
//! for (y, expected) in y.iter().zip([0.5 * -2.625, 1.5, 2.0 * 1.375]) {
//!     assert!((y - expected).abs() < 1e-5, "{y}, expected {expected}");
//! }
//! println!("{}", matrix.kernels());
//! # Ok::<(), trit_gemm::GemmError>(())
//! ```
//!
//! Results depend neither on the number of threads nor on the kernels, because integers are exact and floats are added
//! in one order.
//!
//! Beneath the owned matrix stand the parts that an engine uses with memory of its own. Tiles of a [`Layout`] with
//! their
//! [`Kernels`] are a [`MatrixRef`], and a [`Pass`] multiplies it with [`Activations`]. A pass hands each tile's sums to the
//! caller while they are in the cache.
//!
//! | module | holds |
//! |---|---|
//! | [`matrix`] | the owned matrix: packing, multiplying |
//! | [`elementwise`] | arithmetic of arrays of trits, packed ([`PackedTrits`]) or int8, one operation or several ([`Chain`]) |
//! | `layout` | the layout of tiles: columns, code, groups |
//! | `activations` | quantized rows, borrowed and owned |
//! | `kernels` | kernels of machine code, and which of them are used |
//! | `generate` | machine code for a shape, with feature `jit` |
//! | `pass` | multiplying tiles with activations, by whatever kernels there are |
//! | `call` | one call of a kernel: its arguments |
//! | [`tuning`] | which variant is fastest on given weights |
//! | `memory` | aligned memory, in huge pages where that pays |
//! | [`cpu`] | what this CPU can run |
//!
//! `unsafe` stands in 5 files: `memory.rs`, `kernels.rs`, `generate.rs`, `call.rs` and `cpu.rs`. The others deny it.
#![deny(unsafe_code)]

mod activations;
mod call;
pub mod cpu;
pub mod elementwise;
mod error;
mod generate;
mod kernels;
mod layout;
pub mod matrix;
mod memory;
mod pass;
pub mod tuning;

pub use activations::{Activations, QuantizedRows, Strided};
pub use cpu::CpuTiers;
pub use elementwise::{Chain, PackedTrits};
pub use error::GemmError;
pub use generate::generated_targets;
pub use kernels::{KernelFn, Kernels, MachineCode, Variants};
pub use layout::{KernelShape, Layout};
pub use matrix::{KernelRequest, MatrixKernels, PackOptions, Precision, Scales, TernaryMatrix};
pub use memory::{AlignedMemory, ReadOnlyMemory};
pub use pass::{MatrixRef, Pass, Scratch};
pub use trit_format as format;
