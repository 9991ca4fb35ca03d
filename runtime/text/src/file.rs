//! The text of a `tokenizer.json` becomes values of known kinds and bounded size. Nothing here says that they make
//! sense: `limits` does.

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeSeed};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Most bytes of a file: four times the largest in use.
const MAX_BYTES: usize = 128 << 20;
/// Most tokens and most merges: some fifteen times the largest vocabulary in use. Each takes about a hundred bytes.
const MAX_ENTRIES: usize = 1 << 22;
/// Longest token, in bytes. The longest in use are runs of a few hundred spaces.
pub(crate) const MAX_TOKEN: usize = 4096;
/// Values in one part: each may take a hundred bytes, and the largest in use have some hundreds.
const MAX_VALUES: usize = 1 << 16;
/// Values inside values. Libraries that read the same text take time that doubles with each of them.
const MAX_DEPTH: usize = 16;

/// A `tokenizer.json`. What it says of truncation and padding is not read, and neither are keys that are not known.
#[derive(Deserialize)]
pub(crate) struct TokenizerFile {
    pub(crate) version: Option<String>,
    #[serde(default)]
    pub(crate) added_tokens: Option<Listed<AddedToken>>,
    #[serde(default)]
    pub(crate) normalizer: Tree,
    #[serde(default)]
    pub(crate) pre_tokenizer: Tree,
    #[serde(default)]
    pub(crate) post_processor: Tree,
    #[serde(default)]
    pub(crate) decoder: Tree,
    pub(crate) model: ModelFile,
}

/// A token that a text is split at before anything else.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) single_word: bool,
    #[serde(default)]
    pub(crate) lstrip: bool,
    #[serde(default)]
    pub(crate) rstrip: bool,
    /// Whether it is looked for in normalized text. By default, special tokens are not.
    pub(crate) normalized: Option<bool>,
    #[serde(default)]
    pub(crate) special: bool,
}

impl AddedToken {
    /// Whether it is looked for in normalized text.
    pub(crate) fn is_normalized(&self) -> bool {
        self.normalized.unwrap_or(!self.special)
    }
}

/// The vocabulary and how it is applied; which of it is there depends on the type.
#[derive(Deserialize)]
pub(crate) struct ModelFile {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) dropout: Option<f64>,
    pub(crate) unk_token: Option<String>,
    pub(crate) unk_id: Option<u64>,
    pub(crate) continuing_subword_prefix: Option<String>,
    pub(crate) end_of_word_suffix: Option<String>,
    pub(crate) fuse_unk: Option<bool>,
    pub(crate) byte_fallback: Option<bool>,
    pub(crate) ignore_merges: Option<bool>,
    pub(crate) max_input_chars_per_word: Option<u64>,
    pub(crate) vocab: Tokens,
    pub(crate) merges: Option<Listed<Merge>>,
}

/// Tokens by id, or in order with their scores.
pub(crate) enum Tokens {
    Ids(Vec<(String, u32)>),
    Scored(Vec<(String, f64)>),
}

/// Two tokens that become one.
pub(crate) struct Merge(pub(crate) String, pub(crate) String);

/// A list of no more than [`MAX_ENTRIES`].
pub(crate) struct Listed<T>(pub(crate) Vec<T>);

/// One part of a file, of no more than [`MAX_VALUES`] values. A key that comes twice is an error.
#[derive(Default)]
pub(crate) struct Tree(pub(crate) Value);

/// Reads a file.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn read(json: &[u8]) -> Result<TokenizerFile, String> {
    if json.len() > MAX_BYTES {
        return Err(format!("has {} bytes, expected no more than {MAX_BYTES}", json.len()));
    }
    let file: TokenizerFile = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    match file.version.as_deref() {
        None | Some("1.0") => Ok(file),
        Some(other) => Err(format!("version is {other:?}, expected \"1.0\"")),
    }
}

/// An error that names a bound.
fn too_many<E: Error>(bound: usize) -> E {
    E::custom(format_args!("more than {bound} entries"))
}

fn short<E: Error>(token: String) -> Result<String, E> {
    match token.len() {
        ..=MAX_TOKEN => Ok(token),
        len => Err(E::custom(format_args!("a token of {len} bytes, expected no more than {MAX_TOKEN}"))),
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tokens, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Tokens;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("tokens with their ids, or a list of tokens with their scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tokens, A::Error> {
                let mut tokens = Vec::new();
                while let Some((token, id)) = map.next_entry()? {
                    if tokens.len() == MAX_ENTRIES {
                        return Err(too_many(MAX_ENTRIES));
                    }
                    tokens.push((short(token)?, id));
                }
                Ok(Tokens::Ids(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tokens, A::Error> {
                let mut tokens = Vec::new();
                while let Some((token, score)) = list.next_element()? {
                    if tokens.len() == MAX_ENTRIES {
                        return Err(too_many(MAX_ENTRIES));
                    }
                    tokens.push((short(token)?, score));
                }
                Ok(Tokens::Scored(tokens))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Merge, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("two tokens")
            }

            fn visit_str<E: Error>(self, line: &str) -> Result<Merge, E> {
                match line.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => Ok(Merge(left.into(), right.into())),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(line), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                let (left, right) = (list.next_element()?, list.next_element()?);
                match (left, right, list.next_element::<IgnoredAny>()?) {
                    (Some(left), Some(right), None) => Ok(Merge(left, right)),
                    _ => Err(A::Error::custom("a merge that is not of two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Listed<T>, D::Error> {
        struct Reader<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listed<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    if entries.len() == MAX_ENTRIES {
                        return Err(too_many(MAX_ENTRIES));
                    }
                    entries.push(entry);
                }
                Ok(Listed(entries))
            }
        }
        deserializer.deserialize_seq(Reader(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        let mut values = MAX_VALUES;
        Branch { values: &mut values, depth: MAX_DEPTH }.deserialize(deserializer).map(Tree)
    }
}

/// Reads one value of a tree.
struct Branch<'a> {
    /// How many more values there may be.
    values: &'a mut usize,
    /// How many more values may stand inside each other.
    depth: usize,
}

impl Branch<'_> {
    fn inner<E: Error>(&mut self) -> Result<Branch<'_>, E> {
        *self.values = self.values.checked_sub(1).ok_or_else(|| too_many::<E>(MAX_VALUES))?;
        let depth = self.depth.checked_sub(1);
        let depth = depth.ok_or_else(|| E::custom(format_args!("more than {MAX_DEPTH} levels")))?;
        Ok(Branch { values: self.values, depth })
    }
}

impl<'de> DeserializeSeed<'de> for Branch<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Branch<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.inner()?)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self.inner()?)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format_args!("the key {key:?} comes twice")));
            }
        }
        Ok(values.into())
    }
}
