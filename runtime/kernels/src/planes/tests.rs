//! Bounds hold, selections keep the largest, and every tier gives the same bits.

use super::scan::tiers;
use super::*;
use crate::head::dot_rows;
use crate::isa::Tier;
use crate::testing::{Random, floats};
use half::bf16;
use trit_format::plan::DType;
use trit_format::planes::{decode_row, encode_row};

/// A table as bf16 bytes, with its planes.
struct Table {
    layout: Layout,
    bytes: Vec<u8>,
    planes: Vec<u8>,
}

impl Table {
    /// A table of `values`, `[rows, hidden]`, rounded to bf16.
    fn new(hidden: usize, values: &[f32]) -> Table {
        let layout = Layout::new((values.len() / hidden) as u64, hidden as u64).unwrap();
        let mut planes = vec![0; layout.bytes() as usize];
        let mut bytes = Vec::new();
        for (r, row) in values.chunks(hidden).enumerate() {
            let row: Vec<bf16> = row.iter().map(|&w| bf16::from_f32(w)).collect();
            bytes.extend(row.iter().flat_map(|w| w.to_le_bytes()));
            let row: Vec<f32> = row.iter().map(|w| w.to_f32()).collect();
            let (mut high, mut low) = (vec![0; layout.plane_row_bytes()], vec![0; layout.plane_row_bytes()]);
            let mut scales = vec![0; layout.blocks()];
            let record = encode_row(layout, &row, &mut high, &mut low, &mut scales).unwrap();
            let mut put = |start: u64, part: &[u8]| {
                planes[start as usize + r * part.len()..][..part.len()].copy_from_slice(part);
            };
            put(layout.high().start, &high);
            put(layout.low().start, &low);
            put(layout.scales().start, &scales);
            put(layout.records().start, &record.to_bytes());
        }
        Table { layout, bytes, planes }
    }

    fn planes(&self) -> Planes<'_> {
        Planes::new(&self.planes, self.layout)
    }

    fn exact(&self, h: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; self.layout.rows()];
        dot_rows(&self.bytes, DType::Bf16, h.len(), 0..out.len(), h, &mut out);
        out
    }

    /// Approximations and bounds of all rows, scanned on a tier, for each hidden state.
    fn scanned(&self, tier: Tier, full: bool, hidden: &[&Hidden]) -> Vec<(Vec<f32>, Vec<f32>)> {
        let n = self.layout.rows();
        let mut out = vec![(vec![0.0; n], vec![0.0; n]); hidden.len()];
        let (mut approx, mut bound): (Vec<&mut [f32]>, Vec<&mut [f32]>) =
            out.iter_mut().map(|(a, b)| (&mut a[..], &mut b[..])).unzip();
        tiers::on(tier, full, &self.planes(), 0..n, hidden, &mut approx, &mut bound);
        out
    }
}

fn prepared(layout: Layout, h: &[f32]) -> Hidden {
    let mut hidden = Hidden::new(layout);
    assert!(hidden.prepare(h));
    hidden
}

/// The k largest rows: larger values first, then smaller ids.
fn top(k: usize, ids: impl Iterator<Item = u32>, logits: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    ids.truncate(k);
    ids
}

/// The shortlist after a scan in shares and with tighter bounds, as a runtime does it.
fn shortlist(table: &Table, hidden: &Hidden, k: usize, shares: usize, full: bool) -> Vec<u32> {
    let (n, planes) = (table.layout.rows(), table.planes());
    let ranges: Vec<_> = (0..shares).map(|s| n * s / shares..n * (s + 1) / shares).collect();
    let mut scans = Vec::new();
    let mut all = TopLower::new(k);
    for rows in &ranges {
        let (mut approx, mut bound) = (vec![0.0; rows.len()], vec![0.0; rows.len()]);
        let scan = if full { scan_full } else { scan_high };
        scan(&planes, rows.clone(), &[hidden], &mut [&mut approx], &mut [&mut bound]);
        let mut share = TopLower::new(k);
        share.take(&approx, &bound);
        all.merge(&share);
        scans.push((approx, bound));
    }
    let mut ids = Vec::new();
    for ((approx, bound), rows) in scans.iter().zip(&ranges) {
        extend_shortlist(all.threshold(), approx, bound, rows.start as u32, &mut ids);
    }
    let (mut approx, mut bound) = (vec![0.0; ids.len()], vec![0.0; ids.len()]);
    tighten_bounds(&planes, &ids, hidden, &mut approx, &mut bound);
    all.reset(k);
    all.take(&approx, &bound);
    narrow_shortlist(all.threshold(), &approx, &bound, &mut ids);
    ids
}

