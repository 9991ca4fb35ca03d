//! Places buffers in the arena. Buffers that are never needed at the same time share their place.

use trit_format::plan::{Buffer, BufferId, Epilogue, Quantized, Step};

/// Sets the offset of every buffer, and gives the bytes of arena a row needs.
///
/// The residual stream is kept apart from everything, and the logits stay until the end.
pub(super) fn place(
    buffers: &mut [Buffer],
    body: &[Step],
    head: &[Step],
    residual: BufferId,
    logits: BufferId,
) -> u64 {
    let apart = conflicts(buffers.len(), body.iter().chain(head), residual, logits);
    let size = |b: &Buffer| b.stride.next_multiple_of(super::ALIGNMENT);
    // The largest are placed first, because small ones fit the gaps. The residual stream stands at the start, where
    // people look for it.
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&b| (b != residual.0 as usize, std::cmp::Reverse(size(&buffers[b])), b));
    let mut placed: Vec<usize> = Vec::with_capacity(buffers.len());
    for &b in &order {
        let mut taken: Vec<(u64, u64)> = placed
            .iter()
            .filter(|&&other| apart[b][other])
            .map(|&other| (buffers[other].offset, buffers[other].offset + size(&buffers[other])))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + size(&buffers[b]) <= start {
                break;
            }
            offset = offset.max(end);
        }
        buffers[b].offset = offset;
        placed.push(b);
    }
    buffers.iter().map(|b| b.offset + size(b)).max().unwrap_or(0)
}

/// Which buffers must not overlap: those needed at the same time, and those of one step.
fn conflicts<'s>(
    buffers: usize,
    steps: impl DoubleEndedIterator<Item = &'s Step>,
    residual: BufferId,
    logits: BufferId,
) -> Vec<Vec<bool>> {
    let mut apart = vec![vec![false; buffers]; buffers];
    let mut live = vec![false; buffers];
    for id in [residual, logits] {
        live[id.0 as usize] = true;
    }
    for step in steps.rev() {
        let Operands { reads, writes } = operands(step);
        // A buffer that a step writes needs a place even if nobody reads it.
        let mut together = live.clone();
        reads.iter().chain(&writes).for_each(|id| together[id.0 as usize] = true);
        for a in 0..buffers {
            for b in 0..buffers {
                apart[a][b] |= a != b && together[a] && together[b];
            }
        }
        writes.iter().filter(|&&id| id != residual).for_each(|id| live[id.0 as usize] = false);
        reads.iter().for_each(|id| live[id.0 as usize] = true);
    }
    apart
}

/// Whether a product needs what its output holds before: because it adds to it, or because it fills only a part of
/// it.
fn kept(epilogue: Epilogue, at: u32) -> bool {
    epilogue == Epilogue::Add || at > 0
}

/// The buffers a step reads, and those it writes from end to end.
struct Operands {
    reads: Vec<BufferId>,
    writes: Vec<BufferId>,
}

fn operands(step: &Step) -> Operands {
    let all = |q: Quantized| vec![q.values, q.scale, q.sum];
    let (reads, writes) = match *step {
        Step::Embed { out, .. } | Step::EmbedTernary { out, .. } => (vec![], vec![out]),
        Step::RmsNorm { input, out, .. } | Step::Head { input, out, .. } => (vec![input], vec![out]),
        Step::Quantize { input, out, .. } | Step::NormQuantize { input, out, .. } => (vec![input], all(out)),
        Step::RmsNormAdd { input, out, .. } => (vec![input, out], vec![out]),
        Step::Ternary { input, epilogue, out, at, .. } => {
            let mut reads = all(input);
            reads.extend(kept(epilogue, at).then_some(out));
            (reads, vec![out])
        }
        Step::Linear { input, epilogue, out, at, .. } => {
            let mut reads = vec![input];
            reads.extend(kept(epilogue, at).then_some(out));
            (reads, vec![out])
        }
        Step::Gate { gate, up, out, .. } => (vec![gate, up], vec![out]),
        Step::RopeAppend { qkv, .. } | Step::RopeNormAppend { qkv, .. } => (vec![qkv], vec![qkv]),
        Step::RotateQuantize { input, out, .. } => (vec![input], all(out)),
        Step::Unrotate { out, .. } => (vec![out], vec![out]),
        Step::Convolve { input, out, .. } => (vec![input], vec![out]),
        Step::DeltaRule { qkv, gates, out, .. } => (vec![qkv, gates], vec![out]),
        Step::GateNorm { input, gate, out, .. } => (vec![input, gate], vec![out]),
        Step::Attend { qkv, out, .. } => (vec![qkv], vec![out]),
        Step::JoinHidden { input, out, .. } => (vec![input], vec![out]),
        ref other => unreachable!("lowering makes no {other:?}"),
    };
    Operands { reads, writes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trit_format::plan::{DType, TensorId};

    fn buffer(name: &str, len: u32) -> Buffer {
        let stride = (u64::from(len) * 4).next_multiple_of(64);
        Buffer { name: name.into(), dtype: DType::F32, len, offset: u64::MAX, stride }
    }

    #[test]
    fn only_buffers_that_are_never_needed_together_share_a_place() {
        let names = [("h", 16), ("a", 32), ("b", 16), ("logits", 100)];
        let mut buffers: Vec<Buffer> = names.map(|(name, len)| buffer(name, len)).into();
        let [h, a, b, logits] = [0, 1, 2, 3].map(BufferId);
        let norm = |input, out| Step::RmsNorm { input, weight: TensorId(0), eps: 0.0, out };
        let body =
            [Step::Embed { table: TensorId(0), scale: 1.0, out: h }, norm(h, a), norm(a, b), norm(b, h)];
        let head = [Step::Head { input: h, table: TensorId(0), planes: None, out: logits }];
        let row_bytes = place(&mut buffers, &body, &head, h, logits);
        let offsets: Vec<u64> = buffers.iter().map(|b| b.offset).collect();
        // h alone at 0; the logits behind it; a and b apart from each other, but in the logits' place.
        assert_eq!(offsets, [0, 64, 192, 64]);
        assert_eq!(row_bytes, 64 + 448);
    }
}
