//! One damaged manifest for each rule of validation, and the message that names the damage.

mod bundle;

use bundle::*;
use trit_format::FormatError;
use trit_format::container::{Header, SectionKind};
use trit_format::dense243::Code;
use trit_format::kernel::KernelKind;
use trit_format::manifest::{Manifest, RowOrder, Tensor};
use trit_format::plan::*;

#[test]
fn what_is_unusual_but_sound_is_accepted() {
    let header = Header::parse(&file()).unwrap();
    let cases: &[Case] = &[
        ("the manifest as it is", |_| ()),
        ("no kernels at all", |m| m.kernels.clear()),
        ("kernels for only one of the code sections", |m| m.kernels.truncate(3)),
        ("no goldens, and a tensor of no dimensions", |m| {
            m.goldens.clear();
            m.tensors[5].shape.clear();
        }),
        ("a tied head", |m| {
            m.plan.head[1] =
                Step::Head { input: NORMED, table: EMBEDDING, planes: Some(PlanesId(0)), out: LOGITS }
        }),
        ("no planes", |m| {
            m.planes.clear();
            m.plan.head[1] = Step::Head { input: NORMED, table: HEAD, planes: None, out: LOGITS };
        }),
        ("planes that nothing scans", |m| {
            m.plan.head[1] = Step::Head { input: NORMED, table: HEAD, planes: None, out: LOGITS }
        }),
        ("room at the end of a row", |m| m.plan.row_bytes = 1024),
        ("attention to an earlier layer's keys", |m| {
            m.plan.body[17] = Step::Attend { qkv: QKV, layer: 0, scale: 0.5, window: None, out: ATTENDED };
        }),
        ("no special tokens", |m| (m.text.bos, m.text.stop) = (None, vec![])),
    ];
    for (what, change) in cases {
        let mut manifest = manifest();
        change(&mut manifest);
        assert_eq!(manifest.validate(&header), Ok(()), "{what}");
    }
}

#[test]
fn counts_and_names() {
    refused(&[
        ("plan.buffers: has 1025 entries; 1024 are possible", |m| {
            m.plan.buffers = vec![m.plan.buffers[0].clone(); 1025];
        }),
        ("text.stop: has 65537 entries; 65536 are possible", |m| m.text.stop = vec![0; 65537]),
        ("goldens: has 65 entries; 64 are possible", |m| m.goldens = vec![m.goldens[0].clone(); 65]),
        ("tensor: has a name of 4097 bytes; 4096 are possible", |m| m.tensors[1].name = "x".repeat(4097)),
        ("buffer: has a control character in its name \"a\u{fffd}[2J\"", |m| {
            m.plan.buffers[1].name = "a\x1b[2J".into()
        }),
        ("model name: has a control character in its name \"\u{fffd}\"", |m| m.model.name = "\r".into()),
        ("source: has a control character in its name \"\u{fffd}\"", |m| {
            m.model.sources[0].file = "\n".into()
        }),
        ("segment: has a control character in its name \"\u{fffd}\"", |m| {
            m.packed_matrices[7].segments[0].name = "\0".into()
        }),
    ]);
}

#[test]
fn hyperparameters() {
    refused(&[
        ("hyperparameters: vocab_size is 0, not in 1..=16777216", |m| m.hyperparameters.vocab_size = 0),
        ("hyperparameters: n_kv_heads is 0, not in 1..=16777216", |m| m.hyperparameters.n_kv_heads = 0),
        ("hyperparameters: n_layers is 4294967295, not in 1..=65536", |m| {
            m.hyperparameters.n_layers = u32::MAX
        }),
        ("hyperparameters: context_length is 0, not in 1..=16777216", |m| {
            m.hyperparameters.context_length = 0
        }),
        ("hyperparameters: context_length is 16777217, not in 1..=16777216", |m| {
            m.hyperparameters.context_length = (1 << 24) + 1;
        }),
        ("plan: residual is buffer residual F32[8], expected F32[9]", |m| m.hyperparameters.hidden_dim = 9),
        ("plan: logits is buffer logits F32[10], expected F32[11]", |m| m.hyperparameters.vocab_size = 11),
        ("plan: has 2 layers, hyperparameters say 3", |m| m.hyperparameters.n_layers = 3),
    ]);
}

