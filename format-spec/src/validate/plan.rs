//! Buffers, KV layers and the types and shapes of every step.

use super::{Role, ensure, error, positive};
use crate::FormatError;
use crate::kernel::{GROUP_COLUMNS, MAX_DIGIT_COLUMNS};
use crate::manifest::{Manifest, PackedMatrix, RowOrder, Tensor};
use crate::plan::{
    Activation, ActivationRule, Buffer, BufferId, DType, DeltaHeads, Epilogue, HeadNorms, InputNorm, KvLayer,
    PackedMatrixId, Plan, Quantized, Rotation, Step, TensorId,
};
use std::collections::BTreeSet;
use std::fmt::Display;

/// Most buffers. The checks of overlap look at every pair.
pub(super) const MAX_BUFFERS: usize = 1024;
/// Largest arena row in bytes: 32 times the logits of a vocabulary of 512 Ki.
const MAX_ROW_BYTES: u64 = 64 << 20;
/// Alignment of buffers in bytes.
const ALIGNMENT: u64 = 64;
/// Largest head in elements, four times the largest known.
const MAX_HEAD_DIM: u32 = 1024;
/// Most elements all KV layers hold for one position: 12 times those of 80 layers with 64 heads of 128.
const MAX_KV_ELEMENTS: u64 = 1 << 24;
/// Most elements all states of a sequence hold: 16 GiB of f32, a hundred times those of the largest known.
const MAX_STATE_ELEMENTS: u64 = 1 << 32;
/// Most taps of a convolution. Models have 4.
const MAX_TAPS: u64 = 64;
/// Most heads of a delta rule. Models have 48.
const MAX_DELTA_HEADS: u32 = 1 << 12;
/// Most elements that a rotation transforms together.
const MAX_ROTATED: u32 = 1 << 16;
/// Most RoPE tables: a runtime tabulates each over the whole context.
const MAX_ROPE_TABLES: usize = 8;

pub(super) fn validate(manifest: &Manifest, role: Role) -> Result<(), FormatError> {
    let plan = &manifest.plan;
    ensure(plan.row_bytes <= MAX_ROW_BYTES && plan.row_bytes.is_multiple_of(ALIGNMENT), "plan", || {
        format!("row_bytes is {}, no multiple of {ALIGNMENT} up to {MAX_ROW_BYTES}", plan.row_bytes)
    })?;
    for buffer in &plan.buffers {
        self::buffer_place(buffer, plan.row_bytes)?;
    }
    kv(plan)?;
    let h = &manifest.hyperparameters;
    f32s(plan, "plan", "residual", plan.residual, h.hidden_dim.into())?;
    f32s(plan, "plan", "logits", plan.logits, h.vocab_size.into())?;
    layers(plan, h.n_layers)?;
    states(manifest)?;
    let first = matches!(
        plan.body.first(),
        Some(Step::Embed { out, .. } | Step::EmbedTernary { out, .. }) if *out == plan.residual
    );
    ensure(first, "plan", || "body does not begin with an embedding into the residual stream")?;

    let joins = |steps: &[Step]| steps.iter().filter(|s| matches!(s, Step::JoinHidden { .. })).count();
    let (wanted, found) = (usize::from(role == Role::Draft), joins(&plan.body));
    ensure(found == wanted, "plan", || {
        format!("joins {found} hidden states to its rows; the plan of a model none, and that of a draft one")
    })?;
    let mut tables = BTreeSet::new();
    for (list, steps) in [("body", &plan.body), ("head", &plan.head)] {
        for (index, step) in steps.iter().enumerate() {
            let record = StepName { list, index };
            self::step(manifest, &record, step)?;
            if list == "head"
                && matches!(
                    step,
                    Step::Embed { .. }
                        | Step::EmbedTernary { .. }
                        | Step::Unrotate { .. }
                        | Step::RopeAppend { .. }
                        | Step::RopeNormAppend { .. }
                        | Step::Attend { .. }
                        | Step::Convolve { .. }
                        | Step::DeltaRule { .. }
                        | Step::JoinHidden { .. }
                )
            {
                return Err(error(
                    record,
                    "stands in the head, which runs only for some rows; it belongs in the body",
                ));
            }
            let recurrent = matches!(step, Step::Convolve { .. } | Step::DeltaRule { .. });
            ensure(role == Role::Model || !recurrent, &record, || "keeps a state, which no draft may")?;
            let last = list == "head" && index + 1 == steps.len();
            ensure(
                last || !matches!(step, Step::Head { .. }),
                &record,
                || "is a head, which only ends the head: readers may find its largest results alone",
            )?;
            if let Step::RopeAppend { inv_freq, scaling, .. }
            | Step::RopeNormAppend { inv_freq, scaling, .. } = step
            {
                tables.insert((inv_freq.0, scaling.to_bits()));
            }
        }
    }
    ensure(tables.len() <= MAX_ROPE_TABLES, "plan", || {
        format!("uses {} tables of RoPE frequencies; {MAX_ROPE_TABLES} are possible", tables.len())
    })
}

