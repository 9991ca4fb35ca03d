//! Compares attention by chunks with attention in f64, one head at a time, for every division of the work, on every
//! tier, for every cache type.

use super::*;
use crate::testing::floats;
use half::f16;

/// The cache of one KV head with room for `positions`.
struct Cache<T> {
    keys: Vec<T>,
    values: Vec<T>,
    scales: [Vec<f32>; 2],
    head_dim: usize,
}

impl<T: KvElement> Cache<T> {
    fn new(positions: usize, head_dim: usize) -> Cache<T> {
        let positions = padded_positions(positions);
        let scales = vec![f32::NAN; if T::SCALED { positions } else { 0 }];
        let (keys, values) = (
            vec![T::default(); positions * key_width::<T>(head_dim)],
            vec![T::default(); positions * value_width(head_dim)],
        );
        Cache { keys, values, scales: [scales.clone(), scales], head_dim }
    }

    fn view(&self) -> KvHead<'_, T> {
        KvHead::new(&self.keys, &self.values, &self.scales[0], &self.scales[1], self.head_dim)
    }

    fn append(&mut self, position: usize, k: &[f32], v: &[f32]) {
        let [key_scales, value_scales] = &mut self.scales;
        let mut head =
            KvHeadMut::new(&mut self.keys, &mut self.values, key_scales, value_scales, self.head_dim);
        head.append(position, k.len() / self.head_dim, k, v, self.head_dim);
    }

    /// Keys and values as they were stored, `[positions, head_dim]`.
    fn stored(&self, positions: usize) -> [Vec<f32>; 2] {
        let dim = self.head_dim;
        let wide = |x: &[T]| {
            let mut out = vec![0.0; x.len()];
            tile::widen(Tier::best(), x, &mut out);
            out
        };
        let (keys, values) = (wide(&self.keys), wide(&self.values));
        let scale = |of: usize, p: usize| if T::SCALED { self.scales[of][p] } else { 1.0 };
        let at = |p: usize, d: usize| keys[key_place::<T>(p, d, dim)] * scale(0, p);
        let each = |f: &dyn Fn(usize, usize) -> f32| {
            (0..positions).flat_map(|p| (0..dim).map(move |d| (p, d))).map(|(p, d)| f(p, d)).collect()
        };
        [each(&at), each(&|p, d| values[value_place::<T>(p, d, dim)] * scale(1, p))]
    }
}

/// A case with the last `rows` rows of `positions`. Their heads stand beside others in rows of `stride`.
struct Case {
    q: Vec<f32>,
    rows: usize,
    positions: usize,
    group: usize,
    dim: usize,
    window: usize,
}

const SCALE: f32 = 0.35;

impl Case {
    fn new(rows: usize, positions: usize, group: usize, dim: usize) -> Case {
        Case { q: floats(rows * (group * dim + 5), 5), rows, positions, group, dim, window: usize::MAX }
    }

    fn queries(&self) -> Queries<'_> {
        let Case { rows, group, dim: head_dim, window, .. } = *self;
        let visible = self.positions + 1 - rows;
        let stride = group * head_dim + 5;
        Queries { q: &self.q, stride, rows, group, head_dim, visible, window, scale: SCALE }
    }

    fn cache<T: KvElement>(&self) -> Cache<T> {
        let mut cache = Cache::new(self.positions, self.dim);
        let n = self.positions * self.dim;
        cache.append(0, &floats(n, 6), &floats(n, 7));
        cache
    }
}

/// The results of all rows at once, `[rows, group, head_dim]`.
fn together<T: KvElement>(tier: Tier, queries: &Queries, cache: &KvHead<T>) -> Vec<f32> {
    let width = queries.group * queries.head_dim;
    let mut out = vec![f32::NAN; queries.rows * width];
    let mut outs: Vec<&mut [f32]> = out.chunks_mut(width).collect();
    attend_rows_on(tier, queries, &|chunk| cache.chunk(chunk), &mut AttendScratch::default(), &mut outs);
    out
}

