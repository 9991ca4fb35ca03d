//! Conversations in files: `/save` and `/load`.

use crate::{interrupt, json_file};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use trit_runtime::text::output::Pending;
use trit_runtime::text::{Conversation, Message};

/// What a file holds. A role stands before its content, as people read it.
#[derive(Serialize)]
struct Saved<'a> {
    messages: &'a [Message],
}

/// Writes a conversation as `{"messages": [{"role": .., "content": ..}, ..]}`: whole or not at all, and never over a
/// file that holds something else. Gives whether it replaced a conversation.
///
/// # Errors
/// One line for people, with the file's name.
pub fn save(path: &Path, conversation: &Conversation) -> Result<bool, String> {
    let name = path.display();
    let system = |error: std::io::Error| format!("{name}: {error}");
    // A link stays, and what it points to is replaced.
    let target = match fs::canonicalize(path) {
        Ok(target) => Some(target),
        Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => None,
        Err(error) => return Err(system(error)),
    };
    if target.is_some() {
        let other =
            |problem| format!("{name} is there and no conversation ({problem}); it stays, give another name");
        messages(path).map_err(other)?;
    }
    let path = target.as_deref().unwrap_or(path);
    let json = serde_json::to_string_pretty(&Saved { messages: conversation.messages() });
    let json = json.map_err(|e| format!("{name}: {e}"))?;
    let mut pending = Pending::create(path, interrupt::unfinished()).map_err(system)?;
    writeln!(pending.file(), "{json}").map_err(system)?;
    pending.keep().map_err(system)?;
    Ok(target.is_some())
}

/// Reads a conversation: what [`save`] wrote, or a bare list of messages. Also gives the names of what messages had
/// besides, which is left out.
///
/// # Errors
/// One line for people, with the file's name.
pub fn load(path: &Path) -> Result<(Conversation, Vec<String>), String> {
    let (messages, left_out) = messages(path).map_err(|problem| format!("{}: {problem}", path.display()))?;
    Ok((Conversation::from(messages), left_out))
}

fn messages(path: &Path) -> Result<(Vec<Message>, Vec<String>), String> {
    let found = fs::metadata(path).map_err(|e| e.to_string())?;
    if !found.is_file() {
        return Err("it is no file".into());
    }
    let bytes = json_file::bytes(File::open(path).map_err(|e| e.to_string())?)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| format!("it is no JSON: {e}"))?;
    let list = match value {
        Value::Array(list) => list,
        Value::Object(mut object) => match object.remove("messages") {
            Some(Value::Array(list)) => list,
            _ => return Err("it has no list \"messages\"".into()),
        },
        _ => return Err("it is neither a list of messages nor an object with \"messages\"".into()),
    };
    let mut left_out = Vec::new();
    let read =
        |(index, value)| message(value, &mut left_out).map_err(|e| format!("message {}: {e}", index + 1));
    let messages = list.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok((messages, left_out))
}

/// One message. What it has besides and is not empty is added to `left_out`, once each.
fn message(value: Value, left_out: &mut Vec<String>) -> Result<Message, String> {
    let Value::Object(mut object) = value else { return Err("it is no object".into()) };
    let mut text = |key: &str| match object.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) if key == "content" => parts.iter().map(part).collect(),
        Some(_) => Err(format!("its {key:?} is no text")),
        None => Err(format!("it has no {key:?}")),
    };
    let message = Message::new(&text("role")?, text("content")?);
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    };
    for (key, _) in object.into_iter().filter(|(_, value)| says(value)) {
        if !left_out.contains(&key) {
            left_out.push(key);
        }
    }
    Ok(message)
}

/// A part of a message, as some interfaces divide them.
fn part(part: &Value) -> Result<String, String> {
    let text = |object: &Map<String, Value>| match (object.get("type")?.as_str()?, object.get("text")?) {
        ("text", Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    part.as_object().and_then(text).ok_or_else(|| "a part of its \"content\" is no text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Conversation {
        let mut conversation = Conversation::new(Some("Be brief."));
        conversation.ask("Who?\n");
        conversation.answered(" The \"fox\" 🦊.\n\n");
        conversation
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        assert_eq!(save(&path, &conversation()), Ok(false));
        assert_eq!(load(&path), Ok((conversation(), vec![])));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.find("\"role\"") < text.find("\"content\"") && text.ends_with("}\n"), "{text}");
        assert_eq!(save(&path, &Conversation::new(None)), Ok(true), "a conversation may be replaced");
        assert_eq!(load(&path), Ok((Conversation::new(None), vec![])));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_is_no_conversation_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        for content in ["years of work", "", "{}", r#"{"messages": 1}"#, r#"[{"role": "user"}]"#] {
            fs::write(&precious, content).unwrap();
            let refused = save(&precious, &conversation()).unwrap_err();
            assert!(refused.contains("precious") && refused.contains("another name"), "{refused}");
            assert_eq!(fs::read_to_string(&precious).unwrap(), content);
        }
        assert!(save(folder.path(), &conversation()).unwrap_err().contains("no file"));
        let nowhere = save(&folder.path().join("no/such/folder.json"), &conversation()).unwrap_err();
        assert!(nowhere.contains("folder.json"), "{nowhere}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half written is left");
    }

    #[test]
    #[cfg(unix)]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        save(&file, &Conversation::new(None)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(save(&link, &conversation()), Ok(true));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(load(&file).unwrap().0, conversation());
        std::os::unix::fs::symlink(folder.path().join("gone"), folder.path().join("dangling")).unwrap();
        assert!(save(&folder.path().join("dangling"), &conversation()).is_err());
    }

    #[test]
    fn lists_and_what_other_programs_write_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            load(&path).map(|(c, left_out)| (c.messages().to_vec(), left_out))
        };
        let one = vec![Message::new("user", "Hi")];
        for (text, left_out) in [
            ("\u{feff}[{\"role\": \"user\", \"content\": \"Hi\"}]", vec![]),
            (
                r#"{"model": "x", "messages": [{"content": "Hi", "role": "user", "refusal": null, "annotations": []}]}"#,
                vec![],
            ),
            (r#"[{"role": "user", "content": "Hi", "name": "Ann"}]"#, vec!["name".to_owned()]),
            (
                r#"[{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}]"#,
                vec![],
            ),
        ] {
            assert_eq!(read(text), Ok((one.clone(), left_out)), "{text}");
        }
        for (text, words) in [
            ("", "no JSON"),
            ("7", "neither"),
            (r#"{"messages": {}}"#, "\"messages\""),
            ("[7]", "message 1: it is no object"),
            (
                r#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null}]"#,
                "message 2: its \"content\"",
            ),
            (r#"[{"content": "Hi"}]"#, "no \"role\""),
            (r#"[{"role": "user", "content": [{"type": "image_url"}]}]"#, "part"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words) && error.contains("talk.json"), "{text}: {error}");
        }
        assert!(load(&folder.path().join("none")).is_err());
    }
}
