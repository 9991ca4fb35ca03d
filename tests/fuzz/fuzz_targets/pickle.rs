//! A checkpoint of PyTorch behind a byte of options. Bit 7 puts the bytes into an archive as its pickle, so that checksums do not
//! end every change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trit_fuzz::checkpoints;

/// The configuration of the seed's model.
const CONFIG: &[u8] = include_bytes!("../src/config.json");

fuzz_target!(|data: &[u8]| {
    let Some((&flags, file)) = data.split_first() else { return };
    let made;
    let file = if flags & 128 != 0 {
        made = archive(file);
        &made
    } else {
        file
    };
    let folder = checkpoints::folder(&[("config.json", CONFIG), ("pytorch_model.bin", file)]);
    checkpoints::read(folder.path(), flags | 4);
});

/// A ZIP archive with a pickle and one storage of zeros, nothing compressed.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let storage = [0; 1024];
    let files: [(&str, &[u8]); 3] = [("m/data.pkl", pickle), ("m/data/0", &storage), ("m/version", b"3\n")];
    for (name, bytes) in files {
        let (offset, len, crc) = (out.len() as u32, bytes.len() as u32, crc32(bytes));
        let mut fields = Vec::new();
        fields.extend_from_slice(&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for word in [crc, len, len] {
            fields.extend_from_slice(&word.to_le_bytes());
        }
        fields.extend_from_slice(&(name.len() as u16).to_le_bytes());
        fields.extend_from_slice(&[0, 0]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&fields);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(bytes);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&fields);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (at, count) = (out.len() as u32, files.len() as u16);
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ (crc & 1).wrapping_neg() & 0xedb8_8320)
    })
}