/// The results from partial results of each chunk, the last chunk first, combined for each row.
fn in_chunks<T: KvElement>(tier: Tier, queries: &Queries, cache: &KvHead<T>) -> Vec<f32> {
    let mut partials = vec![f32::NAN; queries.chunks().len() * queries.partial_len()];
    let mut scratch = AttendScratch::default();
    let chunks = queries.chunks().zip(partials.chunks_mut(queries.partial_len()));
    for (chunk, out) in chunks.collect::<Vec<_>>().into_iter().rev() {
        partial_on(tier, queries, &cache.chunk(chunk), chunk, &mut scratch, out);
    }
    let mut out = vec![f32::NAN; queries.rows * queries.group * queries.head_dim];
    for (row, out) in out.chunks_mut(queries.group * queries.head_dim).enumerate() {
        combine_on(tier, queries, row, &partials, out);
    }
    out
}

/// Checks that every division of the work gives the same bits. Tiers in `whole` compute all rows, and others only the
/// last ones.
fn check_divisions<T: KvElement>(case: &Case, whole: &[Tier]) -> Vec<f32> {
    let (queries, cache) = (case.queries(), case.cache::<T>());
    let view = cache.view();
    let name = format!(
        "{} rows={} positions={} group={} dim={}",
        std::any::type_name::<T>(),
        case.rows,
        case.positions,
        case.group,
        case.dim
    );
    let ours = together(Tier::best(), &queries, &view);
    let width = case.group * case.dim;
    for tier in Tier::supported() {
        let rows = if whole.iter().any(|t| std::mem::discriminant(t) == std::mem::discriminant(&tier)) {
            0..case.rows
        } else {
            case.rows - case.rows.min(3)..case.rows
        };
        let (part, expected) = (queries.part(rows.clone()), &ours[rows.start * width..]);
        assert!(together(tier, &part, &view) == expected, "{tier:?}, other rows: {name}");
        assert!(in_chunks(tier, &part, &view) == expected, "{tier:?}, in chunks: {name}");
        let last = queries.part(case.rows - 1..case.rows);
        let expected = &ours[(case.rows - 1) * width..];
        assert!(together(tier, &last, &view) == expected, "{tier:?}, a row alone: {name}");
        for head in 0..case.group {
            let alone = Queries { q: &last.q[head * case.dim..], group: 1, ..last };
            assert!(
                in_chunks(tier, &alone, &view) == expected[head * case.dim..][..case.dim],
                "{tier:?}, a head alone: {name}"
            );
        }
    }
    ours
}

/// Compares with the f64 reference on the values that the cache holds.
fn check<T: KvElement>(case: &Case) {
    let ours = check_divisions::<T>(case, &Tier::supported());
    let [keys, values] = case.cache::<T>().stored(case.positions);
    let queries = case.queries();
    for (pair, ours) in ours.chunks(case.dim).enumerate() {
        let end = queries.visible + pair / case.group;
        let seen = end.saturating_sub(case.window) * case.dim..end * case.dim;
        let expected = reference(queries.head(pair), &keys[seen.clone()], &values[seen], SCALE);
        for (y, e) in ours.iter().zip(expected) {
            // Values are below 1 and weights sum to 1; scores reach 30 and are off by 1e-6 of that.
            assert!((y - e).abs() < 3e-5, "{} {} {}: {y} {e}", case.positions, case.group, case.dim);
        }
    }
}

fn check_all(case: &Case) {
    check::<f32>(case);
    check::<f16>(case);
    check::<i8>(case);
}

#[test]
fn matches_the_reference_however_the_work_is_divided() {
    eprintln!("tiers on this CPU: {:?}", Tier::supported());
    for (rows, positions, group, dim) in [
        (1, 1, 1, 32),
        (1, 2, 2, 1),
        (7, 7, 2, 32),
        (3, 16, 8, 48),
        (5, 33, 5, 64),
        (2, 65, 3, 100),
        (1, 255, 4, 128),
        (2, 257, 6, 80),
        (9, 260, 7, 20),
        (1, 1000, 4, 64),
    ] {
        check_all(&Case::new(rows, positions, group, dim));
    }
}