fn gaussian(n: usize, seed: u64) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = (0..6).map(|i| floats(n, seed * 6 + i + 1)).collect();
    (0..n).map(|i| parts.iter().map(|p| p[i]).sum::<f32>() / 1.414).collect()
}

/// Tables of all kinds, 64 rows each, by name.
fn tables(hidden: usize) -> Vec<(&'static str, Table)> {
    let rows = 64;
    let g = gaussian(rows * hidden, hidden as u64);
    let mut out = vec![("gaussian", g.clone())];
    let mut named = |name, change: &dyn Fn(usize, f32) -> f32| {
        out.push((name, g.iter().enumerate().map(|(i, &w)| change(i, w)).collect()));
    };
    named("trained", &|i, w| w * 0.02 * (1.0 + 20.0 * f32::from(u8::from(i % hidden % 97 == 5))));
    named("huge outliers", &|i, w| if i % 613 == 7 { w * 1e20 } else { w });
    named("zero blocks", &|i, w| if i / 16 % 3 == 0 { 0.0 } else { w });
    named("zero rows", &|i, w| if (i / hidden).is_multiple_of(2) { 0.0 } else { w });
    named("denormals", &|_, w| w * 1e-39);
    named("small", &|_, w| w * 1e-30);
    named("large", &|_, w| w * 1e25);
    named("largest", &|_, w| w.signum() * bf16::MAX.to_f32());
    named("steep", &|i, w| w * (-((i % hidden) as f32) / 8.0).exp2());
    named("one sign", &|_, w| w.abs());
    out.into_iter().map(|(name, values)| (name, Table::new(hidden, &values))).collect()
}

fn states(hidden: usize) -> Vec<(&'static str, Vec<f32>)> {
    let g = gaussian(hidden, 99);
    let with = |change: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
        g.iter().enumerate().map(|(i, &h)| change(i, h)).collect()
    };
    vec![
        ("gaussian", g.clone()),
        ("one outlier", with(&|i, h| if i == hidden / 3 { 3000.0 } else { h })),
        ("small", with(&|_, h| h * 1e-17)),
        ("large", with(&|_, h| h * 1e17)),
        ("one sign", with(&|_, h| h.abs())),
        ("mostly zero", with(&|i, h| if i.is_multiple_of(40) { h } else { 0.0 })),
        ("mostly denormal", with(&|i, h| if i == 0 { 1.0 } else { h * 1e-39 })),
    ]
}

#[test]
fn bounds_hold_on_every_tier_for_tables_and_states_of_all_kinds() {
    eprintln!("tiers on this CPU: {:?}", Tier::supported());
    for hidden in [1, 100, 384, 512, 640, 2560] {
        let states = states(hidden);
        for (kind, table) in tables(hidden) {
            for (state, h) in &states {
                let exact = table.exact(h);
                let prepared = prepared(table.layout, h);
                for full in [false, true] {
                    let mut first = None;
                    for tier in Tier::supported() {
                        let found = table.scanned(tier, full, &[&prepared]);
                        let (approx, bound) = &found[0];
                        for (row, (&a, &b)) in approx.iter().zip(bound).enumerate() {
                            let e = exact[row];
                            // Compared in f32, as a selection does it; an infinite or NaN bound rules nothing out.
                            let holds = !(a - b > e || a + b < e) && (e.is_finite() || !(a + b).is_finite());
                            assert!(holds, "{tier:?} {hidden} {kind} {state} {full} {row}: {e} {a} {b}");
                        }
                        // Every tier gives the same bits, which is more than a bound.
                        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        let found = (bits(approx), bits(bound));
                        assert!(
                            *first.get_or_insert_with(|| found.clone()) == found,
                            "{tier:?} {kind} {state}"
                        );
                    }
                }
            }
        }
    }
}

