//! Rotations and recurrent states of the oddest sizes that validation lets through: single elements, single taps, heads
//! that fill no vector, as many taps as are possible.

use crate::bundle::{HEADS, HIDDEN, KV, KV_WIDTH, Small};
use crate::{VARIANTS, distance, load, plain, tokens};
use std::sync::Arc;
use trit_runtime::format::manifest::RowOrder;
use trit_runtime::format::plan::*;
use trit_runtime::{KernelChoice, KvType, Model, Session, SessionOptions, StateType};

/// Past two parts of a delta rule's rows, and past the rows that 64 taps see.
const TOKENS: usize = 150;
const EPS: f32 = 1e-5;
/// The mean square of one element may be next to nothing.
const EPS_OF_ONE: f32 = 0.1;

fn f32s(small: &mut Small, shape: &[u32], value: impl Fn(f32) -> f32) -> TensorId {
    let values: Vec<f32> = (0..shape.iter().product::<u32>()).map(|_| value(small.next())).collect();
    small.tensor(DType::F32, shape, &values)
}

fn signs(small: &mut Small, n: u32) -> TensorId {
    f32s(small, &[n], |x| 1f32.copysign(x))
}

fn delta(
    small: &mut Small,
    heads: DeltaHeads,
    qkv: BufferId,
    (gates, at): (BufferId, u32),
    state: u32,
) -> Step {
    let rates = f32s(small, &[heads.values], |x| -0.1 - x.abs());
    let bias = f32s(small, &[heads.values], |x| x);
    let out = small.buffer("ruled", DType::F32, heads.values_len() as u32);
    Step::DeltaRule { qkv, gates, at, rates, bias, heads, state, out }
}

fn output(step: &Step) -> BufferId {
    match *step {
        Step::DeltaRule { out, .. } => out,
        ref other => panic!("{other:?}"),
    }
}

/// One tap, three value heads of five elements on a key head of one, runs of one.
fn least(small: &mut Small, h: BufferId) -> Vec<Step> {
    let heads = DeltaHeads { keys: 1, values: 3, key_dim: 1, value_dim: 5 };
    let (channels, inner) = (heads.qkv_len() as u32, heads.values_len() as u32);
    let len = channels + 2 * heads.values + inner;
    let mixed = small.buffer("mixed", DType::F32, len);
    let convolved = small.buffer("convolved", DType::F32, channels);
    let q = small.quantized("q", HIDDEN);
    let norm = Some(InputNorm { weight: small.norm(HIDDEN), eps: EPS });
    let rotation = Rotation { block: 8, signs: Some(signs(small, HIDDEN)) };
    let matrix = small.matrix(RowOrder::Sequential, &[len], HIDDEN);
    let weight = f32s(small, &[1, channels], |x| x);
    let delta = delta(small, heads, convolved, (mixed, channels), 1);
    let ruled = output(&delta);
    vec![
        Step::RotateQuantize { input: h, norm, rotation, rule: small.rule(), out: q },
        Step::Ternary { matrix, input: q, epilogue: Epilogue::Store, out: mixed, at: 0 },
        Step::Convolve { input: mixed, weight, activation: Activation::Silu, state: 0, out: convolved },
        delta,
        Step::GateNorm {
            input: ruled,
            weight: small.norm(1),
            eps: EPS_OF_ONE,
            gate: mixed,
            at: channels + 2 * heads.values,
            activation: Activation::Sigmoid,
            out: ruled,
        },
        Step::Linear {
            table: small.table(DType::F32, HIDDEN, inner),
            input: ruled,
            epilogue: Epilogue::Add,
            out: h,
            at: 0,
        },
    ]
}

