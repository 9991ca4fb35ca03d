//! Reads what `generation_config.json` says about single tokens, and warns of its keys that are not applied.

use crate::error::{CompileError, Warnings};
use crate::files::model_files::ModelFiles;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;
use trit_format::manifest::LogitRules;

/// The largest numbers of entries in a list and of ids in all sequences, and the longest run of tokens. They are
/// those of the bundle format.
const MOST: usize = 1 << 16;
const MOST_IDS: usize = 1 << 20;
const MOST_NGRAM: u64 = 1 << 10;
/// Most bytes of a value that a message shows.
const SHOWN: usize = 60;

/// The rules for single tokens. Ids that the model does not have are left out with a warning: it cannot choose them.
/// Warns of keys that change what transformers generates and that are not applied.
///
/// # Errors
/// Values of the wrong form.
pub(super) fn rules(
    model_files: &ModelFiles,
    vocab_size: u32,
    warnings: &mut Warnings,
) -> Result<LogitRules, CompileError> {
    let Some((path, map)) = model_files.generation_config() else {
        return Ok(LogitRules::default());
    };
    let context = model_files.config().and_then(|(_, map)| map.get("max_position_embeddings")?.as_u64());
    if let Some(keys) = not_applied(map, context) {
        warnings.push(format!("{}: not applied: {keys}", path.display()));
    }
    let mut reader = Reader { path, map, vocab_size, warnings, ids: 0 };
    let eos: BTreeSet<u64> = [Some((path, map)), model_files.config()]
        .into_iter()
        .flatten()
        .find_map(|(_, map)| map.get("eos_token_id").filter(|eos| !eos.is_null()))
        .map(|eos| eos.as_array().map_or(std::slice::from_ref(eos), Vec::as_slice))
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    // As in transformers, bad words do not keep a text from ending.
    let mut bad_words = reader.words("bad_words_ids")?;
    bad_words.retain(|word| !matches!(word[..], [id] if eos.contains(&id.into())));
    let rules = LogitRules {
        sequence_bias: reader.biases("sequence_bias")?,
        no_repeat_ngram_size: reader.ngram("no_repeat_ngram_size")?,
        bad_words,
        suppress: reader.tokens("suppress_tokens")?,
        begin_suppress: reader.tokens("begin_suppress_tokens")?,
    };
    let suppressed: BTreeSet<u32> = rules.suppress.iter().chain(&rules.begin_suppress).copied().collect();
    match suppressed.len() < vocab_size as usize {
        true => Ok(rules),
        false => Err(reader.invalid("suppress_tokens", "leave no token that could be chosen")),
    }
}

/// The values of one file.
struct Reader<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
    vocab_size: u32,
    warnings: &'a mut Warnings,
    /// Ids in all sequences so far.
    ids: usize,
}

impl Reader<'_> {
    fn invalid(&self, key: &str, problem: &str) -> CompileError {
        CompileError::Invalid { path: self.path.to_owned(), problem: format!("{key} {problem}") }
    }

    /// The value of `key` in the form it must have; `None` where it is absent or null.
    fn read<'v, T: Deserialize<'v>>(&'v self, key: &str, expected: &str) -> Result<Option<T>, CompileError> {
        match self.map.get(key).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|_| self.invalid(key, &format!("is {}, expected {expected}", shown(value)))),
        }
    }

    fn ngram(&self, key: &str) -> Result<u32, CompileError> {
        let expected = format!("a number of tokens from 0 to {MOST_NGRAM}");
        match self.read::<u64>(key, &expected)?.unwrap_or(0) {
            n @ 0..=MOST_NGRAM => Ok(n as u32),
            n => Err(self.invalid(key, &format!("is {n}, expected {expected}"))),
        }
    }

    fn few(&self, key: &str, len: usize, most: usize) -> Result<(), CompileError> {
        match len <= most {
            true => Ok(()),
            false => Err(self.invalid(key, &format!("has {len} entries; {most} are possible"))),
        }
    }

    /// The ids of a list, each once and only those that the model has. transformers passes over the others too, such
    /// as -1.
    fn tokens(&mut self, key: &str) -> Result<Vec<u32>, CompileError> {
        let listed: Vec<i64> = self.read(key, "a list of token ids")?.unwrap_or_default();
        self.few(key, listed.len(), MOST)?;
        let known: BTreeSet<u32> = listed.iter().filter_map(|&id| self.known(id)).collect();
        let others = listed.iter().filter(|&&id| self.known(id).is_none()).count();
        self.left_out(key, others);
        Ok(known.into_iter().collect())
    }

    fn known(&self, id: i64) -> Option<u32> {
        u32::try_from(id).ok().filter(|&id| id < self.vocab_size)
    }

    fn left_out(&mut self, key: &str, count: usize) {
        if count > 0 {
            let (path, vocab) = (self.path.display(), self.vocab_size);
            self.warnings.push(format!(
                "{path}: {key}: {count} of its entries are left out, because they name ids outside the vocabulary of {vocab}"
            ));
        }
    }

    /// A sequence all of whose ids the model has.
    fn word(&mut self, key: &str, ids: &[i64]) -> Result<Option<Vec<u32>>, CompileError> {
        self.few(key, ids.len(), MOST)?;
        let word: Option<Vec<u32>> = ids.iter().map(|&id| self.known(id)).collect();
        self.ids += word.as_ref().map_or(0, Vec::len);
        self.few(key, self.ids, MOST_IDS)?;
        Ok(word)
    }

    fn words(&mut self, key: &str) -> Result<Vec<Vec<u32>>, CompileError> {
        let listed: Vec<Vec<i64>> = self.read(key, "a list of lists of token ids")?.unwrap_or_default();
        self.few(key, listed.len(), MOST)?;
        let (mut words, mut others) = (Vec::new(), 0);
        // An empty sequence is never completed.
        for ids in listed.iter().filter(|ids| !ids.is_empty()) {
            match self.word(key, ids)? {
                Some(word) => words.push(word),
                None => others += 1,
            }
        }
        self.left_out(key, others);
        Ok(words)
    }

    /// Where a sequence is listed twice, the last bias counts and takes the place of the first, as in Python's
    /// dictionaries.
    fn biases(&mut self, key: &str) -> Result<Vec<(Vec<u32>, f32)>, CompileError> {
        let expected = "a list of [[token ids], bias]";
        let listed: Vec<(Vec<i64>, f32)> = self.read(key, expected)?.unwrap_or_default();
        self.few(key, listed.len(), MOST)?;
        let (mut biases, mut others) = (Vec::new(), 0);
        let mut places = std::collections::HashMap::new();
        for (ids, bias) in listed.iter().filter(|(ids, _)| !ids.is_empty()) {
            if !bias.is_finite() {
                return Err(self.invalid(key, "has a bias that f32 cannot hold"));
            }
            match self.word(key, ids)? {
                Some(word) => {
                    let place = *places.entry(word.clone()).or_insert(biases.len());
                    if place == biases.len() {
                        biases.push((word, *bias));
                    }
                    biases[place].1 = *bias;
                }
                None => others += 1,
            }
        }
        self.left_out(key, others);
        Ok(biases)
    }
}

