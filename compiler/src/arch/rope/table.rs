//! Frequencies as transformers computes them: with torch's f32 operations in torch's order. In torch, a number
//! divided by a tensor is the product of the number and the reciprocal.

use crate::arch::rope::RopeConfig;
use crate::arch::rope::scaling::{LongRope, Scaling, Yarn};
use crate::model;
use std::f64::consts::PI;

impl RopeConfig {
    /// The `head_dim / 2` frequencies of a bundle for texts of up to `context` tokens, and the factor on cos and sin.
    pub(crate) fn table(&self, context: u32) -> model::Rope {
        let head_dim = self.inputs.head_dim;
        let base = f64::from(self.base() as f32);
        let powers = (0..head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            // The f32 power is rounded from f64, so that it is the same on every platform.
            base.powf(f64::from(exponent)) as f32
        });
        let plain = powers.clone().map(|power| 1.0 / power);
        let mut scaling = 1.0;
        let inv_freq = match &self.scaling {
            Scaling::Default | Scaling::Alpha { .. } => plain.collect(),
            Scaling::Linear { factor } => plain.map(|f| f / *factor as f32).collect(),
            Scaling::Llama3 { factor, low, high, original } => {
                plain.map(|f| llama3(f, *factor, [*low, *high], *original)).collect()
            }
            Scaling::Yarn(yarn) => {
                scaling = yarn.attention as f32;
                let (low, high) = yarn.range(f64::from(head_dim), self.theta);
                let ramp = |(i, power)| yarn.ramped(i, power, low, high);
                powers.enumerate().map(ramp).collect()
            }
            Scaling::LongRope(long) => {
                scaling = long.attention as f32;
                long.divisors(context)
                    .iter()
                    .zip(powers)
                    .map(|(&x, power)| 1.0 / (x as f32 * power))
                    .collect()
            }
        };
        model::Rope { inv_freq, scaling }
    }
}

impl RopeConfig {
    /// What powers are taken of.
    fn base(&self) -> f64 {
        match self.scaling {
            Scaling::Alpha { alpha } => {
                let head_dim = f64::from(self.inputs.head_dim);
                // Not of the platform's library, so that it is the same on every platform.
                self.theta * libm::pow(alpha, head_dim / (head_dim - 2.0))
            }
            _ => self.theta,
        }
    }
}

fn llama3(f: f32, factor: f64, [low, high]: [f64; 2], original: f64) -> f32 {
    let wavelength = (1.0 / f) * (2.0 * PI) as f32;
    if wavelength > (original / low) as f32 {
        f / factor as f32
    } else if wavelength < (original / high) as f32 {
        f
    } else {
        let smooth = ((1.0 / wavelength) * original as f32 - low as f32) / (high - low) as f32;
        (1.0 - smooth) * f / factor as f32 + smooth * f
    }
}

impl Yarn {
    /// Where the ramp begins and ends, in frequencies.
    fn range(&self, head_dim: f64, theta: f64) -> (f64, f64) {
        let dimension =
            |rotations: f64| head_dim * (self.original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (dimension(self.beta_fast), dimension(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(head_dim - 1.0));
        // As in transformers, this avoids a division by zero.
        (low, if low == high { high + 0.001 } else { high })
    }

    /// The frequency of index `i`, whose plain one is `1 / power`.
    fn ramped(&self, i: usize, power: f32, low: f64, high: f64) -> f32 {
        let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let plain = 1.0 - ramp;
        1.0 / (self.factor as f32 * power) * (1.0 - plain) + 1.0 / power * plain
    }
}

impl LongRope {
    fn divisors(&self, context: u32) -> &[f64] {
        if context > self.original { &self.long } else { &self.short }
    }
}
