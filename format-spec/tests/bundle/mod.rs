//! A small valid bundle: two layers, 10 tokens, hidden 8, FFN 12, 2 query heads on 1, head_dim 4, two targets.

#![allow(dead_code)] // Each test program uses its part.

pub mod accesses;
pub mod coded;
pub mod drafting;
pub mod recurrent;

use trit_format::container::{Digest, Header, Section, SectionKind};
use trit_format::dense243::Code;
use trit_format::kernel::{ABI_VERSION, KernelEntry, KernelKind, KernelSpec};
use trit_format::manifest::*;
use trit_format::plan::*;
use trit_format::target::Target;

pub const RESIDUAL: BufferId = BufferId(0);
pub const NORMED: BufferId = BufferId(1);
/// Quantized `[8]`.
pub const Q: Quantized = Quantized { values: BufferId(2), scale: BufferId(3), sum: BufferId(4) };
/// Shares its place with [`GATED`].
pub const QKV: BufferId = BufferId(5);
/// Shares its place with [`G`]'s values.
pub const ATTENDED: BufferId = BufferId(6);
pub const GATED: BufferId = BufferId(7);
/// Quantized `[12]`.
pub const G: Quantized = Quantized { values: BufferId(8), scale: BufferId(9), sum: BufferId(10) };
/// Shares its place with [`Q`]'s values.
pub const LOGITS: BufferId = BufferId(11);

pub const EMBEDDING: TensorId = TensorId(0);
pub const HEAD: TensorId = TensorId(1);
pub const INV_FREQ: TensorId = TensorId(2);
pub const NORM: TensorId = TensorId(3);
pub const FFN_NORM: TensorId = TensorId(4);
pub const GOLDEN: TensorId = TensorId(5);

/// Steps of a layer, in this order in [`Plan::body`] after the embedding.
pub const LAYER_STEPS: usize = 12;
/// Planes of the head, behind those of the embedding.
pub const HEAD_PLANES: PlanesId = PlanesId(1);
/// Bytes of the planes of a table `[10, 8]`: two planes of 64 bytes a row, 16 scales, 16 bytes of record.
pub const PLANES_BYTES: u64 = 10 * (64 + 64 + 16) + 32 + 10 * 16;
/// Where [`HEAD_PLANES`] are.
pub const HEAD_PLANES_AT: u64 = PLANES_BYTES.next_multiple_of(64);
pub const TARGETS: [Target; 2] = [Target::X86_64V3, Target::Aarch64Dotprod];

pub fn rule() -> ActivationRule {
    ActivationRule::AbsmaxPerToken { floor: 1e-5 }
}

fn layer(l: u32) -> [Step; LAYER_STEPS] {
    let matrix = |i: u32| PackedMatrixId(4 * l + i);
    [
        Step::RmsNorm { input: RESIDUAL, weight: NORM, eps: 1e-5, out: NORMED },
        Step::Quantize { input: NORMED, rule: rule(), out: Q },
        Step::Ternary { matrix: matrix(0), input: Q, epilogue: Epilogue::Store, out: QKV, at: 0 },
        Step::RopeAppend { qkv: QKV, norms: None, inv_freq: INV_FREQ, scaling: 1.0, layer: l },
        Step::Attend { qkv: QKV, layer: l, scale: 0.5, window: None, out: ATTENDED },
        Step::Quantize { input: ATTENDED, rule: rule(), out: Q },
        Step::Ternary { matrix: matrix(1), input: Q, epilogue: Epilogue::Add, out: RESIDUAL, at: 0 },
        Step::Quantize { input: RESIDUAL, rule: rule(), out: Q },
        Step::Ternary {
            matrix: matrix(2),
            input: Q,
            epilogue: Epilogue::Gate(Activation::Relu2),
            out: GATED,
            at: 0,
        },
        Step::RmsNorm { input: GATED, weight: FFN_NORM, eps: 1e-5, out: GATED },
        Step::Quantize { input: GATED, rule: rule(), out: G },
        Step::Ternary { matrix: matrix(3), input: G, epilogue: Epilogue::Add, out: RESIDUAL, at: 0 },
    ]
}

