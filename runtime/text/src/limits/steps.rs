//! The steps of a `tokenizer.json` besides its vocabulary: normalizer, pre-tokenizer, post-processor, decoder. Each is
//! checked for what makes the tokenizers library panic, for what makes a text grow without need, and for what takes
//! for ever.

use super::{charsmap, pattern};
use serde_json::{Map, Value, json};

/// Most steps of one part.
const MAX_STEPS: usize = 32;
/// How many times longer a text may become on its way to the vocabulary, or back. The largest that is in use is 33: a
/// compatible form (11 for one Arabic ligature) with its spaces spelled by three bytes.
const MAX_GROWTH: usize = 256;
/// Longest text that a step puts somewhere, in bytes.
const MAX_TEXT: usize = 64;
/// Most ids around every text.
const MAX_AROUND: usize = 64;
/// How many times longer a text becomes by NFC or NFD, by NFKC or NFKD, at most.
const GROWTH_OF_FORMS: [usize; 2] = [3, 11];

/// One step: an object whose `type` is known.
#[derive(Debug)]
pub(crate) struct Step {
    /// Where it stands.
    place: String,
    pub(crate) kind: String,
    fields: Map<String, Value>,
}

/// The steps of one part; `None` where the file has no such part.
pub(crate) type Steps = Option<Vec<Step>>;

/// The ids that stand around every text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Around {
    pub(crate) before: Vec<u32>,
    pub(crate) after: Vec<u32>,
}

impl Step {
    /// A field as text.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    pub(crate) fn flag(&self, field: &str) -> Option<bool> {
        self.fields.get(field)?.as_bool()
    }

    pub(crate) fn count(&self, field: &str) -> Option<u64> {
        self.fields.get(field)?.as_u64()
    }

    /// The text that a step looks for, where it looks for no regular expression.
    pub(crate) fn literal(&self) -> Option<&str> {
        self.fields.get("pattern")?.get("String")?.as_str()
    }

    /// The step as it stands in a file.
    pub(crate) fn value(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> String {
        format!("{} ({}): {problem}", self.place, self.kind)
    }

    /// A text that must be there.
    fn required(&self, field: &str, longest: usize) -> Result<&str, String> {
        match self.text(field) {
            None => Err(self.wrong(format_args!("{field} is no text"))),
            Some(text) if text.len() > longest => {
                let problem =
                    format_args!("{field} has {} bytes, expected no more than {longest}", text.len());
                Err(self.wrong(problem))
            }
            Some(text) => Ok(text),
        }
    }

    /// A text that must be there and not be empty.
    fn filled(&self, field: &str) -> Result<&str, String> {
        let text = self.required(field, MAX_TEXT)?;
        if text.is_empty() { Err(self.wrong(format_args!("{field} is empty"))) } else { Ok(text) }
    }

    /// `pattern`: an expression, or a text. Gives the bytes of its shortest match, and whether it may match nothing.
    fn pattern(&self) -> Result<(usize, bool), String> {
        let pattern = self.fields.get("pattern").and_then(Value::as_object);
        let one = pattern.filter(|pattern| pattern.len() == 1).and_then(|pattern| pattern.iter().next());
        match one.map(|(kind, text)| (kind.as_str(), text.as_str())) {
            Some(("String", Some(""))) => Err(self.wrong("pattern is empty")),
            Some(("String", Some(text))) if text.len() <= MAX_TEXT => Ok((text.len(), false)),
            Some(("String", Some(_))) => {
                Err(self.wrong(format_args!("pattern has more than {MAX_TEXT} bytes")))
            }
            Some(("Regex", Some(text))) => {
                let found = pattern::check(text).map_err(|e| self.wrong(format_args!("pattern {e}")))?;
                Ok((found.shortest, found.matches_nothing))
            }
            _ => Err(self.wrong("pattern is neither a String nor a Regex")),
        }
    }

    /// How much longer a text becomes where `content` replaces matches of `pattern`.
    fn replacement(&self) -> Result<usize, String> {
        let content = self.required("content", MAX_TEXT)?;
        Ok(match self.pattern()? {
            // Put between any two bytes.
            (0, _) => 1 + content.len(),
            (shortest, _) => content.len().div_ceil(shortest).max(1),
        })
    }
}

