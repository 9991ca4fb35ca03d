//! Which bundles' own machine code may run.
//!
//! A bundle's machine code is as dangerous as any executable, so it runs only where a rule allows it. The rules are
//! data: a [`TrustPolicy`] enters; the rule that allows a bundle ([`Trusted`]), or the reason why none does
//! ([`NotTrusted`]), leaves. Everything else in a bundle is checked, whoever made it, and needs no trust.

use crate::RuntimeError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trit_format::container::Digest;
use trit_format::signature::{self, PublicKey, SignatureError};
use trit_format::trust::{Keys, Records, TrustError, read_key};

/// Which bundles' own code may run. A bundle is named by the digest of its header and section table, which hold the
/// digest of every section ([`trit_format::trust::file_name`]). A bundle may run its code where any of the rules allows
/// it.
///
/// The default trusts what this user compiled, and what was signed with a key in this user's folder of keys.
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
    /// Trusts the bundles that this user compiled on this machine, as records in a folder say, and those that are signed with
    /// one of the keys in it.
    pub records: TrustRecords,
    /// Trusts the bundles that are signed with one of these keys.
    pub signers: Vec<PublicKey>,
    /// Trusts the bundles with these digests. This is for programs that are shipped with their bundles, or got the
    /// digests from somebody they trust.
    pub digests: Vec<Digest>,
    /// Trusts every bundle. Its code can do whatever the process can do.
    pub everything: bool,
    /// Whether a bundle that no rule allows is refused. Otherwise it runs, with kernels that are not its own.
    pub required: bool,
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
    /// The bundle is signed with a key of [`TrustPolicy::signers`], or of the folder of keys, where it has a name.
    Signed {
        /// The key.
        key: PublicKey,
        /// Its name.
        name: Option<String>,
    },
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
    /// It is signed, but with a key that is not trusted.
    #[error("it is signed by {0}, a key that is not trusted")]
    Signer(PublicKey),
    /// Its signature does not hold.
    #[error("its signature {0}")]
    Signature(SignatureError),
    /// The file of its signature cannot be read.
    #[error("its signature cannot be read: {0}")]
    SignatureFile(Arc<io::Error>),
    /// A signature with one of the given keys is asked for, and the bundle has none.
    #[error("it is not signed")]
    NotSigned,
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
        TrustPolicy {
            records: TrustRecords::Ignored,
            signers: Vec::new(),
            digests: Vec::new(),
            everything: false,
            required: false,
        }
    }

    /// A policy that refuses every bundle that is not signed with one of these keys.
    pub fn signed_by(signers: Vec<PublicKey>) -> TrustPolicy {
        TrustPolicy { signers, required: true, ..TrustPolicy::nothing() }
    }

    /// As [`TrustPolicy::signed_by`], for the keys in these files, each of which is a public key in PEM.
    ///
    /// # Errors
    /// [`TrustError`] for the first file that holds no public key, or that does not count because others can write to it.
    pub fn signed_by_files<P: AsRef<Path>>(files: &[P]) -> Result<TrustPolicy, TrustError> {
        let keys: Result<_, _> = files.iter().map(|file| read_key(file.as_ref())).collect();
        Ok(TrustPolicy::signed_by(keys?))
    }

    /// The rule that allows the code of a bundle to run, or the reason why none does. `header` are the bytes of its header
    /// and section table; `signature` reads the file of its signature, if there is one.
    ///
    /// # Errors
    /// [`RuntimeError::TrustFolder`] where the environment names the folder of records by a relative path. That is an
    /// error even where another rule allows the bundle, because it is a mistake that the user should see.
    pub fn decide(
        &self,
        header: &[u8],
        signature: impl FnOnce() -> io::Result<Option<Vec<u8>>>,
    ) -> Result<Result<Trusted, NotTrusted>, RuntimeError> {
        let folder = match &self.records {
            TrustRecords::OfUser => match Records::of_user() {
                Err(error @ TrustError::Relative(_)) => return Err(RuntimeError::TrustFolder(error)),
                Err(TrustError::NoFolder) => Ok(None),
                Err(error) => Err(error),
                Ok(records) => Ok(Some(records)),
            },
            TrustRecords::In(folder) => Ok(Some(Records::in_folder(folder.clone()))),
            TrustRecords::Ignored => Ok(None),
        };
        let bundle = Digest::of(header);
        if self.everything {
            return Ok(Ok(Trusted::Everything));
        }
        if self.digests.contains(&bundle) {
            return Ok(Ok(Trusted::Digest(bundle)));
        }
        let (recorded, keys) = match &folder {
            Ok(Some(records)) => {
                (records.contains(&bundle.to_string()), Some(Keys::beside_records(records.folder())))
            }
            _ => (Ok(false), None),
        };
        if let (Ok(true), Ok(Some(records))) = (&recorded, &folder) {
            return Ok(Ok(Trusted::Record(records.folder().to_owned())));
        }
        let asks_for_signature = !self.signers.is_empty() || keys.is_some();
        if asks_for_signature && let Some(decided) = self.decide_signed(header, signature(), keys) {
            return Ok(decided);
        }
        Ok(Err(match (folder, recorded) {
            (Err(problem), _) | (_, Err(problem)) => NotTrusted::Records(Arc::new(problem)),
            _ => match &self.records {
                TrustRecords::Ignored if !self.signers.is_empty() => NotTrusted::NotSigned,
                TrustRecords::Ignored if self.digests.is_empty() => NotTrusted::Nothing,
                TrustRecords::Ignored => NotTrusted::NotListed,
                _ => NotTrusted::NotRecorded,
            },
        }))
    }

    /// What a bundle's signature says; `None` where there is none.
    fn decide_signed(
        &self,
        header: &[u8],
        signature: io::Result<Option<Vec<u8>>>,
        keys: Option<Keys>,
    ) -> Option<Result<Trusted, NotTrusted>> {
        let file = match signature {
            Ok(file) => file?,
            Err(error) => return Some(Err(NotTrusted::SignatureFile(Arc::new(error)))),
        };
        Some(match signature::signer(&file, header) {
            Err(problem) => Err(NotTrusted::Signature(problem)),
            Ok(key) if self.signers.contains(&key) => Ok(Trusted::Signed { key, name: None }),
            Ok(key) => match keys.map_or(Ok(None), |keys| keys.name_of(key)) {
                Ok(Some(name)) => Ok(Trusted::Signed { key, name: Some(name) }),
                Ok(None) => Err(NotTrusted::Signer(key)),
                Err(problem) => Err(NotTrusted::Records(Arc::new(problem))),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use trit_format::signature::Signature;

    /// Headers of bundles.
    const OURS: &[u8] = b"ours";
    const OTHER: &[u8] = b"other";

    fn decide(policy: &TrustPolicy, header: &[u8]) -> Result<Trusted, NotTrusted> {
        policy.decide(header, || Ok(None)).unwrap()
    }

    fn name(header: &[u8]) -> String {
        Digest::of(header).to_string()
    }

    #[test]
    fn each_rule_allows_what_it_says_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("trusted");
        Records::in_folder(own.clone()).add(&name(OURS)).unwrap();
        let recorded = TrustPolicy { records: TrustRecords::In(own.clone()), ..TrustPolicy::nothing() };
        assert_eq!(decide(&recorded, OURS).unwrap(), Trusted::Record(own));
        assert!(matches!(decide(&recorded, OTHER), Err(NotTrusted::NotRecorded)));

        let listed = TrustPolicy { digests: vec![Digest::of(OURS)], ..TrustPolicy::nothing() };
        assert_eq!(decide(&listed, OURS).unwrap(), Trusted::Digest(Digest::of(OURS)));
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
        Records::in_folder(folder.path().to_owned()).add(&name(OURS)).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let records = TrustRecords::In(folder.path().to_owned());
        let mut policy = TrustPolicy { records, ..TrustPolicy::nothing() };
        assert!(matches!(decide(&policy, OURS), Err(NotTrusted::Records(_))));
        policy.digests.push(Digest::of(OURS));
        assert_eq!(decide(&policy, OURS).unwrap(), Trusted::Digest(Digest::of(OURS)));
    }

    #[test]
    fn signatures_count_by_given_keys_and_by_those_of_the_folder() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let public = PublicKey::of(&key);
        let signed = |policy: &TrustPolicy, header: &[u8], file: &str| {
            policy.decide(header, || Ok(Some(file.as_bytes().to_vec()))).unwrap()
        };
        let file = Signature::sign(OURS, &key).encode();
        let by_key = TrustPolicy::signed_by(vec![public]);
        assert!(by_key.required);
        assert_eq!(signed(&by_key, OURS, &file).unwrap(), Trusted::Signed { key: public, name: None });
        assert!(matches!(
            signed(&by_key, OTHER, &file),
            Err(NotTrusted::Signature(SignatureError::Mismatch { .. }))
        ));
        assert!(matches!(signed(&by_key, OURS, "x"), Err(NotTrusted::Signature(SignatureError::Form))));
        assert!(matches!(decide(&by_key, OURS), Err(NotTrusted::NotSigned)));
        let unreadable = by_key.decide(OURS, || Err(io::ErrorKind::PermissionDenied.into())).unwrap();
        assert!(matches!(unreadable, Err(NotTrusted::SignatureFile(_))));
        let named = tempfile::tempdir().unwrap();
        let pem = named.path().join("vendor.pub");
        std::fs::write(&pem, public.to_pem()).unwrap();
        assert_eq!(TrustPolicy::signed_by_files(&[&pem]).unwrap().signers, by_key.signers);
        let absent = named.path().join("absent.pub");
        let error = TrustPolicy::signed_by_files(&[&pem, &absent]).unwrap_err();
        assert!(matches!(&error, TrustError::Io { path, .. } if *path == absent), "{error}");
        let other = Signature::sign(OURS, &SigningKey::from_bytes(&[4; 32])).encode();
        assert!(matches!(signed(&by_key, OURS, &other), Err(NotTrusted::Signer(key)) if key != public));

        let folder = tempfile::tempdir().unwrap();
        let policy =
            TrustPolicy { records: TrustRecords::In(folder.path().to_owned()), ..TrustPolicy::nothing() };
        assert!(matches!(signed(&policy, OURS, &file), Err(NotTrusted::Signer(_))));
        std::fs::create_dir(folder.path().join("keys")).unwrap();
        std::fs::write(folder.path().join("keys/vendor.pub"), public.to_pem()).unwrap();
        let named = Trusted::Signed { key: public, name: Some("vendor".to_owned()) };
        assert_eq!(signed(&policy, OURS, &file).unwrap(), named);
        assert!(matches!(decide(&policy, OURS), Err(NotTrusted::NotRecorded)));
        // Nobody asked for a signature.
        assert!(matches!(signed(&TrustPolicy::nothing(), OURS, &file), Err(NotTrusted::Nothing)));
    }
}