#[test]
fn tensors() {
    refused(&[
        ("tensor norm: has 9 dimensions; 8 are possible", |m| m.tensors[3].shape = vec![1; 9]),
        ("tensor norm: its shape [8, 0] is empty", |m| m.tensors[3].shape = vec![8, 0]),
        ("tensor norm: its offset 449 is no multiple of 64", |m| m.tensors[3].offset = 449),
        ("tensor norm: its size overflows 64 bits", |m| m.tensors[3].shape = vec![1 << 32, 1 << 32]),
        ("tensor norm: its size overflows 64 bits", |m| m.tensors[3].shape = vec![1 << 63]),
        ("tensor golden.0: its 44 bytes at 576 reach past the tensors section's 616", |m| {
            m.tensors[5].shape = vec![11]
        }),
        ("tensor norm: its 32 bytes at 18446744073709551552 reach past the tensors section's 616", |m| {
            m.tensors[3].offset = u64::MAX - 63;
        }),
        ("tensor head: overlaps tensor embedding", |m| m.tensors[1].offset = 128),
        ("tensor head: overlaps tensor embedding", |m| m.tensors[1].offset = 0),
    ]);
}

#[test]
fn packed_matrices() {
    refused(&[
        ("product layers.0.o: k is 0, not in 1..=33000", |m| m.packed_matrices[1].k = 0),
        ("product layers.0.o: k is 33001, not in 1..=33000", |m| m.packed_matrices[1].k = 33001),
        ("product layers.0.o: k is 4294967295, not in 1..=33000", |m| m.packed_matrices[1].k = u32::MAX),
        ("product layers.0.o: has 0 segments; 1 to 65536 are possible", |m| {
            m.packed_matrices[1].segments.clear()
        }),
        ("product layers.0.qkv, segment layers.0.qkv.1: has no rows", |m| {
            m.packed_matrices[0].segments[1].rows = 0
        }),
        ("product layers.0.qkv, segment layers.0.qkv.2: scale is 0, not finite and above zero", |m| {
            m.packed_matrices[0].segments[2].scale = 0.0;
        }),
        ("product layers.0.qkv, segment layers.0.qkv.2: scale is NaN, not finite and above zero", |m| {
            m.packed_matrices[0].segments[2].scale = f32::NAN;
        }),
        ("product layers.0.qkv, segment layers.0.qkv.2: scale is -1, not finite and above zero", |m| {
            m.packed_matrices[0].segments[2].scale = -1.0;
        }),
        ("product layers.0.qkv, segment layers.0.qkv.2: scale is inf, not finite and above zero", |m| {
            m.packed_matrices[0].segments[2].scale = f32::INFINITY;
        }),
        ("product layers.0.qkv: has 4294967307 rows; 16777216 are possible", |m| {
            m.packed_matrices[0].segments[1].rows = u32::MAX
        }),
        ("product layers.0.gate_up: is paired but not of two equal segments", |m| {
            m.packed_matrices[2].segments[1].rows = 11
        }),
        ("product layers.0.gate_up: is paired but not of two equal segments", |m| {
            drop(m.packed_matrices[2].segments.pop())
        }),
        ("product layers.0.qkv: is paired but not of two equal segments", |m| {
            m.packed_matrices[0].order = RowOrder::Paired
        }),
        ("product layers.0.o: its offset 130 is no multiple of 64", |m| m.packed_matrices[1].offset = 130),
        ("product layers.1.down: its 192 bytes at 1024 reach past the weights section's 1152", |m| {
            m.packed_matrices[7].offset = 1024;
        }),
        (
            "product layers.1.down: its 192 bytes at 18446744073709551552 reach past the weights section's 1152",
            |m| {
                m.packed_matrices[7].offset = u64::MAX - 63;
            },
        ),
        ("product layers.0.o: overlaps product layers.0.qkv", |m| m.packed_matrices[1].offset = 64),
    ]);
}

