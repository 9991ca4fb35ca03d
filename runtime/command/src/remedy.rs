//! What a user can do about an error of a library that both commands use, with the option that does it.

use trit_text::output::{OutputError, OutputProblem};

/// The error of an output file as a command says it: both commands name that file with `-o`.
pub fn output(error: &OutputError) -> String {
    output_of(error, "-o")
}

/// The error of an output file that another option names.
pub fn output_of(error: &OutputError, option: &str) -> String {
    match &error.problem {
        OutputProblem::DanglingLink => format!("{error}; remove it, or name another file with {option}"),
        OutputProblem::Folder { example } => {
            format!("{error}; name a file, such as {example}, with {option}")
        }
        OutputProblem::NotOrdinary => format!("{error}; name another with {option}"),
        OutputProblem::IsInput => format!("{error}; name another file with {option}"),
        OutputProblem::OtherKind { .. } => format!("{error}; remove it, or name another file with {option}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_that_another_name_solves_names_the_option() {
        let say = |problem| output(&OutputError { path: "out".into(), problem });
        assert_eq!(
            say(OutputProblem::Folder { example: "model.trit" }),
            "out: is a folder; name a file, such as model.trit, with -o"
        );
        assert_eq!(say(OutputProblem::NotOrdinary), "out: is not an ordinary file; name another with -o");
        for (problem, words) in [
            (OutputProblem::DanglingLink, "is a link to nothing; remove it"),
            (OutputProblem::IsInput, "is what is read; name another"),
            (OutputProblem::OtherKind { name: ".trit bundle" }, "exists and is no .trit bundle; remove it"),
        ] {
            let message = say(problem);
            assert!(message.contains(words) && message.ends_with("with -o"), "{message}");
        }
        assert_eq!(
            say(OutputProblem::NoFolder { folder: "there".into() }),
            "out: cannot be written: there is no folder there"
        );
    }
}
