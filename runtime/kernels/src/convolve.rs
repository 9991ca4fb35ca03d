//! A causal convolution of single channels over consecutive rows of a sequence.

use crate::epilogue::activate;
use crate::isa::{Isa, LANES, Tier, dispatch};
use trit_format::plan::Activation;

/// Channels of one sequence.
pub struct Convolution<'a> {
    /// `[taps, channels]`: row `j` begins at `j * weight_stride`. The last row is that of the current input.
    pub weight: &'a [f32],
    /// Elements from one tap's weights to the next tap's.
    pub weight_stride: usize,
    /// Number of taps, at least 1.
    pub taps: usize,
    /// Number of channels.
    pub channels: usize,
    /// The function of the sums.
    pub activation: Activation,
}

impl Convolution<'_> {
    /// Computes one row: `out[c] = activation(sum over j, in order, of weight[j][c] * rows[j][c])`, products added by fused
    /// multiply-adds. `rows` are the inputs of the last `taps` rows, the current one last.
    ///
    /// # Panics
    /// If there are not as many rows as taps, or one is shorter than the channels.
    pub fn row(&self, rows: &[&[f32]], out: &mut [f32]) {
        assert!(rows.len() == self.taps && out.len() == self.channels);
        convolve(Tier::best(), self.weight, self.weight_stride, rows, self.activation, out);
    }
}

dispatch!(fn convolve(weight: &[f32], stride: usize, rows: &[&[f32]], activation: Activation, out: &mut [f32]) = convolve_body);

#[inline(always)]
fn convolve_body<I: Isa>(
    isa: I,
    weight: &[f32],
    stride: usize,
    rows: &[&[f32]],
    activation: Activation,
    out: &mut [f32],
) {
    let (vectors, rest) = out.as_chunks_mut::<LANES>();
    let done = vectors.len() * LANES;
    for (v, out) in vectors.iter_mut().enumerate() {
        let mut sum = isa.splat(0.0);
        for (j, row) in rows.iter().enumerate() {
            let at = |x: &[f32], from: usize| -> [f32; LANES] {
                let mut lanes = [0.0; LANES];
                lanes.copy_from_slice(&x[from..from + LANES]);
                lanes
            };
            let (w, x) = (at(weight, j * stride + v * LANES), at(row, v * LANES));
            sum = isa.mul_add(isa.load(&w), isa.load(&x), sum);
        }
        isa.store(sum, out);
    }
    for (i, out) in rest.iter_mut().enumerate() {
        let c = done + i;
        // One lane of the vectors above.
        let mut lanes = [0.0; LANES];
        let mut sum = isa.splat(0.0);
        for (j, row) in rows.iter().enumerate() {
            sum = isa.mul_add(isa.splat(weight[j * stride + c]), isa.splat(row[c]), sum);
        }
        isa.store(sum, &mut lanes);
        *out = lanes[0];
    }
    // The choice stands outside the loop, so that the loop vectorizes.
    match activation {
        Activation::Silu => out.iter_mut().for_each(|x| *x = activate(Activation::Silu, *x)),
        other => out.iter_mut().for_each(|x| *x = activate(other, *x)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    #[test]
    fn is_the_sum_of_its_definition_with_the_same_bits_on_every_tier() {
        for channels in [1, 7, 16, 33, 100, 128] {
            for taps in [1, 2, 4] {
                let weight = floats(taps * (channels + 5), 1);
                let rows: Vec<Vec<f32>> = (0..taps).map(|j| floats(channels, 10 + j as u64)).collect();
                let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                let mut out = vec![0.0; channels];
                let convolution = Convolution {
                    weight: &weight,
                    weight_stride: channels + 5,
                    taps,
                    channels,
                    activation: Activation::Silu,
                };
                convolution.row(&rows, &mut out);
                for c in 0..channels {
                    let product =
                        |j: usize| f64::from(weight[j * (channels + 5) + c]) * f64::from(rows[j][c]);
                    let sum: f64 = (0..taps).map(product).sum();
                    let expected = sum / (1.0 + (-sum).exp());
                    assert!((f64::from(out[c]) - expected).abs() < 1e-5, "{c}: {} {expected}", out[c]);
                }
                for tier in Tier::supported() {
                    let mut again = vec![0.0; channels];
                    convolve(tier, &weight, channels + 5, &rows, Activation::Silu, &mut again);
                    assert_eq!(again, out, "{tier:?} {channels} {taps}");
                }
            }
        }
    }
}