#[test]
fn kernels() {
    const K: &str = "kernel ternary_i8_sfix_80x1_k8_u2_p8192 for x86-64-v3";
    let refused = |problem: &str, change: fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        let error = manifest.validate(&Header::parse(&file()).unwrap()).unwrap_err().to_string();
        assert_eq!(error.replace(K, "K"), problem);
    };
    refused("kernel ternary_i8_sfix_80x1_k0_u2_p8192 for x86-64-v3: k is 0, not in 1..=33000", |m| {
        m.kernels[0].spec.k = 0
    });
    refused("kernel ternary_i8_sfix_80x0_k8_u2_p8192 for x86-64-v3: m is 0, not in 1..=16", |m| {
        m.kernels[0].spec.m = 0
    });
    refused("kernel ternary_i8_sfix_80x17_k8_u2_p8192 for x86-64-v3: m is 17, not in 1..=16", |m| {
        m.kernels[0].spec.m = 17
    });
    refused(
        "kernel ternary_i8_sfix_block_80x1_k8_u2_p8192 for x86-64-v3: has m 1, but one row is for stream kernels; compile the model \
         again",
        |m| {
            m.kernels[0].spec.kind = KernelKind::Block;
            m.kernels[0].spec.m = 1;
        },
    );
    refused(
        "kernel ternary_i8_sfix_grouped_80x2_k8_u2_p8192 for x86-64-v3: k is 8, not one of [32, 64, 128, 256], the columns of a group",
        |m| {
            m.kernels[0].spec.kind = KernelKind::Grouped;
            m.kernels[0].spec.m = 2;
        },
    );
    refused("kernel ternary_i8_sfix_80x1_k8_u0_p8192 for x86-64-v3: unroll is 0, not in 1..=16", |m| {
        m.kernels[0].spec.unroll = 0;
    });
    refused("kernel ternary_i8_sfix_80x1_k8_u17_p8192 for x86-64-v3: unroll is 17, not in 1..=16", |m| {
        m.kernels[0].spec.unroll = 17;
    });
    refused(
        "kernel ternary_i8_sfix_80x1_k8_u2_p1048577 for x86-64-v3: prefetch is 1048577, more than 1048576",
        |m| {
            m.kernels[0].spec.prefetch = (1 << 20) + 1;
        },
    );
    refused("K: has calling convention 2, this program's is 3; compile the model again", |m| {
        m.kernels[0].abi = 2
    });
    refused("K: is there twice", |m| m.kernels[1].spec = m.kernels[0].spec);
    refused("K: has no code", |m| m.kernels[0].len = 0);
    refused("K: its offset 1 is no multiple of 64", |m| m.kernels[0].offset = 1);
    refused("K: its 40 bytes at 192 reach past the code for x86-64-v3 section's 168", |m| {
        m.kernels[0].offset = 192
    });
    refused("K: its 40 bytes at 18446744073709551552 reach past the code for x86-64-v3 section's 168", |m| {
        m.kernels[0].offset = u64::MAX - 63;
    });
    refused("K: its 18446744073709551615 bytes at 0 reach past the code for x86-64-v3 section's 168", |m| {
        m.kernels[0].len = u64::MAX;
    });
    refused("kernel ternary_i8_sfix_80x4_k8_u2_p8192 for x86-64-v3: overlaps K", |m| m.kernels[0].len = 65);
    refused("product layers.0.down: has no stream kernel for x86-64-v3 with k 12, m 1 and code sfix", |m| {
        m.kernels.retain(|k| k.spec.k != 12)
    });
    refused(
        "product layers.0.qkv: has no stream kernel for aarch64-dotprod with k 8, m 1 and code sfix",
        |m| {
            m.kernels[3].spec.m = 2;
        },
    );
    refused(
        "product layers.1.down: has no stream kernel for x86-64-v3 with k 12, m 1 and code spread",
        |m| {
            m.packed_matrices[7].code = Code::Spread;
        },
    );
}

