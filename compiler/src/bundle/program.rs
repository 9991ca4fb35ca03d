//! Programs of one file ([`trit_format::program`]): finds the runtime they begin with, and takes bundles out of them again.

use crate::bundle::Bundle;
use crate::bundle::writer::check_output;
use crate::error::CompileError;
use crate::files::mapped::MappedFile;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trit_format::container::{MAJOR, MINOR};
use trit_format::program::{Program, Trailer, find, stub_version};
use trit_format::signature;
use trit_format::target::{Arch, Target};
use trit_text::output::{self, Kind, Pending, Unfinished};

const PROGRAM: Kind =
    Kind { name: "program with a bundle", example: "model", is: |file| Ok(find_in(file)?.is_some()) };

/// Refuses to replace anything but a program with a bundle.
///
/// # Errors
/// [`CompileError::Output`] as [`output::check`].
pub fn check_program_output(out: &Path) -> Result<(), CompileError> {
    output::check(out, &PROGRAM, &[]).map_err(CompileError::Output)
}

/// The executable that a program begins with: `trit-run`, for the architecture that the bundle has code for.
pub struct Stub {
    file: Arc<MappedFile>,
}

impl Stub {
    /// Opens an executable of the runtime.
    ///
    /// # Errors
    /// [`CompileError::Io`]; [`CompileError::Stub`] where the file is no executable for Linux on `arch`, is not `trit-run` or
    /// one that reads another version of the format, or has a bundle already.
    pub fn open(path: &Path, arch: Arch) -> Result<Stub, CompileError> {
        let file = MappedFile::open(path)?;
        let refuse = |problem: String| Err(CompileError::Stub { path: path.to_owned(), problem });
        let bytes = file.bytes();
        match elf_arch(bytes) {
            Some(found) if found == arch => {}
            Some(found) => {
                return refuse(format!("is an executable for {found}, and the bundle is for {arch}"));
            }
            None => return refuse("is no executable for Linux on x86_64 or aarch64".to_owned()),
        }
        if find_in_bytes(bytes).is_ok_and(|found| found.is_some()) {
            return refuse("is a program that has a bundle already".to_owned());
        }
        match stub_version(bytes) {
            Some((major, minor)) if (u16::from(major), u16::from(minor)) == (MAJOR, MINOR) => {
                Ok(Stub { file })
            }
            Some((major, minor)) => refuse(format!(
                "reads bundles of format {major}.{minor}, and {MAJOR}.{MINOR} is written here"
            )),
            None => refuse("is not trit-run".to_owned()),
        }
    }

