//! The order in which GGUF files of `qwen35` store the value heads of a gated DeltaNet.
//!
//! Value head `j` uses the key head `j / r`, with `r` value heads for each key head. On Hugging Face the heads of one
//! key head stand together. GGUF's converter puts them "tiled": first one head for each key head, then the next ones.

use super::RawTensor;
use crate::error::CompileError;

/// Elements of heads that are stored tiled, along one axis of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TiledHeads {
    /// The axis.
    pub(crate) axis: Axis,
    /// Elements before the heads, which stay where they are: queries and keys.
    pub(crate) before: usize,
    /// Heads of keys.
    pub(crate) key_heads: usize,
    /// Heads of values for each of them, `r`.
    pub(crate) per_key_head: usize,
    /// Elements of a value head.
    pub(crate) head_dim: usize,
}

/// Along which axis heads stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// The first.
    Rows,
    /// The last of two.
    Columns,
}

impl TiledHeads {
    /// Where element `at` of the usual order is stored.
    pub(crate) fn stored_at(&self, at: usize) -> usize {
        let Some(element) = at.checked_sub(self.before) else { return at };
        let (head, within) = (element / self.head_dim, element % self.head_dim);
        let stored = head % self.per_key_head * self.key_heads + head / self.per_key_head;
        self.before + stored * self.head_dim + within
    }

    /// Elements along the axis; `None` where they are more than any memory holds, or heads are empty.
    pub(crate) fn len(&self) -> Option<usize> {
        let heads = self.key_heads.checked_mul(self.per_key_head)?;
        let elements = heads.checked_mul(self.head_dim)?;
        if elements == 0 { None } else { self.before.checked_add(elements) }
    }

    /// Checks that `tensor` has these elements along the axis.
    ///
    /// # Errors
    /// It has others, by its name and shape.
    pub(crate) fn expect(&self, tensor: &RawTensor) -> Result<(), CompileError> {
        let found = match self.axis {
            Axis::Rows => tensor.shape.first(),
            Axis::Columns if tensor.shape.len() == 2 => tensor.shape.last(),
            Axis::Columns => None,
        };
        if found.is_some() && found.copied() == self.len() {
            return Ok(());
        }
        let axis = if self.axis == Axis::Rows { "rows" } else { "columns" };
        Err(tensor.error(format!(
            "has shape {:?}, expected {} {axis}: {} before the value heads, and {} * {} value heads of {}",
            tensor.shape,
            self.len().map_or_else(|| "other".to_owned(), |len| len.to_string()),
            self.before,
            self.key_heads,
            self.per_key_head,
            self.head_dim
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[key head][r]` to `[r][key head]`, as the converter of llama.cpp moves heads.
    #[test]
    fn heads_are_found_where_the_converter_puts_them() {
        let heads = TiledHeads { axis: Axis::Rows, before: 3, key_heads: 2, per_key_head: 3, head_dim: 2 };
        let stored: Vec<usize> = (0..15).map(|at| heads.stored_at(at)).collect();
        assert_eq!(stored, [0, 1, 2, 3, 4, 7, 8, 11, 12, 5, 6, 9, 10, 13, 14]);
        assert_eq!(heads.len(), Some(15));
        let huge = TiledHeads { key_heads: usize::MAX, ..heads };
        assert_eq!(huge.len(), None);
    }
}