#[test]
fn sections_that_the_manifest_needs() {
    let without = |kind| {
        let mut header = Header::parse(&file()).unwrap();
        header.sections.retain(|s| s.kind != kind);
        manifest().validate(&header).unwrap_err()
    };
    for kind in [SectionKind::Weights, SectionKind::Tensors] {
        assert_eq!(without(kind), FormatError::Missing(kind));
    }
    assert_eq!(
        without(SectionKind::Planes).to_string(),
        "planes of tensor 0: the bundle has no planes section"
    );
    assert_eq!(
        without(SectionKind::Code(TARGETS[1])).to_string(),
        "kernel ternary_i8_sfix_80x1_k8_u2_p8192 for aarch64-dotprod: the bundle has no section with code for \
         aarch64-dotprod"
    );
}

#[test]
fn buffers_and_kv_layers() {
    refused(&[
        ("plan: row_bytes is 577, no multiple of 64 up to 67108864", |m| m.plan.row_bytes = 577),
        ("plan: row_bytes is 67108928, no multiple of 64 up to 67108864", |m| {
            m.plan.row_bytes = (64 << 20) + 64
        }),
        ("buffer attended: is empty", |m| m.plan.buffers[6].len = 0),
        ("buffer attended: its offset 383 is no multiple of 64", |m| m.plan.buffers[6].offset = 383),
        ("buffer attended: its stride 0 does not suit rows of 32 bytes", |m| m.plan.buffers[6].stride = 0),
        ("buffer attended: its stride 32 does not suit rows of 32 bytes", |m| m.plan.buffers[6].stride = 32),
        ("buffer attended: its stride 64 does not suit rows of 68 bytes", |m| m.plan.buffers[6].len = 17),
        ("buffer attended: its stride 64 does not suit rows of 17179869180 bytes", |m| {
            m.plan.buffers[6].len = u32::MAX
        }),
        ("buffer q8.scale: its stride 64 does not suit rows of 4 bytes", |m| m.plan.buffers[3].stride = 64),
        ("buffer q8: its stride 4 does not suit rows of 4 bytes", |m| {
            (m.plan.buffers[2].len, m.plan.buffers[2].stride) = (4, 4);
        }),
        ("buffer attended: 64 bytes at 576 reach past row_bytes, 576", |m| m.plan.buffers[6].offset = 576),
        ("buffer attended: 64 bytes at 18446744073709551552 reach past row_bytes, 576", |m| {
            m.plan.buffers[6].offset = u64::MAX - 63;
        }),
        ("kv layer 1: 0 query heads cannot share 1 key and value heads evenly", |m| m.plan.kv[1].n_heads = 0),
        ("kv layer 1: 2 query heads cannot share 0 key and value heads evenly", |m| {
            m.plan.kv[1].n_kv_heads = 0
        }),
        ("kv layer 1: 2 query heads cannot share 3 key and value heads evenly", |m| {
            m.plan.kv[1].n_kv_heads = 3
        }),
        ("kv layer 1: head_dim is 0, not even in 2..=1024", |m| m.plan.kv[1].head_dim = 0),
        ("kv layer 1: head_dim is 3, not even in 2..=1024", |m| m.plan.kv[1].head_dim = 3),
        ("kv layer 1: head_dim is 1026, not even in 2..=1024", |m| m.plan.kv[1].head_dim = 1026),
        ("plan: caches 8796093020168 elements a position; 16777216 are possible", |m| {
            (m.plan.kv[1].n_heads, m.plan.kv[1].n_kv_heads, m.plan.kv[1].head_dim) =
                (u32::MAX, u32::MAX, 1024);
        }),
    ]);
}

