//! Integer sums to floats, and the gate's functions.

use trit_format::plan::ScaleRule;

/// The float of an integer sum, given the activations' factor `s` and the weights' scale `w`.
///
/// Source: transformers, `integrations/bitnet.py`; the direction is the checkpoint's.
#[inline(always)]
pub fn scale(sum: i32, s: f32, w: f32, rule: ScaleRule) -> f32 {
    match rule {
        ScaleRule::Multiply => sum as f32 / s * w,
        ScaleRule::Divide => sum as f32 / (s * w),
        // Validation refuses rules this runtime does not know.
        _ => unreachable!("{rule:?}"),
    }
}

/// `max(x, 0)^2`.
#[inline(always)]
pub fn relu2(x: f32) -> f32 {
    let x = x.max(0.0);
    x * x
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_in_the_stated_direction() {
        assert_eq!(scale(6, 2.0, 0.5, ScaleRule::Multiply), 1.5);
        assert_eq!(scale(6, 2.0, 0.5, ScaleRule::Divide), 6.0);
    }

    #[test]
    fn gate_functions() {
        assert_eq!(relu2(-3.0), 0.0);
        assert_eq!(relu2(3.0), 9.0);
        assert_eq!(silu(0.0), 0.0);
        assert!((silu(1.0) - 0.731_058_6).abs() < 1e-6);
        assert_eq!(silu(-1000.0), 0.0);
    }
}
