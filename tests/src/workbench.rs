//! Folders, the built commands, compiled bundles.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository")
}

/// A file or folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

/// A file or folder of the data that is not in the repository, where it is there. Where it is not, says on standard
/// error what is left out; the test runner does not hide that.
pub fn shared(name: &str, left_out: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("TRIT_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => repository().parent()?.join("shared"),
    };
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    // Not `eprintln!`, which the test runner keeps to itself while a test passes.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {left_out} (there is no {})", path.display());
    None
}

/// The folder cargo puts this profile's programs in.
fn programs() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let test = std::env::current_exe().expect("a test knows its own path");
        let folder =
            test.parent().and_then(Path::parent).expect("tests stand in TARGET/PROFILE/deps").to_owned();
        let profile = match folder.file_name().and_then(OsStr::to_str) {
            Some("debug") => "dev",
            Some(other) => other,
            None => panic!("{}: no profile folder", folder.display()),
        };
        // A test of one package does not build the programs of another. All packages at once, so that dependencies
        // have the features they have in `cargo test --workspace` and nothing is built twice.
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--bins", "--profile", profile, "--target-dir"])
            .arg(folder.parent().expect("the profile folder stands in the target folder"))
            .current_dir(repository())
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the programs do not build");
        folder
    });
    &FOLDER
}

/// A folder for what tests write and may find again: under the target folder, kept.
pub fn scratch() -> PathBuf {
    let folder = programs().join("trit-tests");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// One of the built programs, with a trust folder of the tests' own.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(programs().join(format!("{name}{}", std::env::consts::EXE_SUFFIX)));
    command.env("TRIT_TRUST_DIR", scratch().join("trusted")).stdin(Stdio::null());
    command
}

/// `tritc` with arguments.
pub fn tritc(args: &[&str]) -> Command {
    let mut command = program("tritc");
    command.args(args);
    command
}

/// `trit-run` with arguments.
pub fn trit_run(args: &[&str]) -> Command {
    let mut command = program("trit-run");
    command.args(args);
    command
}

/// What a command gave.
pub struct Ran {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Standard output, of a command that must have succeeded.
    ///
    /// # Panics
    /// If it did not.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.out, self.err);
        self.out
    }

    /// Standard output as one JSON value and nothing else, of a command that must have succeeded.
    ///
    /// # Panics
    /// If it did not, or printed something else.
    pub fn json(self) -> serde_json::Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("no JSON ({e}): {out}"))
    }

    /// Demands an exit code, and standard error with each of `words`, without a panic message.
    ///
    /// # Panics
    /// If it is otherwise.
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "standard error lacks {word:?}: {}", self.err);
        }
    }
}

/// Waits until something is so.
///
/// # Panics
/// If it is not after five minutes.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed() < std::time::Duration::from_secs(300), "in vain: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it cannot be started.
pub fn run(mut command: Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// Compiles a checkpoint to a bundle of that name in [`scratch`], for every target there is an emitter for.
///
/// # Panics
/// If it does not compile.
pub fn compile(checkpoint: &Path, name: &str) -> PathBuf {
    compile_with(checkpoint, name, &[])
}

/// [`compile`] with more arguments.
///
/// # Panics
/// If it does not compile.
pub fn compile_with(checkpoint: &Path, name: &str, more: &[&str]) -> PathBuf {
    let output = scratch().join(format!("{name}.trit"));
    let mut command = tritc(&["compile", "--target", "all", "-o"]);
    command.arg(&output).arg(checkpoint).args(more);
    run(command).ok();
    output
}
