//! What the user typed: a command, or something to say.

use std::path::PathBuf;

/// What `/help` prints.
pub const HELP: &str = "\
/system [TEXT]      show the system message, or say it anew; /system \"\" takes it away
/set [NAME VALUE]   show how tokens are chosen, or change it: /set temp 0.7
/retry              answer the last question again
/undo               take back the last question and its answer
/save FILE          write the conversation as JSON
/load FILE          go on with a conversation: {\"messages\": [...]} or a list of messages
/reset  /clear      forget everything but the system message
/help   /?          this
/quit   /exit /bye  leave; so does Ctrl-D, or Ctrl-C twice
Ctrl-C              while the model writes: stop it

A line that ends with \\ goes on in the next one. \"\"\" begins a text of several lines, which ends with \"\"\".
Pasted lines stay together. To say something that begins with / put a space before it.
";

/// Names of commands, for Tab.
pub const NAMES: [&str; 13] = [
    "/bye", "/clear", "/exit", "/help", "/load", "/quit", "/reset", "/retry", "/save", "/set", "/system",
    "/undo", "/?",
];

/// What opens and closes a text of several lines.
pub const QUOTES: &str = "\"\"\"";

/// What was entered.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// Nothing.
    Nothing,
    /// `/help`
    Help,
    /// `/quit`
    Quit,
    /// `/reset`
    Reset,
    /// `/undo`
    Undo,
    /// `/retry`
    Retry,
    /// `/system` without a text
    ShowSystem,
    /// `/system TEXT`; `None` takes it away
    System(Option<String>),
    /// `/set` without a name
    ShowSettings,
    /// `/set NAME VALUE`
    Set(String, String),
    /// `/save FILE`
    Save(PathBuf),
    /// `/load FILE`
    Load(PathBuf),
    /// Something to say.
    Text(String),
    /// Something that looks like a command and is none, with the reason.
    Wrong(String),
}

/// Reads an entry, which may have several lines.
pub fn read(entry: &str) -> Entered {
    if let Some(quoted) = quoted(entry) {
        return Entered::Text(quoted.to_owned());
    }
    let (word, rest) = word(entry);
    match word.strip_prefix('/') {
        // A path or a comment, which is something to say.
        Some(name) if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphabetic() || c == '?') => {}
        Some(name) => return command(name, rest.trim()),
        None => {}
    }
    // Who pastes lines pastes the last line's end too.
    match entry.trim().is_empty() {
        true => Entered::Nothing,
        false => Entered::Text(
            entry.strip_prefix(" /").map_or(entry, |_| &entry[1..]).trim_end_matches('\n').to_owned(),
        ),
    }
}

