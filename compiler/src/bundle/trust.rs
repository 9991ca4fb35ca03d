//! Records that this user compiled a bundle, so that the runtime runs its code without being told to.

use crate::error::CompileError;
use std::path::PathBuf;
use trit_format::trust::{Records, TrustError};

/// Refuses an environment in which no record can be made, before anything is compiled.
///
/// # Errors
/// [`CompileError::TrustFolder`] where the variable that names the folder of records holds no absolute path.
pub fn check_environment() -> Result<(), CompileError> {
    match Records::of_user() {
        Err(error @ TrustError::Relative(_)) => Err(CompileError::TrustFolder(error)),
        // Users without such a folder get a bundle all the same, and a warning.
        _ => Ok(()),
    }
}

/// Records the bundle with that fingerprint ([`crate::bundle::Bundle::fingerprint`]) as trusted.
///
/// # Errors
/// There is no folder for records, it cannot be written, or other users may write to it.
pub fn record(fingerprint: &str) -> Result<PathBuf, TrustError> {
    Records::of_user()?.add(fingerprint)
}

/// Whether the bundle with that fingerprint is recorded as trusted.
///
/// # Errors
/// There is a folder for records, or a record, that does not count because of who owns it.
pub fn is_recorded(fingerprint: &str) -> Result<bool, TrustError> {
    match Records::of_user() {
        Err(TrustError::NoFolder) => Ok(false),
        records => records?.contains(fingerprint),
    }
}
