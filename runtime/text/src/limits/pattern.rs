//! Regular expressions in a `tokenizer.json`. Some are refused before an engine sees them, because compiling them takes too
//! much memory, matching them takes too much time, or their matches are not what splitting a text expects.
//!
//! The engine matches most expressions with automata, in linear time. Only expressions that look around need backtracking, so
//! only for those it matters how repetitions are nested.

/// Longest expression in bytes, and with every counted repetition written out. An automaton takes up to 20 kB for each.
const MAX_LENGTH: usize = 4096;
/// Groups inside groups.
const MAX_DEPTH: usize = 32;

/// What is known of an expression.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Bytes of its shortest match; 0 where it is not known.
    pub(super) shortest: usize,
    /// Whether it may match nothing at all, as far as is known.
    pub(super) matches_nothing: bool,
}

/// Checks an expression.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(pattern: &str) -> Result<Pattern, String> {
    if pattern.is_empty() {
        return Err("is empty".to_owned());
    }
    if pattern.len() > MAX_LENGTH {
        return Err(format!("has {} bytes, expected no more than {MAX_LENGTH}", pattern.len()));
    }
    let mut scan = Scan { text: pattern.as_bytes(), at: 0, backtracks: false, nested: false, depth: 0 };
    let group = scan.group()?;
    if scan.at < scan.text.len() {
        return Err("closes a group that was not opened".to_owned());
    }
    if group.length > MAX_LENGTH {
        return Err(format!("repeats more than {MAX_LENGTH} characters"));
    }
    // Without looking around, a library of automata reads it, and knows its shortest match. What it does not read is
    // left to the engine to refuse.
    let parsed = regex_syntax::parse(pattern).ok();
    if (scan.backtracks || parsed.is_none()) && scan.nested {
        return Err("looks around and repeats what is repeated already, which may take for ever".to_owned());
    }
    let shortest = parsed.as_ref().map(|hir| hir.properties().minimum_len().unwrap_or(0));
    Ok(Pattern { shortest: shortest.unwrap_or(0), matches_nothing: shortest == Some(0) })
}

/// Goes over an expression once.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether it looks around.
    backtracks: bool,
    /// Whether something without end is repeated without end.
    nested: bool,
    depth: usize,
}