/// Approximations are the products of the decoded steps. These are exact integers, so the order of sums does not
/// matter.
#[test]
fn approximations_are_the_products_of_decoded_rows() {
    for hidden in [8, 384, 700, 2560] {
        let table = Table::new(hidden, &gaussian(16 * hidden, 3));
        let (layout, planes) = (table.layout, table.planes());
        let h = gaussian(hidden, 4);
        let state = prepared(layout, &h);
        for full in [false, true] {
            let (approx, bound) = table.scanned(Tier::best(), full, &[&state]).remove(0);
            for row in 0..16 {
                let part = |all: &[[u8; VECTOR]]| all[row * planes.vectors..][..planes.vectors].concat();
                let scales = planes.scales[row * planes.chunks..][..planes.chunks].concat();
                let record = trit_format::planes::Row::from_bytes(&planes.records[row]);
                let (s, q) =
                    decode_row(layout, record, &part(planes.high), &part(planes.low), &scales).unwrap();
                let (mut product, mut magnitude) = (0.0, 0.0);
                for block in 0..layout.blocks() {
                    for i in layout.columns(block) {
                        let step = if full { f64::from(q[i]) } else { f64::from(q[i] & -16) + 7.5 };
                        let g = (f64::from(h[i]) / f64::from(state.t)).round();
                        product += s[block] * step * g * f64::from(state.t);
                        magnitude += (s[block] * step * g * f64::from(state.t)).abs();
                    }
                }
                let error = (f64::from(approx[row]) - product).abs();
                assert!(error <= magnitude * 2e-6, "{hidden} {full} {row}: {error} {magnitude}");
                assert!(bound[row] > 0.0 && f64::from(bound[row]) < magnitude);
            }
        }
    }
}

#[test]
fn a_bound_is_hardly_wider_than_cauchy_schwarz() {
    let hidden = 2560;
    let (table, h) = (Table::new(hidden, &gaussian(64 * hidden, 5)), gaussian(hidden, 6));
    let planes = table.planes();
    let state = prepared(table.layout, &h);
    let norms: Vec<f64> = (0..table.layout.blocks())
        .map(|b| h[table.layout.columns(b)].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt())
        .collect();
    for (full, most) in [(false, 1.02), (true, 1.05)] {
        let (_, bound) = table.scanned(Tier::best(), full, &[&state]).remove(0);
        for row in 0..64 {
            let record = trit_format::planes::Row::from_bytes(&planes.records[row]);
            let scales = planes.scales[row * planes.chunks..][..planes.chunks].as_flattened();
            let sum: f64 = scales.iter().zip(&norms).map(|(s, u)| f64::from(*s) * u).sum();
            let c = if full { record.c_full } else { record.c_high };
            let ratio = f64::from(bound[row]) / (f64::from(record.scale) * f64::from(c) * sum);
            assert!((1.0..most).contains(&ratio), "{full} {ratio}");
        }
    }
}

#[test]
fn results_do_not_depend_on_what_is_computed_together() {
    // More rows than are multiplied together, and a chunk that is not whole.
    let (hidden, rows) = (700, 70);
    let sign = |i: u64| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    let state = |m| gaussian(hidden, 20 + m);
    // Rows and states of one value: all steps and all digits are the largest of either sign.
    let largest: Vec<f32> = (0..rows as u64).flat_map(|r| vec![sign(r); hidden]).collect();
    let cases: [(Vec<f32>, Vec<Vec<f32>>); 2] = [
        (gaussian(rows * hidden, 7), (0..9).map(state).collect()),
        (largest, (0..9).map(|m| if m < 7 { vec![sign(m); hidden] } else { state(m) }).collect()),
    ];
    for (values, states) in cases {
        let table = Table::new(hidden, &values);
        let states: Vec<Hidden> = states.iter().map(|h| prepared(table.layout, h)).collect();
        let all: Vec<&Hidden> = states.iter().collect();
        for full in [false, true] {
            let portable = Tier::supported()[0];
            let alone: Vec<_> = all.iter().map(|h| table.scanned(portable, full, &[h]).remove(0)).collect();
            for tier in Tier::supported() {
                for m in 1..=all.len() {
                    assert_eq!(table.scanned(tier, full, &all[..m]), alone[..m], "{tier:?} {full} {m}");
                }
            }
        }
    }
}

#[test]
fn tightened_bounds_are_those_of_a_scan_of_both_planes() {
    let hidden = 700;
    let table = Table::new(hidden, &gaussian(50 * hidden, 7));
    let state = prepared(table.layout, &gaussian(hidden, 22));
    let ids = [49, 0, 17, 17, 3];
    let (mut approx, mut bound) = ([0.0; 5], [0.0; 5]);
    tighten_bounds(&table.planes(), &ids, &state, &mut approx, &mut bound);
    let (a, b) = table.scanned(Tier::best(), true, &[&state]).remove(0);
    assert_eq!(approx, ids.map(|id| a[id as usize]));
    assert_eq!(bound, ids.map(|id| b[id as usize]));
    tighten_bounds(&table.planes(), &[], &state, &mut [], &mut []);
}

