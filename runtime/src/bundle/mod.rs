//! An open bundle: where its bytes come from, what is checked of them, and where they are kept.
//!
//! A file, or another source of bytes, enters. Header, manifest, tokenizer, tables of floats and the ternary weights
//! leave, each read once and checked on the copy that is used.
//!
//! | module | holds |
//! |---|---|
//! | `source` | where bytes come from: a file, a part of one, or a source of the program's own |
//! | `storage` | an open source: reading, digests, copies in huge pages, mappings |
//! | `mapping`, `mapped_files` | mapping a file, and telling the program which files are mapped |
//! | `front` | header, manifest and tokenizer: what a bundle says of itself |
//! | `tables` | tensors of floats: vectors, embeddings, heads |
//! | `recode` | weights stored anew in the code that every CPU reads |
//! | `trust` | which bundles' own machine code may run |
//! | `texts` | tokenizer and chat template alone, without weights |

pub(crate) mod front;
pub(crate) mod mapped_files;
pub(crate) mod mapping;
pub(crate) mod recode;
pub mod source;
pub(crate) mod storage;
pub(crate) mod tables;
pub(crate) mod texts;
pub(crate) mod trust;
