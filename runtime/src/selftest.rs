//! The selftest: checks that this machine computes what the bundle says it should.

use crate::{KvType, Model, RuntimeError, Session, SessionOptions};
use std::fmt;
use std::sync::Arc;
use trit_format::manifest::PackedMatrix;
use trit_format::tile;
use trit_gemm::{Kernels, Layout, MatrixRef, QuantizedRows, Scratch};
use trit_kernels::ternary;

/// Largest relative L2 distance between the logits of a correct machine and the compiler's, which uses a cache of f32.
/// Even with an f32 cache, int8 activations round differently where f32 sums differ in their last bit, and each such
/// difference spreads (about 1e-2 on trained models). Rounding keys and values to f16 causes as many differences again.
/// Rounding them to int8 adds an error of 2^-8 of the largest element of a head.
fn tolerance(kv: KvType) -> f32 {
    match kv {
        KvType::F32 => 3e-2,
        KvType::F16 => 5e-2,
        KvType::Int8 => 2e-1,
    }
}

/// The result of one golden with one type of KV cache.
#[derive(Clone, Copy, Debug)]
pub struct GoldenReport {
    /// Its index in the bundle.
    pub golden: usize,
    /// The cache that was asked for.
    pub kv: KvType,
    /// The position from which on the cache stored f32, as [`Session::widened`] says.
    pub widened: Option<usize>,
    /// Relative L2 distance of the logits from the golden's.
    pub distance: f32,
    /// The largest distance that is allowed.
    pub allowed: f32,
}

/// What was checked.
#[derive(Clone, Debug)]
pub struct SelftestReport {
    /// The kernels that were checked.
    pub kernels: String,
    /// How many packed matrices were checked.
    pub matrices: usize,
    /// Every golden with a cache of f32, and with the one that was asked for.
    pub goldens: Vec<GoldenReport>,
    /// Where the bundle has no goldens: how many tokens were run and gave finite logits.
    pub ran: usize,
    /// What went wrong; empty when all is well.
    pub failures: Vec<String>,
}

impl fmt::Display for SelftestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernels   {}", self.kernels)?;
        writeln!(f, "products  {} checked against the reference, integers equal", self.matrices)?;
        for GoldenReport { golden, kv, widened, distance, allowed } in &self.goldens {
            let widened = widened.map_or(String::new(), |at| format!(", f32 from position {at} on"));
            writeln!(
                f,
                "golden {golden}  kv {kv}{widened}: relative L2 {distance:.1e} (allowed {allowed:.0e})"
            )?;
        }
        if self.ran > 0 {
            writeln!(f, "goldens   none in the bundle; {} tokens were run and gave numbers", self.ran)?;
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
    /// Checks every packed matrix's kernels against the scalar reference on one of its tiles, bit for bit, and the
    /// goldens in the bundle with KV caches of f32 and of `kv`.
    ///
    /// # Errors
    /// As [`Session::new`] and [`Session::prefill`]; results that differ are in the report.
    pub fn selftest(
        self: &Arc<Model>,
        threads: Option<usize>,
        kv: KvType,
    ) -> Result<SelftestReport, RuntimeError> {
        let mut report = SelftestReport {
            kernels: self.kernels().to_string(),
            matrices: 0,
            goldens: vec![],
            ran: 0,
            failures: vec![],
        };
        for (index, matrix) in self.manifest().packed_matrices.iter().enumerate() {
            let weights = self.weights(index);
            // A different tile of each packed matrix.
            let tile = index % matrix.tiles() as usize;
            let [expected, portable, bound] =
                sums(matrix, weights, tile, index, &self.bound().by_matrix[index])?;
            for (name, got) in [("portable", &portable), ("bound", &bound)] {
                match &expected {
                    Some(_) if *got == expected => {}
                    Some(_) => report
                        .failures
                        .push(format!("product {}: {name} kernel, wrong integers", matrix.name)),
                    None => report.failures.push(format!("product {}: invalid weight bytes", matrix.name)),
                }
            }
            report.matrices += 1;
        }
        self.intact()?;
        for index in 0..self.manifest().goldens.len() {
            let asked = Some(kv).filter(|&kv| kv != KvType::F32);
            for kv in [KvType::F32].into_iter().chain(asked) {
                let golden = self.golden(index, threads, kv)?;
                let GoldenReport { distance, allowed, .. } = golden;
                if distance.is_nan() || distance > allowed {
                    report.failures.push(format!("golden {index}, kv {kv}: relative L2 {distance:.1e}"));
                }
                report.goldens.push(golden);
            }
        }
        if self.manifest().goldens.is_empty() {
            // There are no logits to compare with, but they must be finite.
            let options = SessionOptions { threads, kv, ..SessionOptions::default() };
            let mut session = Session::new(self.clone(), options)?;
            let vocab = self.manifest().hyperparameters.vocab_size;
            let ids: Vec<u32> = (0..session.context_length().min(4) as u32).map(|i| vocab / 4 * i).collect();
            session.prefill(&ids)?;
            report.ran = ids.len();
        }
        Ok(report)
    }

    fn golden(
        self: &Arc<Model>,
        index: usize,
        threads: Option<usize>,
        kv: KvType,
    ) -> Result<GoldenReport, RuntimeError> {
        let golden = &self.manifest().goldens[index];
        let options = SessionOptions { threads, kv, ..SessionOptions::default() };
        let mut session = Session::new(self.clone(), options)?;
        let expected = self.vector(golden.logits);
        let logits = session.prefill(&golden.ids)?;
        let difference: f32 = logits.iter().zip(expected).map(|(a, b)| (a - b) * (a - b)).sum();
        let size: f32 = expected.iter().map(|b| b * b).sum();
        let distance = (difference / size.max(f32::MIN_POSITIVE)).sqrt();
        Ok(GoldenReport { golden: index, kv, widened: session.widened(), distance, allowed: tolerance(kv) })
    }
}

