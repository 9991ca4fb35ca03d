//! Speed of the gated delta rule and of Hadamard rotations, one thread, at the sizes of a 27B hybrid: 48 layers of 48
//! value heads, keys and values of 128 elements.
//!
//!     cargo run --release -p trit-kernels --example delta
#![allow(clippy::unwrap_used)]

use std::time::Instant;
use trit_kernels::delta::{Changes, DeltaRows, StateMut, run, state_len};
use trit_kernels::hadamard::rotate;

const DIM: usize = 128;
/// Heads of all layers: their states are far larger than the caches.
const HEADS: usize = 48 * 48;

/// The least of several times, in seconds.
fn least(mut run: impl FnMut()) -> f64 {
    let times = (0..7).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

fn main() {
    let mut states = vec![0.01f32; HEADS * state_len(DIM, DIM)];
    let floats = |n: usize, seed: usize| -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 31) % 1009) as f32 / 5000.0 - 0.1).collect()
    };
    for rows in [1, 4, 64] {
        let (queries, keys) = (floats(rows * DIM, 1), floats(rows * DIM, 2));
        let (betas, decays) = (vec![0.5; rows], vec![0.9; rows]);
        let values: Vec<Vec<f32>> = (0..rows).map(|row| floats(DIM, row)).collect();
        let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
        let part = DeltaRows {
            key_dim: DIM,
            queries: &queries,
            keys: &keys,
            betas: &betas,
            decays: &decays,
            values: &values,
            kept: rows,
        };
        let mut outs = vec![vec![0.0; DIM]; rows];
        let mut scratch = Vec::new();
        let heads = if rows > 8 { 96 } else { HEADS };
        let seconds = least(|| {
            for state in states.chunks_exact_mut(state_len(DIM, DIM)).take(heads) {
                let mut outs: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
                run(&part, &Changes::default(), StateMut::F32(state), &mut outs, &mut [], &mut scratch);
            }
        });
        let bytes = (2 * heads * state_len(DIM, DIM) * 4) as f64;
        println!(
            "{rows:>3} rows: {:.2} us a head and row, {:.2} ms a token for all heads; the state at {:.1} GB/s, read and \
             written",
            seconds * 1e6 / (heads * rows) as f64,
            seconds * 1e3 / rows as f64 * (HEADS / heads) as f64,
            bytes / seconds / 1e9
        );
    }
    let mut x = floats(17408, 3);
    let seconds = least(|| (0..100).for_each(|_| rotate(&mut x, None, 1024))) / 100.0;
    println!("rotation of 17408 elements in blocks of 1024: {:.1} us", seconds * 1e6);
}
