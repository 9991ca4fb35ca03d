//! Keys and signatures ([`trit_format::signature`]).

use crate::bundle::{Bundle, program};
use crate::error::CompileError;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use trit_format::signature::{self, PublicKey, Signature, beside};
use trit_format::trust::{Keys, TrustError, read_key, read_own, read_signature};
use trit_text::output::{self, Kind, OutputError, OutputProblem, Pending, Unfinished};

const SIGNATURE: Kind = Kind { name: "signature", example: "model.trit.sig", is: begins_as_signature };

fn begins_as_signature(file: &mut File) -> io::Result<bool> {
    let mut start = [0; 15];
    file.read_exact(&mut start).map(|()| start == *b"trit-signature ")
}

/// The file that holds the public half of the key at `path`: its name with `.pub` after it.
pub fn public_file(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".pub");
    PathBuf::from(name)
}

/// Makes a key: a private one at `path`, which only its owner may read, and beside it the public one. Where there is a
/// private key already, and no public one, the public one is made of it.
///
/// # Errors
/// [`CompileError::KeyExists`] where both are there, or the public key alone; [`CompileError::Output`] where there is no such
/// folder; [`CompileError::Io`], [`CompileError::System`].
pub fn keygen(path: &Path, unfinished: &Unfinished) -> Result<PublicKey, CompileError> {
    let folder = output::folder(path);
    if !folder.is_dir() {
        let problem = OutputProblem::NoFolder { folder: folder.to_owned() };
        return Err(CompileError::Output(OutputError { path: path.to_owned(), problem }));
    }
    let public_path = public_file(path);
    if public_path.symlink_metadata().is_ok() {
        return Err(CompileError::KeyExists { path: public_path });
    }
    let key = match path.symlink_metadata() {
        Ok(_) => read_private(path)?,
        Err(_) => {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret)
                .map_err(|e| CompileError::System(format!("the system gives no random numbers: {e}")))?;
            let key = SigningKey::from_bytes(&secret);
            // Without the public half, which OpenSSL does not read there.
            let pem = KeypairBytes { secret_key: secret, public_key: None }.to_pkcs8_pem(LineEnding::LF);
            let pem = pem.map_err(|e| CompileError::Internal(format!("a key cannot be written: {e}")))?;
            write_new(path, pem.as_bytes(), |path| Pending::private(path, unfinished))?;
            key
        }
    };
    let public = PublicKey::of(&key);
    write_new(&public_path, public.to_pem().as_bytes(), |path| Pending::create(path, unfinished))?;
    Ok(public)
}

fn write_new(
    path: &Path,
    bytes: &[u8],
    create: impl Fn(&Path) -> io::Result<Pending>,
) -> Result<(), CompileError> {
    let write = || {
        let mut file = create(path)?;
        file.file().write_all(bytes)?;
        file.keep_new()
    };
    write().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CompileError::KeyExists { path: path.to_owned() },
        _ => CompileError::Io { path: path.to_owned(), source },
    })
}

/// Signs a bundle that is whole: in the file beside it, or in the program that it is in. Gives the key and the file.
///
/// # Errors
/// [`CompileError::Key`], [`CompileError::KeyFile`], [`CompileError::Invalid`] where the bundle is not whole, [`CompileError::Output`] where something else
/// than a signature stands beside it, [`CompileError::Io`].
pub fn sign(
    bundle: &Bundle,
    key: &Path,
    unfinished: &Unfinished,
) -> Result<(PublicKey, PathBuf), CompileError> {
    let key = read_private(key)?;
    // A signature is a promise about all of it.
    bundle.expect_whole()?;
    let signature = Signature::sign(&bundle.header().encode(), &key).encode();
    let out = match bundle.is_program() {
        true => {
            program::replace_signature(bundle, signature.as_bytes(), unfinished)?;
            bundle.path().to_owned()
        }
        false => {
            let out = beside(bundle.path());
            output::check(&out, &SIGNATURE, &[]).map_err(CompileError::Output)?;
            program::write(&out, unfinished, signature.as_bytes())?;
            out
        }
    };
    Ok((PublicKey::of(&key), out))
}

/// What a bundle's signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// It has none.
    Nobody,
    /// It is by this key.
    Key(PublicKey),
    /// It does not hold, for this reason.
    Broken(String),
}

impl Bundle {
    /// The file of its signature: in its program, or beside it; `None` where there is none.
    ///
    /// # Errors
    /// [`CompileError::Io`] where the file beside it cannot be read.
    pub fn signature(&self) -> Result<Option<Vec<u8>>, CompileError> {
        match &self.program {
            Some(program) => Ok(program.signature.clone()),
            None => read_signature(self.path())
                .map_err(|source| CompileError::Io { path: beside(self.path()), source }),
        }
    }

    /// Who signed it.
    ///
    /// # Errors
    /// As [`Bundle::signature`].
    pub fn signer(&self) -> Result<Signer, CompileError> {
        let Some(file) = self.signature()? else { return Ok(Signer::Nobody) };
        let signer = signature::signer(&file, &self.header().encode());
        Ok(signer.map_or_else(|problem| Signer::Broken(problem.to_string()), Signer::Key))
    }

    /// Checks that it is signed with the key in a file.
    ///
    /// # Errors
    /// [`CompileError::NotSigned`] where it is not, [`CompileError::KeyFile`] where the file holds no key that counts, and as
    /// [`Bundle::signature`].
    pub fn expect_signer(&self, key: &Path) -> Result<PublicKey, CompileError> {
        let wanted = read_key(key).map_err(CompileError::KeyFile)?;
        let problem = match self.signer()? {
            Signer::Key(key) if key == wanted => return Ok(key),
            Signer::Key(other) => format!("is signed by {other}, and not by {wanted}"),
            Signer::Nobody => format!("is not signed: there is no {}", beside(self.path()).display()),
            Signer::Broken(problem) => format!("its signature {problem}; copy both again"),
        };
        Err(CompileError::NotSigned { path: self.path().to_owned(), problem })
    }
}

/// The name by which this user trusts a key, if it does.
///
/// # Errors
/// There is a folder of keys that does not count because of who may write to it.
pub fn trusted_name(key: PublicKey) -> Result<Option<String>, TrustError> {
    match Keys::of_user() {
        Err(TrustError::NoFolder) => Ok(None),
        keys => keys?.name_of(key),
    }
}

/// Reads a private key, which nobody but its owner may read or write.
fn read_private(path: &Path) -> Result<SigningKey, CompileError> {
    let (file, bytes) = read_own(path).map_err(CompileError::KeyFile)?;
    let refuse = |problem: &str| CompileError::Key { path: path.to_owned(), problem: problem.to_owned() };
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("is no PEM file"))?;
    if text.contains("PUBLIC KEY") {
        return Err(refuse("is a public key; signing takes the private one"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let io = |source| CompileError::Io { path: path.to_owned(), source };
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            let remedy = format!("chmod 600 {}", path.display());
            return Err(refuse(&format!("others may read this private key (mode {mode:04o}); {remedy}")));
        }
    }
    #[cfg(not(unix))]
    let _ = file;
    if text.contains("ENCRYPTED") {
        return Err(refuse("is encrypted; decrypt it first, such as with openssl pkcs8"));
    }
    // What the library says of it may repeat a part of the key.
    SigningKey::from_pkcs8_pem(text).map_err(|_| refuse("is no Ed25519 private key in PEM (PKCS #8)"))
}
