//! One damaged manifest for each rule of rotations and of steps with recurrent states, and the message that names it.

mod bundle;

use bundle::recurrent::*;
use bundle::*;
use trit_format::container::{Header, SectionKind};
use trit_format::manifest::Manifest;
use trit_format::plan::*;

/// A header whose tensor section has room for any tensor of the cases.
fn header() -> Header {
    let mut header = Header::parse(&file_of(&recurrent())).unwrap();
    header.sections.iter_mut().filter(|s| s.kind == SectionKind::Tensors).for_each(|s| s.len = 1 << 40);
    header
}

/// Each case's change to the manifest with states must be refused with exactly this message.
fn refused_with_states(cases: &[Case]) {
    refused_of(&recurrent(), &header(), cases);
}

/// Gives a tensor another shape, and a place where there is room for it.
fn reshape(m: &mut Manifest, id: TensorId, shape: &[u64]) {
    let tensor = &mut m.tensors[id.0 as usize];
    (tensor.shape, tensor.offset) = (shape.into(), 1 << 20);
}

/// The rotation of a step of the body.
fn rotation(m: &mut Manifest, index: usize) -> &mut Rotation {
    match &mut m.plan.body[index] {
        Step::RotateQuantize { rotation, .. } | Step::Unrotate { rotation, .. } => rotation,
        other => panic!("{other:?}"),
    }
}

/// The heads of the delta rule.
fn heads(m: &mut Manifest) -> &mut DeltaHeads {
    let Step::DeltaRule { heads, .. } = &mut m.plan.body[RULE] else { panic!() };
    heads
}

/// Changes fields of a step of the body.
macro_rules! set {
    ($m:ident, $index:ident, $variant:ident, $($field:ident = $value:expr),+) => {{
        let Step::$variant { $($field,)+ .. } = &mut $m.plan.body[$index] else { panic!() };
        $(*$field = $value;)+
    }};
}

#[test]
fn what_is_unusual_but_sound_is_accepted() {
    let cases: &[Case] = &[
        ("rotations of single elements", |m| rotation(m, ROTATE).block = 1),
        ("two steps that take the embedding back", |m| {
            m.plan.body.insert(1, m.plan.body[UNROTATE].clone());
            m.plan.layers.iter_mut().for_each(|l| (l.start, l.end) = (l.start + 1, l.end + 1));
        }),
        ("an embedding that is not rotated, and such a step inside a layer", |m| {
            m.plan.body[UNROTATE] = Step::RmsNorm { input: RESIDUAL, weight: NORM, eps: 1e-5, out: NORMED };
            let rotation = Rotation { block: 2, signs: None };
            m.plan.body.insert(ROTATE, Step::Unrotate { rotation, out: NORMED });
            m.plan.layers = vec![LayerSteps { start: 1, end: 10 }, LayerSteps { start: 10, end: 26 }];
        }),
        ("64 taps", |m| reshape(m, CONVOLUTION, &[64, QKV_LEN.into()])),
        ("frequencies for all elements of a head", |m| reshape(m, SHORT_FREQ, &[2])),
        ("a norm of single elements", |m| set!(m, GATE_NORM, GateNorm, weight = SHORT_FREQ)),
        ("a gate norm from one buffer to another, gated by its own input", |m| {
            set!(m, GATE_NORM, GateNorm, gate = RULED, at = 0, out = ADDED);
            set!(m, ROTATE_BACK, RotateQuantize, input = ADDED);
        }),
        ("gates that reach exactly to the end of their buffer", |m| {
            set!(m, RULE, DeltaRule, at = 22);
        }),
        ("gates among the queries", |m| set!(m, RULE, DeltaRule, gates = CONVOLVED, at = 3)),
        ("rotations and gates in the head", |m| {
            let rotate = m.plan.body[ROTATE_BACK].clone();
            m.plan.head[0] = Step::GateNorm {
                input: RESIDUAL,
                weight: NORM,
                eps: 1e-5,
                gate: RESIDUAL,
                at: 0,
                activation: Activation::Silu,
                out: RULED,
            };
            m.plan.head.insert(1, rotate);
        }),
        ("a matrix without groups behind a rotation", |m| {
            let Step::RotateQuantize { rule: of, out, .. } = &mut m.plan.body[ROTATE_BACK] else { panic!() };
            (*of, *out) = (rule(), Q);
            let (matrix, epilogue) = (PackedMatrixId(1), Epilogue::Add);
            m.plan.body[ROTATE_BACK + 1] = Step::Ternary { matrix, input: Q, epilogue, out: RESIDUAL, at: 0 };
        }),
    ];
    for (what, change) in cases {
        let mut manifest = recurrent();
        change(&mut manifest);
        assert_eq!(manifest.validate(&header()), Ok(()), "{what}");
    }
}

