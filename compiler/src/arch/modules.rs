//! `modules_to_not_convert`: which linears stay as they are, by transformers' patterns for module names.
//!
//! `should_convert_module` in transformers takes each entry as a regular expression that matches from the start of a
//! module's full name up to a boundary between modules, and as a plain suffix of it. Only the regular expressions
//! that names of modules need are understood: letters, `.`, `\.` and `.*`. Other entries are refused by name.

use crate::arch::keys::Keys;
use crate::error::CompileError;

/// Modules that stay unquantized.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// As it is written, for the suffix.
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug)]
enum Token {
    Char(char),
    Any,
    /// Any number of any characters.
    Many,
}

impl Kept {
    /// Takes the list. Without a list, the head alone stays unquantized.
    ///
    /// # Errors
    /// An entry that is not understood.
    pub(crate) fn take(keys: &mut Keys) -> Result<Kept, CompileError> {
        let key = "modules_to_not_convert";
        let texts: Option<Vec<String>> = keys.take(key)?;
        let Some(texts) = texts else { return Ok(Kept::head()) };
        let pattern = |text: String| {
            let unknown = || {
                let key = keys.named(key);
                keys.unsupported(format!(
                    "{key} holds {text:?}, which is not understood (only names, \".\", \"\\.\" and \".*\")"
                ))
            };
            let tokens = tokens(&text).ok_or_else(unknown)?;
            Ok(Pattern { text, tokens })
        };
        Ok(Kept { patterns: texts.into_iter().map(pattern).collect::<Result<_, _>>()? })
    }

    /// The head alone.
    pub(crate) fn head() -> Kept {
        let text = "lm_head";
        Kept {
            patterns: vec![Pattern {
                text: text.to_owned(),
                tokens: text.chars().map(Token::Char).collect(),
            }],
        }
    }

    /// Whether the linear of that full name (`model.layers.0.self_attn.q_proj`, `lm_head`) stays unquantized.
    pub(crate) fn has(&self, module: &str) -> bool {
        self.patterns.iter().any(|p| module.ends_with(&p.text) || p.matches(module))
    }

    /// The list as it is written.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|p| p.text.as_str())
    }
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '.' if chars.next_if_eq(&'*').is_some() => Token::Many,
            '.' => Token::Any,
            '\\' => Token::Char(chars.next_if_eq(&'.')?),
            c if c.is_ascii_alphanumeric() || "_-".contains(c) => Token::Char(c),
            _ => return None,
        });
    }
    Some(tokens)
}

impl Pattern {
    fn matches(&self, module: &str) -> bool {
        let name: Vec<char> = module.chars().collect();
        // The ends of the prefixes that the tokens so far match. The time is linear in name and pattern, because the
        // pattern is untrusted.
        let mut ends = vec![false; name.len() + 1];
        ends[0] = true;
        for token in &self.tokens {
            match token {
                Token::Many => {
                    let first = ends.iter().position(|&end| end).unwrap_or(ends.len());
                    ends[first..].fill(true);
                }
                Token::Any => advance(&mut ends, |_| true, &name),
                Token::Char(c) => advance(&mut ends, |other| other == *c, &name),
            }
        }
        let boundary = |end: usize| {
            name.get(end).is_none_or(|&next| next == '.')
                || end.checked_sub(1).is_some_and(|at| name[at] == '.')
        };
        ends.iter().enumerate().any(|(end, &matched)| matched && boundary(end))
    }
}

/// Moves every end over the next character where that is wanted.
fn advance(ends: &mut [bool], wanted: impl Fn(char) -> bool, name: &[char]) {
    for (at, &c) in name.iter().enumerate().rev() {
        ends[at + 1] = ends[at] && wanted(c);
    }
    ends[0] = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(texts: &[&str]) -> Kept {
        let pattern = |text: &&str| Pattern { text: (*text).to_owned(), tokens: tokens(text).unwrap() };
        Kept { patterns: texts.iter().map(pattern).collect() }
    }

    /// The examples in transformers' comment, and what its regular expression gives for others.
    #[test]
    fn names_match_as_in_transformers() {
        let q = "model.layers.1.self_attn.q_proj";
        let cases = [
            ("lm_head", "lm_head", true),
            ("lm_head", q, false),
            ("layer.1", "layer.1.attn", true),
            ("layer.1", "layer.11.attn", false),
            ("layer.*", "layer.11.attn", true),
            ("mlp.gate", "mlp.gate_proj", false),
            ("fc1", "model.decoder.layers.23.fc1", true),
            ("model.layers.1", q, true),
            ("model.layers.1", "model.layers.11.self_attn.q_proj", false),
            ("model.layers.1.", q, true),
            (r"model\.layers\.1\.self_attn", q, true),
            ("model.layers.*.q_proj", q, true),
            ("model.layers.*.q", q, false),
            ("self_attn", q, false),
            ("self_attn.q_proj", q, true),
            ("q_proj", q, true),
            ("model.layers.1.self_attn.q_proj.weight", q, false),
            (".*", q, true),
            (".*down_proj", "model.layers.0.mlp.down_proj", true),
        ];
        for (pattern, module, expected) in cases {
            assert_eq!(kept(&[pattern]).has(module), expected, "{pattern} on {module}");
        }
        assert!(!kept(&[]).has("lm_head"));
        assert!(kept(&["x", "lm_head"]).has("lm_head"));
    }

    #[test]
    fn what_is_not_understood_is_no_pattern() {
        for text in ["(a|b)", "a+", "[ab]", "a*", r"\d", "a$", "a\\", "q proj"] {
            assert!(tokens(text).is_none(), "{text}");
        }
    }

    /// Without nested quantifiers there is no backtracking to explode.
    #[test]
    fn hostile_patterns_take_linear_time() {
        let pattern = ".*a".repeat(2000);
        assert!(!kept(&[&pattern]).has(&"a.".repeat(1000)));
    }
}
