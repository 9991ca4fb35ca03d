//! Turns the integer sums of a ternary product into the values that a step stores: scale, residual, gate.
//!
//! Slices hold the rows of one tile, or those of one segment in it, while the sums are in L1. The functions on single
//! values say what is computed; those on slices give the same bits.

mod groups;

pub use groups::{GroupSums, WeightScales, add_groups, add_groups_reference};

use crate::exp::exp;
use crate::isa::{Isa, Tier, dispatch};
use trit_format::plan::{Activation, ScaleRule};

/// What turns a sum into a float: the activations' factor `s`, the weights' stored scale `w`, and whether to multiply
/// or divide by it.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The factor the activation row was quantized with.
    pub s: f32,
    /// The segment's scale.
    pub w: f32,
    /// Whether sums are multiplied by `w` or divided by it.
    pub rule: ScaleRule,
}

/// The float of an integer sum, given the activations' factor `s` and the weights' scale `w`.
///
/// Source: transformers, `integrations/bitnet.py`. The checkpoint says which rule holds.
#[inline(always)]
pub fn scale(sum: i32, s: f32, w: f32, rule: ScaleRule) -> f32 {
    match rule {
        ScaleRule::Multiply => sum as f32 / s * w,
        ScaleRule::Divide => sum as f32 / (s * w),
        // Validation refuses rules this runtime does not know.
        _ => unreachable!("{rule:?}"),
    }
}

/// `max(x, 0)^2`; NaN for NaN.
#[inline(always)]
pub fn relu2(x: f32) -> f32 {
    // This is not `max`, because `max` would turn NaN into 0.
    let x = if x < 0.0 { 0.0 } else { x };
    x * x
}

/// `x / (1 + exp(-x))`, within 3 units in the last place.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `0.5 * x * (1 + tanh(u))` with `u = sqrt(2 / pi) * (x + 0.044715 * x^3)`. It is computed as `x / (1 + exp(-2 u))`,
/// which loses no precision where the hyperbolic tangent is near -1.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    // 2 * sqrt(2 / pi).
    const FACTOR: f32 = 1.595_769_2;
    x / (1.0 + exp(-FACTOR * (x + 0.044_715 * (x * x * x))))
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The gate's activation function of one value.
#[inline(always)]
pub fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Relu2 => relu2(x),
        Activation::Silu => silu(x),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::Sigmoid => sigmoid(x),
        // Validation refuses activations this runtime does not know.
        other => unreachable!("{other:?}"),
    }
}

/// `out[i] = scale(sums[i])`.
///
/// # Panics
/// If the lengths differ.
pub fn store(sums: &[i32], by: Scale, out: &mut [f32]) {
    assert_eq!(sums.len(), out.len());
    store_all(Tier::best(), sums, by, out);
}

/// `out[i] += scale(sums[i])`.
///
/// # Panics
/// If the lengths differ.
pub fn add(sums: &[i32], by: Scale, out: &mut [f32]) {
    assert_eq!(sums.len(), out.len());
    add_all(Tier::best(), sums, by, out);
}

/// `out[i] = activation(scale(gate[i])) * scale(up[i])`.
///
/// # Panics
/// If `gate` or `up` is shorter than `out`.
pub fn gate(activation: Activation, gate: &[i32], gate_by: Scale, up: &[i32], up_by: Scale, out: &mut [f32]) {
    let (gate, up) = (&gate[..out.len()], &up[..out.len()]);
    gate_all(Tier::best(), activation, gate, gate_by, up, up_by, out);
}

/// `out[i] = activation(gate[i]) * up[i]`.
///
/// # Panics
/// If `gate` or `up` is shorter than `out`.
pub fn gate_values(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let (gate, up) = (&gate[..out.len()], &up[..out.len()]);
    gate_all_values(Tier::best(), activation, gate, up, out);
}

/// `out[i] += values[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn add_values(values: &[f32], out: &mut [f32]) {
    assert_eq!(values.len(), out.len());
    out.iter_mut().zip(values).for_each(|(y, x)| *y += x);
}

dispatch!(fn gate_all_values(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) = gate_values_body);
dispatch!(fn store_all(sums: &[i32], by: Scale, out: &mut [f32]) = store_body);
dispatch!(fn add_all(sums: &[i32], by: Scale, out: &mut [f32]) = add_body);
dispatch!(
    fn gate_all(activation: Activation, gate: &[i32], gate_by: Scale, up: &[i32], up_by: Scale, out: &mut [f32]) =
        gate_body
);

#[inline(always)]
fn store_body<I: Isa>(_isa: I, sums: &[i32], Scale { s, w, rule }: Scale, out: &mut [f32]) {
    for (y, &sum) in out.iter_mut().zip(sums) {
        *y = scale(sum, s, w, rule);
    }
}

#[inline(always)]
fn add_body<I: Isa>(_isa: I, sums: &[i32], Scale { s, w, rule }: Scale, out: &mut [f32]) {
    for (y, &sum) in out.iter_mut().zip(sums) {
        *y += scale(sum, s, w, rule);
    }
}

#[inline(always)]
fn gate_body<I: Isa>(
    _: I,
    activation: Activation,
    gate: &[i32],
    g: Scale,
    up: &[i32],
    u: Scale,
    out: &mut [f32],
) {
    // The choice stands outside the loop, so that the loop vectorizes.
    match activation {
        Activation::Relu2 => gate_with(relu2, gate, g, up, u, out),
        Activation::Silu => gate_with(silu, gate, g, up, u, out),
        Activation::GeluTanh => gate_with(gelu_tanh, gate, g, up, u, out),
        Activation::Sigmoid => gate_with(sigmoid, gate, g, up, u, out),
        // Validation refuses activations this runtime does not know.
        other => unreachable!("{other:?}"),
    }
}

