//! Hidden states and embeddings: what the head multiplies, exact whatever runs beside, and near the compiler's own forward
//! pass.

use trit_format::plan::{DType, Step};
use trit_runtime::{
    Batch, Engine, KernelChoice, Logits, LogitsRequest, Model, Pooling, RuntimeError, SequenceOptions,
};
use trit_tests::distance::relative_l2;
use trit_tests::engines::{Random, engine, load};
use trit_tests::workbench::{compile, fixture, repository};
use tritc::reference;

/// Relative L2 of the state after one token, where activations are int8.
const NOISE: f64 = 5e-2;

fn dim(model: &Model) -> usize {
    model.manifest().hyperparameters.hidden_dim as usize
}

/// The hidden states after all of `ids`, `[n, hidden]`, in steps of `chunk`.
fn states(engine: &Engine, ids: &[u32], chunk: usize) -> Vec<f32> {
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    let mut states = Vec::new();
    for ids in ids.chunks(chunk) {
        engine.advance(&mut sequence, ids, &vec![LogitsRequest::Hidden; ids.len()], None).unwrap();
        for row in 0..ids.len() {
            let Some(Logits::Hidden(hidden)) = sequence.logits(row) else { panic!("no hidden state") };
            states.extend_from_slice(hidden);
        }
    }
    states
}

/// Heads of floats, ternary heads, rotated ones and recurrent states.
#[test]
fn hidden_states_are_those_of_the_compilers_forward_pass() {
    let fixtures = [
        "llama-trilm",
        "bitnet-1bitllm",
        "gemma3-online-rmsnorm",
        "qwen35-g128",
        "qwen35-hadamard/model.pq2_0.gguf",
    ];
    for name in fixtures {
        let bundle = compile(&fixture(name), &format!("embeddings-{}", name.replace('/', "-")));
        let model = tritc::load::load(&fixture(name), &Default::default()).unwrap();
        let engine = engine(&load(&bundle, KernelChoice::Auto), 2, 64);
        let ids = Random(5).ids(20, model.hyperparameters.vocab_size as usize);
        let ours = states(&engine, &ids, 64);
        let expected = reference::forward(&model, &ids, |_, _| ()).unwrap();
        for (ours, expected) in ours.chunks(dim(engine.model())).zip(expected.chunks(dim(engine.model()))) {
            let noise = relative_l2(ours, expected);
            assert!(noise <= NOISE, "{name}: relative L2 {noise}");
        }
    }
}

fn shipped(name: &str) -> std::path::PathBuf {
    compile(&repository().join("examples/models/fables-12m"), name)
}

/// The head's table times a hidden state is the logits, bit for bit.
#[test]
fn the_head_multiplies_hidden_states() {
    let bundle = tritc::bundle::Bundle::open(&shipped("embeddings-head")).unwrap();
    let engine = engine(&load(&shipped("embeddings-head"), KernelChoice::Auto), 2, 64);
    let Some(&Step::Head { table, .. }) = engine.model().manifest().plan.head.last() else {
        panic!("a head of floats")
    };
    let model =
        tritc::load::load(&repository().join("examples/models/fables-12m"), &Default::default()).unwrap();
    let values = model.head().dense().unwrap();
    assert_eq!(bundle.manifest().tensors[table.0 as usize].dtype, DType::Bf16);
    let ids = Random(6).ids(9, 4096);
    let states = states(&engine, &ids, 64);
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    engine.advance(&mut sequence, &ids, &vec![LogitsRequest::All; 9], None).unwrap();
    for (row, state) in states.chunks(dim(engine.model())).enumerate() {
        let Some(Logits::All(logits)) = sequence.logits(row) else { panic!("all were asked for") };
        let mut expected = vec![0.0; logits.len()];
        let (table, n) = ((*values.data).as_ref(), logits.len());
        trit_kernels::head::dot_rows(table, values.dtype, state.len(), 0..n, state, &mut expected);
        assert!(logits.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "row {row}");
    }
}

