//! Errors of the runtime enter; a status, and words that name the thing and say what the caller can do, leave.

use crate::types::{trit_error, trit_status};
use std::error::Error;
use std::ffi::CString;
use trit_runtime::format::trust::TrustError;
use trit_runtime::text::TextError;
use trit_runtime::text::causes::with_causes;
use trit_runtime::{CodeLimit, NoKernels, NotTrusted, RuntimeError};

/// Why a call failed.
#[derive(Debug)]
pub struct Failure {
    /// Its status.
    pub status: trit_status,
    message: String,
}

/// An argument that cannot be.
pub fn invalid(message: String) -> Failure {
    Failure::new(trit_status::TRIT_INVALID_ARGUMENT, message)
}

impl Failure {
    /// A failure.
    pub fn new(status: trit_status, message: String) -> Failure {
        Failure { status, message }
    }

    /// What the system said of a file.
    pub fn io(message: String) -> Failure {
        Failure::new(trit_status::TRIT_IO, message)
    }

    /// Another call has the handle.
    pub fn busy(what: &str) -> Failure {
        let message = format!("the {what} is used by another call: wait for that call to end");
        Failure::new(trit_status::TRIT_BUSY, message)
    }

    /// A buffer that is too small.
    pub fn too_small(name: &str, capacity: usize, needed: usize) -> Failure {
        let message = format!("{name} has room for {capacity} elements, {needed} are needed");
        Failure::new(trit_status::TRIT_BUFFER_TOO_SMALL, message)
    }

    /// A call that failed before with a defect left the handle half changed.
    pub fn broken(what: &str) -> Failure {
        let message = format!("a defect of the library ended an earlier call of the {what}: close it");
        Failure::new(trit_status::TRIT_INTERNAL, message)
    }

    /// What a bundle lacks.
    pub fn unsupported(message: String) -> Failure {
        Failure::new(trit_status::TRIT_UNSUPPORTED, message)
    }

    /// Text that cannot become tokens, or tokens text.
    pub fn text(name: &str, error: &TextError) -> Failure {
        let status = match error {
            TextError::Tokenizer(_) => trit_status::TRIT_INVALID_BUNDLE,
            TextError::TooLong { .. } => trit_status::TRIT_CONTEXT_FULL,
            TextError::Interrupted => trit_status::TRIT_ABORTED,
            _ => trit_status::TRIT_TEXT,
        };
        Failure::new(status, format!("{name}: {error}"))
    }

    /// As the caller gets it. A NUL within its words would end them.
    pub fn into_error(self) -> trit_error {
        let message = CString::new(self.message.replace('\0', "\u{fffd}")).unwrap_or_default();
        trit_error { status: self.status, message }
    }
}

