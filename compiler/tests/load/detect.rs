//! Floats that are ternary without saying so, and those that are not.

use crate::checkpoint::{Checkpoint, bf16s, f32s, refusal, says, ternary, trits};
use half::f16;
use safetensors::Dtype;
use serde_json::json;
use trit_format::plan::{DType, ScaleRule};
use tritc::load::{LoadOptions, Quantize, load};
use tritc::model::{Activations, Found, Matrix, Scales};

const FFN: usize = 160;
const DOWN: &str = "model.layers.1.mlp.down_proj.weight";

/// A Llama of floats that declares nothing; `down` of `[8, FFN]` is what the tests bend.
fn undeclared() -> Checkpoint {
    let mut checkpoint = Checkpoint::llama();
    checkpoint.unset("quantization_config").set("intermediate_size", json!(FFN));
    checkpoint.each_matrix(|checkpoint, weight, rows, k| {
        checkpoint.tensors.remove(&format!("{weight}_scale"));
        let [rows, k] = [rows, k].map(|n| if n == 12 { FFN } else { n });
        checkpoint.floats(
            weight,
            &[rows, k],
            trits(weight, rows * k).into_iter().map(|t| 0.5 * f32::from(t)),
        );
    });
    checkpoint
}

/// `down` with a scale for each `columns` of a row, as floats.
fn scaled(columns: usize) -> Vec<f32> {
    let scale = |at: usize| 0.25 * (1 + at / FFN + at % FFN / columns) as f32;
    trits(DOWN, 8 * FFN).into_iter().enumerate().map(|(at, t)| f32::from(t) * scale(at)).collect()
}

#[test]
fn ternary_floats_are_found_in_every_type_and_grouping() {
    let groupings =
        [(FFN, 0, Found::PerRow), (128, 128, Found::PerColumns(128)), (64, 64, Found::PerColumns(64))];
    for (columns, expected, found) in groupings {
        let values = scaled(columns);
        let f16s = values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        let forms = [
            // The scales need no f32.
            (Dtype::F32, DType::F16, f32s(values.iter().copied())),
            (Dtype::F16, DType::F16, f16s),
            (Dtype::BF16, DType::Bf16, bf16s(values.iter().copied())),
        ];
        for (stored, dtype, bytes) in forms {
            let mut checkpoint = undeclared();
            checkpoint.tensors.insert(DOWN.to_owned(), (stored, vec![8, FFN], bytes));
            let model = checkpoint.load().unwrap();
            assert_eq!(model.activations, Activations::Int8Groups);
            let down = ternary(&model.layers[1].down);
            assert_eq!(down.scales, Scales::Rows { columns: expected, dtype });
            let mut scales = vec![0.0; FFN.div_ceil(columns)];
            down.factors(7, expected, &mut scales).unwrap();
            assert_eq!(scales[0], 2.0);
            let mut row = vec![0; FFN];
            down.trits.read_row(7, &mut row).unwrap();
            assert_eq!(row, trits(DOWN, 8 * FFN)[7 * FFN..]);
            let report = model.report.iter().find(|t| t.name == DOWN).unwrap();
            assert_eq!((report.found, report.shape.as_slice()), (found, &[8, FFN][..]));
            assert_eq!(report.scales, Some(7 + FFN.div_ceil(columns) as u64));
        }
    }
}

#[test]
fn one_scale_is_the_tensors_and_tables_may_be_floats() {
    let mut checkpoint = undeclared();
    checkpoint.floats("lm_head.weight", &[16, 8], trits("head", 128).into_iter().map(|t| 1.5 * f32::from(t)));
    checkpoint.floats(DOWN, &[8, FFN], vec![-0.0; 8 * FFN]);
    let model = checkpoint.load().unwrap();
    let one = |scale| Scales::Tensor { scale, rule: ScaleRule::Multiply };
    assert_eq!(ternary(&model.layers[0].attention().unwrap().q).scales, one(0.5));
    // All zeros: any scale will do.
    assert_eq!(ternary(&model.layers[1].down).scales, one(1.0));
    assert!(matches!(&model.head, Some(Matrix::Ternary(head)) if head.scales == one(1.5)));
    assert!(matches!(model.embedding, Matrix::Dense(_)));
    let found = |name: &str| model.report.iter().find(|t| t.name == name).unwrap().found;
    assert_eq!(found("model.embed_tokens.weight"), Found::Floats);
    assert_eq!((found("lm_head.weight"), found(DOWN)), (Found::PerTensor, Found::PerTensor));
}

#[test]
fn floats_that_are_not_ternary_are_refused() {
    let mut values = scaled(FFN);
    let at = 5 * FFN + 70;
    values[at] = 77.0;
    let mut checkpoint = undeclared();
    checkpoint.floats(DOWN, &[8, FFN], values);
    let error = checkpoint.error();
    says(&error, &["[3]", DOWN, "is not ternary: row 5", "1.5", "77 (column 70)", "256, 128, 64 or 32"]);
    says(&error, &["quantization_config", "autobitlinear", "--quantize absmean"]);
}

#[test]
fn groups_of_48_columns_are_refused() {
    let mut checkpoint = undeclared();
    checkpoint.floats(DOWN, &[8, FFN], scaled(48));
    let parts = ["[3]", DOWN, "is not ternary: row 0", "0.25 (column 32)", "0.5 (column 4", "32 columns"];
    says(&checkpoint.error(), &parts);
}

