//! One damaged manifest for each rule of grouped packed matrices and of the steps around them, and the message that
//! names it.

mod bundle;

use bundle::*;
use trit_format::container::Header;
use trit_format::manifest::{Grouping, Manifest};
use trit_format::plan::*;

/// Each case's change to the manifest with groups must be refused with exactly this message.
fn refused_with_groups(cases: &[Case]) {
    refused_of(&grouped(), &Header::parse(&file_of(&grouped())).unwrap(), cases);
}

fn grouping(m: &mut Manifest) -> &mut Grouping {
    m.packed_matrices[4].grouping.as_mut().unwrap()
}

#[test]
fn matrices_with_groups() {
    refused_with_groups(&[
        ("product layers.1.q: k is 0, not in 1..=1048576", |m| m.packed_matrices[4].k = 0),
        ("product layers.1.q: k is 1048577, not in 1..=1048576", |m| m.packed_matrices[4].k = (1 << 20) + 1),
        ("product layers.1.q: has groups of 0 columns; [32, 64, 128, 256] are possible", |m| {
            grouping(m).columns = 0
        }),
        ("product layers.1.q: has groups of 48 columns; [32, 64, 128, 256] are possible", |m| {
            grouping(m).columns = 48
        }),
        ("product layers.1.q: has a scale for 48 columns, no multiple of its groups' 32", |m| {
            grouping(m).scale_columns = 48
        }),
        ("product layers.1.q: its scales are I8, expected floats", |m| grouping(m).scale = DType::I8),
        ("product layers.1.q: is grouped, but a segment has a scale of its own", |m| {
            m.packed_matrices[4].segments[0].scale = 0.5
        }),
        ("product layers.1.q: is grouped, but a segment has a scale of its own", |m| {
            m.packed_matrices[4].segments[0].rule = ScaleRule::Divide
        }),
        ("product layers.1.o: overlaps product layers.1.q", |m| grouping(m).columns = 64),
        ("product embedding: its 704 bytes at 3712 reach past the weights section's 4352", |m| {
            m.packed_matrices[8].offset += 64
        }),
    ]);
    // Kernels are those for a group's columns.
    let mut m = grouped();
    m.kernels = manifest().kernels;
    let error = m.validate(&Header::parse(&file_of(&grouped())).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "product layers.1.q: has no stream kernel for x86-64-v3 with k 32, m 1 and code sfix"
    );
}

/// The step at `14 + index` of the manifest with groups, in the second layer.
fn layer_step(m: &mut Manifest, index: usize) -> &mut Step {
    &mut m.plan.body[1 + LAYER_STEPS + index]
}

