//! Tensors as they are stored become the matrices of a model. Nothing is decoded up front: a matrix keeps its range
//! of the mapped checkpoint and gives rows when it is asked for them.
//!
//! | module | makes |
//! |---|---|
//! | `stored` | ternary matrices that the configuration declares: packed codes, ternary floats, latent weights |
//! | `detect` | ternary matrices of floats about which the configuration says nothing |
//! | `near` | ternary matrices of floats that are so within rounding |
//! | `blocks`, `trits` | ternary matrices of GGUF's blocks |
//! | `i2s`, `i2s_evidence` | ternary matrices of GGUF's I2_S; in which of its layouts a file has them |
//! | `affine` | ternary matrices of mlx-lm's codes with scales and biases |
//! | `affine_table` | tables of mlx-lm's codes that are more than trits |
//! | `dense`, `floats` | matrices and vectors that stay floats |
//! | `coded`, `integers` | matrices in GGUF's blocks of integers that stand for floats |
//! | `scale_scan` | how many columns share a scale, for `detect` and `blocks` |
//! | `order` | rows and columns of heads in the usual order |
//! | `rows` | rows of a matrix in another order, or some of them, as a matrix of its own |

pub(crate) mod affine;
pub(crate) mod affine_table;
pub(crate) mod blocks;
pub(crate) mod coded;
pub(crate) mod dense;
pub(crate) mod detect;
pub(crate) mod floats;
pub(crate) mod i2s;
pub(crate) mod i2s_evidence;
mod integers;
pub(crate) mod near;
pub(crate) mod order;
pub(crate) mod rows;
pub(crate) mod scale_scan;
pub(crate) mod stored;
pub(crate) mod trits;
