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
use trit_format::plan::ScaleRule;
use trit_runtime::KernelChoice;
use trit_runtime::text::Tokenizer;
use trit_tests::ways::{Way, all_logits};
use trit_tests::workbench::{compile, fixture, repository, run, scratch, shared, trit_run};
use tritc::load::{LoadOptions, load};
use tritc::model::{Activations, Dense, Matrix, Model, Scales, Ternary};
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
            let divides = rule == ScaleRule::Divide;
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
    let name = b.name();
    assert_eq!(a.shape(), b.shape(), "{name}");
    for (at, (a, b)) in weights(a).into_iter().zip(weights(b)).enumerate() {
        let near = (a.1 - b.1).abs() <= tolerance * a.1;
        assert!(a.0 == b.0 && near, "{name}: weight {at} is {b:?}, not {a:?}");
    }
}

/// The largest difference of logits after a few tokens.
fn difference(a: &Model, b: &Model) -> f32 {
    let ids: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % a.hyperparameters.vocab_size).collect();
    let (a, b) = (reference::logits(a, &ids).unwrap(), reference::logits(b, &ids).unwrap());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The fixture `name`, and what `args` make of it.
fn both(python: &str, name: &str, args: &[&str]) -> (Model, Model) {
    let file = format!("gguf-{name}-{}", args.join("").replace('-', ""));
    (loaded(&fixture(name)), loaded(&convert(python, &fixture(name), &file, args)))
}

#[test]
fn bitnet_of_every_type() {
    let Some(python) = python() else { return };
    let types: [(&str, &[&str]); 10] = [
        ("Q2_0", &[]),
        ("Q2_0_PRISM", &[]),
        ("PQ2_0", &[]),
        ("PTQ1_0", &[]),
        ("IQ1_BN", &[]),
        ("IQ2_BN", &[]),
        ("F16", &[]),
        ("F32", &[]),
        ("F16", &["--scales"]),
        ("IQ2_BN", &["--scales"]),
    ];
    for (kind, more) in types {
        let args = [&["--arch", "bitnet-b1.58", "--type", kind], more].concat();
        let (checkpoint, gguf) = both(python, "bitnet-llama3-rope", &args);
        same_weights(&checkpoint, &gguf, 0.0);
        assert_eq!(gguf.activations, Activations::PerToken { floor: 1e-5 }, "{kind}");
        assert_eq!(gguf.activation, checkpoint.activation);
        // Frequencies are rounded once more on the way through factors.
        let worst = difference(&checkpoint, &gguf);
        assert!(worst < 1e-4, "{kind}: {worst}");
    }
}

#[test]
fn llama_with_interleaved_heads() {
    let Some(python) = python() else { return };
    for kind in ["Q2_0", "IQ2_BN", "F32"] {
        let args = ["--arch", "llama", "--type", kind, "--name", "Test 1.58bit"];
        let (checkpoint, gguf) = both(python, "llama-bitlinear", &args);
        // The checkpoint divides by a scale, whose reciprocal is rounded to f16 or f32.
        same_weights(&checkpoint, &gguf, if kind == "Q2_0" { 5e-4 } else { 1e-6 });
        assert_eq!(gguf.activations, Activations::PerToken { floor: 1e-5 });
        assert!(gguf.head.is_some());
        if kind != "Q2_0" {
            // Int8 activations that fall on the other side of a boundary make a difference of about 1e-2.
            let worst = difference(&checkpoint, &gguf);
            assert!(worst < 3e-2, "{kind}: {worst}");
        }
    }
}

