//! What this program is: its version, the commit it was built from, and the tiers it can run.

use std::sync::LazyLock;
use trit_runtime::CpuTiers;

/// What `--version` prints after the program's name.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let commit = option_env!("TRIT_COMMIT").map_or(String::new(), |commit| format!(" ({commit})"));
        let tiers: Vec<&str> = CpuTiers::detect().iter().map(|tier| tier.name()).collect();
        let tiers = if tiers.is_empty() { "none: portable kernels run".to_owned() } else { tiers.join(", ") };
        let kernels = match cfg!(feature = "jit") {
            true => "embedded, generated, portable",
            false => "embedded, portable (built without feature jit)",
        };
        format!("{}{commit}\ntiers of this CPU: {tiers}\nkernels: {kernels}", env!("CARGO_PKG_VERSION"))
    });
    &TEXT
}
