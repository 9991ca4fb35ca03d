//! Every kernel for groups of columns that this machine can run gives the floats of a scalar reference, bit for bit, and reads
//! and writes nothing else.

#[path = "../kernels/guarded.rs"]
mod guarded;
#[path = "../../examples/common/here.rs"]
mod here;

use guarded::{Against, Guarded};
use here::runs_here;
use trit_codegen::{CodegenError, JitCode, default_specs, emit};
use trit_format::dense243::Code;
use trit_format::kernel::{GROUP_COLUMNS, KernelArgs, KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile;

const TARGETS: [Target; 5] =
    [Target::X86_64V3, Target::X86_64V3Vnni, Target::X86_64V4Vnni, Target::X86_64V4Vbmi, Target::X86_64Amx];

fn spec(k: u32, code: Code) -> KernelSpec {
    KernelSpec { k, m: 8, kind: KernelKind::Grouped, code, unroll: 1, prefetch: 0 }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24) as u32
    }

    /// Of either sign, of sizes so different that the order of a sum and each rounding show.
    fn float(&mut self) -> f32 {
        let size = [1e-3, 0.1, 1.0, 3e4][(self.next() % 4) as usize];
        (self.next() % 2001) as f32 / 1000.0 * size - size
    }
}

/// What is multiplied.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    columns: usize,
    groups: usize,
    tiles: usize,
    rows: usize,
    /// Rows, sums, scales, tiles and results are so many lines or elements farther apart than they need to be.
    gap: usize,
}

/// Runs a kernel on operands in guarded memory and compares.
fn check(kernel: &JitCode, spec: &KernelSpec, target: Target, sizes: Sizes, against: Against) {
    let Sizes { columns, groups, tiles, rows, gap } = sizes;
    let (code, in_tile) = (spec.code, spec.code.tile_rows());
    let mut random = Random(0x9e37_79b9_7f4a_7c15 + (columns * 31 + groups * 7 + rows) as u64);
    // The extremes stand among the first, so that every size has them.
    let extremes = [-128i8, 127, -128, -127];
    let activations: Vec<i8> =
        (0..rows * groups * columns).map(|i| if i < 4 { extremes[i] } else { random.next() as i8 }).collect();
    let trits: Vec<i8> = (0..tiles * groups * in_tile * columns)
        .map(|_| match code.has_zero() {
            true => (random.next() % 3) as i8 - 1,
            false => (random.next() % 2) as i8 * 2 - 1,
        })
        .collect();
    let weight_scales: Vec<f32> = (0..tiles * groups * in_tile).map(|_| random.float()).collect();
    let scales: Vec<f32> = (0..rows * groups).map(|_| random.float()).collect();
    let before: Vec<f32> = (0..rows * tiles * in_tile).map(|_| random.float()).collect();

    let weight_stride = groups * tile::bytes(columns) + 64 * gap;
    let mut packed = vec![0xa5; (tiles - 1) * weight_stride + groups * tile::bytes(columns)];
    for (i, trits) in trits.chunks_exact(in_tile * columns).enumerate() {
        let at = i / groups * weight_stride + i % groups * tile::bytes(columns);
        tile::encode(trits, columns, code, &mut packed[at..][..tile::bytes(columns)]).unwrap();
    }
    let k = groups * columns;
    let stride = k.next_multiple_of(64) + 64 * gap;
    let (per_row, out_stride) = (groups + gap, tiles * in_tile + gap);
    let mut padded = vec![77i8; (rows - 1) * stride + k];
    let mut sums = vec![i32::MIN; (rows - 1) * per_row + groups];
    let mut padded_scales = vec![f32::NAN; (rows - 1) * per_row + groups];
    let mut out = vec![f32::NAN; (rows - 1) * out_stride + tiles * in_tile];
    for r in 0..rows {
        let row = &activations[r * k..][..k];
        padded[r * stride..][..k].copy_from_slice(row);
        for (g, group) in row.chunks_exact(columns).enumerate() {
            sums[r * per_row + g] = group.iter().map(|&a| i32::from(a)).sum();
        }
        padded_scales[r * per_row..][..groups].copy_from_slice(&scales[r * groups..][..groups]);
        let n = tiles * in_tile;
        out[r * out_stride..][..n].copy_from_slice(&before[r * n..][..n]);
    }
    let mut packed = Guarded::new(&packed, against);
    let mut padded = Guarded::new(&padded, against);
    let mut sums = Guarded::new(&sums, against);
    let mut padded_scales = Guarded::new(&padded_scales, against);
    let mut of_weights = Guarded::new(&weight_scales, against);
    let mut out = Guarded::new(&out, against);
    let mut scratch = Guarded::new(&vec![0xc7u8; spec.scratch_bytes(rows)], against);
    let args = KernelArgs {
        weights: packed.as_mut_ptr(),
        activations: padded.as_mut_ptr(),
        sums: sums.as_mut_ptr(),
        out: out.as_mut_ptr().cast(),
        tiles: tiles as u64,
        activation_stride: stride as u64,
        sum_stride: per_row as u64,
        out_stride: out_stride as u64,
        rows: rows as u64,
        scratch: scratch.as_mut_ptr(),
        weight_scales: of_weights.as_mut_ptr(),
        activation_scales: padded_scales.as_mut_ptr(),
        activation_scale_stride: per_row as u64,
        groups: groups as u64,
        weight_stride: weight_stride as u64,
        ..KernelArgs::NOTHING
    };
    // SAFETY: the operands are as `KernelArgs` asks, and `runs_here` has checked the CPU's features.
    unsafe { kernel.kernels()[0](&args) };
    let name = format!("{spec} for {target}, {sizes:?}, {against:?}");
    assert!(out.surroundings_are_intact() && scratch.surroundings_are_intact(), "{name}: wrote outside");
    for (r, found) in out.values().chunks(out_stride).enumerate() {
        for (i, found) in found.iter().enumerate() {
            if i >= tiles * in_tile {
                assert!(found.is_nan(), "{name}: wrote between rows");
                continue;
            }
            let (tile, row) = (i / in_tile, i % in_tile);
            let mut expected = before[r * tiles * in_tile + i];
            for g in 0..groups {
                let trits = &trits[((tile * groups + g) * in_tile + row) * columns..][..columns];
                let activations = &activations[r * k + g * columns..][..columns];
                let products = activations.iter().zip(trits).map(|(&a, &t)| i32::from(a) * i32::from(t));
                let scale = scales[r * groups + g] * weight_scales[(tile * groups + g) * in_tile + row];
                expected += products.sum::<i32>() as f32 * scale;
            }
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{name}: row {r}, result {i}: {found}, {expected}"
            );
        }
    }
}