#[test]
fn steps_with_groups() {
    refused_with_groups(&[
        ("body step 0: there is no product 9", |m| {
            m.plan.body[0] = Step::EmbedTernary { matrix: PackedMatrixId(9), out: RESIDUAL }
        }),
        ("body step 0: its product layers.0.qkv is not of grouped rows in sequence", |m| {
            m.plan.body[0] = Step::EmbedTernary { matrix: PackedMatrixId(0), out: RESIDUAL }
        }),
        ("body step 0: its product has 8 rows for a vocabulary of 10", |m| {
            m.plan.body[0] = Step::EmbedTernary { matrix: Q_MATRIX, out: RESIDUAL }
        }),
        ("body step 1: out is buffer gated F32[12], expected F32[8]", |m| {
            m.plan.body[1] = Step::EmbedTernary { matrix: TERNARY_EMBEDDING, out: GATED }
        }),
        ("body step 21: has groups of 48 columns; [32, 64, 128, 256] up to 128 are possible", |m| {
            let rule = ActivationRule::Fixed24PerGroup { columns: 48 };
            *layer_step(m, 8) = Step::Quantize { input: RESIDUAL, rule, out: FIXED };
        }),
        ("body step 21: has groups of 256 columns; [32, 64, 128, 256] up to 128 are possible", |m| {
            let rule = ActivationRule::Fixed24PerGroup { columns: 256 };
            *layer_step(m, 8) = Step::Quantize { input: RESIDUAL, rule, out: FIXED };
        }),
        ("body step 21: values is buffer fixed I8[192], expected I8[64]", |m| {
            *layer_step(m, 8) = Step::Quantize { input: RESIDUAL, rule: GROUP_RULE, out: FIXED };
        }),
        ("body step 21: sum is buffer groups.sum I32[1], expected I32[3]", |m| {
            let out = Quantized { sum: GROUPS.sum, ..FIXED };
            *layer_step(m, 8) = Step::Quantize { input: RESIDUAL, rule: FIXED_RULE, out };
        }),
        ("body step 25: scale is buffer up F32[12], expected F32[1]", |m| {
            let out = Quantized { scale: UP, ..GROUPS };
            *layer_step(m, 12) = Step::Quantize { input: GATED, rule: GROUP_RULE, out };
        }),
        ("body step 25: values is buffer groups with room between its rows", |m| {
            let row_bytes = m.plan.row_bytes;
            (m.plan.buffers[15].stride, m.plan.buffers[15].offset) = (128, row_bytes);
            m.plan.row_bytes += 128;
        }),
        ("body step 14: values is buffer groups I8[64], expected I8[8]", |m| {
            *layer_step(m, 1) = Step::Ternary {
                matrix: PackedMatrixId(1),
                input: GROUPS,
                epilogue: Epilogue::Store,
                out: QKV,
                at: 0,
            }
        }),
        ("body step 14: sum is buffer groups.sum I32[1], expected I32[3]", |m| {
            let Step::Ternary { input, .. } = layer_step(m, 1) else { panic!() };
            input.sum = GROUPS.sum;
        }),
        ("body step 14: out is buffer qkv F32[16], expected room for F32[8] from 9 on", |m| {
            let Step::Ternary { at, .. } = layer_step(m, 1) else { panic!() };
            *at = 9;
        }),
        ("body step 14: out is buffer qkv F32[16], expected room for F32[8] from 4294967295 on", |m| {
            let Step::Ternary { at, .. } = layer_step(m, 1) else { panic!() };
            *at = u32::MAX;
        }),
        ("body step 15: gates a product that is not ternary", |m| {
            let Step::Linear { epilogue, .. } = layer_step(m, 2) else { panic!() };
            *epilogue = Epilogue::Gate(Activation::Silu);
        }),
        ("body step 15: its table is tensor norm F32[8], expected a matrix of floats", |m| {
            let Step::Linear { table, .. } = layer_step(m, 2) else { panic!() };
            *table = NORM;
        }),
        ("body step 15: input is buffer gated F32[12], expected F32[8]", |m| {
            let Step::Linear { input, .. } = layer_step(m, 2) else { panic!() };
            *input = GATED;
        }),
        ("body step 15: out is buffer qkv F32[16], expected room for F32[8] from 4294967288 on", |m| {
            let Step::Linear { at, .. } = layer_step(m, 2) else { panic!() };
            *at = u32::MAX - 7;
        }),
        ("body step 16: q norm is tensor norm F32[8], expected F32[4]", |m| {
            let Step::RopeAppend { norms: Some(norms), .. } = layer_step(m, 3) else { panic!() };
            norms.q = NORM;
        }),
        ("body step 16: k norm is tensor norm F32[8], expected F32[4]", |m| {
            let Step::RopeAppend { norms: Some(norms), .. } = layer_step(m, 3) else { panic!() };
            norms.k = NORM;
        }),
        ("body step 16: eps is -1, not finite and above zero", |m| {
            let Step::RopeAppend { norms: Some(norms), .. } = layer_step(m, 3) else { panic!() };
            norms.eps = -1.0;
        }),
        ("body step 17: its window is 0", |m| {
            let Step::Attend { window, .. } = layer_step(m, 4) else { panic!() };
            *window = Some(0);
        }),
        ("body step 20: eps is NaN, not finite and above zero", |m| {
            let Step::RmsNormAdd { eps, .. } = layer_step(m, 7) else { panic!() };
            *eps = f32::NAN;
        }),
        ("body step 20: out is buffer gated F32[12], expected F32[8]", |m| {
            let Step::RmsNormAdd { out, .. } = layer_step(m, 7) else { panic!() };
            *out = GATED;
        }),
        ("body step 24: up is buffer added F32[8], expected F32[12]", |m| {
            let Step::Gate { up, .. } = layer_step(m, 11) else { panic!() };
            *up = ADDED;
        }),
        ("body step 24: out is buffer fixed I8[192], expected F32[12]", |m| {
            let Step::Gate { out, .. } = layer_step(m, 11) else { panic!() };
            *out = FIXED.values;
        }),
        ("head step 0: stands in the head, which runs only for some rows; it belongs in the body", |m| {
            m.plan.head[0] = Step::EmbedTernary { matrix: TERNARY_EMBEDDING, out: RESIDUAL }
        }),
        (
            "body step 20: is a head, which only ends the head: readers may find its largest results alone",
            |m| *layer_step(m, 7) = Step::Head { input: ADDED, table: HEAD, planes: None, out: LOGITS },
        ),
        ("body step 0: scale is 0, not finite and above zero", |m| {
            m.plan.body[0] = Step::Embed { table: EMBEDDING, scale: 0.0, out: RESIDUAL }
        }),
    ]);
}

