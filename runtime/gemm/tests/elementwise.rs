//! Element-wise arithmetic against scalar references: both storages, shapes, chains, and what is refused.

use proptest::prelude::*;
use trit_gemm::elementwise::{Value, tadd_i8, ternary_fma_i8, tmax_i8, tmin_i8, tmul_i8, tnot_i8};
use trit_gemm::{Chain, GemmError, PackedTrits, Scales, TernaryMatrix};

fn trits(len: usize) -> impl Strategy<Value = Vec<i8>> {
    proptest::collection::vec(-1i8..=1, len)
}

/// Three arrays of the same shape.
fn arrays() -> impl Strategy<Value = (usize, [Vec<i8>; 3])> {
    (0usize..6, 1usize..700).prop_flat_map(|(rows, columns)| {
        let len = rows * columns;
        (Just(columns), [trits(len), trits(len), trits(len)])
    })
}

/// The bytes that SPEC.md defines: rows one after the other.
fn reference_bytes(trits: &[i8], columns: usize) -> Vec<u8> {
    trits
        .chunks(columns)
        .flat_map(|row| {
            row.chunks(5).map(|five| {
                (0..5).map(|i| (five.get(i).copied().unwrap_or(0) + 1) as u8 * 3u8.pow(i as u32)).sum::<u8>()
            })
        })
        .collect()
}

proptest! {
    #[test]
    fn every_operation_gives_what_it_gives_for_single_trits((columns, [a, b, c]) in arrays()) {
        let [pa, pb, pc] = [&a, &b, &c].map(|x| PackedTrits::pack(x, columns).unwrap());
        prop_assert_eq!(pa.bytes(), reference_bytes(&a, columns));
        prop_assert_eq!(&pa.unpack(), &a);
        let again = PackedTrits::from_bytes(pa.bytes(), pa.rows(), columns).unwrap();
        prop_assert!(again == pa);
        let each = |f: &dyn Fn(i8, i8, i8) -> i8| -> Vec<i8> { (0..a.len()).map(|i| f(a[i], b[i], c[i])).collect() };
        let mut out = vec![7; a.len()];

        let expected = each(&|a, b, _| (a + b).clamp(-1, 1));
        tadd_i8(&a, &b, &mut out).unwrap();
        prop_assert_eq!(&out, &expected);
        // The ends of rows stay zeros, or these were no canonical bytes.
        prop_assert_eq!(pa.tadd(&pb).unwrap().bytes().to_vec(), reference_bytes(&expected, columns));

        let expected = each(&|a, b, _| a * b);
        tmul_i8(&a, &b, &mut out).unwrap();
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(pa.tmul(&pb).unwrap().bytes().to_vec(), reference_bytes(&expected, columns));

        let expected = each(&|a, b, _| a.min(b));
        tmin_i8(&a, &b, &mut out).unwrap();
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(pa.tmin(&pb).unwrap().bytes().to_vec(), reference_bytes(&expected, columns));

        let expected = each(&|a, b, _| a.max(b));
        tmax_i8(&a, &b, &mut out).unwrap();
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(pa.tmax(&pb).unwrap().bytes().to_vec(), reference_bytes(&expected, columns));

        let expected = each(&|a, _, _| -a);
        tnot_i8(&a, &mut out).unwrap();
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(pa.tnot().unwrap().bytes().to_vec(), reference_bytes(&expected, columns));

        let expected = each(&|a, b, c| (a * b + c).clamp(-1, 1));
        ternary_fma_i8(&a, &b, &c, &mut out).unwrap();
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(pa.ternary_fma(&pb, &pc).unwrap().bytes().to_vec(), reference_bytes(&expected, columns));
    }

    /// Chains of random operations, each of any earlier values, against single trits.
    #[test]
    fn chains_give_what_their_operations_give(
        (columns, arrays) in arrays(),
        operations in proptest::collection::vec((0usize..6, any::<[prop::sample::Index; 3]>()), 0..40),
    ) {
        let mut builder = Chain::builder();
        let mut values: Vec<Value> = (0..3).map(|_| builder.input()).collect();
        let mut single: Vec<Vec<i8>> = arrays.to_vec();
        for (operation, at) in operations {
            let [a, b, c] = at.map(|i| i.index(values.len()));
            let each = |f: &dyn Fn(i8, i8, i8) -> i8| -> Vec<i8> {
                (0..single[0].len()).map(|i| f(single[a][i], single[b][i], single[c][i])).collect()
            };
            let expected = match operation {
                0 => each(&|a, b, _| (a + b).clamp(-1, 1)),
                1 => each(&|a, b, _| a * b),
                2 => each(&|a, b, _| a.min(b)),
                3 => each(&|a, b, _| a.max(b)),
                4 => each(&|a, _, _| -a),
                _ => each(&|a, b, c| (a * b + c).clamp(-1, 1)),
            };
            let (a, b, c) = (values[a], values[b], values[c]);
            values.push(match operation {
                0 => builder.tadd(a, b),
                1 => builder.tmul(a, b),
                2 => builder.tmin(a, b),
                3 => builder.tmax(a, b),
                4 => builder.tnot(a),
                _ => builder.ternary_fma(a, b, c),
            });
            single.push(expected);
        }
        let packed = arrays.each_ref().map(|x| PackedTrits::pack(x, columns).unwrap());
        for (value, expected) in values.iter().zip(&single).rev().take(6) {
            let chain = builder.finish(*value).unwrap();
            prop_assert_eq!(chain.run(&packed.each_ref()).unwrap().unpack(), expected.as_slice());
            let mut out = vec![7; expected.len()];
            chain.run_i8(&arrays.each_ref().map(|x| &x[..]), &mut out).unwrap();
            prop_assert_eq!(&out, expected);
        }
    }
}

