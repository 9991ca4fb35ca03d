//! Which bundles' own machine code may run.
//!
//! A bundle's machine code is as dangerous as any executable, so it runs only where a rule allows it. The rules are
//! data: a [`TrustPolicy`] enters; the rule that allows a bundle ([`Trusted`]), or the reason why none does
//! ([`NotTrusted`]), leaves. Everything else in a bundle is checked, whoever made it, and needs no trust.

use crate::RuntimeError;
use std::path::PathBuf;
use std::sync::Arc;
use trit_format::container::Digest;
use trit_format::trust::{Records, TrustError};

/// Which bundles' own code may run. A bundle is named by the digest of its header and section table, which hold the
/// digest of every section ([`trit_format::trust::file_name`]). A bundle may run its code where any of the rules allows
/// it.
///
/// The default trusts what this user compiled, and nothing else.
///
/// ```
/// use trit_runtime::TrustPolicy;
///
/// let own = TrustPolicy::default();
/// let nothing = TrustPolicy::nothing();
/// let mut shipped = TrustPolicy::nothing();
/// shipped.digests.push(trit_runtime::format::container::Digest([7; 32]));
/// # let _ = (own, nothing);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TrustPolicy {
    /// Trusts the bundles that this user compiled on this machine, as records in a folder say.
    pub records: TrustRecords,
    /// Trusts the bundles with these digests. This is for programs that are shipped with their bundles, or got the
    /// digests from somebody they trust.
    pub digests: Vec<Digest>,
    /// Trusts every bundle. Its code can do whatever the process can do.
    pub everything: bool,
}

/// Where the records of the bundles that this user compiled are looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrustRecords {
    /// In the folder that the environment names, which is where the compiler puts them
    /// ([`trit_format::trust::folder`]).
    #[default]
    OfUser,
    /// In this folder, whatever the environment says. It counts only if nobody else may write to it.
    In(PathBuf),
    /// Nowhere. That this user compiled a bundle is then no reason to trust it.
    Ignored,
}

/// Which rule lets a bundle's own code run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trusted {
    /// [`TrustPolicy::everything`].
    Everything,
    /// [`TrustPolicy::digests`] holds this digest, which is the bundle's.
    Digest(Digest),
    /// [`TrustPolicy::records`]: this folder has a record of the bundle.
    Record(PathBuf),
}

/// Why no rule lets a bundle's own code run.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotTrusted {
    /// There is no record that this user compiled the bundle, and its digest is not in the list.
    #[error("it was not compiled by this user on this machine")]
    NotRecorded,
    /// The folder of records, or the record, cannot be relied on.
    #[error("{0}")]
    Records(Arc<TrustError>),
    /// Records are ignored, and the bundle's digest is not in the list.
    #[error("its digest is none of those that are trusted")]
    NotListed,
    /// The policy trusts nothing.
    #[error("no bundle's own code is to run")]
    Nothing,
}

impl TrustPolicy {
    /// A policy that trusts every bundle, whoever compiled it. A bundle's code can do whatever the process can do. The
    /// folder of records is not read.
    pub fn everything() -> TrustPolicy {
        TrustPolicy { everything: true, ..TrustPolicy::nothing() }
    }

    /// A policy that trusts no bundle. Kernels that are generated here, and portable ones, still run.
    pub fn nothing() -> TrustPolicy {
        TrustPolicy { records: TrustRecords::Ignored, digests: Vec::new(), everything: false }
    }

    /// The rule that allows the code of the bundle with digest `bundle` to run, or the reason why none does.
    ///
    /// # Errors
    /// [`RuntimeError::TrustFolder`] where the environment names the folder of records by a relative path. That is an
    /// error even where another rule allows the bundle, because it is a mistake that the user should see.
    pub fn decide(&self, bundle: Digest) -> Result<Result<Trusted, NotTrusted>, RuntimeError> {
        let records = match &self.records {
            TrustRecords::OfUser => match Records::of_user() {
                Err(error @ TrustError::Relative(_)) => return Err(RuntimeError::TrustFolder(error)),
                Err(TrustError::NoFolder) => Ok(None),
                Err(error) => Err(error),
                Ok(records) => Ok(Some(records)),
            },
            TrustRecords::In(folder) => Ok(Some(Records::in_folder(folder.clone()))),
            TrustRecords::Ignored => Ok(None),
        };
        if self.everything {
            return Ok(Ok(Trusted::Everything));
        }
        if self.digests.contains(&bundle) {
            return Ok(Ok(Trusted::Digest(bundle)));
        }
        let recorded = records.and_then(|records| match records {
            Some(records) => Ok(records.contains(&bundle.to_string())?.then(|| records.folder().to_owned())),
            None => Ok(None),
        });
        Ok(match recorded {
            Ok(Some(folder)) => Ok(Trusted::Record(folder)),
            Err(problem) => Err(NotTrusted::Records(Arc::new(problem))),
            Ok(None) => Err(match (&self.records, self.digests.is_empty()) {
                (TrustRecords::Ignored, true) => NotTrusted::Nothing,
                (TrustRecords::Ignored, false) => NotTrusted::NotListed,
                _ => NotTrusted::NotRecorded,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Digest = Digest([1; 32]);
    const OTHER: Digest = Digest([2; 32]);

    fn decide(policy: &TrustPolicy, bundle: Digest) -> Result<Trusted, NotTrusted> {
        policy.decide(bundle).unwrap()
    }

    #[test]
    fn each_rule_allows_what_it_says_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("trusted");
        Records::in_folder(own.clone()).add(&OURS.to_string()).unwrap();
        let recorded = TrustPolicy { records: TrustRecords::In(own.clone()), ..TrustPolicy::nothing() };
        assert_eq!(decide(&recorded, OURS).unwrap(), Trusted::Record(own));
        assert!(matches!(decide(&recorded, OTHER), Err(NotTrusted::NotRecorded)));

        let listed = TrustPolicy { digests: vec![OURS], ..TrustPolicy::nothing() };
        assert_eq!(decide(&listed, OURS).unwrap(), Trusted::Digest(OURS));
        assert!(matches!(decide(&listed, OTHER), Err(NotTrusted::NotListed)));

        assert_eq!(decide(&TrustPolicy::everything(), OTHER).unwrap(), Trusted::Everything);
        assert!(matches!(decide(&TrustPolicy::nothing(), OURS), Err(NotTrusted::Nothing)));
        // A folder that is not there holds no records.
        let absent = TrustRecords::In(folder.path().join("absent"));
        let absent = TrustPolicy { records: absent, ..TrustPolicy::nothing() };
        assert!(matches!(decide(&absent, OURS), Err(NotTrusted::NotRecorded)));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_write_to_does_not_count_and_the_list_still_does() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Records::in_folder(folder.path().to_owned()).add(&OURS.to_string()).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let records = TrustRecords::In(folder.path().to_owned());
        let mut policy = TrustPolicy { records, ..TrustPolicy::nothing() };
        assert!(matches!(decide(&policy, OURS), Err(NotTrusted::Records(_))));
        policy.digests.push(OURS);
        assert_eq!(decide(&policy, OURS).unwrap(), Trusted::Digest(OURS));
    }
}
