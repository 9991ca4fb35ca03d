//! Build script of both commands: tells them the commit they are built from, for `--version`.
//!
//! `TRIT_COMMIT` in the environment says it where the sources are no clone. Without it, without git, or inside another
//! repository the commit is unknown, which is no error. The same commit gives the same program: nothing of the machine
//! or the time enters.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=TRIT_COMMIT");
    let commit = std::env::var("TRIT_COMMIT").ok().or_else(of_clone);
    if let Some(commit) = commit.filter(|c| !c.is_empty() && c.chars().all(|c| c.is_ascii_alphanumeric())) {
        println!("cargo:rustc-env=TRIT_COMMIT={commit}");
    }
}

fn of_clone() -> Option<String> {
    let root = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if !root.join("runtime/text/commit.rs").is_file() {
        return None;
    }
    // Changed by every commit and every change of branch.
    for name in ["HEAD", "logs/HEAD"] {
        let file = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&file).exists() {
            println!("cargo:rerun-if-changed={file}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
