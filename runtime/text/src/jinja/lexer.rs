//! Template source to tokens, as `jinja2/lexer.py` cuts it with `trim_blocks` and `lstrip_blocks`.
//!
//! Line ends become `\n` first, and one line end at the end of the source is dropped. Whitespace around tags is
//! removed here, so the parser sees only text that is printed.

use super::error::{Error, Kind, Result};
use super::literals;
use super::unicode::is_space;

/// A token and the line it begins on.
#[derive(Clone, Debug)]
pub struct Token {
    pub line: u32,
    pub kind: Tok,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Tok {
    Data(String),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

impl Tok {
    /// The token as an error message shows it.
    pub fn describe(&self) -> String {
        match self {
            Tok::Data(_) => "template data".into(),
            Tok::VariableBegin => "begin of print statement".into(),
            Tok::VariableEnd => "end of print statement".into(),
            Tok::BlockBegin => "begin of statement block".into(),
            Tok::BlockEnd => "end of statement block".into(),
            Tok::Name(name) => format!("{name:?}"),
            Tok::Str(_) => "string".into(),
            Tok::Int(_) => "integer".into(),
            Tok::Float(_) => "float".into(),
            Tok::Op(op) => format!("{op:?}"),
            Tok::End => "end of template".into(),
        }
    }
}

/// Longest first, so that `**` is not taken for two of `*`.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

pub fn syntax(message: impl Into<String>, line: u32) -> Error {
    Error::new(Kind::Syntax, message).at(line)
}

pub fn tokens(source: &str) -> Result<Vec<Token>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer { source: &source, at: 0, line: 1, line_starting: true, tokens: Vec::new() };
    lexer.root()?;
    let line = lexer.line;
    lexer.push(line, Tok::End);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    /// Whether what was consumed last ended a line.
    line_starting: bool,
    tokens: Vec<Token>,
}

/// What opens at a `{`.
enum Opening {
    Raw,
    Block,
    Variable,
    Comment,
}

fn newlines(text: &str) -> u32 {
    text.bytes().filter(|b| *b == b'\n').count() as u32
}

fn skip_space(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_space).len()
}

impl<'a> Lexer<'a> {
    fn push(&mut self, line: u32, kind: Tok) {
        self.tokens.push(Token { line, kind });
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn consume(&mut self, bytes: usize) {
        let text = &self.rest()[..bytes];
        self.line += newlines(text);
        if let Some(last) = text.bytes().last() {
            self.line_starting = last == b'\n';
        }
        self.at += bytes;
    }

    fn root(&mut self) -> Result<()> {
        while self.at < self.source.len() {
            let rest = self.rest();
            let Some((text, opening, length, sign)) = next_opening(rest) else {
                let line = self.line;
                self.push(line, Tok::Data(rest.to_owned()));
                self.consume(rest.len());
                break;
            };
            self.data(text, sign, !matches!(opening, Opening::Variable));
            self.consume(text.len());
            let line = self.line;
            self.consume(length);
            match opening {
                Opening::Raw => self.raw(line)?,
                Opening::Comment => self.comment(line)?,
                Opening::Block => {
                    self.push(line, Tok::BlockBegin);
                    self.tag(true)?;
                }
                Opening::Variable => {
                    self.push(line, Tok::VariableBegin);
                    self.tag(false)?;
                }
            }
        }
        Ok(())
    }

    /// Text before a tag, less the whitespace that its sign or `lstrip_blocks` takes away.
    fn data(&mut self, text: &str, sign: Option<u8>, lstrip: bool) {
        let mut kept = text;
        if sign == Some(b'-') {
            kept = text.trim_end_matches(is_space);
        } else if sign != Some(b'+') && lstrip {
            let start = text.rfind('\n').map_or(0, |i| i + 1);
            if (start > 0 || self.line_starting) && text[start..].chars().all(is_space) {
                kept = &text[..start];
            }
        }
        if !kept.is_empty() {
            let line = self.line;
            self.push(line, Tok::Data(kept.to_owned()));
        }
    }

    fn comment(&mut self, line: u32) -> Result<()> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else {
            // Jinja2 misses the end only where there is something to end.
            return if rest.is_empty() { Ok(()) } else { Err(syntax("missing end of comment tag", line)) };
        };
        let length = end + self.closing(&rest[..end], &rest[end + 2..]);
        self.consume(length);
        Ok(())
    }

    /// Bytes from a closing delimiter on: two, and the whitespace that belongs to it.
    fn closing(&self, before: &str, after: &str) -> usize {
        match before.as_bytes().last() {
            Some(b'-') => 2 + skip_space(after),
            Some(b'+') => 2,
            _ => 2 + usize::from(after.starts_with('\n')),
        }
    }

