//! Is a model the same from GGUF as from its checkpoint?
//!
//! `tests/gguf/convert.py` writes checkpoints of `tests/fixtures` and the shipped model as GGUF, with the Python package
//! that llama.cpp's converters use. It needs a Python that has the packages `gguf` and `numpy`: `$TRIT_GGUF_PYTHON`, or
//! `python3`. Without one the tests say plainly that they did not run.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use trit_tests::workbench::{compile, fixture, repository, run, scratch, trit_run};
use tritc::ingest::{LoadOptions, load};
use tritc::model::{Activations, Matrix, Model, Scales, Ternary};
use tritc::reference;

/// A Python with the packages, where there is one.
fn python() -> Option<&'static str> {
    static PYTHON: LazyLock<Option<String>> = LazyLock::new(|| {
        let python = std::env::var("TRIT_GGUF_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let works = Command::new(&python)
            .args(["-c", "import gguf, numpy"])
            .output()
            .is_ok_and(|output| output.status.success());
        if !works {
            // Not `eprintln!`, which the test runner keeps to itself while a test passes.
            let _ = writeln!(
                std::io::stderr(),
                "NOT RUN: models from GGUF against models from checkpoints ({python} has no packages gguf and numpy; \
                 install them, or name another one in TRIT_GGUF_PYTHON)"
            );
        }
        works.then_some(python)
    });
    PYTHON.as_deref()
}

/// Writes `checkpoint` as GGUF. The file is named after `name`, so that tests do not share one.
fn convert(python: &str, checkpoint: &Path, name: &str, args: &[&str]) -> PathBuf {
    let out = scratch().join(format!("{name}.gguf"));
    let mut command = Command::new(python);
    command.arg(repository().join("tests/gguf/convert.py")).arg(checkpoint).arg(&out).args(args);
    run(command).ok();
    out
}