/// Weight-only models: one scale for a matrix in TriLM, one for 128 columns in Bonsai, whose tables are ternary too.
#[test]
fn weight_only() {
    let Some(python) = python() else { return };
    let cases: [(&str, &str, &[&str]); 4] = [
        ("llama-trilm", "llama", &["Q2_0", "PQ2_0", "PTQ1_0", "IQ1_BN", "IQ2_BN", "F16"]),
        ("qwen3-g128", "qwen3", &["Q2_0", "Q2_0_PRISM", "PQ2_0", "PTQ1_0", "F16"]),
        ("qwen3-g128", "qwen3", &["PQ2_0 --ternary-embedding"]),
        ("llama-trilm", "llama", &["PTQ1_0 --embedding F16"]),
    ];
    for (name, arch, kinds) in cases {
        for kind in kinds {
            let args: Vec<&str> = ["--arch", arch, "--type"].into_iter().chain(kind.split(' ')).collect();
            let (checkpoint, gguf) = both(python, name, &args);
            same_weights(&checkpoint, &gguf, 0.0);
            if kind.contains("ternary") {
                same_matrix(&checkpoint.embedding, &gguf.embedding, 0.0);
            }
            assert_eq!(gguf.activations, checkpoint.activations, "{name} {kind}");
            let worst = difference(&checkpoint, &gguf);
            assert!(worst < 1e-5, "{name} {kind}: {worst}");
        }
    }
}

/// BitCPM's architecture: three factors, LongRoPE, rows of q and k interleaved.
#[test]
fn minicpm() {
    let Some(python) = python() else { return };
    for kind in ["F16", "F32"] {
        let (checkpoint, gguf) = both(python, "minicpm-g32", &["--arch", "minicpm", "--type", kind]);
        same_weights(&checkpoint, &gguf, 0.0);
        assert_eq!((gguf.embedding_scale, gguf.rms_eps), (checkpoint.embedding_scale, checkpoint.rms_eps));
        assert_eq!(gguf.final_norm.1, checkpoint.final_norm.1);
        assert_eq!(gguf.activations, checkpoint.activations);
        // LongRoPE's factors are f32 in GGUF.
        let worst = difference(&checkpoint, &gguf);
        assert!(worst < 1e-4, "{kind}: {worst}");
    }
}

/// Hy-MT as Tencent publishes it, under both numbers of its type: the logits of the checkpoint's bundle bit for bit, in one
/// chunk and token by token.
#[test]
fn hunyuan_of_sherry() {
    let Some(python) = python() else { return };
    let name = "hunyuan-sherry";
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 192).collect();
    let run = |bundle: &Path| {
        [1, 64].map(|chunk| {
            let way = Way { kernels: KernelChoice::Embedded, cpu: None, threads: 2, chunk };
            all_logits(&mut way.open(bundle), &ids)
        })
    };
    let expected = run(&compile(&fixture(name), "gguf-hunyuan-checkpoint"));
    for kind in ["STQ1_0", "STQ1_0_42"] {
        let args = ["--arch", "hunyuan-dense", "--type", kind, "--embedding", "BF16"];
        let (checkpoint, gguf) = both(python, name, &args);
        same_weights(&checkpoint, &gguf, 0.0);
        assert_eq!((&gguf.ropes, gguf.rms_eps), (&checkpoint.ropes, checkpoint.rms_eps));
        let file = scratch().join(format!("gguf-{name}-{}.gguf", args.join("").replace('-', "")));
        assert_eq!(run(&compile(&file, &format!("gguf-hunyuan-{kind}"))), expected, "{kind}");
    }
}

/// Tables in blocks of integers, against the same values as the package reads them.
#[test]
fn embeddings_of_integers() {
    let Some(python) = python() else { return };
    for kind in [
        "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
        "MXFP4", "BF16", "F16",
    ] {
        // The package knows F16 and not all of the ternary types.
        let args = ["--arch", "qwen3", "--type", "F16", "--embedding", kind];
        let (_, gguf) = both(python, "qwen3-g128", &args);
        let file = scratch().join(format!("gguf-qwen3-g128-{}.gguf", args.join("").replace('-', "")));
        let script = "import gguf, sys; t = {t.name: t for t in gguf.GGUFReader(sys.argv[1]).tensors}; \
                      t = t['token_embd.weight']; \
                      sys.stdout.buffer.write(gguf.quants.dequantize(t.data, t.tensor_type).astype('<f4').tobytes())";
        let expected = Command::new(python).args(["-c", script]).arg(&file).output().unwrap();
        assert!(expected.status.success(), "{}", String::from_utf8_lossy(&expected.stderr));
        let values = match &gguf.embedding {
            Matrix::Dense(dense) => floats(dense),
            // The fixture's own table is ternary, and stays so in types that hold it exactly.
            ternary => weights(ternary).into_iter().map(|(trit, scale)| f32::from(trit) * scale).collect(),
        };
        let expected: Vec<f32> =
            expected.stdout.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        assert_eq!(values.len(), expected.len());
        let other = values.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(other.map(|at| (at, values[at], expected[at])), None, "{kind}");
    }
}