/// Names a step in a message. It is formatted only when there is a message.
pub(super) struct StepName {
    pub list: &'static str,
    pub index: usize,
}

impl Display for StepName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} step {}", self.list, self.index)
    }
}

fn buffer_place(buffer: &Buffer, row_bytes: u64) -> Result<(), FormatError> {
    let record = || format!("buffer {}", buffer.name);
    ensure(buffer.len > 0, record(), || "is empty")?;
    let whole = !matches!(buffer.dtype, DType::I8Blocks { .. });
    ensure(whole, record(), || format!("is of {:?}, which only tables are", buffer.dtype))?;
    ensure(buffer.offset.is_multiple_of(ALIGNMENT), record(), || {
        format!("its offset {} is no multiple of {ALIGNMENT}", buffer.offset)
    })?;
    let bytes = u64::from(buffer.len) * buffer.dtype.size() as u64;
    let fits = match (buffer.len, buffer.dtype.size()) {
        (1, 4) => buffer.stride == 4,
        _ => buffer.stride >= bytes && buffer.stride.is_multiple_of(ALIGNMENT),
    };
    ensure(fits, record(), || format!("its stride {} does not suit rows of {bytes} bytes", buffer.stride))?;
    let inside = buffer.offset.checked_add(buffer.stride).is_some_and(|end| end <= row_bytes);
    ensure(inside, record(), || {
        format!("{} bytes at {} reach past row_bytes, {row_bytes}", buffer.stride, buffer.offset)
    })
}

fn kv(plan: &Plan) -> Result<(), FormatError> {
    let mut elements = 0;
    for (index, &KvLayer { n_heads, n_kv_heads, head_dim }) in plan.kv.iter().enumerate() {
        let record = format!("kv layer {index}");
        ensure(n_heads > 0 && n_kv_heads > 0 && n_heads.is_multiple_of(n_kv_heads), &record, || {
            format!("{n_heads} query heads cannot share {n_kv_heads} key and value heads evenly")
        })?;
        ensure((2..=MAX_HEAD_DIM).contains(&head_dim) && head_dim.is_multiple_of(2), &record, || {
            format!("head_dim is {head_dim}, not even in 2..={MAX_HEAD_DIM}")
        })?;
        // At most 2^16 layers of 2^43 elements: no overflow.
        elements += 2 * u64::from(n_kv_heads) * u64::from(head_dim);
    }
    ensure(elements <= MAX_KV_ELEMENTS, "plan", || {
        format!("caches {elements} elements a position; {MAX_KV_ELEMENTS} are possible")
    })
}

fn layers(plan: &Plan, n_layers: u32) -> Result<(), FormatError> {
    let found = plan.layers.len();
    ensure(found == n_layers as usize, "plan", || {
        format!("has {found} layers, hyperparameters say {n_layers}")
    })?;
    // A rotated embedding is taken back before the first layer.
    let embedding = plan.body.iter().skip(1).take_while(|step| matches!(step, Step::Unrotate { .. })).count();
    let mut next = 1 + embedding as u32;
    for (index, layer) in plan.layers.iter().enumerate() {
        ensure(layer.start == next && layer.end > next, format!("layer {index}"), || {
            format!("is steps {}..{}, expected some from {next} on", layer.start, layer.end)
        })?;
        next = layer.end;
    }
    ensure(next as usize == plan.body.len(), "plan", || {
        format!("its layers end at step {next}, its body at {}", plan.body.len())
    })
}