/// On every tier, for odd numbers of rows, for rows shorter than a chunk and for rows that end with part of a chunk.
#[test]
fn results_do_not_depend_on_the_scan_variant() {
    for (hidden, count) in [(1, 1), (100, 3), (512, 2), (700, 17), (2560, 9)] {
        let table = Table::new(hidden, &gaussian((count + 2) * hidden, 9));
        let state = prepared(table.layout, &gaussian(hidden, 10));
        for full in [false, true] {
            let scanned = |tier, planes: Planes| {
                let (mut approx, mut bound) = (vec![0.0; count], vec![0.0; count]);
                let (mut a, mut b) = ([&mut approx[..]], [&mut bound[..]]);
                tiers::on(tier, full, &planes, 1..count + 1, &[&state], &mut a, &mut b);
                (approx, bound)
            };
            let expected = scanned(Tier::supported()[0], table.planes());
            for tier in Tier::supported() {
                for variant in SCAN_VARIANTS {
                    let found = scanned(tier, table.planes().with_scan_variant(full, variant));
                    assert_eq!(found, expected, "{tier:?} {variant:?} {hidden} {full}");
                }
            }
        }
    }
}

#[test]
fn a_reused_state_is_as_good_as_a_new_one() {
    let layout = Layout::new(1, 700).unwrap();
    let mut reused = prepared(layout, &floats(700, 1));
    let h = floats(700, 2);
    assert!(reused.prepare(&h));
    assert_eq!(format!("{reused:?}"), format!("{:?}", prepared(layout, &h)));
}

#[test]
fn states_without_a_bound_are_refused() {
    let mut hidden = Hidden::new(Layout::new(1, 3).unwrap());
    for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e19, -f32::MAX] {
        assert!(!hidden.prepare(&[1.0, strange, 0.0]), "{strange}");
    }
    assert!(!hidden.prepare(&[0.0; 3]) && !hidden.prepare(&[1e-19, 0.0, -1e-44]));
    assert!(hidden.prepare(&[1e-18, 0.0, 0.0]) && hidden.prepare(&[-1e18, 0.0, 0.0]));
}

/// With random hidden states, with some that resemble a row as in trained models, with ties and with close calls.
#[test]
fn the_largest_are_always_on_the_shortlist() {
    let mut random = Random(11);
    let mut fewer = 0;
    for case in 0..60u64 {
        let hidden = [256, 384, 700][case as usize % 3];
        let rows = 400;
        let mut values = gaussian(rows * hidden, 100 + case);
        let mut h = gaussian(hidden, 200 + case);
        if case % 2 == 0 {
            // The state resembles a row, so that the row's logit stands out.
            let row = random.next() as usize % rows;
            h.iter_mut().zip(&values[row * hidden..]).for_each(|(h, w)| *h = 0.7 * *h + w);
        }
        // The largest row stands in the table twice more: once the same, and once with another last bit of one bf16
        // value.
        let best = {
            let table = Table::new(hidden, &values);
            top(1, 0..rows as u32, &table.exact(&h))[0] as usize
        };
        let copy: Vec<f32> = values[best * hidden..][..hidden].to_vec();
        for (at, changed) in [((best + 7) % rows, false), ((best + 13) % rows, true)] {
            values[at * hidden..][..hidden].copy_from_slice(&copy);
            if changed {
                let w = bf16::from_f32(copy[5]);
                values[at * hidden + 5] = bf16::from_bits(w.to_bits() ^ 1).to_f32();
            }
        }
        let table = Table::new(hidden, &values);
        let (exact, state) = (table.exact(&h), prepared(table.layout, &h));
        for k in [1, 2, 3, 40, 256] {
            for (shares, full) in [(1, false), (3, false), (2, true)] {
                let shortlist = shortlist(&table, &state, k, shares, full);
                fewer += usize::from(shortlist.len() < rows / 2);
                let (found, expected) =
                    (top(k, shortlist.into_iter(), &exact), top(k, 0..rows as u32, &exact));
                assert_eq!(found, expected, "case {case}, k {k}, {shares} shares");
            }
        }
    }
    assert!(fewer > 300, "{fewer}: hardly any row is ruled out");
}

/// Rows that are not finite, and rows whose products overflow, must be multiplied exactly.
#[test]
fn rows_without_a_bound_stay_on_the_shortlist() {
    let hidden = 384;
    let mut values = gaussian(300 * hidden, 1);
    values[5 * hidden + 9] = f32::NAN;
    values[6 * hidden] = f32::INFINITY;
    values[7 * hidden + 383] = f32::NEG_INFINITY;
    values[8 * hidden..9 * hidden].fill(bf16::MAX.to_f32());
    let table = Table::new(hidden, &values);
    let h: Vec<f32> = gaussian(hidden, 2).iter().zip(&values).map(|(a, b)| a.abs() + b.abs()).collect();
    let shortlist = shortlist(&table, &prepared(table.layout, &h), 1, 2, false);
    let exact = table.exact(&h);
    assert!(exact[8] == f32::INFINITY && exact[5].is_nan());
    assert!((5..9).all(|row| shortlist.contains(&row)) && shortlist.len() < 200, "{shortlist:?}");
}