#[test]
fn rotations() {
    refused_with_states(&[
        ("body step 1: rotates 8 elements in blocks of 0", |m| rotation(m, UNROTATE).block = 0),
        ("body step 1: rotates 8 elements in blocks of 6", |m| rotation(m, UNROTATE).block = 6),
        ("body step 1: rotates 8 elements in blocks of 16", |m| rotation(m, UNROTATE).block = 16),
        ("body step 2: rotates 8 elements in blocks of 2147483648", |m| rotation(m, ROTATE).block = 1 << 31),
        ("body step 7: rotates 8 elements in blocks of 3", |m| rotation(m, ROTATE_BACK).block = 3),
        // Larger blocks than any model has.
        ("body step 1: rotates 131072 elements in blocks of 131072", |m| {
            let (name, offset) = ("wide".into(), m.plan.row_bytes);
            m.plan.buffers.push(Buffer { name, dtype: DType::F32, len: 1 << 17, offset, stride: 1 << 19 });
            m.plan.row_bytes += 1 << 19;
            let rotation = Rotation { block: 1 << 17, signs: None };
            m.plan.body[UNROTATE] = Step::Unrotate { rotation, out: BufferId(23) };
        }),
        ("body step 1: signs is tensor ffn_norm F32[12], expected F32[8]", |m| {
            rotation(m, UNROTATE).signs = Some(FFN_NORM)
        }),
        ("body step 7: signs is tensor one_tap F32[1, 8], expected F32[8]", |m| {
            rotation(m, ROTATE_BACK).signs = Some(ONE_TAP)
        }),
        ("body step 7: signs is tensor signs I32[8], expected F32[8]", |m| {
            m.tensors[SIGNS.0 as usize].dtype = DType::I32;
            rotation(m, UNROTATE).signs = None;
        }),
        ("body step 1: there is no tensor 15", |m| rotation(m, UNROTATE).signs = Some(TensorId(15))),
        ("body step 1: there is no buffer 23", |m| set!(m, UNROTATE, Unrotate, out = BufferId(23))),
        ("body step 1: out is buffer q8 I8[8], expected F32[8]", |m| {
            set!(m, UNROTATE, Unrotate, out = Q.values)
        }),
        ("body step 2: there is no buffer 4294967295", |m| {
            set!(m, ROTATE, RotateQuantize, input = BufferId(u32::MAX))
        }),
        ("body step 2: input is buffer q8 I8[8], expected F32[8]", |m| {
            set!(m, ROTATE, RotateQuantize, input = Q.values)
        }),
        ("body step 2: weight is tensor head_norm F32[4], expected F32[8]", |m| {
            set!(m, ROTATE, RotateQuantize, norm = Some(InputNorm { weight: HEAD_NORM, eps: 1e-5 }))
        }),
        ("body step 2: there is no tensor 15", |m| {
            set!(m, ROTATE, RotateQuantize, norm = Some(InputNorm { weight: TensorId(15), eps: 1e-5 }))
        }),
        ("body step 2: eps is inf, not finite and above zero", |m| {
            set!(m, ROTATE, RotateQuantize, norm = Some(InputNorm { weight: NORM, eps: f32::INFINITY }))
        }),
        ("body step 2: floor is 0, not finite and above zero", |m| {
            set!(m, ROTATE, RotateQuantize, rule = ActivationRule::AbsmaxPerToken { floor: 0.0 })
        }),
        ("body step 2: has groups of 0 columns; [32, 64, 128, 256] up to 128 are possible", |m| {
            set!(m, ROTATE, RotateQuantize, rule = ActivationRule::Fixed24PerGroup { columns: 0 })
        }),
        ("body step 2: values is buffer groups I8[64], expected I8[192]", |m| {
            set!(m, ROTATE, RotateQuantize, out = GROUPS)
        }),
        ("body step 2: sum is buffer groups.sum I32[1], expected I32[3]", |m| {
            set!(m, ROTATE, RotateQuantize, out = Quantized { sum: GROUPS.sum, ..FIXED })
        }),
    ]);
}