fn loaded(path: &Path) -> Model {
    load(path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Trits and the scale of each weight, exact.
fn weights(matrix: &Matrix) -> Vec<(i8, f32)> {
    let ternary = matrix.ternary().unwrap_or_else(|| panic!("{} is not ternary", matrix.name()));
    let mut weights = Vec::with_capacity(ternary.rows * ternary.k);
    for row in 0..ternary.rows {
        let mut trits = vec![0i8; ternary.k];
        ternary.trits.read_row(row, &mut trits).unwrap();
        let scales = scales(ternary, row);
        // A zero has no scale to speak of.
        weights.extend(trits.into_iter().zip(scales).map(|(t, s)| (t, if t == 0 { 0.0 } else { s })));
    }
    weights
}

/// What each weight of a row is multiplied with.
fn scales(ternary: &Ternary, row: usize) -> Vec<f32> {
    match ternary.scales {
        Scales::Tensor { scale, rule } => {
            let divides = rule == trit_format::plan::ScaleRule::Divide;
            vec![if divides { 1.0 / scale } else { scale }; ternary.k]
        }
        Scales::Rows { columns, .. } => {
            let mut scales = vec![0.0; ternary.scales_per_row()];
            ternary.trits.read_scales(row, &mut scales).unwrap();
            let columns = if columns == 0 { ternary.k } else { columns as usize };
            (0..ternary.k).map(|k| scales[k / columns]).collect()
        }
    }
}

/// Demands the same trits and scales in all layers; scales may differ by `tolerance`, relative.
fn same_weights(a: &Model, b: &Model, tolerance: f32) {
    assert_eq!(a.layers.len(), b.layers.len());
    for (a, b) in a.layers.iter().zip(&b.layers) {
        for (a, b) in a.projections().into_iter().zip(b.projections()) {
            same_matrix(&a.matrix, &b.matrix, tolerance);
        }
    }
}

fn same_matrix(a: &Matrix, b: &Matrix, tolerance: f32) {
    assert_eq!(a.shape(), b.shape(), "{}", b.name());
    for (at, (a, b)) in weights(a).into_iter().zip(weights(b)).enumerate() {
        let near = (a.1 - b.1).abs() <= tolerance * a.1;
        assert!(a.0 == b.0 && near, "{matrix}: weight {at} is {b:?}, not {a:?}", matrix = "");
    }
}

/// The largest difference of logits after a few tokens, and the largest logit.
fn difference(a: &Model, b: &Model) -> (f32, f32) {
    let ids: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % a.hyperparameters.vocab_size).collect();
    let (a, b) = (reference::logits(a, &ids).unwrap(), reference::logits(b, &ids).unwrap());
    let max = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    (max(&mut a.iter().zip(&b).map(|(a, b)| (a - b).abs())), max(&mut a.iter().map(|x| x.abs())))
}

#[test]
fn bitnet_of_every_type() {
    let Some(python) = python() else { return };
    let checkpoint = loaded(&fixture("bitnet-llama3-rope"));
    let types: [(&str, &[&str]); 9] = [
        ("Q2_0", &[]),
        ("Q2_0_PRISM", &[]),
        ("PQ2_0", &[]),
        ("PTQ1_0", &[]),
        ("IQ1_BN", &[]),
        ("IQ2_BN", &[]),
        ("F16", &[]),
        ("F16", &["--scales"]),
        ("IQ2_BN", &["--scales"]),
    ];
    for (kind, more) in types {
        let args = [&["--arch", "bitnet-b1.58", "--type", kind], more].concat();
        let gguf = loaded(&convert(python, &fixture("bitnet-llama3-rope"), "gguf-bitnet", &args));
        same_weights(&checkpoint, &gguf, 0.0);
        assert_eq!(gguf.activations, Activations::PerToken { floor: 1e-5 }, "{kind}");
        assert_eq!(gguf.activation, checkpoint.activation);
        // Frequencies are rounded once more on the way through factors.
        let (worst, _) = difference(&checkpoint, &gguf);
        assert!(worst < 1e-4, "{kind}: {worst}");
    }
}

#[test]
fn llama_with_interleaved_heads() {
    let Some(python) = python() else { return };
    let checkpoint = loaded(&fixture("llama-bitlinear"));
    for kind in ["Q2_0", "IQ2_BN", "F32"] {
        let args = ["--arch", "llama", "--type", kind, "--name", "Test 1.58bit"];
        let gguf = loaded(&convert(python, &fixture("llama-bitlinear"), "gguf-llama", &args));
        // The checkpoint divides by a scale whose reciprocal is rounded to f16 or f32.
        same_weights(&checkpoint, &gguf, if kind == "Q2_0" { 5e-4 } else { 1e-6 });
        assert_eq!(gguf.activations, Activations::PerToken { floor: 1e-5 });
        assert!(gguf.head.is_some());
    }
}

/// The shipped model: the same ids for the same text, and the same text.
#[test]
fn the_shipped_model_from_gguf() {
    let Some(python) = python() else { return };
    let checkpoint = repository().join("examples/models/fables-12m");
    let args = [
        "--arch",
        "bitnet-b1.58",
        "--type",
        "IQ2_BN",
        "--embedding",
        "BF16",
        "--pre",
        "llama-bpe",
        "--parts",
    ];
    convert(python, &checkpoint, "gguf-fables", &args);
    // Compiled from its parts.
    let parts = std::fs::read_dir(scratch()).unwrap().map(|entry| entry.unwrap().path());
    let first = parts
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("gguf-fables-00001-of-"))
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap())
        .expect("the first part is there");
    let [a, b] = [(&checkpoint, "gguf-fables-checkpoint"), (&first, "gguf-fables-gguf")]
        .map(|(path, name)| compile(path, name));
    let generate = |bundle: &Path| -> Value {
        let mut command = trit_run(&["--json", "-n", "40", "--temp", "0", "-p", "Once upon a time there"]);
        command.arg(bundle);
        run(command).json()
    };
    let (a_text, b_text) = (generate(&a), generate(&b));
    assert_eq!(a_text["ids"], b_text["ids"]);
    assert_eq!(a_text["text"], b_text["text"]);
}
