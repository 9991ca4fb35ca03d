//! Weights, planes and tables may hold any bytes, and in a mapped file even change while they are read: whatever they are,
//! they are numbers, and no kernel goes astray by them.

use std::path::{Path, PathBuf};
use trit_format::container::{Header, SectionKind};
use trit_runtime::{
    CpuTiers, KernelChoice, LoadOptions, Logits, LogitsRequest, Model, Session, SessionOptions, TrustPolicy,
    Tuning, WeightMemory,
};
use trit_tests::workbench::{compile, compile_with, fixture, repository, scratch};

/// A copy of a bundle whose weights, planes and tables are random bytes, or all one byte.
fn with_any_bytes(bundle: &Path, seed: u64) -> PathBuf {
    let mut bytes = std::fs::read(bundle).unwrap();
    let header = Header::parse(&bytes).unwrap();
    let mut state = seed;
    for section in &header.sections {
        if matches!(section.kind, SectionKind::Weights | SectionKind::Tensors | SectionKind::Planes) {
            for byte in &mut bytes[section.range()] {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = match seed {
                    0 => 0xff,
                    _ => (state >> 56) as u8,
                };
            }
        }
    }
    let path = scratch().join("any-bytes-changed.trit");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn any_weights_planes_and_tables_are_numbers() {
    let fables = repository().join("examples/models/fables-12m");
    let bundles = [
        compile(&fables, "any-bytes-fables"),
        compile_with(&fixture("minicpm-g32"), "any-bytes-g32", &["--activations", "f32"]),
        compile(&fixture("qwen3-yarn-mixed"), "any-bytes-mixed"),
    ];
    let mut ways = vec![(KernelChoice::Portable, None)];
    for cpu in CpuTiers::detect().iter() {
        ways.extend([(KernelChoice::Embedded, Some(cpu)), (KernelChoice::Jit, Some(cpu))]);
    }
    for bundle in &bundles {
        for seed in 0..2 {
            let changed = with_any_bytes(bundle, seed);
            for (i, &(kernels, cpu)) in ways.iter().enumerate() {
                let memory = if i % 2 == 0 { WeightMemory::Mapped } else { WeightMemory::Auto };
                let options = LoadOptions {
                    kernels,
                    cpu,
                    trust: TrustPolicy::everything(),
                    verify: false,
                    memory,
                    tuning: Tuning::Off,
                    timings: None,
                    mapped: None,
                };
                let model = Model::load(&changed, &options).unwrap();
                let options = SessionOptions {
                    context: Some(64),
                    threads: Some(2),
                    oversubscribe: true,
                    ..SessionOptions::default()
                };
                let mut session = Session::new(model, options).unwrap();
                let ids: Vec<u32> = (0..20).collect();
                // Whether what comes out is a number at all is not the question.
                let _ = session.prefill(&ids).map(<[f32]>::len);
                for (count, also) in [(1, &[][..]), (40, &[3, 5])] {
                    let request =
                        LogitsRequest::Largest { count, within: 0.5, allowed: None, forced: also.to_vec() };
                    if session.advance(&[7], &[request]).is_ok() {
                        match session.logits(0).expect("asked for") {
                            Logits::All(all) => assert!(!all.is_empty()),
                            Logits::Candidates(some) => assert!(some.len() >= also.len()),
                            Logits::Hidden(_) => panic!("no hidden state was asked for"),
                        }
                    }
                }
            }
        }
    }
}
