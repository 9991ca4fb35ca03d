//! Throughput of attention on one thread: `cargo run --release -p trit-kernels --example attention`.
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

/// Least seconds of one run of `work`, of several.
fn seconds(runs: usize, mut work: impl FnMut()) -> f64 {
    let time = |()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(|_| ()).map(time).fold(f64::INFINITY, f64::min)
}

fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// KV heads of one layer or more, one after the other.
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

fn prefill<T: KvElement>(name: &str, context: usize, rows: usize) {
    let cache = Cache::<T>::filled(1, context + rows);
    let q = floats(rows * GROUP * DIM);
    let mut out = vec![0.0; q.len()];
    let queries = Queries {
        q: &q,
        stride: GROUP * DIM,
        rows,
        group: GROUP,
        head_dim: DIM,
        visible: context + 1,
        scale: SCALE,
    };
    let mut scratch = AttendScratch::default();
    let macs: usize = (0..rows).map(|r| (context + 1 + r) * GROUP * DIM * 2).sum();
    let t = seconds((2_000_000_000 / macs).clamp(5, 50), || {
        let mut outs: Vec<&mut [f32]> = out.chunks_mut(GROUP * DIM).collect();
        attend_rows(&queries, &cache.head(0), &mut scratch, black_box(&mut outs));
    });
    println!(
        "prefill {name}, {rows} rows after {context:4}: {:7.1} G multiply-adds/s",
        macs as f64 / t / 1e9
    );
}

fn decode<T: KvElement>(name: &str, positions: usize, rows: usize) {
    // Many layers' worth, so that a pass does not find the cache in L2.
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
        scale: SCALE,
    };
    let mut scratch = AttendScratch::default();
    let mut partials = vec![0.0; queries.chunks() * queries.partial_len()];
    let t = seconds(7, || {
        for h in 0..heads {
            let head = cache.head(h);
            for (chunk, out) in partials.chunks_exact_mut(queries.partial_len()).enumerate() {
                partial(&queries, &head, chunk, &mut scratch, out);
            }
            for r in 0..rows {
                combine(&queries, r, &partials, black_box(&mut out));
            }
        }
    });
    let bytes = heads * positions * 2 * (DIM * size_of::<T>() + if T::SCALED { 4 } else { 0 });
    println!(
        "decode {name}, {rows} rows, {positions:4} positions: {:6.2} GB/s, {:6.2} ms for 30 layers of 5 heads",
        bytes as f64 / t / 1e9,
        t / heads as f64 * 150.0 * 1e3
    );
}

fn append<T: KvElement>(name: &str, rows: usize) {
    const HEADS: usize = 32;
    let mut cache = Cache::<T>::filled(HEADS, 512);
    let stride = HEADS * DIM;
    let x = floats(rows * stride);
    let mut same = cache.scales.clone();
    let t = seconds(50, || {
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
    let table = vec![1u64; 1 << 25];
    let t = seconds(5, || {
        let mut sums = [0u64; 8];
        for chunk in table.as_chunks::<8>().0 {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum ^= x;
            }
        }
        black_box(sums);
    });
    println!("plain read: {:6.2} GB/s", (table.len() * 8) as f64 / t / 1e9);
    drop(table);
    for context in [0, 3584] {
        prefill::<f32>("f32", context, 512);
        prefill::<f16>("f16", context, 512);
        prefill::<i8>("int8", context, 512);
    }
    prefill::<f16>("f16", 448, 64);
    for rows in [1, 4] {
        for positions in [512, 4096] {
            decode::<f32>("f32", positions, rows);
            decode::<f16>("f16", positions, rows);
            decode::<i8>("int8", positions, rows);
        }
    }
    for rows in [1, 64] {
        append::<f32>("f32", rows);
        append::<f16>("f16", rows);
        append::<i8>("int8", rows);
    }
}
