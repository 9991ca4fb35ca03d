//! Rows of int8 activations with their scales and sums, borrowed or owned.

use crate::memory::zeros;
use crate::{AlignedMemory, GemmError};
use std::ops::Range;
use trit_kernels::quantize::QuantizedRow;

/// Alignment of rows in bytes.
const LINE: usize = 64;

/// Rows of elements, with or without room between them.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a, T> {
    /// `[rows, stride]`.
    pub values: &'a [T],
    /// Elements from one row to the next.
    pub stride: usize,
}

/// Quantized rows, borrowed: int8 values, and for each row its scales and the sums of its values.
///
/// A row's values are one digit, or three digits one after another where activations have 24 bits. A digit has `k`
/// values, and zeros after them up to [`Layout::digit_len`](crate::Layout::digit_len). The sums are those of the
/// values: one for each row, or with groups one for each group of each digit. Where sums are not those of the values,
/// or something else than zeros follows the values, products are meaningless numbers, but nothing worse happens.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    rows: usize,
    /// `[rows, stride]`.
    values: &'a [i8],
    stride: usize,
    scales: Strided<'a, f32>,
    sums: Strided<'a, i32>,
    /// How many of the sums in a row of `sums` count.
    sums_a_row: usize,
}

impl<'a> Activations<'a> {
    /// `rows` rows, for each of which `values` has the same number of bytes. Of the sums of each row, the first
    /// `sums_a_row` count.
    ///
    /// # Errors
    /// [`GemmError::Empty`] if there are no rows, [`GemmError::Length`] if a slice is too short or `values` is not whole rows,
    /// [`GemmError::Alignment`] if the rows of `values` are not at multiples of 64 bytes.
    pub fn new(
        rows: usize,
        values: &'a [i8],
        scales: Strided<'a, f32>,
        sums: Strided<'a, i32>,
        sums_a_row: usize,
    ) -> Result<Activations<'a>, GemmError> {
        if rows == 0 {
            return Err(GemmError::Empty { what: "the number of activation rows" });
        }
        let stride = values.len() / rows;
        let length = |what, expected, found| Err(GemmError::Length { what, expected, found });
        if stride == 0 || stride * rows != values.len() {
            return length("activations `[rows, stride]`", stride.max(1) * rows, values.len());
        }
        if !stride.is_multiple_of(LINE) || !values.as_ptr().addr().is_multiple_of(LINE) {
            return Err(GemmError::Alignment { what: "rows of activations", bytes: LINE });
        }
        if scales.stride == 0 || scales.values.len() / scales.stride < rows {
            let expected = rows.saturating_mul(scales.stride.max(1));
            return length("scales of activations `[rows, stride]`", expected, scales.values.len());
        }
        if sums.stride < sums_a_row.max(1) || sums.values.len() / sums.stride < rows {
            let expected = rows.saturating_mul(sums.stride.max(sums_a_row).max(1));
            return length("sums of activations `[rows, stride]`", expected, sums.values.len());
        }
        Ok(Activations { rows, values, stride, scales, sums, sums_a_row })
    }

    /// Number of rows, at least 1.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes from one row to the next.
    #[inline]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// How many sums each row has.
    #[inline]
    pub(crate) fn sums_a_row(&self) -> usize {
        self.sums_a_row
    }

    /// The values of rows `rows`, counted in digits of `len` bytes.
    #[inline]
    pub(crate) fn digits(&self, len: usize, rows: Range<usize>) -> &'a [i8] {
        &self.values[rows.start * len..rows.end * len]
    }

    /// The scales of the integers of row `row`, one number or one for each group; `None` if there is no such row.
    #[inline]
    pub fn scales(&self, row: usize) -> Option<&'a [f32]> {
        (row < self.rows).then(|| self.scales_of(row))
    }

    #[inline]
    pub(crate) fn scales_of(&self, row: usize) -> &'a [f32] {
        let Strided { values, stride } = self.scales;
        &values[row * stride..][..stride]
    }

    /// The scales of all rows.
    #[inline]
    pub(crate) fn all_scales(&self) -> Strided<'a, f32> {
        self.scales
    }

    /// The sums of all rows.
    #[inline]
    pub(crate) fn sums(&self) -> Strided<'a, i32> {
        self.sums
    }
}

/// Quantized rows with memory of their own.
pub struct QuantizedRows {
    memory: AlignedMemory,
    rows: usize,
    stride: usize,
    /// `[rows, scales a row]`.
    scales: Vec<f32>,
    /// `[rows, sums a row]`.
    sums: Vec<i32>,
}

impl QuantizedRows {
    /// Zeroed room for `rows` rows of `stride` bytes, with `scales` scales and `sums` sums for each.
    ///
    /// # Errors
    /// [`GemmError::Empty`] where a size is 0, [`GemmError::Alignment`] where `stride` is no multiple of 64,
    /// [`GemmError::Memory`] where memory is refused.
    pub fn new(rows: usize, stride: usize, scales: usize, sums: usize) -> Result<QuantizedRows, GemmError> {
        let sizes = [(rows, "the number of activation rows"), (stride, "the stride of activations")];
        for (size, what) in sizes.into_iter().chain([(scales, "scales of a row"), (sums, "sums of a row")]) {
            if size == 0 {
                return Err(GemmError::Empty { what });
            }
        }
        if !stride.is_multiple_of(LINE) {
            return Err(GemmError::Alignment { what: "rows of activations", bytes: LINE });
        }
        let memory = AlignedMemory::new(rows, stride, "activations")?;
        let (scales, sums) =
            (zeros(rows, scales, "scales of activations")?, zeros(rows, sums, "sums of activations")?);
        Ok(QuantizedRows { memory, rows, stride, scales, sums })
    }

