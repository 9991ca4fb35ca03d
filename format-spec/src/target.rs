//! Instruction-set tiers that kernels are generated for.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A processor architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm, little-endian.
    Aarch64,
}

impl Arch {
    /// The architecture this program was compiled for, where it is one that targets have.
    pub const HOST: Option<Arch> = if cfg!(target_arch = "x86_64") {
        Some(Arch::X86_64)
    } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
        Some(Arch::Aarch64)
    } else {
        None
    };

    /// The name that systems use.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tier of one architecture. The variants of an architecture stand in order, from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Target {
    /// SSE4.1: `pmaddubsw` on 128-bit vectors.
    X86_64V2,
    /// AVX2.
    X86_64V3,
    /// AVX2 and AVX-VNNI.
    X86_64V3Vnni,
    /// AVX-512 with VNNI.
    X86_64V4Vnni,
    /// AVX-512 with VNNI and VBMI.
    X86_64V4Vbmi,
    /// AVX-512 with VNNI and VBMI, and AMX-int8 for blocks of rows.
    X86_64Amx,
    /// NEON.
    Aarch64,
    /// NEON with the dot-product extension.
    Aarch64Dotprod,
    /// NEON with the dot-product and the int8 matrix extensions.
    Aarch64I8mm,
}

impl Target {
    /// Every target, least capable first within an architecture.
    pub const ALL: [Target; 9] = [
        Target::X86_64V2,
        Target::X86_64V3,
        Target::X86_64V3Vnni,
        Target::X86_64V4Vnni,
        Target::X86_64V4Vbmi,
        Target::X86_64Amx,
        Target::Aarch64,
        Target::Aarch64Dotprod,
        Target::Aarch64I8mm,
    ];

    /// The name used on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Target::X86_64V2 => "x86-64-v2",
            Target::X86_64V3 => "x86-64-v3",
            Target::X86_64V3Vnni => "x86-64-v3-vnni",
            Target::X86_64V4Vnni => "x86-64-v4-vnni",
            Target::X86_64V4Vbmi => "x86-64-v4-vbmi",
            Target::X86_64Amx => "x86-64-amx",
            Target::Aarch64 => "aarch64",
            Target::Aarch64Dotprod => "aarch64-dotprod",
            Target::Aarch64I8mm => "aarch64-i8mm",
        }
    }

    /// The target of that name.
    pub fn from_name(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The architecture whose instructions this target's code uses.
    pub const fn arch(self) -> Arch {
        match self {
            Target::Aarch64 | Target::Aarch64Dotprod | Target::Aarch64I8mm => Arch::Aarch64,
            _ => Arch::X86_64,
        }
    }

    /// CPU features the code needs, named as `std::arch::is_x86_feature_detected!` and its aarch64 twin name them.
    pub const fn features(self) -> &'static [&'static str] {
        match self {
            Target::X86_64V2 => &["sse3", "ssse3", "sse4.1"],
            Target::X86_64V3 => &["sse3", "ssse3", "sse4.1", "sse4.2", "avx", "avx2"],
            Target::X86_64V3Vnni => &["sse3", "ssse3", "sse4.1", "sse4.2", "avx", "avx2", "avxvnni"],
            Target::X86_64V4Vnni => &["avx2", "avx512f", "avx512bw", "avx512vl", "avx512vnni"],
            Target::X86_64V4Vbmi => &["avx2", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi"],
            Target::X86_64Amx => &[
                "avx2",
                "avx512f",
                "avx512bw",
                "avx512vl",
                "avx512vnni",
                "avx512vbmi",
                "amx-tile",
                "amx-int8",
            ],
            Target::Aarch64 => &["neon"],
            Target::Aarch64Dotprod => &["neon", "dotprod"],
            Target::Aarch64I8mm => &["neon", "dotprod", "i8mm"],
        }
    }
}

impl Target {
    /// Whether the CPU this runs on has the target's features. Detection of AVX and AVX-512 includes that the system saves
    /// their registers. AMX also needs the system's permission, which only a process that is to run its code asks for.
    pub fn on_this_cpu(self) -> bool {
        Some(self.arch()) == Arch::HOST && self.features().iter().all(|feature| has_feature(feature))
    }
}

#[cfg(target_arch = "x86_64")]
fn has_feature(name: &str) -> bool {
    use std::arch::is_x86_feature_detected as has;
    match name {
        "sse3" => has!("sse3"),
        "ssse3" => has!("ssse3"),
        "sse4.1" => has!("sse4.1"),
        "sse4.2" => has!("sse4.2"),
        "avx" => has!("avx"),
        "avx2" => has!("avx2"),
        "avxvnni" => has!("avxvnni"),
        "avx512f" => has!("avx512f"),
        "avx512bw" => has!("avx512bw"),
        "avx512vl" => has!("avx512vl"),
        "avx512vnni" => has!("avx512vnni"),
        "avx512vbmi" => has!("avx512vbmi"),
        "amx-tile" => leaf_7_edx() >> 24 & 1 == 1,
        "amx-int8" => leaf_7_edx() >> 25 & 1 == 1,
        _ => false,
    }
}

/// The standard library does not detect AMX yet.
#[cfg(target_arch = "x86_64")]
fn leaf_7_edx() -> u32 {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 }
}

#[cfg(target_arch = "aarch64")]
fn has_feature(name: &str) -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    match name {
        "neon" => has!("neon"),
        "dotprod" => has!("dotprod"),
        "i8mm" => has!("i8mm"),
        _ => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_feature(_: &str) -> bool {
    false
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for target in Target::ALL {
            assert_eq!(Target::from_name(target.name()), Some(target));
        }
        assert_eq!(Target::from_name("x86-64-v9"), None);
    }
}