fn command(name: &str, argument: &str) -> Entered {
    let alone = |entered| match argument {
        "" => entered,
        _ => Entered::Wrong(format!(
            "/{name} takes nothing after it; put a space before it to say it to the model"
        )),
    };
    match name {
        "help" | "?" => alone(Entered::Help),
        "quit" | "exit" | "bye" => alone(Entered::Quit),
        "reset" | "clear" => alone(Entered::Reset),
        "undo" => alone(Entered::Undo),
        "retry" => alone(Entered::Retry),
        "system" => match (argument, quoted(argument)) {
            ("", _) => Entered::ShowSystem,
            ("\"\"", _) | (_, Some("")) => Entered::System(None),
            (_, Some(text)) => Entered::System(Some(text.to_owned())),
            (text, None) => Entered::System(Some(text.to_owned())),
        },
        "set" => match word(argument) {
            ("", _) => Entered::ShowSettings,
            // As it is typed elsewhere.
            ("system", text) => command("system", text.trim()),
            (name, value) => Entered::Set(name.to_owned(), value.trim().to_owned()),
        },
        "save" | "load" if argument.is_empty() => Entered::Wrong(format!("/{name} needs the name of a file")),
        "save" => Entered::Save(file(argument)),
        "load" => Entered::Load(file(argument)),
        _ => Entered::Wrong(format!(
            "/{name} is no command; /help lists them, and a space before it says it to the model"
        )),
    }
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

/// `~` is the shell's, but who types a name here expects it too.
fn file(name: &str) -> PathBuf {
    match (name.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(name),
    }
}

/// What stands between three quotation marks and three more: as it stands, but for the line break after the first and
/// before the last.
fn quoted(entry: &str) -> Option<&str> {
    let inside = entry.strip_prefix(QUOTES)?.trim_end().strip_suffix(QUOTES)?;
    let inside = inside.strip_prefix('\n').unwrap_or(inside);
    Some(inside.strip_suffix('\n').unwrap_or(inside))
}

/// Whether an entry has opened a text of several lines and not closed it.
pub fn is_open(entry: &str) -> bool {
    let opened =
        |text: &str| text.strip_prefix(QUOTES).is_some_and(|rest| !rest.trim_end().ends_with(QUOTES));
    opened(entry) || entry.starts_with('/') && opened(word(entry).1.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Entered {
        Entered::Text(text.into())
    }

    #[test]
    fn commands_and_their_other_names_are_known() {
        for (entry, expected) in [
            ("", Entered::Nothing),
            (" \t\n", Entered::Nothing),
            ("/help", Entered::Help),
            ("/? ", Entered::Help),
            ("/quit", Entered::Quit),
            ("/bye", Entered::Quit),
            ("/exit", Entered::Quit),
            ("/reset", Entered::Reset),
            ("/clear\n", Entered::Reset),
            ("/undo", Entered::Undo),
            ("/retry", Entered::Retry),
            ("/system", Entered::ShowSystem),
            ("/system  Be brief. ", Entered::System(Some("Be brief.".into()))),
            ("/system \"\"", Entered::System(None)),
            ("/system \"\"\"\n one\ntwo \n\"\"\"", Entered::System(Some(" one\ntwo ".into()))),
            ("/set", Entered::ShowSettings),
            ("/set temp 0.5", Entered::Set("temp".into(), "0.5".into())),
            ("/set temp", Entered::Set("temp".into(), "".into())),
            ("/set system Be kind.", Entered::System(Some("Be kind.".into()))),
            ("/save a b.json", Entered::Save("a b.json".into())),
            ("/load /tmp/x", Entered::Load("/tmp/x".into())),
        ] {
            assert_eq!(read(entry), expected, "{entry:?}");
        }
        for name in NAMES {
            assert!(!matches!(read(name), Entered::Text(_)), "{name}");
            assert!(HELP.contains(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_command_is_said_and_not_sent() {
        for entry in ["/sytem Be brief.", "/quit now", "/save", "/load ", "/HELP", "/nothing"] {
            assert!(matches!(read(entry), Entered::Wrong(_)), "{entry:?}: {:?}", read(entry));
        }
    }

    #[test]
    fn everything_else_is_said_as_it_stands() {
        for (entry, expected) in [
            ("  two spaces ", "  two spaces "),
            ("/usr/bin is what?", "/usr/bin is what?"),
            ("// a comment", "// a comment"),
            ("/", "/"),
            (" /help", "/help"),
            ("pasted\n\tlines\n\n", "pasted\n\tlines"),
            ("\"\"\"one\ntwo\"\"\"", "one\ntwo"),
            ("\"\"\"\n/help\n\n\"\"\"\n", "/help\n"),
            ("\"\"\"\"\"\"", ""),
            ("\"\" no quotes", "\"\" no quotes"),
        ] {
            assert_eq!(read(entry), text(expected), "{entry:?}");
        }
    }

    #[test]
    fn a_text_of_several_lines_is_open_until_it_is_closed() {
        for open in ["\"\"\"", "\"\"\"a", "\"\"\"a\n", "\"\"\"a\"\"\" b", "/system \"\"\"a\nb"] {
            assert!(is_open(open), "{open:?}");
        }
        for closed in
            ["", "a", "a \"\"\"", "\"\"\"a\"\"\"", "\"\"\"\na\n\"\"\" ", "/system \"\"\"a\"\"\"", "/x"]
        {
            assert!(!is_open(closed), "{closed:?}");
        }
    }
}