/// Calls the test with every kernel for groups of so many columns that runs here, and says which tiers do not.
fn each_kernel(columns: u32, mut test: impl FnMut(&JitCode, &KernelSpec, Target)) {
    static SAID: std::sync::Once = std::sync::Once::new();
    let (here, elsewhere): (Vec<Target>, Vec<Target>) = TARGETS.iter().partition(|&&t| runs_here(t));
    SAID.call_once(|| eprintln!("grouped kernels run for {here:?}, NOT RUN here: {elsewhere:?}"));
    for target in here {
        for code in Code::ALL {
            let vbmi = target.features().contains(&"avx512vbmi");
            let kernel = JitCode::new(&[(spec(columns, code), target)]);
            assert_eq!(kernel.is_ok(), code != Code::Spread || vbmi, "{target} {code:?}");
            if let Ok(kernel) = kernel {
                test(&kernel, &spec(columns, code), target);
            }
        }
    }
}

#[test]
fn every_size_is_the_reference_bit_for_bit() {
    for columns in GROUP_COLUMNS {
        each_kernel(columns, |kernel, spec, target| {
            for rows in [1, 2, 3, 4, 5, 6, 7, 16, 17, 31, 32, 33, 48, 64, 65] {
                for (tiles, groups) in [(1, 1), (2, 3), (3, 2)] {
                    let odd = (rows + tiles) % 2 == 1;
                    let (against, gap) = if odd { (Against::End, 0) } else { (Against::Start, 3) };
                    let sizes = Sizes { columns: columns as usize, groups, tiles, rows, gap };
                    check(kernel, spec, target, sizes, against);
                }
            }
        });
    }
}

/// Every target with kernels for blocks on x86-64 carries one for groups, aarch64's none, and only for columns that a group has.
#[test]
fn bundles_carry_them_for_groups_alone() {
    for target in Target::ALL {
        for (k, expected) in [(128, TARGETS.contains(&target)), (96, false), (2560, false)] {
            let specs = default_specs(k, Code::SignedFix, target);
            let grouped: Vec<_> = specs.iter().filter(|spec| spec.kind == KernelKind::Grouped).collect();
            assert_eq!(grouped.len(), usize::from(expected), "{target}, {k} columns");
            assert!(grouped.iter().all(|spec| emit(spec, target).is_ok()));
        }
    }
    let refused = emit(&spec(96, Code::SignedFix), Target::X86_64V3);
    assert!(matches!(refused, Err(CodegenError::Kind { .. })), "{refused:?}");
}
