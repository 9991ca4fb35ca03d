//! Reading checkpoints: what is understood, and one test for each refusal with its message.

mod checkpoint;
mod config;
mod detect;
mod families;
mod files;
mod fixtures;
mod folders;
mod published;
mod storage;
mod survey;
mod text;