#[inline(always)]
fn gate_values_body<I: Isa>(_: I, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match activation {
        Activation::Relu2 => gate_values_with(relu2, gate, up, out),
        Activation::Silu => gate_values_with(silu, gate, up, out),
        Activation::GeluTanh => gate_values_with(gelu_tanh, gate, up, out),
        Activation::Sigmoid => gate_values_with(sigmoid, gate, up, out),
        // Validation refuses activations this runtime does not know.
        other => unreachable!("{other:?}"),
    }
}

#[inline(always)]
fn gate_values_with(f: impl Fn(f32) -> f32, gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((y, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *y = f(gate) * up;
    }
}

#[inline(always)]
fn gate_with(f: impl Fn(f32) -> f32, gate: &[i32], g: Scale, up: &[i32], u: Scale, out: &mut [f32]) {
    for ((y, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *y = f(scale(gate, g.s, g.w, g.rule)) * scale(up, u.s, u.w, u.rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn scales_in_the_stated_direction() {
        assert_eq!(scale(6, 2.0, 0.5, ScaleRule::Multiply), 1.5);
        assert_eq!(scale(6, 2.0, 0.5, ScaleRule::Divide), 6.0);
        // Each step is rounded where transformers rounds it.
        let (sum, s, w) = (1_234_567, 3.3f32, 0.7f32);
        assert_eq!(scale(sum, s, w, ScaleRule::Multiply), (1_234_567f32 / 3.3) * 0.7);
        assert_eq!(scale(sum, s, w, ScaleRule::Divide), 1_234_567f32 / (3.3 * 0.7));
    }

    #[test]
    fn gate_functions() {
        assert_eq!((relu2(-3.0), relu2(0.0), relu2(3.0)), (0.0, 0.0, 9.0));
        assert_eq!((silu(0.0), silu(-1000.0), silu(1000.0)), (0.0, 0.0, 1000.0));
        assert!(relu2(f32::NAN).is_nan() && silu(f32::NAN).is_nan());
        for i in -8000..=8000 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(silu(x)) - exact).abs() <= 3.0 * f64::from(f32::EPSILON) * exact.abs(), "{x}");
        }
        assert_eq!((gelu_tanh(0.0), gelu_tanh(-1e30), gelu_tanh(1e30)), (0.0, -0.0, 1e30));
        assert!(gelu_tanh(f32::NAN).is_nan());
        for i in -1000..=1000 {
            let x = i as f32 * 0.01;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (f64::from(x) + 0.044715 * f64::from(x).powi(3));
            let exact = f64::from(x) / (1.0 + (-2.0 * u).exp());
            // The exponent is off by a few of its own roundings, and the exponential turns that into a relative error.
            let units = 4.0 + 4.0 * u.abs();
            assert!(
                (f64::from(gelu_tanh(x)) - exact).abs() <= units * f64::from(f32::EPSILON) * exact.abs(),
                "{x}"
            );
        }
    }

    #[test]
    fn slices_are_their_values_on_every_tier() {
        let mut random = Random(17);
        for n in [0, 1, 7, 16, 40, 80, 81] {
            let mut sums = || (0..n).map(|_| (random.next() % 4001) as i32 - 2000).collect::<Vec<i32>>();
            let (gate_sums, up_sums) = (sums(), sums());
            for rule in [ScaleRule::Multiply, ScaleRule::Divide] {
                let (a, b) = (Scale { s: 130.7, w: 0.37, rule }, Scale { s: 130.7, w: 1.9, rule });
                let one = |sum: i32, by: Scale| scale(sum, by.s, by.w, by.rule);
                for tier in Tier::supported() {
                    let mut out = vec![0.5; n];
                    add_all(tier, &up_sums, a, &mut out);
                    assert_eq!(out, up_sums.iter().map(|&v| 0.5 + one(v, a)).collect::<Vec<_>>());
                    store_all(tier, &up_sums, b, &mut out);
                    assert_eq!(out, up_sums.iter().map(|&v| one(v, b)).collect::<Vec<_>>());
                    for activation in [Activation::Relu2, Activation::Silu, Activation::GeluTanh] {
                        let (g, u): (Vec<f32>, Vec<f32>) =
                            gate_sums.iter().zip(&up_sums).map(|(&g, &u)| (one(g, a), one(u, b))).unzip();
                        let mut of_values = vec![0.5; n];
                        gate_all_values(tier, activation, &g, &u, &mut of_values);
                        gate_all(tier, activation, &gate_sums, a, &up_sums, b, &mut out);
                        let value = |(&g, &u): (&i32, &i32)| activate(activation, one(g, a)) * one(u, b);
                        assert_eq!(
                            out,
                            gate_sums.iter().zip(&up_sums).map(value).collect::<Vec<_>>(),
                            "{tier:?}"
                        );
                        assert_eq!(out, of_values, "{tier:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_public_functions_do_the_same() {
        let by = Scale { s: 2.0, w: 0.5, rule: ScaleRule::Multiply };
        let mut out = [1.0; 2];
        add(&[4, 8], by, &mut out);
        assert_eq!(out, [2.0, 3.0]);
        store(&[4, 8], by, &mut out);
        assert_eq!(out, [1.0, 2.0]);
        gate(Activation::Relu2, &[8, -8, 1], by, &[4, 4, 1], by, &mut out);
        assert_eq!(out, [4.0, 0.0]);
    }
}