/// The most taps, heads a little wider than a vector, gates that are also values, rotations of four and of one, and
/// attention whose heads are rotated in their first two elements alone.
fn most(small: &mut Small, h: BufferId) -> Vec<Step> {
    let heads = DeltaHeads { keys: 2, values: 4, key_dim: 7, value_dim: 17 };
    let (channels, inner) = (heads.qkv_len() as u32, heads.values_len() as u32);
    let [x, y] = ["x", "y"].map(|name| small.buffer(name, DType::F32, HIDDEN));
    let wide = small.buffer("wide", DType::F32, channels);
    let convolved = small.buffer("convolved", DType::F32, channels);
    let normed = small.buffer("gated", DType::F32, inner);
    let qkv = small.buffer("qkv", DType::F32, HEADS + 2 * KV_WIDTH);
    let attended = small.buffer("attended", DType::F32, HEADS);
    let (q, qa) = (small.quantized("q", inner), small.quantized("qa", HEADS));
    let linear = |table, input, out| Step::Linear { table, input, epilogue: Epilogue::Store, out, at: 0 };
    let add = |matrix, input| Step::Ternary { matrix, input, epilogue: Epilogue::Add, out: h, at: 0 };
    let rotate = |input, block, rule, out| {
        let rotation = Rotation { block, signs: None };
        Step::RotateQuantize { input, norm: None, rotation, rule, out }
    };
    let weight = f32s(small, &[64, channels], |x| x);
    let delta = delta(small, heads, convolved, (convolved, 3), 3);
    let ruled = output(&delta);
    let inv_freq = small.tensor(DType::F32, &[1], &[0.7]);
    vec![
        Step::RmsNorm { input: h, weight: small.norm(HIDDEN), eps: EPS, out: x },
        linear(small.table(DType::F32, channels, HIDDEN), x, wide),
        Step::Convolve { input: wide, weight, activation: Activation::Silu, state: 2, out: convolved },
        delta,
        Step::GateNorm {
            input: ruled,
            weight: small.norm(heads.value_dim),
            eps: EPS,
            gate: convolved,
            at: channels - inner,
            activation: Activation::Silu,
            out: normed,
        },
        rotate(normed, 4, small.rule(), q),
        add(small.matrix(RowOrder::Sequential, &[HIDDEN], inner), q),
        Step::RmsNorm { input: h, weight: small.norm(HIDDEN), eps: EPS, out: x },
        Step::Convolve {
            input: x,
            weight: f32s(small, &[2, HIDDEN], |x| x),
            activation: Activation::GeluTanh,
            state: 4,
            out: y,
        },
        linear(small.table(DType::F16, HEADS + 2 * KV_WIDTH, HIDDEN), y, qkv),
        Step::RopeAppend { qkv, norms: None, inv_freq, scaling: 1.0, layer: 0 },
        Step::Attend { qkv, layer: 0, scale: 0.25, window: None, out: attended },
        rotate(attended, 1, small.rule(), qa),
        add(small.matrix(RowOrder::Sequential, &[HIDDEN], HEADS), qa),
    ]
}

/// Rows long enough to be shared out among many workers, each quantized by another step: plain, normalized, rotated. One
/// width is no multiple of anything.
fn long(small: &mut Small, h: BufferId) -> Vec<Step> {
    const UNEVEN: u32 = 8200;
    const EVEN: u32 = 8192;
    let x = small.buffer("x", DType::F32, HIDDEN);
    let mut steps = vec![Step::RmsNorm { input: h, weight: small.norm(HIDDEN), eps: EPS, out: x }];
    for (name, len) in [("plain", UNEVEN), ("normed", UNEVEN), ("rotated", EVEN)] {
        let input = small.buffer(name, DType::F32, len);
        let table = small.table(DType::F32, len, HIDDEN);
        steps.push(Step::Linear { table, input: x, epilogue: Epilogue::Store, out: input, at: 0 });
        let (rule, out) = (small.rule(), small.quantized(&format!("{name}.q"), len));
        steps.push(match name {
            "plain" => Step::Quantize { input, rule, out },
            "normed" => Step::NormQuantize { input, weight: small.norm(len), eps: EPS, rule, out },
            _ => {
                let norm = Some(InputNorm { weight: small.norm(len), eps: EPS });
                let rotation = Rotation { block: 2048, signs: Some(signs(small, len)) };
                Step::RotateQuantize { input, norm, rotation, rule, out }
            }
        });
        let matrix = small.matrix(RowOrder::Sequential, &[HIDDEN], len);
        steps.push(Step::Ternary { matrix, input: out, epilogue: Epilogue::Add, out: h, at: 0 });
    }
    steps
}

/// The model with layers of the oddest sizes.
fn odd(variant: usize) -> Small {
    with_layers(variant, vec![KV], |small, h| vec![least(small, h), most(small, h)])
}