fn matrix(name: String, k: u32, order: RowOrder, rows: &[u32], offset: &mut u64) -> PackedMatrix {
    let segment = |(i, &rows): (usize, &u32)| Segment {
        name: format!("{name}.{i}"),
        rows,
        scale: 0.25,
        rule: ScaleRule::Multiply,
    };
    let segments = rows.iter().enumerate().map(segment).collect();
    let matrix =
        PackedMatrix { name, k, code: Code::SignedFix, order, grouping: None, segments, offset: *offset };
    *offset += matrix.bytes().unwrap();
    matrix
}

pub fn manifest() -> Manifest {
    let buffer =
        |name: &str, dtype, len, offset, stride| Buffer { name: name.into(), dtype, len, offset, stride };
    let tensor = |name: &str, dtype, shape: &[u64], offset| Tensor {
        name: name.into(),
        dtype,
        shape: shape.into(),
        offset,
    };
    let kernel = |target, k, m, offset| KernelEntry {
        spec: KernelSpec { k, m, kind: KernelKind::Stream, code: Code::SignedFix, unroll: 2, prefetch: 8192 },
        target,
        abi: ABI_VERSION,
        offset,
        len: 40,
        digest: Digest::of(&[0x90; 40]),
    };
    let mut at = 0;
    let mut packed_matrices = Vec::new();
    for l in 0..2 {
        packed_matrices.push(matrix(format!("layers.{l}.qkv"), 8, RowOrder::Sequential, &[8, 4, 4], &mut at));
        packed_matrices.push(matrix(format!("layers.{l}.o"), 8, RowOrder::Sequential, &[8], &mut at));
        packed_matrices.push(matrix(format!("layers.{l}.gate_up"), 8, RowOrder::Paired, &[12, 12], &mut at));
        packed_matrices.push(matrix(format!("layers.{l}.down"), 12, RowOrder::Sequential, &[8], &mut at));
    }
    let embed = Step::Embed { table: EMBEDDING, scale: 1.0, out: RESIDUAL };
    Manifest {
        compiler: "tritc test".into(),
        model: ModelInfo {
            name: "small".into(),
            architecture: "Test".into(),
            license: Some("MIT".into()),
            sources: vec![Source { file: "model.safetensors".into(), len: 77, sha256: [0xab; 32] }],
        },
        hyperparameters: Hyperparameters {
            vocab_size: 10,
            hidden_dim: 8,
            ffn_dim: 12,
            n_layers: 2,
            n_heads: 2,
            n_kv_heads: 1,
            head_dim: 4,
            context_length: 32,
        },
        tensors: vec![
            tensor("embedding", DType::Bf16, &[10, 8], 0),
            tensor("head", DType::F16, &[10, 8], 192),
            tensor("inv_freq", DType::F32, &[2], 384),
            tensor("norm", DType::F32, &[8], 448),
            tensor("ffn_norm", DType::F32, &[12], 512),
            tensor("golden.0", DType::F32, &[10], 576),
        ],
        packed_matrices,
        planes: vec![Planes { table: EMBEDDING, offset: 0 }, Planes { table: HEAD, offset: HEAD_PLANES_AT }],
        plan: Plan {
            buffers: vec![
                buffer("residual", DType::F32, 8, 0, 64),
                buffer("normed", DType::F32, 8, 64, 64),
                buffer("q8", DType::I8, 8, 128, 64),
                buffer("q8.scale", DType::F32, 1, 192, 4),
                buffer("q8.sum", DType::I32, 1, 256, 4),
                buffer("qkv", DType::F32, 16, 320, 64),
                buffer("attended", DType::F32, 8, 384, 64),
                buffer("gated", DType::F32, 12, 320, 64),
                buffer("q12", DType::I8, 12, 384, 64),
                buffer("q12.scale", DType::F32, 1, 448, 4),
                buffer("q12.sum", DType::I32, 1, 512, 4),
                buffer("logits", DType::F32, 10, 128, 64),
            ],
            row_bytes: 576,
            body: [embed].into_iter().chain(layer(0)).chain(layer(1)).collect(),
            head: vec![
                Step::RmsNorm { input: RESIDUAL, weight: NORM, eps: 1e-5, out: NORMED },
                Step::Head { input: NORMED, table: HEAD, planes: Some(HEAD_PLANES), out: LOGITS },
            ],
            residual: RESIDUAL,
            logits: LOGITS,
            kv: vec![KvLayer { n_heads: 2, n_kv_heads: 1, head_dim: 4 }; 2],
            layers: vec![LayerSteps { start: 1, end: 13 }, LayerSteps { start: 13, end: 25 }],
        },
        kernels: TARGETS
            .into_iter()
            .flat_map(|target| {
                [kernel(target, 8, 1, 0), kernel(target, 8, 4, 64), kernel(target, 12, 1, 128)]
            })
            .collect(),
        text: TextInfo {
            chat_template: Some("{{ messages }}".into()),
            special_tokens: vec![("bos_token".into(), "<s>".into())],
            bos: Some(1),
            stop: vec![2],
            sampling: SamplingDefaults {
                do_sample: true,
                temperature: Some(0.5),
                rules: LogitRules {
                    sequence_bias: vec![(vec![3, 4], 1.5)],
                    no_repeat_ngram_size: 2,
                    bad_words: vec![vec![5], vec![6, 7, 8]],
                    suppress: vec![9],
                    begin_suppress: vec![2],
                },
                ..SamplingDefaults::default()
            },
        },
        goldens: vec![Golden { ids: vec![1, 2], logits: GOLDEN }],
    }
}

