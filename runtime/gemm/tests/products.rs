//! Products of packed matrices against scalar references, on portable kernels and on those of every tier of this CPU.

use proptest::prelude::*;
use trit_gemm::format::dense243::Code;
use trit_gemm::format::target::Target;
use trit_gemm::{
    CpuTiers, GemmError, KernelRequest, PackOptions, Precision, Scales, TernaryMatrix, generated_targets,
};

/// xorshift64*, seeded, for operands.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20
    }

    fn trits(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| (self.next() % 3) as i8 - 1).collect()
    }

    fn signs(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| (self.next() % 2) as i8 * 2 - 1).collect()
    }

    fn bytes(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| self.next() as i8).collect()
    }

    /// About normally distributed values, of which one in a hundred is far larger. With one scale for a whole row, the
    /// others would lose their precision.
    fn floats(&mut self, len: usize) -> Vec<f32> {
        let mut uniform = |n: u32| (0..n).map(|_| (self.next() % 65536) as f32 / 32768.0 - 1.0).sum::<f32>();
        (0..len).map(|i| uniform(4) * if i % 100 == 99 { 300.0 } else { 1.0 }).collect()
    }

    /// Positive values.
    fn scales(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| 0.25 + (self.next() % 65536) as f32 / 65536.0).collect()
    }
}

/// Scales of a matrix `[n, k]`, owned.
#[derive(Clone, Debug)]
enum Scaled {
    Tensor(f32),
    Rows(Vec<f32>),
    Groups(usize, Vec<f32>),
}

impl Scaled {
    fn new(random: &mut Random, n: usize, k: usize, columns: Option<usize>, rows: bool) -> Scaled {
        match columns {
            Some(columns) => Scaled::Groups(columns, random.scales(n * k.div_ceil(columns))),
            None if rows => Scaled::Rows(random.scales(n)),
            None => Scaled::Tensor(random.scales(1)[0]),
        }
    }

    fn borrowed(&self) -> Scales<'_> {
        match self {
            Scaled::Tensor(scale) => Scales::Tensor(*scale),
            Scaled::Rows(scales) => Scales::Rows(scales),
            Scaled::Groups(columns, scales) => Scales::Groups { columns: *columns, scales },
        }
    }

    /// The scale of a weight.
    fn at(&self, row: usize, column: usize, k: usize) -> f64 {
        f64::from(match self {
            Scaled::Tensor(scale) => *scale,
            Scaled::Rows(scales) => scales[row],
            Scaled::Groups(columns, scales) => scales[row * k.div_ceil(*columns) + column / columns],
        })
    }
}

/// Options for every code with portable kernels, and with generated kernels of every tier of this CPU that reads the
/// code. Codes without zeros are left out unless the matrix has none.
fn every_option(zeros: bool) -> Vec<PackOptions> {
    let mut all = Vec::new();
    for code in Code::ALL.into_iter().filter(|code| code.has_zero() || !zeros) {
        let options = |kernels| PackOptions { kernels, code: Some(code), tune: false };
        all.push(options(KernelRequest::Portable));
        for target in CpuTiers::detect().iter() {
            let shape = trit_gemm::KernelShape { k: 128, code };
            match generated_targets(&[shape]).any(|t| t == target) {
                true => all.push(options(KernelRequest::Jit(target))),
                false => eprintln!("{target} has no kernels for {shape}"),
            }
        }
    }
    assert!(all.len() > 2 || CpuTiers::detect().iter().next().is_none() || !cfg!(feature = "jit"));
    all
}

fn products(trits: &[i8], a: &[i8], n: usize, k: usize) -> Vec<i64> {
    let rows = a.chunks_exact(k);
    let dot = |w: &[i8], a: &[i8]| w.iter().zip(a).map(|(&w, &a)| i64::from(w) * i64::from(a)).sum();
    rows.flat_map(|a| trits.chunks_exact(k).map(move |w| dot(w, a))).inspect(|_| assert!(n > 0)).collect()
}

/// The products in f64, and for each product the sum of its terms' magnitudes.
fn float_products(trits: &[i8], scales: &Scaled, x: &[f32], k: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut products, mut magnitudes) = (Vec::new(), Vec::new());
    for x in x.chunks_exact(k) {
        for (row, w) in trits.chunks_exact(k).enumerate() {
            let term = |j: usize| f64::from(w[j]) * scales.at(row, j, k) * f64::from(x[j]);
            products.push((0..k).map(term).sum());
            magnitudes.push((0..k).map(|j| term(j).abs()).sum());
        }
    }
    (products, magnitudes)
}

