//! A file that changes between any two reads: the code of a bundle that nobody trusts never becomes executable, and a
//! manifest is used as it was verified or not at all.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use trit_format::container::{Digest, Header, SectionKind};
use trit_format::manifest::Manifest;
use trit_format::target::Target;
use trit_format::trust::{FOLDER_VARIABLE, Records, file_name};
use trit_runtime::source::Source;
use trit_runtime::{
    KernelChoice, KernelSource, LoadOptions, Model, RuntimeError, TrustPolicy, Tuning, WeightMemory,
};
use trit_tests::workbench::{fixture, run, scratch, tritc};

/// Loads that change at a random read, besides one at each read there is.
const TRIES: u64 = 10_000;

/// Numbers that depend on nothing but what is asked.
fn mixed(mut x: u64) -> u64 {
    for _ in 0..2 {
        x = (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    x ^ (x >> 32)
}

/// How the file changes.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// From the `n`th read on it is the other one.
    At(u64),
    /// From the `n`th read on each block of so many bytes is of one or the other, anew for each read.
    Mixed(u64, u64, u64),
    /// It is the other one in the `n`th read only.
    Once(u64),
    /// It is the other one, but in the `n`th read.
    But(u64),
}

/// Two bundles of one length in one place.
struct Changing {
    bundles: [Arc<Vec<u8>>; 2],
    change: Change,
    reads: Arc<AtomicU64>,
}

impl Source for Changing {
    fn len(&self) -> u64 {
        self.bundles[0].len() as u64
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        let read = self.reads.fetch_add(1, Ordering::SeqCst);
        let range = offset as usize..offset as usize + to.len();
        let other = match self.change {
            Change::At(n) => read >= n,
            Change::Once(n) => read == n,
            Change::But(n) => read != n,
            Change::Mixed(n, size, seed) if read >= n => {
                for (i, byte) in to.iter_mut().enumerate() {
                    let block = (offset + i as u64) / size;
                    let which = mixed(seed ^ mixed(read) ^ mixed(block << 20)) as usize & 1;
                    *byte = self.bundles[which][range.start + i];
                }
                return Ok(());
            }
            Change::Mixed(..) => false,
        };
        to.copy_from_slice(&self.bundles[usize::from(other)][range]);
        Ok(())
    }
}

/// The bundle with another manifest and maybe other code, a consistent one with digests that are right, of the same length.
fn other(bundle: &[u8], with_other_code: bool) -> Vec<u8> {
    let mut header = Header::parse(bundle).unwrap();
    let mut other = bundle.to_vec();
    let range = |header: &Header, kind| header.section(kind).unwrap().range();
    let manifest = range(&header, SectionKind::Manifest);
    let mut changed = Manifest::decode(&bundle[manifest.clone()]).unwrap();
    changed.model.name = changed.model.name.chars().rev().collect();
    for section in header.sections.clone() {
        let SectionKind::Code(target) = section.kind else { continue };
        if !with_other_code {
            continue;
        }
        // One's complement: no instruction stays what it was.
        other[section.range()].iter_mut().for_each(|byte| *byte = !*byte);
        for kernel in changed.kernels.iter_mut().filter(|k| k.target == target) {
            let start = section.offset as usize + kernel.offset as usize;
            kernel.digest = Digest::of(&other[start..start + kernel.len as usize]);
        }
    }
    let encoded = changed.encode().unwrap();
    assert_eq!(encoded.len(), manifest.len());
    other[manifest].copy_from_slice(&encoded);
    for section in &mut header.sections {
        section.digest = Digest::of(&other[section.range()]);
    }
    let head = header.encode();
    other[..head.len()].copy_from_slice(&head);
    Header::parse(&other).unwrap();
    other
}

/// Which tier this CPU has that bundles hold code for.
fn tier() -> Target {
    let fits = |t: &Target| trit_codegen::supported().contains(t);
    trit_runtime::CpuTiers::detect().iter().find(fits).expect("this CPU runs generated code")
}

#[test]
fn code_that_nobody_trusts_never_becomes_executable() {
    let folder = scratch().join("race-trusted");
    // Which folder holds records is told by the environment, which a test must not change for its neighbours.
    if std::env::var_os(FOLDER_VARIABLE).is_none_or(|set| Path::new(&set) != folder) {
        let _ = std::fs::remove_dir_all(&folder);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "code_that_nobody_trusts_never_becomes_executable", "--nocapture"]);
        let ran = run({
            child.env(FOLDER_VARIABLE, &folder);
            child
        });
        assert!(ran.code == Some(0), "{}{}", ran.out, ran.err);
        return;
    }
    let file = scratch().join("race.trit");
    let checkpoint = fixture("bitnet-online");
    let args =
        ["compile", "--target", tier().name(), "-o", file.to_str().unwrap(), checkpoint.to_str().unwrap()];
    run(tritc(&args)).ok();
    let trusted = std::fs::read(&file).unwrap();
    // The other one differs in everything, or in its manifest alone, so that every digest but one fits.
    let bundles = [other(&trusted, true), other(&trusted, false), trusted].map(Arc::new);
    let headers: Vec<Header> = bundles.iter().map(|bundle| Header::parse(bundle).unwrap()).collect();
    let ours = &headers[2];
    Records::in_folder(folder).add(&file_name(&ours.encode())).unwrap();
    let manifest = |(header, bundle): (&Header, &Arc<Vec<u8>>)| {
        Manifest::decode(&bundle[header.section(SectionKind::Manifest).unwrap().range()]).unwrap()
    };
    let manifests: Vec<Manifest> = headers.iter().zip(&bundles).map(manifest).collect();
    let code = |header: &Header| header.section(SectionKind::Code(tier())).unwrap().digest;

    let embedded = AtomicU64::new(0);
    let refused = AtomicU64::new(0);
    // Executable code and manifest of a load, and the reads it took.
    let load = |other: usize, change: Change, kernels: KernelChoice, verify: bool| -> u64 {
        let reads = Arc::new(AtomicU64::new(0));
        let both = [bundles[2].clone(), bundles[other].clone()];
        let source = Changing { bundles: both, change, reads: reads.clone() };
        let options = LoadOptions {
            kernels,
            cpu: Some(tier()),
            trust: TrustPolicy::default(),
            verify,
            memory: WeightMemory::Auto,
            tuning: Tuning::Off,
            timings: None,
            mapped: None,
        };
        match Model::from_source(Box::new(source), Path::new("changing.trit"), &options) {
            Ok(model) => {
                let which = manifests.iter().position(|m| m == model.manifest());
                let which = which.unwrap_or_else(|| panic!("{change:?}: a manifest of no bundle"));
                match model.kernels().source {
                    KernelSource::Embedded => {
                        embedded.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(
                            model.kernels().code,
                            Some(code(ours)),
                            "{change:?}: code that nobody trusts"
                        );
                        assert_eq!(which, 2, "{change:?}: a manifest that nobody trusts directs the code");
                    }
                    _ => assert_eq!(model.kernels().code, None),
                }
            }
            // What a mixture deserves.
            Err(RuntimeError::Format { .. } | RuntimeError::Untrusted { .. }) => {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(other) => panic!("{change:?}: {other}"),
        }
        reads.load(Ordering::SeqCst)
    };

    let reads = load(0, Change::At(u64::MAX), KernelChoice::Embedded, true);
    assert_eq!(embedded.swap(0, Ordering::Relaxed), 1, "the trusted bundle runs its own code");
    assert!(reads > 5, "{reads} reads");
    for n in 0..=reads {
        for change in [Change::At(n), Change::Once(n), Change::But(n), Change::Mixed(n, 1 << 20, n)] {
            for other in [0, 1] {
                for verify in [true, false] {
                    load(other, change, KernelChoice::Embedded, verify);
                }
                load(other, change, KernelChoice::Auto, true);
            }
        }
    }
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (load, failures) = (&load, &failures);
            scope.spawn(move || {
                for try_ in (worker..TRIES).step_by(2) {
                    let random = mixed(try_ + 1);
                    let (n, size) = (random % (reads + 1), 1 << (random >> 32 & 15));
                    let change = match random >> 40 & 3 {
                        0 => Change::At(n),
                        1 => Change::But(n),
                        _ => Change::Mixed(n, size, random),
                    };
                    let one = || {
                        load(random as usize >> 60 & 1, change, KernelChoice::Embedded, random >> 50 & 3 > 0)
                    };
                    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(one)) {
                        failures.lock().unwrap().push((try_, panic));
                        return;
                    }
                }
            });
        }
    });
    assert!(failures.into_inner().unwrap().is_empty());
    let (embedded, refused) = (embedded.into_inner(), refused.into_inner());
    eprintln!("{reads} reads a load; {embedded} loads ran the trusted code, {refused} were refused");
    assert!(embedded > TRIES / 20 && refused > TRIES / 20, "{embedded} {refused}");
}
