//! Files that others change while a model runs: what is in memory goes on, what is not is an error that names the file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trit_runtime::source::{FileSource, Source};
use trit_runtime::{
    KernelChoice, LoadOptions, Model, RuntimeError, Session, SessionOptions, TrustPolicy, Tuning,
    WeightMemory,
};
use trit_tests::large;
use trit_tests::workbench::{compile, repository, run, scratch, trit_run};

const PROMPT: [u32; 6] = [4093, 46, 1218, 605, 12, 300];

fn options(memory: WeightMemory) -> LoadOptions {
    LoadOptions { memory, trust: TrustPolicy::everything(), tuning: Tuning::Off, ..LoadOptions::default() }
}

fn session(model: Arc<Model>) -> Session {
    let options = SessionOptions {
        context: Some(64),
        threads: Some(2),
        oversubscribe: true,
        ..SessionOptions::default()
    };
    Session::new(model, options).unwrap()
}

/// Logits after the prompt, as bits.
fn logits(session: &mut Session) -> Vec<u32> {
    session.truncate(0);
    session.prefill(&PROMPT).unwrap().iter().map(|l| l.to_bits()).collect()
}

fn fables(name: &str) -> PathBuf {
    compile(&repository().join("examples/models/fables-12m"), name)
}

fn writable(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

/// Other numbers in the middle of the file, its length as before.
fn overwrite(path: &Path) {
    let mut file = writable(path);
    let len = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(len / 2)).unwrap();
    file.write_all(&[0x55; 4096]).unwrap();
}

fn is_changed(result: Result<&[f32], RuntimeError>, path: &Path, word: &str) {
    let error = result.map(<[f32]>::len).unwrap_err();
    assert!(matches!(error, RuntimeError::Changed { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()) && text.contains(word), "{text}");
}

#[test]
fn a_small_bundle_in_memory_outlives_its_file() {
    let path = fables("changed-small");
    let mut session = session(Model::load(&path, &options(WeightMemory::Auto)).unwrap());
    let before = logits(&mut session);
    overwrite(&path);
    assert_eq!(logits(&mut session), before);
    // Still named as a bundle by its first bytes, so that the next run may replace it.
    writable(&path).set_len(1 << 12).unwrap();
    assert_eq!(logits(&mut session), before);
    assert!(matches!(Model::load(&path, &options(WeightMemory::Auto)), Err(RuntimeError::Format { .. })));
}

#[test]
fn overwriting_what_is_mapped_is_an_error_and_leaves_the_sequence() {
    let path = fables("changed-mapped");
    let mut session = session(Model::load(&path, &options(WeightMemory::Mapped)).unwrap());
    session.prefill(&PROMPT).unwrap();
    overwrite(&path);
    is_changed(session.decode(12), &path, "written to");
    assert_eq!(session.tokens(), PROMPT);
    is_changed(session.decode(12), &path, "written to");
}

/// Replacing a bundle by renaming another over it, as `tritc compile` does, touches nobody who runs it.
#[test]
fn replacing_a_bundle_is_no_change() {
    let path = fables("changed-replaced");
    let mut session = session(Model::load(&path, &options(WeightMemory::Mapped)).unwrap());
    let before = logits(&mut session);
    fables("changed-replaced");
    assert_eq!(logits(&mut session), before);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(logits(&mut session), before);
}

/// Rows of a large table come from the file.
#[test]
fn a_large_table_that_was_changed_or_cut_off_is_an_error() {
    let path = large::bundle("changed-large");
    for (change, word) in [(true, "written to"), (false, "cut off")] {
        let mut session = session(Model::load(&path, &options(WeightMemory::Auto)).unwrap());
        assert!(session.prefill(&PROMPT).is_ok());
        match change {
            true => {
                // The same bytes again: whether they are the same is not looked at.
                let mut bytes = [0; 16];
                let mut file = File::open(&path).unwrap();
                file.seek(SeekFrom::Start(1 << 20)).unwrap();
                file.read_exact(&mut bytes).unwrap();
                let mut file = writable(&path);
                file.seek(SeekFrom::Start(1 << 20)).unwrap();
                file.write_all(&bytes).unwrap();
            }
            false => writable(&path).set_len(1 << 16).unwrap(),
        }
        is_changed(session.decode(12), &path, word);
        assert_eq!(session.tokens(), PROMPT);
    }
}

/// A source without a file that ends early at some time.
struct Ending {
    bytes: Vec<u8>,
    ended: Arc<AtomicBool>,
}

impl Source for Ending {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        if self.ended.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.copy_from_slice(&self.bytes[offset as usize..][..to.len()]);
        Ok(())
    }
}

