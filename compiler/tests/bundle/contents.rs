//! A bundle holds the model it was made from.

use crate::reference::repository;
use crate::synthetic;
use std::path::Path;
use trit_format::container::SectionKind;
use trit_format::manifest::{PackedMatrix, RowOrder};
use trit_format::plan::{BufferId, Step};
use trit_format::target::Target;
use trit_format::tile;
use tritc::bundle::Bundle;
use tritc::compile::compile;
use tritc::model::{Model, Projection, Scales, Ternary};
use tritc::progress::Silent;
use tritc::reference;

pub fn compiled(model: &Model, folder: &Path, targets: &[Target]) -> Bundle {
    let out = folder.join("out.trit");
    compile(model, &out, targets, &Silent).unwrap();
    Bundle::open(&out).unwrap()
}

/// All trits of a packed matrix, `[tiles * 80, k]`.
fn decoded(bundle: &Bundle, packed: &PackedMatrix) -> Vec<i8> {
    let k = packed.k as usize;
    let bytes = &bundle.section(SectionKind::Weights)[packed.offset as usize..];
    let tiles = bytes[..packed.bytes().unwrap() as usize].chunks(tile::bytes(k));
    tiles.flat_map(|t| tile::decode(t, k, packed.code).unwrap()).collect()
}

fn ternary(projection: &Projection) -> &Ternary {
    projection.matrix.ternary().unwrap()
}

fn row(matrix: &Ternary, row: usize) -> Vec<i8> {
    let mut out = vec![9; matrix.k];
    matrix.trits.read_row(row, &mut out).unwrap();
    out
}

