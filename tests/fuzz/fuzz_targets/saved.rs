//! A file of `--prompt-cache` for a small bundle: opened, restored, continued. The first byte chooses the bundle and whether the
//! digests are computed anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use trit_format::container::Digest;
use trit_format::saved::{ALIGNMENT, Expected, HEADER_BYTES, RecordHeader, Shapes};
use trit_fuzz::{assembled, running};
use trit_runtime::{EngineOptions, KvType, Model, SavedSequences, SequenceOptions, Session, StateType};

/// One with attention alone, one with recurrent states.
static MODELS: LazyLock<[Arc<Model>; 2]> = LazyLock::new(|| {
    [0, 3].map(|index| {
        let manifest = assembled::manifest(index);
        let file = assembled::file(&manifest, assembled::sections(&manifest, 1)).expect("it can be encoded");
        running::open(file).expect("the bundles of tests are valid")
    })
});

static ENGINES: LazyLock<[Arc<trit_runtime::Engine>; 2]> = LazyLock::new(|| {
    [0, 1].map(|index| {
        let options = EngineOptions { threads: Some(1), rows: 4, ..EngineOptions::default() };
        Arc::new(trit_runtime::Engine::new(MODELS[index].clone(), options).expect("one thread starts"))
    })
});

fuzz_target!(|data: &[u8]| {
    let Some((&flags, file)) = data.split_first() else { return };
    let index = usize::from(flags & 1);
    let model = &MODELS[index];
    let mut file = file.to_vec();
    if flags & 2 != 0 {
        repair(&mut file, model);
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("saved");
    std::fs::write(&path, &file).expect("there is room for a small file");
    let Ok(saved) = SavedSequences::open(&path, model) else { return };
    for nth in 0..saved.len().min(4) {
        let tokens = saved.tokens(nth).to_vec();
        let options = SequenceOptions {
            kv: [KvType::F16, KvType::F32, KvType::Int8][usize::from(flags >> 2) % 3],
            state: if flags & 128 != 0 { StateType::F16 } else { StateType::F32 },
            ..SequenceOptions::default()
        };
        for position in [tokens.len(), tokens.len() / 2] {
            let _ = saved.restore(nth, position, options);
        }
        let Ok(mut session) = Session::on(ENGINES[index].clone(), options) else { continue };
        let text: Vec<u32> = tokens.iter().copied().chain([1, 2]).take(32).collect();
        if let Ok(known) = session.restore_from(&saved, &text) {
            let _ = session.prefill(&text[known..]);
            session.truncate(1);
            let _ = session.decode(1);
        }
    }
});

/// Names the bundle in every record, counts its bytes, and computes its digests.
fn repair(file: &mut [u8], model: &Model) {
    let manifest = model.manifest();
    let expected = Expected {
        bundle: model.digest(),
        vocab_size: manifest.hyperparameters.vocab_size,
        context_length: manifest.hyperparameters.context_length,
        shapes: Shapes::of(manifest),
    };
    let (mut at, mut record) = (0, 0);
    while let Some(bytes) = file.get_mut(at..).filter(|bytes| bytes.len() >= HEADER_BYTES as usize) {
        bytes[64..96].copy_from_slice(&expected.bundle.0);
        let Ok(first) = bytes[..HEADER_BYTES as usize].try_into() else { return };
        let left = bytes.len() as u64;
        let Ok(header) = RecordHeader::parse(first, record, left, &expected) else { return };
        let overflow = "the header was parsed";
        let (shapes, mut digest_at) = (&expected.shapes, header.head_bytes() as usize);
        let pages = (0..header.pages()).map(|page| {
            let from = header.page_at(shapes, page).expect(overflow);
            (from, shapes.page_bytes(header.kv, header.rows(page)).expect(overflow))
        });
        let states = (0..header.states).map(|state| {
            let from = header.state_at(shapes, state).expect(overflow);
            (from, shapes.state_bytes(header.state).expect(overflow))
        });
        let parts: Vec<(u64, u64)> = pages.chain(states).collect();
        digest_at -= 32 * parts.len();
        for (from, len) in parts {
            let digest = Digest::of(&bytes[from as usize..][..len as usize]);
            bytes[digest_at..digest_at + 32].copy_from_slice(&digest.0);
            digest_at += 32;
        }
        bytes[96..128].fill(0);
        let digest = Digest::of(&bytes[..header.head_bytes() as usize]);
        bytes[96..128].copy_from_slice(&digest.0);
        assert!(header.len.is_multiple_of(ALIGNMENT) && header.len > 0);
        at += header.len as usize;
        record += 1;
    }
}