#[test]
fn convolutions() {
    refused_with_states(&[
        ("body step 4: its weight is tensor norm F32[8], expected F32[taps, channels]", |m| {
            set!(m, CONVOLVE, Convolve, weight = NORM)
        }),
        ("body step 4: its weight is tensor head F16[10, 8], expected F32[taps, channels]", |m| {
            set!(m, CONVOLVE, Convolve, weight = HEAD)
        }),
        ("body step 4: its weight is tensor convolution F32[4, 14, 1], expected F32[taps, channels]", |m| {
            reshape(m, CONVOLUTION, &[4, 14, 1])
        }),
        ("body step 4: its weight is tensor convolution F32[], expected F32[taps, channels]", |m| {
            reshape(m, CONVOLUTION, &[])
        }),
        ("body step 4: there is no tensor 15", |m| set!(m, CONVOLVE, Convolve, weight = TensorId(15))),
        ("tensor convolution: its shape [0, 14] is empty", |m| reshape(m, CONVOLUTION, &[0, 14])),
        ("tensor convolution: its shape [4, 0] is empty", |m| reshape(m, CONVOLUTION, &[4, 0])),
        ("body step 4: its convolution has 65 taps, not 1 to 64", |m| reshape(m, CONVOLUTION, &[65, 14])),
        // Taps and channels that only a narrower integer would let through.
        ("body step 4: its convolution has 4294967300 taps, not 1 to 64", |m| {
            reshape(m, CONVOLUTION, &[(1 << 32) + 4, 1])
        }),
        ("body step 4: input is buffer mixed F32[26], expected room for F32[4294967310] from 0 on", |m| {
            reshape(m, CONVOLUTION, &[1, (1 << 32) + 14])
        }),
        ("body step 4: input is buffer mixed F32[26], expected room for F32[27] from 0 on", |m| {
            reshape(m, CONVOLUTION, &[4, 27])
        }),
        ("body step 4: input is buffer fixed.sum I32[3], expected room for F32[14] from 0 on", |m| {
            set!(m, CONVOLVE, Convolve, input = FIXED.sum)
        }),
        ("body step 4: out is buffer convolved F32[14], expected F32[13]", |m| {
            reshape(m, CONVOLUTION, &[4, 13])
        }),
        ("body step 4: out is buffer mixed F32[26], expected F32[14]", |m| {
            set!(m, CONVOLVE, Convolve, out = MIXED)
        }),
        ("body step 4: there is no buffer 23", |m| set!(m, CONVOLVE, Convolve, input = BufferId(23))),
        ("body step 4: there is no buffer 23", |m| set!(m, CONVOLVE, Convolve, out = BufferId(23))),
    ]);
}

#[test]
fn states() {
    refused_with_states(&[
        ("body step 4: has state 1, expected 0", |m| set!(m, CONVOLVE, Convolve, state = 1)),
        ("body step 5: has state 0, expected 1", |m| set!(m, RULE, DeltaRule, state = 0)),
        ("body step 5: has state 2, expected 1", |m| set!(m, RULE, DeltaRule, state = 2)),
        ("body step 23: has state 4294967295, expected 2", |m| {
            set!(m, CONVOLVE_ONE, Convolve, state = u32::MAX)
        }),
        // Numbers count along the body, whatever the layer.
        ("body step 23: has state 0, expected 2", |m| set!(m, CONVOLVE_ONE, Convolve, state = 0)),
        ("body step 23: has state 2, expected 1", |m| {
            m.plan.body[RULE] = Step::RmsNorm { input: RESIDUAL, weight: NORM, eps: 1e-5, out: RULED };
        }),
        // One of a convolution's taps is the row itself.
        ("plan: carries 4294967321 elements from row to row; 4294967296 are possible", |m| {
            reshape(m, CONVOLUTION, &[2, (1 << 32) + 1])
        }),
        ("body step 4: input is buffer mixed F32[26], expected room for F32[4294967272] from 0 on", |m| {
            reshape(m, CONVOLUTION, &[2, (1 << 32) - 24])
        }),
        ("plan: carries 5368709162 elements from row to row; 4294967296 are possible", |m| {
            *heads(m) = DeltaHeads { keys: 1, values: 5 << 10, key_dim: 1 << 10, value_dim: 1 << 10 };
        }),
        ("plan: carries 18446744073709551615 elements from row to row; 4294967296 are possible", |m| {
            let most = u32::MAX;
            *heads(m) = DeltaHeads { keys: most, values: most, key_dim: most, value_dim: most };
        }),
    ]);
    // Lengths of heads that were not validated do not overflow.
    let most = u32::MAX;
    let heads = DeltaHeads { keys: most, values: most, key_dim: most, value_dim: most };
    assert_eq!((heads.qkv_len(), heads.values_len()), (u64::MAX, u64::from(most) * u64::from(most)));
}