impl From<TrustError> for Failure {
    /// The file of a key cannot be read, holds no key, or does not count.
    fn from(error: TrustError) -> Failure {
        let status = match &error {
            TrustError::Io { .. } => trit_status::TRIT_IO,
            TrustError::Owner { .. } | TrustError::Writable { .. } => trit_status::TRIT_UNTRUSTED,
            _ => trit_status::TRIT_INVALID_ARGUMENT,
        };
        let remedy = match status {
            trit_status::TRIT_INVALID_ARGUMENT => "; name the files of public keys in keys",
            _ => "",
        };
        Failure::new(status, format!("{error}{remedy}"))
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Failure {
        use trit_status::*;
        let status = match &error {
            RuntimeError::Io { .. } => TRIT_IO,
            RuntimeError::Changed { .. } => TRIT_CHANGED,
            RuntimeError::Format { .. } => TRIT_INVALID_BUNDLE,
            RuntimeError::Text { source, .. } => Failure::text("", source).status,
            RuntimeError::Kernels { .. } => TRIT_NO_KERNELS,
            RuntimeError::Untrusted { .. } => TRIT_UNTRUSTED,
            RuntimeError::TrustFolder(_) | RuntimeError::Input(_) | RuntimeError::Context { .. } => {
                TRIT_INVALID_ARGUMENT
            }
            RuntimeError::ContextFull { .. } => TRIT_CONTEXT_FULL,
            RuntimeError::Interrupted => TRIT_ABORTED,
            RuntimeError::NotFinite { .. } | RuntimeError::Suppressed { .. } => TRIT_MODEL,
            RuntimeError::SequenceMemory { .. } | RuntimeError::System(_) => TRIT_OUT_OF_MEMORY,
            RuntimeError::Threads { .. } => TRIT_SYSTEM,
            _ => TRIT_INTERNAL,
        };
        let mut message = with_causes(error.to_string(), error.source());
        if let Some(remedy) = remedy(&error) {
            message = format!("{message}; {remedy}");
        }
        Failure { status, message }
    }
}

/// What the caller can do, where the error's own words do not say it.
fn remedy(error: &RuntimeError) -> Option<&'static str> {
    Some(match error {
        RuntimeError::Changed { .. } => {
            "open it again, and replace bundles by renaming, not by writing into them"
        }
        RuntimeError::Untrusted { why, .. } => match why {
            NotTrusted::NotSigned => {
                "its signature is a file beside it, whose name ends in .sig, or in a program of one file: open it by its path"
            }
            NotTrusted::Signer(_) => "if you trust that key, name its file in keys",
            NotTrusted::Signature(_) | NotTrusted::SignatureFile(_) => {
                "copy the bundle and its signature again"
            }
            _ => {
                "set trust to TRIT_TRUST_ALWAYS if you know where it comes from, or kernels to TRIT_KERNELS_JIT"
            }
        },
        RuntimeError::Context { .. } => "set context to what it takes, or to 0",
        RuntimeError::ContextFull { context, longest, .. } if context < longest => {
            "pass fewer tokens, or open the bundle with a longer context"
        }
        RuntimeError::ContextFull { .. } => "pass fewer tokens, or compile the model with a longer context",
        RuntimeError::Interrupted => "call trit_session_resume to use the session again",
        RuntimeError::SequenceMemory { .. } => {
            "open the bundle with a shorter context, or close other sessions"
        }
        RuntimeError::Threads { .. } => "set threads to fewer",
        RuntimeError::Kernels { problem, .. } => match problem {
            NoKernels::OtherCpu { .. } => {
                "compile the model for this CPU too, or set kernels to TRIT_KERNELS_AUTO"
            }
            NoKernels::NotGenerated { limit: Some(CodeLimit::StoredInFile), .. }
            | NoKernels::NoneFor { limit: Some(CodeLimit::StoredInFile), .. } => {
                "set weights to TRIT_WEIGHTS_AUTO, or compile the model for every CPU"
            }
            NoKernels::WithoutJit => "set kernels to TRIT_KERNELS_AUTO",
            _ => "set kernels to TRIT_KERNELS_PORTABLE",
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_remedies_are_as_documented() {
        use trit_status::*;
        let path = || "a.trit".into();
        for (error, status, words) in [
            (
                RuntimeError::Untrusted { path: path(), why: NotTrusted::Nothing },
                TRIT_UNTRUSTED,
                "TRIT_TRUST_ALWAYS",
            ),
            (
                RuntimeError::Untrusted { path: path(), why: NotTrusted::NotSigned },
                TRIT_UNTRUSTED,
                "by its path",
            ),
            (
                RuntimeError::ContextFull { tokens: 9, context: 4, longest: 8 },
                TRIT_CONTEXT_FULL,
                "longer context",
            ),
            (RuntimeError::ContextFull { tokens: 9, context: 8, longest: 8 }, TRIT_CONTEXT_FULL, "compile"),
            (RuntimeError::Context { asked: 9, longest: 8 }, TRIT_INVALID_ARGUMENT, "or to 0"),
            (RuntimeError::Interrupted, TRIT_ABORTED, "trit_session_resume"),
            (RuntimeError::Kernels { path: path(), problem: NoKernels::NoTier }, TRIT_NO_KERNELS, "PORTABLE"),
            (RuntimeError::System("no".into()), TRIT_OUT_OF_MEMORY, "no"),
            (RuntimeError::Suppressed { tokens: 3 }, TRIT_MODEL, "3 tokens"),
            (RuntimeError::Threads { count: 9, problem: "no".into() }, TRIT_SYSTEM, "fewer"),
        ] {
            let failure = Failure::from(error);
            assert_eq!(failure.status, status);
            assert!(failure.message.contains(words), "{}", failure.message);
        }
        let error = invalid("a\0b".into()).into_error();
        assert_eq!(error.message.to_str().unwrap(), "a\u{fffd}b");
        assert_eq!(Failure::text("text", &TextError::Encode("no".into())).status, TRIT_TEXT);
    }
}
