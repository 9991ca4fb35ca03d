//! Rotary position embedding.

use crate::isa::{Isa, Tier, dispatch};

/// Cosine and sine of every angle, `[positions, n]` each.
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Tables for `positions` positions: `angle = position * inv_freq[i]` in f32, and its cosine and sine times
    /// `scaling`. They are rounded from f64, so that they do not depend on the platform's f32 library.
    pub fn new(inv_freq: &[f32], scaling: f32, positions: usize) -> RopeTable {
        let angles = (0..positions).flat_map(|p| inv_freq.iter().map(move |f| f64::from(p as f32 * f)));
        let (cos, sin) = angles.map(|a| (a.cos() as f32 * scaling, a.sin() as f32 * scaling)).unzip();
        RopeTable { half: inv_freq.len(), cos, sin }
    }

    /// How many elements of a head are rotated.
    pub fn width(&self) -> usize {
        2 * self.half
    }

    /// `head = head * cos + rotate_half(head) * sin` for each of the consecutive heads `[n, head_dim]`. Element `i` is
    /// rotated together with element `i + n`.
    ///
    /// # Panics
    /// If there is no whole number of heads or the position is outside the table.
    pub fn rotate(&self, heads: &mut [f32], position: usize) {
        assert!(heads.len().checked_rem(2 * self.half).unwrap_or(heads.len()) == 0);
        let at = position * self.half..(position + 1) * self.half;
        rotate_heads(Tier::best(), heads, &self.cos[at.clone()], &self.sin[at]);
    }
}

dispatch!(fn rotate_heads(heads: &mut [f32], cos: &[f32], sin: &[f32]) = rotate_heads_body);

#[inline(always)]
fn rotate_heads_body<I: Isa>(_isa: I, heads: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in heads.chunks_exact_mut((2 * cos.len()).max(1)) {
        let (a, b) = head.split_at_mut(cos.len());
        for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
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
    fn heads_together_are_heads_alone_on_every_tier() {
        for half in [1, 3, 16, 32, 50, 64] {
            let table = RopeTable::new(&floats(half, 8), 1.5, 8);
            let heads = floats(6 * half, 9);
            let mut alone = heads.clone();
            alone.chunks_mut(2 * half).for_each(|head| table.rotate(head, 7));
            assert_ne!(alone, heads);
            let at = 7 * half..8 * half;
            for tier in Tier::supported() {
                let mut together = heads.clone();
                rotate_heads(tier, &mut together, &table.cos[at.clone()], &table.sin[at.clone()]);
                assert_eq!(together, alone, "{tier:?} half={half}");
            }
        }
    }

    #[test]
    fn scaling_multiplies_the_result_and_positions_are_rounded_in_f32() {
        let head = floats(2, 5);
        let mut rotated = head.clone();
        // The angle is the f32 product, which differs by 0.0065 from the exact one at this position.
        let (frequency, position) = (0.7f32, 500_001);
        RopeTable::new(&[frequency], 0.5, position + 1).rotate(&mut rotated, position);
        let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
        let (x, y) = (f64::from(head[0]), f64::from(head[1]));
        assert!((f64::from(rotated[0]) - 0.5 * (x * cos - y * sin)).abs() < 1e-6);
        assert!((f64::from(rotated[1]) - 0.5 * (y * cos + x * sin)).abs() < 1e-6);
    }
}
