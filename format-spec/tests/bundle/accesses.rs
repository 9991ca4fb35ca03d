//! What the steps of a plan touch, written down a second time: a bundle that was accepted is followed byte by byte, without arithmetic.

use std::collections::HashMap;
use std::ops::Range;
use trit_format::coded::RowLayout;
use trit_format::container::{Header, SectionKind};
use trit_format::manifest::{Manifest, PackedMatrix, RowOrder};
use trit_format::plan::{
    ActivationRule, BufferId, Epilogue, HeadNorms, Quantized, Rotation, StateShape, Step, TensorId,
};
use trit_format::planes::Layout;
use trit_format::tile;

/// Rows the arena has room for, to see rows of one buffer reach into another.
const ROWS: usize = 3;

/// An arena whose accesses are recorded byte by byte, and a validated bundle to run over it without arithmetic.
struct Run<'a> {
    file: &'a [u8],
    header: &'a Header,
    manifest: &'a Manifest,
    /// For each byte of the arena, the buffer that wrote it last.
    owner: Vec<Option<BufferId>>,
    /// By buffer of values, what was quantized to it last.
    rules: HashMap<u32, (Quantized, ActivationRule)>,
    states: Vec<StateShape>,
}

impl Run<'_> {
    fn section(&self, kind: SectionKind) -> &[u8] {
        &self.file[self.header.section(kind).unwrap().range()]
    }

    fn tensor(&self, id: TensorId) -> &[u8] {
        let tensor = &self.manifest.tensors[id.0 as usize];
        &self.section(SectionKind::Tensors)[tensor.offset as usize..][..tensor.bytes().unwrap() as usize]
    }

    /// Columns of a table of that many rows, whose bytes are all there: whole blocks of codes and what belongs to them, or
    /// floats.
    fn table_columns(&self, id: TensorId, rows: usize) -> usize {
        let tensor = &self.manifest.tensors[id.0 as usize];
        let (bytes, k) = (self.tensor(id).len(), tensor.shape[1] as usize);
        assert!(bytes.is_multiple_of(rows));
        match RowLayout::new(tensor.dtype, k as u64) {
            Some(row) => {
                assert_eq!((row.bytes() * rows, row.k(), row.blocks() * row.columns()), (bytes, k, k));
                assert!(row.scales().end <= row.offsets().end && row.offsets().end <= row.bytes());
            }
            None => assert_eq!(k * tensor.dtype.size() * rows, bytes),
        }
        k
    }

    /// The bytes of `count` elements of a row.
    fn place(&self, id: BufferId, row: usize, count: usize) -> Range<usize> {
        let buffer = &self.manifest.plan.buffers[id.0 as usize];
        let bytes = count * buffer.dtype.size();
        assert!(bytes as u64 <= buffer.stride, "a row reaches into the next");
        let start = buffer.offset as usize * ROWS + buffer.stride as usize * row;
        assert!(start.is_multiple_of(buffer.dtype.size()));
        start..start + bytes
    }

    fn read(&self, id: BufferId, count: usize) {
        for row in 0..ROWS {
            let owners = &self.owner[self.place(id, row, count)];
            assert!(owners.iter().all(|owner| *owner == Some(id)), "reads what it did not write");
        }
    }

    fn write(&mut self, id: BufferId, count: usize) {
        for row in 0..ROWS {
            let place = self.place(id, row, count);
            self.owner[place].fill(Some(id));
        }
    }

    fn len(&self, id: BufferId) -> usize {
        self.manifest.plan.buffers[id.0 as usize].len as usize
    }

    /// Bytes of values, scales and sums that `k` quantized values have.
    fn quantized(rule: ActivationRule, k: usize) -> [usize; 3] {
        let Some(columns) = rule.columns() else { return [tile::padded_k(k), 1, 1] };
        let (digits, groups) = (rule.digits(), k.div_ceil(columns as usize));
        [digits * ActivationRule::digit_len(k as u32, columns) as usize, groups, digits * groups]
    }

    fn read_quantized(&self, q: Quantized, [values, scales, sums]: [usize; 3]) {
        self.read(q.values, values);
        self.read(q.scale, scales);
        self.read(q.sum, sums);
    }

    fn quantize(&mut self, rule: ActivationRule, out: Quantized, k: usize) {
        let lens = Run::quantized(rule, k);
        for (id, len) in [out.values, out.scale, out.sum].into_iter().zip(lens) {
            self.write(id, len);
        }
        self.read_quantized(out, lens);
        self.rules.insert(out.values.0, (out, rule));
        if let Some(columns) = rule.columns() {
            // Digits of all rows follow each other.
            let len = ActivationRule::digit_len(k as u32, columns) as usize;
            let buffer = &self.manifest.plan.buffers[out.values.0 as usize];
            assert_eq!(buffer.stride as usize, rule.digits() * len);
        }
    }

    /// The tiles of a packed matrix: codes of whole groups, then a scale for every row of a tile.
    fn tiles(&self, matrix: &PackedMatrix) {
        let tiles = &self.section(SectionKind::Weights)[matrix.offset as usize..];
        let tiles = &tiles[..matrix.bytes().unwrap() as usize];
        let of_tile = tiles.len() / matrix.tiles() as usize;
        assert_eq!(tiles.len() % matrix.tiles() as usize, 0);
        let Some(grouping) = matrix.grouping else {
            return assert_eq!(of_tile, tile::bytes(matrix.k as usize));
        };
        let columns = grouping.columns as usize;
        let groups = (matrix.k as usize).div_ceil(columns);
        let scale = |g: usize| (g * columns).checked_div(grouping.scale_columns as usize).unwrap_or(0);
        let scales = (scale(groups - 1) + 1) * matrix.code.tile_rows();
        let end = groups * tile::bytes(columns) + scales * grouping.scale.size();
        assert!(end <= of_tile && of_tile.is_multiple_of(64));
    }

    /// Adds `len` elements from `at` on to what is there, or writes them.
    fn results(&mut self, out: BufferId, at: usize, len: usize, add: bool) {
        let end = at + len;
        assert!(end <= self.len(out));
        if add {
            self.read(out, end);
        }
        for row in 0..ROWS {
            let place = self.place(out, row, end);
            let size = place.len() / end;
            self.owner[place.start + at * size..place.end].fill(Some(out));
        }
    }

    /// Touches what the step touches; panics where that is out of bounds or not what was written.
    fn step(&mut self, step: &Step) {
        let m = self.manifest;
        match *step {
            Step::Embed { table, scale: _, out } => {
                let vocab = m.hyperparameters.vocab_size as usize;
                let width = self.table_columns(table, vocab);
                self.write(out, width);
            }
            Step::RmsNorm { input, weight, out, .. } => {
                let n = self.tensor(weight).len() / 4;
                self.read(input, n);
                self.write(out, n);
                self.read(out, n);
            }
            Step::NormQuantize { input, weight, rule, out, .. } => {
                let k = self.tensor(weight).len() / 4;
                self.read(input, k);
                self.quantize(rule, out, k);
            }
            Step::Quantize { input, rule, out } => {
                let k = self.len(input);
                self.read(input, k);
                self.quantize(rule, out, k);
                if !overlaps(m, input, out.values) {
                    self.read(input, k);
                }
            }
            Step::Ternary { matrix, input, epilogue, out, at } => {
                let matrix = &m.packed_matrices[matrix.0 as usize];
                self.tiles(matrix);
                let (written, rule) = self.rules[&input.values.0];
                assert_eq!((written, rule.columns()), (input, matrix.grouping.map(|g| g.columns)));
                let lens = Run::quantized(rule, matrix.k as usize);
                self.read_quantized(input, lens);
                let results = match epilogue {
                    Epilogue::Gate(_) => matrix.segments[0].rows as usize,
                    _ => matrix.rows() as usize,
                };
                self.results(out, at as usize, results, epilogue == Epilogue::Add);
                // Other workers still read the input while this one writes.
                self.read_quantized(input, lens);
            }
            Step::EmbedTernary { matrix, out } => {
                let matrix = &m.packed_matrices[matrix.0 as usize];
                assert!(matrix.grouping.is_some() && matrix.order == RowOrder::Sequential);
                assert_eq!(matrix.rows(), u64::from(m.hyperparameters.vocab_size));
                self.tiles(matrix);
                self.write(out, matrix.k as usize);
            }
            Step::RmsNormAdd { input, weight, out, .. } => {
                let n = self.tensor(weight).len() / 4;
                self.read(input, n);
                self.results(out, 0, n, true);
                self.read(input, n);
            }
            Step::Linear { table, input, epilogue, out, at } => {
                let rows = m.tensors[table.0 as usize].shape[0] as usize;
                let columns = self.table_columns(table, rows);
                assert!(!matches!(epilogue, Epilogue::Gate(_)));
                self.read(input, columns);
                self.results(out, at as usize, rows, epilogue == Epilogue::Add);
                self.read(input, columns);
            }
            Step::Gate { gate, up, out, .. } => {
                let n = self.len(out);
                self.read(gate, n);
                self.read(up, n);
                self.write(out, n);
                for operand in [gate, up] {
                    if !overlaps(m, operand, out) {
                        self.read(operand, n);
                    }
                }
            }
            Step::RopeAppend { qkv, norms, inv_freq, layer, .. } => {
                self.append(qkv, norms, inv_freq, layer);
            }
            Step::RopeNormAppend { qkv, norms, inv_freq, layer, .. } => {
                self.append(qkv, Some(norms), inv_freq, layer);
            }
            Step::Attend { qkv, layer, out, .. } => {
                let kv = m.plan.kv[layer as usize];
                let _group = kv.n_heads / kv.n_kv_heads;
                let n = (kv.n_heads * kv.head_dim) as usize;
                self.read(qkv, n);
                self.write(out, n);
                self.read(qkv, n);
            }
            Step::Head { input, table, planes, out } => {
                let tensor = &m.tensors[table.0 as usize];
                let rows = tensor.shape[0] as usize;
                let width = self.table_columns(table, rows);
                if let Some(id) = planes {
                    let planes = m.planes[id.0 as usize];
                    assert_eq!(planes.table, table);
                    let layout = Layout::new(rows as u64, width as u64).unwrap();
                    let bytes = &self.section(SectionKind::Planes)[planes.offset as usize..];
                    assert!(!bytes[..layout.bytes() as usize].is_empty());
                }
                self.read(input, width);
                self.write(out, rows);
                self.read(input, width);
            }
            Step::RotateQuantize { input, norm, rotation, rule, out } => {
                let k = self.len(input);
                assert!(norm.is_none_or(|norm| self.tensor(norm.weight).len() == 4 * k));
                self.rotation(rotation, k);
                self.read(input, k);
                self.quantize(rule, out, k);
            }
            Step::Unrotate { rotation, out } => {
                let n = self.len(out);
                self.rotation(rotation, n);
                self.read(out, n);
            }
            Step::Convolve { input, weight, activation: _, state, out } => {
                let StateShape::Inputs { rows, channels } = self.states[state as usize] else { panic!() };
                assert_eq!(self.tensor(weight).len(), 4 * (rows as usize + 1) * channels as usize);
                self.read(input, channels as usize);
                self.write(out, channels as usize);
                self.read(input, channels as usize);
            }
            Step::DeltaRule { qkv, gates, at, rates, bias, heads, state, out } => {
                assert_eq!(self.states[state as usize], StateShape::Matrices(heads));
                let values = heads.values as usize;
                // Every value head has a key head.
                assert!((values - 1) / (values / heads.keys as usize) < heads.keys as usize);
                assert!([rates, bias].iter().all(|&id| self.tensor(id).len() == 4 * values));
                let read = |run: &Self| {
                    run.read(qkv, heads.qkv_len() as usize);
                    run.read(gates, at as usize + 2 * values);
                };
                read(self);
                self.write(out, heads.values_len() as usize);
                read(self);
            }
            Step::GateNorm { input, weight, eps: _, gate, at, activation: _, out } => {
                let (n, run) = (self.len(out), self.tensor(weight).len() / 4);
                assert!(n.is_multiple_of(run));
                self.read(input, n);
                self.read(gate, at as usize + n);
                self.write(out, n);
                self.read(gate, at as usize + n);
                if !overlaps(m, input, out) {
                    self.read(input, n);
                }
            }
            Step::JoinHidden { input, input_norm, hidden_norm, eps: _, out } => {
                let n = m.hyperparameters.hidden_dim as usize;
                assert!([input_norm, hidden_norm].iter().all(|&id| self.tensor(id).len() == 4 * n));
                self.read(input, n);
                self.write(out, 2 * n);
                self.read(input, n);
            }
            ref other => panic!("{other:?}"),
        }
    }

    fn append(&mut self, qkv: BufferId, norms: Option<HeadNorms>, inv_freq: TensorId, layer: u32) {
        let kv = self.manifest.plan.kv[layer as usize];
        for id in norms.iter().flat_map(|norms| [norms.q, norms.k]) {
            assert_eq!(self.tensor(id).len() / 4, kv.head_dim as usize);
        }
        let rotated = self.tensor(inv_freq).len() / 4 * 2;
        assert!((2..=kv.head_dim as usize).contains(&rotated));
        let n = (kv.n_heads + 2 * kv.n_kv_heads) * kv.head_dim;
        self.read(qkv, n as usize);
    }

    fn rotation(&self, Rotation { block, signs }: Rotation, n: usize) {
        assert!(block.is_power_of_two() && n.is_multiple_of(block as usize));
        assert!(signs.is_none_or(|signs| self.tensor(signs).len() == 4 * n));
    }
}