/// With so many rows that they take several tiles, across the border of a chunk, and from the very first position on.
#[test]
fn blocks_of_rows_are_what_each_row_is_alone() {
    let fast: Vec<Tier> = Tier::supported().pop().into_iter().collect();
    for (rows, positions, group, dim) in [(12, 262, 4, 128), (70, 70, 1, 64), (8, 514, 5, 256)] {
        let case = Case::new(rows, positions, group, dim);
        check_divisions::<f32>(&case, &fast);
        check_divisions::<f16>(&case, &fast);
        check_divisions::<i8>(&case, &fast);
    }
}

#[test]
fn windows_hide_what_is_before_them_however_the_work_is_divided() {
    for (rows, positions, group, dim, window) in [
        (1, 9, 1, 32, 1),
        (7, 70, 2, 32, 3),
        (40, 300, 1, 48, 20),
        (5, 600, 4, 64, 256),
        (3, 515, 5, 32, 257),
        (9, 700, 3, 16, 130),
        (4, 1030, 2, 100, 512),
        (6, 30, 2, 64, 4096),
    ] {
        check_all(&Case { window, ..Case::new(rows, positions, group, dim) });
    }
}

/// Positions outside a window do not change a row, even if they hold NaN. A window that hides nothing is like no
/// window.
#[test]
fn the_past_before_a_window_does_not_leak() {
    fn check<T: KvElement>() {
        let case = Case { window: 40, ..Case::new(20, 280, 3, 32) };
        let expected = together(Tier::best(), &case.queries(), &case.cache::<T>().view());
        let mut cache = case.cache::<T>();
        // The first row sees 221..=260.
        cache.append(0, &[f32::NAN; 221 * 32], &[f32::NAN; 221 * 32]);
        assert_eq!(together(Tier::best(), &case.queries(), &cache.view()), expected);
        assert_eq!(in_chunks(Tier::best(), &case.queries(), &cache.view()), expected);
        cache.append(221, &[f32::NAN; 32], &[f32::NAN; 32]);
        let out = together(Tier::best(), &case.queries(), &cache.view());
        assert!(out[..96].iter().all(|y| y.is_nan()) && out[96..] == expected[96..]);
    }
    check::<f16>();
    check::<i8>();
    let wide = Case { window: 280, ..Case::new(20, 280, 3, 32) };
    let none = Case::new(20, 280, 3, 32);
    assert_eq!(check_divisions::<f32>(&wide, &[]), check_divisions::<f32>(&none, &[]));
}

#[test]
fn the_first_row_may_see_nothing() {
    let case = Case::new(2, 1, 2, 16);
    let cache = case.cache::<f32>();
    let queries = Queries { visible: 0, ..case.queries() };
    let out = together(Tier::best(), &queries, &cache.view());
    assert_eq!(out[..32], [0.0; 32]);
    assert_eq!(out[32..48], cache.values[..16]);
    assert_eq!(in_chunks(Tier::best(), &queries, &cache.view()), out);
    let none = Queries { rows: 0, ..queries };
    assert_eq!((none.chunks().len(), together(Tier::best(), &none, &cache.view())), (0, vec![]));
}

/// Positions after a row's own, in its block, its chunk and its tile, do not change the row.
#[test]
fn the_future_does_not_leak() {
    let case = Case::new(6, 270, 3, 32);
    let expected = together(Tier::best(), &case.queries(), &case.cache::<f16>().view());
    let mut cache = case.cache::<f16>();
    for strange in [f32::NAN, f32::INFINITY] {
        cache.append(268, &[strange; 64], &[strange; 64]);
        let out = together(Tier::best(), &case.queries(), &cache.view());
        let (before, after) = out.split_at(4 * 96);
        assert_eq!(before, &expected[..4 * 96]);
        assert!(after.iter().all(|y| y.is_nan()));
    }
}

