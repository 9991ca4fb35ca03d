//! Chat templates: Jinja as transformers renders it.
//!
//! The conventions are those of `transformers.utils.chat_template_utils`: `trim_blocks` and `lstrip_blocks`, loop
//! controls, Python's string methods, `raise_exception`, `strftime_now`, and a `tojson` that writes what Python's
//! `json.dumps(ensure_ascii=False)` does. Templates come from files, so they run on a budget.

use crate::TextError;
pub use minijinja::value::Value;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, escape_formatter};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Instructions one rendering may take: some hundred times what a conversation of a thousand messages needs, and well
/// under a second.
const FUEL: u64 = 10_000_000;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Compiles a template. `special_tokens` are variables of it, such as (`bos_token`, `<s>`).
    ///
    /// # Errors
    /// [`TextError::Template`] with the line of a syntax error.
    pub fn new(source: &str, special_tokens: &[(String, String)]) -> Result<ChatTemplate, TextError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(python_formatter);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_template_owned("chat", source.to_owned()).map_err(failed)?;
        Ok(ChatTemplate { environment, special_tokens: special_tokens.iter().cloned().collect() })
    }

    /// The prompt for a conversation. `add_generation_prompt` ends it where the assistant is to speak.
    ///
    /// # Errors
    /// [`TextError::Template`] with what the template refused, or where it went wrong.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        self.render_values(messages.iter().map(Value::from_serialize).collect(), None, add_generation_prompt)
    }

    /// [`ChatTemplate::render`] for messages that have more than a role and a content, and for tools.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_values(
        &self,
        messages: Vec<Value>,
        tools: Option<Vec<Value>>,
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        let mut variables: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token))).collect();
        variables.insert("messages", messages.into());
        variables.insert("add_generation_prompt", add_generation_prompt.into());
        // transformers passes these too, and templates test them against none.
        variables.insert("tools", tools.into());
        variables.insert("documents", Value::from(()));
        self.environment.get_template("chat").and_then(|t| t.render(variables)).map_err(failed)
    }
}

fn failed(error: Error) -> TextError {
    let place = error.line().map_or(String::new(), |line| format!(" (line {line})"));
    TextError::Template(match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => format!("{detail}{place}"),
        Some(detail) => format!("{}: {detail}{place}", error.kind()),
        None => format!("{}{place}", error.kind()),
    })
}

/// Writes values as Python's `str` does.
fn python_formatter(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    let written = match value.kind() {
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::None => out.write_str("None"),
        _ => return escape_formatter(out, state, value),
    };
    written.map_err(|e| Error::new(ErrorKind::WriteFailure, e.to_string()))
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    // Python's other arguments change nothing that JSON readers see.
    let _: (Option<Value>, Option<Value>) = (kwargs.get("ensure_ascii")?, kwargs.get("sort_keys")?);
    kwargs.assert_all_used()?;
    let mut out = Vec::new();
    let done = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonFormatter)),
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))
        }
    };
    done.map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(String::from_utf8(out).expect("serde_json writes UTF-8"))
}

/// Spaces after commas and colons, as Python puts them.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    strftime(format, now).map_err(|unknown| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now does not know {unknown:?} in {format:?}"),
        )
    })
}

/// `strftime` for the directives that templates use, in UTC: local time zones are not known without the C library, and
/// a prompt that states a date means the day.
fn strftime(format: &str, unix: u64) -> Result<String, String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = (unix / 86400, unix % 86400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (weekday, month_name) = (DAYS[(days % 7) as usize], MONTHS[month as usize - 1]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next();
        out += &match directive {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('e') => format!("{day:2}"),
            Some('B') => month_name.to_owned(),
            Some('b') => month_name[..3].to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('H') => format!("{hour:02}"),
            Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{:02}", second % 60),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            other => return Err(format!("%{}", other.map_or(String::new(), String::from))),
        };
    }
    Ok(out)
}

/// Year, month and day of a day counted from 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms":
/// years begin in March, so that the leap day is the last).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{cases, fables, ids};

    fn render(source: &str, messages: &[Message]) -> Result<String, TextError> {
        let tokens =
            [("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())];
        ChatTemplate::new(source, &tokens)?.render(messages, true)
    }

    #[test]
    fn the_shipped_template_renders_as_in_transformers_with_one_bos() {
        let (tokenizer, cases) = (fables(), cases());
        let messages: Vec<Message> = serde_json::from_value(cases["chat"]["messages"].clone()).unwrap();
        let template = tokenizer.chat_template().unwrap().unwrap();
        assert_eq!(template.render(&messages, true).unwrap(), cases["chat"]["rendered"].as_str().unwrap());
        assert_eq!(tokenizer.encode_chat(&template, &messages).unwrap(), ids(&cases["chat"]["ids"]));
    }

    #[test]
    fn python_and_hugging_face_conventions_hold() {
        let user = [Message::new("user", " A & <b> \"é\" ")];
        let cases = [
            (
                "{%- for m in messages %}\n    {{- bos_token + m.content.strip() }}\n{%- endfor %}\n",
                "<s>A & <b> \"é\"",
            ),
            ("  {% if true %}\nx\n  {% endif %}\ny\n", "x\ny"),
            ("{{ messages[0] | tojson }}", r#"{"role": "user", "content": " A & <b> \"é\" "}"#),
            ("{{ [1, 'a'] | tojson(indent=2) }}", "[\n  1,\n  \"a\"\n]"),
            ("{{ messages[0]['role'].upper() }}{{ 'a,b'.split(',') | last }}", "USERb"),
            (
                "{% for m in messages %}{% break %}{% endfor %}{{ tools is none }}{{ unknown is defined }}{{ none }}",
                "TrueFalseNone",
            ),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "1",
            ),
            ("{% if messages[0].role.startswith('us') and not unknown %}{{ eos_token }}{% endif %}", "</s>"),
            ("{% if add_generation_prompt %}A:{% endif %}{{ missing }}", "A:"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source, &user).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn errors_say_what_and_where() {
        let refused = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert_eq!(refused.to_string(), "chat template: roles must alternate (line 1)");
        let syntax = render("\n{% for %}", &[]).unwrap_err().to_string();
        assert!(syntax.contains("syntax error") && syntax.contains("(line 2)"), "{syntax}");
        let unknown = render("{{ messages.frobnicate() }}", &[]).unwrap_err().to_string();
        assert!(unknown.contains("frobnicate"), "{unknown}");
        assert!(render("{{ strftime_now('%Q') }}", &[]).unwrap_err().to_string().contains("%Q"));
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let source = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let error = render(source, &[]).unwrap_err().to_string();
        assert!(error.contains("fuel"), "{error}");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(strftime("%d %b %Y", 0).unwrap(), "01 Jan 1970");
        assert_eq!(
            strftime("%A, %d %B %Y, %I:%M:%S %p", 951_868_799).unwrap(),
            "Tuesday, 29 February 2000, 11:59:59 PM"
        );
        assert_eq!(strftime("%F %T %e|%y|%a|%j", 4_107_542_400), Err("%j".to_owned()));
        assert_eq!(strftime("%F %T %H%%", 4_107_542_400).unwrap(), "2100-03-01 00:00:00 00%");
    }
}
