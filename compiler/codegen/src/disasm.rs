//! Machine code as text.

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use std::fmt::Write;
use trit_format::target::{Arch, Target};
use yaxpeax_arch::{Decoder as _, U8Reader};

/// One line an instruction, `offset  text`. Bytes that are no instruction, such as constants after the code, are
/// shown as data.
pub fn disassemble(code: &[u8], target: Target) -> String {
    let mut text = String::new();
    match target.arch() {
        Arch::X86_64 => {
            let mut formatter = NasmFormatter::new();
            for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter() {
                let mut line = String::new();
                formatter.format(&instruction, &mut line);
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{:6x}  {line}", instruction.ip());
            }
        }
        Arch::Aarch64 => {
            let decoder = yaxpeax_arm::armv8::a64::InstDecoder::default();
            for (i, word) in code.chunks(4).enumerate() {
                let line = match decoder.decode(&mut U8Reader::new(word)) {
                    Ok(instruction) => instruction.to_string(),
                    Err(_) => dot_product(word),
                };
                let _ = writeln!(text, "{:6x}  {line}", i * 4);
            }
        }
    }
    text
}

/// `sdot` and `udot` (vector), which the decoder does not know: `0 Q U 01110 10 0 Rm 100101 Rn Rd`.
fn dot_product(word: &[u8]) -> String {
    let Ok(bytes) = <[u8; 4]>::try_from(word) else { return format!("data {word:02x?}") };
    let word = u32::from_le_bytes(bytes);
    if word & 0x9fe0_fc00 == 0x0e80_9400 {
        let name = if word >> 29 & 1 == 1 { "udot" } else { "sdot" };
        let (lanes, bytes) = if word >> 30 & 1 == 1 { ("4s", "16b") } else { ("2s", "8b") };
        let (m, n, d) = (word >> 16 & 31, word >> 5 & 31, word & 31);
        return format!("{name} v{d}.{lanes}, v{n}.{bytes}, v{m}.{bytes}");
    }
    format!("data 0x{word:08x}")
}