/// Arrays that are shared out among threads, with ends that are no whole pieces.
#[test]
fn large_arrays_give_the_same_on_any_number_of_threads() {
    let len = 3 * (1 << 20) + 77;
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 3) as i8 - 1
    };
    let [a, b]: [Vec<i8>; 2] = [0, 1].map(|_| (0..len).map(|_| random()).collect());
    let expected: Vec<i8> = a.iter().zip(&b).map(|(a, b)| (a + b).clamp(-1, 1)).collect();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut out = vec![7; len];
            tadd_i8(&a, &b, &mut out).unwrap();
            assert!(out == expected, "int8 on {threads} threads");
            for columns in [len, 1] {
                let [a, b] = [&a, &b].map(|x| PackedTrits::pack(x, columns).unwrap());
                assert!(a.tadd(&b).unwrap().unpack() == expected, "packed on {threads} threads");
            }
            let mut bad = b.clone();
            (bad[len - 1], bad[len / 2], bad[17]) = (5, 6, -128);
            let error = tadd_i8(&a, &bad, &mut out).unwrap_err().to_string();
            assert_eq!(error, "element 17 of operand 1 is -128; -1, 0 and 1 are possible");
            let error = PackedTrits::pack(&bad, len).unwrap_err().to_string();
            assert_eq!(error, "the weight in row 0, column 17 is -128; -1, 0 and 1 are possible");
        });
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let a = PackedTrits::pack(&[1, 0, -1, 1, 0, 0], 3).unwrap();
    let error = |e: GemmError| e.to_string();
    assert_eq!(
        error(PackedTrits::pack(&[1, 0, 1], 2).unwrap_err()),
        "the trits `[rows, columns]` has 3 elements; 4 are expected"
    );
    assert_eq!(
        error(PackedTrits::pack(&[1], 0).unwrap_err()),
        "the trits `[rows, columns]` has 1 elements; 0 are expected"
    );
    assert!(PackedTrits::pack(&[], 0).unwrap().bytes().is_empty());
    let flat = PackedTrits::pack(&[1, 0, -1, 1, 0, 0], 6).unwrap();
    assert_eq!(
        error(a.tadd(&flat).unwrap_err()),
        "operand 1 is [1, 6], the result [2, 3]; shapes must be equal"
    );
    let byte =
        |bytes: &[u8], rows, columns| error(PackedTrits::from_bytes(bytes, rows, columns).unwrap_err());
    assert!(byte(&[121, 243], 1, 10).starts_with("byte 1 is 243, which holds no five trits"));
    // 121 - 81: the fifth trit of a row of four.
    assert!(byte(&[121, 40], 2, 4).starts_with("byte 1 is 40"));
    assert!(byte(&[121], 2, 4).contains("has 1 elements; 2 are expected"));
    assert!(byte(&[121], usize::MAX, usize::MAX).contains("are expected"));
    assert!(matches!(PackedTrits::zeros(usize::MAX, 5), Err(GemmError::Memory { .. })));
    assert_eq!(PackedTrits::zeros(2, 3).unwrap().unpack(), [0; 6]);
    assert!(a.unpack_into(&mut [0; 5]).is_err());
    assert!(tnot_i8(&[0; 3], &mut [0; 2]).is_err());
}

