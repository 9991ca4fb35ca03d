//! Tensors that are not ternary, as a checkpoint stores them: floats, and codes that stand for floats.

use super::float::widen_row;
use super::matrix::Found;
use rayon::prelude::*;
use std::sync::Arc;
use trit_format::coded::RowLayout;
use trit_format::plan::DType;

/// The bytes of a tensor, which need not be in memory.
pub trait TensorBytes: AsRef<[u8]> + Send + Sync {
    /// Releases memory that reading has pulled in; the bytes can be read again. This is called repeatedly during a
    /// pass over a table, so that a table larger than memory does not stay resident.
    fn release(&self) {}
}

impl TensorBytes for Vec<u8> {}

/// Makes rows of [`DType::I8Blocks`] of the rows of a checkpoint that stores them in another way. Both stand for the same
/// floats.
pub trait RowCoder: Send + Sync {
    /// Bytes of a stored row of `k` elements; `None` where no row has so many.
    fn stored_bytes(&self, k: usize) -> Option<usize>;

    /// Writes what row `row` stands for, `[k]`; `stored` are its bytes.
    fn decode(&self, row: usize, stored: &[u8], out: &mut [f32]);

    /// Writes row `row` as a bundle stores it, `[layout.bytes()]`.
    fn encode(&self, row: usize, stored: &[u8], layout: RowLayout, out: &mut [u8]);
}

/// A tensor that is not ternary, as the checkpoint stores it.
#[derive(Clone)]
pub struct Dense {
    /// The checkpoint's tensor name.
    pub name: String,
    /// What the bundle stores: F32, F16, BF16, or in a matrix I8Blocks.
    pub dtype: DType,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Little-endian elements of the type, or rows that `coder` reads. Checkpoints give a range of the mapped file.
    pub data: Arc<dyn TensorBytes>,
    /// Makes rows of the type, where `data` has others.
    pub coder: Option<Arc<dyn RowCoder>>,
}

impl Dense {
    /// Rows, all dimensions but the last together, and the elements of one. `None` where they are more than any memory holds.
    fn rows(&self) -> Option<[usize; 2]> {
        let (&k, rows) = self.shape.split_last()?;
        let rows = rows.iter().try_fold(1usize, |n, &rows| n.checked_mul(rows))?;
        Some([rows, k])
    }

    /// Bytes of a row in the bundle. `None` where no row is so long, or where it is no whole blocks of codes.
    fn row_bytes(&self) -> Option<usize> {
        let [_, k] = self.rows()?;
        self.dtype.row_bytes(k as u64).and_then(|bytes| usize::try_from(bytes).ok())
    }

    /// Bytes in the bundle; `None` as for [`Dense::row_bytes`].
    pub(crate) fn bytes(&self) -> Option<usize> {
        let [rows, _] = self.rows()?;
        rows.checked_mul(self.row_bytes()?)
    }

    /// Bytes that `data` must have; `None` where there can be no such tensor.
    pub(crate) fn stored_bytes(&self) -> Option<usize> {
        let [rows, k] = self.rows()?;
        match &self.coder {
            Some(coder) if self.bytes().is_some() => rows.checked_mul(coder.stored_bytes(k)?),
            Some(_) => None,
            None => self.bytes(),
        }
    }

    /// What a report says of it.
    pub(crate) fn found(&self) -> Found {
        match self.dtype {
            dtype @ DType::I8Blocks { .. } => Found::Coded(dtype),
            _ => Found::Floats,
        }
    }

    /// Writes the values of row `row`, `[k]`. The tensor is one of those for which `Dense::stored_bytes` is the length of
    /// `data`, and has that row.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let data = (*self.data).as_ref();
        match &self.coder {
            None => widen_row(self.dtype, data, row, out),
            Some(coder) => {
                let len = coder.stored_bytes(out.len()).unwrap_or(0);
                coder.decode(row, &data[row * len..][..len], out);
            }
        }
    }

    /// Hands the bytes in the bundle to `sink`, at most about `at_once` at a time.
    ///
    /// # Errors
    /// What `sink` gives.
    pub(crate) fn write<E>(
        &self,
        at_once: usize,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let data = (*self.data).as_ref();
        let shape = self.rows().unwrap_or_default();
        let layout = RowLayout::new(self.dtype, shape[1] as u64);
        let (Some(coder), Some(layout)) = (&self.coder, layout) else {
            return data.chunks(at_once.max(1)).try_for_each(|chunk| {
                sink(chunk)?;
                self.data.release();
                Ok(())
            });
        };
        let len = coder.stored_bytes(layout.k()).unwrap_or(0).max(1);
        let rows = (at_once / layout.bytes()).max(1);
        let mut coded = Vec::new();
        for (nth, stored) in data.chunks(rows * len).enumerate() {
            coded.resize(stored.len() / len * layout.bytes(), 0);
            let at_once = coded.par_chunks_exact_mut(layout.bytes()).zip(stored.par_chunks_exact(len));
            at_once
                .enumerate()
                .for_each(|(at, (out, stored))| coder.encode(nth * rows + at, stored, layout, out));
            sink(&coded)?;
            self.data.release();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trit_format::coded::{decode_row, encode_row};

    /// Rows of 32 bytes, each of which is a code; the scale of a row is its number.
    struct ByRow;

    impl RowCoder for ByRow {
        fn stored_bytes(&self, k: usize) -> Option<usize> {
            Some(k)
        }

        fn decode(&self, row: usize, stored: &[u8], out: &mut [f32]) {
            out.iter_mut().zip(stored).for_each(|(out, &code)| *out = row as f32 * f32::from(code));
        }

        fn encode(&self, row: usize, stored: &[u8], layout: RowLayout, out: &mut [u8]) {
            let codes: Vec<i8> = stored.iter().map(|&code| code.cast_signed()).collect();
            encode_row(layout, &codes, &[row as f32], &[], out).unwrap();
        }
    }

    #[test]
    fn coders_are_told_the_row_however_rows_are_cut_into_pieces() {
        let (rows, k) = (9, 32);
        let data: Vec<u8> = (0..rows * k).map(|i| (i % 100) as u8).collect();
        let dtype = DType::I8Blocks { columns: 32, offsets: false };
        let layout = RowLayout::new(dtype, k as u64).unwrap();
        let table = Dense {
            name: "table".to_owned(),
            dtype,
            shape: vec![rows, k],
            data: Arc::new(data),
            coder: Some(Arc::new(ByRow)),
        };
        for at_once in [1, layout.bytes(), 2 * layout.bytes(), 4 * layout.bytes() + 1, 1 << 20] {
            let mut written = Vec::new();
            table
                .write(at_once, |bytes| {
                    written.extend_from_slice(bytes);
                    Ok::<(), ()>(())
                })
                .unwrap();
            assert_eq!(written.len(), table.bytes().unwrap());
            for (row, bytes) in written.chunks(layout.bytes()).enumerate() {
                let (mut expected, mut found) = ([0.0; 32], [0.0; 32]);
                table.read_row(row, &mut expected);
                decode_row(layout, bytes, &mut found).unwrap();
                assert_eq!(found, expected, "row {row}, {at_once} bytes at once");
            }
        }
    }
}
