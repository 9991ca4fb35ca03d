//! `include/trit.h` is what the sources say. With `TRIT_BLESS` set, it is written.

use cbindgen::{Builder, Config, DocumentationStyle, EnumConfig, Language, Style};
use std::path::Path;

/// What opens the header.
const TOP: &str = "\
/* The C interface of trit: runs ternary language models from .trit bundles. Generated from runtime/capi/src; docs/c.md explains it.

   Rules for all calls:

   - A call that can fail returns a trit_status, and takes as its last argument where to put an error. That may be null. Where it is
     not, it is set to null by a call that succeeds, and to a new error by one that fails, which the caller frees with trit_error_free.
     What was there before is not freed. Nothing is kept of errors: no thread has a last one.
   - Handles are opaque. Who makes one closes it, through a pointer to the pointer, which becomes null. Null in place of a handle is
     TRIT_INVALID_ARGUMENT. A copy of a pointer whose handle was closed must not be used.
   - A model may be used by any number of threads at a time. Of a session, a sampler and a detokenizer one call at a time may be made,
     from any thread; another one gets TRIT_BUSY and changes nothing. trit_session_abort and trit_session_resume may always be called.
   - Where a call fails, everything is as it was before, unless it says otherwise, and results are null or 0.
   - No call keeps a pointer that it was given, but trit_model_open_memory with TRIT_BYTES_BORROW.
   - Structures begin with their size, so that programs and libraries of different versions go together. Numbers for truth are 0 or 1.
   - Texts are UTF-8. Those that enter with a length need no NUL, and may hold one.
   - The library handles no signals, prints nothing, never ends the process and lets no exception or panic out. It stays loaded when a
     program unloads it. In a forked child a model must be opened again; handles of the parent may only be closed there. */";

fn generated() -> String {
    let config = Config {
        language: Language::C,
        style: Style::Both,
        usize_is_size_t: true,
        header: Some(TOP.into()),
        include_guard: Some("TRIT_H".into()),
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        cpp_compat: true,
        documentation_style: DocumentationStyle::C99,
        enumeration: EnumConfig::default(),
        line_length: 110,
        ..Config::default()
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut builder = Builder::new().with_config(config);
    for file in ["types.rs", "model_calls.rs", "session_calls.rs"] {
        builder = builder.with_src(source.join(file));
    }
    let mut text = Vec::new();
    builder.generate().expect("the sources are read").write(&mut text);
    String::from_utf8(text).expect("the header is text")
}

#[test]
fn the_header_is_what_the_sources_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/trit.h");
    let generated = generated();
    if std::env::var_os("TRIT_BLESS").is_some() {
        std::fs::write(&path, &generated).expect("the header is written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} is not what the sources say: run this test with TRIT_BLESS=1",
        path.display()
    );
}