fn step(manifest: &Manifest, record: &StepName, step: &Step) -> Result<(), FormatError> {
    let plan = &manifest.plan;
    let vocab = u64::from(manifest.hyperparameters.vocab_size);
    let f32s = |field, id, len| f32s(plan, record, field, id, len);
    let part = |field, id, at, len| part(plan, record, field, id, at, len);
    match *step {
        Step::Embed { table, scale, out } => {
            let [rows, hidden] = self::table(manifest, record, table)?;
            ensure(rows == vocab, record, || {
                format!("its table has {rows} rows for a vocabulary of {vocab}")
            })?;
            positive(record, "scale", scale)?;
            f32s("out", out, hidden)
        }
        Step::EmbedTernary { matrix, out } => {
            let matrix = self::matrix(manifest, record, matrix)?;
            ensure(matrix.grouping.is_some() && matrix.order == RowOrder::Sequential, record, || {
                format!("its product {} is not of grouped rows in sequence", matrix.name)
            })?;
            ensure(matrix.rows() == vocab, record, || {
                format!("its product has {} rows for a vocabulary of {vocab}", matrix.rows())
            })?;
            f32s("out", out, matrix.k.into())
        }
        Step::RmsNorm { input, weight, eps, out } | Step::RmsNormAdd { input, weight, eps, out } => {
            let len = len(plan, record, input)?;
            vector(record, "weight", tensor(manifest, record, weight)?, len)?;
            positive(record, "eps", eps)?;
            f32s("input", input, len)?;
            f32s("out", out, len)
        }
        Step::Quantize { input, rule, out } => {
            let len = len(plan, record, input)?;
            f32s("input", input, len)?;
            quantized_by(plan, record, rule, out, len)
        }
        Step::NormQuantize { input, weight, eps, rule, out } => {
            positive(record, "eps", eps)?;
            let len = len(plan, record, input)?;
            vector(record, "weight", tensor(manifest, record, weight)?, len)?;
            f32s("input", input, len)?;
            quantized_by(plan, record, rule, out, len)
        }
        Step::Ternary { matrix, input, epilogue, out, at } => {
            let matrix = self::matrix(manifest, record, matrix)?;
            match matrix.grouping {
                None => quantized(plan, record, input, matrix.k.into())?,
                Some(grouping) => {
                    let values = len(plan, record, input.values)?;
                    let digits = if values > digit_len(matrix.k, grouping.columns) { 3 } else { 1 };
                    grouped(plan, record, input, matrix.k, grouping.columns, digits)?;
                }
            }
            part("out", out, at, results(record, matrix, epilogue)?)
        }
        Step::Linear { table, input, epilogue, out, at } => {
            let [rows, columns] = self::table(manifest, record, table)?;
            let plain = matches!(epilogue, Epilogue::Store | Epilogue::Add);
            ensure(plain, record, || "gates a product that is not ternary")?;
            f32s("input", input, columns)?;
            part("out", out, at, rows)
        }
        Step::Gate {
            gate,
            up,
            activation: Activation::Relu2 | Activation::Silu | Activation::GeluTanh | Activation::Sigmoid,
            out,
        } => {
            let len = len(plan, record, gate)?;
            f32s("gate", gate, len)?;
            f32s("up", up, len)?;
            f32s("out", out, len)
        }
        Step::RopeAppend { qkv, norms, inv_freq, scaling, layer } => {
            self::append(manifest, record, (qkv, layer), norms, (inv_freq, scaling))
        }
        Step::RopeNormAppend { qkv, norms, inv_freq, scaling, layer } => {
            self::append(manifest, record, (qkv, layer), Some(norms), (inv_freq, scaling))
        }
        Step::Attend { qkv, layer, scale, window, out } => {
            let layer = kv_layer(plan, record, layer)?;
            positive(record, "scale", scale)?;
            ensure(window != Some(0), record, || "its window is 0")?;
            f32s("qkv", qkv, qkv_len(layer))?;
            f32s("out", out, u64::from(layer.n_heads) * u64::from(layer.head_dim))
        }
        Step::Head { input, table, planes, out } => {
            let [rows, hidden] = self::table(manifest, record, table)?;
            if let Some(id) = planes {
                let planes = manifest.planes.get(id.0 as usize);
                let planes = planes.ok_or_else(|| error(record, format!("there are no planes {}", id.0)))?;
                ensure(planes.table == table, record, || {
                    format!("planes {} are those of tensor {}, not of its table", id.0, planes.table.0)
                })?;
            }
            f32s("input", input, hidden)?;
            f32s("out", out, rows)
        }
        Step::RotateQuantize { input, norm, rotation, rule, out } => {
            let len = len(plan, record, input)?;
            f32s("input", input, len)?;
            if let Some(InputNorm { weight, eps }) = norm {
                positive(record, "eps", eps)?;
                vector(record, "weight", tensor(manifest, record, weight)?, len)?;
            }
            self::rotation(manifest, record, rotation, len)?;
            quantized_by(plan, record, rule, out, len)
        }
        Step::Unrotate { rotation, out } => {
            let len = len(plan, record, out)?;
            f32s("out", out, len)?;
            self::rotation(manifest, record, rotation, len)
        }
        Step::Convolve { input, weight, activation: _, state: _, out } => {
            let [_, channels] = convolution(manifest, record, weight)?;
            part("input", input, 0, channels)?;
            f32s("out", out, channels)
        }
        Step::DeltaRule { qkv, gates, at, rates, bias, heads, state: _, out } => {
            let DeltaHeads { keys, values, key_dim, value_dim } = heads;
            ensure((1..=MAX_DELTA_HEADS).contains(&values), record, || {
                format!("has {values} value heads, not 1 to {MAX_DELTA_HEADS}")
            })?;
            ensure(keys > 0 && values.is_multiple_of(keys), record, || {
                format!("{values} value heads cannot share {keys} key heads evenly")
            })?;
            let dims = [key_dim, value_dim].iter().all(|dim| (1..=MAX_HEAD_DIM).contains(dim));
            ensure(dims, record, || {
                format!("its heads are of {key_dim} and {value_dim} elements, not 1 to {MAX_HEAD_DIM}")
            })?;
            for (field, id) in [("rates", rates), ("bias", bias)] {
                vector(record, field, tensor(manifest, record, id)?, values.into())?;
            }
            f32s("qkv", qkv, heads.qkv_len())?;
            part("gates", gates, at, 2 * u64::from(values))?;
            f32s("out", out, heads.values_len())
        }
        Step::GateNorm { input, weight, eps, gate, at, activation: _, out } => {
            positive(record, "eps", eps)?;
            let len = len(plan, record, input)?;
            let weight = tensor(manifest, record, weight)?;
            let run = weight.shape.first().copied().unwrap_or(0);
            vector(record, "weight", weight, run)?;
            ensure(run > 0 && len.is_multiple_of(run), record, || {
                format!("its input has {len} elements, no whole number of runs of {run}")
            })?;
            f32s("input", input, len)?;
            part("gate", gate, at, len)?;
            f32s("out", out, len)
        }
        Step::JoinHidden { input, input_norm, hidden_norm, eps, out } => {
            positive(record, "eps", eps)?;
            let hidden = u64::from(manifest.hyperparameters.hidden_dim);
            for (field, id) in [("input norm", input_norm), ("hidden norm", hidden_norm)] {
                vector(record, field, tensor(manifest, record, id)?, hidden)?;
            }
            f32s("input", input, hidden)?;
            f32s("out", out, 2 * hidden)
        }
    }
}

