//! Throughput of attention on one thread: `cargo run --release -p trit-kernels --example attention`,
//! with `prefill`, `decode` or `append` as an argument for one of them.
//!
//! Shapes are those of a 2B model: groups of 4 query heads over 5 KV heads of 128 elements.

use half::f16;
use std::hint::black_box;
use std::time::Instant;
use trit_kernels::attention::{
    AttendScratch, CHUNK, KvElement, KvHead, KvHeadMut, Queries, attend_rows, combine, padded_positions,
    partial,
};

const DIM: usize = 128;
const GROUP: usize = 4;
const SCALE: f32 = 0.088;

/// Seconds of a fast run of `work`: one run in twenty is faster. `work` is called with 0, 1, .. `n`, and then from 0 on
/// again. Runs of less than a millisecond are seldom interrupted, so other load matters little.
fn seconds(n: usize, repetitions: usize, mut work: impl FnMut(usize)) -> f64 {
    let time = |i| {
        let start = Instant::now();
        work(i % n);
        start.elapsed().as_secs_f64()
    };
    let mut times: Vec<f64> = (0..n * repetitions).map(time).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 20]
}

fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// The caches of the KV heads of one layer or more, one after the other.
struct Cache<T> {
    positions: usize,
    keys: Vec<T>,
    values: Vec<T>,
    scales: Vec<f32>,
}

impl<T: KvElement> Cache<T> {
    fn filled(heads: usize, positions: usize) -> Cache<T> {
        let positions = padded_positions(positions);
        let len = heads * positions * DIM;
        let scales = if T::SCALED { heads * positions } else { 0 };
        let (mut keys, mut values) = (vec![T::default(); len], vec![T::default(); len]);
        let mut scales = vec![1.0; scales];
        let rows = floats(positions * DIM);
        for h in 0..heads {
            let at = h * positions * DIM..(h + 1) * positions * DIM;
            let mut same = scales.clone();
            let s = if T::SCALED { h * positions..(h + 1) * positions } else { 0..0 };
            let mut head = KvHeadMut::new(
                &mut keys[at.clone()],
                &mut values[at],
                &mut scales[s.clone()],
                &mut same[s],
                DIM,
            );
            head.append(0, positions, &rows, &rows, DIM);
        }
        Cache { positions, keys, values, scales }
    }

    fn head(&self, h: usize) -> KvHead<'_, T> {
        let at = h * self.positions * DIM..(h + 1) * self.positions * DIM;
        let s = if T::SCALED { h * self.positions..(h + 1) * self.positions } else { 0..0 };
        KvHead::new(&self.keys[at.clone()], &self.values[at], &self.scales[s.clone()], &self.scales[s], DIM)
    }
}

/// Times a prompt in blocks of 64 rows, one block at a time.
fn prefill<T: KvElement>(name: &str, context: usize, rows: usize) {
    const BLOCK: usize = 64;
    let cache = Cache::<T>::filled(1, context + rows);
    let q = floats(rows * GROUP * DIM);
    let mut out = vec![0.0; q.len()];
    let mut scratch = AttendScratch::default();
    let mut total = 0.0;
    for (block, out) in out.chunks_mut(BLOCK * GROUP * DIM).enumerate() {
        let queries = Queries {
            q: &q[block * BLOCK * GROUP * DIM..],
            stride: GROUP * DIM,
            rows: BLOCK,
            group: GROUP,
            head_dim: DIM,
            visible: context + block * BLOCK + 1,
            window: usize::MAX,
            scale: SCALE,
        };
        let head = cache.head(0);
        total += seconds(1, 40, |_| {
            let mut outs: Vec<&mut [f32]> = out.chunks_mut(GROUP * DIM).collect();
            attend_rows(&queries, &|chunk| head.chunk(chunk), &mut scratch, black_box(&mut outs));
        });
    }
    let macs: usize = (0..rows).map(|r| (context + 1 + r) * GROUP * DIM * 2).sum();
    println!(
        "prefill {name}, {rows} rows after {context:4}: {:7.1} G multiply-adds/s",
        macs as f64 / total / 1e9
    );
}

