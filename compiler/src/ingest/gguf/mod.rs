//! Reads GGUF files: metadata and tensors enter, what the files of a checkpoint hold leaves.
//!
//! | module | does |
//! |---|---|
//! | `cursor`, `value`, `header` | parse hostile bytes |
//! | `types`, `layout` | tensor types; where each tensor lies |
//! | `parts` | files in several parts |
//! | `metadata`, `architecture`, `names` | keys and names become those of a checkpoint |
//! | `tokenizer`, `bpe`, `sentencepiece`, `template` | metadata to `tokenizer.json` and chat template |
//! | `trits`, `ternary` | ternary blocks to matrices |
//! | `floats` | other blocks to f32 |
//! | `order` | rows of q and k |
//! | `import` | all of it |

mod architecture;
mod bpe;
mod cursor;
mod floats;
mod header;
mod import;
mod layout;
mod metadata;
mod names;
mod order;
mod parts;
mod sentencepiece;
mod template;
mod ternary;
mod tokenizer;
mod trits;
mod types;
mod value;

pub(crate) use import::{Finish, Imported, import};
pub(crate) use order::in_order;
pub(crate) use ternary::ternary;
pub(crate) use types::BlockType;