/// Rotation of q and k, on one side or the other of their norms, and appending to the KV cache.
fn append(
    manifest: &Manifest,
    record: &StepName,
    (qkv, layer): (BufferId, u32),
    norms: Option<HeadNorms>,
    (inv_freq, scaling): (TensorId, f32),
) -> Result<(), FormatError> {
    let layer = kv_layer(&manifest.plan, record, layer)?;
    if let Some(HeadNorms { q, k, eps }) = norms {
        positive(record, "eps", eps)?;
        for (field, id) in [("q norm", q), ("k norm", k)] {
            vector(record, field, tensor(manifest, record, id)?, layer.head_dim.into())?;
        }
    }
    positive(record, "scaling", scaling)?;
    let frequencies = tensor(manifest, record, inv_freq)?;
    let most = u64::from(layer.head_dim / 2);
    let found = match frequencies.shape[..] {
        [found] => found.min(most),
        _ => most,
    };
    vector(record, "inv_freq", frequencies, found)?;
    f32s(&manifest.plan, record, "qkv", qkv, qkv_len(layer))
}

/// The shape `[taps, channels]` of a convolution's weights. There is a tap.
fn convolution(manifest: &Manifest, record: &StepName, weight: TensorId) -> Result<[u64; 2], FormatError> {
    let tensor = tensor(manifest, record, weight)?;
    let [taps, channels] = match tensor.shape[..] {
        [taps, channels] if tensor.dtype == DType::F32 => [taps, channels],
        _ => {
            return Err(error(
                record,
                format!(
                    "its weight is tensor {} {:?}{:?}, expected F32[taps, channels]",
                    tensor.name, tensor.dtype, tensor.shape
                ),
            ));
        }
    };
    ensure((1..=MAX_TAPS).contains(&taps), record, || {
        format!("its convolution has {taps} taps, not 1 to {MAX_TAPS}")
    })?;
    Ok([taps, channels])
}

