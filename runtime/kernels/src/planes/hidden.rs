//! A hidden state as two 8-bit digits per value, in the order in which rows of planes are multiplied with it.

use trit_format::planes::{LANES, Layout, MAX_BLOCK, MIN_C_FULL, MIN_C_HIGH, STEP};

/// Largest number of steps. Rounding does not exceed it, and its upper digit is at most 127.
const MOST: f32 = 32638.0;

/// The digits that are multiplied with one vector: first those for its low nibbles, then those for its high nibbles.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Digits {
    pub upper: [[i8; 64]; 2],
    pub lower: [[i8; 64]; 2],
}

/// What the sums of one chunk are combined with. Each lane is for one block.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Chunk {
    /// What a row's offset contributes for the high plane: -241 times the sum of the block's steps, in half steps.
    pub offset_high: [i32; LANES],
    /// What it contributes for both planes: -128 times the sum of the block's steps.
    pub offset_full: [i32; LANES],
    /// `u_b` with the least `c` of the high plane.
    pub norm_high: [f32; LANES],
    /// `u_b` with the least `c` of both planes.
    pub norm_full: [f32; LANES],
}

/// The chunk of a state that is zero.
pub(super) static EMPTY: Chunk = Chunk {
    offset_high: [0; LANES],
    offset_full: [0; LANES],
    norm_high: [0.0; LANES],
    norm_full: [0.0; LANES],
};

/// A hidden state, ready to be multiplied with rows of planes: `h ~ t * (256 * upper + lower)`. It is made once and
/// refilled for each token without allocating.
#[derive(Clone, Debug)]
pub struct Hidden {
    layout: Layout,
    /// `[vectors]`.
    pub(super) digits: Vec<Digits>,
    /// `[chunks]`.
    pub(super) chunks: Vec<Chunk>,
    /// The value of one step.
    pub(super) t: f32,
    /// The bound's factor is `c * c_factor + c_offset`.
    pub(super) c_factor: f32,
    /// See `c_factor`.
    pub(super) c_offset: f32,
}

impl Hidden {
    /// A hidden state of zeros for a table of that layout.
    pub fn new(layout: Layout) -> Hidden {
        let (n, chunks) = (layout.hidden() as f64, layout.chunks() as f64);
        let e1 = 1.01 * (n / 16.0 + chunks + 16.0) * 2f64.powi(-24);
        Hidden {
            layout,
            digits: vec![Digits { upper: [[0; 64]; 2], lower: [[0; 64]; 2] }; layout.vectors()],
            chunks: vec![EMPTY; layout.chunks()],
            t: 0.0,
            c_factor: round_up(1.0 + e1),
            c_offset: round_up(e1 * 128.0 * (MAX_BLOCK as f64).sqrt()),
        }
    }

    /// Takes `h`, `[hidden]`. Returns false where no bound would hold: for NaN, infinities, and a largest magnitude
    /// outside 2^-60..=2^60. The caller must then compute the whole product and must not use this state.
    ///
    /// # Panics
    /// If `h` has another length.
    #[must_use]
    pub fn prepare(&mut self, h: &[f32]) -> bool {
        assert_eq!(h.len(), self.layout.hidden());
        // Without their signs, floats are ordered as their bits are, NaN last.
        let max = f32::from_bits(h.iter().fold(0, |max, x| max.max(x.to_bits() & 0x7fff_ffff)));
        let powers = f32::from_bits((127 - 60) << 23)..=f32::from_bits((127 + 60) << 23);
        if !powers.contains(&max) {
            return false;
        }
        // Rounding may make the step a little too small or too large. That only changes `e`, which is computed below.
        let (t, inverse) = (max / MOST, MOST / max);
        self.t = t;
        let slack = 1.0 + 1.01 * (self.layout.chunks() as f64 + 16.0) * 2f64.powi(-24);
        for (c, chunk) in self.chunks.iter_mut().enumerate() {
            let width = self.layout.width(c);
            let first = c * (MAX_BLOCK / STEP);
            let most = 128.0 * (width as f64).sqrt();
            for lane in 0..LANES {
                let mut x = [0f32; MAX_BLOCK];
                let columns = self.layout.columns(c * LANES + lane);
                x[..columns.len()].copy_from_slice(&h[columns]);
                let (mut sum, mut square, mut error) = (0, 0f64, 0f64);
                for (v, x) in x[..width].as_chunks::<STEP>().0.iter().enumerate() {
                    let Digits { upper, lower } = &mut self.digits[first + v];
                    for (i, &x) in x.iter().enumerate() {
                        let g = nearest(x * inverse);
                        let (nibble, at) = (i / 4, lane * 4 + i % 4);
                        upper[nibble][at] = ((g + 128) >> 8) as i8;
                        // The low byte of `g` is the lower digit, because the rest is a multiple of 256.
                        lower[nibble][at] = g as i8;
                        sum += g;
                        // `t * g` is exact in f64. The other operations' errors are far below what `slack` leaves.
                        let (x, step) = (f64::from(x), f64::from(t) * f64::from(g));
                        square += x * x;
                        error += (x - step) * (x - step);
                    }
                }
                let norm = |c_min: f32| {
                    let factor = (most / f64::from(c_min)).max(1.0);
                    round_up(slack * (square.sqrt() + factor * error.sqrt()) + 2f64.powi(-120))
                };
                chunk.offset_high[lane] = -241 * sum;
                chunk.offset_full[lane] = -128 * sum;
                chunk.norm_high[lane] = norm(MIN_C_HIGH);
                chunk.norm_full[lane] = norm(MIN_C_FULL);
            }
        }
        true
    }
}

/// The nearest integer to `x`, for magnitudes below 2^22. Adding `MAGIC` makes a sum that has no bits for a fraction.
fn nearest(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// The least f32 that is not below `x`, for `x` above zero.
fn round_up(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}