fn decode<T: KvElement>(name: &str, positions: usize, rows: usize) {
    // There are heads of many layers, so that a pass does not find the cache in L2.
    let heads = (1 << 18) / positions;
    let cache = Cache::<T>::filled(heads, positions);
    let q = floats(rows * GROUP * DIM);
    let mut out = vec![0.0; GROUP * DIM];
    let queries = Queries {
        q: &q,
        stride: GROUP * DIM,
        rows,
        group: GROUP,
        head_dim: DIM,
        visible: positions + 1 - rows,
        window: usize::MAX,
        scale: SCALE,
    };
    let mut scratch = AttendScratch::default();
    let mut partials = vec![0.0; queries.chunks().len() * queries.partial_len()];
    let t = seconds(heads, 5, |h| {
        let head = cache.head(h);
        for (chunk, out) in partials.chunks_exact_mut(queries.partial_len()).enumerate() {
            partial(&queries, &head.chunk(chunk), chunk, &mut scratch, out);
        }
        for r in 0..rows {
            combine(&queries, r, &partials, black_box(&mut out));
        }
    });
    let bytes = positions * 2 * (DIM * size_of::<T>() + if T::SCALED { 4 } else { 0 });
    println!(
        "decode {name}, {rows} rows, {positions:4} positions: {:6.2} GB/s, {:6.2} ms for 30 layers of 5 heads",
        bytes as f64 / t / 1e9,
        t * 150.0 * 1e3
    );
}

fn append<T: KvElement>(name: &str, rows: usize) {
    const HEADS: usize = 32;
    let mut cache = Cache::<T>::filled(HEADS, 512);
    let stride = HEADS * DIM;
    let x = floats(rows * stride);
    let mut same = cache.scales.clone();
    let t = seconds(1, 50, |_| {
        for h in 0..HEADS {
            let at = h * 512 * DIM..(h + 1) * 512 * DIM;
            let s = if T::SCALED { h * 512..(h + 1) * 512 } else { 0..0 };
            let (keys, values) = (&mut cache.keys[at.clone()], &mut cache.values[at]);
            let mut head = KvHeadMut::new(keys, values, &mut cache.scales[s.clone()], &mut same[s], DIM);
            head.append(0, rows, &x[h * DIM..], &x[h * DIM..], stride);
        }
    });
    println!("append {name}, {rows:3} rows: {:6.1} ns a row of a head", t / (rows * HEADS) as f64 * 1e9);
}

fn main() {
    println!("chunks of {CHUNK} positions");
    const PART: usize = 1 << 14;
    let table = vec![1u64; 1 << 25];
    let t = seconds(table.len() / PART, 5, |i| {
        let mut sums = [0u64; 8];
        for chunk in table[i * PART..][..PART].as_chunks::<8>().0 {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum ^= x;
            }
        }
        black_box(sums);
    });
    println!("plain read: {:6.2} GB/s", (PART * 8) as f64 / t / 1e9);
    drop(table);
    let only = std::env::args().nth(1);
    let wants = |what: &str| only.as_ref().is_none_or(|only| only == what);
    if wants("prefill") {
        for context in [0, 3584] {
            prefill::<f32>("f32", context, 512);
            prefill::<f16>("f16", context, 512);
            prefill::<i8>("int8", context, 512);
        }
    }
    if wants("decode") {
        for (rows, positions) in [(1, 512), (1, 4096), (4, 512), (4, 4096)] {
            decode::<f32>("f32", positions, rows);
            decode::<f16>("f16", positions, rows);
            decode::<i8>("int8", positions, rows);
        }
    }
    if wants("append") {
        for rows in [1, 64] {
            append::<f32>("f32", rows);
            append::<f16>("f16", rows);
            append::<i8>("int8", rows);
        }
    }
}
