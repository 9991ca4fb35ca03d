//! Checks that a model is what its sizes say. Programs can make models by hand, and nothing that takes a model may
//! panic on a wrong one.

use crate::error::CompileError;
use crate::model::{Dense, Layer, Matrix, Model, NormWeights, Projection};
use trit_format::plan::DType;

impl Model {
    /// Checks that the shapes of all matrices, norms and tables are those that follow from the sizes.
    ///
    /// # Errors
    /// [`CompileError::Model`] with the first that is another.
    pub fn check(&self) -> Result<(), CompileError> {
        let dims = &self.hyperparameters;
        let sizes = [
            ("vocab_size", dims.vocab_size),
            ("hidden_dim", dims.hidden_dim),
            ("ffn_dim", dims.ffn_dim),
            ("n_heads", dims.n_heads),
            ("n_kv_heads", dims.n_kv_heads),
            ("head_dim", dims.head_dim),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(wrong(format!("{name} is 0")));
        }
        if !dims.n_heads.is_multiple_of(dims.n_kv_heads) || !dims.head_dim.is_multiple_of(2) {
            let problem = format!("has {} heads of {} on {}", dims.n_heads, dims.head_dim, dims.n_kv_heads);
            return Err(wrong(problem));
        }
        let [vocab, hidden] = [dims.vocab_size, dims.hidden_dim].map(|n| n as usize);
        matrix(&self.embedding, [vocab, hidden])?;
        self.head.as_ref().map_or(Ok(()), |head| matrix(head, [vocab, hidden]))?;
        norm(&self.final_norm, hidden)?;
        self.layers.iter().try_for_each(|layer| self.check_layer(layer))
    }

    fn check_layer(&self, layer: &Layer) -> Result<(), CompileError> {
        let dims = &self.hyperparameters;
        let [hidden, ffn, head_dim] = [dims.hidden_dim, dims.ffn_dim, dims.head_dim].map(|n| n as usize);
        let width = |heads: u32| {
            let width = heads.checked_mul(dims.head_dim);
            width.map(|n| n as usize).ok_or_else(|| wrong(format!("has {heads} heads of {head_dim}")))
        };
        let (q, kv) = (width(dims.n_heads)?, width(dims.n_kv_heads)?);
        for (projection, shape) in [
            (&layer.q, [q, hidden]),
            (&layer.k, [kv, hidden]),
            (&layer.v, [kv, hidden]),
            (&layer.o, [hidden, q]),
            (&layer.gate, [ffn, hidden]),
            (&layer.up, [ffn, hidden]),
            (&layer.down, [hidden, ffn]),
        ] {
            let Projection { norm: inner, matrix: weights } = projection;
            matrix(weights, shape)?;
            inner.as_ref().map_or(Ok(()), |inner| norm(inner, shape[1]))?;
        }
        for (weights, len) in [(&layer.input_norm, hidden), (&layer.ffn_norm, hidden)] {
            norm(weights, len)?;
        }
        let heads = layer.head_norms.as_ref();
        for (weights, len) in [
            (layer.attention_sub_norm.as_ref(), q),
            (layer.attention_post_norm.as_ref(), hidden),
            (layer.ffn_sub_norm.as_ref(), ffn),
            (layer.ffn_post_norm.as_ref(), hidden),
            (heads.map(|norms| &norms.q), head_dim),
            (heads.map(|norms| &norms.k), head_dim),
        ] {
            weights.map_or(Ok(()), |weights| norm(weights, len))?;
        }
        match self.ropes.get(layer.rope) {
            Some(rope) if rope.inv_freq.len() == head_dim / 2 => Ok(()),
            Some(rope) => Err(wrong(format!(
                "has {} RoPE frequencies, but heads have {}",
                rope.inv_freq.len(),
                head_dim / 2
            ))),
            None => {
                Err(wrong(format!("has a layer with RoPE {}, and {} of them", layer.rope, self.ropes.len())))
            }
        }
    }
}

fn wrong(problem: String) -> CompileError {
    CompileError::Model(problem)
}

fn norm((name, weights): &NormWeights, len: usize) -> Result<(), CompileError> {
    match weights.len() == len {
        true => Ok(()),
        false => Err(wrong(format!("{name} has {} weights, expected {len}", weights.len()))),
    }
}

fn matrix(matrix: &Matrix, expected: [usize; 2]) -> Result<(), CompileError> {
    if matrix.shape() != expected {
        return Err(wrong(format!("{} is {:?}, expected {expected:?}", matrix.name(), matrix.shape())));
    }
    match matrix {
        Matrix::Ternary(_) => Ok(()),
        Matrix::Dense(dense) => floats(dense),
    }
}

fn floats(dense: &Dense) -> Result<(), CompileError> {
    if !matches!(dense.dtype, DType::F32 | DType::F16 | DType::Bf16) {
        return Err(wrong(format!("{} is of {:?}, expected floats", dense.name, dense.dtype)));
    }
    let elements = dense.shape.iter().try_fold(dense.dtype.size(), |bytes, &n| bytes.checked_mul(n));
    let found = (*dense.data).as_ref().len();
    match elements == Some(found) {
        true => Ok(()),
        false => Err(wrong(format!("{} is {:?} and has {found} bytes", dense.name, dense.shape))),
    }
}
