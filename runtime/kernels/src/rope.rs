//! Rotary position embedding.

/// cos and sin of every angle, `[positions, head_dim / 2]` each.
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Tables for `positions` positions: `angle = position * inv_freq[i]` in f32, its cos and sin rounded from f64
    /// (so they do not depend on the platform's f32 library), times `scaling`.
    pub fn new(inv_freq: &[f32], scaling: f32, positions: usize) -> RopeTable {
        let angles = (0..positions).flat_map(|p| inv_freq.iter().map(move |f| f64::from(p as f32 * f)));
        let (cos, sin) = angles.map(|a| (a.cos() as f32 * scaling, a.sin() as f32 * scaling)).unzip();
        RopeTable { half: inv_freq.len(), cos, sin }
    }

    /// `head = head * cos + rotate_half(head) * sin` for one head `[head_dim]`, halves rotated against each other.
    ///
    /// # Panics
    /// If the head has another width or the position is outside the table.
    pub fn rotate(&self, head: &mut [f32], position: usize) {
        assert_eq!(head.len(), 2 * self.half);
        let at = position * self.half..(position + 1) * self.half;
        let (a, b) = head.split_at_mut(self.half);
        for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(&self.cos[at.clone()]).zip(&self.sin[at]) {
            (*a, *b) = (*a * cos + -*b * sin, *b * cos + *a * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    #[test]
    fn rotates_halves_by_position_times_frequency() {
        let inv_freq = [1.0f32, 0.25, 0.01];
        let table = RopeTable::new(&inv_freq, 1.0, 50);
        for position in [0, 1, 49] {
            let original = floats(6, 4);
            let mut head = original.clone();
            table.rotate(&mut head, position);
            for i in 0..3 {
                let (sin, cos) = (position as f64 * f64::from(inv_freq[i])).sin_cos();
                let (x, y) = (f64::from(original[i]), f64::from(original[i + 3]));
                assert!((f64::from(head[i]) - (x * cos - y * sin)).abs() < 1e-5);
                assert!((f64::from(head[i + 3]) - (y * cos + x * sin)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn scaling_multiplies_the_result_and_positions_are_rounded_in_f32() {
        let head = floats(2, 5);
        let mut rotated = head.clone();
        // The angle is the f32 product, which at this position is 0.0065 from the exact one.
        let (frequency, position) = (0.7f32, 500_001);
        RopeTable::new(&[frequency], 0.5, position + 1).rotate(&mut rotated, position);
        let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
        let (x, y) = (f64::from(head[0]), f64::from(head[1]));
        assert!((f64::from(rotated[0]) - 0.5 * (x * cos - y * sin)).abs() < 1e-6);
        assert!((f64::from(rotated[1]) - 0.5 * (y * cos + x * sin)).abs() < 1e-6);
    }
}
