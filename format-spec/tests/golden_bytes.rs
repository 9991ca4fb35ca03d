//! The exact bytes of every record, written by hand from SPEC.md. A test that fails here says that bundles written
//! before the change are no longer read: raise the format's version, do not adjust the bytes.

mod bundle;
mod golden;

use golden::steps::steps;
use golden::{bytes, golden};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::mem::offset_of;
use trit_format::container::{Digest, Header, Section, SectionKind};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelArgs, KernelEntry, KernelKind, KernelSpec};
use trit_format::manifest::*;
use trit_format::plan::*;
use trit_format::planes::{Layout, Row, encode_row};
use trit_format::target::Target;

const DIGEST: Digest = Digest([0x5a; 32]);
const DIGEST_HEX: &str = "5a5a5a5a5a5a5a5a 5a5a5a5a5a5a5a5a 5a5a5a5a5a5a5a5a 5a5a5a5a5a5a5a5a";

#[test]
fn header_and_section_entries() {
    let section = |kind, offset, len| Section { kind, offset, len, digest: DIGEST };
    let header = Header {
        sections: vec![
            section(SectionKind::Manifest, 0x200, 5),
            section(SectionKind::Weights, 0x1_0000, 0x10),
            section(SectionKind::Tensors, 0x2_0000, 0x20),
            section(SectionKind::Code(Target::Aarch64Dotprod), 0x3_0000, 0x30),
            section(SectionKind::Tokenizer, 0x3_0040, 2),
            section(SectionKind::Planes, 0x4_0000, 0x40),
            section(SectionKind::Draft, 0x4_0040, 3),
        ],
    };
    let expected = format!(
        "89 'TRIT' 0d0a1a  0100 0100  07000000  0000000000000000  4300040000000000
         0000000000000000 0000000000000000 0000000000000000 0000000000000000
         01000000 00000000  0002000000000000  0500000000000000  0000000000000000  {DIGEST_HEX}
         02000000 00000000  0000010000000000  1000000000000000  0000000000000000  {DIGEST_HEX}
         03000000 00000000  0000020000000000  2000000000000000  0000000000000000  {DIGEST_HEX}
         04000000 07000000  0000030000000000  3000000000000000  0000000000000000  {DIGEST_HEX}
         05000000 00000000  4000030000000000  0200000000000000  0000000000000000  {DIGEST_HEX}
         06000000 00000000  0000040000000000  4000000000000000  0000000000000000  {DIGEST_HEX}
         07000000 00000000  4000040000000000  0300000000000000  0000000000000000  {DIGEST_HEX}"
    );
    assert_eq!(header.encode(), bytes(&expected));
    let mut file = bytes(&expected);
    file.resize(0x4_0043, 0);
    assert_eq!(Header::parse(&file), Ok(header));
}

#[test]
fn digest_is_blake3() {
    let empty = "af1349b9f5f9a1a6 a0404dea36dcc949 9bcb25c9adc112b7 cc9a93cae41f3262";
    assert_eq!(Digest::of(b"").0[..], bytes(empty));
    // On all cores as on one.
    let large = vec![7u8; (1 << 20) + 1];
    assert_eq!(Digest::of(&large).0, *blake3::hash(&large).as_bytes());
}

