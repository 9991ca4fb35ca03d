//! What this program is: its version, the commit it was built from, and the tiers it can run.

use std::sync::LazyLock;
use trit_runtime::CpuTiers;

/// What `--version` prints after the program's name.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let tiers: Vec<&str> = CpuTiers::detect().iter().map(|tier| tier.name()).collect();
        let tiers = if tiers.is_empty() { "none: portable kernels run".to_owned() } else { tiers.join(", ") };
        let kernels = match cfg!(feature = "jit") {
            true => "embedded, generated, portable",
            false => "embedded, portable (built without feature jit)",
        };
        let abilities = [format!("tiers of this CPU: {tiers}"), format!("kernels: {kernels}")];
        trit_command::version::text(env!("CARGO_PKG_VERSION"), option_env!("TRIT_COMMIT"), &abilities)
    });
    &TEXT
}