#[test]
fn delta_rules() {
    refused_with_states(&[
        ("body step 5: has 0 value heads, not 1 to 4096", |m| heads(m).values = 0),
        ("body step 5: has 4097 value heads, not 1 to 4096", |m| heads(m).values = 4097),
        ("body step 5: 2 value heads cannot share 0 key heads evenly", |m| heads(m).keys = 0),
        ("body step 5: 2 value heads cannot share 3 key heads evenly", |m| heads(m).keys = 3),
        ("body step 5: 3 value heads cannot share 2 key heads evenly", |m| {
            (heads(m).keys, heads(m).values) = (2, 3)
        }),
        ("body step 5: 2 value heads cannot share 4294967295 key heads evenly", |m| heads(m).keys = u32::MAX),
        ("body step 5: its heads are of 0 and 4 elements, not 1 to 1024", |m| heads(m).key_dim = 0),
        ("body step 5: its heads are of 1025 and 4 elements, not 1 to 1024", |m| heads(m).key_dim = 1025),
        ("body step 5: its heads are of 3 and 0 elements, not 1 to 1024", |m| heads(m).value_dim = 0),
        ("body step 5: its heads are of 3 and 1025 elements, not 1 to 1024", |m| heads(m).value_dim = 1025),
        ("body step 5: rates is tensor head_norm F32[4], expected F32[2]", |m| {
            set!(m, RULE, DeltaRule, rates = HEAD_NORM)
        }),
        ("body step 5: rates is tensor rates Bf16[2], expected F32[2]", |m| {
            m.tensors[RATES.0 as usize].dtype = DType::Bf16
        }),
        ("body step 5: bias is tensor bias F32[3], expected F32[2]", |m| reshape(m, BIAS, &[3])),
        ("body step 5: bias is tensor bias F32[1, 2], expected F32[2]", |m| reshape(m, BIAS, &[1, 2])),
        ("body step 5: there is no tensor 15", |m| set!(m, RULE, DeltaRule, rates = TensorId(15))),
        ("body step 5: there is no tensor 4294967295", |m| {
            set!(m, RULE, DeltaRule, bias = TensorId(u32::MAX))
        }),
        ("body step 5: qkv is buffer convolved F32[14], expected F32[16]", |m| heads(m).key_dim = 4),
        ("body step 5: qkv is buffer mixed F32[26], expected F32[14]", |m| {
            set!(m, RULE, DeltaRule, qkv = MIXED)
        }),
        ("body step 5: there is no buffer 23", |m| set!(m, RULE, DeltaRule, qkv = BufferId(23))),
        ("body step 5: gates is buffer mixed F32[26], expected room for F32[4] from 23 on", |m| {
            set!(m, RULE, DeltaRule, at = 23)
        }),
        ("body step 5: gates is buffer mixed F32[26], expected room for F32[4] from 4294967295 on", |m| {
            set!(m, RULE, DeltaRule, at = u32::MAX)
        }),
        ("body step 5: gates is buffer mixed F32[26], expected room for F32[4] from 4294967292 on", |m| {
            set!(m, RULE, DeltaRule, at = u32::MAX - 3)
        }),
        ("body step 5: gates is buffer fixed I8[192], expected room for F32[4] from 14 on", |m| {
            set!(m, RULE, DeltaRule, gates = FIXED.values)
        }),
        ("body step 5: there is no buffer 23", |m| set!(m, RULE, DeltaRule, gates = BufferId(23))),
        ("body step 5: out is buffer up F32[12], expected F32[8]", |m| set!(m, RULE, DeltaRule, out = UP)),
        ("body step 5: there is no buffer 23", |m| set!(m, RULE, DeltaRule, out = BufferId(23))),
    ]);
}