/// When a key changes nothing.
enum Neutral {
    /// Only if it is absent or null, or an empty list.
    Absent,
    /// If it is this number.
    Number(f64),
    /// If it is false.
    False,
    /// If it is at least what the model was made for.
    Context,
}

/// Keys that change what transformers generates, but not what is generated here.
const NOT_APPLIED: [(&str, Neutral); 25] = [
    ("max_length", Neutral::Context),
    ("max_new_tokens", Neutral::Absent),
    ("max_time", Neutral::Absent),
    ("min_length", Neutral::Number(0.0)),
    ("min_new_tokens", Neutral::Number(0.0)),
    ("stop_strings", Neutral::Absent),
    ("num_beams", Neutral::Number(1.0)),
    ("num_beam_groups", Neutral::Number(1.0)),
    ("num_return_sequences", Neutral::Number(1.0)),
    ("diversity_penalty", Neutral::Number(0.0)),
    ("penalty_alpha", Neutral::Number(0.0)),
    ("dola_layers", Neutral::Absent),
    ("constraints", Neutral::Absent),
    ("force_words_ids", Neutral::Absent),
    ("forced_bos_token_id", Neutral::Absent),
    ("forced_eos_token_id", Neutral::Absent),
    ("forced_decoder_ids", Neutral::Absent),
    ("encoder_repetition_penalty", Neutral::Number(1.0)),
    ("encoder_no_repeat_ngram_size", Neutral::Number(0.0)),
    ("exponential_decay_length_penalty", Neutral::Absent),
    ("guidance_scale", Neutral::Number(1.0)),
    ("watermarking_config", Neutral::Absent),
    ("remove_invalid_values", Neutral::False),
    ("renormalize_logits", Neutral::False),
    ("token_healing", Neutral::False),
];
/// The same where `do_sample` is true.
const NOT_APPLIED_SAMPLING: [(&str, Neutral); 4] = [
    ("typical_p", Neutral::Number(1.0)),
    ("epsilon_cutoff", Neutral::Number(0.0)),
    ("eta_cutoff", Neutral::Number(0.0)),
    ("top_h", Neutral::Absent),
];

/// Names and values of keys that change what transformers generates and that are not applied, for a model made for
/// `context` tokens.
fn not_applied(map: &Map<String, Value>, context: Option<u64>) -> Option<String> {
    let samples = map.get("do_sample").and_then(Value::as_bool).unwrap_or(false);
    let sampling = NOT_APPLIED_SAMPLING.iter().filter(|_| samples);
    let found: Vec<String> = NOT_APPLIED
        .iter()
        .chain(sampling)
        .filter_map(|(key, neutral)| {
            let value = map.get(*key).filter(|value| !value.is_null())?;
            let changes = match neutral {
                Neutral::Absent => value.as_array().is_none_or(|list| !list.is_empty()),
                Neutral::Number(n) => value.as_f64() != Some(*n),
                Neutral::False => value.as_bool() != Some(false),
                // No text gets longer than the context anyway.
                Neutral::Context => {
                    value.as_u64().is_none_or(|len| context.is_none_or(|context| len < context))
                }
            };
            changes.then(|| format!("{key} {}", shown(value)))
        })
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// A value as JSON, cut where it is long.
fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > SHOWN {
        text.truncate(text.floor_char_boundary(SHOWN));
        text.push_str("...");
    }
    text
}
