//! What this CPU and system can run.
#![allow(unsafe_code)]

use trit_format::target::{Arch, Target};

/// The tiers of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuTiers(Vec<Target>);

impl CpuTiers {
    /// Asks the CPU and the system. Where the CPU has AMX, this asks the system for the permission to use it.
    pub fn detect() -> CpuTiers {
        let host = if cfg!(target_arch = "x86_64") {
            Some(Arch::X86_64)
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            Some(Arch::Aarch64)
        } else {
            None
        };
        let runs = |t: &Target| Some(t.arch()) == host && t.features().iter().all(|f| has_feature(f));
        CpuTiers(Target::ALL.into_iter().filter(runs).collect())
    }

    /// Whether this machine runs code of that tier.
    pub fn contains(&self, target: Target) -> bool {
        self.0.contains(&target)
    }

    /// The tiers, least capable first.
    pub fn iter(&self) -> impl Iterator<Item = Target> + '_ {
        self.0.iter().copied()
    }
}

/// The CPU's name, as the system tells it.
pub fn name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

// Detection of AVX and AVX-512 in `std` includes that the system saves their registers.
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
        "amx-tile" => amx::usable(24),
        "amx-int8" => amx::usable(25),
        _ => false,
    }
}

#[cfg(target_arch = "aarch64")]
fn has_feature(name: &str) -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    match name {
        "neon" => has!("neon"),
        "dotprod" => has!("dotprod"),
        _ => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_feature(_: &str) -> bool {
    false
}

/// Tile registers are 8 KiB a thread, so that systems save them only for processes that asked.
#[cfg(target_arch = "x86_64")]
mod amx {
    use std::sync::OnceLock;

    /// Whether CPUID leaf 7 has bit `bit` of EDX, and this process may use tile registers.
    pub(super) fn usable(bit: u32) -> bool {
        let most = std::arch::x86_64::__cpuid(0).eax;
        most >= 7 && std::arch::x86_64::__cpuid_count(7, 0).edx >> bit & 1 == 1 && permitted()
    }

    /// Asks once; the permission is the whole process's and stays.
    fn permitted() -> bool {
        static PERMITTED: OnceLock<bool> = OnceLock::new();
        *PERMITTED.get_or_init(ask)
    }

    /// Linux 5.16 and later; an older one saves no tile registers and refuses.
    #[cfg(target_os = "linux")]
    fn ask() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_ulong = 18;
        // SAFETY: this request takes two numbers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn ask() -> bool {
        false
    }
}
