//! A `tokenizer.json`, a NUL, and a text: the tokenizer is made, and the text becomes tokens and text again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trit_format::manifest::{SamplingDefaults, TextInfo};
use trit_text::{Detokenizer, Tokenizer};

fuzz_target!(|data: &[u8]| {
    let (json, text) = match data.iter().position(|&byte| byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"ab <s> c"[..]),
    };
    let info = TextInfo {
        chat_template: None,
        special_tokens: Vec::new(),
        bos: Some(1),
        stop: vec![2],
        sampling: SamplingDefaults::default(),
    };
    let Ok(tokenizer) = Tokenizer::new(json, &info, 4096) else { return };
    let tokenizer = std::sync::Arc::new(tokenizer);
    let text = String::from_utf8_lossy(text);
    let ids = tokenizer.encode(&text, true);
    for limit in [1, 16, 1 << 20] {
        if let (Ok(within), Ok(ids)) = (tokenizer.encode_within(&text, true, limit), &ids) {
            assert!(within == *ids, "a limit changes no tokens");
        }
    }
    let _ = tokenizer.try_out();
    let mut all = ids.unwrap_or_default();
    all.extend([0, 3, tokenizer.end().wrapping_sub(1), u32::MAX]);
    for skip in [true, false] {
        let _ = tokenizer.decode(&all, skip);
    }
    let mut stream = Detokenizer::new(tokenizer.clone());
    for &id in &all {
        let _ =
            (stream.push(id), tokenizer.bytes_of(id), tokenizer.bytes_in_text(id), tokenizer.is_special(id));
    }
});