/// The elements of a table.
fn floats(dense: &Dense) -> Vec<f32> {
    let (rows, k) = (dense.shape[0], dense.shape[1]);
    let mut values = vec![0.0; rows * k];
    values.chunks_exact_mut(k).enumerate().for_each(|(row, out)| dense.read_row(row, out));
    values
}

/// The shipped model, in parts: the same ids for the same text, and the same text.
#[test]
fn the_shipped_model() {
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
    let stem = scratch().join("gguf-fables");
    // Parts of an earlier run, perhaps of another number.
    let _ = std::fs::remove_dir_all(&stem);
    std::fs::create_dir_all(&stem).unwrap();
    convert(python, &checkpoint, "gguf-fables/fables", &args);
    let model = loaded(&stem);
    same_weights(&loaded(&checkpoint), &model, 0.0);
    assert!(model.info.sources.len() > 5, "{:?}", model.info.sources);
    same_ids(&model);

    let [a, b] = [(&checkpoint, "gguf-fables-checkpoint"), (&stem, "gguf-fables-parts")]
        .map(|(path, name)| compile(path, name));
    let (a, b) = (told(&a), told(&b));
    assert_eq!(a, b);
    assert!(a.0.as_array().is_some_and(|ids| ids.len() > 20), "{a:?}");
}

/// The trained models in the three layouts of I2_S, which no field tells apart: the same tokens as from their checkpoints.
#[test]
fn trained_models_in_every_layout_of_i2s() {
    let Some(python) = python() else { return };
    let shipped = Some(repository().join("examples/models/fables-12m"));
    let large = shared("models/fables-30m", "I2_S of fables-30m against its checkpoint");
    for (checkpoint, name) in [(shipped, "i2s-12m"), (large, "i2s-30m")] {
        let Some(checkpoint) = checkpoint else { continue };
        let expected = told(&compile(&checkpoint, &format!("gguf-{name}-checkpoint")));
        assert!(expected.0.as_array().is_some_and(|ids| ids.len() > 20), "{expected:?}");
        let original = loaded(&checkpoint);
        for kind in ["I2_S_X86", "I2_S_ARM", "I2_S_1X4"] {
            let args =
                ["--arch", "bitnet-b1.58", "--type", kind, "--embedding", "BF16", "--pre", "llama-bpe"];
            let gguf = convert(python, &checkpoint, &format!("gguf-{name}-{kind}"), &args);
            same_weights(&original, &loaded(&gguf), 0.0);
            assert_eq!(told(&compile(&gguf, &format!("gguf-{name}-{kind}"))), expected, "{name} {kind}");
        }
    }
}

/// The ids and the text that a bundle writes.
fn told(bundle: &Path) -> (Value, Value) {
    let mut command = trit_run(&["--json", "-n", "60", "--temp", "0", "-p", "Once upon a time there"]);
    command.arg(bundle);
    let told = run(command).json();
    (told["ids"].clone(), told["text"].clone())
}

/// Demands the ids that transformers gives for the texts of `tokenizer-cases.json`.
fn same_ids(model: &Model) {
    let json = model.tokenizer.as_ref().expect("a tokenizer");
    let tokenizer = Tokenizer::new(json, &model.text, model.hyperparameters.vocab_size).unwrap();
    let cases = std::fs::read(fixture("tokenizer-cases.json")).unwrap();
    let cases: Value = serde_json::from_slice(&cases).unwrap();
    let ids = |ids: &Value| -> Vec<u32> { serde_json::from_value(ids.clone()).unwrap() };
    for case in cases["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids"]), "{text:?}");
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids_no_special"]), "{text:?}");
        assert_eq!(tokenizer.decode(&ids(&case["ids"]), true).unwrap(), case["decoded"].as_str().unwrap());
    }
}
