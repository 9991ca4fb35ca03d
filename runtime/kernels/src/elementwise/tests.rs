//! Every tier against the reference: all pairs of canonical bytes, all lengths to two chunks, programs.

use super::program::{Operand, Program, Source, Step};
use super::*;
use crate::testing::Random;
use trit_format::dense243::{decode, encode};

/// The byte of what `f` gives for the trits of bytes.
fn of_bytes<const N: usize>(bytes: [u8; N], f: impl Fn([i8; N]) -> i8) -> u8 {
    let trits = bytes.map(|b| decode(b).expect("canonical"));
    encode(std::array::from_fn(|i| f(std::array::from_fn(|n| trits[n][i]))))
}

/// All pairs of canonical bytes.
fn pairs() -> (Vec<u8>, Vec<u8>) {
    (0..243 * 243u32).map(|i| ((i / 243) as u8, (i % 243) as u8)).unzip()
}

fn trits(len: usize, seed: u64) -> Vec<i8> {
    let mut random = Random(seed);
    (0..len).map(|_| (random.next() % 3) as i8 - 1).collect()
}

fn tiers() -> Vec<TritTier> {
    let tiers = TritTier::supported();
    eprintln!("tiers of trits on this CPU: {:?}", tiers.iter().map(|t| t.name()).collect::<Vec<_>>());
    tiers
}

#[test]
fn operations_are_what_they_are_called() {
    for a in -1..=1i8 {
        for b in -1..=1i8 {
            assert_eq!(TritOp::Add.reference(a, b), (a + b).clamp(-1, 1));
            assert_eq!(TritOp::Mul.reference(a, b), a * b);
            assert_eq!(TritOp::Min.reference(a, b), a.min(b));
            assert_eq!(TritOp::Max.reference(a, b), a.max(b));
        }
    }
}

#[test]
fn every_pair_of_bytes_gives_what_its_trits_give() {
    let (a, b) = pairs();
    for op in TritOp::ALL {
        let expected: Vec<u8> =
            a.iter().zip(&b).map(|(&a, &b)| of_bytes([a, b], |[a, b]| op.reference(a, b))).collect();
        for tier in tiers() {
            let mut out = vec![0; a.len()];
            binary(tier, op, &a, &b, &mut out);
            assert_eq!(out, expected, "{op:?} on {tier:?}");
        }
    }
    let bytes: Vec<u8> = (0..243).collect();
    for tier in tiers() {
        let mut out = vec![0; bytes.len()];
        negate(tier, &bytes, &mut out);
        assert_eq!(out, (0..243).map(|b| of_bytes([b], |[a]| -a)).collect::<Vec<_>>(), "{tier:?}");
    }
}

#[test]
fn multiply_add_clamps_the_sum_with_the_product() {
    let (a, b) = pairs();
    for seed in [1, 2] {
        let mut random = Random(seed);
        let c: Vec<u8> = a.iter().map(|_| (random.next() % 243) as u8).collect();
        let expected: Vec<u8> = (0..a.len())
            .map(|i| of_bytes([a[i], b[i], c[i]], |[a, b, c]| (a * b + c).clamp(-1, 1)))
            .collect();
        for tier in tiers() {
            let mut out = vec![0; a.len()];
            multiply_add(tier, &a, &b, &c, &mut out);
            assert_eq!(out, expected, "{tier:?}");
        }
    }
}

