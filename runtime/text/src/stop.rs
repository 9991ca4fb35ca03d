//! Texts to stop at: generation ends where one of them would begin. What stands before it is given out.
//!
//! A text to stop at may begin in one token and end in another, so what could be its beginning is held back until more
//! is known.

/// Looks for texts to stop at in pieces of one text.
#[derive(Clone, Debug, Default)]
pub struct StopTexts {
    texts: Vec<String>,
    /// Text that is not given out yet, because it may be the beginning of a text to stop at.
    held: String,
    /// Which of the texts was found.
    found: Option<usize>,
}

impl StopTexts {
    /// Of `texts`. An empty one would stand everywhere; it is passed over.
    pub fn new(texts: &[String]) -> StopTexts {
        let texts = texts.iter().filter(|text| !text.is_empty()).cloned().collect();
        StopTexts { texts, held: String::new(), found: None }
    }

    /// Whether a text to stop at has been found. Nothing is given out after that.
    pub fn found(&self) -> bool {
        self.found.is_some()
    }

    /// The text that was found first, and of those that begin at the same place the one that was given first.
    pub fn found_text(&self) -> Option<&str> {
        self.found.map(|at| self.texts[at].as_str())
    }

    /// Takes the next piece and gives what is certain to stand before any text to stop at.
    pub fn push(&mut self, piece: &str) -> String {
        if self.found() {
            return String::new();
        }
        self.held.push_str(piece);
        let found =
            self.texts.iter().enumerate().filter_map(|(at, text)| Some((self.held.find(text.as_str())?, at)));
        if let Some((start, at)) = found.min() {
            self.found = Some(at);
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let kept = self.texts.iter().map(|text| beginning_at_end(&self.held, text)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    /// What of a whole text stands before the first text to stop at: all of it where there is none.
    pub fn before<'a>(&self, whole: &'a str) -> &'a str {
        let first = self.texts.iter().filter_map(|text| whole.find(text.as_str())).min();
        first.map_or(whole, |end| &whole[..end])
    }

    /// Gives what is held back: nothing more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `held` with which `text` begins.
fn beginning_at_end(held: &str, text: &str) -> usize {
    let ends = held.char_indices().map(|(at, _)| &held[at..]);
    ends.filter(|end| text.starts_with(end)).map(str::len).next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes out, and whether it stopped.
    fn run(texts: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let mut stops = StopTexts::new(&texts);
        let mut out: Vec<String> = pieces.iter().map(|piece| stops.push(piece)).collect();
        out.push(stops.finish());
        (out, stops.found())
    }

    #[test]
    fn the_text_that_stopped_is_named() {
        let mut stops = StopTexts::new(&["".into(), "later".into(), "here".into()]);
        assert_eq!(stops.found_text(), None);
        stops.push("here and later");
        assert_eq!(stops.found_text(), Some("here"));
    }

    #[test]
    fn what_stands_before_the_stop_is_given_and_nothing_after() {
        assert_eq!(
            run(&["User:"], &["Hi. User: me", "more"]),
            (["Hi. ", "", ""].map(str::to_owned).into(), true)
        );
        assert_eq!(run(&[], &["a", "b"]), (["a", "b", ""].map(str::to_owned).into(), false));
        // The first in the text counts, not the first in the list.
        assert_eq!(run(&["z", "b"], &["abz"]).0.concat(), "a");
    }

    #[test]
    fn beginnings_are_held_back_until_more_is_known() {
        let (out, found) = run(&["\n\nQ:"], &["one\n", "\n", "two\n\n", "Q", ": three"]);
        assert_eq!(out, ["one", "", "\n\ntwo", "", "", ""]);
        assert!(found);
        let (out, found) = run(&["\n\nQ:"], &["one\n", "\nQ"]);
        assert_eq!((out, found), (["one", "", "\n\nQ"].map(str::to_owned).into(), false));
        // A beginning inside a beginning.
        assert_eq!(
            run(&["aab"], &["a", "a", "a", "b", "c"]),
            (["", "", "a", "", "", ""].map(str::to_owned).into(), true)
        );
    }

    #[test]
    fn characters_stay_whole() {
        assert_eq!(run(&["日本"], &["é日", "光"]), (["é", "日光", ""].map(str::to_owned).into(), false));
        assert_eq!(run(&["日本"], &["é日", "本!"]), (["é", "", ""].map(str::to_owned).into(), true));
    }

    /// However the text is cut, what comes out is what stands before the first stop.
    #[test]
    fn cuts_do_not_matter() {
        let text = "ab aab abab aabab";
        for stop in ["aabab", "abab ", "b a", "x", "ab aab abab aabab"] {
            let expected = text.find(stop).map_or(text, |at| &text[..at]);
            for cut in 0..1u32 << (text.len() - 1) {
                let mut pieces = vec![];
                let mut from = 0;
                for at in 1..=text.len() {
                    if at == text.len() || cut >> (at - 1) & 1 == 1 {
                        pieces.push(&text[from..at]);
                        from = at;
                    }
                }
                assert_eq!(run(&[stop], &pieces).0.concat(), expected, "{stop:?} in {pieces:?}");
            }
        }
    }
}