    /// Row `row`, to be written; `None` if there is no such row.
    pub fn row_mut(&mut self, row: usize) -> Option<QuantizedRow<'_>> {
        if row >= self.rows {
            return None;
        }
        let (scales, sums) = (self.scales.len() / self.rows, self.sums.len() / self.rows);
        Some(QuantizedRow {
            values: &mut self.memory.signed_mut()[row * self.stride..][..self.stride],
            scales: &mut self.scales[row * scales..][..scales],
            sums: &mut self.sums[row * sums..][..sums],
        })
    }

    /// Every row, to be written, so that several threads can share them out.
    pub fn rows_mut(&mut self) -> Vec<QuantizedRow<'_>> {
        let (scales, sums) = (self.scales.len() / self.rows, self.sums.len() / self.rows);
        let values = self.memory.signed_mut().chunks_exact_mut(self.stride).take(self.rows);
        let parts = values.zip(self.scales.chunks_exact_mut(scales)).zip(self.sums.chunks_exact_mut(sums));
        parts.map(|((values, scales), sums)| QuantizedRow { values, scales, sums }).collect()
    }

    /// All rows.
    pub fn all(&self) -> Activations<'_> {
        self.some(self.rows)
    }

    /// The first `rows` rows; `None` if that is 0 or more than there are.
    #[inline]
    pub fn first(&self, rows: usize) -> Option<Activations<'_>> {
        (1..=self.rows).contains(&rows).then(|| self.some(rows))
    }

    fn some(&self, rows: usize) -> Activations<'_> {
        let (scales, sums) = (self.scales.len() / self.rows, self.sums.len() / self.rows);
        // What `Activations::new` checks holds by construction.
        Activations {
            rows,
            values: &self.memory.signed()[..rows * self.stride],
            stride: self.stride,
            scales: Strided { values: &self.scales[..rows * scales], stride: scales },
            sums: Strided { values: &self.sums[..rows * sums], stride: sums },
            sums_a_row: sums,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_not_there_are_not_given() {
        let mut rows = QuantizedRows::new(2, 64, 1, 1).unwrap();
        assert!(rows.row_mut(1).is_some() && rows.row_mut(2).is_none());
        assert!(rows.first(0).is_none() && rows.first(3).is_none());
        let first = rows.first(1).unwrap();
        assert!(first.rows() == 1 && first.scales(0).is_some() && first.scales(1).is_none());
        assert_eq!((rows.all().rows(), rows.rows_mut().len()), (2, 2));
    }

    #[test]
    fn slices_that_do_not_hold_the_rows_are_refused() {
        let memory = AlignedMemory::new(3, 64, "rows").unwrap();
        let (values, floats, ints) = (memory.signed(), [0.0; 6], [0; 9]);
        let new = |rows, values, (scales, scale_stride), (sums, sum_stride), sums_a_row| {
            let scales = Strided { values: &floats[..scales], stride: scale_stride };
            let sums = Strided { values: &ints[..sums], stride: sum_stride };
            Activations::new(rows, values, scales, sums, sums_a_row).map(|a| a.stride())
        };
        assert_eq!(new(3, values, (6, 2), (9, 3), 2).unwrap(), 64);
        assert!(matches!(new(0, values, (6, 2), (9, 3), 2), Err(GemmError::Empty { .. })));
        assert!(matches!(new(2, &values[..191], (6, 2), (9, 3), 2), Err(GemmError::Length { .. })));
        assert!(matches!(new(2, values, (6, 2), (9, 3), 2), Err(GemmError::Alignment { .. })));
        assert!(matches!(new(1, &values[1..65], (6, 2), (9, 3), 2), Err(GemmError::Alignment { .. })));
        for (scales, sums, sums_a_row) in [
            ((5, 2), (9, 3), 2),
            ((6, 0), (9, 3), 2),
            ((6, 2), (8, 3), 2),
            ((6, 2), (9, 0), 0),
            ((6, 2), (9, 3), 4),
            ((6, usize::MAX), (9, 3), 2),
        ] {
            let error = new(3, values, scales, sums, sums_a_row);
            assert!(matches!(error, Err(GemmError::Length { .. })), "{scales:?} {sums:?}");
        }
        for (rows, stride, scales, sums) in [(0, 64, 1, 1), (1, 0, 1, 1), (1, 64, 0, 1), (1, 64, 1, 0)] {
            assert!(matches!(QuantizedRows::new(rows, stride, scales, sums), Err(GemmError::Empty { .. })));
        }
        assert!(matches!(QuantizedRows::new(1, 65, 1, 1), Err(GemmError::Alignment { .. })));
    }
}
