//! From a model in memory or a shipped checkpoint to a bundle, and what can be told of a bundle.

mod commands;
mod contents;
mod disturbed;
mod grouped;
mod memory;
mod mixed;
mod planes;
mod reference;
mod synthetic;
mod terminal;
mod verify;
mod weight_only;
mod writing;
