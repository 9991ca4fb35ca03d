//! Machine code as text. The bytes may come from anywhere.

use iced_x86::{Formatter, NasmFormatter};
use std::fmt::Write;
use trit_format::target::{Arch, Target};
use yaxpeax_arch::Decoder;

/// The instructions in `code`, one a line: offset, bytes, mnemonic and operands. Bytes that are constants, or no
/// instruction, are listed as `.byte`.
pub fn disassemble_bytes(code: &[u8], target: Target) -> String {
    match target.arch() {
        Arch::X86_64 => x86_64(code),
        Arch::Aarch64 => aarch64(code),
    }
}

fn x86_64(code: &[u8]) -> String {
    let mut formatter = NasmFormatter::new();
    formatter.options_mut().set_rip_relative_addresses(true);
    formatter.options_mut().set_space_after_operand_separator(true);
    let mut decoder = iced_x86::Decoder::new(64, code, iced_x86::DecoderOptions::NONE);
    let mut text = String::new();
    // Constants stand after the code, which ends in a return, and are addressed relative to it.
    let (mut end, mut returned) = (code.len(), false);
    while decoder.position() < end {
        let at = decoder.position();
        if returned && code[at..end].iter().all(|&byte| byte == 0) {
            bytes(&mut text, at, &code[at..end]);
            break;
        }
        let instruction = decoder.decode();
        returned = instruction.mnemonic() == iced_x86::Mnemonic::Ret;
        if instruction.is_ip_rel_memory_operand() {
            end = end
                .min(usize::try_from(instruction.ip_rel_memory_address()).unwrap_or(end))
                .max(decoder.position());
        }
        if instruction.is_invalid() {
            bytes(&mut text, at, &code[at..decoder.position()]);
            continue;
        }
        let mut words = String::new();
        formatter.format(&instruction, &mut words);
        line(&mut text, at, &code[at..decoder.position()], &words);
    }
    (end..code.len()).step_by(16).for_each(|at| bytes(&mut text, at, &code[at..code.len().min(at + 16)]));
    text
}

fn aarch64(code: &[u8]) -> String {
    let decoder = yaxpeax_arm::armv8::a64::InstDecoder::default();
    let mut text = String::new();
    for (at, word) in (0..).step_by(4).zip(code.chunks(4)) {
        match decoder.decode(&mut yaxpeax_arch::U8Reader::new(word)) {
            Ok(instruction) if word.len() == 4 => line(&mut text, at, word, &instruction.to_string()),
            _ => bytes(&mut text, at, word),
        }
    }
    text
}

fn bytes(text: &mut String, at: usize, bytes: &[u8]) {
    let list: Vec<String> = bytes.iter().map(|b| format!("{b:#04x}")).collect();
    line(text, at, bytes, &format!(".byte {}", list.join(", ")));
}

fn line(text: &mut String, at: usize, bytes: &[u8], words: &str) {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    writeln!(text, "{at:6x}  {hex:<24}  {words}").expect("writing to a string succeeds");
}
