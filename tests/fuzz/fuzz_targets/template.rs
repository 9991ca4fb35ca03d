//! A chat template, a NUL, and the JSON of a conversation, or none for usual ones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trit_text::{ChatTemplate, TemplateInput};

fuzz_target!(|data: &[u8]| {
    let (source, json) = match data.iter().position(|&byte| byte == 0) {
        Some(at) => (&data[..at], Some(&data[at + 1..])),
        None => (data, None),
    };
    let Ok(source) = std::str::from_utf8(source) else { return };
    let special = [("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())];
    let Ok(template) = ChatTemplate::new(source, &special) else { return };
    match json.map(TemplateInput::from_json) {
        Some(Ok(input)) => drop(template.render_input(&input, &|| false)),
        Some(Err(_)) => {}
        None => drop(template.check()),
    }
});
