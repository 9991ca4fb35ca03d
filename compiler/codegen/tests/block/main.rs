//! Every block kernel this machine can run gives the integers of a scalar reference, reads and writes nothing else,
//! and multiplies by the instructions its tier is named for.

#[path = "../kernels/guarded.rs"]
mod guarded;

use guarded::{Against, Guarded};
use trit_codegen::{JitCode, KernelFn, disassemble};
use trit_format::dense243::Code;
use trit_format::kernel::{BLOCK_COLUMNS, KernelArgs, KernelKind, KernelSpec, MAX_K};
use trit_format::target::Target;
use trit_format::tile::{self, ROWS};

const TARGETS: [Target; 5] =
    [Target::X86_64V3, Target::X86_64V3Vnni, Target::X86_64V4Vnni, Target::X86_64V4Vbmi, Target::X86_64Amx];

/// Whether this CPU, and for AMX the system, runs code for the target.
fn runs_here(target: Target) -> bool {
    target.on_this_cpu() && (target != Target::X86_64Amx || tile_registers())
}

/// Whether the system lets this process use tile registers.
fn tile_registers() -> bool {
    #[cfg(target_arch = "x86_64")]
    return {
        const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;
        const XTILEDATA: i32 = 18;
        // SAFETY: asks for a feature; nothing in memory is touched.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
    };
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

fn spec(k: usize, code: Code) -> KernelSpec {
    KernelSpec { k: k as u32, m: 1, kind: KernelKind::Block, code, unroll: 1, prefetch: 0 }
}

/// Calls the test with every kernel for `k` columns that runs here, and says which tiers do not.
fn each_kernel(k: usize, mut test: impl FnMut(KernelFn, &KernelSpec, Target)) {
    static SAID: std::sync::Once = std::sync::Once::new();
    let (here, elsewhere): (Vec<Target>, Vec<Target>) = TARGETS.iter().partition(|&&t| runs_here(t));
    SAID.call_once(|| eprintln!("block kernels run for {here:?}, NOT RUN here: {elsewhere:?}"));
    for target in here {
        for code in Code::ALL {
            let vbmi = target.features().contains(&"avx512vbmi");
            let kernel = JitCode::new(&[(spec(k, code), target)]);
            assert_eq!(kernel.is_ok(), code == Code::SignedFix || vbmi, "{target} {code:?}");
            if let Ok(kernel) = kernel {
                test(kernel.kernel(0), &spec(k, code), target);
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24) as u32
    }
}

/// A product `[tiles * 80, k] x [k, rows]`, of which kernels may compute any first tiles and rows.
struct Case {
    k: usize,
    rows: usize,
    tiles: usize,
    trits: Vec<i8>,
    activations: Vec<i8>,
    /// `[rows, tiles * 80]`.
    expected: Vec<i32>,
}

impl Case {
    fn new(
        k: usize,
        rows: usize,
        tiles: usize,
        trit: impl FnMut(usize) -> i8,
        activation: impl FnMut(usize) -> i8,
    ) -> Case {
        let trits: Vec<i8> = (0..tiles * ROWS * k).map(trit).collect();
        let activations: Vec<i8> = (0..rows * k).map(activation).collect();
        let dot = |a: &[i8], t: &[i8]| a.iter().zip(t).map(|(&a, &t)| i32::from(a) * i32::from(t)).sum();
        let expected =
            activations.chunks_exact(k).flat_map(|a| trits.chunks_exact(k).map(move |t| dot(a, t))).collect();
        Case { k, rows, tiles, trits, activations, expected }
    }

    fn random(k: usize, rows: usize, tiles: usize) -> Case {
        let (mut t, mut a) = (Random(0x9e37_79b9_7f4a_7c15 + k as u64), Random(77 + k as u64));
        // The extremes stand among the first, so that every size has them.
        let activation = |i| if i < 4 { [-128, 127, -128, -127][i] } else { a.next() as i8 };
        Case::new(k, rows, tiles, |_| (t.next() % 3) as i8 - 1, activation)
    }

    /// Runs a kernel on the first `rows` and `tiles` in guarded memory and compares.
    fn check(
        &self,
        kernel: KernelFn,
        spec: &KernelSpec,
        target: Target,
        (rows, tiles): (usize, usize),
        against: Against,
        gap: usize,
    ) {
        const UNWRITTEN: i32 = 0x0bad_0bad;
        let k = self.k;
        assert!(rows <= self.rows && tiles <= self.tiles && spec.k as usize == k);
        let mut packed = vec![0; tiles * tile::bytes(k)];
        for (tile, trits) in packed.chunks_exact_mut(tile::bytes(k)).zip(self.trits.chunks(ROWS * k)) {
            tile::encode(trits, k, spec.code, tile);
        }
        let (read, n) = (k.next_multiple_of(BLOCK_COLUMNS), tiles * ROWS);
        let (stride, sum_stride, out_stride) = (read + 64 * gap, 1 + gap, n + gap);
        // Beyond the columns that are read stands what would spoil the results.
        let mut activations = vec![77i8; (rows - 1) * stride + read];
        let mut sums = vec![i32::MIN; (rows - 1) * sum_stride + 1];
        for (r, row) in self.activations.chunks_exact(k).take(rows).enumerate() {
            activations[r * stride..][..k].copy_from_slice(row);
            activations[r * stride..][k..read].fill(0);
            sums[r * sum_stride] = row.iter().map(|&a| i32::from(a)).sum();
        }
        let mut packed = Guarded::new(&packed, against);
        let mut activations = Guarded::new(&activations, against);
        let mut sums = Guarded::new(&sums, against);
        let mut out = Guarded::new(&vec![UNWRITTEN; (rows - 1) * out_stride + n], against);
        let mut scratch = Guarded::new(&vec![0xc7u8; spec.scratch_bytes(rows)], against);
        let args = KernelArgs {
            weights: packed.as_mut_ptr(),
            activations: activations.as_mut_ptr(),
            sums: sums.as_mut_ptr(),
            out: out.as_mut_ptr(),
            tiles: tiles as u64,
            activation_stride: stride as u64,
            sum_stride: sum_stride as u64,
            out_stride: out_stride as u64,
            rows: rows as u64,
            scratch: scratch.as_mut_ptr(),
            activation_advance: 0,
            sum_advance: 0,
        };
        // SAFETY: the operands are as `KernelArgs` asks, and `runs_here` has checked the CPU's features.
        unsafe { kernel(&raw const args) };
        let intact = out.surroundings_are_intact() && scratch.surroundings_are_intact();
        assert!(intact, "{spec} for {target}, {rows} rows, {tiles} tiles: wrote outside");
        for (r, found) in out.values().chunks(out_stride).enumerate() {
            let expected = &self.expected[r * self.tiles * ROWS..][..n];
            let wrong = found[..n].iter().zip(expected).position(|(a, b)| a != b);
            if let Some(i) = wrong {
                panic!(
                    "{spec} for {target}, {rows} rows, {tiles} tiles, {against:?}: row {r}, result {i} is {}, expected {}",
                    found[i], expected[i]
                );
            }
            assert!(found[n..].iter().all(|&v| v == UNWRITTEN), "{spec} for {target}: wrote between rows");
        }
    }
}

#[test]
fn every_size_is_exact() {
    for k in [1, 3, 4, 5, 32, 63, 64, 65, 100, 128, 256, 384, 1408, 2560, 6912] {
        let case = Case::random(k, 177, 5);
        each_kernel(k, |kernel, spec, target| {
            // AMX kernels decode otherwise from 129 rows on.
            for rows in [1, 2, 3, 4, 5, 6, 7, 16, 17, 31, 32, 33, 64, 100, 128, 129, 160, 177] {
                for tiles in [1, 2, 3, 5] {
                    let (against, gap) =
                        if (rows + tiles) % 2 == 0 { (Against::End, 0) } else { (Against::Start, 3) };
                    case.check(kernel, spec, target, (rows, tiles), against, gap);
                }
            }
        });
    }
}

#[test]
fn the_most_columns() {
    let case = Case::random(MAX_K as usize, 33, 3);
    each_kernel(case.k, |kernel, spec, target| {
        for against in [Against::End, Against::Start] {
            case.check(kernel, spec, target, (33, 3), against, 1);
        }
    });
}

/// Sums of one sign only, the largest there are: nothing saturates on the way.
#[test]
fn saturating_operands() {
    for k in [65, 2560, MAX_K as usize] {
        for (trit, activation) in [(1, 127), (1, -128), (-1, 127), (-1, -128), (0, -128)] {
            let case = Case::new(k, 7, 1, |_| trit, |_| activation);
            each_kernel(k, |kernel, spec, target| {
                case.check(kernel, spec, target, (7, 1), Against::End, 0);
            });
        }
    }
}

/// Every stored byte: 243 columns hold each in every lane.
#[test]
fn every_byte() {
    let digit = |i: usize| {
        let (row, col) = (i / 243, i % 243);
        ((col + row % 16) % 243 / 3usize.pow((row / 16) as u32) % 3) as i8 - 1
    };
    let case = Case::new(243, 243, 1, digit, |i| if i / 243 == i % 243 { 1 } else { 0 });
    each_kernel(243, |kernel, spec, target| {
        case.check(kernel, spec, target, (243, 1), Against::End, 0);
    });
}

#[test]
fn each_tier_multiplies_by_its_own_instructions() {
    for (target, has, lacks) in [
        (Target::X86_64V3, &["vpmaddubsw ymm", "vpmaddwd ymm"][..], &["zmm", "vpdpbusd", "tdpbssd"][..]),
        (Target::X86_64V3Vnni, &["vpdpbusd ymm"], &["zmm", "tdpbssd", "vpmaddubsw"]),
        (Target::X86_64V4Vnni, &["vpdpbusd zmm"], &["vpermb", "tdpbssd"]),
        (Target::X86_64V4Vbmi, &["vpdpbusd zmm"], &["tdpbssd"]),
        (
            Target::X86_64Amx,
            &["ldtilecfg", "tileloadd", "tdpbssd", "tilestored", "tilerelease"],
            &["vpdpbusd"],
        ),
    ] {
        let text = disassemble(&spec(2560, Code::SignedFix), target).unwrap();
        assert!(text.contains("vzeroupper"));
        has.iter().for_each(|m| assert!(text.contains(m), "{target} lacks {m}:\n{text}"));
        lacks.iter().for_each(|m| assert!(!text.contains(m), "{target} has {m}:\n{text}"));
    }
    let spread = disassemble(&spec(2560, Code::Spread), Target::X86_64V4Vbmi).unwrap();
    assert!(spread.contains("vpermb zmm") && !spread.contains("vpcmpgtb"), "{spread}");
}