/// All lengths to two chunks and one over, packed and not, from the same trits.
#[test]
fn both_storages_give_the_same_at_every_length() {
    for len in (0..=2 * 320 + 1).step_by(if cfg!(target_arch = "aarch64") { 13 } else { 1 }) {
        let [a, b, c] = [1, 2, 3].map(|seed| trits(len, seed + 10 * len as u64 + 1));
        for tier in TritTier::supported() {
            let packed = |trits: &[i8]| {
                let mut bytes = vec![255; trits.len().div_ceil(5)];
                pack(tier, trits, &mut bytes).unwrap();
                let expected = trits.chunks(5).map(|five| {
                    let mut filled = [0; 5];
                    filled[..five.len()].copy_from_slice(five);
                    encode(filled)
                });
                assert_eq!(bytes, expected.collect::<Vec<_>>(), "{tier:?}");
                bytes
            };
            let (pa, pb, pc) = (packed(&a), packed(&b), packed(&c));
            let mut back = vec![7; len];
            unpack(tier, &pa, &mut back);
            assert_eq!(back, a, "{tier:?}");
            assert_eq!(first_invalid(tier, &pa), None);

            let check = |expected: Vec<i8>, bytes: &[u8], out: &[i8], what: &str| {
                assert_eq!(out, expected, "{what} of {len} on {tier:?}");
                assert_eq!(bytes, packed(&expected), "{what} of {len} on {tier:?}");
            };
            let (mut bytes, mut out) = (vec![0; pa.len()], vec![7; len]);
            for op in TritOp::ALL {
                binary(tier, op, &pa, &pb, &mut bytes);
                binary_i8(tier, op, &a, &b, &mut out).unwrap();
                check(a.iter().zip(&b).map(|(&a, &b)| op.reference(a, b)).collect(), &bytes, &out, op.name());
            }
            negate(tier, &pa, &mut bytes);
            negate_i8(tier, &a, &mut out).unwrap();
            check(a.iter().map(|a| -a).collect(), &bytes, &out, "not");
            multiply_add(tier, &pa, &pb, &pc, &mut bytes);
            multiply_add_i8(tier, &a, &b, &c, &mut out).unwrap();
            check((0..len).map(|i| (a[i] * b[i] + c[i]).clamp(-1, 1)).collect(), &bytes, &out, "fma");
        }
    }
}

#[test]
fn what_is_no_trit_is_found_wherever_it_stands() {
    for len in [1, 63, 64, 65, 200, 641] {
        for index in [0, len / 2, len - 1] {
            for value in [i8::MIN, -2, 2, i8::MAX] {
                let good = trits(len, 5);
                let mut bad = good.clone();
                bad[index] = value;
                let mut out = vec![0; len];
                for tier in TritTier::supported() {
                    let found = |operand| Err(NoTrit { operand, index, value });
                    for op in TritOp::ALL {
                        assert_eq!(binary_i8(tier, op, &bad, &good, &mut out), found(0));
                        assert_eq!(binary_i8(tier, op, &good, &bad, &mut out), found(1));
                    }
                    assert_eq!(negate_i8(tier, &bad, &mut out), found(0));
                    assert_eq!(multiply_add_i8(tier, &good, &good, &bad, &mut out), found(2));
                    assert_eq!(pack(tier, &bad, &mut vec![0; len.div_ceil(5)]), found(0));
                    let steps = [binary_step(TritOp::Min, (input(0, 0), false), (input(1, 1), true), None)];
                    let program = Program::new(steps.to_vec()).unwrap();
                    assert_eq!(program.run_i8(tier, &[&good, &bad], &mut out), found(1));
                }
            }
            for byte in 243..=255 {
                let mut bytes = vec![242; len];
                bytes[index] = byte;
                for tier in TritTier::supported() {
                    assert_eq!(first_invalid(tier, &bytes), Some(index), "{tier:?}");
                }
            }
        }
    }
}

fn input(input: usize, keep: usize) -> Source {
    Source::Input { input, keep }
}

fn binary_step(op: TritOp, a: (Source, bool), b: (Source, bool), to: Option<usize>) -> Step {
    let operand = |(from, negated)| Operand { from, negated };
    Step::Binary { op, operands: [operand(a), operand(b)], to }
}

