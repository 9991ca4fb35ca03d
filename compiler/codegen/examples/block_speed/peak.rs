//! The most products a target's multiply-add instructions form in a second: those of a block kernel's inner loop, on
//! registers alone.

use super::best;
use std::time::Duration;
use trit_format::target::Target;

/// 10^12 operations (two for a product) a second of one thread: the best call within `time`. `None` where the
/// target has no block kernel. The CPU must have the target's features.
pub fn measure(target: Target, time: Duration) -> Option<f64> {
    let (call, products): (fn(u64), usize) = loops(target)?;
    let seconds = best(time, || call(TIMES));
    Some(2.0 * products as f64 * TIMES as f64 / seconds / 1e12)
}

/// Iterations of a call: well below a millisecond.
const TIMES: u64 = 10_000;

/// A loop, and the products one iteration forms.
#[cfg(target_arch = "x86_64")]
fn loops(target: Target) -> Option<(fn(u64), usize)> {
    match target {
        Target::X86_64V3 => Some((maddubs, 12 * 32)),
        Target::X86_64V3Vnni => Some((dot_256, 12 * 32)),
        Target::X86_64V4Vnni | Target::X86_64V4Vbmi => Some((dot_512, 25 * 64)),
        Target::X86_64Amx => Some((tiles, 4 * 16 * 16 * 64)),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn loops(_: Target) -> Option<(fn(u64), usize)> {
    None
}

/// A loop over instructions; the assembler repeats those that name a register `\r`. The caller has checked the CPU
/// and the system.
#[cfg(target_arch = "x86_64")]
macro_rules! repeated {
    ($name:ident, $registers:literal, $($instruction:literal),+) => {
        fn $name(times: u64) {
            // SAFETY: changes vector registers alone, all of which are declared; the stack is left alone.
            unsafe {
                std::arch::asm!(
                    "2:", concat!(".irp r,", $registers), $($instruction,)+ ".endr", "dec rcx", "jnz 2b",
                    "vzeroupper",
                    inout("rcx") times => _, options(nomem, nostack), clobber_abi("sysv64"),
                );
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
repeated!(
    maddubs,
    "0,1,2,3,4,5,6,7,8,9,10,11",
    "vpmaddubsw ymm15, ymm12, ymm13",
    "vpaddw ymm\\r, ymm\\r, ymm15"
);
#[cfg(target_arch = "x86_64")]
repeated!(dot_256, "0,1,2,3,4,5,6,7,8,9,10,11", "{{vex}} vpdpbusd ymm\\r, ymm12, ymm13");
#[cfg(target_arch = "x86_64")]
repeated!(
    dot_512,
    "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24",
    "vpdpbusd zmm\\r, zmm30, zmm31"
);

/// Four sums of 16 by 16, as many as two operands of each side give.
#[cfg(target_arch = "x86_64")]
fn tiles(times: u64) {
    let mut configuration = [0u8; 64];
    configuration[0] = 1;
    configuration[16..32].copy_from_slice(&[64, 0].repeat(8));
    configuration[48..56].fill(16);
    // SAFETY: as above; the configuration is 64 readable bytes, and tiles are released again.
    unsafe {
        std::arch::asm!(
            "ldtilecfg [rdi]",
            ".irp r,0,1,2,3,4,5,6,7", "tilezero tmm\\r", ".endr",
            "2:",
            "tdpbssd tmm0, tmm4, tmm6", "tdpbssd tmm1, tmm4, tmm7",
            "tdpbssd tmm2, tmm5, tmm6", "tdpbssd tmm3, tmm5, tmm7",
            "dec rcx", "jnz 2b",
            "tilerelease",
            in("rdi") configuration.as_ptr(), inout("rcx") times => _,
            options(nostack), clobber_abi("sysv64"),
        );
    }
}
