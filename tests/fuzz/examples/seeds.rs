//! Writes the seeds that are bundles or belong to one: `cargo run --example seeds`, in this folder. `seeds.py` writes the others.

use ed25519_dalek::SigningKey;
use std::path::Path;
use trit_format::container::{Header, SectionKind};
use trit_format::program::Trailer;
use trit_format::signature::{PublicKey, Signature};
use trit_fuzz::{assembled, running};
use trit_runtime::{KvType, Session, SessionOptions};

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn with(first: u8, bytes: &[u8]) -> Vec<u8> {
    [&[first], bytes].concat()
}

fn main() {
    let names = ["plain", "grouped", "signs", "recurrent", "coded"];
    for (index, name) in (0..).zip(names) {
        let mut manifest = assembled::manifest(index);
        let mut sections = assembled::sections(&manifest, 0);
        // Code is never run here; without it seeds are small.
        manifest.kernels.clear();
        sections.retain(|(kind, _)| !matches!(kind, SectionKind::Code(_)));
        // Bytes that repeat, so that planes are short.
        for (kind, bytes) in &mut sections {
            if matches!(kind, SectionKind::Planes | SectionKind::Weights) {
                bytes.fill(0);
            }
        }
        let file = assembled::file(&manifest, sections).unwrap();
        write("bundle", name, &with(1, &assembled::short(&file)));
        if index == 0 {
            program(&file);
        }
        // Bundle, values, whether it grows, cache, states, tokens; then no change, or bytes that become some.
        let unchanged = [index, 7, 0, 0, 0, 1, 2, 3, 4];
        write("plan", name, &unchanged);
        let changes = (0u32..96).map(|i| (i * i * 31 + i * (37 + u32::from(index)) >> 3) as u8);
        write("plan", &format!("{name}-changed"), &unchanged.into_iter().chain(changes).collect::<Vec<u8>>());
    }
    for (first, index) in [(2, 0), (3, 3)] {
        for (kv, name) in [(KvType::F16, "f16"), (KvType::F32, "f32"), (KvType::Int8, "int8")] {
            let manifest = assembled::manifest(index);
            let file = assembled::file(&manifest, assembled::sections(&manifest, 1)).unwrap();
            let model = running::open(file).unwrap();
            let options = SessionOptions { threads: Some(1), kv, ..SessionOptions::default() };
            let mut session = Session::new(model, options).unwrap();
            session.prefill(&[1, 2, 3, 4, 5]).unwrap();
            let path = std::env::temp_dir().join("trit-fuzz-seed");
            session.save(&path).unwrap();
            let flags = first | (kv as u8) << 2;
            write(
                "saved",
                &format!("{}-{name}", names[index as usize]),
                &with(flags, &std::fs::read(&path).unwrap()),
            );
            std::fs::remove_file(&path).unwrap();
        }
    }
    let key = SigningKey::from_bytes(&[7; 32]);
    write("signature", "key", &with(0, PublicKey::of(&key).to_pem().as_bytes()));
    let signature = Signature::sign(b"the header of a bundle", &key).encode();
    write("signature", "signature", &with(1, signature.as_bytes()));
}

fn program(bundle: &[u8]) {
    let mut file = vec![0x7f; 64];
    file.resize(64 << 10, 0);
    let offset = file.len() as u64;
    file.extend_from_slice(bundle);
    let head = &bundle[..Header::announced(bundle) as usize];
    let signature = Signature::sign(head, &SigningKey::from_bytes(&[7; 32])).encode();
    file.extend_from_slice(signature.as_bytes());
    let trailer = Trailer { offset, len: bundle.len() as u64, signature: signature.len() as u32 };
    file.extend_from_slice(&trailer.encode(head, signature.as_bytes()));
    write("program", "signed", &with(1, &assembled::short(&file)));
}
