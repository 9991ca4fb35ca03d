//! A model whose tables are larger than what the runtime copies whatever it is used for: the shipped model with its
//! vocabulary many times over.

use crate::workbench::{compile_with, repository};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::path::{Path, PathBuf};

/// How often: the table then has 75 MB, and its planes some 40 MB.
const TIMES: usize = 24;
const TABLE: &str = "model.embed_tokens.weight";

/// The model as a bundle of that name in the tests' scratch folder. It has no tokenizer.
///
/// # Panics
/// If it does not compile.
pub fn bundle(name: &str) -> PathBuf {
    let folder = tempfile::tempdir().expect("a temporary folder");
    checkpoint(folder.path());
    compile_with(folder.path(), name, &[])
}

fn checkpoint(folder: &Path) {
    let small = repository().join("examples/models/fables-12m");
    let bytes = std::fs::read(small.join("model.safetensors")).expect("the shipped model");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let table = tensors.tensor(TABLE).expect("the table");
    let (rows, hidden) = (table.shape()[0], table.shape()[1]);
    let repeated = table.data().repeat(TIMES);
    let views = tensors.tensors().into_iter().map(|(name, tensor)| match name == TABLE {
        true => {
            let shape = vec![rows * TIMES, hidden];
            (name, TensorView::new(table.dtype(), shape, &repeated).expect("the same rows again"))
        }
        false => (name, tensor),
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors"))
        .expect("it can be written");
    let config = std::fs::read(small.join("config.json")).expect("the shipped model");
    let mut config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    config["vocab_size"] = (rows * TIMES).into();
    std::fs::write(folder.join("config.json"), config.to_string()).expect("it can be written");
}