#[test]
fn chains_that_cannot_be_run_are_refused() {
    let mut builder = Chain::builder();
    let a = builder.input();
    let chain = builder.finish(a).unwrap();
    assert_eq!((chain.inputs(), chain.operations()), (1, 0));
    assert!(chain.run(&[]).unwrap_err().to_string().contains("it has 1 inputs, and 0 arrays were given"));
    assert!(Chain::builder().finish(a).unwrap_err().to_string().contains("belongs to another chain"));
    let mut other = Chain::builder();
    let x = other.input();
    let far = (0..9).fold(a, |v, _| builder.tadd(v, a));
    let wrong = other.tadd(x, far);
    assert!(other.finish(wrong).unwrap_err().to_string().contains("belongs to another chain"));

    // Equal operations are done once, opposites cost nothing.
    let mut builder = Chain::builder();
    let (a, b) = (builder.input(), builder.input());
    let (x, y) = (builder.tadd(a, b), builder.tadd(b, a));
    let (x, y) = (builder.tnot(x), builder.tnot(y));
    let z = builder.tmul(x, y);
    assert_eq!(builder.finish(z).unwrap().operations(), 2);

    // Each value is needed until the end.
    let mut builder = Chain::builder();
    let inputs: Vec<Value> = (0..70).map(|_| builder.input()).collect();
    let sums: Vec<Value> = inputs.windows(2).map(|w| builder.tadd(w[0], w[1])).collect();
    let result = sums.iter().rev().fold(inputs[0], |v, s| builder.tmin(v, *s));
    assert!(builder.finish(result).unwrap_err().to_string().contains("too many values are needed at a time"));
    // In another order they are not.
    let mut builder = Chain::builder();
    let mut value = builder.input();
    for _ in 0..70 {
        let next = builder.input();
        value = builder.tmax(value, next);
    }
    assert_eq!(builder.finish(value).unwrap().operations(), 70);
}

/// The table of golden bytes in SPEC.md.
#[test]
fn packed_arrays_are_the_golden_bytes_of_the_specification() {
    let spec = include_str!("../../../format-spec/SPEC.md");
    let section = spec.split("### Packed arrays").nth(1).unwrap().split("\n### ").next().unwrap();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|l| l.starts_with("| `["))
        .map(|l| l.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 4);
    for cells in rows {
        let trits = cells[1].trim_matches('`');
        let numbers = |text: &str| -> Vec<i8> {
            text.split([',', '[', ']', ' ']).filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect()
        };
        let all = numbers(trits);
        let columns = numbers(trits.trim_start_matches('[').split(']').next().unwrap()).len();
        let bytes: Vec<u8> = match cells[2] {
            "none" => Vec::new(),
            hex => {
                hex.trim_matches('`').split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
            }
        };
        let packed = PackedTrits::pack(&all, columns).unwrap();
        assert_eq!(packed.bytes(), bytes, "{trits}");
        assert_eq!(PackedTrits::from_bytes(&bytes, packed.rows(), columns).unwrap().unpack(), all);
        if columns > 0 {
            let matrix = TernaryMatrix::pack(&all, packed.rows(), columns, Scales::Tensor(1.0)).unwrap();
            assert_eq!(matrix.packed_trits().unwrap().bytes(), bytes);
        }
    }
}
