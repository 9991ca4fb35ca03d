//! What loading a bent file complains about, in the words of the command.

use crate::words;
use crate::writer::File;

impl File {
    /// What loading complains about, with the exit code in front.
    pub fn error(&self) -> String {
        match self.load() {
            Ok(_) => panic!("it is read"),
            Err(e) => format!("[{}] {}", words::exit_code(&e), words::message(&e)),
        }
    }

    /// Demands that it is refused with each of `words`, and that the message names the file.
    pub fn refused(&self, words: &[&str]) {
        let error = self.error();
        for word in words.iter().chain(&["model.gguf"]) {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    }
}
