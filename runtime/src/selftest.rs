//! Does this machine compute what the bundle says it should?

use crate::ternary::run_portable;
use crate::{KvType, Model, RuntimeError, Session, SessionOptions};
use std::fmt;
use std::sync::Arc;
use trit_format::tile;
use trit_kernels::ternary;

/// Largest relative L2 distance of logits between two correct machines: int8 activations round differently where
/// f32 sums differ in their last bit, and each such flip spreads (about 1e-2 on trained models).
const TOLERANCE: f32 = 3e-2;

/// What was checked.
#[derive(Clone, Debug)]
pub struct SelftestReport {
    /// The kernels that were checked.
    pub kernels: String,
    /// Products whose portable kernel gave the reference's integers.
    pub products: usize,
    /// Relative L2 distance of each golden's logits.
    pub goldens: Vec<f32>,
    /// What went wrong; empty when all is well.
    pub failures: Vec<String>,
}

impl fmt::Display for SelftestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernels   {}", self.kernels)?;
        writeln!(f, "products  {} checked against the reference, integers equal", self.products)?;
        for (i, distance) in self.goldens.iter().enumerate() {
            writeln!(f, "golden {i}  relative L2 {distance:.1e} (allowed {TOLERANCE:.0e})")?;
        }
        self.failures.iter().try_for_each(|failure| writeln!(f, "FAILED    {failure}"))?;
        write!(
            f,
            "{}",
            if self.failures.is_empty() { "ok" } else { "this machine does not run this bundle correctly" }
        )
    }
}

impl Model {
    /// Checks every product's kernels against the scalar reference on one of its tiles, bit for bit, and the goldens
    /// in the bundle.
    ///
    /// # Errors
    /// As [`Session::new`]; results that differ are in the report.
    pub fn selftest(self: &Arc<Model>, threads: Option<usize>) -> Result<SelftestReport, RuntimeError> {
        let mut report = SelftestReport {
            kernels: self.kernels().to_string(),
            products: 0,
            goldens: vec![],
            failures: vec![],
        };
        for (index, product) in self.manifest().products.iter().enumerate() {
            let k = product.k as usize;
            // A different tile of each product; activations that reach both ends of their range.
            let tile = index % product.tiles() as usize;
            let weights = &self.weights(index)[tile * tile::bytes(k)..][..tile::bytes(k)];
            let mut activations: Vec<i8> =
                (0..k).map(|i| ((i * 7919 + index * 104_729) % 255) as i8).collect();
            activations.resize(tile::padded_k(k), 0);
            let expected = ternary::reference(weights, k, product.code, &activations[..k]);
            let mut portable = vec![0; tile::ROWS];
            run_portable(product, weights, &activations, &mut portable);
            let bound =
                crate::ternary::run_bound(&self.bound().products[index], product, weights, &activations);
            for (name, got) in [("portable", &portable), ("bound", &bound)] {
                match &expected {
                    Some(expected) if got == expected => {}
                    Some(_) => report
                        .failures
                        .push(format!("product {}: {name} kernel, wrong integers", product.name)),
                    None => report.failures.push(format!("product {}: invalid weight bytes", product.name)),
                }
            }
            report.products += 1;
        }
        for golden in &self.manifest().goldens {
            // As the compiler computed them; a narrower cache alone changes logits by about 1e-2.
            let options = SessionOptions { threads, kv: KvType::F32, ..SessionOptions::default() };
            let mut session = Session::new(self.clone(), options)?;
            let expected = self.vector(golden.logits);
            let logits = session.prefill(&golden.ids)?;
            let difference: f32 = logits.iter().zip(expected).map(|(a, b)| (a - b) * (a - b)).sum();
            let size: f32 = expected.iter().map(|b| b * b).sum();
            let distance = (difference / size.max(f32::MIN_POSITIVE)).sqrt();
            if distance.is_nan() || distance > TOLERANCE {
                report.failures.push(format!("golden {:?}: relative L2 {distance:.1e}", golden.ids));
            }
            report.goldens.push(distance);
        }
        Ok(report)
    }
}
