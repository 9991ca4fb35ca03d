//! Plans that are nearly valid: a small bundle with a few changes of its manifest, digests computed anew. What is accepted reads what it
//! wrote and nothing else, as the format's own tests follow it; it runs without a fault, and gives the same logits however its tokens
//! are grouped.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trit_format::container::{Header, SectionKind};
use trit_format::draft;
use trit_format::manifest::Manifest;
use trit_fuzz::edits::{Edit, apply};
use trit_fuzz::{assembled, bundle, running};

/// Most bytes of a row whose every byte is followed. The small bundles' have fewer; more of them take time and show nothing else.
const MOST_FOLLOWED: u64 = 1 << 16;

#[derive(Debug, Arbitrary)]
struct Input {
    bundle: u8,
    /// What tensors and weights hold.
    values: u8,
    /// Whether sections are as long as the changed manifest wants.
    grown: bool,
    kv: u8,
    narrow: bool,
    tokens: [u8; 4],
    edits: Vec<Edit>,
}

fuzz_target!(|input: Input| {
    let model = assembled::manifest(input.bundle);
    let mut sections = assembled::sections(&model, input.values);
    // Of a bundle with a draft block that block's plan is changed, beside the records that both plans share.
    let draft = assembled::draft(input.bundle);
    let mut manifest = draft.map_or_else(|| model.clone(), |plan| draft::of_model(&model, plan));
    for edit in input.edits.iter().take(12) {
        if apply(&mut manifest, edit).is_none() {
            return;
        }
    }
    let edited = manifest.clone();
    let is_draft = assembled::draft(input.bundle).is_some();
    if is_draft {
        let Manifest { plan, hyperparameters, goldens, .. } = model;
        let edited = std::mem::replace(&mut manifest.plan, plan);
        let Ok(bytes) = draft::encode(&edited) else { return };
        sections.push((SectionKind::Draft, bytes));
        (manifest.hyperparameters, manifest.goldens) = (hyperparameters, goldens);
    }
    if input.grown {
        for (kind, len) in lengths(&manifest) {
            if len > running::MOST {
                return;
            }
            for (_, bytes) in sections.iter_mut().filter(|(of, _)| *of == kind) {
                bytes.resize(len as usize, input.values);
            }
        }
    }
    let Some(file) = assembled::file(&manifest, sections) else { return };
    // Loading does this too, but only after it has looked at all of the file.
    let header = Header::parse_head(&file, file.len() as u64).expect("the sections were laid out");
    if manifest.validate(&header).is_err() {
        return;
    }
    let mut followed = manifest.clone();
    if is_draft {
        let bytes = draft::encode(&edited.plan).expect("it was encoded before");
        let Ok(read) = draft::decode(&bytes, &manifest) else { return };
        assert!(read.plan == edited.plan);
        if !running::is_small(&read) {
            return;
        }
        followed = read;
    }
    if followed.plan.row_bytes <= MOST_FOLLOWED {
        bundle::accesses::run(&file, &header, &followed);
    }
    if let Some(model) = running::open(file) {
        let vocab = manifest.hyperparameters.vocab_size;
        let tokens = input.tokens.map(|token| u32::from(token) % vocab.max(1));
        running::run(&model, &tokens, running::Choices { kv: input.kv, narrow: input.narrow });
    }
});

/// The bytes that weights and tensors of a manifest take.
fn lengths(manifest: &Manifest) -> [(SectionKind, u64); 2] {
    let end = |at: u64, len: Option<u64>| at.saturating_add(len.unwrap_or(0));
    let weights = manifest.packed_matrices.iter().map(|p| end(p.offset, p.bytes())).max();
    let tensors = manifest.tensors.iter().map(|t| end(t.offset, t.bytes())).max();
    [(SectionKind::Weights, weights.unwrap_or(0)), (SectionKind::Tensors, tensors.unwrap_or(0))]
}