/// A rotation of rows of `len` elements.
fn rotation(
    manifest: &Manifest,
    record: &StepName,
    Rotation { block, signs }: Rotation,
    len: u64,
) -> Result<(), FormatError> {
    let fits = block.is_power_of_two() && block <= MAX_ROTATED && len.is_multiple_of(block.into());
    ensure(fits, record, || format!("rotates {len} elements in blocks of {block}"))?;
    match signs {
        Some(id) => vector(record, "signs", tensor(manifest, record, id)?, len),
        None => Ok(()),
    }
}

/// Steps that carry a state are numbered in their order, and all states together are bounded.
fn states(manifest: &Manifest) -> Result<(), FormatError> {
    let (mut next, mut elements) = (0, 0u64);
    for (index, step) in manifest.plan.body.iter().enumerate() {
        let record = StepName { list: "body", index };
        let (state, len) = match *step {
            Step::Convolve { weight, state, .. } => {
                let [taps, channels] = convolution(manifest, &record, weight)?;
                (state, (taps - 1).saturating_mul(channels))
            }
            Step::DeltaRule { heads, state, .. } => {
                (state, heads.values_len().saturating_mul(heads.key_dim.into()))
            }
            _ => continue,
        };
        ensure(state == next, &record, || format!("has state {state}, expected {next}"))?;
        next += 1;
        elements = elements.saturating_add(len);
    }
    ensure(elements <= MAX_STATE_ELEMENTS, "plan", || {
        format!("carries {elements} elements from row to row; {MAX_STATE_ELEMENTS} are possible")
    })
}

/// Values a row that a packed matrix gives with that epilogue, where the two fit.
fn results(record: &StepName, matrix: &PackedMatrix, epilogue: Epilogue) -> Result<u64, FormatError> {
    match (matrix.order, epilogue) {
        (RowOrder::Sequential, Epilogue::Store | Epilogue::Add) => Ok(matrix.rows()),
        (
            RowOrder::Paired,
            Epilogue::Gate(Activation::Relu2 | Activation::Silu | Activation::GeluTanh | Activation::Sigmoid),
        ) => Ok(matrix.rows() / 2),
        (RowOrder::Sequential, Epilogue::Gate(_)) => Err(error(record, "gates a product that is not paired")),
        (RowOrder::Paired, _) => Err(error(record, "does not gate a paired product")),
    }
}

/// Elements of q, k and v together. Fits: three factors below 2^34, 2^32 and 2^10 after [`kv`].
fn qkv_len(layer: &KvLayer) -> u64 {
    (u64::from(layer.n_heads) + 2 * u64::from(layer.n_kv_heads)) * u64::from(layer.head_dim)
}

fn buffer(plan: &Plan, record: impl Display, id: BufferId) -> Result<&Buffer, FormatError> {
    plan.buffers.get(id.0 as usize).ok_or_else(|| error(record, format!("there is no buffer {}", id.0)))
}

fn len(plan: &Plan, record: impl Display, id: BufferId) -> Result<u64, FormatError> {
    buffer(plan, record, id).map(|b| b.len.into())
}

fn typed(
    plan: &Plan,
    record: impl Display,
    field: &str,
    id: BufferId,
    dtype: DType,
    len: u64,
) -> Result<(), FormatError> {
    let buffer = buffer(plan, &record, id)?;
    ensure(buffer.dtype == dtype && u64::from(buffer.len) == len, record, || {
        format!(
            "{field} is buffer {} {:?}[{}], expected {dtype:?}[{len}]",
            buffer.name, buffer.dtype, buffer.len
        )
    })
}

fn f32s(plan: &Plan, record: impl Display, field: &str, id: BufferId, len: u64) -> Result<(), FormatError> {
    typed(plan, record, field, id, DType::F32, len)
}

