//! Packed matrices with scales of rows and groups, and the steps around them.

use crate::contents::compiled;
use crate::mixed;
use half::f16;
use trit_format::container::SectionKind;
use trit_format::manifest::{Grouping, PackedMatrix, RowOrder};
use trit_format::plan::{ActivationRule, DType, Epilogue, Step};
use trit_format::tile;
use tritc::CompileError;
use tritc::bundle::Bundle;
use tritc::compile::compile;
use tritc::inspect::verify::verify;
use tritc::model::{Activations, Matrix, Model, Scales, Ternary};
use tritc::progress::Silent;
use tritc::reference;

/// The weights of a grouped packed matrix as SPEC.md says they stand, `[tiles * 80, k]`.
fn decoded(bundle: &Bundle, packed: &PackedMatrix) -> Vec<f32> {
    let Grouping { columns, scale_columns, scale } = packed.grouping.unwrap();
    let (k, columns) = (packed.k as usize, columns as usize);
    let section = &bundle.section(SectionKind::Weights)[packed.offset as usize..];
    let mut weights = Vec::new();
    for tile in section[..packed.bytes().unwrap() as usize].chunks(packed.tile_bytes() as usize) {
        let (codes, scales) = tile.split_at(packed.code_bytes() as usize);
        let groups: Vec<Vec<i8>> = codes
            .chunks(tile::bytes(columns))
            .map(|group| tile::decode(group, columns, packed.code).unwrap())
            .collect();
        assert_eq!(groups.len(), packed.groups() as usize);
        let scale_at = |index: usize| match scale {
            DType::F16 => f16::from_le_bytes(scales[2 * index..][..2].try_into().unwrap()).to_f32(),
            DType::F32 => f32::from_le_bytes(scales[4 * index..][..4].try_into().unwrap()),
            other => panic!("{other:?}"),
        };
        for row in 0..tile::ROWS {
            for k in 0..k {
                let trit = groups[k / columns][row * columns + k % columns];
                let index = if scale_columns == 0 { 0 } else { k / scale_columns as usize };
                weights.push(f32::from(trit) * scale_at(index * tile::ROWS + row));
            }
            let filling = groups[groups.len() - 1][row * columns..][..columns].iter();
            assert!(filling.skip((k - 1) % columns + 1).all(|&t| t == 0));
        }
    }
    weights
}

fn matrices(model: &Model) -> Vec<&Ternary> {
    let layers = model.layers.iter().flat_map(|l| l.projections()).map(|p| &p.matrix);
    layers.chain([&model.embedding]).filter_map(Matrix::ternary).collect()
}

#[test]
fn every_weight_and_scale_stands_where_the_format_says() {
    let folder = tempfile::tempdir().unwrap();
    for activations in [Activations::Int8Groups, Activations::F32] {
        let model = mixed::model(activations);
        let bundle = compiled(&model, folder.path(), &[]);
        for packed in &bundle.manifest().packed_matrices {
            let found = decoded(&bundle, packed);
            let mut rows = found.chunks(packed.k as usize);
            let all = matrices(&model);
            let segments = packed.segments.iter();
            let matrices: Vec<&Ternary> =
                segments.map(|s| *all.iter().find(|m| m.name == s.name).unwrap()).collect();
            let order: Vec<(&Ternary, usize)> = match packed.order {
                RowOrder::Sequential => matrices.iter().flat_map(|m| (0..m.rows).map(|r| (*m, r))).collect(),
                _ => (0..matrices[0].rows.div_ceil(40) * 40)
                    .step_by(40)
                    .flat_map(|first| matrices.iter().flat_map(move |m| (first..first + 40).map(|r| (*m, r))))
                    .collect(),
            };
            for (matrix, row) in order {
                let found = rows.next().unwrap();
                match row < matrix.rows {
                    true => assert_eq!(found, mixed::weights(matrix, row), "{} row {row}", matrix.name),
                    false => assert!(found.iter().all(|&w| w == 0.0)),
                }
            }
            assert!(rows.flatten().all(|&w| w == 0.0));
        }
        verify(&bundle, true).unwrap();
    }
}

