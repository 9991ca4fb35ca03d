//! Tests of compilations that are disturbed: by signals, by a checkpoint that gets shorter, by what an earlier one
//! left.

use crate::truncated;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;
use trit_command::signals;
use trit_text::output::Unfinished;
use tritc::compile::compile;
use tritc::load::{LoadOptions, load};
use tritc::progress::{Progress, Silent, Stage};

/// Names a child its folder; its presence makes a test's process that child.
const FOLDER: &str = "TRIT_TEST_FOLDER";

/// Starts a child with signals as they are by default: the tests themselves may run where Ctrl-C is ignored, as in the
/// background of a script.
const DEFAULT: [&str; 2] = ["env", "--default-signal=INT,HUP,TERM"];

/// A small checkpoint, larger than a page or two.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bitnet-online")
}

fn model() -> tritc::model::Model {
    load(&fixture(), &LoadOptions::default()).unwrap()
}

fn child_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Starts the test `name` of this program once more, as a child that works in `folder`, behind `before`.
fn child(name: &str, folder: &Path, before: &[&str]) -> Child {
    let this = std::env::current_exe().unwrap();
    let arguments = [this.as_os_str(), "--exact".as_ref(), name.as_ref(), "--nocapture".as_ref()];
    let all: Vec<_> = before.iter().map(|word| word.as_ref()).chain(arguments).collect();
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).env(FOLDER, folder).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until a line of the child's says so.
fn wait_for(lines: &mut BufReader<ChildStderr>, word: &str) -> String {
    let mut all = String::new();
    while !all.contains(word) {
        assert!(lines.read_line(&mut all).unwrap() > 0, "{word:?} never came: {all}");
    }
    all
}

/// How a child ended, as shells count: by an exit code, or by a signal.
fn ended(child: &mut Child) -> i32 {
    let status = child.wait().unwrap();
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap()
}

fn parts(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".part")).collect()
}

/// The mask of signals that this process has handlers for.
fn signals_taken() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

/// Says when writing has begun, and stays there.
struct Stuck(Unfinished);

impl Progress for Stuck {
    fn unfinished(&self) -> Unfinished {
        self.0.clone()
    }

    fn begin(&self, stage: Stage, _: u64) {
        if stage == Stage::Pack {
            eprintln!("writing");
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

#[test]
fn signals_leave_nothing_and_what_is_killed_is_cleared_away_by_the_next() {
    let name = "disturbed::signals_leave_nothing_and_what_is_killed_is_cleared_away_by_the_next";
    if let Some(folder) = child_folder() {
        let unfinished = Unfinished::default();
        signals::clean_up_when_killed(signals::Interrupts::Too, &unfinished, || signals::Told::Ends);
        // Whoever sends signals must know that they are taken: SIGTERM is 15, the fifteenth bit of the mask.
        while signals_taken() & 1 << 14 == 0 {
            std::thread::yield_now();
        }
        compile(&model(), &folder.join("out.trit"), &[], &Stuck(unfinished)).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let signal = |child: &Child, signal: &str| {
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    for (sent, code) in [("-TERM", 143), ("-HUP", 129), ("-INT", 130)] {
        let mut writing = child(name, folder.path(), &DEFAULT);
        wait_for(&mut BufReader::new(writing.stderr.take().unwrap()), "writing");
        assert_eq!(parts(folder.path()).len(), 1);
        signal(&writing, sent);
        assert_eq!(ended(&mut writing), code);
        assert_eq!(parts(folder.path()), [""; 0]);
    }
    // Under `nohup` a terminal that closes ends nothing.
    let mut writing = child(name, folder.path(), &[&DEFAULT[..], &["nohup"]].concat());
    wait_for(&mut BufReader::new(writing.stderr.take().unwrap()), "writing");
    signal(&writing, "-HUP");
    signal(&writing, "-TERM");
    assert_eq!(ended(&mut writing), 143);

    let mut killed = child(name, folder.path(), &DEFAULT);
    wait_for(&mut BufReader::new(killed.stderr.take().unwrap()), "writing");
    signal(&killed, "-KILL");
    assert_eq!(killed.wait().unwrap().signal(), Some(9));
    let left = parts(folder.path());
    assert_eq!(left.len(), 1);
    // Not theirs: one that is being written, and one for another bundle.
    let mut writing = child(name, folder.path(), &DEFAULT);
    wait_for(&mut BufReader::new(writing.stderr.take().unwrap()), "writing");
    assert!(!parts(folder.path()).contains(&left[0]));
    let held = parts(folder.path());
    fs::write(folder.path().join(".other.trit.abcdef.part"), "").unwrap();
    fs::write(folder.path().join(".out.trit.much-longer.part"), "").unwrap();
    compile(&model(), &folder.path().join("out.trit"), &[], &Silent).unwrap();
    let mut expected =
        [&held[..], &[".other.trit.abcdef.part".into(), ".out.trit.much-longer.part".into()]].concat();
    let mut found = parts(folder.path());
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    signal(&writing, "-TERM");
    writing.wait().unwrap();
}

/// A copy of the checkpoint in `folder`.
fn checkpoint(folder: &Path) {
    for name in ["model.safetensors", "config.json"] {
        fs::copy(fixture().join(name), folder.join(name)).unwrap();
    }
}

/// The program would end in SIGBUS, without a word.
#[test]
fn a_checkpoint_that_gets_shorter_ends_in_a_message() {
    let name = "disturbed::a_checkpoint_that_gets_shorter_ends_in_a_message";
    if let Some(folder) = child_folder() {
        truncated::explain_truncated_files();
        let model = load(&folder, &LoadOptions::default()).unwrap();
        File::options().write(true).open(folder.join("model.safetensors")).unwrap().set_len(4096).unwrap();
        compile(&model, &folder.join("out.trit"), &[], &Silent).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path());
    let output = child(name, folder.path(), &[]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("model.safetensors: got shorter while it was read"), "{said}");
    assert!(!folder.path().join("out.trit").exists());
}
