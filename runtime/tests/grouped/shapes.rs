//! Bundles of many shapes: code is generated and timed for a few of them, whatever there are.

use crate::VARIANTS;
use crate::bundle::Small;
use std::path::PathBuf;
use trit_runtime::{KernelChoice, KernelNote, KernelSource, KvType, LoadOptions, Model, Tuning};

/// Shapes that have code, at most, and choices that one load times, at most.
const SHAPES: usize = 64;
const TIMED: usize = 12;

/// A bundle of packed matrices of `count` widths besides its own, and where its timings go.
struct Odd {
    bundle: PathBuf,
    timings: PathBuf,
}

impl Odd {
    fn new(count: u32) -> Odd {
        let mut small = Small::new(VARIANTS[0]);
        (0..count).for_each(|i| small.add_shape(300 + 7 * i));
        let file =
            |ending| std::env::temp_dir().join(format!("trit-odd-{}-{count}.{ending}", std::process::id()));
        let odd = Odd { bundle: file("trit"), timings: file("json") };
        std::fs::write(&odd.bundle, small.file()).unwrap();
        odd
    }

    fn options(&self, kernels: KernelChoice) -> LoadOptions {
        let timings = Some(self.timings.clone());
        LoadOptions { kernels, tuning: Tuning::Remembered, timings, ..LoadOptions::default() }
    }

    /// Choices that are remembered.
    fn entries(&self) -> usize {
        let Ok(bytes) = std::fs::read(&self.timings) else { return 0 };
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        json["fastest"].as_array().unwrap().len()
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        for file in [&self.bundle, &self.timings, &self.timings.with_extension("lock")] {
            let _ = std::fs::remove_file(file);
        }
    }
}

#[test]
fn many_shapes_are_neither_all_generated_nor_timed() {
    let odd = Odd::new(500);
    let model = Model::load(&odd.bundle, &odd.options(KernelChoice::Auto)).unwrap();
    let report = model.kernels();
    if report.source == KernelSource::Portable {
        println!("skipped: no code can be generated for this CPU");
        return;
    }
    assert_eq!(report.shapes, SHAPES);
    let few = KernelNote::FewShapes { with_code: SHAPES, all: 502 };
    assert!(report.to_string().contains(&few.to_string()), "{report}");
    // Each is too small a part of the whole for its variant to matter.
    assert_eq!((report.timed, odd.entries()), (0, 0));
    // Every packed matrix is right, with code or without.
    assert_eq!(model.selftest(Some(1), KvType::F32).unwrap().failures, Vec::<String>::new());
}

#[test]
fn each_load_times_a_few_shapes_and_none_twice() {
    let odd = Odd::new(20);
    let mut timed = 0;
    for _ in 0..3 {
        let model = Model::load(&odd.bundle, &odd.options(KernelChoice::Auto)).unwrap();
        let report = model.kernels();
        assert!(report.timed <= TIMED, "{report:?}");
        timed += report.timed;
        assert_eq!(odd.entries(), timed);
    }
    assert!(timed <= 20, "{timed}");
}
