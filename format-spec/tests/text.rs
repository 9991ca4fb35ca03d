//! The text form of plans.

mod bundle;

use trit_format::plan::{BufferId, ProductId, Step, TensorId};
use trit_format::text;

#[test]
fn a_small_plan() {
    let mut manifest = bundle::manifest();
    manifest.plan.body.truncate(13);
    manifest.plan.layers.truncate(1);
    assert_eq!(text::plan(&manifest), include_str!("small_plan.txt"));
}

#[test]
fn a_plan_that_was_not_validated() {
    let mut manifest = bundle::manifest();
    manifest.plan.body[1] =
        Step::RmsNorm { input: BufferId(99), weight: TensorId(u32::MAX), eps: f32::NAN, out: BufferId(12) };
    let Step::Ternary { product, .. } = &mut manifest.plan.body[3] else { panic!() };
    *product = ProductId(8);
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
