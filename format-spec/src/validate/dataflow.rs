//! Checks the order of steps: nothing is read before it is written, and no step writes over what it or a later step
//! reads.

use super::plan::StepName;
use super::{ensure, error};
use crate::FormatError;
use crate::manifest::Manifest;
use crate::plan::{ActivationRule, Buffer, BufferId, Epilogue, PackedMatrixId, Plan, Quantized, Step};

/// What a step touches. A buffer in both lists is changed in place.
struct Access {
    reads: Vec<BufferId>,
    writes: Vec<BufferId>,
}

impl Access {
    fn of(step: &Step) -> Access {
        let (reads, writes) = match *step {
            Step::Embed { out, .. } | Step::EmbedTernary { out, .. } => (vec![], vec![out]),
            Step::RmsNorm { input, out, .. } => (vec![input], vec![out]),
            Step::RmsNormAdd { input, out, .. } => (vec![input, out], vec![out]),
            Step::Linear { input, epilogue, out, .. } => match epilogue {
                Epilogue::Add => (vec![input, out], vec![out]),
                Epilogue::Store | Epilogue::Gate(_) => (vec![input], vec![out]),
            },
            Step::Gate { gate, up, out, .. } => (vec![gate, up], vec![out]),
            Step::Quantize { input, out, .. } | Step::NormQuantize { input, out, .. } => {
                (vec![input], vec![out.values, out.scale, out.sum])
            }
            Step::Ternary { input, epilogue, out, .. } => {
                let mut reads = vec![input.values, input.scale, input.sum];
                match epilogue {
                    Epilogue::Add => reads.push(out),
                    Epilogue::Store | Epilogue::Gate(_) => {}
                }
                (reads, vec![out])
            }
            Step::RopeAppend { qkv, .. } | Step::RopeNormAppend { qkv, .. } => (vec![qkv], vec![qkv]),
            Step::Attend { qkv, out, .. } => (vec![qkv], vec![out]),
            Step::Head { input, out, .. } => (vec![input], vec![out]),
            Step::RotateQuantize { input, out, .. } => (vec![input], vec![out.values, out.scale, out.sum]),
            Step::Unrotate { out, .. } => (vec![out], vec![out]),
            Step::Convolve { input, out, .. } => (vec![input], vec![out]),
            Step::DeltaRule { qkv, gates, out, .. } => (vec![qkv, gates], vec![out]),
            Step::GateNorm { input, gate, out, .. } => (vec![input, gate], vec![out]),
            Step::JoinHidden { input, out, .. } => (vec![input], vec![out]),
        };
        Access { reads, writes }
    }

    /// Whether the step may change that buffer in place.
    fn in_place(step: &Step, id: BufferId) -> bool {
        match *step {
            Step::RmsNorm { out, .. } | Step::Gate { out, .. } | Step::Unrotate { out, .. } => id == out,
            Step::GateNorm { out, gate, .. } => id == out && id != gate,
            Step::RmsNormAdd { input, out, .. }
            | Step::Linear { epilogue: Epilogue::Add, input, out, .. } => id == out && id != input,
            Step::Ternary { epilogue: Epilogue::Add, out, input, .. } => id == out && id != input.scale,
            Step::RopeAppend { qkv, .. } | Step::RopeNormAppend { qkv, .. } => id == qkv,
            Step::Embed { .. }
            | Step::EmbedTernary { .. }
            | Step::Linear { .. }
            | Step::Quantize { .. }
            | Step::NormQuantize { .. }
            | Step::Ternary { .. }
            | Step::Attend { .. }
            | Step::RotateQuantize { .. }
            | Step::Convolve { .. }
            | Step::DeltaRule { .. }
            | Step::JoinHidden { .. }
            | Step::Head { .. } => false,
        }
    }
}

/// With room for `M` rows both ranges scale by `M`, so buffers that are apart for one row are apart for all.
fn overlap(a: &Buffer, b: &Buffer) -> bool {
    a.offset < b.offset + b.stride && b.offset < a.offset + a.stride
}

/// Every id has been checked to be in range.
pub(super) fn validate(manifest: &Manifest) -> Result<(), FormatError> {
    let plan = &manifest.plan;
    let mut flow = Flow {
        manifest,
        plan,
        overlapping: (plan.buffers.iter())
            .map(|a| (0..plan.buffers.len()).filter(|&b| overlap(a, &plan.buffers[b])).collect())
            .collect(),
        written: vec![0; plan.buffers.len()],
        writer: vec![0; plan.buffers.len()],
        steps: 0,
        rules: vec![None; plan.buffers.len()],
        appended: vec![false; plan.kv.len()],
    };
    let mut starts = plan.layers.iter().map(|l| l.start as usize).peekable();
    for (index, step) in plan.body.iter().enumerate() {
        if starts.next_if_eq(&index).is_some() {
            flow.boundary(&StepName { list: "body", index })?;
        }
        flow.step(&StepName { list: "body", index }, step)?;
    }
    if let Some(layer) = flow.appended.iter().position(|appended| !appended) {
        return Err(error(format!("kv layer {layer}"), "nothing is appended to it"));
    }
    flow.boundary(&StepName { list: "head", index: 0 })?;
    for (index, step) in plan.head.iter().enumerate() {
        flow.step(&StepName { list: "head", index }, step)?;
    }
    let last = plan.head.last().is_some_and(|step| Access::of(step).writes == [plan.logits]);
    let logits = plan.logits.0 as usize;
    ensure(
        last && flow.written[logits] == plan.buffers[logits].len,
        "plan",
        || "its head does not end by writing the logits",
    )
}

