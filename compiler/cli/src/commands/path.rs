//! Paths on the command line that lead nowhere, or to something else than was meant.

use crate::failure::CommandError;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};
use tritc::load::{self, is_checkpoint};

/// Says early and helpfully that there is nothing at `path`.
pub fn expect_file(path: &Path) -> Result<(), CommandError> {
    if load::is_there(path)? {
        return Ok(());
    }
    let missing = path.ancestors().skip(1).find(|p| !p.as_os_str().is_empty() && !p.exists());
    let problem = match (missing, similar(path)) {
        (Some(_), _) if is_repository(path) => format!(
            "no such file; to compile a model of Hugging Face, download it first (hf download {} --local-dir DIR), \
             then name that folder",
            path.display()
        ),
        (Some(folder), _) => format!("no such file; there is no folder {}", folder.display()),
        (None, Some(other)) => format!("no such file; did you mean {}?", other.display()),
        (None, None) => "no such file".to_owned(),
    };
    Err(CommandError::NoSuchFile { path: path.to_owned(), problem })
}

/// Whether `path` could be the name of a model on Hugging Face: ORG/NAME, and no file's.
fn is_repository(path: &Path) -> bool {
    let parts: Vec<_> = path.components().collect();
    let plain = |part: &Component| matches!(part, Component::Normal(_));
    parts.len() == 2
        && parts.iter().all(plain)
        && !is_checkpoint(path)
        && path.extension() != Some("trit".as_ref())
}

/// The file beside `path` whose name is most like its own, if any is.
fn similar(path: &Path) -> Option<PathBuf> {
    let wanted = path.file_name()?.to_string_lossy().to_lowercase();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let likeness = |name: &OsStr| strsim::jaro_winkler(&wanted, &name.to_string_lossy().to_lowercase());
    let names = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let best = names.map(|name| (likeness(&name), name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.85).then(|| path.with_file_name(best.1))
}