#[test]
fn a_read_that_fails_in_a_pass_fails_the_pass() {
    let path = fables("changed-source");
    let ended = Arc::new(AtomicBool::new(false));
    let source = Ending { bytes: std::fs::read(&path).unwrap(), ended: ended.clone() };
    // Without a file to map, weights are copied all the same; rows of tables are read.
    let model = Model::from_source(Box::new(source), &path, &options(WeightMemory::Mapped)).unwrap();
    let mut session = session(model);
    session.prefill(&PROMPT).unwrap();
    ended.store(true, Ordering::SeqCst);
    is_changed(session.decode(12), &path, "cut off");
    assert_eq!(session.tokens(), PROMPT);
}

#[test]
fn a_bundle_inside_another_file_runs() {
    let path = fables("changed-inside");
    let bytes = std::fs::read(&path).unwrap();
    let expected = logits(&mut session(Model::load(&path, &options(WeightMemory::Auto)).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    for (at, memory) in [
        (4096 + 64, WeightMemory::Mapped),
        (1 << 16, WeightMemory::Mapped),
        (13, WeightMemory::Mapped),
        (13, WeightMemory::Auto),
    ] {
        let outer = folder.path().join("outer");
        std::fs::write(&outer, [&vec![0xee; at], &bytes[..], b"more"].concat()).unwrap();
        let part = FileSource::part(File::open(&outer).unwrap(), at as u64, bytes.len() as u64).unwrap();
        let model = Model::from_source(Box::new(part), &outer, &options(memory)).unwrap();
        assert_eq!(logits(&mut session(model)), expected, "at {at}, {memory:?}");
    }
}

/// The whole program, its file changed under it once the first text is out.
#[test]
fn the_program_goes_on_or_says_what_happened() {
    let whole = fables("changed-program");
    let changed = scratch().join("changed-program-copy.trit");
    let kernels = format!("{:?}", KernelChoice::Portable).to_lowercase();
    // One slow worker, so that there is time to change something.
    let args = [
        "-p",
        "Once upon a time",
        "-n",
        "160",
        "--temp",
        "0",
        "--ignore-eos",
        "-t",
        "1",
        "--kernels",
        &kernels,
    ];
    let expected = run(trit_run(&[&[whole.to_str().unwrap()], &args[..]].concat())).ok();
    for mapped in [false, true] {
        for cut in [false, true] {
            std::fs::copy(&whole, &changed).unwrap();
            let mut command = trit_run(&[&[changed.to_str().unwrap()], &args[..]].concat());
            if mapped {
                command.arg("--mmap");
            }
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut first = [0];
            child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
            match cut {
                true => writable(&changed).set_len(1 << 16).unwrap(),
                false => overwrite(&changed),
            }
            let output = child.wait_with_output().unwrap();
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let what = format!("mapped {mapped}, cut off {cut}: {:?} {out}\n{err}", output.status);
            if mapped && cfg!(unix) {
                assert_eq!(output.status.code(), Some(3), "{what}");
                let named = format!("trit-run: {}: changed while it was running", changed.display());
                assert!(err.contains(&named), "{what}");
                assert!(expected[1..].starts_with(&*out), "{what}");
            } else {
                assert_eq!(output.status.code(), Some(0), "{what}");
                assert_eq!(out, expected[1..], "{what}");
            }
        }
    }
}