/// The largest relative L2 distance of a row of results.
fn distance(found: &[f32], expected: &[f64], n: usize) -> f64 {
    let of_row = |(found, expected): (&[f32], &[f64])| {
        let difference: f64 = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        let size: f64 = expected.iter().map(|b| b * b).sum();
        (difference / size.max(f64::MIN_POSITIVE)).sqrt()
    };
    found.chunks_exact(n).zip(expected.chunks_exact(n)).map(of_row).fold(0.0, f64::max)
}

fn check(seed: u64, n: usize, k: usize, m: usize, columns: Option<usize>, rows: bool, zeros: bool) {
    let mut random = Random(seed * 2 + 1);
    let trits = if zeros { random.trits(n * k) } else { random.signs(n * k) };
    let scales = Scaled::new(&mut random, n, k, columns, rows);
    let (a, x) = (random.bytes(m * k), random.floats(m * k));
    let integers = products(&trits, &a, n, k);
    let (floats, magnitudes) = float_products(&trits, &scales, &x, k);
    // A group's integers have steps relative to its largest value, and any weights can be multiplied with that error.
    // So the largest value counts in the error that is allowed below.
    let largest = x.iter().fold(0f32, |max, x| max.max(x.abs()));
    let mut first: Option<[Vec<u32>; 3]> = None;
    // A few trits may all be signs by chance.
    for options in every_option(trits.contains(&0)) {
        let matrix = TernaryMatrix::pack_with(&trits, n, k, scales.borrowed(), &options).unwrap();
        let case = format!("n {n} k {k} m {m} columns {columns:?} {options:?}");
        assert_eq!(matrix.unpack(), trits, "{case}");
        match matrix.gemm_i8(&a) {
            Ok(found) => assert!(found.iter().map(|&y| i64::from(y)).eq(integers.iter().copied()), "{case}"),
            Err(error) => assert!(columns.is_some() && matches!(error, GemmError::GroupScales), "{case}"),
        }
        let [float, token, group] = [Precision::Float, Precision::Int8PerToken, Precision::Int8PerGroup]
            .map(|precision| matrix.gemm(&x, precision).unwrap());
        for ((y, expected), magnitude) in float.iter().zip(&floats).zip(&magnitudes) {
            let allowed = 1e-6 * (magnitude + f64::from(largest));
            assert!((f64::from(*y) - expected).abs() <= allowed, "{case}: {y}, expected {expected}");
        }
        // A few results alone may be close to zero, but not all of many results.
        if n >= 64 {
            let found = distance(&float, &floats, n);
            assert!(found <= 1e-6, "{case}: {found:e}");
        }
        // Every kernel and every code gives the same bits.
        let bits = [float, token, group].map(|y| y.iter().map(|y| y.to_bits()).collect());
        assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{case}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn products_are_those_of_the_reference(
        seed in 0u64..1 << 40,
        n in 1usize..260,
        k in 1usize..700,
        m in 1usize..21,
        columns in prop::option::of((1usize..9).prop_map(|c| c * 32)),
        rows in any::<bool>(),
        zeros in any::<bool>(),
    ) {
        check(seed, n, k, m, columns, rows, zeros);
    }
}

#[test]
fn sizes_at_the_edges_of_tiles_quads_groups_and_blocks() {
    for (n, k, m) in [
        (1, 1, 1),
        (79, 3, 2),
        (80, 4, 3),
        (81, 31, 4),
        (160, 32, 5),
        (161, 33, 7),
        (1, 128, 8),
        (83, 129, 16),
        (240, 1024, 33),
        (90, 300, 140),
    ] {
        for (columns, rows) in
            [(None, false), (None, true), (Some(32), false), (Some(128), false), (Some(1024), false)]
        {
            for zeros in [true, false] {
                check((n * k + m) as u64, n, k, m, columns, rows, zeros);
            }
        }
    }
}

/// The largest possible sums, for which intermediate sums of the codes wrap.
#[test]
fn the_longest_rows_of_the_largest_activations_are_exact() {
    // The longest rows that kernels take whole, rows longer than that where -128 is possible, and rows longer than any
    // kernel takes.
    for k in [32_768, 32_769, 33_000, 40_000] {
        let trits: Vec<i8> = (0..3 * k).map(|i| [1, -1, [1, -1][i % 2]][i / k]).collect();
        for a in [127i8, -128] {
            let activations: Vec<i8> = (0..k).map(|i| if i % 2 == 0 { a } else { 127 }).collect();
            let expected = products(&trits, &activations, 3, k);
            let same = vec![a; k];
            let all = i64::from(a) * k as i64;
            for options in every_option(false) {
                let matrix = TernaryMatrix::pack_with(&trits, 3, k, Scales::Tensor(1.0), &options).unwrap();
                let found = matrix.gemm_i8(&activations).unwrap();
                assert!(
                    found.iter().map(|&y| i64::from(y)).eq(expected.iter().copied()),
                    "{k} {a} {options:?}"
                );
                let found = matrix.gemm_i8(&same).unwrap();
                assert_eq!(
                    found[..2].iter().map(|&y| i64::from(y)).collect::<Vec<_>>(),
                    [all, -all],
                    "{k} {a} {options:?}"
                );
            }
        }
    }
}

/// Compares activations with one scale a token, as BitNet has them, with the same steps in f32.
#[test]
fn int8_by_token_is_what_bitnet_computes() {
    let (n, k, m) = (85, 200, 3);
    let mut random = Random(9);
    let trits = random.trits(n * k);
    let x = random.floats(m * k);
    for scales in [Scaled::Tensor(0.37), Scaled::Rows(random.scales(n))] {
        let matrix = TernaryMatrix::pack(&trits, n, k, scales.borrowed()).unwrap();
        let found = matrix.gemm(&x, Precision::Int8PerToken).unwrap();
        for (r, x) in x.chunks_exact(k).enumerate() {
            let s = 127.0 * (1.0 / x.iter().fold(1e-5f32, |max, x| max.max(x.abs())));
            let q: Vec<i8> = x.iter().map(|x| (x * s).round_ties_even().clamp(-128.0, 127.0) as i8).collect();
            for (row, sum) in products(&trits, &q, n, k).into_iter().enumerate() {
                let expected = sum as f32 / s * scales.at(row, 0, k) as f32;
                assert_eq!(found[r * n + row], expected, "row {r}, {row}");
            }
        }
    }
}

/// For every kind of scales, int8 activations are no further from floats than their rounding explains.
#[test]
fn int8_is_near_the_floats() {
    let (n, k, m) = (200, 640, 4);
    let mut random = Random(4);
    let trits = random.trits(n * k);
    let x: Vec<f32> = random.floats(m * k).iter().map(|x| x.clamp(-3.0, 3.0)).collect();
    for columns in [None, Some(64), Some(256)] {
        let scales = Scaled::new(&mut random, n, k, columns, true);
        let matrix = TernaryMatrix::pack(&trits, n, k, scales.borrowed()).unwrap();
        let (expected, _) = float_products(&trits, &scales, &x, k);
        for precision in [Precision::Int8PerToken, Precision::Int8PerGroup] {
            let found = distance(&matrix.gemm(&x, precision).unwrap(), &expected, n);
            assert!((1e-4..2e-2).contains(&found), "{precision:?} {columns:?}: {found:e}");
        }
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let (n, k) = (900, 512);
    let mut random = Random(6);
    let trits = random.trits(n * k);
    let matrix = TernaryMatrix::pack(&trits, n, k, Scales::Rows(&random.scales(n))).unwrap();
    for m in [1, 3, 40] {
        let (a, x) = (random.bytes(m * k), random.floats(m * k));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (matrix.gemm_i8(&a).unwrap(), matrix.gemm(&x, Precision::Float).unwrap()))
        };
        let expected = on(1);
        for threads in [2, 3, 8] {
            assert!(on(threads) == expected, "{m} rows, {threads} threads");
        }
    }
}