struct Flow<'a> {
    manifest: &'a Manifest,
    plan: &'a Plan,
    /// For each buffer, the buffers that share bytes with it. It is among them itself.
    overlapping: Vec<Vec<usize>>,
    /// For each buffer, how many of its first elements hold what steps wrote.
    written: Vec<u32>,
    /// For each buffer, the number of the step that wrote it last, counted from 1.
    writer: Vec<usize>,
    steps: usize,
    /// For each buffer of quantized values, how its values were quantized.
    rules: Vec<Option<ActivationRule>>,
    /// By KV layer.
    appended: Vec<bool>,
}

impl Flow<'_> {
    fn buffer(&self, id: BufferId) -> &Buffer {
        &self.plan.buffers[id.0 as usize]
    }

    /// The elements of its output that a step writes, where it may leave some out: the first, and one past the last. A
    /// step that adds to a buffer found it whole, so it stays whole.
    fn part(&self, step: &Step) -> Option<(u32, u32)> {
        let (epilogue, at, len) = match *step {
            Step::Ternary { matrix, epilogue, at, .. } => {
                let rows = self.manifest.packed_matrices[matrix.0 as usize].rows();
                (epilogue, at, if matches!(epilogue, Epilogue::Gate(_)) { rows / 2 } else { rows })
            }
            Step::Linear { table, epilogue, at, .. } => {
                (epilogue, at, self.manifest.tensors[table.0 as usize].shape[0])
            }
            _ => return None,
        };
        // Shapes have been checked: the end is inside the buffer.
        (epilogue != Epilogue::Add).then(|| (at, at + len as u32))
    }

    /// Every layer starts from the residual stream alone, so that it can be run alone. The head does too.
    fn boundary(&mut self, next: &StepName) -> Result<(), FormatError> {
        let residual = self.plan.residual.0 as usize;
        let whole = self.plan.buffers[residual].len;
        ensure(
            self.written[residual] == whole,
            next,
            || "begins where the residual stream has been overwritten",
        )?;
        self.written.fill(0);
        self.written[residual] = whole;
        Ok(())
    }

    /// A packed matrix's input is what one step quantized, by groups as wide as the matrix's. Lengths alone do not
    /// tell: those of a single group fit several.
    fn input(&self, record: &StepName, matrix: PackedMatrixId, input: Quantized) -> Result<(), FormatError> {
        let writer = |id: BufferId| self.writer[id.0 as usize];
        let one = [input.scale, input.sum].iter().all(|&id| writer(id) == writer(input.values));
        ensure(one, record, || "the parts of its input were not written by one step")?;
        let wanted = self.manifest.packed_matrices[matrix.0 as usize].grouping.map(|g| g.columns);
        let found = self.rules[input.values.0 as usize].and_then(ActivationRule::columns);
        let groups = |columns: Option<u32>| match columns {
            None => "as a whole".to_owned(),
            Some(columns) => format!("in groups of {columns} columns"),
        };
        ensure(found == wanted, record, || {
            format!("its input was quantized {}, its product is {}", groups(found), groups(wanted))
        })
    }

    fn step(&mut self, record: &StepName, step: &Step) -> Result<(), FormatError> {
        self.steps += 1;
        let Access { reads, writes } = Access::of(step);
        for (i, &write) in writes.iter().enumerate() {
            for &other in reads.iter().chain(&writes[i + 1..]) {
                let same = other == write && Access::in_place(step, write);
                ensure(same || !overlap(self.buffer(write), self.buffer(other)), record, || {
                    format!("writes buffer {} over {}", self.buffer(write).name, self.buffer(other).name)
                })?;
            }
        }
        for &read in &reads {
            let (found, whole) = (self.written[read.0 as usize], self.buffer(read).len);
            ensure(found == whole, record, || {
                let name = &self.buffer(read).name;
                match found {
                    0 => format!("reads buffer {name}, which holds nothing then"),
                    _ => {
                        format!("reads buffer {name}, of which only {found} of {whole} elements are written")
                    }
                }
            })?;
        }
        if let Step::Ternary { matrix, input, .. } = *step {
            self.input(record, matrix, input)?;
        }
        for write in writes {
            let from = self.written[write.0 as usize];
            for &other in &self.overlapping[write.0 as usize] {
                self.written[other] = 0;
            }
            let (at, end) = self.part(step).unwrap_or((0, self.buffer(write).len));
            ensure(at == 0 || at == from, record, || {
                let name = &self.buffer(write).name;
                format!("writes buffer {name} from {at} on, where {from} elements are written")
            })?;
            self.written[write.0 as usize] = end;
            self.writer[write.0 as usize] = self.steps;
        }
        match *step {
            Step::Quantize { rule, out, .. }
            | Step::NormQuantize { rule, out, .. }
            | Step::RotateQuantize { rule, out, .. } => {
                self.rules[out.values.0 as usize] = Some(rule);
                Ok(())
            }
            Step::RopeAppend { layer, .. } | Step::RopeNormAppend { layer, .. } => {
                let before = std::mem::replace(&mut self.appended[layer as usize], true);
                ensure(!before, record, || format!("appends to kv layer {layer} a second time"))
            }
            Step::Attend { layer, .. } => ensure(self.appended[layer as usize], record, || {
                format!("attends to kv layer {layer} before anything is appended")
            }),
            _ => Ok(()),
        }
    }
}
