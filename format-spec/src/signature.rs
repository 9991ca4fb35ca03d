//! Who made a bundle: an Ed25519 signature (RFC 8032) over the bytes of its header and section table, which hold the digest
//! of every section.
//!
//! A signature stands in a file beside its bundle, named after it ([`beside`]), or in a one-file program
//! ([`crate::program`]). Its file is text of three lines, which have one spelling only:
//!
//! ```text
//! trit-signature 1
//! key 64 hexadecimal digits: the public key
//! signature 128 hexadecimal digits
//! ```
//!
//! Keys are PEM files as RFC 8410 defines them, so that other tools make and keep them too: a private key in PKCS #8, a
//! public key as a SubjectPublicKeyInfo.

use ed25519_dalek::pkcs8::{DecodePublicKey, EncodePublicKey, spki::der::pem::LineEnding};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Most bytes of a file that holds a key or a signature.
pub const MAX_BYTES: usize = 4096;

const FIRST_LINE: &str = "trit-signature 1";

/// Why a key or a signature cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The file is no public key.
    #[error("is no Ed25519 public key in PEM (RFC 8410): {0}")]
    PublicKey(String),
    /// The file is no signature of a bundle, or one of another version of the format.
    #[error("is no signature of a bundle in the form of version 1")]
    Form,
    /// Bundle and signature do not belong together, or one of them is damaged.
    #[error("says it is by {key}, and does not fit the bundle: one of them was changed")]
    Mismatch {
        /// The key that the signature names.
        key: PublicKey,
    },
}

/// An Ed25519 public key, shown as `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The public half of a key.
    pub fn of(key: &SigningKey) -> PublicKey {
        PublicKey(key.verifying_key().to_bytes())
    }

    /// Reads a public key as [`PublicKey::to_pem`] writes it.
    ///
    /// # Errors
    /// [`SignatureError::PublicKey`].
    pub fn from_pem(pem: &[u8]) -> Result<PublicKey, SignatureError> {
        let problem = |problem: String| SignatureError::PublicKey(problem);
        let text = std::str::from_utf8(pem).map_err(|_| problem("it is not text".to_owned()))?;
        if text.contains("PRIVATE KEY") {
            return Err(problem(
                "it is a private key; the public one is in the file that ends in .pub".into(),
            ));
        }
        let key = VerifyingKey::from_public_key_pem(text).map_err(|e| problem(e.to_string()))?;
        // With such a key a signature can be made that fits any bundle.
        if key.is_weak() {
            return Err(problem("it is a weak key".to_owned()));
        }
        Ok(PublicKey(key.to_bytes()))
    }

    /// The key as a PEM file.
    pub fn to_pem(self) -> String {
        let key = VerifyingKey::from_bytes(&self.0).map(|key| key.to_public_key_pem(LineEnding::LF));
        key.ok().and_then(Result::ok).unwrap_or_default()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ed25519:")?;
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A signature with the key that it says it is by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    key: PublicKey,
    bytes: [u8; 64],
}

impl Signature {
    /// Signs a bundle by the bytes of its header and section table ([`crate::container::Header::encode`]).
    pub fn sign(header: &[u8], key: &SigningKey) -> Signature {
        Signature { key: PublicKey::of(key), bytes: key.sign(header).to_bytes() }
    }

    /// Reads the file of a signature.
    ///
    /// # Errors
    /// [`SignatureError::Form`] for any bytes that [`Signature::encode`] does not give.
    pub fn parse(file: &[u8]) -> Result<Signature, SignatureError> {
        let parse = || {
            let mut lines = std::str::from_utf8(file).ok()?.lines();
            let _ = lines.next().filter(|&line| line == FIRST_LINE)?;
            let key = from_hex(lines.next()?.strip_prefix("key ")?)?;
            let bytes = from_hex(lines.next()?.strip_prefix("signature ")?)?;
            Some(Signature { key: PublicKey(key), bytes })
        };
        // One spelling, so that no changed bit goes unseen.
        parse().filter(|read| read.encode().as_bytes() == file).ok_or(SignatureError::Form)
    }