/// Quantized `[8]`, in groups of 32 columns and three digits.
pub const FIXED: Quantized = Quantized { values: BufferId(12), scale: BufferId(13), sum: BufferId(14) };
/// Quantized `[12]`, in groups of 32 columns.
pub const GROUPS: Quantized = Quantized { values: BufferId(15), scale: BufferId(16), sum: BufferId(17) };
pub const UP: BufferId = BufferId(18);
pub const ADDED: BufferId = BufferId(19);
pub const KV_TABLE: TensorId = TensorId(6);
pub const UP_TABLE: TensorId = TensorId(7);
pub const HEAD_NORM: TensorId = TensorId(8);
/// The first packed matrix of [`grouped`]'s second layer, and its embedding.
pub const Q_MATRIX: PackedMatrixId = PackedMatrixId(4);
pub const TERNARY_EMBEDDING: PackedMatrixId = PackedMatrixId(8);
pub const FIXED_RULE: ActivationRule = ActivationRule::Fixed24PerGroup { columns: 32 };
pub const GROUP_RULE: ActivationRule = ActivationRule::AbsmaxPerGroup { columns: 32 };

/// The second layer of [`grouped`], after the embedding and [`LAYER_STEPS`] of the first.
pub fn grouped_layer() -> Vec<Step> {
    let ternary = |matrix, input, epilogue, out| Step::Ternary { matrix, input, epilogue, out, at: 0 };
    let (store, add) = (Epilogue::Store, Epilogue::Add);
    let norms = Some(HeadNorms { q: HEAD_NORM, k: HEAD_NORM, eps: 1e-5 });
    vec![
        Step::NormQuantize { input: RESIDUAL, weight: NORM, eps: 1e-5, rule: FIXED_RULE, out: FIXED },
        ternary(Q_MATRIX, FIXED, store, QKV),
        Step::Linear { table: KV_TABLE, input: RESIDUAL, epilogue: store, out: QKV, at: 8 },
        Step::RopeAppend { qkv: QKV, norms, inv_freq: INV_FREQ, scaling: 1.0, layer: 1 },
        Step::Attend { qkv: QKV, layer: 1, scale: 0.5, window: Some(3), out: ATTENDED },
        Step::Quantize { input: ATTENDED, rule: FIXED_RULE, out: FIXED },
        ternary(PackedMatrixId(5), FIXED, store, ADDED),
        Step::RmsNormAdd { input: ADDED, weight: NORM, eps: 1e-5, out: RESIDUAL },
        Step::Quantize { input: RESIDUAL, rule: FIXED_RULE, out: FIXED },
        ternary(PackedMatrixId(6), FIXED, store, GATED),
        Step::Linear { table: UP_TABLE, input: RESIDUAL, epilogue: store, out: UP, at: 0 },
        Step::Gate { gate: GATED, up: UP, activation: Activation::GeluTanh, out: GATED },
        Step::Quantize { input: GATED, rule: GROUP_RULE, out: GROUPS },
        ternary(PackedMatrixId(7), GROUPS, add, RESIDUAL),
    ]
}

