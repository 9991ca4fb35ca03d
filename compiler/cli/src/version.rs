//! What this program is: its version, the commit it was built from, and the tiers it generates code for.

use std::sync::LazyLock;

/// What `--version` prints after the program's name.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let code: Vec<&str> = trit_codegen::supported().iter().map(|target| target.name()).collect();
        let native = tritc::compile::targets::native().map_or("portable", |target| target.name());
        let abilities =
            [format!("generates code for: {}", code.join(", ")), format!("native here: {native}")];
        trit_command::version::text(env!("CARGO_PKG_VERSION"), option_env!("TRIT_COMMIT"), &abilities)
    });
    &TEXT
}