#[test]
fn every_weight_stands_where_the_format_says() {
    let (model, folder) = (synthetic::model(), tempfile::tempdir().unwrap());
    let bundle = compiled(&model, folder.path(), &[]);
    let packed_matrices = &bundle.manifest().packed_matrices;
    assert_eq!(packed_matrices.len(), 8);
    for (l, layer) in model.layers.iter().enumerate() {
        let attention = layer.attention().unwrap();
        let expected = [
            vec![&attention.q, &attention.k, &attention.v],
            vec![&attention.o],
            vec![&layer.gate, &layer.up],
            vec![&layer.down],
        ];
        let expected = expected.map(|projections| projections.into_iter().map(ternary).collect::<Vec<_>>());
        for (packed, matrices) in packed_matrices[4 * l..].iter().zip(expected) {
            let trits = decoded(&bundle, packed);
            let mut rows = trits.chunks(packed.k as usize);
            assert_eq!(packed.segments.len(), matrices.len());
            for (segment, matrix) in packed.segments.iter().zip(&matrices) {
                assert_eq!(segment.name, matrix.name);
                let stored = Scales::Tensor { scale: segment.scale, rule: segment.rule };
                assert_eq!(stored, matrix.scales);
            }
            match packed.order {
                RowOrder::Sequential => {
                    for (matrix, r) in matrices.iter().flat_map(|m| (0..m.rows).map(move |r| (m, r))) {
                        assert_eq!(rows.next().unwrap(), row(matrix, r), "{} row {r}", matrix.name);
                    }
                }
                RowOrder::Paired => {
                    for first in (0..matrices[0].rows).step_by(40) {
                        for (matrix, r) in
                            matrices.iter().flat_map(|m| (first..first + 40).map(move |r| (m, r)))
                        {
                            let expected = if r < matrix.rows { row(matrix, r) } else { vec![0; matrix.k] };
                            assert_eq!(rows.next().unwrap(), expected, "{} row {r}", matrix.name);
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
            assert!(rows.flatten().all(|&t| t == 0));
        }
    }
}

#[test]
fn a_tied_head_is_stored_once_and_another_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    for (model, tied) in [(synthetic::model(), true), (synthetic::untied(), false)] {
        let bundle = compiled(&model, folder.path(), &[]);
        let plan = &bundle.manifest().plan;
        let Step::Embed { table: embedding, .. } = plan.body[0] else { panic!("{:?}", plan.body[0]) };
        let Some(&Step::Head { table: head, .. }) = plan.head.last() else { panic!("{:?}", plan.head) };
        assert_eq!(embedding == head, tied);
        for (id, dense) in [(embedding, &model.embedding), (head, model.head())] {
            let (tensor, dense) = (&bundle.manifest().tensors[id.0 as usize], dense.dense().unwrap());
            let bytes = &bundle.section(SectionKind::Tensors)[tensor.offset as usize..];
            assert_eq!(tensor.name, dense.name);
            assert_eq!(&bytes[..tensor.bytes().unwrap() as usize], (*dense.data).as_ref());
        }
    }
}

#[test]
fn the_plan_is_the_models_forward_pass() {
    let (model, folder) = (synthetic::model(), tempfile::tempdir().unwrap());
    let bundle = compiled(&model, folder.path(), &[]);
    let plan = &bundle.manifest().plan;
    let name = |id: BufferId| plan.buffers[id.0 as usize].name.as_str();
    // Layer 0 has both sub-norms, layer 1 has none: a norm and the quantization after it are one step.
    assert_eq!(plan.layers.iter().map(|l| l.end - l.start).collect::<Vec<_>>(), [10, 10]);
    assert_eq!((plan.layers[0].start, plan.layers[1].end as usize), (1, plan.body.len()));
    assert_eq!((name(plan.residual), name(plan.logits)), ("h", "logits"));
    assert_eq!(plan.kv.len(), 2);
    let adds = plan.body.iter().filter(|s| matches!(s, Step::Ternary { out, .. } if *out == plan.residual));
    assert_eq!(adds.count(), 4);
    // Without sharing, the buffers would need more than this.
    let sum: u64 = plan.buffers.iter().map(|b| b.stride.next_multiple_of(64)).sum();
    assert!(plan.row_bytes < sum, "{} {sum}", plan.row_bytes);
    assert!(plan.buffers.iter().all(|b| b.offset + b.stride <= plan.row_bytes && b.offset % 64 == 0));
}

#[test]
fn a_target_gets_the_kernels_of_every_width() {
    let (model, folder) = (synthetic::model(), tempfile::tempdir().unwrap());
    let targets = [Target::X86_64V2, Target::Aarch64];
    let bundle = compiled(&model, folder.path(), &targets);
    for target in targets {
        for packed in &bundle.manifest().packed_matrices {
            let fits = |m: u32| {
                let kernels = &bundle.manifest().kernels;
                kernels.iter().any(|k| k.target == target && k.spec.k == packed.k && k.spec.m == m)
            };
            assert!(fits(1), "{target} {}", packed.name);
        }
        assert!(!bundle.section(SectionKind::Code(target)).is_empty());
    }
    assert!(bundle.section(SectionKind::Code(Target::X86_64V3)).is_empty());
}

/// The fixtures' weights are random: their results are steady only after some prompts, which are searched for.
#[test]
fn known_results_are_steady_and_the_references() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["bitnet-online", "bitnet-llama3-rope", "llama-bitlinear"] {
        let path = repository().join("tests/fixtures").join(name);
        let model = tritc::load::load(&path, &Default::default()).unwrap();
        let bundle = compiled(&model, folder.path(), &[]);
        let [golden] = bundle.manifest().goldens.as_slice() else { panic!("{name}: no known result") };
        assert_eq!(golden.ids.len(), 4);
        let tensor = &bundle.manifest().tensors[golden.logits.0 as usize];
        let stored = &bundle.section(SectionKind::Tensors)[tensor.offset as usize..];
        let expected = reference::logits(&model, &golden.ids).unwrap();
        let expected: Vec<u8> = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(&stored[..tensor.bytes().unwrap() as usize], expected);
    }
}
