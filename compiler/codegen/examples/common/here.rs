//! What this machine runs.

use trit_format::target::Target;

/// Whether this CPU and its system run the target's kernels.
pub fn runs_here(target: Target) -> bool {
    target.on_this_cpu() && (target != Target::X86_64Amx || tile_registers())
}

/// Whether the system lets this process use tile data, state component 18.
fn tile_registers() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;
        // SAFETY: asks for a feature; nothing in memory is touched.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, 18) == 0 }
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}
