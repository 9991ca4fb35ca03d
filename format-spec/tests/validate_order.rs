//! One damaged plan for each rule of order: what is written before it is read, and what may not overlap.

mod bundle;

use bundle::*;
use trit_format::container::Header;
use trit_format::plan::*;

#[test]
fn order_and_overlap() {
    refused(&[
        ("body step 1: writes buffer normed over residual", |m| m.plan.buffers[1].offset = 0),
        ("body step 2: writes buffer q8 over normed", |m| m.plan.buffers[2].offset = 64),
        ("body step 2: writes buffer q8 over q8.scale", |m| m.plan.buffers[3].offset = 128),
        ("body step 2: writes buffer q8.scale over q8.sum", |m| m.plan.buffers[4].offset = 192),
        ("body step 3: writes buffer qkv over q8", |m| m.plan.buffers[5].offset = 128),
        ("body step 5: writes buffer attended over qkv", |m| m.plan.buffers[6].offset = 320),
        ("head step 1: writes buffer logits over normed", |m| m.plan.buffers[11].offset = 64),
        ("body step 2: reads buffer normed, which holds nothing then", |m| {
            m.plan.body[1] = Step::Embed { table: EMBEDDING, scale: 1.0, out: RESIDUAL };
        }),
        ("body step 8: reads buffer gated, which holds nothing then", |m| {
            m.plan.body[8] = Step::RmsNorm { input: GATED, weight: FFN_NORM, eps: 1e-5, out: GATED };
        }),
        // QKV stood where GATED was written.
        ("body step 10: reads buffer qkv, which holds nothing then", |m| {
            m.plan.body[10] =
                Step::RopeAppend { qkv: QKV, norms: None, inv_freq: INV_FREQ, scaling: 1.0, layer: 0 };
        }),
        // Only half of what Add reads was written: nothing.
        ("body step 3: reads buffer attended, which holds nothing then", |m| {
            m.plan.body[3] = Step::Ternary {
                matrix: PackedMatrixId(1),
                input: Q,
                epilogue: Epilogue::Add,
                out: ATTENDED,
                at: 0,
            };
        }),
        // Written in the layer before, which need not have run.
        ("body step 13: reads buffer gated, which holds nothing then", |m| {
            m.plan.body[13] = Step::RmsNorm { input: GATED, weight: FFN_NORM, eps: 1e-5, out: GATED };
        }),
        ("body step 13: begins where the residual stream has been overwritten", |m| {
            let mut copy = m.plan.buffers[0].clone();
            copy.name = "copy".into();
            m.plan.buffers.push(copy);
            m.plan.body[12] = Step::Embed { table: EMBEDDING, scale: 1.0, out: BufferId(12) };
        }),
        ("head step 0: begins where the residual stream has been overwritten", |m| {
            let mut copy = m.plan.buffers[0].clone();
            copy.name = "copy".into();
            m.plan.buffers.push(copy);
            m.plan.body[24] = Step::Embed { table: EMBEDDING, scale: 1.0, out: BufferId(12) };
        }),
        ("body step 16: appends to kv layer 0 a second time", |m| {
            m.plan.body[16] =
                Step::RopeAppend { qkv: QKV, norms: None, inv_freq: INV_FREQ, scaling: 1.0, layer: 0 };
        }),
        ("body step 5: attends to kv layer 1 before anything is appended", |m| {
            m.plan.body[5] = Step::Attend { qkv: QKV, layer: 1, scale: 0.5, window: None, out: ATTENDED };
        }),
        ("kv layer 2: nothing is appended to it", |m| m.plan.kv.push(m.plan.kv[0])),
        ("plan: its head does not end by writing the logits", |m| m.plan.head.truncate(1)),
        ("plan: its head does not end by writing the logits", |m| m.plan.head.clear()),
    ]);
}

/// A result of one element could stand in the scale it is computed with: same id, read and written.
#[test]
fn a_result_does_not_stand_in_its_own_scale() {
    let mut m = manifest();
    m.packed_matrices[1].segments[0].rows = 1;
    m.plan.body[7] =
        Step::Ternary { matrix: PackedMatrixId(1), input: Q, epilogue: Epilogue::Add, out: Q.scale, at: 0 };
    let error = m.validate(&Header::parse(&file()).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "body step 7: writes buffer q8.scale over q8.scale");
}
