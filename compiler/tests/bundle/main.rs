//! From a model in memory or a shipped checkpoint to a bundle, and what can be told of a bundle.

mod contents;
mod disturbed;
mod grouped;
mod handmade;
mod mixed;
mod planes;
mod reference;
mod synthetic;
mod verify;
mod weight_only;
mod writing;