#[test]
fn scores_of_any_size_do_not_overflow_and_strange_ones_are_not_hidden() {
    let mut cache = Cache::<f32>::new(600, 8);
    let mut run = |strange: &[(usize, f32)]| {
        let mut k = vec![-1e4; 600 * 8];
        for (p, x) in [(3, 1e4), (500, 1e4)].iter().chain(strange) {
            k[p * 8..][..8].fill(*x);
        }
        cache.append(0, &k, &(0..600 * 8).map(|i| (i / 8) as f32).collect::<Vec<f32>>());
        let q = [1e4; 8];
        let queries = Queries {
            q: &q,
            stride: 8,
            rows: 1,
            group: 1,
            head_dim: 8,
            visible: 600,
            window: 600,
            scale: 1.0,
        };
        let out = together(Tier::best(), &queries, &cache.view());
        let chunks = in_chunks(Tier::best(), &queries, &cache.view());
        assert!(out.iter().zip(&chunks).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()));
        out
    };
    assert_eq!(run(&[]), [251.5; 8]);
    for x in [f32::NAN, f32::INFINITY] {
        for p in [0, 255, 300, 599] {
            assert!(run(&[(p, x)]).iter().all(|y| y.is_nan()), "{x} at {p}");
        }
    }
    // A score of minus infinity has no weight, even where a chunk has no other scores.
    let last: Vec<(usize, f32)> = (512..600).map(|p| (p, f32::NEG_INFINITY)).collect();
    assert_eq!(run(&last), [251.5; 8]);
    let all: Vec<(usize, f32)> = (0..600).map(|p| (p, f32::NEG_INFINITY)).collect();
    assert!(run(&all).iter().all(|y| y.is_nan()));
}

/// Any number of rows, written one after the other or together, come to stand where they belong, and nothing else
/// changes.
#[test]
fn appending_in_pieces_is_appending_at_once() {
    fn check<T: KvElement + PartialEq + std::fmt::Debug>() {
        let (dim, positions) = (72, 53);
        let (k, v) = (floats(positions * dim, 1), floats(positions * dim, 2));
        let mut once = Cache::<T>::new(positions, dim);
        once.append(0, &k, &v);
        let mut pieces = Cache::<T>::new(positions, dim);
        let mut from = 0;
        for n in [1, 2, 17, 12, 21] {
            pieces.append(from, &k[from * dim..][..n * dim], &v[from * dim..][..n * dim]);
            from += n;
        }
        assert_eq!(from, positions);
        assert_eq!((&pieces.keys, &pieces.values), (&once.keys, &once.values));
        assert_eq!(
            pieces.scales.map(|s| s.into_iter().map(f32::to_bits).collect::<Vec<u32>>()),
            once.scales.clone().map(|s| s.into_iter().map(f32::to_bits).collect::<Vec<u32>>())
        );
        let mut row = vec![T::default(); dim];
        for p in 0..positions {
            T::narrow(&k[p * dim..][..dim], &mut row);
            for (d, x) in row.iter().enumerate() {
                assert_eq!(once.keys[key_place::<T>(p, d, dim)], *x);
            }
            T::narrow(&v[p * dim..][..dim], &mut row);
            for (d, x) in row.iter().enumerate() {
                assert_eq!(once.values[value_place::<T>(p, d, dim)], *x);
            }
        }
    }
    check::<f32>();
    check::<f16>();
    check::<i8>();
}

#[test]
fn f16_is_rounded_to_nearest_even() {
    let x = [1.0, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 65504.0, 1e6, -1e-8, 6e-8, 0.333_333_34, -2.5];
    let mut row = [f16::ZERO; 9];
    assert_eq!(KvElement::narrow(&x, &mut row), 1.0);
    assert_eq!(row, x.map(f16::from_f32));
    assert_eq!(row[1].to_f32(), 1.0);
}