/// Activations that reach both ends of their range.
fn activation(i: usize, index: usize) -> i8 {
    ((i * 7919 + index * 104_729) % 255) as i8
}

/// The sums of a tile by the reference (`None` where its bytes are not valid), by the portable kernel, and by the bound
/// kernel. Where the matrix has groups, they are the sums of each group.
type Sums = [Option<Vec<i32>>; 3];

fn sums(
    matrix: &PackedMatrix,
    weights: &[u8],
    tile: usize,
    index: usize,
    kernels: &Kernels,
) -> Result<Sums, RuntimeError> {
    let layout = Layout::of(matrix)?;
    let (groups, columns) = (matrix.groups() as usize, matrix.kernel_k() as usize);
    let mut activations = QuantizedRows::new(1, layout.digit_len(), groups, groups)?;
    let row = activations.row_mut(0).expect("there is one row");
    for (i, value) in row.values[..groups * columns].iter_mut().enumerate() {
        *value = activation(i, index);
    }
    let parts = || row.values.chunks(columns).take(groups);
    for (sum, part) in row.sums.iter_mut().zip(parts()) {
        *sum = part.iter().map(|&a| i32::from(a)).sum();
    }
    let weights = &weights[tile * layout.tile_bytes()..][..layout.tile_bytes()];
    let codes = weights.chunks_exact(tile::bytes(columns));
    let expected: Option<Vec<Vec<i32>>> = codes
        .zip(parts())
        .map(|(codes, part)| ternary::reference(codes, columns, matrix.code, part))
        .collect();
    let run = |kernels: &Kernels| -> Result<Vec<i32>, RuntimeError> {
        let mut scratch = Scratch::default();
        let mut pass = MatrixRef::new(layout, weights, kernels)?.pass(activations.all(), &mut scratch)?;
        if matrix.grouping.is_some() {
            return Ok(pass.group_sums(0, 0)?.to_vec());
        }
        let mut found = Vec::new();
        pass.sums(0..1, |_, _, sums| found.extend_from_slice(sums))?;
        Ok(found)
    };
    Ok([expected.map(|groups| groups.concat()), Some(run(&Kernels::portable())?), Some(run(kernels)?)])
}
