//! How the shared library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux" || system == "android") {
        let major = std::env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
        for argument in [
            // Programs ask for the version of the interface that they were linked with.
            &format!("-Wl,-soname,libtrit.so.{major}"),
            // Threads of the library may still end when a program unloads it, so it stays.
            "-Wl,-z,nodelete",
            // What libraries inside export is theirs.
            "-Wl,--exclude-libs,ALL",
        ] {
            println!("cargo::rustc-cdylib-link-arg={argument}");
        }
    }
}
