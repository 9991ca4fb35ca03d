//! Reads GGUF files: metadata and tensors enter, what the files of a checkpoint hold leaves.
//!
//! | module | does |
//! |---|---|
//! | `cursor`, `value`, `header` | parse hostile bytes |
//! | `types`, `layout` | tensor types; where each tensor lies |
//! | `parts` | files in several parts |
//! | `i2s` | the layout of I2_S tensors, once for a file |
//! | `metadata`, `architecture`, `architecture_keys`, `names` | keys and names become those of a checkpoint |
//! | `minicpm` | what only MiniCPM has: factors, and divisors of frequencies as tensors |
//! | `qwen35`, `hadamard` | what only hybrids have: heads in another order, a draft block, rotated weights |
//! | `tokenizer`, `bpe`, `patterns`, `sentencepiece`, `template` | metadata to `tokenizer.json` and chat template |
//! | `sampling` | metadata to `generation_config.json` |
//! | `import` | all of it |
//!
//! What blocks of weights hold is in `crate::weights`.

mod architecture;
mod architecture_keys;
mod bpe;
mod cursor;
mod hadamard;
mod header;
mod i2s;
mod import;
mod layout;
mod metadata;
mod minicpm;
mod names;
mod parts;
mod patterns;
mod qwen35;
mod sampling;
mod sentencepiece;
mod template;
mod tokenizer;
mod types;
mod value;

pub(crate) use i2s::not_there;
pub(crate) use import::{Imported, import};