fn overlaps(m: &Manifest, a: BufferId, b: BufferId) -> bool {
    let range = |id: BufferId| {
        let buffer = &m.plan.buffers[id.0 as usize];
        buffer.offset..buffer.offset + buffer.stride
    };
    range(a).start < range(b).end && range(b).start < range(a).end
}

/// Executes a validated bundle without arithmetic.
///
/// # Panics
/// If it is not safe to execute.
pub fn run(file: &[u8], header: &Header, manifest: &Manifest) {
    let plan = &manifest.plan;
    // Row sizes are bounded, but zeroing 64 MiB for each case takes time.
    let used = plan.buffers.iter().map(|b| b.offset + b.stride).max().unwrap();
    assert!(used <= plan.row_bytes);
    let states: Vec<StateShape> =
        plan.states(|id| manifest.tensors.get(id.0 as usize).map(|t| t.shape.as_slice())).collect();
    let (owner, rules) = (vec![None; used as usize * ROWS], HashMap::new());
    let mut run = Run { file, header, manifest, owner, rules, states };
    plan.body.iter().chain(&plan.head).for_each(|step| run.step(step));
    run.read(plan.logits, manifest.hyperparameters.vocab_size as usize);
    // Any layer alone, from the residual stream.
    for layer in &plan.layers {
        run.owner.fill(None);
        run.write(plan.residual, manifest.hyperparameters.hidden_dim as usize);
        plan.body[layer.start as usize..layer.end as usize].iter().for_each(|step| run.step(step));
        run.read(plan.residual, manifest.hyperparameters.hidden_dim as usize);
    }
    for kernel in &manifest.kernels {
        let code = run.section(SectionKind::Code(kernel.target));
        assert!(!code[kernel.offset as usize..][..kernel.len as usize].is_empty());
    }
    for golden in &manifest.goldens {
        assert_eq!(run.tensor(golden.logits).len(), 4 * manifest.hyperparameters.vocab_size as usize);
    }
}