#[test]
fn the_shape_of_the_plan() {
    const FIRST: &str = "plan: body does not begin with an embedding into the residual stream";
    refused(&[
        ("plan: there is no buffer 12", |m| m.plan.residual.0 = 12),
        ("plan: there is no buffer 4294967295", |m| m.plan.logits.0 = u32::MAX),
        ("layer 0: is steps 0..13, expected some from 1 on", |m| m.plan.layers[0].start = 0),
        ("layer 0: is steps 2..13, expected some from 1 on", |m| m.plan.layers[0].start = 2),
        ("layer 0: is steps 1..1, expected some from 1 on", |m| m.plan.layers[0].end = 1),
        ("layer 1: is steps 13..25, expected some from 14 on", |m| m.plan.layers[0].end = 14),
        ("plan: its layers end at step 4294967295, its body at 25", |m| m.plan.layers[1].end = u32::MAX),
        ("plan: its layers end at step 24, its body at 25", |m| m.plan.layers[1].end = 24),
        ("plan: its layers end at step 25, its body at 0", |m| m.plan.body.clear()),
        (FIRST, |m| m.plan.body[0] = Step::Embed { table: EMBEDDING, scale: 1.0, out: NORMED }),
        (FIRST, |m| m.plan.body[0] = m.plan.body[1].clone()),
    ]);
}

/// Each table is tabulated over the whole context, so their number is bounded.
#[test]
fn the_number_of_rope_tables() {
    let mut header = Header::parse(&file()).unwrap();
    header.sections[2].len = 4096;
    let mut m = manifest();
    let table = m.tensors[2].clone();
    m.tensors.extend((0..9).map(|i| Tensor { offset: 640 + 64 * i, ..table.clone() }));
    m.plan.kv = vec![m.plan.kv[0]; 9];
    let layer = m.plan.body[1..4].to_vec();
    m.plan.body.truncate(1);
    for l in 0..9 {
        m.plan.body.extend(layer.clone());
        m.plan.body.push(Step::RopeAppend {
            qkv: QKV,
            norms: None,
            inv_freq: TensorId(6 + l),
            scaling: 1.0,
            layer: l,
        });
    }
    m.plan.layers = vec![LayerSteps { start: 1, end: 5 }, LayerSteps { start: 5, end: 37 }];
    let error = m.validate(&header).unwrap_err();
    assert_eq!(error.to_string(), "plan: uses 9 tables of RoPE frequencies; 8 are possible");
    let last = |scaling| Step::RopeAppend { qkv: QKV, norms: None, inv_freq: TensorId(6), scaling, layer: 8 };
    // The same frequencies scaled otherwise are another table.
    m.plan.body[36] = last(2.0);
    let error = m.validate(&header).unwrap_err();
    assert_eq!(error.to_string(), "plan: uses 9 tables of RoPE frequencies; 8 are possible");
    m.plan.body[36] = last(1.0);
    assert_eq!(m.validate(&header), Ok(()));
}

