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
    // Constants stand after the code, which takes their address.
    let mut end = code.len();
    for (at, bytes_of_word) in (0..).step_by(4).zip(code.chunks(4)) {
        if at >= end {
            break;
        }
        let Ok(word) = bytes_of_word.try_into().map(u32::from_le_bytes) else {
            bytes(&mut text, at, bytes_of_word);
            continue;
        };
        end = end.min(address(word).map_or(end, |ahead| at.saturating_add(ahead).max(at + 4)));
        match decoder.decode(&mut yaxpeax_arch::U8Reader::new(bytes_of_word)) {
            Ok(instruction) => line(&mut text, at, bytes_of_word, &instruction.to_string()),
            // The decoder does not know this extension.
            Err(_) if word & 0xffe0_fc00 == 0x4e80_a400 => {
                let [d, n, m] = [0, 5, 16].map(|bit| word >> bit & 31);
                line(&mut text, at, bytes_of_word, &format!("smmla v{d}.4s, v{n}.16b, v{m}.16b"));
            }
            Err(_) => bytes(&mut text, at, bytes_of_word),
        }
    }
    (end..code.len()).step_by(16).for_each(|at| bytes(&mut text, at, &code[at..code.len().min(at + 16)]));
    text
}

/// How many bytes ahead the address is that an `adr` makes.
fn address(word: u32) -> Option<usize> {
    let ahead = (word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3;
    (word & 0x9f00_0000 == 0x1000_0000 && ahead < 1 << 20).then_some(ahead as usize)
}

fn bytes(text: &mut String, at: usize, bytes: &[u8]) {
    let list: Vec<String> = bytes.iter().map(|b| format!("{b:#04x}")).collect();
    line(text, at, bytes, &format!(".byte {}", list.join(", ")));
}

fn line(text: &mut String, at: usize, bytes: &[u8], words: &str) {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    writeln!(text, "{at:6x}  {hex:<24}  {words}").expect("writing to a string succeeds");
}
