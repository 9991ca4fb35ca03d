//! JSON that arrives piece by piece: is what came so far the beginning of a JSON value, and where in it are we?

/// Deepest nesting of what is read.
const MAX_DEPTH: usize = 128;

/// Reads one object or array, character by character.
#[derive(Clone, Debug, Default)]
pub(super) struct Scanner {
    /// The containers that are open, outermost first.
    open: Vec<Container>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// A value must come.
    #[default]
    Value,
    /// A value, or the end of the array that was just opened.
    ValueOrEnd,
    /// A key, or the end of the object that was just opened.
    KeyOrEnd,
    /// A key must come.
    Key,
    Colon,
    /// A comma, or the end of the container.
    CommaOrEnd,
    Text(Inside),
    /// The rest of `true`, `false` or `null`.
    Word(&'static str),
    Number(Digits),
    /// The outermost container is closed.
    Done,
}

/// Where in a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inside {
    key: bool,
    /// How many characters of an escape are left; `ESCAPE` after the backslash.
    escape: u8,
}

const ESCAPE: u8 = u8::MAX;

/// Where in a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// What a character is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Space,
    /// Of a key, with its quotation marks.
    Key,
    Colon,
    Comma,
    Open,
    Close,
    /// Of a string, a number or a word.
    Scalar,
}

/// The character fits no JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl Scanner {
    /// How many containers are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Takes the next character. Once one is invalid, all are.
    pub fn step(&mut self, c: char) -> Result<Role, Invalid> {
        let role = self.advance(c);
        if role.is_err() {
            self.open.clear();
            self.state = State::Done;
        }
        role
    }

    fn advance(&mut self, c: char) -> Result<Role, Invalid> {
        match self.state {
            State::Done => return Err(Invalid),
            State::Text(inside) => return self.text(c, inside),
            State::Word(rest) => {
                let rest = rest.strip_prefix(c).ok_or(Invalid)?;
                self.state = if rest.is_empty() { State::CommaOrEnd } else { State::Word(rest) };
                return Ok(Role::Scalar);
            }
            State::Number(digits) => match digits.next(c) {
                Some(digits) => {
                    self.state = State::Number(digits);
                    return Ok(Role::Scalar);
                }
                None if digits.may_end() => self.state = State::CommaOrEnd,
                None => return Err(Invalid),
            },
            _ => {}
        }
        if matches!(c, ' ' | '\t' | '\n' | '\r') {
            return Ok(Role::Space);
        }
        match (&self.state, c) {
            (State::Colon, ':') => {
                self.state = State::Value;
                Ok(Role::Colon)
            }
            (State::CommaOrEnd, ',') => {
                self.state = match self.open.last() {
                    Some(Container::Object) => State::Key,
                    _ => State::Value,
                };
                Ok(Role::Comma)
            }
            (State::CommaOrEnd | State::KeyOrEnd, '}') => self.close(Container::Object),
            (State::CommaOrEnd | State::ValueOrEnd, ']') => self.close(Container::Array),
            (State::Key | State::KeyOrEnd, '"') => {
                self.state = State::Text(Inside { key: true, escape: 0 });
                Ok(Role::Key)
            }
            (State::Value | State::ValueOrEnd, c) => self.value(c),
            _ => Err(Invalid),
        }
    }

    fn value(&mut self, c: char) -> Result<Role, Invalid> {
        let (container, state) = match c {
            '{' => (Container::Object, State::KeyOrEnd),
            '[' => (Container::Array, State::ValueOrEnd),
            // The outermost value is a container, whose end can be seen.
            _ if self.open.is_empty() => return Err(Invalid),
            c => {
                self.state = match c {
                    '"' => State::Text(Inside { key: false, escape: 0 }),
                    't' => State::Word("rue"),
                    'f' => State::Word("alse"),
                    'n' => State::Word("ull"),
                    '-' => State::Number(Digits::Minus),
                    '0' => State::Number(Digits::Zero),
                    '1'..='9' => State::Number(Digits::Whole),
                    _ => return Err(Invalid),
                };
                return Ok(Role::Scalar);
            }
        };
        if self.open.len() == MAX_DEPTH {
            return Err(Invalid);
        }
        self.open.push(container);
        self.state = state;
        Ok(Role::Open)
    }

    fn close(&mut self, container: Container) -> Result<Role, Invalid> {
        match self.open.pop() {
            Some(last) if last == container => {
                self.state = if self.open.is_empty() { State::Done } else { State::CommaOrEnd };
                Ok(Role::Close)
            }
            _ => Err(Invalid),
        }
    }

    fn text(&mut self, c: char, inside: Inside) -> Result<Role, Invalid> {
        let escape = match (inside.escape, c) {
            (0, '"') => {
                self.state = if inside.key { State::Colon } else { State::CommaOrEnd };
                return Ok(if inside.key { Role::Key } else { Role::Scalar });
            }
            (0, '\\') => ESCAPE,
            (0, c) if c >= ' ' => 0,
            (ESCAPE, 'u') => 4,
            (ESCAPE, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => 0,
            (left @ 1..=4, c) if c.is_ascii_hexdigit() => left - 1,
            _ => return Err(Invalid),
        };
        self.state = State::Text(Inside { escape, ..inside });
        Ok(if inside.key { Role::Key } else { Role::Scalar })
    }
}