#[test]
fn enums() {
    for (index, dtype) in [DType::F32, DType::F16, DType::Bf16, DType::I8, DType::I32].into_iter().enumerate()
    {
        golden(dtype, &format!("0{index}000000"));
    }
    golden(DType::I8Blocks { columns: 16, offsets: false }, "05000000 10000000 00");
    golden(DType::I8Blocks { columns: 32, offsets: true }, "05000000 20000000 01");
    for (index, target) in Target::ALL.into_iter().enumerate() {
        golden(target, &format!("0{index}000000"));
    }
    let targets = Target::ALL.map(Target::name);
    assert_eq!(
        targets,
        [
            "x86-64-v2",
            "x86-64-v3",
            "x86-64-v3-vnni",
            "x86-64-v4-vnni",
            "x86-64-v4-vbmi",
            "x86-64-amx",
            "aarch64",
            "aarch64-dotprod",
            "aarch64-i8mm",
        ]
    );
    golden(Code::SignedFix, "00000000");
    golden(Code::Spread, "01000000");
    golden(Code::Binary, "02000000");
    golden(RowOrder::Sequential, "00000000");
    golden(RowOrder::Paired, "01000000");
    golden(ScaleRule::Multiply, "00000000");
    golden(ScaleRule::Divide, "01000000");
    golden(Activation::Relu2, "00000000");
    golden(Activation::Silu, "01000000");
    golden(Activation::GeluTanh, "02000000");
    golden(Activation::Sigmoid, "03000000");
    golden(Epilogue::Store, "00000000");
    golden(Epilogue::Add, "01000000");
    golden(Epilogue::Gate(Activation::Silu), "02000000 01000000");
    golden(ActivationRule::AbsmaxPerToken { floor: 1e-5 }, "00000000 acc52737");
    golden(ActivationRule::AbsmaxPerGroup { columns: 128 }, "01000000 80000000");
    golden(ActivationRule::Fixed24PerGroup { columns: 64 }, "02000000 40000000");
}

fn source() -> (Source, String) {
    let sha = "ab".repeat(32);
    (
        Source { file: "a.bin".into(), len: 258, sha256: [0xab; 32] },
        format!("0500000000000000 'a.bin' 0201000000000000 {sha}"),
    )
}

fn model() -> (ModelInfo, String) {
    let (source, hex) = source();
    (
        ModelInfo {
            name: "m".into(),
            architecture: "Bit".into(),
            license: Some("MIT".into()),
            sources: vec![source],
        },
        format!(
            "0100000000000000 'm' 0300000000000000 'Bit' 01 0300000000000000 'MIT' 0100000000000000 {hex}"
        ),
    )
}

fn hyperparameters() -> (Hyperparameters, &'static str) {
    (
        Hyperparameters {
            vocab_size: 1,
            hidden_dim: 2,
            ffn_dim: 3,
            n_layers: 4,
            n_heads: 5,
            n_kv_heads: 6,
            head_dim: 7,
            context_length: 0x0102_0304,
        },
        "01000000 02000000 03000000 04000000 05000000 06000000 07000000 04030201",
    )
}

fn tensor() -> (Tensor, &'static str) {
    (
        Tensor { name: "é".into(), dtype: DType::Bf16, shape: vec![3, 1 << 40], offset: 64 },
        "0200000000000000 c3a9 02000000 0200000000000000 0300000000000000 0000000000010000 4000000000000000",
    )
}

fn segment() -> (Segment, &'static str) {
    (
        Segment { name: "q".into(), rows: 640, scale: 1.5, rule: ScaleRule::Divide },
        "0100000000000000 'q' 80020000 0000c03f 01000000",
    )
}

fn matrix() -> (PackedMatrix, String) {
    let (segment, hex) = segment();
    (
        PackedMatrix {
            name: "qkv".into(),
            k: 2560,
            code: Code::Spread,
            order: RowOrder::Paired,
            grouping: None,
            segments: vec![segment],
            offset: 128,
        },
        format!(
            "0300000000000000 'qkv' 000a0000 01000000 01000000 00 0100000000000000 {hex} 8000000000000000"
        ),
    )
}

fn grouping() -> (Grouping, &'static str) {
    (Grouping { columns: 64, scale_columns: 256, scale: DType::F16 }, "40000000 00010000 01000000")
}

fn grouped_matrix() -> (PackedMatrix, String) {
    let (segment, segment_hex) = segment();
    let (grouping, hex) = grouping();
    let matrix = PackedMatrix {
        order: RowOrder::Sequential,
        grouping: Some(grouping),
        segments: vec![segment.clone(), segment],
        ..matrix().0
    };
    (
        matrix,
        format!(
            "0300000000000000 'qkv' 000a0000 01000000 00000000 01 {hex} 0200000000000000 {segment_hex} {segment_hex}
             8000000000000000"
        ),
    )
}

fn planes() -> (Planes, &'static str) {
    (Planes { table: TensorId(3), offset: 0x1_0040 }, "03000000 4000010000000000")
}

