//! `--prompt-cache FILE`: what ran in an earlier process need not run again.
//!
//! A file that cannot be used, because it belongs to another bundle or is damaged, is an error and stays as it is: to run
//! the whole prompt silently would hide that the file does not help, and to replace it could lose another bundle's.

use crate::args::Generate;
use crate::failure::{Failure, note};
use crate::interrupt;
use std::path::Path;
use std::sync::Arc;
use trit_command::remedy;
use trit_runtime::saved::{SAVED_FILE, save};
use trit_runtime::text::output;
use trit_runtime::{Model, RuntimeError, SavedSequences, Session};

/// The option, as messages name it.
const OPTION: &str = "--prompt-cache";

/// The file that was named.
pub struct PromptCache<'a> {
    path: &'a Path,
    read_only: bool,
    verbose: bool,
    /// What it held, until the first prompt has taken its part.
    saved: Option<SavedSequences>,
}

impl<'a> PromptCache<'a> {
    /// Refuses a file that can be neither read nor written, before a model is loaded.
    ///
    /// # Errors
    /// A usage failure.
    pub fn check(path: Option<&Path>, read_only: bool, bundle: &Path) -> Result<(), Failure> {
        let Some(path) = path else { return Ok(()) };
        if read_only && !path.exists() {
            let path = path.display();
            return Err(Failure::usage(format_args!(
                "{path}: there is no such file, and {OPTION}-ro makes none; run it once without {OPTION}-ro"
            )));
        }
        let checked = output::check(path, &SAVED_FILE, &[bundle]);
        checked.map_err(|error| Failure::usage(remedy::output_of(&error, OPTION)))
    }

    /// Opens the file, where one was named.
    ///
    /// # Errors
    /// Where it belongs to another bundle or is damaged.
    pub fn open(args: &'a Generate, model: &Arc<Model>) -> Result<Option<PromptCache<'a>>, Failure> {
        let Some(path) = &args.prompt_cache else { return Ok(None) };
        let saved = open(path, model)?;
        Ok(Some(PromptCache { path, read_only: args.prompt_cache_ro, verbose: args.verbose, saved }))
    }

    /// Gives a session what the file holds of its first prompt; nothing for later ones, of which the session knows more.
    ///
    /// # Errors
    /// Where that part of the file is damaged, or has other types of numbers than the session.
    pub fn warm(&mut self, session: &mut Session, ids: &[u32]) -> Result<(), Failure> {
        let Some(saved) = self.saved.take() else { return Ok(()) };
        let model = session.model().clone();
        let known = session.restore_from(&saved, ids).map_err(|error| failed(self.path, &model, error))?;
        if self.verbose {
            let (count, path) = (ids.len(), self.path.display());
            note(match known {
                0 => {
                    format!("prompt cache: {path} has nothing that this prompt of {count} tokens begins with")
                }
                _ => format!("prompt cache: {known} of {count} tokens of the prompt are from {path}"),
            });
        }
        Ok(())
    }

    /// Replaces the file with what the session has run; leaves it alone where that is nothing.
    ///
    /// # Errors
    /// Where it cannot be written. The file is then as it was.
    pub fn save(&self, session: &Session) -> Result<(), Failure> {
        if self.read_only || session.position() == 0 {
            return Ok(());
        }
        let saved = save(self.path, &[session.sequence()], interrupt::unfinished());
        saved.map_err(|error| not_written(self.path, session.model(), error))
    }
}

/// What a file holds; `None` where there is none.
///
/// # Errors
/// Where it belongs to another bundle or is damaged.
pub fn open(path: &Path, model: &Arc<Model>) -> Result<Option<SavedSequences>, Failure> {
    let opened = path.exists().then(|| SavedSequences::open(path, model)).transpose();
    opened.map_err(|error| failed(path, model, error))
}

/// The failure of writing the file.
pub fn not_written(path: &Path, model: &Model, error: RuntimeError) -> Failure {
    match error {
        RuntimeError::Output(error) => Failure::usage(remedy::output_of(&error, OPTION)),
        RuntimeError::Io { source, .. } => {
            Failure::invalid(path, format_args!("cannot be written: {source}"))
        }
        other => failed(path, model, other),
    }
}

/// The failure of what concerns the file, or else the bundle.
pub fn failed(path: &Path, model: &Model, error: RuntimeError) -> Failure {
    match error {
        RuntimeError::Saved { .. } | RuntimeError::Io { .. } => Failure::runtime(path, error),
        _ => Failure::runtime(model.path(), error),
    }
}
