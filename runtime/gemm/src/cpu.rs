//! What this CPU and system can run.
#![allow(unsafe_code)]

use trit_format::target::Target;

/// The tiers of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuTiers(Vec<Target>);

impl CpuTiers {
    /// Finds out what the CPU and the system support. If the CPU has AMX, this asks the system for permission to use
    /// it.
    pub fn detect() -> CpuTiers {
        let runs = |t: &Target| t.on_this_cpu() && (*t != Target::X86_64Amx || tile_registers());
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

/// The CPU's name as the system reports it.
pub fn name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

/// Whether this process may use the tile registers of AMX. They take 8 KiB a thread, so the system saves them only for
/// processes that asked. The permission holds for the whole process and stays.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn tile_registers() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    static PERMITTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    // SAFETY: this request takes two numbers and touches no memory of ours. Linux before 5.16 refuses it.
    let ask = || unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 };
    *PERMITTED.get_or_init(ask)
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn tile_registers() -> bool {
    false
}
