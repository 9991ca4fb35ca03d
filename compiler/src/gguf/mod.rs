//! Reads GGUF files: metadata and tensors enter, what the files of a checkpoint hold leaves.
//!
//! | module | does |
//! |---|---|
//! | `cursor`, `value`, `header` | parse hostile bytes |
//! | `types`, `layout` | tensor types; where each tensor lies |
//! | `parts` | files in several parts |
//! | `metadata`, `architecture`, `architecture_keys`, `names` | keys and names become those of a checkpoint |
//! | `qwen35`, `hadamard` | what only hybrids have: heads in another order, a draft block, rotated weights |
//! | `tokenizer`, `bpe`, `sentencepiece`, `template` | metadata to `tokenizer.json` and chat template |
//! | `import` | all of it |
//!
//! What blocks of weights hold is in `crate::weights`.

mod architecture;
mod architecture_keys;
mod bpe;
mod cursor;
mod hadamard;
mod header;
mod import;
mod layout;
mod metadata;
mod names;
mod parts;
mod qwen35;
mod sentencepiece;
mod template;
mod tokenizer;
mod types;
mod value;

pub(crate) use import::{Imported, import};
