//! A GGUF file behind a byte of options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trit_fuzz::checkpoints;

fuzz_target!(|data: &[u8]| {
    let Some((&flags, file)) = data.split_first() else { return };
    let folder = checkpoints::folder(&[("model.gguf", file)]);
    checkpoints::read(&folder.path().join("model.gguf"), flags);
});