/// An f32 buffer with room for `len` elements from `at` on.
fn part(
    plan: &Plan,
    record: impl Display,
    field: &str,
    id: BufferId,
    at: u32,
    len: u64,
) -> Result<(), FormatError> {
    let buffer = buffer(plan, &record, id)?;
    let fits = u64::from(at).checked_add(len).is_some_and(|end| end <= buffer.len.into());
    ensure(buffer.dtype == DType::F32 && fits, record, || {
        format!(
            "{field} is buffer {} {:?}[{}], expected room for F32[{len}] from {at} on",
            buffer.name, buffer.dtype, buffer.len
        )
    })
}

fn quantized_by(
    plan: &Plan,
    record: &StepName,
    rule: ActivationRule,
    q: Quantized,
    k: u64,
) -> Result<(), FormatError> {
    match rule {
        ActivationRule::AbsmaxPerToken { floor } => {
            positive(record, "floor", floor)?;
            quantized(plan, record, q, k)
        }
        ActivationRule::AbsmaxPerGroup { columns } | ActivationRule::Fixed24PerGroup { columns } => {
            let most = if rule.digits() == 1 { 256 } else { MAX_DIGIT_COLUMNS };
            ensure(GROUP_COLUMNS.contains(&columns) && columns <= most, record, || {
                format!("has groups of {columns} columns; {GROUP_COLUMNS:?} up to {most} are possible")
            })?;
            // Buffers have fewer than 2^32 elements.
            grouped(plan, record, q, k as u32, columns, rule.digits() as u64)
        }
    }
}

/// Bytes of one digit of `k` values.
fn digit_len(k: u32, columns: u32) -> u64 {
    ActivationRule::digit_len(k, columns)
}

fn grouped(
    plan: &Plan,
    record: &StepName,
    q: Quantized,
    k: u32,
    columns: u32,
    digits: u64,
) -> Result<(), FormatError> {
    let groups = u64::from(k.div_ceil(columns));
    typed(plan, record, "values", q.values, DType::I8, digits * digit_len(k, columns))?;
    let values = buffer(plan, record, q.values)?;
    ensure(values.stride == u64::from(values.len), record, || {
        format!("values is buffer {} with room between its rows", values.name)
    })?;
    typed(plan, record, "scale", q.scale, DType::F32, groups)?;
    typed(plan, record, "sum", q.sum, DType::I32, digits * groups)
}

/// Buffer strides leave room for the padding of `values` to whole quads: they are multiples of 64 bytes.
fn quantized(plan: &Plan, record: &StepName, q: Quantized, k: u64) -> Result<(), FormatError> {
    typed(plan, record, "values", q.values, DType::I8, k)?;
    typed(plan, record, "scale", q.scale, DType::F32, 1)?;
    typed(plan, record, "sum", q.sum, DType::I32, 1)
}

pub(super) fn tensor(
    manifest: &Manifest,
    record: impl Display,
    id: TensorId,
) -> Result<&Tensor, FormatError> {
    manifest.tensors.get(id.0 as usize).ok_or_else(|| error(record, format!("there is no tensor {}", id.0)))
}

/// Requires an f32 `[len]`.
pub(super) fn vector(
    record: impl Display,
    field: &str,
    tensor: &Tensor,
    len: u64,
) -> Result<(), FormatError> {
    ensure(tensor.dtype == DType::F32 && tensor.shape == [len], record, || {
        format!("{field} is tensor {} {:?}{:?}, expected F32[{len}]", tensor.name, tensor.dtype, tensor.shape)
    })
}

/// The shape of a matrix of floats, or of codes that stand for floats.
pub(super) fn table(
    manifest: &Manifest,
    record: impl Display,
    id: TensorId,
) -> Result<[u64; 2], FormatError> {
    let tensor = tensor(manifest, &record, id)?;
    match tensor.shape[..] {
        [rows, columns] if tensor.dtype.is_of_tables() => Ok([rows, columns]),
        _ => Err(error(
            record,
            format!(
                "its table is tensor {} {:?}{:?}, expected a matrix of floats",
                tensor.name, tensor.dtype, tensor.shape
            ),
        )),
    }
}

fn matrix<'a>(
    manifest: &'a Manifest,
    record: &StepName,
    id: PackedMatrixId,
) -> Result<&'a PackedMatrix, FormatError> {
    manifest
        .packed_matrices
        .get(id.0 as usize)
        .ok_or_else(|| error(record, format!("there is no product {}", id.0)))
}

fn kv_layer<'a>(plan: &'a Plan, record: &StepName, layer: u32) -> Result<&'a KvLayer, FormatError> {
    plan.kv.get(layer as usize).ok_or_else(|| error(record, format!("there is no kv layer {layer}")))
}
