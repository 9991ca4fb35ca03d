//! Tens of thousands of damaged bundles: none may panic, and what still validates must be safe to execute.

mod bundle;

use bundle::coded::coded;
use bundle::recurrent::recurrent;
use bundle::{FIXED_RULE, GROUP_RULE, file, file_of, grouped, manifest, of_signs, rule};
use std::collections::HashMap;
use std::ops::Range;
use trit_format::coded::RowLayout;
use trit_format::container::{Header, SectionKind};
use trit_format::manifest::{Manifest, PackedMatrix, RowOrder};
use trit_format::plan::{
    ActivationRule, BufferId, Epilogue, Quantized, Rotation, StateShape, Step, TensorId,
};
use trit_format::planes::Layout;
use trit_format::{text, tile};

/// Rows the arena has room for, to see rows of one buffer reach into another.
const ROWS: usize = 3;

/// Marsaglia's xorshift64: the same damage on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Flips a bit, changes a byte, or writes a number that is likely to be at a limit, somewhere in `range`.
    fn damage(&mut self, bytes: &mut [u8], range: Range<usize>) {
        let at = range.start + self.below(range.len());
        let numbers = [
            0,
            1,
            2,
            3,
            4,
            8,
            10,
            16,
            63,
            64,
            65,
            128,
            320,
            576,
            1 << 16,
            1 << 31,
            1 << 32,
            1 << 63,
            u64::MAX,
            u64::MAX - 63,
        ];
        let number = numbers[self.below(numbers.len())].to_le_bytes();
        match self.below(4) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.next() as u8,
            width => {
                let end = (at + 4 * (width - 1)).min(range.end);
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
        }
    }
}

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
                let kv = m.plan.kv[layer as usize];
                for id in norms.iter().flat_map(|norms| [norms.q, norms.k]) {
                    assert_eq!(self.tensor(id).len() / 4, kv.head_dim as usize);
                }
                let rotated = self.tensor(inv_freq).len() / 4 * 2;
                assert!((2..=kv.head_dim as usize).contains(&rotated));
                let n = (kv.n_heads + 2 * kv.n_kv_heads) * kv.head_dim;
                self.read(qkv, n as usize);
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
            ref other => panic!("{other:?}"),
        }
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
fn run(file: &[u8], header: &Header, manifest: &Manifest) {
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

#[derive(Default, Debug)]
struct Tally {
    parsed: usize,
    decoded: usize,
    valid: usize,
}

impl Tally {
    /// All that a loader does but for digests, which would hide every damage.
    fn open(&mut self, file: &[u8]) {
        let Ok(header) = Header::parse(file) else { return };
        self.parsed += 1;
        // The smallest section; that all are compared is another test's.
        let _ = header.verify(file, SectionKind::Tokenizer);
        self.manifest(file, &header);
    }

    fn manifest(&mut self, file: &[u8], header: &Header) {
        let manifest = header.section(SectionKind::Manifest).unwrap().range();
        let Ok(manifest) = Manifest::decode(&file[manifest]) else { return };
        self.decoded += 1;
        assert!(!text::plan(&manifest).contains('\x1b'));
        if manifest.validate(header).is_ok() {
            self.valid += 1;
            run(file, header, &manifest);
        }
    }
}

#[test]
fn damaged_headers() {
    let whole = file();
    let (mut random, mut tally) = (Random(1), Tally::default());
    let (mut bytes, table) = (whole.clone(), 0..64 * 8);
    for _ in 0..10_000 {
        bytes[table.clone()].copy_from_slice(&whole[table.clone()]);
        random.damage(&mut bytes, table.clone());
        tally.open(&bytes);
    }
    // Digests may change: the rest is fixed by the sections.
    assert!(tally.valid > 1000 && tally.parsed < 9000, "{tally:?}");
}

#[test]
fn truncated_bundles() {
    let whole = file();
    for cut in (0..=512).chain((512..whole.len()).step_by(509)) {
        assert!(Header::parse(&whole[..cut]).is_err());
        // The same with a length field that agrees.
        let mut bytes = whole[..cut].to_vec();
        if cut >= 32 {
            bytes[24..32].copy_from_slice(&(cut as u64).to_le_bytes());
            assert!(Header::parse(&bytes).is_err());
        }
    }
}

#[test]
fn damaged_manifests() {
    // More records of enums and names leave fewer that still decode.
    for (whole, decoded) in [
        (file(), 20_000),
        (file_of(&grouped()), 20_000),
        (file_of(&of_signs()), 20_000),
        (file_of(&recurrent()), 18_000),
        (file_of(&coded()), 18_000),
    ] {
        let header = Header::parse(&whole).unwrap();
        let range = header.section(SectionKind::Manifest).unwrap().range();
        let (mut random, mut tally) = (Random(2), Tally::default());
        let mut bytes = whole.clone();
        for case in 0..60_000 {
            bytes[range.clone()].copy_from_slice(&whole[range.clone()]);
            for _ in 0..1 + case % 3 {
                random.damage(&mut bytes, range.clone());
            }
            tally.manifest(&bytes, &header);
        }
        assert!(tally.decoded > decoded && tally.valid > 2_000, "{tally:?}");
    }
}

/// Damage to records rather than bytes: ids and places that exist, in steps where they do not belong.
#[test]
fn shuffled_plans() {
    for whole in [manifest(), grouped(), of_signs(), recurrent(), coded()] {
        let (mut random, mut valid) = (Random(3), 0);
        let file = file_of(&whole);
        let header = Header::parse(&file).unwrap();
        for _ in 0..60_000 {
            let mut m = whole.clone();
            for _ in 0..1 + random.below(3) {
                shuffle(&mut m, &mut random);
            }
            if m.validate(&header).is_ok() {
                valid += 1;
                run(&file, &header, &m);
            }
        }
        assert!(valid > 1_000, "{valid}");
    }
}

fn shuffle(m: &mut Manifest, random: &mut Random) {
    let (steps, buffers, packed_matrices) =
        (m.plan.body.len(), m.plan.buffers.len(), m.packed_matrices.len());
    match random.below(8) {
        0 => m.plan.buffers[random.below(buffers)].offset = 64 * random.below(20) as u64,
        1 => m.plan.buffers[random.below(buffers)].stride = 64 * (1 + random.below(3)) as u64,
        2 => m.plan.body.swap(random.below(steps), random.below(steps)),
        3 => m.plan.body[random.below(steps)] = m.plan.body[random.below(steps)].clone(),
        4 => {
            let rule = [FIXED_RULE, GROUP_RULE, rule()][random.below(3)];
            match &mut m.plan.body[random.below(steps)] {
                Step::Quantize { rule: of, .. }
                | Step::NormQuantize { rule: of, .. }
                | Step::RotateQuantize { rule: of, .. } => *of = rule,
                Step::Ternary { at, .. } | Step::Linear { at, .. } => *at = 4 * random.below(4) as u32,
                Step::DeltaRule { at, heads, .. } => match random.below(4) {
                    0 => *at = random.below(27) as u32,
                    1 => heads.keys = random.below(4) as u32,
                    2 => (heads.key_dim, heads.value_dim) = (random.below(5) as u32, random.below(6) as u32),
                    _ => (heads.keys, heads.values) = (random.below(3) as u32, random.below(5) as u32),
                },
                Step::GateNorm { at, .. } => *at = random.below(27) as u32,
                Step::Unrotate { rotation, .. } => rotation.block = random.below(17) as u32,
                _ => {}
            }
        }
        5 => match &mut m.plan.body[random.below(steps)] {
            Step::Ternary { matrix, .. } | Step::EmbedTernary { matrix, .. } => {
                matrix.0 = random.below(packed_matrices) as u32;
            }
            _ => {}
        },
        6 => {
            let id = TensorId(random.below(m.tensors.len()) as u32);
            match &mut m.plan.body[random.below(steps)] {
                Step::RopeAppend { inv_freq: of, .. }
                | Step::Convolve { weight: of, .. }
                | Step::GateNorm { weight: of, .. }
                | Step::Unrotate { rotation: Rotation { signs: Some(of), .. }, .. } => *of = id,
                Step::DeltaRule { rates, bias, .. } => *[rates, bias][random.below(2)] = id,
                _ => {}
            }
        }
        _ => {
            let id = BufferId(random.below(buffers) as u32);
            match &mut m.plan.body[random.below(steps)] {
                Step::RmsNorm { input, out, .. }
                | Step::RmsNormAdd { input, out, .. }
                | Step::Linear { input, out, .. } => *[input, out][random.below(2)] = id,
                Step::Quantize { input, .. }
                | Step::NormQuantize { input, .. }
                | Step::RotateQuantize { input, .. } => *input = id,
                Step::Unrotate { out, .. } => *out = id,
                Step::Convolve { input, out, .. } => *[input, out][random.below(2)] = id,
                Step::DeltaRule { qkv, gates, out, .. } => *[qkv, gates, out][random.below(3)] = id,
                Step::GateNorm { input, gate, out, .. } => *[input, gate, out][random.below(3)] = id,
                Step::Ternary { out, input, .. } => {
                    *[out, &mut input.values, &mut input.scale, &mut input.sum][random.below(4)] = id;
                }
                Step::Gate { gate, up, out, .. } => *[gate, up, out][random.below(3)] = id,
                Step::Attend { qkv, out, .. } => *[qkv, out][random.below(2)] = id,
                _ => {}
            }
        }
    }
}
