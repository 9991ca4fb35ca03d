//! Speed of scanning the planes of a 2B model's head:
//! `cargo run --release -p trit-kernels --example planes_speed -- [threads]`.
//!
//! Each round runs every alternative once, so that other load disturbs all of them alike. Medians and best times are
//! printed, in GB/s of bytes read. Memory is in huge pages where the system grants them. Further arguments choose
//! scan variants: `all`, or several of `ROWS,FAR,NEAR`.

use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;
use trit_format::planes::{Layout, Row};
use trit_gemm::AlignedMemory;
use trit_kernels::planes::{
    Hidden, Planes, SCAN_VARIANTS, ScanVariant, TopLower, extend_shortlist, scan_full, scan_high,
    tighten_bounds,
};

const HIDDEN: usize = 2560;
const VOCAB: usize = 128_256;
const ROUNDS: usize = 25;
/// Rows that are scanned by alternatives that go over the same 64 rows again and again.
const REPEATED: usize = 256 * 64;

/// Divides `rows` among threads, each of which calls `work` with its share.
fn shared(threads: usize, rows: usize, work: impl Fn(Range<usize>) + Sync) {
    let share = rows.div_ceil(threads);
    std::thread::scope(|scope| {
        for t in 1..threads {
            let work = &work;
            scope.spawn(move || work(t * share..((t + 1) * share).min(rows)));
        }
        work(0..share);
    });
}