/// Neither chunks nor threads nor what else runs and is asked for changes a bit, and logits beside them stay the same.
#[test]
fn hidden_states_do_not_depend_on_what_runs_beside() {
    let model = load(&shipped("embeddings-beside"), KernelChoice::Auto);
    let one = engine(&model, 1, 64);
    let ids = Random(7).ids(40, 4096);
    let (expected, width) = (states(&one, &ids, 64), dim(&model));
    let mut alone = one.sequence(SequenceOptions::default()).unwrap();
    one.advance(&mut alone, &ids, &[LogitsRequest::All], None).unwrap();
    for (threads, chunk) in [(1, 1), (2, 7), (3, 64)] {
        let engine = engine(&model, threads, 64);
        assert_eq!(states(&engine, &ids, chunk), expected, "{threads} threads, steps of {chunk}");
        // Every third row's hidden state, between rows whose logits are wanted.
        let (mut mixed, mut other) = (
            engine.sequence(SequenceOptions::default()).unwrap(),
            engine.sequence(SequenceOptions::default()).unwrap(),
        );
        let requests: Vec<LogitsRequest> = (0..ids.len())
            .map(|row| match row % 3 {
                0 => LogitsRequest::Hidden,
                1 => LogitsRequest::largest(),
                _ => LogitsRequest::All,
            })
            .collect();
        let requests = [&requests[..39], &[LogitsRequest::All]].concat();
        let mut batch = Batch::new();
        batch.push(&mut other, &ids[..9], &requests[..9]);
        batch.push(&mut mixed, &ids, &requests);
        engine.step(&mut batch).unwrap().into_iter().for_each(|ran| assert!(ran.is_ok(), "{ran:?}"));
        for row in (0..39).step_by(3) {
            let Some(Logits::Hidden(hidden)) = mixed.logits(row) else { panic!("row {row}") };
            assert_eq!(hidden, &expected[row * width..][..width], "row {row}");
        }
        assert!(matches!(other.logits(1), Some(Logits::Candidates(_) | Logits::All(_))));
        let (Some(Logits::All(a)), Some(Logits::All(b))) = (mixed.logits(39), alone.logits(0)) else {
            panic!("all were asked for")
        };
        assert_eq!(a, b);
    }
}

#[test]
fn embeddings_are_pooled_and_normalized() {
    let model = load(&shipped("embeddings-pooled"), KernelChoice::Auto);
    let engine = engine(&model, 2, 32);
    let (ids, width) = (Random(8).ids(50, 4096), dim(&model));
    let states = states(&engine, &ids, 32);
    let normalized = |sum: Vec<f64>| -> Vec<f32> {
        let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        sum.iter().map(|x| (x / norm) as f32).collect()
    };
    let column = |c: usize| states[c..].iter().step_by(width).map(|&x| f64::from(x));
    let last = normalized((0..width).map(|c| column(c).next_back().unwrap()).collect());
    let mean = normalized((0..width).map(|c| column(c).sum::<f64>() / 50.0).collect());
    for rows in [1, 13, 32, 1000] {
        for (pooling, expected) in [(Pooling::Last, &last), (Pooling::Mean, &mean)] {
            let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
            let found = engine.embed(&mut sequence, &ids, pooling, || rows, None).unwrap();
            let far = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(found.len() == width && far < 1e-6, "{pooling:?} in steps of {rows}: {far}");
            assert_eq!(sequence.position(), 50);
            let first = engine.embed(
                &mut engine.sequence(SequenceOptions::default()).unwrap(),
                &ids,
                pooling,
                || 32,
                None,
            );
            assert_eq!(found, first.unwrap(), "{pooling:?} in steps of {rows}");
        }
    }
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    for bad in [&[][..], &[4096]] {
        let error = engine.embed(&mut sequence, bad, Pooling::Mean, || 8, None).unwrap_err();
        assert!(matches!(error, RuntimeError::Input(_)), "{error}");
        assert_eq!(sequence.position(), 0);
    }
}