/// Which matrices share a packed matrix, and how fine its scales are.
#[test]
fn projections_share_a_packed_matrix_at_the_finest_of_their_scales() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = compiled(&mixed::model(Activations::Int8Groups), folder.path(), &[]);
    let found: Vec<_> = bundle
        .manifest()
        .packed_matrices
        .iter()
        .map(|p| {
            let Grouping { columns, scale_columns, scale } = p.grouping.unwrap();
            (p.name.as_str(), p.segments.len(), columns, scale_columns, scale)
        })
        .collect();
    let expected = [
        ("embed_tokens", 1, 64, 64, DType::F16),
        // v has one scale, which f16 does not hold.
        ("layers.0.qkv", 3, 128, 256, DType::F32),
        ("layers.0.o", 1, 64, 64, DType::F16),
        ("layers.0.gate_up", 2, 32, 32, DType::F16),
        ("layers.1.q", 1, 128, 128, DType::F16),
        ("layers.1.v", 1, 128, 128, DType::F16),
        ("layers.1.o", 1, 128, 0, DType::F32),
        ("layers.1.up", 1, 128, 0, DType::F16),
        ("layers.1.down", 1, 128, 128, DType::F16),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_plan_has_a_step_for_all_that_a_model_can_have() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = compiled(&mixed::model(Activations::F32), folder.path(), &[]);
    let plan = &bundle.manifest().plan;
    let name = |id: trit_format::plan::BufferId| plan.buffers[id.0 as usize].name.as_str();
    assert!(matches!(plan.body[0], Step::EmbedTernary { .. }));
    let second = &plan.body[plan.layers[1].start as usize..];
    // q has a norm of its own, k is of floats: the input is normalized once, then quantized for q and for v.
    let [
        Step::RmsNorm { out: x, .. },
        Step::NormQuantize { input: q_in, eps, rule, .. },
        Step::Ternary { at: 0, out: qkv, .. },
        Step::Linear { input: k_in, at: 128, epilogue: Epilogue::Store, .. },
        Step::Quantize { input: v_in, .. },
        Step::Ternary { at: 192, .. },
        Step::RopeAppend { norms: Some(_), scaling: 1.1, .. },
        Step::Attend { window: Some(3), scale: 0.2, .. },
        Step::NormQuantize { eps: 1e-6, .. },
        Step::Ternary { epilogue: Epilogue::Store, out: o, .. },
        Step::RmsNormAdd { input: added, out: h, .. },
        Step::RmsNorm { .. },
        Step::RmsNorm { out: gate_in, .. },
        Step::Linear { input: gate_x, out: gate, .. },
        Step::Quantize { .. },
        Step::Ternary { out: up, .. },
        Step::Gate { gate: gated, up: upped, out: ffn, .. },
        Step::Quantize { .. },
        Step::Ternary { epilogue: Epilogue::Store, .. },
        Step::RmsNormAdd { .. },
    ] = second
    else {
        panic!("{}", trit_format::text::plan(bundle.manifest()));
    };
    assert_eq!((*q_in, *k_in, *v_in, *eps), (*x, *x, *x, 1e-6));
    assert_eq!(*rule, ActivationRule::Fixed24PerGroup { columns: 128 });
    assert_eq!((name(*x), name(*qkv)), ("x", "qkv"));
    assert_eq!((added, *h), (o, plan.residual));
    assert_eq!((gate_x, gated, upped, ffn), (gate_in, gate, up, gate));
    // Three digits of two groups of 64 columns, and their sums.
    let quantized = plan.buffers.iter().find(|b| b.name == "attention24.g64").unwrap();
    assert_eq!((quantized.dtype, quantized.len), (DType::I8, 3 * 128));
    let sums = plan.buffers.iter().find(|b| b.name == "attention24.g64.sum").unwrap();
    assert_eq!((sums.dtype, sums.len), (DType::I32, 3 * 2));
    // The tied table is the embedding's packed matrix.
    let [Step::NormQuantize { .. }, Step::Ternary { matrix: packed, out, .. }] = plan.head[..] else {
        panic!("{:?}", plan.head)
    };
    assert_eq!((packed.0, out), (0, plan.logits));
}

#[test]
fn scales_that_fit_no_group_are_refused() {
    let mut model = mixed::model(Activations::Int8Groups);
    let Matrix::Ternary(down) = &mut model.layers[1].down.matrix else { panic!() };
    down.scales = Scales::Rows { columns: 48, dtype: DType::F16 };
    let out = tempfile::tempdir().unwrap();
    let error = compile(&model, &out.path().join("out.trit"), &[], &Silent).unwrap_err();
    assert!(matches!(error, CompileError::Unsupported { .. }));
    assert!(error.to_string().contains("layers.1.down: has a scale for each 48 columns"), "{error}");
}

/// The reference with ternary weights against itself with the same weights as floats: with float activations the same
/// to rounding, with int8 in groups to the noise of that.
#[test]
fn ternary_products_are_those_of_their_floats() {
    let ids = [1, 7, 89, 30, 30, 2];
    let distance = |activations| {
        let model = mixed::model(activations);
        let expected = reference::logits(&mixed::dense(model.clone()), &ids).unwrap();
        let found = reference::logits(&model, &ids).unwrap();
        let square = |x: f32| f64::from(x) * f64::from(x);
        let error: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
        (error / expected.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
    };
    let (floats, int8) = (distance(Activations::F32), distance(Activations::Int8Groups));
    assert!(floats < 1e-6, "{floats}");
    assert!((1e-4..2e-2).contains(&int8), "{int8}");
}