fn kernel() -> (KernelEntry, String) {
    (
        KernelEntry {
            spec: KernelSpec {
                k: 2560,
                m: 4,
                kind: KernelKind::Stream,
                code: Code::SignedFix,
                unroll: 2,
                prefetch: 8192,
            },
            target: Target::X86_64V3,
            abi: 3,
            offset: 64,
            len: 300,
            digest: DIGEST,
        },
        format!(
            "000a0000 04000000 00000000 00000000 02000000 00200000  01000000 03000000 4000000000000000 2c01000000000000 {DIGEST_HEX}"
        ),
    )
}

fn buffer() -> (Buffer, &'static str) {
    (
        Buffer { name: "h".into(), dtype: DType::I8, len: 10, offset: 64, stride: 128 },
        "0100000000000000 'h' 03000000 0a000000 4000000000000000 8000000000000000",
    )
}

fn plan() -> (Plan, String) {
    let (buffer, buffer_hex) = buffer();
    let (body, hex): (Vec<Step>, Vec<&str>) = steps().into_iter().unzip();
    (
        Plan {
            buffers: vec![buffer],
            row_bytes: 192,
            head: body[6..7].to_vec(),
            body,
            residual: BufferId(1),
            logits: BufferId(2),
            kv: vec![KvLayer { n_heads: 20, n_kv_heads: 5, head_dim: 128 }],
            layers: vec![LayerSteps { start: 1, end: 7 }],
        },
        format!(
            "0100000000000000 {buffer_hex}  c000000000000000  1300000000000000 {}  0100000000000000 {}
             01000000 02000000  0100000000000000 14000000 05000000 80000000  0100000000000000 01000000 07000000",
            hex.concat(),
            hex[6]
        ),
    )
}

fn logit_rules() -> (LogitRules, &'static str) {
    (
        LogitRules {
            sequence_bias: vec![(vec![4], -0.5)],
            no_repeat_ngram_size: 3,
            bad_words: vec![vec![5, 6]],
            suppress: vec![7],
            begin_suppress: vec![8],
        },
        "0100000000000000 0100000000000000 04000000 000000bf  03000000  0100000000000000 0200000000000000 05000000 06000000
         0100000000000000 07000000  0100000000000000 08000000",
    )
}

fn text() -> (TextInfo, String) {
    let sampling = SamplingDefaults {
        do_sample: true,
        temperature: Some(0.5),
        top_k: Some(40),
        top_p: None,
        min_p: None,
        repetition_penalty: Some(1.5),
        rules: logit_rules().0,
    };
    (
        TextInfo {
            chat_template: None,
            special_tokens: vec![("bos_token".into(), "<s>".into())],
            bos: Some(1),
            stop: vec![2, 3],
            sampling,
        },
        format!(
            "00  0100000000000000 0900000000000000 'bos_token' 0300000000000000 '<s>'  01 01000000
             0200000000000000 02000000 03000000  01 01 0000003f 01 28000000 00 00 01 0000c03f  {}",
            logit_rules().1
        ),
    )
}

fn golden_record() -> (Golden, &'static str) {
    (Golden { ids: vec![7, 8], logits: TensorId(5) }, "0200000000000000 07000000 08000000 05000000")
}

