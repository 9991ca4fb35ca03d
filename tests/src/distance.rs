//! How far two vectors are apart.

/// Largest absolute difference; infinite where one side is no number or lengths differ.
pub fn max_abs(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let far = |d: f32| if d.is_nan() { f32::INFINITY } else { d };
    a.iter().zip(b).map(|(x, y)| far((x - y).abs())).fold(0.0, f32::max)
}

/// `|a - b| / |b|` in the L2 norm; infinite where one side is no number or lengths differ.
pub fn relative_l2(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = a.iter().zip(b).map(|(x, y)| square(x - y)).sum();
    let norm: f64 = b.iter().map(|&y| square(y)).sum();
    let distance = (error / norm).sqrt();
    if error == 0.0 {
        0.0
    } else if distance.is_nan() {
        f64::INFINITY
    } else {
        distance
    }
}

/// Index of the greatest element, and how far it is above the second.
///
/// # Panics
/// If `logits` has fewer than two elements.
pub fn top(logits: &[f32]) -> (u32, f32) {
    let best = (0..logits.len())
        .max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
        .expect("not empty");
    let second =
        (0..logits.len()).filter(|&i| i != best).map(|i| logits[i]).fold(f32::NEG_INFINITY, f32::max);
    (best as u32, logits[best] - second)
}

/// `-ln softmax(logits)[id]`.
pub fn nll(logits: &[f32], id: u32) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - max).exp()).sum();
    sum.ln() + max - f64::from(logits[id as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_wrong_passes_for_near() {
        assert_eq!(max_abs(&[1.0, 2.0], &[1.0, 2.5]), 0.5);
        assert_eq!(max_abs(&[f32::NAN], &[0.0]), f32::INFINITY);
        assert_eq!(max_abs(&[1.0], &[1.0, 1.0]), f32::INFINITY);
        assert_eq!(relative_l2(&[3.0, 4.0], &[0.0, 5.0]), (10f64 / 25.0).sqrt());
        assert_eq!(relative_l2(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(relative_l2(&[1.0], &[0.0]), f64::INFINITY);
        assert_eq!(top(&[1.0, 4.0, 2.5]), (1, 1.5));
        assert!((nll(&[0.0; 8], 3) - 8f64.ln()).abs() < 1e-12);
    }
}
