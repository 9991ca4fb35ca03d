//! Planes of a shipped model's head.

use crate::contents::compiled;
use crate::reference::repository;
use crate::synthetic;
use crate::verify::{problem, with_sections};
use half::bf16;
use std::fs;
use trit_format::container::SectionKind;
use trit_format::plan::{DType, PlanesId, Step};
use trit_format::planes::{Layout, ROW_BYTES, encode_row};
use tritc::bundle::Bundle;
use tritc::inspect;
use tritc::inspect::verify::verify;

#[test]
fn planes_are_the_readable_encoding_of_the_heads_rows() {
    let folder = tempfile::tempdir().unwrap();
    let model =
        tritc::load::load(&repository().join("examples/models/fables-12m"), &Default::default()).unwrap();
    let bundle = compiled(&model, folder.path(), &[]);
    let manifest = bundle.manifest();
    let [record] = manifest.planes.as_slice() else { panic!("{:?}", manifest.planes) };
    let Some(Step::Head { table, planes, .. }) = manifest.plan.head.last() else { panic!() };
    assert_eq!((record.table, *planes), (*table, Some(PlanesId(0))));

    let dense = model.head().dense().unwrap();
    assert_eq!(dense.dtype, DType::Bf16);
    let layout = Layout::new(4096, 384).unwrap();
    let section = &bundle.section(SectionKind::Planes)[record.offset as usize..];
    assert_eq!(section.len() as u64, layout.bytes());
    let part = |range: std::ops::Range<u64>, row: usize, len: usize| {
        &section[range.start as usize + row * len..][..len]
    };
    for (r, row) in (*dense.data).as_ref().chunks_exact(2 * 384).enumerate() {
        let row: Vec<f32> = row.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect();
        let (mut high, mut low) = (vec![0; layout.plane_row_bytes()], vec![0; layout.plane_row_bytes()]);
        let mut scales = vec![0; layout.blocks()];
        let record = encode_row(layout, &row, &mut high, &mut low, &mut scales).unwrap();
        assert_eq!(part(layout.high(), r, high.len()), high, "row {r}");
        assert_eq!(part(layout.low(), r, low.len()), low, "row {r}");
        assert_eq!(part(layout.scales(), r, scales.len()), scales, "row {r}");
        assert_eq!(part(layout.records(), r, ROW_BYTES), record.to_bytes(), "row {r}");
    }
    let name = &dense.name;
    assert!(inspect::describe(&bundle).contains(&format!("of {name}, 4096 x 384, {} bytes", layout.bytes())));
    assert_eq!(inspect::json(&bundle)["planes"][0]["table"], name.as_str());

    // The digests of both bundles are right; one has planes that are not its head's.
    verify(&bundle, true).unwrap();
    let other = folder.path().join("other.trit");
    for at in [0, layout.low().start, layout.scales().end - 1, layout.bytes() - 1] {
        let changed = with_sections(&bundle, |kind, content| {
            if kind == SectionKind::Planes {
                content[at as usize] ^= 1;
            }
        });
        fs::write(&other, changed).unwrap();
        let opened = Bundle::open(&other).unwrap();
        verify(&opened, false).unwrap();
        let found = problem(verify(&opened, true));
        assert!(found.contains(&format!("the planes of {name} are not those of its values")), "{found}");
    }
}

#[test]
fn small_heads_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = compiled(&synthetic::model(), folder.path(), &[]);
    assert!(bundle.manifest().planes.is_empty() && bundle.header().section(SectionKind::Planes).is_none());
    assert!(matches!(bundle.manifest().plan.head.last(), Some(Step::Head { planes: None, .. })));
}