#[test]
fn numbers_that_are_none_are_refused() {
    for (odd, shown) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        for name in [DOWN, "model.embed_tokens.weight"] {
            let mut checkpoint = undeclared();
            let shape = checkpoint.tensors[name].1.clone();
            let mut values = vec![0.25; shape[0] * shape[1]];
            values[shape[1] + 3] = odd;
            checkpoint.floats(name, &shape, values);
            says(
                &checkpoint.error(),
                &["[3]", name, &format!("{shown} at row 1, column 3"), "not a finite number"],
            );
        }
    }
}

#[test]
fn packed_weights_need_a_declaration() {
    let mut checkpoint = Checkpoint::llama();
    checkpoint.unset("quantization_config");
    says(&checkpoint.error(), &["[3]", "is packed U8", "quantization_config"]);
}

#[test]
fn absmean_rounds_on_demand_only() {
    let mut checkpoint = undeclared();
    checkpoint.floats(DOWN, &[8, FFN], crate::checkpoint::noise(3, 8 * FFN));
    says(&checkpoint.error(), &["is not ternary"]);
    let options = LoadOptions { quantize: Some(Quantize::Absmean), ..LoadOptions::default() };
    let model = load(checkpoint.write().path(), &options).unwrap();
    assert_eq!(model.activations, Activations::PerToken { floor: 1e-5 });
    assert!(matches!(ternary(&model.layers[1].down).scales, Scales::Tensor { rule: ScaleRule::Divide, .. }));
    assert_eq!(model.report.iter().filter(|t| t.found == Found::Latent).count(), 14);
    let declared = refusal(load(Checkpoint::llama().write().path(), &options));
    says(&declared, &["[2]", "--quantize absmean", "declares ternary ones"]);
}

/// `down` with a scale for each 128 columns, whose row 3 has one weight 1% above its scale and one near zero.
fn nearly_ternary() -> Checkpoint {
    let mut values = scaled(128);
    let row = &mut values[3 * FFN..4 * FFN];
    let scale = 1.0;
    let [above, zero] = [1.0, 0.0].map(|m| row[..128].iter().position(|x| x.abs() == m * scale).unwrap());
    row[above] *= 1.01;
    row[zero] = -0.005;
    let mut checkpoint = undeclared();
    checkpoint.tensors.insert(DOWN.to_owned(), (Dtype::F32, vec![8, FFN], f32s(values)));
    checkpoint
}

fn with_tolerance(tolerance: f32) -> LoadOptions {
    LoadOptions { tolerance: Some(tolerance), ..LoadOptions::default() }
}

#[test]
fn floats_that_are_ternary_within_rounding_need_a_tolerance() {
    let dir = nearly_ternary().write();
    let message = refusal(load(dir.path(), &LoadOptions::default()));
    says(&message, &["[3]", DOWN, "1 of 16 groups", "1.00%", "row 3, column 0", "--tolerance 0.01"]);
    let message = refusal(load(dir.path(), &with_tolerance(0.009)));
    says(&message, &["[3]", DOWN, "1 of 16 groups"]);
    for tolerance in [0.0, -0.1, 0.2, f32::NAN, f32::INFINITY] {
        says(&refusal(load(dir.path(), &with_tolerance(tolerance))), &["[2]", "--tolerance", "up to 0.1"]);
    }

    let model = load(dir.path(), &with_tolerance(0.02)).unwrap();
    let down = ternary(&model.layers[1].down);
    assert_eq!(down.scales, Scales::Rows { columns: 128, dtype: DType::F32 });
    for row in 0..8 {
        let (mut trits_of_row, mut scales) = (vec![0; FFN], [0.0; 2]);
        down.trits.read_row(row, &mut trits_of_row).unwrap();
        down.factors(row, 128, &mut scales).unwrap();
        assert_eq!(trits_of_row, trits(DOWN, 8 * FFN)[row * FFN..][..FFN], "row {row}");
        assert_eq!(scales, [0.25 * (1 + row) as f32, 0.25 * (2 + row) as f32]);
    }
    assert_eq!(model.info.architecture, "LlamaForCausalLM, weights rounded within the tolerance 0.02");
    let report = model.report.iter().find(|report| report.name == DOWN).unwrap();
    assert_eq!(
        report.rounded.map(|rounded| (rounded.groups, rounded.of, rounded.first)),
        Some((1, 16, (3, 0)))
    );
    let warnings = crate::warned(&model.warnings);
    says(&warnings, &["1 groups of weights in 1 matrices", "1.00%", DOWN, "row 3, column 0"]);
    let survey = tritc::load::survey(dir.path(), &with_tolerance(0.02));
    let described = tritc::inspect::survey::describe(&survey, crate::words::warning);
    says(&described, &["within the tolerance 0.02", "1 groups rounded"]);
}

#[test]
fn a_tolerance_changes_nothing_where_weights_are_ternary() {
    let mut checkpoint = undeclared();
    checkpoint.tensors.insert(DOWN.to_owned(), (Dtype::F32, vec![8, FFN], f32s(scaled(128))));
    let dir = checkpoint.write();
    let model = load(dir.path(), &with_tolerance(0.02)).unwrap();
    assert_eq!(model.info.architecture, "LlamaForCausalLM");
    assert!(model.report.iter().all(|report| report.rounded.is_none()));
    assert!(!crate::warned(&model.warnings).contains("tolerance"));
    // Latent weights are no ternary ones within rounding, whatever is tolerated.
    checkpoint
        .tensors
        .insert(DOWN.to_owned(), (Dtype::F32, vec![8, FFN], f32s(crate::checkpoint::noise(5, 8 * FFN))));
    let message = refusal(load(checkpoint.write().path(), &with_tolerance(0.1)));
    says(&message, &["is not ternary", "--quantize absmean"]);
}