/// Divides a part into its steps. A `Sequence` lists them under `key`.
fn steps(part: &str, key: &str, value: Value) -> Result<Steps, String> {
    if value.is_null() {
        return Ok(None);
    }
    let (mut found, mut left) = (Vec::new(), vec![(part.to_owned(), value)]);
    while let Some((place, value)) = left.pop() {
        let Value::Object(mut fields) = value else { return Err(format!("{place}: is no object")) };
        let Some(kind) = fields.get("type").and_then(Value::as_str).map(str::to_owned) else {
            return Err(format!("{place}: has no type"));
        };
        if kind != "Sequence" {
            found.push(Step { place, kind, fields });
        } else if let Some(Value::Array(inner)) = fields.remove(key) {
            let inner =
                inner.into_iter().enumerate().map(|(i, value)| (format!("{place}.{key}[{i}]"), value));
            left.extend(inner.rev());
        } else {
            return Err(format!("{place} (Sequence): lists no {key}"));
        }
        if found.len() + left.len() > MAX_STEPS {
            return Err(format!("{part}: has more than {MAX_STEPS} steps"));
        }
    }
    Ok(Some(found))
}

/// One value with all steps.
pub(crate) fn sequence(key: &str, steps: &Steps) -> Option<Value> {
    let values: Vec<Value> = steps.as_ref()?.iter().map(Step::value).collect();
    Some(json!({"type": "Sequence", key: values}))
}

fn unknown(step: &Step) -> String {
    step.wrong("is of a type that is not known")
}

fn bounded(part: &str, growth: usize) -> Result<(), String> {
    match growth {
        ..=MAX_GROWTH => Ok(()),
        _ => {
            Err(format!("{part}: may make a text {growth} times longer, expected no more than {MAX_GROWTH}"))
        }
    }
}

/// Checks a normalizer. Gives its steps, and how many times longer a text may become.
pub(super) fn normalizer(value: Value) -> Result<(Steps, usize), String> {
    let (part, mut forms) = ("normalizer", 1);
    let (found, mut growth) = (steps(part, "normalizers", value)?, 1_usize);
    for step in found.iter().flatten() {
        let times = match step.kind.as_str() {
            "Strip" | "StripAccents" | "Nmt" => 1,
            "BertNormalizer" | "Bert" => 6,
            "Lowercase" | "ByteLevel" => 2,
            // A second form changes little of what the first left.
            "NFC" | "NFD" | "NFKC" | "NFKD" => {
                let of_this = GROWTH_OF_FORMS[usize::from(step.kind.contains('K'))];
                let times = of_this.div_ceil(forms).max(1);
                forms = forms.max(of_this);
                times
            }
            "Prepend" => {
                step.required("prepend", MAX_TEXT)?;
                1
            }
            "Replace" => step.replacement()?,
            "Precompiled" => {
                let map = step.text("precompiled_charsmap");
                let map = map.ok_or_else(|| step.wrong("precompiled_charsmap is no text"))?;
                charsmap::check(map).map_err(|e| step.wrong(format_args!("precompiled_charsmap {e}")))?
            }
            _ => return Err(unknown(step)),
        };
        growth = growth.saturating_mul(times);
        bounded(part, growth)?;
    }
    Ok((found, growth))
}

/// Checks a pre-tokenizer. `growth` is the normalizer's.
pub(super) fn pre_tokenizer(value: Value, mut growth: usize) -> Result<Steps, String> {
    let part = "pre_tokenizer";
    let found = steps(part, "pretokenizers", value)?;
    for step in found.iter().flatten() {
        let times = match step.kind.as_str() {
            "BertPreTokenizer" | "Delimiter" | "CharDelimiterSplit" | "Whitespace" | "WhitespaceSplit"
            | "Punctuation" | "Digits" | "UnicodeScripts" => 1,
            "ByteLevel" => 2 + usize::from(step.flag("add_prefix_space") == Some(true)),
            "Metaspace" => 1 + step.required("replacement", 4)?.len(),
            "Split" => {
                if step.pattern()?.1 {
                    return Err(step.wrong("pattern may match nothing at all"));
                }
                1
            }
            "FixedLength" => match step.count("length") {
                None if !step.fields.contains_key("length") => 1,
                Some(1..=0xffff) => 1,
                _ => return Err(step.wrong("length is not from 1 to 65535")),
            },
            _ => return Err(unknown(step)),
        };
        growth = growth.saturating_mul(times);
        bounded(part, growth)?;
    }
    Ok(found)
}