    /// The file of a signature.
    pub fn encode(&self) -> String {
        format!("{FIRST_LINE}\nkey {}\nsignature {}\n", hex(&self.key.0), hex(&self.bytes))
    }

    /// The key that signed the bundle whose header and section table are the bytes `header`.
    ///
    /// # Errors
    /// [`SignatureError::Mismatch`] where the signature is not one of that key over these bytes.
    pub fn signer(&self, header: &[u8]) -> Result<PublicKey, SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(&self.bytes);
        let key = VerifyingKey::from_bytes(&self.key.0);
        // Strictly: no second spelling of a signature, no weak keys.
        match key.and_then(|key| key.verify_strict(header, &signature)) {
            Ok(()) => Ok(self.key),
            Err(_) => Err(SignatureError::Mismatch { key: self.key }),
        }
    }
}

/// The key that signed the bundle whose header and section table are the bytes `header`, by the file of its signature.
///
/// # Errors
/// As [`Signature::parse`] and [`Signature::signer`].
pub fn signer(file: &[u8], header: &[u8]) -> Result<PublicKey, SignatureError> {
    Signature::parse(file)?.signer(header)
}

/// The file beside a bundle that holds its signature: the bundle's name with `.sig` after it.
pub fn beside(bundle: &Path) -> PathBuf {
    let mut name = OsString::from(bundle);
    name.push(".sig");
    PathBuf::from(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of a text of hexadecimal digits, of exactly that length.
fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The first test of RFC 8032, section 7.1: its secret key, and the signature of no bytes.
    const SECRET: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const OF_NOTHING: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
                              d25bf5f0595bbe24655141438e7a100b";

    fn key() -> SigningKey {
        SigningKey::from_bytes(&from_hex(SECRET).unwrap())
    }

    #[test]
    fn signatures_are_those_of_the_rfc_and_their_file_has_golden_bytes() {
        let file = format!("trit-signature 1\nkey {PUBLIC}\nsignature {OF_NOTHING}\n");
        let signature = Signature::sign(b"", &key());
        assert_eq!(signature.encode(), file);
        assert_eq!(Signature::parse(file.as_bytes()), Ok(signature));
        assert_eq!(signature.signer(b"").unwrap().to_string(), format!("ed25519:{PUBLIC}"));
        assert!(matches!(signature.signer(b"x"), Err(SignatureError::Mismatch { .. })));
    }

    #[test]
    fn no_changed_bit_of_a_signature_or_header_goes_unseen() {
        let header = b"a header";
        let file = Signature::sign(header, &key()).encode().into_bytes();
        let holds = signer;
        assert_eq!(holds(&file, header), Ok(PublicKey::of(&key())));
        for bit in 0..8 * file.len() {
            let mut changed = file.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // A signature by another key may hold; this one's does not.
            assert_ne!(holds(&changed, header), Ok(PublicKey::of(&key())), "bit {bit}");
        }
        for bit in 0..8 * header.len() {
            let mut changed = header.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            holds(&file, &changed).unwrap_err();
        }
        for other in [&file[..file.len() - 1], &[&file[..], b"\n"].concat(), b"", b"trit-signature 2\n"] {
            assert_eq!(Signature::parse(other), Err(SignatureError::Form));
        }
    }

    #[test]
    fn public_keys_are_pem_files_and_nothing_else_is() {
        let public = PublicKey::of(&key());
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        assert_eq!(public.to_pem(), pem);
        assert_eq!(PublicKey::from_pem(pem.as_bytes()), Ok(public));
        for (file, says) in [
            (&b"\xff"[..], "not text"),
            (b"", "PEM"),
            (b"-----BEGIN PRIVATE KEY-----\n", "private key"),
            (pem.replace("VwAyEA", "UwAyEA").as_bytes(), "RFC 8410"),
            // The neutral element, under which every bundle would verify.
            (
                b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n",
                "weak",
            ),
        ] {
            let error = PublicKey::from_pem(file).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_file_stands_beside_the_bundle() {
        assert_eq!(beside(Path::new("a/model.trit")), Path::new("a/model.trit.sig"));
    }
}