    fn raw(&mut self, line: u32) -> Result<()> {
        let rest = self.rest();
        let mut from = 0;
        while let Some(found) = rest[from..].find("{%") {
            let start = from + found;
            let mut at = start + 2;
            let sign = rest[at..].bytes().next().filter(|b| matches!(b, b'-' | b'+'));
            at += usize::from(sign.is_some());
            at += skip_space(&rest[at..]);
            if let Some(end) = rest[at..].strip_prefix("endraw") {
                let space = skip_space(end);
                let closing = &end[space..];
                at += "endraw".len() + space;
                let sign_length = usize::from(closing.starts_with(['-', '+']));
                if closing[sign_length..].starts_with("%}") {
                    let after = &closing[sign_length + 2..];
                    let length = at + sign_length + self.closing(&closing[..sign_length], after);
                    self.data(&rest[..start], sign, true);
                    self.consume(length);
                    return Ok(());
                }
            }
            from = start + 2;
        }
        if rest.is_empty() { Ok(()) } else { Err(syntax("missing end of raw directive", line)) }
    }

    /// Tokens up to the end of a block (`%}`) or of a variable (`}}`).
    fn tag(&mut self, block: bool) -> Result<()> {
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            let rest = self.rest();
            let line = self.line;
            if open.is_empty()
                && let Some(length) = tag_end(rest, block)
            {
                self.push(line, if block { Tok::BlockEnd } else { Tok::VariableEnd });
                self.consume(length);
                return Ok(());
            }
            let Some(first) = rest.chars().next() else {
                // The parser reports what is missing.
                return Ok(());
            };
            if is_space(first) {
                self.consume(skip_space(rest));
            } else if first.is_ascii_digit() {
                let after_dot = self.source[..self.at].ends_with('.');
                let (kind, length) = literals::number(rest, after_dot, line)?;
                self.push(line, kind);
                self.consume(length);
            } else if first.is_ascii_alphabetic() || first == '_' {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                if let Some(c) = rest[end..].chars().next().filter(|c| c.is_alphanumeric()) {
                    return Err(Error::new(Kind::Unsupported, format!("{c:?} in a name")).at(line));
                }
                self.push(line, Tok::Name(rest[..end].to_owned()));
                self.consume(end);
            } else if first == '\'' || first == '"' {
                let (text, length) = literals::string(rest, line)?;
                self.push(line, Tok::Str(text));
                self.consume(length);
            } else if let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) {
                match *op {
                    "{" => open.push("}"),
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "}" | ")" | "]" => match open.pop() {
                        None => return Err(syntax(format!("unexpected '{op}'"), line)),
                        Some(expected) if expected != *op => {
                            return Err(syntax(format!("unexpected '{op}', expected '{expected}'"), line));
                        }
                        Some(_) => {}
                    },
                    _ => {}
                }
                self.push(line, Tok::Op(op));
                self.consume(op.len());
            } else if first.is_alphanumeric() {
                return Err(Error::new(Kind::Unsupported, format!("{first:?} in a name")).at(line));
            } else {
                return Err(syntax(format!("unexpected character {first:?}"), line));
            }
        }
    }
}

fn tag_end(rest: &str, block: bool) -> Option<usize> {
    let (close, signs): (&str, &[u8]) = if block { ("%}", b"-+") } else { ("}}", b"-") };
    let sign = rest.bytes().next().filter(|b| signs.contains(b));
    let length = usize::from(sign.is_some());
    let after = rest[length..].strip_prefix(close)?;
    Some(match sign {
        Some(b'-') => 3 + skip_space(after),
        Some(_) => 3,
        None => 2 + usize::from(block && after.starts_with('\n')),
    })
}

/// The text before the next tag, what opens, how many bytes that takes, and its sign.
fn next_opening(rest: &str) -> Option<(&str, Opening, usize, Option<u8>)> {
    let bytes = rest.as_bytes();
    let start = bytes.windows(2).position(|pair| matches!(pair, b"{%" | b"{{" | b"{#"))?;
    let sign = bytes.get(start + 2).copied().filter(|b| matches!(b, b'-' | b'+'));
    let length = 2 + usize::from(sign.is_some());
    let text = &rest[..start];
    Some(match bytes[start + 1] {
        b'{' => (text, Opening::Variable, length, sign),
        b'#' => (text, Opening::Comment, length, sign),
        _ => match raw_begin(&rest[start + length..]) {
            Some(more) => (text, Opening::Raw, length + more, sign),
            None => (text, Opening::Block, length, sign),
        },
    })
}

/// Bytes of `raw %}`, where that is what follows.
fn raw_begin(rest: &str) -> Option<usize> {
    let name = skip_space(rest);
    let after = rest[name..].strip_prefix("raw")?;
    let space = skip_space(after);
    let after = &after[space..];
    let so_far = name + "raw".len() + space;
    match after.strip_prefix("-%}") {
        Some(body) => Some(so_far + 3 + skip_space(body)),
        None => after.starts_with("%}").then_some(so_far + 2),
    }
}
