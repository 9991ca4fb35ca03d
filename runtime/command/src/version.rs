//! What `--version` prints after a program's name.

/// The version, the commit the program was built from where that is known, and what this program can do on this machine,
/// one line each.
pub fn text(version: &str, commit: Option<&str>, abilities: &[String]) -> String {
    let commit = commit.map_or(String::new(), |commit| format!(" ({commit})"));
    let first = format!("{version}{commit}");
    [&[first], abilities].concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn an_unknown_commit_is_left_out() {
        assert_eq!(text("1.0", Some("abc"), &["tiers: none".into()]), "1.0 (abc)\ntiers: none");
        assert_eq!(text("1.0", None, &[]), "1.0");
    }
}
