//! The libraries from a plain program: what they may not do to the process they run in, and a bundle inside another file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use trit_format::FormatError;
use trit_format::container::Digest;
use trit_runtime::generate::generate;
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::source::FileSource;
use trit_runtime::text::output::{self, Kind, Pending, Unfinished};
use trit_runtime::{
    KernelChoice, KernelSource, KvType, LoadOptions, MappingHook, Model, NotTrusted, RuntimeError, Session,
    SessionOptions, Texts, TrustPolicy, Trusted, Tuning, WeightMemory,
};
use trit_tests::ways::endless;
use trit_tests::workbench::{compile, repository};

const PROMPT: [u32; 6] = [4093, 46, 1218, 605, 12, 300];

fn fables(name: &str) -> PathBuf {
    compile(&repository().join("examples/models/fables-12m"), name)
}

fn session(model: &Arc<Model>) -> Session {
    let options =
        SessionOptions { context: Some(64), threads: Some(2), oversubscribe: true, ..Default::default() };
    Session::new(model.clone(), options).unwrap()
}

/// Logits after the prompt, as bits.
fn logits(model: &Arc<Model>) -> Vec<u32> {
    session(model).prefill(&PROMPT).unwrap().iter().map(|l| l.to_bits()).collect()
}

/// A bundle in the middle of a file.
struct Inside {
    file: PathBuf,
    at: u64,
    len: u64,
}

impl Inside {
    /// With bytes of all kinds before it, and 100 after it.
    fn new(folder: &Path, bundle: &Path, at: u64) -> Inside {
        let bytes = std::fs::read(bundle).unwrap();
        let noise = |n: u64, seed: u64| -> Vec<u8> {
            (0..n).map(|i| (((i + seed) * 2_654_435_761) >> 7) as u8).collect()
        };
        let file = folder.join(format!("inside-{at}"));
        std::fs::write(&file, [noise(at, 1), bytes.clone(), noise(100, 9)].concat()).unwrap();
        Inside { file, at, len: bytes.len() as u64 }
    }

    fn source(&self) -> Box<FileSource> {
        Box::new(FileSource::part(File::open(&self.file).unwrap(), self.at, self.len).unwrap())
    }
}

/// Everything that a bundle in a file of its own can do. At 4096 + 13 its bytes cannot be mapped for kernels, so that they
/// are copied wherever they are wanted.
#[test]
fn a_bundle_inside_another_file_does_all_that_a_bundle_does() {
    let bundle = fables("library-inside");
    let folder = tempfile::tempdir().unwrap();
    let digest = Texts::open(&bundle).unwrap().digest();
    let mut listed = TrustPolicy::nothing();
    listed.digests.push(digest);
    let options = |memory| LoadOptions {
        memory,
        kernels: KernelChoice::Embedded,
        trust: listed.clone(),
        tuning: Tuning::Off,
        ..LoadOptions::default()
    };
    let alone = Model::load(&bundle, &options(WeightMemory::Auto)).unwrap();
    let expected = logits(&alone);
    for at in [4096, 4096 + 13] {
        let inside = Inside::new(folder.path(), &bundle, at);
        for memory in [WeightMemory::Auto, WeightMemory::Mapped] {
            let what = format!("at {at}, {memory:?}");
            let (entered, left) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
            /// Counts itself when it is dropped.
            struct Guard(Arc<AtomicUsize>);
            impl Drop for Guard {
                fn drop(&mut self) {
                    self.0.fetch_add(1, Ordering::SeqCst);
                }
            }
            let hook = MappingHook::new({
                let (entered, left) = (entered.clone(), left.clone());
                move |path, bytes| {
                    entered.lock().unwrap().push((path.to_owned(), bytes.len()));
                    Box::new(Guard(left.clone()))
                }
            });
            let options = LoadOptions { mapped: Some(hook), ..options(memory) };
            let model = Model::from_source(inside.source(), &inside.file, &options).unwrap();
            assert_eq!(model.trust().unwrap(), &Trusted::Digest(digest), "{what}");
            assert_eq!(model.kernels().source, KernelSource::Embedded, "{what}");
            assert_eq!(model.kernels().code, alone.kernels().code, "{what}");
            assert_eq!(logits(&model), expected, "{what}");
            assert_eq!(model.selftest(Some(2), KvType::F16).unwrap().failures, [""; 0], "{what}");
            let mapped = entered.lock().unwrap().clone();
            let maps = memory == WeightMemory::Mapped && at.is_multiple_of(64);
            assert_eq!(!mapped.is_empty(), maps, "{what}: {mapped:?}");
            assert!(mapped.iter().all(|(path, len)| *path == inside.file && *len > 0), "{what}");
            assert_eq!(left.load(Ordering::SeqCst), 0, "{what}: the model still maps the file");
            drop(model);
            assert_eq!(left.load(Ordering::SeqCst), mapped.len(), "{what}");
        }
        // What `inspect`, `tokenize` and `template` look at.
        let texts = Texts::from_source(inside.source(), &inside.file).unwrap();
        assert_eq!((texts.digest(), texts.path()), (digest, &*inside.file));
        let tokenizer = texts.tokenizer().unwrap().unwrap();
        let same = alone.tokenizer().unwrap().unwrap().encode("Once upon a time", true).unwrap();
        assert_eq!(tokenizer.encode("Once upon a time", true).unwrap(), same);
        assert_eq!(texts.manifest(), alone.manifest());
    }
}