#[test]
fn steps() {
    let mut cases = 0;
    // The step at `index` of the body (head from 25 on) replaced by `step`.
    let mut refused = |index: usize, step: Step, problem: &str| {
        let mut manifest = manifest();
        let place = match index {
            25.. => format!("head step {}", index - 25),
            _ => format!("body step {index}"),
        };
        match index {
            25.. => manifest.plan.head[index - 25] = step,
            _ => manifest.plan.body[index] = step,
        }
        let error = manifest.validate(&Header::parse(&file()).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), format!("{place}: {problem}"));
        cases += 1;
    };
    let (no_buffer, no_tensor) = (BufferId(12), TensorId(6));
    let embed = |table, out| Step::Embed { table, scale: 1.0, out };
    refused(1, embed(no_tensor, NORMED), "there is no tensor 6");
    refused(1, embed(EMBEDDING, no_buffer), "there is no buffer 12");
    refused(1, embed(NORM, NORMED), "its table is tensor norm F32[8], expected a matrix of floats");
    refused(1, embed(EMBEDDING, GATED), "out is buffer gated F32[12], expected F32[8]");
    refused(
        25,
        embed(EMBEDDING, NORMED),
        "stands in the head, which runs only for some rows; it belongs in the body",
    );

    let norm = |input, weight, eps, out| Step::RmsNorm { input, weight, eps, out };
    refused(1, norm(no_buffer, NORM, 1e-5, NORMED), "there is no buffer 12");
    refused(1, norm(RESIDUAL, no_tensor, 1e-5, NORMED), "there is no tensor 6");
    refused(1, norm(RESIDUAL, FFN_NORM, 1e-5, NORMED), "weight is tensor ffn_norm F32[12], expected F32[8]");
    refused(
        1,
        norm(RESIDUAL, EMBEDDING, 1e-5, NORMED),
        "weight is tensor embedding Bf16[10, 8], expected F32[8]",
    );
    refused(1, norm(Q.values, NORM, 1e-5, NORMED), "input is buffer q8 I8[8], expected F32[8]");
    refused(1, norm(RESIDUAL, NORM, 1e-5, GATED), "out is buffer gated F32[12], expected F32[8]");
    refused(1, norm(RESIDUAL, NORM, 1e-5, Q.values), "out is buffer q8 I8[8], expected F32[8]");
    refused(1, norm(RESIDUAL, NORM, 0.0, NORMED), "eps is 0, not finite and above zero");
    refused(1, norm(RESIDUAL, NORM, f32::NAN, NORMED), "eps is NaN, not finite and above zero");

    let norm_quantize = |input, weight, eps, floor, out| Step::NormQuantize {
        input,
        weight,
        eps,
        rule: ActivationRule::AbsmaxPerToken { floor },
        out,
    };
    refused(2, norm_quantize(no_buffer, NORM, 1e-5, 1e-5, Q), "there is no buffer 12");
    refused(2, norm_quantize(NORMED, no_tensor, 1e-5, 1e-5, Q), "there is no tensor 6");
    refused(
        2,
        norm_quantize(NORMED, FFN_NORM, 1e-5, 1e-5, Q),
        "weight is tensor ffn_norm F32[12], expected F32[8]",
    );
    refused(2, norm_quantize(NORMED, NORM, 0.0, 1e-5, Q), "eps is 0, not finite and above zero");
    refused(2, norm_quantize(NORMED, NORM, 1e-5, -1.0, Q), "floor is -1, not finite and above zero");
    refused(2, norm_quantize(NORMED, NORM, 1e-5, 1e-5, G), "values is buffer q12 I8[12], expected I8[8]");

    let quantize =
        |input, floor, out| Step::Quantize { input, rule: ActivationRule::AbsmaxPerToken { floor }, out };
    refused(2, quantize(no_buffer, 1e-5, Q), "there is no buffer 12");
    refused(2, quantize(NORMED, -1.0, Q), "floor is -1, not finite and above zero");
    refused(2, quantize(Q.values, 1e-5, Q), "input is buffer q8 I8[8], expected F32[8]");
    refused(2, quantize(NORMED, 1e-5, G), "values is buffer q12 I8[12], expected I8[8]");
    refused(
        2,
        quantize(NORMED, 1e-5, Quantized { values: RESIDUAL, ..Q }),
        "values is buffer residual F32[8], expected I8[8]",
    );
    refused(
        2,
        quantize(NORMED, 1e-5, Quantized { scale: Q.sum, ..Q }),
        "scale is buffer q8.sum I32[1], expected F32[1]",
    );
    refused(
        2,
        quantize(NORMED, 1e-5, Quantized { scale: NORMED, ..Q }),
        "scale is buffer normed F32[8], expected F32[1]",
    );
    refused(
        2,
        quantize(NORMED, 1e-5, Quantized { sum: Q.scale, ..Q }),
        "sum is buffer q8.scale F32[1], expected I32[1]",
    );
    refused(2, quantize(NORMED, 1e-5, Quantized { sum: no_buffer, ..Q }), "there is no buffer 12");

    let ternary = |matrix, input, epilogue, out| Step::Ternary {
        matrix: PackedMatrixId(matrix),
        input,
        epilogue,
        out,
        at: 0,
    };
    let (store, gate) = (Epilogue::Store, Epilogue::Gate(Activation::Silu));
    refused(3, ternary(8, Q, store, QKV), "there is no product 8");
    refused(3, ternary(0, G, store, QKV), "values is buffer q12 I8[12], expected I8[8]");
    refused(
        3,
        ternary(0, Q, store, GATED),
        "out is buffer gated F32[12], expected room for F32[16] from 0 on",
    );
    refused(3, ternary(0, Q, store, no_buffer), "there is no buffer 12");
    refused(3, ternary(0, Q, gate, QKV), "gates a product that is not paired");
    refused(3, ternary(2, Q, store, QKV), "does not gate a paired product");
    refused(3, ternary(2, Q, Epilogue::Add, QKV), "does not gate a paired product");
    refused(
        3,
        Step::Ternary { matrix: PackedMatrixId(0), input: Q, epilogue: store, out: QKV, at: 1 },
        "out is buffer qkv F32[16], expected room for F32[16] from 1 on",
    );

    let rope =
        |qkv, inv_freq, scaling, layer| Step::RopeAppend { qkv, norms: None, inv_freq, scaling, layer };
    refused(4, rope(QKV, INV_FREQ, 1.0, 2), "there is no kv layer 2");
    refused(4, rope(QKV, INV_FREQ, f32::INFINITY, 0), "scaling is inf, not finite and above zero");
    refused(4, rope(QKV, NORM, 1.0, 0), "inv_freq is tensor norm F32[8], expected F32[2]");
    refused(4, rope(ATTENDED, INV_FREQ, 1.0, 0), "qkv is buffer attended F32[8], expected F32[16]");
    refused(
        26,
        rope(QKV, INV_FREQ, 1.0, 0),
        "stands in the head, which runs only for some rows; it belongs in the body",
    );

    let attend = |qkv, layer, scale, out| Step::Attend { qkv, layer, scale, window: None, out };
    refused(5, attend(QKV, u32::MAX, 0.5, ATTENDED), "there is no kv layer 4294967295");
    refused(5, attend(QKV, 0, -0.0, ATTENDED), "scale is -0, not finite and above zero");
    refused(5, attend(GATED, 0, 0.5, ATTENDED), "qkv is buffer gated F32[12], expected F32[16]");
    refused(5, attend(QKV, 0, 0.5, QKV), "out is buffer qkv F32[16], expected F32[8]");
    refused(
        26,
        attend(QKV, 0, 0.5, ATTENDED),
        "stands in the head, which runs only for some rows; it belongs in the body",
    );

    let head = |input, table, out| Step::Head { input, table, planes: None, out };
    let planned = |table, planes| Step::Head { input: NORMED, table, planes: Some(planes), out: LOGITS };
    refused(26, planned(HEAD, PlanesId(2)), "there are no planes 2");
    refused(26, planned(EMBEDDING, HEAD_PLANES), "planes 1 are those of tensor 1, not of its table");
    refused(26, head(NORMED, no_tensor, LOGITS), "there is no tensor 6");
    refused(26, head(NORMED, NORM, LOGITS), "its table is tensor norm F32[8], expected a matrix of floats");
    refused(26, head(GATED, HEAD, LOGITS), "input is buffer gated F32[12], expected F32[8]");
    refused(26, head(NORMED, HEAD, RESIDUAL), "out is buffer residual F32[8], expected F32[10]");
    assert_eq!(cases, 53);

    // Tables of the wrong height or of integers, which need another tensor.
    self::refused(&[
        ("body step 0: its table has 9 rows for a vocabulary of 10", |m| m.tensors[0].shape = vec![9, 8]),
        ("body step 0: its table is tensor embedding I8[10, 8], expected a matrix of floats", |m| {
            m.tensors[0].dtype = DType::I8;
        }),
        ("head step 1: out is buffer logits F32[10], expected F32[9]", |m| m.tensors[1].shape = vec![9, 8]),
    ]);
}

