//! Files of a checkpoint: which belong together, mapped or read, watched for changes, digested.
//!
//! | module | does |
//! |---|---|
//! | `locate`, `folder` | finds the files that belong together |
//! | `mapped` | maps them |
//! | `unchanged` | notices who writes to them meanwhile |
//! | `model_files` | reads the small files beside the tensors |
//! | `digests` | digests them all |

pub(crate) mod digests;
mod folder;
pub(crate) mod locate;
pub(crate) mod mapped;
pub(crate) mod model_files;
pub(crate) mod unchanged;

pub use mapped::{MappingGuard, MappingHook, on_mapping};
pub use unchanged::Inputs;
