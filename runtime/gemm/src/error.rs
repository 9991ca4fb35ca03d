//! What can be wrong with a matrix, its activations, or the machine.

use crate::KernelShape;
use std::fmt;
use std::ops::Range;
use trit_format::kernel::{GROUP_COLUMNS, MAX_DIGIT_COLUMNS};
use trit_format::target::Target;

/// Why a matrix could not be made or multiplied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GemmError {
    /// A size is 0.
    #[error("{what} is 0; at least 1 is needed")]
    Empty {
        /// Which size.
        what: &'static str,
    },
    /// A size is larger than the format holds.
    #[error("{what} is {found}; at most {most} is possible")]
    TooLarge {
        /// Which size.
        what: &'static str,
        /// What it is.
        found: usize,
        /// The largest possible.
        most: usize,
    },
    /// A slice is not as long as the sizes say.
    #[error("{what} has {found} elements; {expected} are expected")]
    Length {
        /// Which slice, with its shape.
        what: &'static str,
        /// The length it must have, or at least have.
        expected: usize,
        /// Its length.
        found: usize,
    },
    /// A slice does not begin where kernels can read it, or its rows do not.
    #[error("{what} must be at multiples of {bytes} bytes")]
    Alignment {
        /// Which slice.
        what: &'static str,
        /// The alignment in bytes.
        bytes: usize,
    },
    /// A weight is no trit.
    #[error("the weight in row {row}, column {column} is {value}; -1, 0 and 1 are possible")]
    Trit {
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
        /// What it is.
        value: i8,
    },
    /// An element of an operand is no trit.
    #[error("element {index} of operand {operand} is {value}; -1, 0 and 1 are possible")]
    Operand {
        /// Which operand, counted from 0.
        operand: usize,
        /// The element's index.
        index: usize,
        /// What it is.
        value: i8,
    },
    /// A byte is no canonical byte of packed trits.
    #[error(
        "byte {index} is {value}, which holds no five trits: bytes are 0 to 242, and trits behind the end of a row are 0"
    )]
    Byte {
        /// Its index.
        index: usize,
        /// What it is.
        value: u8,
    },
    /// Packed arrays of different shapes.
    #[error(
        "operand {operand} is [{}, {}], the result [{}, {}]; shapes must be equal",
        found.0, found.1, expected.0, expected.1
    )]
    Shapes {
        /// Which operand, counted from 0.
        operand: usize,
        /// Rows and columns of the result.
        expected: (usize, usize),
        /// Rows and columns of the operand.
        found: (usize, usize),
    },
    /// A chain of operations cannot be run.
    #[error("the chain cannot be run: {problem}")]
    Chain {
        /// Why not.
        problem: String,
    },
    /// A scale is infinite or no number.
    #[error("scale {index} is {value}; scales are finite")]
    Scale {
        /// Its index in the scales given.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// Tiles cannot have such groups.
    #[error("scales for {scale_columns} columns in groups of {columns} cannot be stored: {GroupSizes}")]
    Groups {
        /// Columns of a group.
        columns: usize,
        /// Columns that share a scale.
        scale_columns: usize,
    },
    /// Activations do not suit the matrix.
    #[error("the activations do not suit the matrix: {problem}")]
    Activations {
        /// Why not.
        problem: String,
    },
    /// Sums over whole rows were asked for, and the matrix has scales for groups of columns.
    #[error("the matrix has scales of groups of columns, which sums over whole rows cannot be multiplied by")]
    GroupScales,
    /// Sums of groups were asked for of a matrix without groups, or the other way round.
    #[error("{asked} were asked for, and the matrix has {has}")]
    Grouping {
        /// What was asked for.
        asked: &'static str,
        /// What there is.
        has: &'static str,
    },
    /// Kernels were made for another shape.
    #[error("the kernels are for {found}, the matrix is {expected}")]
    Kernels {
        /// What the matrix needs.
        expected: KernelShape,
        /// What they are for.
        found: KernelShape,
    },
    /// Tiles were asked for that the matrix does not have.
    #[error("tiles {}..{} were asked for, and the matrix has {tiles}", range.start, range.end)]
    Tiles {
        /// What was asked for.
        range: Range<usize>,
        /// How many there are.
        tiles: usize,
    },
    /// This machine does not run such code.
    #[error("this CPU does not run code for {0}")]
    Target(Target),
    /// No kernel can be generated.
    #[error("kernels cannot be generated here: {0}")]
    Generate(String),
    /// This program was built without feature `jit`, which generates kernels.
    #[error("kernels cannot be generated here: this program was built without feature jit")]
    NoJit,
    /// The system refused memory.
    #[error("there is no memory for {what}: {rows} rows of {row} bytes")]
    Memory {
        /// What it was for.
        what: String,
        /// Rows.
        rows: usize,
        /// Bytes of a row.
        row: usize,
    },
    /// The system refused to change what may be done with memory.
    #[error("memory cannot be made {access}: {source}")]
    Protection {
        /// Read-only or writable.
        access: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Which groups are possible.
struct GroupSizes;

impl fmt::Display for GroupSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "groups have {GROUP_COLUMNS:?} columns, up to {MAX_DIGIT_COLUMNS} for float activations, and a scale is for a \
             multiple of its group's columns"
        )
    }
}