/// Programs of random steps, with every operation, sign and place, against their steps on single trits.
#[test]
fn programs_give_what_their_steps_give() {
    let mut random = Random(9);
    for round in 0..90 {
        let mut pick = |n: usize| random.next() as usize % n;
        // Slots 0 to 2 keep inputs, which are read wherever they are first needed, and again now and then.
        let (mut steps, mut written) = (Vec::new(), Vec::<usize>::new());
        for _ in 0..pick(9) + 2 {
            let mut operands = [0, 1].map(|side| match pick(3) {
                0 if !written.is_empty() => Source::Slot(written[pick(written.len())]),
                _ => input(pick(3), side),
            });
            // What is kept goes to a slot that is neither read nor kept by the other operand.
            let mut used: Vec<usize> = Vec::new();
            for from in &operands {
                used.extend(if let Source::Slot(slot) = from { Some(*slot) } else { None });
            }
            for from in &mut operands {
                if let Source::Input { keep, .. } = from {
                    *keep = (0..5).filter(|slot| !used.contains(slot)).nth(pick(2)).unwrap();
                    used.push(*keep);
                }
            }
            let to = (0..5).rfind(|slot| !used.contains(slot)).unwrap();
            let [a, b] = operands.map(|from| (from, pick(2) == 0));
            steps.push(binary_step(TritOp::ALL[pick(4)], a, b, Some(to)));
            written.extend(used);
            written.push(to);
        }
        let result = Operand { from: Source::Slot(written[pick(written.len())]), negated: pick(2) == 0 };
        let all = Operand { from: input(2, 6), negated: pick(2) == 0 };
        steps.push(match pick(3) {
            0 => Step::Binary { op: TritOp::ALL[pick(4)], operands: [result, all], to: None },
            _ => Step::Binary { op: TritOp::ALL[pick(4)], operands: [result, all], to: Some(5) },
        });
        if let Some(Step::Binary { to: Some(_), .. }) = steps.last() {
            let stored = if pick(2) == 0 { Source::Slot(5) } else { input(2, 5) };
            steps.push(Step::Store(Operand { from: stored, negated: pick(2) == 0 }));
        }
        let program = Program::new(steps.clone()).expect("such steps are a program");
        assert_eq!(program.inputs(), 3);
        let len = [0, 1, 64 * 5, 32 * 64 * 5, 32 * 64 * 5 + 7, 77][round % 6];
        let inputs = [21, 22, 23].map(|seed| trits(len, seed + round as u64));
        let expected: Vec<i8> = (0..len)
            .map(|i| {
                let mut values = [0i8; 8];
                let mut result = 0;
                for step in &steps {
                    let mut value = |o: Operand| {
                        let value = match o.from {
                            Source::Slot(slot) => values[slot],
                            Source::Input { input, keep } => {
                                values[keep] = inputs[input][i];
                                inputs[input][i]
                            }
                        };
                        if o.negated { -value } else { value }
                    };
                    match *step {
                        Step::Binary { op, operands: [a, b], to } => {
                            let y = op.reference(value(a), value(b));
                            match to {
                                Some(to) => values[to] = y,
                                None => result = y,
                            }
                        }
                        Step::Store(operand) => result = value(operand),
                    }
                }
                result
            })
            .collect();
        for tier in TritTier::supported() {
            let packed = inputs.each_ref().map(|trits| {
                let mut bytes = vec![0; len.div_ceil(5)];
                pack(tier, trits, &mut bytes).unwrap();
                bytes
            });
            let (mut bytes, mut out) = (vec![0; len.div_ceil(5)], vec![7; len]);
            program.run(tier, &packed.each_ref().map(|p| &p[..]), &mut bytes);
            unpack(tier, &bytes, &mut out);
            assert_eq!(out, expected, "{steps:?} packed, of {len}, on {tier:?}");
            program.run_i8(tier, &inputs.each_ref().map(|t| &t[..]), &mut out).unwrap();
            assert_eq!(out, expected, "{steps:?} of {len} on {tier:?}");
        }
    }
}

#[test]
fn steps_that_are_no_program_are_refused() {
    let store = Step::Store(Operand { from: Source::Slot(0), negated: false });
    let add = |a, b, to| binary_step(TritOp::Add, (a, false), (b, false), to);
    let [zero, one] = [Source::Slot(0), Source::Slot(1)];
    let first = add(input(0, 0), input(1, 1), Some(2));
    for steps in [
        vec![],
        vec![first],
        vec![store],
        vec![first, store, store],
        vec![first, add(zero, Source::Slot(3), None)],
        vec![first, add(zero, Source::Slot(64), None)],
        vec![first, add(zero, one, Some(1)), store],
        vec![first, add(zero, input(0, 0), Some(1)), store],
        vec![first, add(zero, input(0, 3), Some(3)), store],
        vec![add(input(0, 0), input(1, 0), Some(2)), store],
        vec![add(input(0, 0), input(1, 64), Some(2)), store],
        vec![first, add(zero, one, Some(64)), store],
        vec![add(input(usize::MAX, 0), input(1, 1), Some(2)), store],
    ] {
        assert!(Program::new(steps.clone()).is_none(), "{steps:?}");
    }
    assert_eq!(Program::new(vec![first, add(zero, zero, None)]).unwrap().inputs(), 2);
}