#[test]
fn a_part_that_is_no_bundle_or_not_trusted_is_an_error_that_names_the_file() {
    let bundle = fables("library-part");
    let folder = tempfile::tempdir().unwrap();
    let Inside { file, at, len } = Inside::new(folder.path(), &bundle, 4096);
    let load = |at: u64, len: u64, trust: TrustPolicy| {
        let part = FileSource::part(File::open(&file).unwrap(), at, len).unwrap();
        let options = LoadOptions { kernels: KernelChoice::Embedded, trust, ..LoadOptions::default() };
        let error = Model::from_source(Box::new(part), &file, &options).err().unwrap();
        assert!(error.to_string().starts_with(file.to_str().unwrap()), "{error}");
        error
    };
    let format = |error: RuntimeError| match error {
        RuntimeError::Format { source, .. } => source,
        other => panic!("{other}"),
    };
    let everything = TrustPolicy::everything;
    assert!(matches!(format(load(at - 1, len, everything())), FormatError::Magic { .. }));
    let longer = format(load(at, len + 100, everything()));
    assert!(matches!(longer, FormatError::Length { .. }), "{longer}");
    assert!(matches!(format(load(at, len - 1, everything())), FormatError::Length { .. }));
    assert!(matches!(format(load(at, 9, everything())), FormatError::TooShort { .. }));

    let mut other = TrustPolicy::nothing();
    other.digests.push(Digest([7; 32]));
    for (trust, listed) in [(other, true), (TrustPolicy::nothing(), false)] {
        let RuntimeError::Untrusted { why, .. } = load(at, len, trust) else { panic!("it is not trusted") };
        match listed {
            true => assert!(matches!(why, NotTrusted::NotListed), "{why}"),
            false => assert!(matches!(why, NotTrusted::Nothing), "{why}"),
        }
    }
    assert!(FileSource::part(File::open(&file).unwrap(), at, len + 101).is_err());
}

/// Signals whose handlers this process has taken, one bit each.
#[cfg(target_os = "linux")]
fn signals_taken() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("SigCgt:")).unwrap().to_owned()
}

#[cfg(not(target_os = "linux"))]
fn signals_taken() -> String {
    String::new()
}

/// Loading from a mapped file, generating, making and removing files, and a tokenizer that is refused: no handler of a
/// signal and no panic hook is set.
#[test]
fn the_libraries_change_nothing_of_the_process() {
    let bundle = fables("library-plain");
    static HOOKED: AtomicUsize = AtomicUsize::new(0);
    let before = signals_taken();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match panic.payload_as_str() {
        Some("ours") => drop(HOOKED.fetch_add(1, Ordering::SeqCst)),
        _ => hook(panic),
    }));

    let options =
        LoadOptions { memory: WeightMemory::Mapped, trust: TrustPolicy::nothing(), ..LoadOptions::default() };
    let model = Model::load(&bundle, &LoadOptions { tuning: Tuning::Off, ..options }).unwrap();
    let tokenizer = model.tokenizer().unwrap().unwrap();
    let ids = tokenizer.encode("Once upon a time", true).unwrap();
    let mut sampler = Sampler::new(SamplerOptions::default());
    let request = endless(8, true);
    let go_on = &mut |_| std::ops::ControlFlow::Continue(());
    let made = generate(&mut session(&model), &ids, &mut sampler, &request, go_on).unwrap();
    assert!(!tokenizer.decode(&made.ids, true).unwrap().is_empty());
    assert!(trit_runtime::text::Tokenizer::new(b"{}", &model.manifest().text, 4096).is_err());

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let kind = Kind { name: "note", example: "note.txt", is: |_| Ok(true) };
    output::check(&out, &kind, &[&bundle]).unwrap();
    let unfinished = Unfinished::default();
    drop(Pending::create(&out, &unfinished).unwrap());
    Pending::create(&out, &unfinished).unwrap().keep().unwrap();

    assert_eq!(signals_taken(), before);
    assert!(std::panic::catch_unwind(|| std::panic::panic_any("ours")).is_err());
    assert_eq!(HOOKED.load(Ordering::SeqCst), 1, "the hook is still ours");
    assert!(!trit_runtime::text::panic_is_expected());
}
