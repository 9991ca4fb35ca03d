//! The rotation of activations that belongs to weights in a rotated basis: signs, and the Walsh-Hadamard transform of
//! blocks of elements.
//!
//! `H[i][j] = (-1)^(ones of i & j) / sqrt(block)` in natural order. The transform takes `log2(block)` stages of sums and
//! differences, those of neighbours first, each rounded once; the factor is multiplied at the end.

use crate::isa::{Isa, LANES, Tier, dispatch};

/// `x = H (signs * x)` in place, `[n]`; without `signs`, `x = H x`.
///
/// # Panics
/// If `block` is no power of two that divides the length, or if there are signs of another length.
pub fn rotate(x: &mut [f32], signs: Option<&[f32]>, block: usize) {
    check(x, signs, block);
    if let Some(signs) = signs {
        x.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
    }
    transform(Tier::best(), x, block);
}

/// `x = signs * (H x)` in place, which undoes [`rotate`].
///
/// # Panics
/// As [`rotate`].
pub fn unrotate(x: &mut [f32], signs: Option<&[f32]>, block: usize) {
    check(x, signs, block);
    transform(Tier::best(), x, block);
    if let Some(signs) = signs {
        x.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
    }
}

fn check(x: &[f32], signs: Option<&[f32]>, block: usize) {
    assert!(block.is_power_of_two() && x.len().is_multiple_of(block));
    assert!(signs.is_none_or(|signs| signs.len() == x.len()));
}

dispatch!(fn transform(x: &mut [f32], block: usize) = transform_body);

#[inline(always)]
fn transform_body<I: Isa>(isa: I, x: &mut [f32], block: usize) {
    let factor = (1.0 / (block as f64).sqrt()) as f32;
    for x in x.chunks_exact_mut(block) {
        match x.as_chunks_mut::<LANES>() {
            (vectors, []) => {
                for vector in vectors.iter_mut() {
                    inside(vector);
                }
                across(isa, vectors, factor);
            }
            _ => small(x, factor),
        }
    }
}

/// The stages between the lanes of one vector.
#[inline(always)]
fn inside(x: &mut [f32; LANES]) {
    stage::<1>(x);
    stage::<2>(x);
    stage::<4>(x);
    stage::<8>(x);
}

/// One stage: lane `i` without bit `HALF` becomes the sum, with it the difference. It is written without branches, as
/// one shuffle and one sum, so that it vectorizes.
#[inline(always)]
fn stage<const HALF: usize>(x: &mut [f32; LANES]) {
    let old = *x;
    for i in 0..LANES {
        // `a - b` is `a + -b`, exactly.
        let sign = if i & HALF == 0 { 1.0 } else { -1.0 };
        x[i] = old[i ^ HALF] + sign * old[i];
    }
}

/// The stages between whole vectors, two at a time, so that memory is gone over half as often.
#[inline(always)]
fn across<I: Isa>(isa: I, x: &mut [[f32; LANES]], factor: f32) {
    let minus = isa.splat(-1.0);
    let sub = |a, b| isa.add(a, isa.mul(minus, b));
    let mut half = 1;
    while 4 * half <= x.len() {
        for run in x.chunks_exact_mut(4 * half) {
            let (low, high) = run.split_at_mut(2 * half);
            let ((a, b), (c, d)) = (low.split_at_mut(half), high.split_at_mut(half));
            for i in 0..half {
                let (va, vb, vc, vd) = (isa.load(&a[i]), isa.load(&b[i]), isa.load(&c[i]), isa.load(&d[i]));
                let (ab, ba, cd, dc) = (isa.add(va, vb), sub(va, vb), isa.add(vc, vd), sub(vc, vd));
                isa.store(isa.add(ab, cd), &mut a[i]);
                isa.store(isa.add(ba, dc), &mut b[i]);
                isa.store(sub(ab, cd), &mut c[i]);
                isa.store(sub(ba, dc), &mut d[i]);
            }
        }
        half *= 4;
    }
    if 2 * half <= x.len() {
        let (low, high) = x.split_at_mut(half);
        for (a, b) in low.iter_mut().zip(high) {
            let (va, vb) = (isa.load(a), isa.load(b));
            isa.store(isa.add(va, vb), a);
            isa.store(sub(va, vb), b);
        }
    }
    let factor = isa.splat(factor);
    for vector in x {
        isa.store(isa.mul(isa.load(vector), factor), vector);
    }
}

/// A block of fewer than sixteen elements.
#[inline(always)]
fn small(x: &mut [f32], factor: f32) {
    let mut half = 1;
    while half < x.len() {
        for run in x.chunks_exact_mut(2 * half) {
            let (low, high) = run.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    x.iter_mut().for_each(|x| *x *= factor);
}

/// `H x` of one block by its definition in f64, for tests.
pub fn reference(x: &[f32]) -> Vec<f32> {
    let factor = 1.0 / (x.len() as f64).sqrt();
    let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    let row = |i: usize| x.iter().enumerate().map(|(j, x)| sign(i, j) * f64::from(*x)).sum::<f64>();
    (0..x.len()).map(|i| (row(i) * factor) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    #[test]
    fn is_the_transform_of_its_definition_with_the_same_bits_on_every_tier() {
        for block in [1, 2, 4, 8, 16, 32, 64, 128, 512, 1024, 2048] {
            let x = floats(3 * block, 5);
            let mut ours = x.clone();
            rotate(&mut ours, None, block);
            for (ours, x) in ours.chunks(block).zip(x.chunks(block)) {
                for (a, b) in ours.iter().zip(reference(x)) {
                    assert!((a - b).abs() < 2e-6, "{block}: {a} {b}");
                }
            }
            for tier in Tier::supported() {
                let mut again = x.clone();
                transform(tier, &mut again, block);
                assert_eq!(again, ours, "{tier:?} {block}");
            }
        }
    }

    #[test]
    fn the_way_back_undoes_it() {
        let signs: Vec<f32> = floats(512, 3).iter().map(|x| if *x < 0.0 { -1.0 } else { 1.0 }).collect();
        let x = floats(512, 4);
        let mut there = x.clone();
        rotate(&mut there, Some(&signs), 128);
        assert!(there.iter().zip(&x).any(|(a, b)| (a - b).abs() > 0.1));
        unrotate(&mut there, Some(&signs), 128);
        assert!(there.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