#[test]
fn gate_norms() {
    refused_with_states(&[
        ("body step 6: eps is NaN, not finite and above zero", |m| {
            set!(m, GATE_NORM, GateNorm, eps = f32::NAN)
        }),
        ("body step 6: its input has 8 elements, no whole number of runs of 12", |m| {
            set!(m, GATE_NORM, GateNorm, weight = FFN_NORM)
        }),
        ("body step 6: its input has 8 elements, no whole number of runs of 3", |m| {
            reshape(m, RATES, &[3]);
            set!(m, RULE, DeltaRule, rates = BIAS);
            set!(m, GATE_NORM, GateNorm, weight = RATES);
        }),
        ("body step 6: its input has 8 elements, no whole number of runs of 17179869184", |m| {
            reshape(m, RATES, &[1 << 34]);
            set!(m, RULE, DeltaRule, rates = BIAS);
            set!(m, GATE_NORM, GateNorm, weight = RATES);
        }),
        ("body step 6: weight is tensor convolution F32[4, 14], expected F32[4]", |m| {
            set!(m, GATE_NORM, GateNorm, weight = CONVOLUTION)
        }),
        ("body step 6: weight is tensor golden.0 F32[], expected F32[0]", |m| {
            m.goldens.clear();
            m.tensors[GOLDEN.0 as usize].shape.clear();
            set!(m, GATE_NORM, GateNorm, weight = GOLDEN);
        }),
        ("body step 6: there is no tensor 15", |m| set!(m, GATE_NORM, GateNorm, weight = TensorId(15))),
        ("body step 6: input is buffer q8 I8[8], expected F32[8]", |m| {
            set!(m, GATE_NORM, GateNorm, input = Q.values)
        }),
        ("body step 6: there is no buffer 23", |m| set!(m, GATE_NORM, GateNorm, input = BufferId(23))),
        ("body step 6: gate is buffer mixed F32[26], expected room for F32[8] from 19 on", |m| {
            set!(m, GATE_NORM, GateNorm, at = 19)
        }),
        ("body step 6: gate is buffer mixed F32[26], expected room for F32[8] from 4294967295 on", |m| {
            set!(m, GATE_NORM, GateNorm, at = u32::MAX)
        }),
        ("body step 6: gate is buffer mixed F32[26], expected room for F32[8] from 4294967288 on", |m| {
            set!(m, GATE_NORM, GateNorm, at = u32::MAX - 7)
        }),
        ("body step 6: gate is buffer fixed I8[192], expected room for F32[8] from 18 on", |m| {
            set!(m, GATE_NORM, GateNorm, gate = FIXED.values)
        }),
        ("body step 6: there is no buffer 23", |m| set!(m, GATE_NORM, GateNorm, gate = BufferId(23))),
        ("body step 6: out is buffer up F32[12], expected F32[8]", |m| {
            set!(m, GATE_NORM, GateNorm, out = UP)
        }),
        ("body step 6: there is no buffer 23", |m| set!(m, GATE_NORM, GateNorm, out = BufferId(23))),
    ]);
}

#[test]
fn where_steps_stand() {
    const PLACE: &str =
        "head step 0: stands in the head, which runs only for some rows; it belongs in the body";
    refused_with_states(&[
        (PLACE, |m| m.plan.head[0] = m.plan.body[UNROTATE].clone()),
        (PLACE, |m| m.plan.head[0] = m.plan.body[CONVOLVE].clone()),
        (PLACE, |m| m.plan.head[0] = m.plan.body[RULE].clone()),
        ("layer 0: is steps 1..9, expected some from 2 on", |m| m.plan.layers[0].start = 1),
        ("layer 0: is steps 3..9, expected some from 2 on", |m| m.plan.layers[0].start = 3),
        ("layer 0: is steps 2..9, expected some from 3 on", |m| {
            m.plan.body[ROTATE] = m.plan.body[UNROTATE].clone()
        }),
        ("layer 0: is steps 2..9, expected some from 1 on", |m| {
            m.plan.body[UNROTATE] = m.plan.body[ROTATE].clone()
        }),
        // Nothing but steps that take the embedding back: no layer is left.
        ("layer 0: is steps 2..9, expected some from 25 on", |m| {
            let back = m.plan.body[UNROTATE].clone();
            m.plan.body[1..].fill(back);
        }),
        ("tensor short_freq: its shape [0] is empty", |m| reshape(m, SHORT_FREQ, &[0])),
        ("body step 12: inv_freq is tensor short_freq F32[3], expected F32[2]", |m| {
            reshape(m, SHORT_FREQ, &[3])
        }),
        ("body step 12: inv_freq is tensor short_freq F32[1, 1], expected F32[2]", |m| {
            reshape(m, SHORT_FREQ, &[1, 1])
        }),
        ("body step 12: inv_freq is tensor short_freq F32[], expected F32[2]", |m| {
            reshape(m, SHORT_FREQ, &[])
        }),
        ("body step 12: inv_freq is tensor short_freq F16[1], expected F32[1]", |m| {
            m.tensors[SHORT_FREQ.0 as usize].dtype = DType::F16
        }),
    ]);
    assert!(matches!(recurrent().plan.body[ROPE], Step::RopeAppend { .. }));
}

