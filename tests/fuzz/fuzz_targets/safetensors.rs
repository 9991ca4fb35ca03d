//! A checkpoint in safetensors: a byte of options, `config.json`, a NUL, and `model.safetensors`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trit_fuzz::checkpoints;

fuzz_target!(|data: &[u8]| {
    let Some((&flags, rest)) = data.split_first() else { return };
    let Some(at) = rest.iter().position(|&byte| byte == 0) else { return };
    let files = [("config.json", &rest[..at]), ("model.safetensors", &rest[at + 1..])];
    let folder = checkpoints::folder(&files);
    checkpoints::read(folder.path(), flags | 4);
});