/// [`grouped`], whose second layer rotates its heads before it normalizes them.
pub fn normed_after() -> Manifest {
    let mut m = grouped();
    let step = &mut m.plan.body[1 + LAYER_STEPS + 3];
    let &mut Step::RopeAppend { qkv, norms: Some(norms), inv_freq, scaling, layer } = step else { panic!() };
    *step = Step::RopeNormAppend { qkv, norms, inv_freq, scaling, layer };
    m
}

/// [`manifest`] with a second layer of grouped packed matrices, and a ternary embedding that is the head, too. No
/// kernels.
pub fn grouped() -> Manifest {
    let mut m = manifest();
    let group = |m: &mut Manifest, name: &str, k, rows: u32, grouping| {
        let mut at = (m.packed_matrices.last()).map_or(0, |p| p.offset + p.bytes().unwrap());
        let mut matrix = matrix(name.into(), k, RowOrder::Sequential, &[rows], &mut at);
        matrix.segments[0].scale = 1.0;
        matrix.grouping = Some(grouping);
        m.packed_matrices.push(matrix);
    };
    m.packed_matrices.truncate(4);
    let of_rows = Grouping { columns: 32, scale_columns: 0, scale: DType::F32 };
    let of_groups = Grouping { columns: 32, scale_columns: 64, scale: DType::F16 };
    group(&mut m, "layers.1.q", 8, 8, of_rows);
    group(&mut m, "layers.1.o", 8, 8, of_groups);
    group(&mut m, "layers.1.gate", 8, 12, of_groups);
    group(&mut m, "layers.1.down", 12, 8, of_rows);
    group(&mut m, "embedding", 8, 10, of_groups);
    for (name, dtype, len, stride) in [
        ("fixed", DType::I8, 192, 192),
        ("fixed.scale", DType::F32, 1, 4),
        ("fixed.sum", DType::I32, 3, 64),
        ("groups", DType::I8, 64, 64),
        ("groups.scale", DType::F32, 1, 4),
        ("groups.sum", DType::I32, 1, 4),
        ("up", DType::F32, 12, 64),
        ("added", DType::F32, 8, 64),
    ] {
        let offset = m.plan.row_bytes;
        m.plan.buffers.push(Buffer { name: name.into(), dtype, len, offset, stride });
        m.plan.row_bytes += stride.next_multiple_of(64);
    }
    for (name, dtype, shape, offset) in [
        ("kv", DType::F32, &[8, 8][..], 640),
        ("up", DType::Bf16, &[12, 8], 896),
        ("head_norm", DType::F32, &[4], 1088),
    ] {
        m.tensors.push(Tensor { name: name.into(), dtype, shape: shape.into(), offset });
    }
    m.kernels.clear();
    m.plan.body.truncate(1 + LAYER_STEPS);
    m.plan.body[0] = Step::EmbedTernary { matrix: TERNARY_EMBEDDING, out: RESIDUAL };
    m.plan.body.extend(grouped_layer());
    m.plan.layers[1].end = m.plan.body.len() as u32;
    m.plan.head = vec![
        Step::NormQuantize { input: RESIDUAL, weight: NORM, eps: 1e-5, rule: FIXED_RULE, out: FIXED },
        Step::Ternary {
            matrix: TERNARY_EMBEDDING,
            input: FIXED,
            epilogue: Epilogue::Store,
            out: LOGITS,
            at: 0,
        },
    ];
    m
}

