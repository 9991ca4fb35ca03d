//! The bytes of every step.

use trit_format::plan::*;

/// Every variant of [`Step`], in the order of their indices.
pub fn steps() -> Vec<(Step, &'static str)> {
    let (a, b) = (BufferId(0x0a), BufferId(0x0b));
    let quantized = Quantized { values: BufferId(0x11), scale: BufferId(0x12), sum: BufferId(0x13) };
    vec![
        (Step::Embed { table: TensorId(1), scale: 1.0, out: a }, "00000000 01000000 0000803f 0a000000"),
        (
            Step::RmsNorm { input: a, weight: TensorId(1), eps: 0.5, out: b },
            "01000000 0a000000 01000000 0000003f 0b000000",
        ),
        (
            Step::Quantize { input: a, rule: ActivationRule::AbsmaxPerToken { floor: 0.5 }, out: quantized },
            "02000000 0a000000 00000000 0000003f 11000000 12000000 13000000",
        ),
        (
            Step::Ternary {
                matrix: PackedMatrixId(9),
                input: quantized,
                epilogue: Epilogue::Gate(Activation::Silu),
                out: b,
                at: 0x102,
            },
            "03000000 09000000 11000000 12000000 13000000 02000000 01000000 0b000000 02010000",
        ),
        (
            Step::RopeAppend { qkv: a, norms: None, inv_freq: TensorId(1), scaling: 2.0, layer: 3 },
            "04000000 0a000000 00 01000000 00000040 03000000",
        ),
        (
            Step::Attend { qkv: a, layer: 3, scale: 0.125, window: Some(512), out: b },
            "05000000 0a000000 03000000 0000003e 01 00020000 0b000000",
        ),
        (
            Step::Head { input: a, table: TensorId(1), planes: Some(PlanesId(2)), out: b },
            "06000000 0a000000 01000000 01 02000000 0b000000",
        ),
        (
            Step::NormQuantize {
                input: a,
                weight: TensorId(1),
                eps: 0.25,
                rule: ActivationRule::AbsmaxPerToken { floor: 0.5 },
                out: quantized,
            },
            "07000000 0a000000 01000000 0000803e 00000000 0000003f 11000000 12000000 13000000",
        ),
        (Step::EmbedTernary { matrix: PackedMatrixId(9), out: a }, "08000000 09000000 0a000000"),
        (
            Step::RmsNormAdd { input: a, weight: TensorId(1), eps: 0.5, out: b },
            "09000000 0a000000 01000000 0000003f 0b000000",
        ),
        (
            Step::Linear { table: TensorId(1), input: a, epilogue: Epilogue::Add, out: b, at: 0x102 },
            "0a000000 01000000 0a000000 01000000 0b000000 02010000",
        ),
        (
            Step::Gate { gate: a, up: b, activation: Activation::GeluTanh, out: BufferId(0x0c) },
            "0b000000 0a000000 0b000000 02000000 0c000000",
        ),
        (
            Step::RotateQuantize {
                input: a,
                norm: Some(InputNorm { weight: TensorId(1), eps: 0.25 }),
                rotation: Rotation { block: 128, signs: Some(TensorId(2)) },
                rule: ActivationRule::Fixed24PerGroup { columns: 64 },
                out: quantized,
            },
            "0c000000 0a000000 01 01000000 0000803e 80000000 01 02000000 02000000 40000000 11000000 12000000 13000000",
        ),
        (
            Step::Unrotate { rotation: Rotation { block: 128, signs: Some(TensorId(2)) }, out: a },
            "0d000000 80000000 01 02000000 0a000000",
        ),
        (
            Step::Convolve {
                input: a,
                weight: TensorId(1),
                activation: Activation::Silu,
                state: 0x102,
                out: b,
            },
            "0e000000 0a000000 01000000 01000000 02010000 0b000000",
        ),
        (
            Step::DeltaRule {
                qkv: a,
                gates: BufferId(0x0c),
                at: 0x102,
                rates: TensorId(1),
                bias: TensorId(2),
                heads: DeltaHeads { keys: 3, values: 6, key_dim: 4, value_dim: 5 },
                state: 7,
                out: b,
            },
            "0f000000 0a000000 0c000000 02010000 01000000 02000000 03000000 06000000 04000000 05000000 07000000 0b000000",
        ),
        (
            Step::GateNorm {
                input: a,
                weight: TensorId(1),
                eps: 0.5,
                gate: b,
                at: 0x102,
                activation: Activation::Sigmoid,
                out: BufferId(0x0c),
            },
            "10000000 0a000000 01000000 0000003f 0b000000 02010000 03000000 0c000000",
        ),
        (
            Step::JoinHidden {
                input: a,
                input_norm: TensorId(1),
                hidden_norm: TensorId(2),
                eps: 0.5,
                out: b,
            },
            "11000000 0a000000 01000000 02000000 0000003f 0b000000",
        ),
        (
            Step::RopeNormAppend {
                qkv: a,
                norms: HeadNorms { q: TensorId(4), k: TensorId(5), eps: 0.5 },
                inv_freq: TensorId(1),
                scaling: 2.0,
                layer: 3,
            },
            "12000000 0a000000 04000000 05000000 0000003f 01000000 00000040 03000000",
        ),
    ]
}
