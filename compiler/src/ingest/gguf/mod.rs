//! Reads GGUF files: metadata and tensors enter, what a Hugging Face checkpoint would hold leaves.
//!
//! | module | does |
//! |---|---|
//! | `cursor`, `value`, `header` | parse hostile bytes |
//! | `types`, `layout` | tensor types; where each tensor lies |
//! | `parts` | files in several parts |

mod cursor;
mod header;
mod layout;
mod parts;
mod types;
mod value;

pub(crate) use parts::Gguf;
pub(crate) use types::BlockType;