#[test]
fn records() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>((record, hex): (T, impl AsRef<str>)) {
        golden(record, hex.as_ref());
    }
    check(logit_rules());
    check(source());
    check(model());
    check(hyperparameters());
    check(tensor());
    check(segment());
    check(matrix());
    check(grouping());
    check(grouped_matrix());
    check(planes());
    check(kernel());
    check((kernel().0.spec, "000a0000 04000000 00000000 00000000 02000000 00200000"));
    check((DIGEST, DIGEST_HEX));
    check(buffer());
    steps().into_iter().for_each(check);
    let unplanned = Step::Head { input: BufferId(1), table: TensorId(2), planes: None, out: BufferId(3) };
    check((unplanned, "06000000 01000000 02000000 00 03000000"));
    check((
        Step::Attend { qkv: BufferId(1), layer: 2, scale: 0.5, window: None, out: BufferId(3) },
        "05000000 01000000 02000000 0000003f 00 03000000",
    ));
    let norms = HeadNorms { q: TensorId(4), k: TensorId(5), eps: 0.5 };
    check((norms, "04000000 05000000 0000003f"));
    let (qkv, inv_freq) = (BufferId(1), TensorId(6));
    check((
        Step::RopeAppend { qkv, norms: Some(norms), inv_freq, scaling: 2.0, layer: 3 },
        "04000000 01000000 01 04000000 05000000 0000003f 06000000 00000040 03000000",
    ));
    let quantized = Quantized { values: BufferId(1), scale: BufferId(2), sum: BufferId(3) };
    check((quantized, "01000000 02000000 03000000"));
    check((InputNorm { weight: TensorId(4), eps: 0.5 }, "04000000 0000003f"));
    check((Rotation { block: 0x1_0000, signs: None }, "00000100 00"));
    check((Rotation { block: 64, signs: Some(TensorId(5)) }, "40000000 01 05000000"));
    let heads = DeltaHeads { keys: 16, values: 48, key_dim: 128, value_dim: 0x0102_0304 };
    check((heads, "10000000 30000000 80000000 04030201"));
    let rotation = Rotation { block: 32, signs: None };
    let (input, rule) = (BufferId(6), ActivationRule::AbsmaxPerGroup { columns: 32 });
    check((
        Step::RotateQuantize { input, norm: None, rotation, rule, out: quantized },
        "0c000000 06000000 00 20000000 00 01000000 20000000 01000000 02000000 03000000",
    ));
    check((KvLayer { n_heads: 20, n_kv_heads: 5, head_dim: 128 }, "14000000 05000000 80000000"));
    check((LayerSteps { start: 1, end: 7 }, "01000000 07000000"));
    check(plan());
    check(text());
    check((
        SamplingDefaults::default(),
        "00 00 00 00 00 00  0000000000000000 00000000 0000000000000000 0000000000000000 0000000000000000",
    ));
    check(golden_record());
}

#[test]
fn manifest() {
    let manifest = Manifest {
        compiler: "tritc 1".into(),
        model: model().0,
        hyperparameters: hyperparameters().0,
        tensors: vec![tensor().0],
        packed_matrices: vec![matrix().0],
        planes: vec![planes().0],
        plan: plan().0,
        kernels: vec![kernel().0],
        text: text().0,
        goldens: vec![golden_record().0],
    };
    const ONE: &str = "0100000000000000";
    let expected = [
        "0700000000000000 'tritc 1'",
        &model().1,
        hyperparameters().1,
        ONE,
        tensor().1,
        ONE,
        &matrix().1,
        ONE,
        planes().1,
        &plan().1,
        ONE,
        &kernel().1,
        &text().1,
        ONE,
        golden_record().1,
    ];
    let expected: Vec<u8> = expected.into_iter().flat_map(bytes).collect();
    assert_eq!(manifest.encode().unwrap(), expected);
    assert_eq!(Manifest::decode(&expected).unwrap(), manifest);
}

