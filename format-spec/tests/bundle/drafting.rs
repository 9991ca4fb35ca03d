//! The small bundle with a block that drafts tokens.

use super::*;

pub const JOINED: BufferId = BufferId(12);
pub const JOIN: TensorId = TensorId(6);

/// The small bundle's manifest with the matrix that joins, and a plan of its first layer behind it.
pub fn drafting() -> (Manifest, Plan) {
    let mut m = manifest();
    m.tensors.push(Tensor { name: "join".into(), dtype: DType::F32, shape: vec![8, 16], offset: 640 });
    let mut plan = m.plan.clone();
    let offset = plan.row_bytes;
    plan.buffers.push(Buffer { name: "joined".into(), dtype: DType::F32, len: 16, offset, stride: 64 });
    plan.row_bytes += 64;
    plan.kv.truncate(1);
    plan.body.truncate(1 + LAYER_STEPS);
    let join =
        Step::JoinHidden { input: RESIDUAL, input_norm: NORM, hidden_norm: NORM, eps: 1e-5, out: JOINED };
    let linear = Step::Linear { table: JOIN, input: JOINED, epilogue: Epilogue::Store, out: RESIDUAL, at: 0 };
    plan.body.splice(1..1, [join, linear]);
    plan.layers = vec![LayerSteps { start: 1, end: plan.body.len() as u32 }];
    (m, plan)
}