    /// Looks for the runtime of a release beside the program that runs now: `trit-run-ARCH`, and for this machine's own
    /// architecture also `trit-run`.
    ///
    /// # Errors
    /// [`CompileError::NoStub`] with the names that were looked for; otherwise as [`Stub::open`].
    pub fn beside_this_program(arch: Arch) -> Result<Stub, CompileError> {
        let mut tried = vec![format!("trit-run-{arch}")];
        if Arch::HOST == Some(arch) {
            tried.push("trit-run".to_owned());
        }
        let program = std::env::current_exe().unwrap_or_default();
        let tried: Vec<PathBuf> = tried.into_iter().map(|name| program.with_file_name(name)).collect();
        match tried.iter().find(|path| path.is_file()) {
            Some(path) => Stub::open(path, arch),
            None => Err(CompileError::NoStub { arch, tried }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether it needs libraries of the system it runs on.
    pub fn is_dynamic(&self) -> bool {
        has_interpreter(self.bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.file.bytes()
    }
}

/// The architecture of a program with code for `targets`; this machine's where there is no code.
///
/// # Errors
/// [`CompileError::TwoArchitectures`]; [`CompileError::UnsupportedTarget`] on a machine of another architecture.
pub fn arch_of(targets: &[Target]) -> Result<Arch, CompileError> {
    let Some(first) = targets.first().map(|target| target.arch()).or(Arch::HOST) else {
        return Err(CompileError::UnsupportedTarget {
            target: None,
            supported: trit_codegen::supported().to_vec(),
        });
    };
    match targets.iter().all(|target| target.arch() == first) {
        true => Ok(first),
        false => Err(CompileError::TwoArchitectures { targets: targets.to_vec() }),
    }
}

/// Copies a program's bundle, and its signature where it has one, to files of their own.
///
/// # Errors
/// [`CompileError::Invalid`] where `bundle` is none of a program, [`CompileError::Io`].
pub fn extract(bundle: &Bundle, out: &Path, unfinished: &Unfinished) -> Result<(), CompileError> {
    if !bundle.is_program() {
        return Err(bundle.invalid("is a bundle already, not a program with one"));
    }
    check_output(out)?;
    write(out, unfinished, bundle.bytes())?;
    match bundle.signature()? {
        Some(file) => write(&signature::beside(out), unfinished, &file),
        None => Ok(()),
    }
}

/// Writes a program anew with another signature.
pub(crate) fn replace_signature(
    bundle: &Bundle,
    signature: &[u8],
    unfinished: &Unfinished,
) -> Result<(), CompileError> {
    let out = bundle.path();
    let io = |source| CompileError::Io { path: out.to_owned(), source };
    let mut file = Pending::create(out, unfinished).map_err(io)?;
    file.file()
        .write_all(bundle.before())
        .and_then(|()| file.file().write_all(bundle.bytes()))
        .map_err(io)?;
    let trailer = Trailer {
        offset: bundle.before().len() as u64,
        len: bundle.bytes().len() as u64,
        signature: signature.len() as u32,
    };
    finish(&mut file, trailer, &bundle.header().encode(), signature).map_err(io)?;
    file.keep().map_err(io)
}

/// Writes what follows a program's bundle, and makes it a file that can be run.
pub(crate) fn finish(
    file: &mut Pending,
    trailer: Trailer,
    header: &[u8],
    signature: &[u8],
) -> io::Result<()> {
    file.file().seek(SeekFrom::Start(trailer.offset + trailer.len))?;
    file.file().write_all(signature)?;
    file.file().write_all(&trailer.encode(header, signature))?;
    file.make_executable()
}

/// Writes a whole file.
pub(crate) fn write(out: &Path, unfinished: &Unfinished, bytes: &[u8]) -> Result<(), CompileError> {
    let io = |source| CompileError::Io { path: out.to_owned(), source };
    let mut file = Pending::create(out, unfinished).map_err(io)?;
    file.file().write_all(bytes).map_err(io)?;
    file.keep().map_err(io)
}

/// The bundle in a file that is open.
pub(crate) fn find_in(file: &mut File) -> io::Result<Option<Program>> {
    let len = file.metadata()?.len();
    find(len, |at, to| {
        let mut file = &*file;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(to)
    })
}

/// The bundle in a file that is mapped.
pub(crate) fn find_in_bytes(bytes: &[u8]) -> io::Result<Option<Program>> {
    find(bytes.len() as u64, |at, to| {
        let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..)?.get(..to.len()));
        to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    })
}

/// The first bytes of a little-endian ELF file of 64 bits.
const ELF: [u8; 6] = *b"\x7fELF\x02\x01";
const EXECUTABLE: u16 = 2;
/// Executables that may stand anywhere in memory are of the type of shared libraries.
const POSITION_INDEPENDENT: u16 = 3;
/// The type of the program header that names the program which loads libraries.
const INTERPRETER: u32 = 3;

/// The architecture of an executable in the ELF format; `None` where it is of another format or architecture.
fn elf_arch(bytes: &[u8]) -> Option<Arch> {
    let word = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    if !bytes.starts_with(&ELF) || ![EXECUTABLE, POSITION_INDEPENDENT].contains(&word(16)?) {
        return None;
    }
    match word(18)? {
        62 => Some(Arch::X86_64),
        183 => Some(Arch::Aarch64),
        _ => None,
    }
}

/// Whether an ELF executable names a program that loads its libraries.
fn has_interpreter(bytes: &[u8]) -> bool {
    let found = || {
        let at = u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?);
        let size = u16::from_le_bytes(bytes.get(54..56)?.try_into().ok()?);
        let count = u16::from_le_bytes(bytes.get(56..58)?.try_into().ok()?);
        Some((0..u64::from(count)).any(|i| {
            let kind = usize::try_from(at.saturating_add(i * u64::from(size)));
            let kind = kind.ok().and_then(|kind| bytes.get(kind..)?.first_chunk::<4>());
            kind.is_some_and(|kind| u32::from_le_bytes(*kind) == INTERPRETER)
        }))
    };
    found().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trit_format::program::ALIGNMENT;

    #[test]
    fn only_the_runtime_of_the_right_architecture_is_a_stub() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stub");
        let mut elf = vec![0; 200];
        elf[..6].copy_from_slice(&ELF);
        elf[16] = 3;
        elf[18] = 183;
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Stub::open(&path, Arch::Aarch64).err().map(|e| e.to_string())
        };
        assert!(refused(&elf).unwrap().contains("is not trit-run"));
        elf.extend(trit_format::program::stub_mark());
        assert_eq!(refused(&elf), None);
        let at = elf.len() - 1;
        elf[at] += 1;
        assert!(refused(&elf).unwrap().contains("reads bundles of format"));
        elf[at] -= 1;
        elf[18] = 62;
        assert!(refused(&elf).unwrap().contains("for x86_64, and the bundle is for aarch64"));
        assert!(refused(b"#!/bin/sh\n").unwrap().contains("no executable for Linux"));
    }

    #[test]
    fn an_executable_that_loads_libraries_is_known() {
        let mut elf = vec![0; 200];
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 2;
        assert!(!has_interpreter(&elf));
        elf[64 + 56] = 3;
        assert!(has_interpreter(&elf));
        assert!(!has_interpreter(&elf[..40]));
    }

    #[test]
    fn a_program_is_of_one_architecture() {
        assert_eq!(arch_of(&[Target::Aarch64, Target::Aarch64Dotprod]).unwrap(), Arch::Aarch64);
        assert_eq!(arch_of(&[]).ok(), Arch::HOST);
        let mixed = arch_of(&[Target::X86_64V3, Target::Aarch64]).unwrap_err().to_string();
        assert!(mixed.contains("x86-64-v3, aarch64"), "{mixed}");
    }

    #[test]
    fn bundles_stand_at_pages_of_every_size() {
        assert!([4 << 10, 16 << 10, 64 << 10].iter().all(|page| ALIGNMENT.is_multiple_of(*page)));
    }
}