impl Digits {
    fn next(self, c: char) -> Option<Digits> {
        Some(match (self, c) {
            (Digits::Minus, '0') => Digits::Zero,
            (Digits::Minus, '1'..='9') | (Digits::Whole, '0'..='9') => Digits::Whole,
            (Digits::Zero | Digits::Whole, '.') => Digits::Point,
            (Digits::Point | Digits::Fraction, '0'..='9') => Digits::Fraction,
            (Digits::Zero | Digits::Whole | Digits::Fraction, 'e' | 'E') => Digits::Exponent,
            (Digits::Exponent, '+' | '-') => Digits::Sign,
            (Digits::Exponent | Digits::Sign | Digits::Power, '0'..='9') => Digits::Power,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(self, Digits::Zero | Digits::Whole | Digits::Fraction | Digits::Power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether all of a text is one value.
    fn whole(text: &str) -> bool {
        let mut scanner = Scanner::default();
        text.chars().all(|c| scanner.step(c).is_ok()) && scanner.state == State::Done
    }

    #[test]
    fn what_it_takes_is_what_serde_json_takes() {
        for text in [
            "{}",
            "[]",
            r#"{"a":1}"#,
            r#"{"a":[1,-0.5e+3,"\u00e9\n\"",true,false,null,{}]}"#,
            " { \"a\" : [ ] } ",
            "[0]",
            "[01]",
            "[-]",
            "[1.]",
            "[1e]",
            "[.5]",
            "[+1]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "[1,]",
            "[1 2]",
            r#"{a:1}"#,
            r#"["\x"]"#,
            r#"["\u12g4"]"#,
            "[\"a\nb\"]",
            "[tru]",
            "[nulll]",
            "[1}",
            "{]",
            "{}{}",
            "[1",
            "",
        ] {
            // A value ends with its last bracket; nothing may follow, not even white space.
            let known = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(whole(text.trim_end()), known, "{text}");
        }
        assert!(!whole("5") && !whole("\"a\""));
        assert!(whole(&format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))));
        assert!(!whole(&format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1))));
    }

    #[test]
    fn roles_and_depth_say_where_it_is() {
        let mut scanner = Scanner::default();
        let roles: String = r#"{"k" :[1,"x"]}"#
            .chars()
            .map(|c| match scanner.step(c).unwrap() {
                Role::Space => ' ',
                Role::Key => 'k',
                Role::Colon => ':',
                Role::Comma => ',',
                Role::Open => '<',
                Role::Close => '>',
                Role::Scalar => 's',
            })
            .collect();
        assert_eq!(roles, "<kkk :<s,sss>>");
        assert!(scanner.state == State::Done && scanner.step(' ').is_err());
    }
}