/// The model with other layers in place of its own.
fn with_layers(
    variant: usize,
    kv: Vec<KvLayer>,
    layers: impl Fn(&mut Small, BufferId) -> Vec<Vec<Step>>,
) -> Small {
    let mut small = Small::new(VARIANTS[variant]);
    let h = small.manifest.plan.residual;
    let rotation = Rotation { block: 2, signs: Some(signs(&mut small, HIDDEN)) };
    let layers = layers(&mut small, h);
    small.manifest.hyperparameters.n_layers = layers.len() as u32;
    let plan = &mut small.manifest.plan;
    plan.body.truncate(1);
    plan.body.push(Step::Unrotate { rotation, out: h });
    plan.layers.clear();
    for steps in layers {
        let start = plan.body.len() as u32;
        plan.body.extend(steps);
        plan.layers.push(LayerSteps { start, end: plan.body.len() as u32 });
    }
    plan.kv = kv;
    // They are those of the layers that were there before.
    small.manifest.goldens.clear();
    small
}

fn logits(model: &Arc<Model>, ids: &[u32], chunk: usize, threads: usize, state: StateType) -> Vec<f32> {
    let options = SessionOptions {
        chunk,
        threads: Some(threads),
        oversubscribe: true,
        kv: KvType::F32,
        state,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model.clone(), options).unwrap();
    let mut all = Vec::new();
    session.forward_all(ids, &mut |_, logits| all.extend_from_slice(logits)).unwrap();
    all
}

#[test]
fn odd_sizes_are_what_plain_floats_give() {
    // Integers of 24 bits, which are as good as f32.
    for variant in 0..3 {
        let small = odd(variant);
        let ids = &tokens(small.vocab())[..TOKENS];
        let expected = plain::logits(&small, ids);
        let model = load(&small, &format!("odd-plain{variant}"), KernelChoice::Portable);
        let distance = distance(&logits(&model, ids, 64, 2, StateType::F32), &expected);
        assert!(distance < 1e-4, "{variant}: {distance:e}");
    }
}

#[test]
fn odd_sizes_give_the_same_bits_however_they_are_run() {
    for variant in [0, 3] {
        let small = odd(variant);
        let ids = &tokens(small.vocab())[..TOKENS];
        let portable = load(&small, &format!("odd-portable{variant}"), KernelChoice::Portable);
        let best = load(&small, &format!("odd-best{variant}"), KernelChoice::Auto);
        for state in [StateType::F32, StateType::F16] {
            let expected = logits(&portable, ids, 512, 1, state);
            assert_eq!(expected.len(), TOKENS * small.vocab() as usize);
            for (chunk, threads) in [(512, 3), (64, 1), (63, 3), (7, 2), (1, 3), (1, 1)] {
                for model in [&portable, &best] {
                    let ours = logits(model, ids, chunk, threads, state);
                    let same = ours.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same && ours.len() == expected.len(), "{variant}: {state:?}, {chunk}, {threads}");
                }
            }
        }
    }
}

/// From some number of workers on, the parts of a long row are shared out, where fewer workers each quantize it whole.
#[test]
fn long_rows_give_the_same_bits_shared_out() {
    for variant in [3, 4] {
        let small = with_layers(variant, Vec::new(), |small, h| vec![long(small, h)]);
        let ids = &tokens(small.vocab())[..11];
        let model = load(&small, &format!("long{variant}"), KernelChoice::Auto);
        let expected = logits(&model, ids, 512, 1, StateType::F32);
        for (chunk, threads) in [(1, 1), (1, 4), (3, 5), (4, 6), (512, 5)] {
            let ours = logits(&model, ids, chunk, threads, StateType::F32);
            let same = ours.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && ours.len() == expected.len(), "{variant}: {chunk}, {threads}");
        }
    }
}

/// Rows that are taken back leave no trace in states without rows of their own.
#[test]
fn odd_sizes_can_be_taken_back() {
    let small = odd(0);
    let ids = &tokens(small.vocab())[..TOKENS];
    let model = load(&small, "odd-back", KernelChoice::Auto);
    let options = || SessionOptions { threads: Some(2), oversubscribe: true, ..SessionOptions::default() };
    let mut session = Session::new(model.clone(), options()).unwrap();
    session.prefill(&ids[..100]).unwrap();
    session.prefill(&[7, 8, 9]).unwrap();
    session.truncate(40);
    let again = session.prefill(&ids[40..]).unwrap().to_vec();
    let once = Session::new(model, options()).unwrap().prefill(ids).unwrap().to_vec();
    assert!(again.iter().zip(&once).all(|(a, b)| a.to_bits() == b.to_bits()));
}