#[test]
fn thresholds_are_kth_largest_and_merge() {
    let mut random = Random(3);
    for n in [0, 1, 5, 63, 64, 65, 1000] {
        let value = |random: &mut Random| (random.next() % 50) as f32 - 25.0;
        let approx: Vec<f32> = (0..n).map(|_| value(&mut random)).collect();
        let mut bound: Vec<f32> = (0..n).map(|_| value(&mut random).abs()).collect();
        for (i, strange) in [f32::NAN, f32::INFINITY].into_iter().enumerate() {
            if n > 100 {
                bound[i * 50 + 3] = strange;
            }
        }
        let mut lower: Vec<f32> = approx.iter().zip(&bound).map(|(a, b)| a - b).collect();
        lower.retain(|l| l.is_finite());
        lower.sort_by(|a, b| b.total_cmp(a));
        for k in [1, 2, 40, MAX_TOP] {
            let expected = lower.get(k - 1).copied().unwrap_or(f32::NEG_INFINITY);
            let mut whole = TopLower::new(k);
            whole.take(&approx, &bound);
            assert_eq!(whole.threshold(), expected, "{n} {k}");
            let mut merged = TopLower::new(k);
            for (a, b) in approx.chunks(37).zip(bound.chunks(37)) {
                let mut share = TopLower::new(k);
                share.take(a, b);
                merged.merge(&share);
            }
            assert_eq!(merged.threshold(), expected);
            let mut ids = vec![7];
            extend_shortlist(expected, &approx, &bound, 100, &mut ids);
            let below = |i: usize| approx[i] + bound[i] < expected;
            let rows: Vec<u32> = (0..n).filter(|&i| !below(i)).map(|i| 100 + i as u32).collect();
            assert_eq!((ids[0], &ids[1..]), (7, &rows[..]));
            let mut kept: Vec<u32> = (100..100 + n as u32).collect();
            narrow_shortlist(expected, &approx, &bound, &mut kept);
            assert_eq!(kept, rows);
        }
    }
}

/// A hidden state along what a row's planes leave out makes Cauchy-Schwarz an equation. So the error is close to its
/// bound, and a much smaller bound would be wrong.
#[test]
fn bounds_hold_where_they_are_reached() {
    let hidden = 1024;
    let values = gaussian(32 * hidden, 8);
    let table = Table::new(hidden, &values);
    let (layout, planes) = (table.layout, table.planes());
    for full in [false, true] {
        for row in 0..32 {
            let part = |all: &[[u8; VECTOR]]| all[row * planes.vectors..][..planes.vectors].concat();
            let scales = planes.scales[row * planes.chunks..][..planes.chunks].concat();
            let record = trit_format::planes::Row::from_bytes(&planes.records[row]);
            let (s, q) = decode_row(layout, record, &part(planes.high), &part(planes.low), &scales).unwrap();
            let mut h = vec![0.0; hidden];
            for block in 0..layout.blocks() {
                for i in layout.columns(block) {
                    let step = if full { f64::from(q[i]) } else { f64::from(q[i] & -16) + 7.5 };
                    let w = f64::from(bf16::from_f32(values[row * hidden + i]).to_f32());
                    h[i] = ((w - s[block] * step) / s[block]) as f32;
                }
            }
            let state = prepared(layout, &h);
            for tier in Tier::supported() {
                let (approx, bound) = table.scanned(tier, full, &[&state]).remove(0);
                let reached = (table.exact(&h)[row] - approx[row]) / bound[row];
                assert!((0.75..=1.0).contains(&reached), "{tier:?} {full} {row}: {reached}");
            }
        }
    }
}

#[test]
fn rows_outside_a_set_are_excluded() {
    let set = [0x8000_0001, u32::MAX, 0, 5];
    for (first, len) in [(0, 130), (32, 64), (64, 7), (96, 200), (1000 * 32, 40)] {
        let (mut approx, mut bound) = (vec![1.0; len], vec![f32::INFINITY; len]);
        exclude_others(&set, first, &mut approx, &mut bound);
        for i in 0..len {
            let row = first + i;
            let kept = set.get(row / 32).is_some_and(|word| word >> (row % 32) & 1 == 1);
            let expected = if kept { (1.0, f32::INFINITY) } else { (f32::NEG_INFINITY, 0.0) };
            assert_eq!((approx[i], bound[i]), expected, "row {row}");
        }
    }
}
