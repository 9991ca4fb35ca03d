//! Tens of thousands of damaged bundles: none may panic, and what still validates must be safe to execute.

mod bundle;

use bundle::accesses::run;
use bundle::coded::coded;
use bundle::recurrent::recurrent;
use bundle::{FIXED_RULE, GROUP_RULE, file, file_of, grouped, manifest, normed_after, of_signs, rule};
use std::ops::Range;
use trit_format::container::{Header, SectionKind};
use trit_format::manifest::Manifest;
use trit_format::plan::{BufferId, Rotation, Step, TensorId};
use trit_format::text;

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
        (file_of(&normed_after()), 20_000),
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
    for whole in [manifest(), grouped(), of_signs(), recurrent(), coded(), normed_after()] {
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
                Step::RopeNormAppend { inv_freq, norms, .. } => {
                    *[inv_freq, &mut norms.q, &mut norms.k][random.below(3)] = id;
                }
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
