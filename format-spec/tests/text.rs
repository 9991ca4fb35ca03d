//! The text form of plans.

mod bundle;

use trit_format::plan::{BufferId, PackedMatrixId, Step, TensorId};
use trit_format::text;

#[test]
fn a_small_plan() {
    let mut manifest = bundle::manifest();
    manifest.plan.body.truncate(13);
    manifest.plan.layers.truncate(1);
    assert_eq!(text::plan(&manifest), include_str!("small_plan.txt"));
}

#[test]
fn a_plan_with_groups() {
    let manifest = bundle::grouped();
    let text = text::plan(&manifest);
    let lines: Vec<&str> = text.lines().skip_while(|l| !l.starts_with("layer 1")).collect();
    assert_eq!(
        lines,
        [
            "layer 1",
            "  13  norm_quant residual -> fixed  weight norm[8 f32] eps 1e-5 24 bits of 32",
            "  14  ternary    layers.1.q[8x8 sfix groups of 32, f32 scale a row] fixed -> qkv",
            "  15  linear     kv[8x8 f32] residual -> qkv from 8",
            "  16  rope       qkv -> kv 1  inv_freq[2 f32] scaling 1.0  norms head_norm[4 f32] head_norm[4 f32] eps 1e-5",
            "  17  attend     qkv kv 1 -> attended  scale 0.5 window 3",
            "  18  quantize   attended -> fixed  24 bits of 32",
            "  19  ternary    layers.1.o[8x8 sfix groups of 32, f16 scale a 64] fixed -> added",
            "  20  rms_norm   added +> residual  weight norm[8 f32] eps 1e-5",
            "  21  quantize   residual -> fixed  24 bits of 32",
            "  22  ternary    layers.1.gate[12x8 sfix groups of 32, f16 scale a 64] fixed -> gated",
            "  23  linear     up[12x8 bf16] residual -> up",
            "  24  gate       gated up -> gated  gelu_tanh",
            "  25  quantize   gated -> groups  absmax of 32",
            "  26  ternary    layers.1.down[8x12 sfix groups of 32, f32 scale a row] groups +> residual",
            "head",
            "   0  norm_quant residual -> fixed  weight norm[8 f32] eps 1e-5 24 bits of 32",
            "   1  ternary    embedding[10x8 sfix groups of 32, f16 scale a 64] fixed -> logits",
        ]
    );
    assert!(
        text.contains("   0  embed      embedding[10x8 sfix groups of 32, f16 scale a 64] -> residual\n")
    );
}

#[test]
fn norms_after_rope() {
    let text = text::plan(&bundle::normed_after());
    let line = "  16  rope       qkv -> kv 1  inv_freq[2 f32] scaling 1.0, then norms head_norm[4 f32] head_norm[4 f32] eps 1e-5";
    assert!(text.lines().any(|l| l == line), "{text}");
}

#[test]
fn a_plan_with_states() {
    let manifest = bundle::recurrent::recurrent();
    let text = text::plan(&manifest);
    let lines: Vec<&str> = text.lines().skip_while(|l| *l != "body").take(11).collect();
    assert_eq!(
        lines,
        [
            "body",
            "   0  embed      embedding[10x8 sfix groups of 32, f16 scale a 64] -> residual",
            "   1  unrotate   residual  hadamard 4 signs signs[8 f32]",
            "layer 0",
            "   2  rotate_q   residual -> fixed  weight norm[8 f32] eps 1e-5  hadamard 8 24 bits of 32",
            "   3  ternary    layers.0.in[26x8 sfix groups of 32, f16 scale a row] fixed -> mixed",
            "   4  convolve   convolution[4x14 f32] mixed state 0 -> convolved  silu",
            "   5  delta_rule convolved mixed from 14 state 1 -> ruled  heads 1x3 2x4 rates rates[2 f32] bias bias[2 f32]",
            "   6  gate_norm  ruled mixed from 18 -> ruled  weight head_norm[4 f32] eps 1e-5 sigmoid",
            "   7  rotate_q   ruled -> fixed  hadamard 2 signs signs[8 f32] 24 bits of 32",
            "   8  ternary    layers.0.out[8x8 sfix groups of 32, f16 scale a row] fixed +> residual",
        ]
    );
    assert!(text.contains("  12  rope       qkv -> kv 0  short_freq[1 f32] scaling 1.0  norms "));
    assert!(text.contains("  23  convolve   one_tap[1x8 f32] residual state 2 -> added  relu2\n"));
}

#[test]
fn a_plan_that_was_not_validated() {
    let mut manifest = bundle::manifest();
    manifest.plan.body[1] =
        Step::RmsNorm { input: BufferId(99), weight: TensorId(u32::MAX), eps: f32::NAN, out: BufferId(12) };
    let Step::Ternary { matrix, .. } = &mut manifest.plan.body[3] else { panic!() };
    *matrix = PackedMatrixId(8);
    manifest.plan.layers[1].start = 3;
    manifest.plan.buffers[0].name = "\x1b[2J\n".into();
    let text = text::plan(&manifest);
    for line in [
        "   1  rms_norm   ?99 -> ?12  weight ?4294967295 eps NaN",
        "   3  ternary    ?8 q8 -> qkv",
        "layer 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in:\n{text}");
    }
    assert!(
        !text.contains('\x1b')
            && text.starts_with("arena 576 bytes a row, residual \u{fffd}[2J\u{fffd}, logits logits\n")
    );
}