/// Checks a decoder.
pub(super) fn decoder(value: Value) -> Result<Steps, String> {
    let (part, mut growth) = ("decoder", 1_usize);
    let found = steps(part, "decoders", value)?;
    for step in found.iter().flatten() {
        let times = match step.kind.as_str() {
            "ByteLevel" | "ByteFallback" | "Fuse" => 1,
            "Metaspace" => {
                step.required("replacement", 4)?;
                1
            }
            "WordPiece" => {
                step.required("prefix", MAX_TEXT)?;
                2
            }
            "BPEDecoder" => {
                step.filled("suffix")?;
                1
            }
            "CTC" => {
                step.filled("pad_token")?;
                step.filled("word_delimiter_token")?;
                1
            }
            "Strip" => {
                step.required("content", 4)?;
                // The library takes characters from the end of a text without looking whether it has any.
                if step.count("stop") != Some(0) {
                    return Err(step.wrong("stop is not 0, which is not supported"));
                }
                1
            }
            "Replace" => step.replacement()?,
            _ => return Err(unknown(step)),
        };
        growth = growth.saturating_mul(times);
        bounded(part, growth)?;
    }
    Ok(found)
}

/// Checks a post-processor, and takes from it what stands around a text; nothing else of it matters here, and the
/// library never sees it.
pub(super) fn post_processor(value: Value, known: &dyn Fn(u32) -> bool) -> Result<Around, String> {
    let found = steps("post_processor", "processors", value)?;
    let mut around: Option<Around> = None;
    for step in found.iter().flatten() {
        let this = match step.kind.as_str() {
            // This step moves offsets, and nobody asks for those.
            "ByteLevel" => continue,
            "BertProcessing" | "RobertaProcessing" => {
                Around { before: vec![pair(step, "cls")?], after: vec![pair(step, "sep")?] }
            }
            "TemplateProcessing" => template(step)?,
            _ => return Err(unknown(step)),
        };
        if let Some(id) = this.before.iter().chain(&this.after).find(|id| !known(**id)) {
            return Err(step.wrong(format_args!("adds id {id}, which no token has")));
        }
        if around.replace(this).is_some() {
            return Err(step.wrong("is the second step that adds tokens, which is not supported"));
        }
    }
    Ok(around.unwrap_or_default())
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// A token with its id.
fn pair(step: &Step, field: &str) -> Result<u32, String> {
    let found = step.fields.get(field).and_then(|pair| id(pair.get(1)?));
    found.ok_or_else(|| step.wrong(format_args!("{field} is no token with its id")))
}

/// `single` of a template: special tokens around one text. That for pairs of texts is not used.
fn template(step: &Step) -> Result<Around, String> {
    let pieces = step.fields.get("single").and_then(Value::as_array);
    let pieces = pieces.ok_or_else(|| step.wrong("single is no list"))?;
    let special = step.fields.get("special_tokens");
    let (mut around, mut texts) = (Around::default(), 0);
    for piece in pieces {
        if let Some(name) = piece.get("SpecialToken").and_then(|token| token.get("id")?.as_str()) {
            let ids = special.and_then(|tokens| tokens.get(name)?.get("ids")?.as_array());
            let ids = ids.and_then(|ids| ids.iter().map(id).collect::<Option<Vec<u32>>>());
            let Some(ids) = ids else {
                return Err(step.wrong(format_args!("names {name:?}, which special_tokens does not define")));
            };
            if texts == 0 { around.before.extend(ids) } else { around.after.extend(ids) }
        } else if piece.get("Sequence").and_then(|text| text.get("id")?.as_str()) == Some("A") {
            texts += 1;
        } else {
            return Err(step.wrong("single holds what is neither a special token nor the text \"A\""));
        }
        if around.before.len() + around.after.len() > MAX_AROUND {
            return Err(step.wrong(format_args!("adds more than {MAX_AROUND} tokens")));
        }
    }
    match texts {
        1 => Ok(around),
        _ => Err(step.wrong(format_args!("single holds the text {texts} times, expected once"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(found: Result<impl std::fmt::Debug, String>, words: &[&str]) {
        let error = found.unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    #[test]
    fn what_expands_is_refused_by_name() {
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let twice = replace(json!({"String": "a"}), "aaaaaaaaaaaaaaaaaaaaaaa");
        refused(
            normalizer(json!({"type": "Sequence", "normalizers": [twice, twice]})),
            &["normalizer", "529 times longer"],
        );
        refused(
            normalizer(replace(json!({"String": ""}), "a")),
            &["normalizer (Replace)", "pattern is empty"],
        );
        refused(normalizer(replace(json!({"String": "a"}), &"a".repeat(65))), &["content has 65 bytes"]);
        refused(normalizer(json!({"type": "Prepend", "prepend": "▁".repeat(22)})), &["prepend has 66 bytes"]);
        let bytes: Vec<Value> = (0..9).map(|_| json!({"type": "ByteLevel"})).collect();
        refused(normalizer(json!({"type": "Sequence", "normalizers": bytes})), &["512 times longer"]);
        let many: Vec<Value> = (0..33).map(|_| json!({"type": "Strip"})).collect();
        refused(normalizer(json!({"type": "Sequence", "normalizers": many})), &["more than 32 steps"]);
        assert_eq!(normalizer(replace(json!({"Regex": " {2,}"}), "▁")).unwrap().1, 2);
        let forms =
            json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "NFKD"}, {"type": "NFC"}]});
        assert_eq!(normalizer(forms).unwrap().1, 11);
    }

    // Only what the library refuses itself, or takes without harm: a test is no place for what makes it panic. That would
    // be tables of characters that are damaged, lengths of zero, characters to be stripped off an end that is not there,
    // second texts where there is one, names in a template that nothing defines.
    #[test]
    fn what_the_library_cannot_take_is_refused_by_name() {
        refused(normalizer(json!({"type": "Sorcery"})), &["normalizer (Sorcery)", "not known"]);
        refused(normalizer(json!([])), &["normalizer", "no object"]);
        refused(normalizer(json!({"type": "Sequence"})), &["lists no normalizers"]);
        let split = |pattern: Value| json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
        refused(pre_tokenizer(split(json!({"Regex": "a*"})), 1), &["pre_tokenizer (Split)", "match nothing"]);
        refused(pre_tokenizer(split(json!({"Regex": r"(a)\1"})), 1), &["refers to what it matched"]);
        let inner = json!({"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": [
            {"type": "Digits"}, {"type": "FixedLength", "length": 70000}]}]});
        refused(
            pre_tokenizer(inner, 1),
            &["pre_tokenizer.pretokenizers[0].pretokenizers[1] (FixedLength)", "1 to 65535"],
        );
        refused(
            decoder(json!({"type": "Strip", "content": " ", "start": 0, "stop": null})),
            &["stop is not 0"],
        );
        refused(decoder(json!({"type": "BPEDecoder", "suffix": ""})), &["suffix is empty"]);
    }

    #[test]
    fn what_stands_around_a_text_is_taken_from_a_template() {
        let known = |id: u32| id < 10;
        let special = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let template = |single: Value, ids: Value| {
            let special = json!({"<s>": {"id": "<s>", "ids": ids, "tokens": ["<s>"]}});
            json!({"type": "Sequence", "processors": [{"type": "ByteLevel"},
                {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special}]})
        };
        let good = template(json!([special("<s>"), text, special("<s>")]), json!([7, 8]));
        let around = Around { before: vec![7, 8], after: vec![7, 8] };
        assert_eq!(post_processor(good, &known), Ok(around));
        refused(
            post_processor(template(json!([special("<s>"), text]), json!(["7"])), &known),
            &["\"<s>\"", "define"],
        );
        refused(
            post_processor(template(json!([special("<s>"), text]), json!([10])), &known),
            &["id 10", "no token"],
        );
        refused(post_processor(template(json!([text, text]), json!([7])), &known), &["2 times"]);
        let third = json!({"Sequence": {"id": "C", "type_id": 0}});
        refused(post_processor(template(json!([text, third]), json!([7])), &known), &["neither"]);
        let cls = json!({"type": "BertProcessing", "sep": ["b", 2], "cls": ["a", 1]});
        assert_eq!(post_processor(cls.clone(), &known), Ok(Around { before: vec![1], after: vec![2] }));
        let both = json!({"type": "Sequence", "processors": [cls, cls]});
        refused(post_processor(both, &known), &["processors[1]", "second step"]);
    }
}
