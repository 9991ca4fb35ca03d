//! What a user types to get at the two commands, so that every message and hint names what this user has.
//!
//! There are programs called `tritc` and `trit-run`. Where both come as one program under another name, that program
//! says so once, before it runs either.

use std::sync::OnceLock;

/// What a user types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// For the compiler: the word or words before `compile`.
    pub compiler: &'static str,
    /// For the runtime: the word or words before a bundle.
    pub runtime: &'static str,
}

/// The names of the programs.
const PROGRAMS: Names = Names { compiler: "tritc", runtime: "trit-run" };

static NAMES: OnceLock<Names> = OnceLock::new();

impl Names {
    /// The program that runs the bundle: what messages of the runtime begin with.
    pub fn runtime_program(self) -> &'static str {
        self.runtime.split(' ').next().unwrap_or(self.runtime)
    }

    /// Whether both are one program, which then has completions and manual pages for both.
    pub fn are_one_program(self) -> bool {
        self.compiler == self.runtime_program()
    }
}

/// Sets the names for the process. The first call counts.
pub fn set(names: Names) {
    // A process is one program.
    let _ = NAMES.set(names);
}

/// The names that were set, or those of the programs.
pub fn names() -> Names {
    *NAMES.get().unwrap_or(&PROGRAMS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_both_is_known_by_its_first_word() {
        assert_eq!(PROGRAMS.runtime_program(), "trit-run");
        assert!(!PROGRAMS.are_one_program());
        let both = Names { compiler: "trit", runtime: "trit run" };
        assert_eq!(both.runtime_program(), "trit");
        assert!(both.are_one_program());
    }
}
