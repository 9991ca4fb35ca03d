//! What a value on the command line may be. Numbers that other programs give a meaning, such as -1, mean the same here. A
//! refusal says what to type instead.

use std::str::FromStr;
use trit_runtime::format::target::Target;
use trit_runtime::sample::random_seed;

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

/// A number of bytes, such as 512M or 4G.
#[cfg(feature = "serve")]
pub fn bytes(text: &str) -> Result<usize, String> {
    let expected = || "expected a number of bytes, such as 512M or 4G".to_owned();
    let upper = text.trim().to_ascii_uppercase();
    let upper = upper.strip_suffix("IB").or(upper.strip_suffix('B')).unwrap_or(&upper);
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let unit = units.into_iter().find_map(|(unit, shift)| Some((upper.strip_suffix(unit)?, shift)));
    let (digits, shift) = unit.unwrap_or((upper, 0));
    let number: usize = digits.trim().parse().map_err(|_| expected())?;
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).ok_or_else(expected)
}

/// An address to listen at: a name or an address, and a port.
#[cfg(feature = "serve")]
pub fn address(text: &str) -> Result<String, String> {
    let port = |text: &str| text.parse::<u16>().is_ok();
    match text.rsplit_once(':') {
        Some((host, number)) if !host.is_empty() && port(number) => Ok(text.to_owned()),
        None if port(text) => Ok(format!("127.0.0.1:{text}")),
        _ => Err("expected an address and a port, such as 127.0.0.1:8080; port 0 is any that is free".into()),
    }
}

/// A page's origin, or `*`.
#[cfg(feature = "serve")]
pub fn origin(text: &str) -> Result<String, String> {
    let known = trit_server::Origins::new(&[text.to_owned()]);
    known
        .map(|_| text.to_owned())
        .map_err(|_| "expected an origin as browsers name it, such as https://example.com, or *".into())
}

/// A number of things of which there must be one.
#[cfg(feature = "serve")]
pub fn some(text: &str) -> Result<usize, String> {
    parsed(text, |&n| n > 0, "a number, 1 or more")
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

#[cfg(all(test, feature = "serve"))]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, size) in
            [("1", 1), ("2k", 2048), ("512M", 512 << 20), ("4GiB", 4 << 30), ("3 gb", 3 << 30)]
        {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "0", "99999999999T", "1X"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_alone_is_on_loopback() {
        assert_eq!(address("8080").as_deref(), Ok("127.0.0.1:8080"));
        for text in ["127.0.0.1:0", "[::1]:80", "localhost:8080", "0.0.0.0:1"] {
            assert_eq!(address(text).as_deref(), Ok(text));
        }
        for text in ["", ":80", "host", "host:", "host:99999", "70000"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