#[test]
fn int8_is_off_by_half_a_step_at_most() {
    for (seed, magnitude) in [(1, 1e-30f32), (2, 1.0), (3, 3e37)] {
        let x: Vec<f32> = floats(128, seed).iter().map(|x| x * magnitude).collect();
        let max = x.iter().fold(0f32, |max, x| max.max(x.abs()));
        let mut row = [0; 128];
        let scale = i8::narrow(&x, &mut row);
        assert!((scale * 127.0 - max).abs() <= 4.0 * f32::EPSILON * max);
        for (x, q) in x.iter().zip(row) {
            assert!((x - scale * f32::from(q)).abs() <= 0.500_1 * scale, "{x} {q} {scale}");
        }
    }
    let mut row = [9i8; 4];
    assert_eq!((i8::narrow(&[0.0; 4], &mut row), row), (0.0, [0; 4]));
    assert_eq!((i8::narrow(&[1e-40; 4], &mut row), row), (0.0, [0; 4]));
    for strange in [f32::NAN, f32::INFINITY] {
        let scale = i8::narrow(&[1.0, strange, 0.0, 2.0], &mut row);
        assert!((scale * f32::from(row[0])).is_nan() && row == [0; 4]);
    }
}

/// Attention over int8 differs from attention over f32 by the steps of the values, and by what the steps of the keys
/// change in the weights.
#[test]
fn int8_attention_is_close_to_that_of_f32() {
    let case = Case::new(4, 700, 4, 128);
    let exact = together(Tier::best(), &case.queries(), &case.cache::<f32>().view());
    let ours = together(Tier::best(), &case.queries(), &case.cache::<i8>().view());
    // A value is off by 1/254 at most. A score is off by about SCALE / 254 * sqrt(128 / 9), and its weight in
    // proportion.
    let worst = exact.iter().zip(&ours).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 0.0 && worst < 0.01, "{worst}");
}

/// The longest heads for each size of integers, with the largest of them: sums of products do not overflow.
#[test]
fn integers_of_the_longest_heads_do_not_overflow() {
    for dim in [512, 516, 1024] {
        let q = vec![3.0; dim];
        let keys: Vec<f32> = (0..40).flat_map(|p| vec![1.0 - p as f32 / 20.0; dim]).collect();
        let values: Vec<f32> = (0..40).flat_map(|p| vec![p as f32; dim]).collect();
        let mut cache = Cache::<i8>::new(40, dim);
        cache.append(0, &keys, &values);
        let scale = 1.0 / dim as f32;
        let queries =
            Queries { q: &q, stride: dim, rows: 1, group: 1, head_dim: dim, visible: 40, window: 40, scale };
        let expected = reference(&q, &keys, &values, scale);
        for tier in Tier::supported() {
            for (y, e) in together(tier, &queries, &cache.view()).iter().zip(&expected) {
                assert!((y - e).abs() < 1e-4 * e.abs(), "{tier:?} {dim}: {y} {e}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "whole blocks")]
fn a_cache_is_whole_blocks() {
    KvHead::<f32>::new(&[0.0; 127 * 16], &[0.0; 127 * 16], &[], &[], 16);
}

#[test]
#[should_panic(expected = "want 128 scales")]
fn int8_wants_scales() {
    KvHead::<i8>::new(&[0; 2048], &[0; 2048], &[], &[], 16);
}

/// `holds` says beforehand whether a finite value would become infinite as an element. Values that are infinite already
/// do not count.
#[test]
fn elements_hold_what_stays_finite() {
    let mut narrow = [f16::ZERO];
    for x in [0.0, 1.0, 65504.0, 65519.99, 65520.0, 65536.0, 1e30, f32::MAX] {
        for x in [x, -x] {
            f16::narrow(&[x], &mut narrow);
            for len in [1, 7, 16, 100] {
                for at in [0, len / 2, len - 1] {
                    let mut row = vec![3.0; len];
                    row[at] = x;
                    assert_eq!(f16::holds(&row), narrow[0].is_finite(), "{x} at {at} of {len}");
                    assert!(f32::holds(&row) && i8::holds(&row));
                }
            }
        }
    }
    assert!(f16::holds(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE]));
    assert!(f16::holds(&[]));
    // Integers with a scale hold even the largest floats.
    for x in [65536.0, 1e30, 1e38, f32::MAX] {
        let mut q = [0; 3];
        let scale = i8::narrow(&[x, -x / 4.0, 0.0], &mut q);
        assert!(scale.is_finite() && q == [127, -32, 0], "{x}: {scale} {q:?}");
        assert!((scale / x * 127.0 - 1.0).abs() < 1e-5, "{x}");
    }
}