#[test]
fn planes() {
    refused(&[
        ("planes of tensor 6: there is no tensor 6", |m| m.planes[0].table = TensorId(6)),
        ("planes of tensor 3: its table is tensor norm F32[8], expected a matrix of floats", |m| {
            m.planes[0].table = NORM;
        }),
        ("planes of tensor 1: its offset 32 is no multiple of 64", |m| m.planes[1].offset = 32),
        ("planes of tensor 1: its 1632 bytes at 1728 reach past the planes section's 3296", |m| {
            m.planes[1].offset = 1728;
        }),
        (
            "planes of tensor 1: its 1632 bytes at 18446744073709551552 reach past the planes section's 3296",
            |m| {
                m.planes[1].offset = u64::MAX - 63;
            },
        ),
        ("planes of tensor 1: overlaps planes of tensor 0", |m| m.planes[1].offset = 64),
    ]);
    let mut header = Header::parse(&file()).unwrap();
    header.sections[2].len = 1 << 20;
    let mut manifest = manifest();
    let shape = vec![2, 65537];
    manifest.tensors.push(Tensor { name: "wide".into(), dtype: DType::Bf16, shape, offset: 640 });
    manifest.planes[0].table = TensorId(6);
    assert_eq!(
        manifest.validate(&header).unwrap_err().to_string(),
        "planes of tensor 6: a table [2, 65537] has none; [16777216, 65536] is the largest"
    );
}

