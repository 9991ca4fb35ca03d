//! Commands that write files, where the disk is full and where it cannot be written: each call that makes, names or fills a file fails
//! in turn, and in turn with all that come after it. The message names the file and says why, what was to be written is not there, what
//! it was to replace is as it was, and nothing is left beside it.
#![cfg(target_os = "linux")]

use nix::errno::Errno;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use trit_tests::traced::{Ended, Then, follow};
use trit_tests::workbench::{fixture, program, run, scratch, tritc};

/// How a command goes whose calls `which` (by their number, from 0 on, among those that write) fail, and the last of these calls.
fn failing(
    what: &str,
    program: &Command,
    errno: Errno,
    which: impl Fn(usize) -> bool,
) -> Option<(Ended, Option<&'static str>)> {
    let (mut seen, mut last) = (0, None);
    let ended = follow(program, what, |stop| {
        let Some(call) = stop.writes() else { return Then::Go };
        seen += 1;
        if !which(seen - 1) {
            return Then::Go;
        }
        last = Some(call);
        Then::Fail(errno)
    })?;
    Some((ended, last))
}

/// Names in a folder and in its folders, with what the files hold.
fn all(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => {
                let inside = all(&entry.path()).into_iter();
                found.extend(inside.map(|(within, bytes)| (format!("{name}/{within}"), bytes)));
            }
            false => found.push((name, fs::read(entry.path()).unwrap())),
        }
    }
    found.sort();
    found
}

/// A command that writes files to a folder.
struct Writing<'a> {
    what: &'static str,
    /// The command, for a folder. What it trusts is in the folder `trust` there.
    command: &'a dyn Fn(&Path) -> Command,
    /// What stands in the folder before.
    before: &'a [(&'a str, &'a [u8])],
    /// The file that a message names.
    names: &'static str,
    /// What that file holds where the command did what it says, and only could not note that the bundle is trusted; nothing for
    /// commands that note nothing.
    whole: &'a [u8],
}

impl Writing<'_> {
    /// Runs it once, with some of its calls failing, and gives the last of these; nothing where it makes none of them. `None` where the
    /// system does not allow a process to be followed.
    fn once(&self, errno: Errno, words: &str, which: impl Fn(usize) -> bool) -> Option<Option<&'static str>> {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for (name, bytes) in self.before {
            fs::write(folder.join(name), bytes).unwrap();
        }
        let before = all(folder);
        let mut command = (self.command)(folder);
        command.env("TRIT_TRUST_DIR", folder.join("trust"));
        let (ended, call) = failing(self.what, &command, errno, which)?;
        let what = format!("{} at {call:?}: {}", self.what, ended.err);
        let Some(call) = call else {
            assert_eq!(ended.code, Some(0), "{what}");
            return Some(None);
        };
        assert!(ended.err.contains(words) && !ended.err.contains("panicked"), "{what}");
        let after = all(folder);
        let left: Vec<&str> =
            after.iter().map(|(name, _)| &**name).filter(|name| name.ends_with(".part")).collect();
        assert!(left.is_empty(), "{what}: {left:?}");
        match ended.code {
            // A warning says what could not be noted, and what that means.
            Some(0) => {
                assert!(fs::read(folder.join(self.names)).unwrap() == self.whole, "{what}");
                assert!(ended.err.contains(folder.join("trust").to_str().unwrap()), "{what}");
            }
            Some(3) => {
                let path = folder.join(self.names);
                assert!(ended.err.contains(path.to_str().unwrap()), "{what}");
                let whole_key = |name: &str, bytes: &[u8]| {
                    self.what == "keygen" && name == "key" && bytes.ends_with(b"-----END PRIVATE KEY-----\n")
                };
                let new: Vec<_> = after.iter().filter(|(name, bytes)| !whole_key(name, bytes)).collect();
                assert!(
                    new.into_iter().eq(before.iter()),
                    "{what}: {:?}",
                    after.iter().map(|(name, _)| name).collect::<Vec<_>>()
                );
            }
            other => panic!("exit code {other:?}: {what}"),
        }
        // When there is room again.
        run(command).ok();
        Some(Some(call))
    }

    fn check(&self) {
        let mut calls = Vec::new();
        loop {
            let failed = self.once(Errno::ENOSPC, "No space left on device", |n| n == calls.len());
            let Some(failed) = failed else { return };
            let Some(call) = failed else { break };
            calls.push(call);
        }
        for from in 0..calls.len() {
            self.once(Errno::ENOSPC, "No space left on device", |n| n >= from);
        }
        self.once(Errno::EROFS, "Read-only file system", |_| true);
        for call in ["openat", "write", "fsync"] {
            assert!(calls.contains(&call), "{}: {calls:?}", self.what);
        }
    }
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    if cfg!(not(target_arch = "x86_64")) {
        let reason = "which registers hold a call is written down for x86-64 alone";
        let _ = writeln!(std::io::stderr(), "NOT RUN: a disk that is full or read-only: {reason}");
        return;
    }
    let checkpoint = fixture("llama-trilm");
    let compile = |out: &Path, more: &[&str]| {
        let args = ["compile", checkpoint.to_str().unwrap(), "-t", "1", "-o", out.to_str().unwrap()];
        tritc(&[&args, more].concat())
    };
    let whole = scratch().join("full-disk.trit");
    run(compile(&whole, &[])).ok();
    let bytes = fs::read(&whole).unwrap();
    let stub = program("trit-run").get_program().to_owned();
    let exe = ["--emit", "exe", "--stub", stub.to_str().unwrap()];
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    run(tritc(&["keygen", key.to_str().unwrap()])).ok();
    let portable = scratch().join("full-disk-portable.trit");
    run(compile(&portable, &["--target", "portable"])).ok();
    let portable = fs::read(portable).unwrap();
    let native = scratch().join("full-disk");
    run(compile(&native, &exe)).ok();
    let name = |folder: &Path, name: &str| folder.join(name).to_str().unwrap().to_owned();
    for writing in [
        Writing {
            what: "compile",
            command: &|folder| compile(&folder.join("m.trit"), &[]),
            before: &[],
            names: "m.trit",
            whole: &bytes,
        },
        Writing {
            what: "compile over another bundle",
            command: &|folder| compile(&folder.join("m.trit"), &["--target", "portable"]),
            before: &[("m.trit", &bytes)],
            names: "m.trit",
            whole: &portable,
        },
        Writing {
            what: "compile --emit exe",
            command: &|folder| compile(&folder.join("m"), &exe),
            before: &[],
            names: "m",
            whole: &fs::read(native).unwrap(),
        },
        Writing {
            what: "retarget in place",
            command: &|folder| tritc(&["retarget", &name(folder, "m.trit"), "--target", "portable"]),
            before: &[("m.trit", &bytes)],
            names: "m.trit",
            whole: &portable,
        },
        Writing {
            what: "sign",
            command: &|folder| tritc(&["sign", &name(folder, "m.trit"), "--key", key.to_str().unwrap()]),
            before: &[("m.trit", &bytes)],
            names: "m.trit.sig",
            whole: &[],
        },
        Writing {
            what: "keygen",
            command: &|folder| tritc(&["keygen", &name(folder, "key")]),
            before: &[],
            names: "key",
            whole: &[],
        },
    ] {
        writing.check();
    }
}