#[test]
fn timing_variants_changes_no_result() {
    let (n, k) = (800, 1024);
    let mut random = Random(3);
    let trits = random.trits(n * k);
    let x = random.floats(k);
    let pack = |tune| {
        let options = PackOptions { tune, ..PackOptions::default() };
        TernaryMatrix::pack_with(&trits, n, k, Scales::Tensor(1.0), &options).unwrap()
    };
    let (tuned, first) = (pack(true), pack(false));
    for precision in [Precision::Float, Precision::Int8PerToken] {
        assert_eq!(tuned.gemm(&x, precision).unwrap(), first.gemm(&x, precision).unwrap());
    }
    assert_eq!(tuned.kernels().target, first.kernels().target);
}

#[test]
fn rows_that_are_no_numbers_give_none() {
    let k = 300;
    let matrix = TernaryMatrix::pack(&vec![1; 2 * k], 2, k, Scales::Tensor(1.0)).unwrap();
    for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![1.0; 2 * k];
        x[k + 7] = strange;
        for precision in [Precision::Float, Precision::Int8PerToken, Precision::Int8PerGroup] {
            let y = matrix.gemm(&x, precision).unwrap();
            assert!(
                y[..2].iter().all(|y| y.is_finite()) && y[2..].iter().all(|y| y.is_nan()),
                "{precision:?} {y:?}"
            );
        }
    }
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let (n, k) = (85, 64);
    for code in Code::ALL {
        let mut random = Random(8);
        let trits = if code.has_zero() { random.trits(n * k) } else { random.signs(n * k) };
        let options = PackOptions { code: Some(code), ..PackOptions::default() };
        let matrix = TernaryMatrix::pack_with(&trits, n, k, Scales::Tensor(2.0), &options).unwrap();
        let tiles = n.div_ceil(code.tile_rows());
        let mut expected = vec![0; tiles * trit_gemm::format::tile::bytes(k)];
        let tiles = expected.chunks_exact_mut(trit_gemm::format::tile::bytes(k));
        for (tile, rows) in tiles.zip(trits.chunks(code.tile_rows() * k)) {
            trit_gemm::format::tile::encode(rows, k, code, tile).unwrap();
        }
        assert_eq!((matrix.bytes(), matrix.code()), (&expected[..], code));
        let canonical: Vec<u8> = expected.iter().map(|&byte| code.load(byte).unwrap()).collect();
        assert_eq!(matrix.canonical(), canonical);
    }
}