/// Two rows of 20 columns: blocks of 8, of which three have columns. Steps by hand from SPEC.md, "Planes".
#[test]
fn rows_of_planes() {
    let layout = Layout::new(2, 20).unwrap();
    let places = [layout.high(), layout.low(), layout.scales(), layout.records()];
    assert_eq!(places, [0..128, 128..256, 256..288, 320..352]);
    let mut row = [0f32; 20];
    // The least scale is 127.48 / 127.48 / 255, rounded up; it is the first block's with 255.
    (row[0], row[4], row[11], row[19]) = (127.48, -64.0, 63.74, -1.0);
    let (mut high, mut low, mut scales) = ([0; 64], [0; 64], [0; 16]);
    let record = encode_row(layout, &row, &mut high, &mut low, &mut scales).unwrap();
    let mut expected = ([0x88u8; 64], [0u8; 64]);
    // Column 0 is step 127, so 15 and 15; column 4, in the high nibble of the same byte, step -64: 4 and 0.
    (expected.0[0], expected.1[0]) = (0x4f, 0x0f);
    // Column 11 is column 3 of block 1: step 63.74 / (128 / 255) = 127, rounded; column 19 is column 3 of block 2,
    // -1 / (2 / 255) = -127.5 steps, or a little less as the scale is rounded up: step -127.
    (expected.0[4 + 3], expected.1[4 + 3]) = (0x8f, 0x0f);
    (expected.0[8 + 3], expected.1[8 + 3]) = (0x80, 0x01);
    assert_eq!((high, low), expected);
    assert_eq!(scales[..4], [255, 128, 2, 0]);
    assert_eq!(record.scale, (1.0f32 / 255.0).max(0.003_921_569));
    // Residuals in steps: high plane of block 0 (127.48 - 119.5, -64 + 56.5, six times 7.5), both planes at most half.
    let high: f64 = 7.98f64.powi(2) + 7.5f64.powi(2) * 7.0;
    assert!((f64::from(record.c_high) - high.sqrt()).abs() < 1e-3, "{record:?}");
    assert_eq!(record.c_full, 1.0);
    assert_eq!(
        Row { scale: 1.5, c_high: 26.0, c_full: 2.0 }.to_bytes(),
        bytes("0000c03f 0000d041 00000040 00000000")[..]
    );
}

/// Group after group, then the scales, as SPEC.md, "Tiles", says; kernels read their arguments at these places.
#[test]
fn places_in_tiles_and_arguments() {
    let matrix = |columns, scale_columns, scale, k, rows| PackedMatrix {
        k,
        order: RowOrder::Sequential,
        grouping: Some(Grouping { columns, scale_columns, scale }),
        segments: vec![Segment { rows, ..segment().0 }],
        ..matrix().0
    };
    let sizes = |p: PackedMatrix| (p.groups(), p.scales(), p.code_bytes(), p.tile_bytes(), p.bytes());
    assert_eq!(sizes(matrix(128, 0, DType::F32, 300, 81)), (3, 1, 6144, 6464, Some(12928)));
    assert_eq!(sizes(matrix(32, 64, DType::F16, 100, 80)), (4, 2, 2048, 2368, Some(2368)));
    assert_eq!(sizes(matrix(64, 64, DType::Bf16, 192, 160)), (3, 3, 3072, 3584, Some(7168)));
    let whole = PackedMatrix { grouping: None, ..matrix(64, 64, DType::F32, 6, 80) };
    assert_eq!(sizes(whole), (1, 0, 128, 128, Some(128)));
    let fields = [
        (offset_of!(KernelArgs, weights), 0),
        (offset_of!(KernelArgs, activations), 8),
        (offset_of!(KernelArgs, sums), 16),
        (offset_of!(KernelArgs, out), 24),
        (offset_of!(KernelArgs, tiles), 32),
        (offset_of!(KernelArgs, activation_stride), 40),
        (offset_of!(KernelArgs, sum_stride), 48),
        (offset_of!(KernelArgs, out_stride), 56),
        (offset_of!(KernelArgs, rows), 64),
        (offset_of!(KernelArgs, scratch), 72),
        (offset_of!(KernelArgs, activation_advance), 80),
        (offset_of!(KernelArgs, sum_advance), 88),
        (offset_of!(KernelArgs, weight_scales), 96),
        (offset_of!(KernelArgs, activation_scales), 104),
        (offset_of!(KernelArgs, activation_scale_stride), 112),
        (offset_of!(KernelArgs, groups), 120),
        (offset_of!(KernelArgs, weight_stride), 128),
    ];
    assert!(fields.iter().all(|(found, expected)| found == expected), "{fields:?}");
    assert_eq!(size_of::<KernelArgs>(), 136);
}

/// Everything at once: a whole file, by its length (320 KiB, the planes) and its digest, as
/// first written.
#[test]
fn a_whole_bundle() {
    let file = bundle::file();
    assert_eq!(file.len(), 330_976);
    assert_eq!(
        Digest::of(&file).to_string(),
        "bf51318a04568e83c0a7d114d20688cb6cf0884ac4e7236763e8290774671748"
    );
}
