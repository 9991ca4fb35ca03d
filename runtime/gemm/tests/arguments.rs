//! Every wrong argument gives an error that names it, and none panics.

use trit_gemm::format::dense243::Code;
use trit_gemm::format::manifest::Grouping;
use trit_gemm::format::plan::DType;
use trit_gemm::{
    Activations, AlignedMemory, GemmError, KernelShape, Kernels, Layout, MachineCode, MatrixRef, Precision,
    QuantizedRows, Scales, Scratch, Strided, TernaryMatrix, generated_targets,
};

fn refused(trits: &[i8], n: usize, k: usize, scales: Scales) -> String {
    TernaryMatrix::pack(trits, n, k, scales).err().expect("refused").to_string()
}

#[test]
fn what_cannot_be_packed_is_named() {
    let one = Scales::Tensor(1.0);
    for (expected, found) in [
        ("n is 0", refused(&[], 0, 4, one)),
        ("k is 0", refused(&[], 4, 0, one)),
        ("k is 1048577; at most 1048576", refused(&[], 1, (1 << 20) + 1, one)),
        ("n is 16777217; at most 16777216", refused(&[], (1 << 24) + 1, 1, one)),
        ("the matrix `[n, k]` has 5 elements; 6 are expected", refused(&[0; 5], 2, 3, one)),
        ("the matrix `[n, k]` has 0 elements", refused(&[], 1 << 24, 1 << 20, one)),
        ("row 1, column 2 is 2", refused(&[0, 0, 0, 0, 1, 2], 2, 3, one)),
        ("row 0, column 0 is -128", refused(&[-128, 5], 1, 2, one)),
        ("scale 0 is NaN", refused(&[0], 1, 1, Scales::Tensor(f32::NAN))),
        ("scales `[n]` has 1 elements; 2 are expected", refused(&[0; 6], 2, 3, Scales::Rows(&[1.0]))),
        ("scale 1 is inf", refused(&[0; 6], 2, 3, Scales::Rows(&[1.0, f32::INFINITY]))),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    for columns in [0, 1, 48, 100] {
        let scales = Scales::Groups { columns, scales: &[1.0; 12] };
        let found = refused(&[0; 600], 2, 300, scales);
        assert!(found.contains(&format!("groups of {columns} cannot be stored")), "{found}");
    }
    let scales = Scales::Groups { columns: 64, scales: &[1.0; 9] };
    assert!(refused(&[0; 600], 2, 300, scales).contains("9 elements; 10 are expected"));
    let scales = Scales::Groups { columns: 256, scales: &[1.0, 1.0, 1.0, f32::NEG_INFINITY] };
    assert!(refused(&[0; 600], 2, 300, scales).contains("scale 3 is -inf"));
}

#[test]
fn what_cannot_be_multiplied_is_named() {
    let matrix = TernaryMatrix::pack(&[1; 12], 4, 3, Scales::Tensor(1.0)).unwrap();
    let length = |error: GemmError, expected: usize, found: usize| match error {
        GemmError::Length { expected: e, found: f, .. } => assert_eq!((e, f), (expected, found)),
        other => panic!("{other}"),
    };
    length(matrix.gemm_i8(&[1; 4]).unwrap_err(), 6, 4);
    length(matrix.gemm_i8_into(&[1; 6], &mut [0; 7]).unwrap_err(), 8, 7);
    length(matrix.gemm(&[1.0; 2], Precision::Float).unwrap_err(), 3, 2);
    length(matrix.gemm_into(&[1.0; 3], Precision::Int8PerToken, &mut [0.0; 3]).unwrap_err(), 4, 3);
    // A product with no rows is no error and has no results.
    assert_eq!(matrix.gemm_i8(&[]).unwrap(), [0; 0]);
    assert_eq!(matrix.gemm(&[], Precision::Float).unwrap(), [0.0; 0]);
    let scales = Scales::Groups { columns: 32, scales: &[1.0; 4] };
    let grouped = TernaryMatrix::pack(&[1; 12], 4, 3, scales).unwrap();
    assert!(matches!(grouped.gemm_i8(&[1; 3]), Err(GemmError::GroupScales)));
}

fn layout(k: u32, columns: Option<u32>) -> Layout {
    let grouping = columns.map(|columns| Grouping { columns, scale_columns: 0, scale: DType::F32 });
    Layout::new(k, Code::SignedFix, grouping).unwrap()
}

/// Everything that a caller of the borrowed matrix can get wrong, with portable and with generated kernels.
#[test]
fn what_does_not_suit_a_borrowed_matrix_is_named() {
    let shape = KernelShape { k: 64, code: Code::SignedFix };
    let mut sets = vec![Kernels::portable()];
    let best =
        trit_gemm::CpuTiers::detect().iter().filter(|t| generated_targets(&[shape]).any(|g| g == *t)).max();
    if let Some(target) = best {
        let code = MachineCode::generate(&[shape], target).unwrap();
        sets.push(code.kernels(shape, |_| usize::MAX).unwrap());
        assert!(code.kernels(KernelShape { k: 65, ..shape }, |_| 0).is_none());
    }
    let (whole, grouped) = (layout(64, None), layout(128, Some(64)));
    let memory = AlignedMemory::new(3, grouped.tile_bytes(), "tiles").unwrap();
    for kernels in &sets {
        let generated = kernels.target().is_some();
        let new = |layout, bytes| MatrixRef::new(layout, bytes, kernels);
        let tile = whole.tile_bytes();
        for bytes in [&memory.bytes()[..0], &memory.bytes()[..tile - 1], &memory.bytes()[..tile + 1]] {
            assert!(matches!(new(whole, bytes), Err(GemmError::Length { .. })));
        }
        assert_eq!(
            matches!(new(whole, &memory.bytes()[1..][..tile]), Err(GemmError::Alignment { .. })),
            generated
        );
        let other = layout(68, None);
        let fit = new(other, &memory.bytes()[..other.tile_bytes()]);
        assert_eq!(matches!(fit, Err(GemmError::Kernels { .. })), generated);

        let matrix = new(whole, &memory.bytes()[..2 * tile]).unwrap();
        let of_groups = new(grouped, memory.bytes()).unwrap();
        let mut scratch = Scratch::default();
        let rows = |stride, scales, sums| QuantizedRows::new(2, stride, scales, sums).unwrap();
        let (one, three) = (rows(64, 1, 1), rows(384, 2, 6));
        let mut pass = matrix.pass(one.first(2).unwrap(), &mut scratch).unwrap();
        for range in [1..3, 3..3, 2..usize::MAX] {
            let error = pass.sums(range.clone(), |_, _, _| panic!("called")).unwrap_err();
            assert!(error.to_string().contains("the matrix has 2"), "{error}");
        }
        assert!(matches!(pass.totals(0..1, |_, _, _| {}), Err(GemmError::Grouping { .. })));
        assert!(matches!(pass.group_sums(0, 0), Err(GemmError::Grouping { .. })));
        let mut visited = Vec::new();
        pass.sums(0..2, |tile, row, _| visited.push((tile, row))).unwrap();
        visited.sort_unstable();
        assert_eq!(visited, [(0, 0), (0, 1), (1, 0), (1, 1)]);

        let mut pass = of_groups.pass(three.first(2).unwrap(), &mut scratch).unwrap();
        assert!(matches!(pass.sums(0..1, |_, _, _| {}), Err(GemmError::Grouping { .. })));
        assert!(matches!(pass.totals(0..4, |_, _, _| {}), Err(GemmError::Tiles { .. })));
        assert!(matches!(pass.group_sums(3, 0), Err(GemmError::Tiles { .. })));
        assert!(matches!(pass.group_sums(0, 2), Err(GemmError::Activations { .. })));
        assert_eq!(pass.group_sums(2, 1).unwrap().len(), 3 * 2 * 80);
        for unfit in [rows(64, 2, 2), rows(256, 2, 4), rows(128, 1, 2), rows(128, 2, 1), rows(384, 2, 2)] {
            let error = of_groups.pass(unfit.first(2).unwrap(), &mut scratch).err().unwrap();
            assert!(matches!(error, GemmError::Activations { .. }), "{error}");
        }
        assert!(matches!(
            matrix.pass(rows(64, 1, 2).first(1).unwrap(), &mut scratch),
            Err(GemmError::Activations { .. })
        ));

        assert!(matches!(of_groups.row(240, &mut [0.0; 128]), Err(GemmError::Tiles { .. })));
        assert!(matches!(of_groups.row(usize::MAX, &mut [0.0; 128]), Err(GemmError::Tiles { .. })));
        assert!(matches!(of_groups.row(0, &mut [0.0; 127]), Err(GemmError::Length { .. })));
        of_groups.row(239, &mut [0.0; 128]).unwrap();
    }
}

/// Activation sums that have room between rows give the same results.
#[test]
fn rows_may_have_room_between_scales_and_sums() {
    let grouped = layout(100, Some(64));
    let mut tiles = AlignedMemory::new(1, grouped.tile_bytes(), "a tile").unwrap();
    let codes = 2 * 64 * 16;
    tiles.bytes_mut()[..codes]
        .iter_mut()
        .enumerate()
        .for_each(|(i, b)| *b = Code::SignedFix.store((i % 243) as u8).unwrap());
    tiles.bytes_mut()[codes..][..320]
        .as_chunks_mut::<4>()
        .0
        .iter_mut()
        .for_each(|b| *b = 1.5f32.to_le_bytes());
    let mut own = QuantizedRows::new(3, 128, 2, 2).unwrap();
    let (mut scales, mut sums) = (vec![9.0; 3 * 5], vec![9; 3 * 7]);
    let mut values = AlignedMemory::new(3, 128, "values").unwrap();
    for (r, row) in own.rows_mut().into_iter().enumerate() {
        row.values[..100].iter_mut().enumerate().for_each(|(i, q)| *q = (i * 37 + r * 11) as i8);
        for g in 0..2 {
            row.sums[g] = row.values[g * 64..][..64].iter().map(|&q| i32::from(q)).sum();
            row.scales[g] = 0.5 + g as f32;
        }
        values.signed_mut()[r * 128..][..128].copy_from_slice(row.values);
        scales[r * 5..][..2].copy_from_slice(row.scales);
        sums[r * 7..][..2].copy_from_slice(row.sums);
    }
    let apart = Activations::new(
        3,
        values.signed(),
        Strided { values: &scales, stride: 5 },
        Strided { values: &sums, stride: 7 },
        2,
    );
    let kernels = Kernels::portable();
    let matrix = MatrixRef::new(grouped, tiles.bytes(), &kernels).unwrap();
    let results = |input| {
        let (mut scratch, mut found) = (Scratch::default(), Vec::new());
        let mut pass = matrix.pass(input, &mut scratch).unwrap();
        pass.totals(0..1, |_, _, totals| found.extend_from_slice(totals)).unwrap();
        found
    };
    assert_eq!(results(apart.unwrap()), results(own.first(3).unwrap()));
}