#[test]
fn order_and_overlap() {
    refused_with_states(&[
        ("body step 1: reads buffer added, which holds nothing then", |m| {
            set!(m, UNROTATE, Unrotate, out = ADDED)
        }),
        ("body step 2: reads buffer added, which holds nothing then", |m| {
            set!(m, ROTATE, RotateQuantize, input = ADDED)
        }),
        ("body step 4: reads buffer mixed, which holds nothing then", |m| {
            m.plan.body[MIX] = Step::RmsNorm { input: RESIDUAL, weight: NORM, eps: 1e-5, out: ADDED };
        }),
        ("body step 4: reads buffer mixed, of which only 8 of 26 elements are written", |m| {
            set!(m, MIX, Ternary, matrix = Q_MATRIX)
        }),
        // Written in the layer before, which need not have run.
        ("body step 23: reads buffer mixed, which holds nothing then", |m| {
            set!(m, CONVOLVE_ONE, Convolve, input = MIXED)
        }),
        ("body step 5: reads buffer convolved, which holds nothing then", |m| {
            set!(m, CONVOLVE, Convolve, weight = ONE_TAP, out = ADDED)
        }),
        ("body step 5: reads buffer up, which holds nothing then", |m| {
            set!(m, RULE, DeltaRule, gates = UP, at = 0)
        }),
        ("body step 6: reads buffer ruled, which holds nothing then", |m| {
            set!(m, RULE, DeltaRule, out = ADDED)
        }),
        ("body step 6: reads buffer up, which holds nothing then", |m| {
            set!(m, GATE_NORM, GateNorm, gate = UP, at = 0)
        }),
        (
            "body step 3: its input was quantized in groups of 64 columns, its product is in groups of 32 columns",
            |m| set!(m, ROTATE, RotateQuantize, rule = ActivationRule::Fixed24PerGroup { columns: 64 }),
        ),
        ("body step 2: writes buffer fixed over residual", |m| {
            m.plan.buffers[FIXED.values.0 as usize].offset = m.plan.buffers[0].offset
        }),
        ("body step 2: writes buffer fixed.scale over fixed.sum", |m| {
            m.plan.buffers[FIXED.scale.0 as usize].offset = m.plan.buffers[FIXED.sum.0 as usize].offset
        }),
        ("body step 4: writes buffer convolved over mixed", |m| {
            m.plan.buffers[CONVOLVED.0 as usize].offset = m.plan.buffers[MIXED.0 as usize].offset + 64
        }),
        ("body step 5: writes buffer ruled over convolved", |m| {
            m.plan.buffers[RULED.0 as usize].offset = m.plan.buffers[CONVOLVED.0 as usize].offset
        }),
        ("body step 5: writes buffer ruled over mixed", |m| {
            m.plan.buffers[RULED.0 as usize].offset = m.plan.buffers[MIXED.0 as usize].offset
        }),
        ("body step 6: writes buffer added over mixed", |m| {
            m.plan.buffers[ADDED.0 as usize].offset = m.plan.buffers[MIXED.0 as usize].offset;
            set!(m, GATE_NORM, GateNorm, out = ADDED);
        }),
        ("body step 6: writes buffer added over ruled", |m| {
            m.plan.buffers[ADDED.0 as usize].offset = m.plan.buffers[RULED.0 as usize].offset;
            set!(m, GATE_NORM, GateNorm, out = ADDED);
        }),
        // In place, where the step reads other elements than it writes.
        ("body step 23: writes buffer residual over residual", |m| {
            set!(m, CONVOLVE_ONE, Convolve, out = RESIDUAL)
        }),
        ("body step 5: writes buffer ruled over ruled", |m| set!(m, RULE, DeltaRule, gates = RULED, at = 0)),
        ("body step 6: writes buffer added over added", |m| {
            set!(m, GATE_NORM, GateNorm, gate = ADDED, at = 0, out = ADDED)
        }),
        ("body step 6: writes buffer ruled over ruled", |m| {
            set!(m, GATE_NORM, GateNorm, gate = RULED, at = 0)
        }),
    ]);
}
