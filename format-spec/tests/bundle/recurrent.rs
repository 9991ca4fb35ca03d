//! The small bundle with a first layer of rotations and recurrent states, and a second that rotates half of each head.

use super::*;

/// All that the first layer computes from its input: queries, keys and values, the gates of the delta rule, the gate of
/// its result.
pub const MIXED: BufferId = BufferId(20);
pub const CONVOLVED: BufferId = BufferId(21);
pub const RULED: BufferId = BufferId(22);

pub const SIGNS: TensorId = TensorId(9);
pub const CONVOLUTION: TensorId = TensorId(10);
pub const RATES: TensorId = TensorId(11);
pub const BIAS: TensorId = TensorId(12);
/// A convolution of one tap.
pub const ONE_TAP: TensorId = TensorId(13);
pub const SHORT_FREQ: TensorId = TensorId(14);

pub const HEADS: DeltaHeads = DeltaHeads { keys: 1, values: 2, key_dim: 3, value_dim: 4 };
/// Elements of queries, keys and values; the gates follow them in [`MIXED`].
pub const QKV_LEN: u32 = 14;
/// Where the gate of the result stands in [`MIXED`].
pub const GATE_AT: u32 = QKV_LEN + 4;

/// Steps of the body, by what they do.
pub const UNROTATE: usize = 1;
pub const ROTATE: usize = 2;
pub const MIX: usize = 3;
pub const CONVOLVE: usize = 4;
pub const RULE: usize = 5;
pub const GATE_NORM: usize = 6;
pub const ROTATE_BACK: usize = 7;
pub const ROPE: usize = 12;
pub const CONVOLVE_ONE: usize = 23;

fn layer() -> [Step; 7] {
    let eps = 1e-5;
    let ternary = |matrix, epilogue, out| Step::Ternary {
        matrix: PackedMatrixId(matrix),
        input: FIXED,
        epilogue,
        out,
        at: 0,
    };
    [
        Step::RotateQuantize {
            input: RESIDUAL,
            norm: Some(InputNorm { weight: NORM, eps }),
            rotation: Rotation { block: 8, signs: None },
            rule: FIXED_RULE,
            out: FIXED,
        },
        ternary(9, Epilogue::Store, MIXED),
        Step::Convolve {
            input: MIXED,
            weight: CONVOLUTION,
            activation: Activation::Silu,
            state: 0,
            out: CONVOLVED,
        },
        Step::DeltaRule {
            qkv: CONVOLVED,
            gates: MIXED,
            at: QKV_LEN,
            rates: RATES,
            bias: BIAS,
            heads: HEADS,
            state: 1,
            out: RULED,
        },
        Step::GateNorm {
            input: RULED,
            weight: HEAD_NORM,
            eps,
            gate: MIXED,
            at: GATE_AT,
            activation: Activation::Sigmoid,
            out: RULED,
        },
        Step::RotateQuantize {
            input: RULED,
            norm: None,
            rotation: Rotation { block: 2, signs: Some(SIGNS) },
            rule: FIXED_RULE,
            out: FIXED,
        },
        ternary(10, Epilogue::Add, RESIDUAL),
    ]
}

/// [`grouped`] with such a first layer. Its embedding is rotated.
pub fn recurrent() -> Manifest {
    let mut m = grouped();
    for (name, rows) in [("layers.0.in", 26), ("layers.0.out", 8)] {
        let mut at = m.packed_matrices.last().map_or(0, |p| p.offset + p.bytes().unwrap());
        let mut matrix = matrix(name.into(), 8, RowOrder::Sequential, &[rows], &mut at);
        matrix.segments[0].scale = 1.0;
        matrix.grouping = Some(Grouping { columns: 32, scale_columns: 0, scale: DType::F16 });
        m.packed_matrices.push(matrix);
    }
    for (name, len, stride) in [("mixed", 26, 128), ("convolved", QKV_LEN, 64), ("ruled", 8, 64)] {
        let offset = m.plan.row_bytes;
        m.plan.buffers.push(Buffer { name: name.into(), dtype: DType::F32, len, offset, stride });
        m.plan.row_bytes += stride;
    }
    for (name, shape) in [
        ("signs", &[8][..]),
        ("convolution", &[4, QKV_LEN.into()]),
        ("rates", &[2]),
        ("bias", &[2]),
        ("one_tap", &[1, 8]),
        ("short_freq", &[1]),
    ] {
        let end = m.tensors.last().map_or(0, |t| t.offset + t.bytes().unwrap());
        let offset = end.next_multiple_of(64);
        m.tensors.push(Tensor { name: name.into(), dtype: DType::F32, shape: shape.into(), offset });
    }
    let mut second = grouped_layer();
    for step in &mut second {
        match step {
            Step::RopeAppend { layer, inv_freq, .. } => (*layer, *inv_freq) = (0, SHORT_FREQ),
            Step::Attend { layer, .. } => *layer = 0,
            _ => {}
        }
    }
    let activation = Activation::Relu2;
    second.push(Step::Convolve { input: RESIDUAL, weight: ONE_TAP, activation, state: 2, out: ADDED });
    second.push(Step::RmsNormAdd { input: ADDED, weight: NORM, eps: 1e-5, out: RESIDUAL });
    m.plan.kv.truncate(1);
    m.plan.body.truncate(1);
    m.plan.body.push(Step::Unrotate { rotation: Rotation { block: 4, signs: Some(SIGNS) }, out: RESIDUAL });
    let start = m.plan.body.len() as u32;
    m.plan.body.extend(layer());
    let middle = m.plan.body.len() as u32;
    m.plan.body.extend(second);
    let end = m.plan.body.len() as u32;
    m.plan.layers = vec![LayerSteps { start, end: middle }, LayerSteps { start: middle, end }];
    m
}
