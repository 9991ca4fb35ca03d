//! Whatever is wrong in a file, reading it ends with a model or an error, never with a panic.

use crate::text::with_tokenizer;
use crate::writer::{File, load_path, read, u32};
use std::fs;

/// Numbers that break sums and products.
const NUMBERS: [u64; 8] = [0, 1, 255, 1 << 31, u32::MAX as u64, 1 << 32, 1 << 63, u64::MAX];

#[test]
fn damaged_files_never_panic() {
    damage(&with_tokenizer(File::bitnet()), 2500);
}

/// With heads in another order, rotated weights and a draft block.
#[test]
fn damaged_hybrids_never_panic() {
    let mut file = with_tokenizer(crate::hybrid::rotated());
    file.key("qwen35.block_count", u32(5)).key("qwen35.nextn_predict_layers", u32(1));
    file.floats("blk.4.nextn.enorm.weight", &[64]);
    damage(&file, 1500);
}

fn damage(file: &File, times: usize) {
    let whole = file.bytes();
    let data: usize = file.tensors.iter().map(|tensor| tensor.bytes.len().next_multiple_of(32)).sum();
    let header = whole.len() - data;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut read_whole, mut refused) = (0, 0);
    for _ in 0..times {
        let mut bytes = whole.clone();
        for _ in 0..1 + random(3) {
            // Three in four strike the header.
            let at = if random(4) > 0 { random(header) } else { random(whole.len()) };
            let at = at.min(bytes.len() - 1);
            match random(4) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = random(256) as u8,
                2 => {
                    let number = NUMBERS[random(NUMBERS.len())].to_le_bytes();
                    bytes.iter_mut().skip(at).zip(number).for_each(|(byte, n)| *byte = n);
                }
                _ => {
                    let end = (at + 1 + random(16)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
        fs::write(&path, &bytes).unwrap();
        match load_path(&path) {
            Ok(model) => {
                read_whole += 1;
                // Codes are only looked at now; illegal ones are errors.
                for projection in model.layers.iter().flat_map(|layer| layer.projections()) {
                    let _ = projection.matrix.ternary().map(read);
                }
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(crate::words::exit_code(&error), 3 | 4), "{error}");
            }
        }
    }
    assert!(read_whole > times / 50 && refused > times / 5, "{read_whole} read, {refused} refused");
}