#[test]
fn a_matrix_without_zeros_takes_one_bit_a_weight() {
    let (n, k) = (256, 1024);
    let signs = Random(2).signs(n * k);
    let pack = |trits: &[i8], code| {
        let options = PackOptions { code, ..PackOptions::default() };
        TernaryMatrix::pack_with(trits, n, k, Scales::Tensor(1.0), &options)
    };
    let matrix = pack(&signs, None).unwrap();
    assert_eq!((matrix.code(), matrix.bytes().len()), (Code::Binary, n * k / 8));
    let mut trits = signs.clone();
    trits[3 * k + 7] = 0;
    assert_ne!(pack(&trits, None).unwrap().code(), Code::Binary);
    let refused = pack(&trits, Some(Code::Binary)).err().unwrap();
    assert!(matches!(refused, GemmError::Trit { row: 3, column: 7, value: 0 }), "{refused}");
}

#[test]
fn kernels_are_reported() {
    let pack = |kernels, code| {
        let options = PackOptions { kernels, code, tune: false };
        TernaryMatrix::pack_with(&[1, 0, -1, 1], 2, 2, Scales::Tensor(1.0), &options)
    };
    let portable = pack(KernelRequest::Portable, None).unwrap();
    assert_eq!((portable.kernels().to_string().as_str(), portable.kernels().names.len()), ("portable", 0));
    let best = CpuTiers::detect().iter().max();
    if let (Some(best), true) = (best, cfg!(feature = "jit")) {
        let auto = pack(KernelRequest::Auto, None).unwrap();
        assert_eq!((auto.kernels().target, auto.kernels().to_string()), (Some(best), format!("jit {best}")));
        assert!(auto.kernels().names.iter().all(|name| name.contains("_k32_")));
    }
    for target in Target::ALL {
        if !CpuTiers::detect().contains(target) {
            let error = pack(KernelRequest::Jit(target), None).err().unwrap();
            assert!(matches!(error, GemmError::Target(_) | GemmError::NoJit), "{error}");
        }
    }
    if cfg!(feature = "jit") && CpuTiers::detect().contains(Target::X86_64V2) {
        let error = pack(KernelRequest::Jit(Target::X86_64V2), Some(Code::Spread)).err().unwrap();
        assert!(
            error.to_string().contains("x86-64-v2 has no kernels for 32 columns stored as spread"),
            "{error}"
        );
    }
}