/// The scan variants that an argument names.
fn variants(argument: &str) -> Vec<ScanVariant> {
    if argument == "all" {
        return SCAN_VARIANTS.to_vec();
    }
    let numbers: Vec<usize> = argument.split(',').map(|n| n.parse().expect("ROWS,FAR,NEAR")).collect();
    let [rows, far, near] = numbers[..] else { panic!("expected ROWS,FAR,NEAR, found {argument}") };
    vec![ScanVariant { rows, far, near }]
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let variants: Vec<ScanVariant> = std::env::args().skip(2).flat_map(|arg| variants(&arg)).collect();
    let layout = Layout::new(VOCAB as u64, HIDDEN as u64).expect("the shape is allowed");
    let mut memory = AlignedMemory::huge(1, layout.bytes() as usize, "planes").expect("memory");
    let bytes = memory.bytes_mut();
    // Rows repeat; speed does not depend on what they hold.
    let mut state = 1u64;
    let table: Vec<f32> = (0..64 * HIDDEN)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    let (mut high, mut low) = (vec![0; layout.plane_row_bytes()], vec![0; layout.plane_row_bytes()]);
    let mut scales = vec![0; layout.blocks()];
    let mut put = |row: usize, record: Row, high: &[u8], low: &[u8], scales: &[u8]| {
        let mut copy = |start: u64, part: &[u8]| {
            bytes[start as usize + row * part.len()..][..part.len()].copy_from_slice(part);
        };
        copy(layout.high().start, high);
        copy(layout.low().start, low);
        copy(layout.scales().start, scales);
        copy(layout.records().start, &record.to_bytes());
    };
    let start = Instant::now();
    for row in 0..VOCAB {
        let values = &table[row % 64 * HIDDEN..][..HIDDEN];
        let record =
            trit_format::planes::encode_row(layout, values, &mut high, &mut low, &mut scales).unwrap();
        put(row, record, &high, &low, &scales);
    }
    println!("encoding {:.2} s on one thread", start.elapsed().as_secs_f64());
    let bytes = &*bytes;
    let planes = Planes::new(bytes, layout);

    let h: Vec<f32> = table[..HIDDEN].iter().map(|x| x * 3.0).collect();
    let mut states = vec![Hidden::new(layout); 4];
    assert!(states.iter_mut().all(|s| s.prepare(&h)));
    let start = Instant::now();
    (0..1000).for_each(|_| assert!(states[0].prepare(black_box(&h))));
    println!("prepare {:.1} us", start.elapsed().as_secs_f64() * 1e3);
    let hidden: Vec<&Hidden> = states.iter().collect();
    let ids: Vec<u32> = (0..VOCAB as u32 / 32).map(|i| i * 32 + i % 29).collect();

    let read = |rows: Range<usize>| {
        let row = layout.plane_row_bytes();
        let part = &bytes[rows.start * row..rows.end * row];
        let mut sums = [0u64; 32];
        for chunk in part.as_chunks::<256>().0 {
            for (sum, b) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
                *sum ^= u64::from_le_bytes(*b);
            }
        }
        black_box(sums);
    };
    let scan_as = |variant: ScanVariant, full: bool, m: usize, rows: Range<usize>| {
        let planes = planes.with_scan_variant(full, variant);
        let (mut approx, mut bound) = (vec![0f32; 1024 * m], vec![0f32; 1024 * m]);
        for first in rows.clone().step_by(1024) {
            let part = first..(first + 1024).min(rows.end);
            let mut a: Vec<&mut [f32]> = approx.chunks_mut(1024).map(|a| &mut a[..part.len()]).collect();
            let mut b: Vec<&mut [f32]> = bound.chunks_mut(1024).map(|b| &mut b[..part.len()]).collect();
            match full {
                true => scan_full(&planes, part, &hidden[..m], &mut a, &mut b),
                false => scan_high(&planes, part, &hidden[..m], &mut a, &mut b),
            }
        }
        black_box((approx, bound));
    };
    let scan = |full, m, rows| scan_as(SCAN_VARIANTS[0], full, m, rows);
    let repeated = |full: bool, m: usize, rows: Range<usize>| {
        rows.step_by(64).for_each(|_| scan(full, m, 0..64));
    };
    let tighten_part = |part: Range<usize>| {
        let part = &ids[part];
        let (mut approx, mut bound) = (vec![0f32; part.len()], vec![0f32; part.len()]);
        tighten_bounds(&planes, part, hidden[0], &mut approx, &mut bound);
        black_box((approx, bound));
    };
    let (approx, bound) = (vec![0.5f32; VOCAB], vec![1.0f32; VOCAB]);
    let select = |rows: Range<usize>| {
        let mut top = TopLower::new(40);
        top.take(&approx[rows.clone()], &bound[rows.clone()]);
        let mut out = Vec::new();
        extend_shortlist(2.0, &approx[rows.clone()], &bound[rows], 0, &mut out);
        black_box(out);
    };
    let side = layout.blocks() + 16;
    let (one, two) = (layout.plane_row_bytes() + side, 2 * layout.plane_row_bytes() + side);
    type Work<'a> = Box<dyn Fn(Range<usize>) + Sync + 'a>;
    let mut alternatives: Vec<(&str, usize, usize, Work)> = vec![
        ("plain read of the high plane", VOCAB, layout.plane_row_bytes(), Box::new(read)),
        ("high plane, 1 state", VOCAB, one, Box::new(|rows| scan(false, 1, rows))),
        ("high plane, 2 states", VOCAB, one, Box::new(|rows| scan(false, 2, rows))),
        ("high plane, 4 states", VOCAB, one, Box::new(|rows| scan(false, 4, rows))),
        ("both planes, 1 state", VOCAB, two, Box::new(|rows| scan(true, 1, rows))),
        ("both planes, 4 states", VOCAB, two, Box::new(|rows| scan(true, 4, rows))),
        ("high plane, 1 state, in L2", REPEATED, one, Box::new(|rows| repeated(false, 1, rows))),
        ("high plane, 2 states, in L2", REPEATED, one, Box::new(|rows| repeated(false, 2, rows))),
        ("high plane, 4 states, in L2", REPEATED, one, Box::new(|rows| repeated(false, 4, rows))),
        ("both planes, 1 state, in L2", REPEATED, two, Box::new(|rows| repeated(true, 1, rows))),
        ("both planes, 4 states, in L2", REPEATED, two, Box::new(|rows| repeated(true, 4, rows))),
        ("tightening every 32nd row", ids.len(), two, Box::new(tighten_part)),
        ("selecting", VOCAB, 8, Box::new(select)),
    ];
    for &variant in &variants {
        let scan_as = &scan_as;
        let repeated =
            move |full, rows: Range<usize>| rows.step_by(64).for_each(|_| scan_as(variant, full, 1, 0..64));
        let name = |what: &str| -> &'static str {
            format!("{what}, {} rows, {} and {} ahead", variant.rows, variant.far, variant.near).leak()
        };
        alternatives.extend([
            (name("high plane"), VOCAB, one, Box::new(move |rows| scan_as(variant, false, 1, rows)) as Work),
            (name("both planes"), VOCAB, two, Box::new(move |rows| scan_as(variant, true, 1, rows))),
            (name("high plane in L2"), REPEATED, one, Box::new(move |rows| repeated(false, rows))),
            (name("both planes in L2"), REPEATED, two, Box::new(move |rows| repeated(true, rows))),
        ]);
    }
    let mut times = vec![Vec::new(); alternatives.len()];
    for _ in 0..ROUNDS {
        for (times, (_, rows, _, work)) in times.iter_mut().zip(&alternatives) {
            let start = Instant::now();
            shared(threads, *rows, work);
            times.push(start.elapsed().as_secs_f64());
        }
    }
    for (times, (name, rows, bytes, _)) in times.iter_mut().zip(&alternatives) {
        times.sort_by(f64::total_cmp);
        let rate = |t: f64| (rows * bytes) as f64 / t / 1e9;
        let (median, best) = (times[ROUNDS / 2], times[0]);
        println!(
            "{name:48} median {:8.3} ms {:6.1} GB/s, best {:8.3} ms {:6.1} GB/s",
            median * 1e3,
            rate(median),
            best * 1e3,
            rate(best)
        );
    }
}