#[test]
fn text_and_goldens() {
    refused(&[
        ("text, bos: token id 10 is outside the vocabulary of 10", |m| m.text.bos = Some(10)),
        ("text, stop: token id 4294967295 is outside the vocabulary of 10", |m| {
            m.text.stop = vec![1, u32::MAX]
        }),
        ("text, sampling: temperature is NaN, not in 0..=1000000", |m| {
            m.text.sampling.temperature = Some(f32::NAN);
        }),
        ("text, sampling: top_p is 1.5, not in 0..=1", |m| m.text.sampling.top_p = Some(1.5)),
        ("text, sampling: min_p is -0.5, not in 0..=1", |m| m.text.sampling.min_p = Some(-0.5)),
        ("text, sampling: repetition_penalty is 0, not finite and above zero", |m| {
            m.text.sampling.repetition_penalty = Some(0.0);
        }),
        ("text, logit rules: token id 10 is outside the vocabulary of 10", |m| {
            m.text.sampling.rules.sequence_bias[0].0[1] = 10;
        }),
        ("text, logit rules: token id 11 is outside the vocabulary of 10", |m| {
            m.text.sampling.rules.bad_words[1][0] = 11;
        }),
        ("text, logit rules: token id 12 is outside the vocabulary of 10", |m| {
            m.text.sampling.rules.suppress = vec![1, 12];
        }),
        ("text, logit rules: token id 13 is outside the vocabulary of 10", |m| {
            m.text.sampling.rules.begin_suppress = vec![13];
        }),
        ("text, logit rules: has an empty sequence", |m| m.text.sampling.rules.bad_words.push(vec![])),
        ("text, logit rules: has an empty sequence", |m| m.text.sampling.rules.sequence_bias[0].0.clear()),
        ("text, logit rules: a bias is inf, not finite", |m| {
            m.text.sampling.rules.sequence_bias[0].1 = f32::INFINITY;
        }),
        ("text, logit rules: no_repeat_ngram_size is 1025, more than 1024", |m| {
            m.text.sampling.rules.no_repeat_ngram_size = 1025;
        }),
        ("text, logit rules: suppress has 65537 entries; 65536 are possible", |m| {
            m.text.sampling.rules.suppress = vec![1; 65537];
        }),
        ("text, logit rules: the longest sequence has 65537 entries; 65536 are possible", |m| {
            m.text.sampling.rules.bad_words[0] = vec![1; 65537];
        }),
        ("text, logit rules: sequences have 1048580 ids in all; 1048576 are possible", |m| {
            m.text.sampling.rules.bad_words = vec![vec![1; 65536]; 16];
            m.text.sampling.rules.sequence_bias[0].0 = vec![1; 4];
        }),
        ("golden 0: has 0 ids; 1 to 32, the context length, are possible", |m| m.goldens[0].ids.clear()),
        ("golden 0: has 33 ids; 1 to 32, the context length, are possible", |m| {
            m.goldens[0].ids = vec![1; 33]
        }),
        ("golden 0: token id 10 is outside the vocabulary of 10", |m| m.goldens[0].ids = vec![10]),
        ("golden 0: there is no tensor 6", |m| m.goldens[0].logits.0 = 6),
        ("golden 0: logits is tensor norm F32[8], expected F32[10]", |m| m.goldens[0].logits = NORM),
    ]);
}
