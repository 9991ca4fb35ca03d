//! A tolerance for floats that are ternary only within rounding: what it may be, and how a bundle says that it was used.

use crate::error::{Choice, CompileError, Warnings};
use crate::model::TensorReport;
use crate::weights::near::MOST;

/// Checks a tolerance that somebody chose.
///
/// # Errors
/// It is not above 0, or floats so far apart are other numbers.
pub(super) fn expect(tolerance: f32) -> Result<f32, CompileError> {
    if tolerance > 0.0 && tolerance <= MOST {
        return Ok(tolerance);
    }
    let problem =
        format!("is not above 0 and up to {MOST}, beyond which weights are other numbers than ternary ones");
    Err(CompileError::Choice { choice: Choice::Tolerance(tolerance.to_string()), problem })
}

/// The architecture as the bundle names it. Where weights were rounded it says so, and so does a warning.
pub(super) fn state(
    architecture: &str,
    report: &[TensorReport],
    tolerance: Option<f32>,
    warnings: &mut Warnings,
) -> String {
    let rounded = || report.iter().filter_map(|tensor| Some((tensor, tensor.rounded?)));
    let (Some(tolerance), Some((first, place))) = (tolerance, rounded().next()) else {
        return architecture.to_owned();
    };
    let groups: u64 = rounded().map(|(_, rounded)| rounded.groups).sum();
    let worst = rounded().map(|(_, rounded)| rounded.worst).fold(0.0, f32::max);
    warnings.push(format!(
        "{groups} groups of weights in {} matrices are ternary only within rounding, by up to {:.2}% of their scale, and were \
         rounded within the tolerance {tolerance}; the first is in {} at row {}, column {}",
        rounded().count(),
        100.0 * worst,
        first.name,
        place.first.0,
        place.first.1
    ));
    format!("{architecture}, weights rounded within the tolerance {tolerance}")
}