/// [`grouped`] with every second packed matrix stored as signs.
pub fn of_signs() -> Manifest {
    let mut m = grouped();
    let mut at = 0;
    for (i, matrix) in m.packed_matrices.iter_mut().enumerate() {
        matrix.code = [Code::Binary, Code::SignedFix][i % 2];
        matrix.offset = at;
        at += matrix.bytes().unwrap();
    }
    m
}

/// The sections beside the manifest.
pub fn sections(manifest: &Manifest) -> Vec<(SectionKind, Vec<u8>)> {
    let weights =
        manifest.packed_matrices.iter().map(|p| p.offset + p.bytes().unwrap_or(0)).max().unwrap_or(0);
    let tensors = manifest.tensors.iter().map(|t| t.offset + t.bytes().unwrap_or(0)).max().unwrap_or(0);
    vec![
        (SectionKind::Weights, vec![Code::SignedFix.store(121).unwrap(); weights as usize]),
        (SectionKind::Tensors, vec![0; tensors as usize]),
        (SectionKind::Code(TARGETS[0]), vec![0x90; 168]),
        (SectionKind::Code(TARGETS[1]), vec![0x90; 168]),
        (SectionKind::Tokenizer, b"{}".to_vec()),
        (SectionKind::Planes, vec![0; (HEAD_PLANES_AT + PLANES_BYTES) as usize]),
    ]
}

/// Lays sections out one after another and digests them.
pub fn assemble(sections: &[(SectionKind, Vec<u8>)]) -> Vec<u8> {
    let mut header = Header { sections: Vec::new() };
    let mut end = Header::bytes(sections.len());
    for (kind, bytes) in sections {
        let offset = end.next_multiple_of(kind.alignment());
        end = offset + bytes.len() as u64;
        header.sections.push(Section {
            kind: *kind,
            offset,
            len: bytes.len() as u64,
            digest: Digest::of(bytes),
        });
    }
    let mut file = header.encode();
    for (section, (_, bytes)) in header.sections.iter().zip(sections) {
        file.resize(section.offset as usize, 0);
        file.extend_from_slice(bytes);
    }
    file
}

/// The whole bundle of [`manifest`].
pub fn file() -> Vec<u8> {
    file_of(&manifest())
}

/// A whole bundle with another manifest.
pub fn file_of(manifest: &Manifest) -> Vec<u8> {
    let mut all = vec![(SectionKind::Manifest, manifest.encode().unwrap())];
    all.extend(sections(manifest));
    assemble(&all)
}

/// A message, and the change that must cause it.
pub type Case = (&'static str, fn(&mut Manifest));

/// Each case's change to the small manifest must be refused with exactly this message.
pub fn refused(cases: &[Case]) {
    refused_of(&manifest(), &Header::parse(&file()).unwrap(), cases);
}

/// Each case's change to `whole` must be refused with exactly this message.
pub fn refused_of(whole: &Manifest, header: &Header, cases: &[Case]) {
    assert_eq!(whole.validate(header), Ok(()));
    for (message, change) in cases {
        let mut manifest = whole.clone();
        change(&mut manifest);
        match manifest.validate(header) {
            Ok(()) => panic!("accepted, though: {message}"),
            Err(error) => assert_eq!(error.to_string(), *message),
        }
    }
}