#[test]
fn order_with_groups() {
    refused_with_groups(&[
        // Both have one group, and the same lengths.
        (
            "body step 14: its input was quantized in groups of 64 columns, its product is in groups of 32 columns",
            |m| {
                let rule = ActivationRule::Fixed24PerGroup { columns: 64 };
                *layer_step(m, 0) = Step::Quantize { input: RESIDUAL, rule, out: FIXED };
            },
        ),
        ("body step 15: the parts of its input were not written by one step", |m| {
            let mut scale = m.plan.buffers[13].clone();
            (scale.name, scale.offset) = ("other".into(), m.plan.row_bytes);
            m.plan.row_bytes += 64;
            m.plan.buffers.push(scale);
            let other = Quantized { scale: BufferId(20), ..FIXED };
            let quantize = |out| Step::Quantize { input: RESIDUAL, rule: FIXED_RULE, out };
            *layer_step(m, 0) = quantize(other);
            *layer_step(m, 1) = quantize(FIXED);
            let (input, epilogue) = (other, Epilogue::Store);
            *layer_step(m, 2) = Step::Ternary { matrix: Q_MATRIX, input, epilogue, out: QKV, at: 0 };
        }),
        // Front to back.
        ("body step 15: writes buffer qkv from 8 on, where 0 elements are written", |m| {
            *layer_step(m, 1) = Step::RmsNorm { input: RESIDUAL, weight: NORM, eps: 1e-5, out: ADDED };
        }),
        ("body step 16: reads buffer qkv, of which only 8 of 16 elements are written", |m| {
            *layer_step(m, 2) = Step::RmsNorm { input: RESIDUAL, weight: NORM, eps: 1e-5, out: ADDED };
        }),
        ("body step 16: reads buffer qkv, of which only 8 of 16 elements are written", |m| {
            let Step::Linear { at, .. } = layer_step(m, 2) else { panic!() };
            *at = 0;
        }),
        ("body step 15: writes buffer qkv from 4 on, where 8 elements are written", |m| {
            let Step::Linear { at, .. } = layer_step(m, 2) else { panic!() };
            *at = 4;
        }),
        ("body step 20: writes buffer residual over residual", |m| {
            let Step::RmsNormAdd { input, .. } = layer_step(m, 7) else { panic!() };
            *input = RESIDUAL;
        }),
        ("body step 24: reads buffer up, which holds nothing then", |m| {
            *layer_step(m, 10) = Step::RmsNorm { input: RESIDUAL, weight: NORM, eps: 1e-5, out: NORMED };
        }),
        ("body step 24: writes buffer gated over up", |m| m.plan.buffers[18].offset = 320),
        ("plan: its head does not end by writing the logits", |m| m.plan.head.truncate(1)),
    ]);
}

/// The rules of RoPE hold for both orders of RoPE and norms.
#[test]
fn heads_that_are_normalized_after_rope() {
    let header = Header::parse(&file_of(&normed_after())).unwrap();
    assert_eq!(normed_after().validate(&header), Ok(()));
    refused_of(
        &normed_after(),
        &header,
        &[
            ("body step 16: q norm is tensor norm F32[8], expected F32[4]", |m| rope(m).0.q = NORM),
            ("body step 16: k norm is tensor norm F32[8], expected F32[4]", |m| rope(m).0.k = NORM),
            ("body step 16: eps is 0, not finite and above zero", |m| rope(m).0.eps = 0.0),
            ("body step 16: inv_freq is tensor norm F32[8], expected F32[2]", |m| *rope(m).1 = NORM),
            ("body step 16: scaling is inf, not finite and above zero", |m| *rope(m).2 = f32::INFINITY),
            ("body step 16: there is no kv layer 2", |m| *rope(m).3 = 2),
            ("body step 16: appends to kv layer 0 a second time", |m| *rope(m).3 = 0),
            ("head step 0: stands in the head, which runs only for some rows; it belongs in the body", |m| {
                m.plan.head[0] = layer_step(m, 3).clone();
            }),
        ],
    );
}

fn rope(m: &mut Manifest) -> (&mut HeadNorms, &mut TensorId, &mut f32, &mut u32) {
    let Step::RopeNormAppend { norms, inv_freq, scaling, layer, .. } = layer_step(m, 3) else { panic!() };
    (norms, inv_freq, scaling, layer)
}
