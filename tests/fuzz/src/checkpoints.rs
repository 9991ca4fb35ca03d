//! Checkpoints of a stranger: files enter a folder of their own, which is read as `tritc compile` reads one.

use std::path::Path;
use tempfile::TempDir;
use tritc::load::{self, LoadOptions, Quantize};
use tritc::reference;

/// Most multiplications of a token of a model that is run.
const MOST_WORK: u64 = 4 << 20;

/// A folder of files, by name.
pub fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("there is room for a small file");
    }
    folder
}

/// Reads a checkpoint. What is read whole computes logits, for which all of its weights are decoded. The bits of `flags` choose
/// options.
pub fn read(path: &Path, flags: u8) {
    let _ = load::survey(path, &options(flags));
    let Ok(model) = load::load(path, &options(flags)) else { return };
    let sizes = &model.hyperparameters;
    let product = |numbers: &[u32]| numbers.iter().fold(1u64, |n, &by| n.saturating_mul(by.into()));
    let layer = product(&[sizes.hidden_dim, sizes.ffn_dim]).saturating_add(product(&[
        sizes.hidden_dim,
        sizes.n_heads.saturating_add(sizes.n_kv_heads),
        sizes.head_dim,
    ]));
    let work = layer
        .saturating_mul(sizes.n_layers.into())
        .saturating_add(product(&[sizes.vocab_size, sizes.hidden_dim]));
    if work <= MOST_WORK {
        let _ = reference::logits(&model, &[0, sizes.vocab_size.saturating_sub(1)]);
    }
}

fn options(flags: u8) -> LoadOptions {
    LoadOptions {
        quantize: (flags & 1 != 0).then_some(Quantize::Absmean),
        tolerance: (flags & 2 != 0).then_some(0.01),
        without_tokenizer: flags & 4 != 0,
        ..LoadOptions::default()
    }
}
