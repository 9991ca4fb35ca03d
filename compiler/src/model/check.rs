//! Checks that a model is what its sizes say. Programs can make models by hand, and nothing that takes a model may
//! panic on a wrong one.

use crate::error::CompileError;
use crate::model::{
    Attention, DeltaNet, Dense, DraftBlock, Layer, Matrix, Mixer, Model, NormWeights, Projection, Ternary,
};
use trit_format::plan::{DType, DeltaHeads};

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
        self.layers.iter().try_for_each(|layer| self.check_layer(layer))?;
        self.draft.as_deref().map_or(Ok(()), |draft| self.check_draft(draft, hidden))
    }

    fn check_draft(&self, draft: &DraftBlock, hidden: usize) -> Result<(), CompileError> {
        for weights in [&draft.embedding_norm, &draft.hidden_norm, &draft.final_norm] {
            norm(weights, hidden)?;
        }
        projection(&draft.join, [hidden, 2 * hidden])?;
        match draft.layer.mixer {
            Mixer::Attention(_) => self.check_layer(&draft.layer),
            Mixer::DeltaNet(_) => Err(wrong("has a draft block with a recurrent state".to_owned())),
        }
    }

    fn check_layer(&self, layer: &Layer) -> Result<(), CompileError> {
        let dims = &self.hyperparameters;
        let [hidden, ffn, head_dim] = [dims.hidden_dim, dims.ffn_dim, dims.head_dim].map(|n| n as usize);
        let width = |heads: u32| {
            let width = heads.checked_mul(dims.head_dim);
            width.map(|n| n as usize).ok_or_else(|| wrong(format!("has {heads} heads of {head_dim}")))
        };
        match &layer.mixer {
            Mixer::Attention(attention) => {
                let (q, kv) = (width(dims.n_heads)?, width(dims.n_kv_heads)?);
                self.check_attention(attention, [hidden, q, kv, head_dim])?;
            }
            Mixer::DeltaNet(delta) => check_delta_net(delta, hidden)?,
        }
        projection(&layer.gate, [ffn, hidden])?;
        projection(&layer.up, [ffn, hidden])?;
        projection(&layer.down, [hidden, ffn])?;
        for (weights, len) in [
            (Some(&layer.input_norm), hidden),
            (Some(&layer.ffn_norm), hidden),
            (layer.mixer_post_norm.as_ref(), hidden),
            (layer.ffn_sub_norm.as_ref(), ffn),
            (layer.ffn_post_norm.as_ref(), hidden),
        ] {
            weights.map_or(Ok(()), |weights| norm(weights, len))?;
        }
        Ok(())
    }

    fn check_attention(
        &self,
        attention: &Attention,
        [hidden, q, kv, head_dim]: [usize; 4],
    ) -> Result<(), CompileError> {
        projection(&attention.q, [q, hidden])?;
        projection(&attention.k, [kv, hidden])?;
        projection(&attention.v, [kv, hidden])?;
        projection(&attention.o, [hidden, q])?;
        attention.output_gate.as_ref().map_or(Ok(()), |gate| projection(gate, [q, hidden]))?;
        let heads = attention.head_norms.as_ref();
        for (weights, len) in [
            (attention.sub_norm.as_ref(), q),
            (heads.map(|norms| &norms.q), head_dim),
            (heads.map(|norms| &norms.k), head_dim),
        ] {
            weights.map_or(Ok(()), |weights| norm(weights, len))?;
        }
        match self.ropes.get(attention.rope) {
            Some(rope) if (1..=head_dim / 2).contains(&rope.inv_freq.len()) => Ok(()),
            Some(rope) => Err(wrong(format!(
                "has {} RoPE frequencies, but heads have {}",
                rope.inv_freq.len(),
                head_dim / 2
            ))),
            None => Err(wrong(format!(
                "has a layer with RoPE {}, and {} of them",
                attention.rope,
                self.ropes.len()
            ))),
        }
    }
}

fn check_delta_net(delta: &DeltaNet, hidden: usize) -> Result<(), CompileError> {
    let DeltaHeads { keys, values, key_dim, value_dim } = delta.heads;
    let fits = [keys, values, key_dim, value_dim].iter().all(|n| (1..=1 << 12).contains(n));
    if !fits || !values.is_multiple_of(keys) {
        return Err(wrong(format!(
            "has {values} value heads of {value_dim} on {keys} key heads of {key_dim}"
        )));
    }
    let (channels, inner) = (delta.heads.qkv_len() as usize, delta.heads.values_len() as usize);
    let values = values as usize;
    projection(&delta.qkv, [channels, hidden])?;
    projection(&delta.z, [inner, hidden])?;
    projection(&delta.b, [values, hidden])?;
    projection(&delta.a, [values, hidden])?;
    projection(&delta.o, [hidden, inner])?;
    let (name, taps) = &delta.convolution;
    if taps.is_empty() || !taps.len().is_multiple_of(channels) {
        return Err(wrong(format!("{name} has {} weights, for {channels} channels", taps.len())));
    }
    norm(&delta.rates, values)?;
    norm(&delta.bias, values)?;
    norm(&delta.norm, value_dim as usize)
}

fn projection(projection: &Projection, shape: [usize; 2]) -> Result<(), CompileError> {
    let Projection { norm: inner, matrix: weights } = projection;
    matrix(weights, shape)?;
    inner.as_ref().map_or(Ok(()), |inner| norm(inner, shape[1]))
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
        Matrix::Ternary(ternary) => rotation(ternary),
        Matrix::Dense(dense) => floats(dense),
    }
}

fn rotation(ternary: &Ternary) -> Result<(), CompileError> {
    let Some(rotation) = &ternary.rotation else { return Ok(()) };
    let signs = rotation.signs.as_ref().is_none_or(|signs| signs.len() == ternary.k);
    match signs && rotation.block.is_power_of_two() && ternary.k.is_multiple_of(rotation.block as usize) {
        true => Ok(()),
        false => Err(wrong(format!(
            "{} has {} columns, which blocks of {} do not fit, or signs of another number",
            ternary.name, ternary.k, rotation.block
        ))),
    }
}

fn floats(dense: &Dense) -> Result<(), CompileError> {
    let codes = matches!(dense.dtype, DType::I8Blocks { .. });
    let possible = dense.dtype.is_float() || codes && dense.shape.len() == 2;
    if !possible {
        return Err(wrong(format!("{} is of {:?}, expected floats", dense.name, dense.dtype)));
    }
    if dense.coder.is_some() && !codes {
        return Err(wrong(format!(
            "{} is of {:?} and has a coder, which makes codes",
            dense.name, dense.dtype
        )));
    }
    let found = (*dense.data).as_ref().len();
    match dense.stored_bytes() == Some(found) {
        true => Ok(()),
        false => Err(wrong(format!("{} is {:?} and has {found} bytes", dense.name, dense.shape))),
    }
}
