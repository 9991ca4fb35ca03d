//! What a value on the command line may be. Numbers that other programs give a meaning, such as -1, mean the same here. A
//! refusal says what to type instead.

use std::str::FromStr;
use trit_runtime::format::target::Target;

fn parsed<T: FromStr>(text: &str, valid: impl Fn(&T) -> bool, expected: &str) -> Result<T, String> {
    text.trim().parse().ok().filter(valid).ok_or_else(|| format!("expected {expected}"))
}

/// A number of tokens; -1 is no limit.
pub fn most_tokens(text: &str) -> Result<usize, String> {
    match text {
        "-1" => Ok(usize::MAX),
        _ => parsed(
            text,
            |_| true,
            "a number of tokens, or -1 for no limit but the model's own end and the context",
        ),
    }
}

/// A number of tokens.
pub fn tokens(text: &str) -> Result<usize, String> {
    parsed(text, |_| true, "a number of tokens, 0 or more")
}

/// A token id.
pub fn id(text: &str) -> Result<u32, String> {
    parsed(text, |_| true, "token ids separated by commas, such as 1,2,3")
}

/// A context's length; 0 is the bundle's own.
pub fn context(text: &str) -> Result<u32, String> {
    parsed(text, |_| true, "a number of tokens; 0, or leaving it out, gives what the bundle was compiled for")
}

/// A number of threads.
pub fn threads(text: &str) -> Result<u16, String> {
    let expected = "a number from 1 to 1024; leave -t out for as many as the system grants";
    parsed(text, |n| (1..=1024).contains(n), expected)
}

/// A number of sequences.
pub fn sequences(text: &str) -> Result<usize, String> {
    parsed(text, |n| (1..=256).contains(n), "a number of sequences from 1 to 256")
}

/// How often.
pub fn repetitions(text: &str) -> Result<u16, String> {
    parsed(text, |&n| n > 0, "a number from 1 to 65535")
}

/// Candidates to choose among; 0 and -1 are all.
pub fn top_k(text: &str) -> Result<usize, String> {
    match text {
        "-1" => Ok(0),
        _ => parsed(text, |_| true, "a number of tokens; 0 or -1: choose among all"),
    }
}

/// The start of a random sequence; -1 is another one each time.
pub fn seed(text: &str) -> Result<u64, String> {
    match text {
        "-1" => Ok(random_seed()),
        _ => parsed(
            text,
            |_| true,
            "a whole number, 0 or more; -1, or leaving it out, gives another one each time",
        ),
    }
}

/// 32 bits, so that every JSON reader keeps it exactly.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) >> 32
}

/// A temperature.
pub fn temperature(text: &str) -> Result<f32, String> {
    let expected = "a number, 0 or more; 0 takes the most probable token always";
    parsed(text, |v: &f32| v.is_finite() && *v >= 0.0, expected)
}

/// A factor for what occurred before.
pub fn penalty(text: &str) -> Result<f32, String> {
    parsed(text, |v: &f32| v.is_finite() && *v > 0.0, "a number above 0; 1: off")
}

/// The probability that candidates together must reach.
pub fn top_p(text: &str) -> Result<f32, String> {
    parsed(text, |v: &f32| (0.0..=1.0).contains(v), "a number from 0 to 1; 1: choose among all")
}

/// The share of the best one's probability that candidates must have.
pub fn min_p(text: &str) -> Result<f32, String> {
    parsed(text, |v: &f32| (0.0..=1.0).contains(v), "a number from 0 to 1; 0: choose among all")
}

/// A text that stands somewhere.
pub fn some_text(text: &str) -> Result<String, String> {
    match text {
        "" => Err("expected a text; nothing would be generated before an empty one".into()),
        text => Ok(text.to_owned()),
    }
}

/// An instruction-set tier.
pub fn target(text: &str) -> Result<Target, String> {
    Target::from_name(text)
        .ok_or_else(|| format!("expected one of {}", Target::ALL.map(Target::name).join(", ")))
}