/// A part of an expression.
#[derive(Clone, Copy, Default)]
struct Extent {
    /// Characters, repetitions written out.
    length: usize,
    /// Whether something in it is repeated without end.
    endless: bool,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Reads up to the end, or to the bracket that closes the group.
    fn group(&mut self) -> Result<Extent, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("nests more than {MAX_DEPTH} groups"));
        }
        let mut whole = Extent::default();
        while let Some(byte) = self.peek().filter(|byte| *byte != b')') {
            self.at += 1;
            let atom = match byte {
                b'(' => {
                    self.opening()?;
                    let inner = self.group()?;
                    if self.peek() != Some(b')') {
                        return Err("opens a group that is not closed".to_owned());
                    }
                    self.at += 1;
                    inner
                }
                b'[' => self.class()?,
                b'\\' => self.escape()?,
                b'|' => continue,
                _ => Extent { length: 1, endless: false },
            };
            let atom = self.repeated(atom);
            whole.length = whole.length.saturating_add(atom.length);
            whole.endless |= atom.endless;
        }
        self.depth -= 1;
        Ok(whole)
    }

    /// What stands between a group's bracket and its contents.
    fn opening(&mut self) -> Result<(), String> {
        if self.peek() != Some(b'?') {
            return Ok(());
        }
        let rest = &self.text[self.at + 1..];
        match rest {
            [b'=' | b'!' | b'>', ..] => {
                self.backtracks = true;
                self.at += 2;
            }
            [b'<', b'=' | b'!', ..] => {
                self.backtracks = true;
                self.at += 3;
            }
            // A named group.
            [b'<', ..] | [b'P', b'<', ..] => {
                let end = rest.iter().position(|byte| *byte == b'>').ok_or("names a group without end")?;
                self.at += 2 + end;
            }
            _ => {
                let flags =
                    rest.iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-').count();
                let ends = matches!(rest.get(flags), Some(b':' | b')'));
                if !ends || rest[..flags].contains(&b'x') {
                    return Err("holds a group of a kind that is not supported".to_owned());
                }
                self.at += 1 + flags + usize::from(rest[flags] == b':');
            }
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<Extent, String> {
        let byte = self.peek().ok_or("ends in a backslash")?;
        self.at += 1;
        match byte {
            b'1'..=b'9' | b'k' | b'g' => {
                Err("refers to what it matched before, which is not supported".to_owned())
            }
            b'K' | b'G' => Err(format!("holds \\{}, which is not supported", char::from(byte))),
            b'p' | b'P' | b'x' | b'u' | b'U' if self.peek() == Some(b'{') => {
                let end = self.text[self.at..].iter().position(|byte| *byte == b'}');
                self.at += 1 + end.ok_or("opens a brace that is not closed")?;
                Ok(Extent { length: 1, endless: false })
            }
            _ => Ok(Extent { length: 1, endless: false }),
        }
    }

    /// A set of characters; the bracket that opens it is read.
    fn class(&mut self) -> Result<Extent, String> {
        let mut open = 1;
        if self.peek() == Some(b'^') {
            self.at += 1;
        }
        // First in a set, the closing bracket is a character like any other.
        if self.peek() == Some(b']') {
            self.at += 1;
        }
        while open > 0 {
            let byte = self.peek().ok_or("opens a set of characters that is not closed")?;
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'[' => open += 1,
                b']' => open -= 1,
                _ => {}
            }
            if open > MAX_DEPTH {
                return Err(format!("nests more than {MAX_DEPTH} sets of characters"));
            }
        }
        Ok(Extent { length: 1, endless: false })
    }

    /// Applies what stands after an atom.
    fn repeated(&mut self, mut atom: Extent) -> Extent {
        while let Some((times, endless)) = self.repetition() {
            self.nested |= endless && atom.endless;
            atom.length = atom.length.saturating_mul(times);
            atom.endless |= endless;
        }
        atom
    }

    /// How often the atom before is written out, and whether without end.
    fn repetition(&mut self) -> Option<(usize, bool)> {
        let found = match self.peek()? {
            b'*' | b'+' => (1, true),
            b'?' => (1, false),
            b'{' => {
                let length = self.text[self.at..].iter().position(|byte| *byte == b'}')?;
                let inside = std::str::from_utf8(&self.text[self.at + 1..self.at + length]).ok()?;
                let (low, high) = inside.split_once(',').unwrap_or((inside, inside));
                let number = |text: &str| text.trim().parse::<usize>().ok();
                // Engines differ in whether the lower bound may be left out.
                let low = if low.trim().is_empty() { 0 } else { number(low)? };
                let (high, endless) =
                    if high.trim().is_empty() { (low, true) } else { (number(high)?, false) };
                self.at += length;
                (low.max(high).max(1), endless)
            }
            _ => return None,
        };
        self.at += 1;
        match self.peek() {
            Some(b'?') => self.at += 1,
            // A possessive repetition gives nothing back, which only a backtracking engine can promise.
            Some(b'+') => {
                self.at += 1;
                self.backtracks = true;
            }
            _ => {}
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_in_use_are_taken() {
        let known = [
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[!#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
            r"[0-9][0-9][0-9]",
            " {2,}",
            r"[\p{Han}&&[^\p{N}]]+|(?i)a++",
        ];
        for pattern in known {
            let found = check(pattern);
            assert!(found.is_ok_and(|p| !p.matches_nothing), "{pattern}: {:?}", check(pattern));
        }
        assert_eq!(check(" {2,}").unwrap().shortest, 2);
        assert!(check(r"\d*").unwrap().matches_nothing);
    }

    #[test]
    fn what_takes_for_ever_or_matches_oddly_is_refused() {
        let refused = [
            ("", "empty"),
            (r"(a)\1", "refers to what it matched"),
            (r"(?<n>a)\k<n>", "refers to what it matched"),
            (r"a\Kb", r"\K"),
            (r"(?(1)a|b)", "not supported"),
            (r"(?x) a # b", "not supported"),
            (r"(?:ab+c)+(?=d)", "for ever"),
            (r"(?:(?:a|b*)c)*(?=d)", "for ever"),
            (r"a{5000}", "repeats more than"),
            (r"(?:a{70}){70}", "repeats more than"),
            ("(", "not closed"),
            (")", "not opened"),
            ("[a", "not closed"),
            ("\\", "backslash"),
            (r"\p{L", "not closed"),
        ];
        for (pattern, expected) in refused {
            let error = check(pattern).unwrap_err();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
        assert!(check(&"a".repeat(5000)).unwrap_err().contains("5000 bytes"));
        assert!(check(&"(".repeat(40)).unwrap_err().contains("nests more"));
        // Nested repetitions alone are matched by an automaton.
        assert!(check(r"(?:a+)+").is_ok());
    }
}
