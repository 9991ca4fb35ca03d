//! Structures of options enter, options of the runtime leave, or which field cannot be.

use crate::failure::{Failure, invalid};
use crate::types::*;
use std::path::PathBuf;
use std::ptr;
use trit_runtime::sample::{SamplerOverrides, random_seed};
use trit_runtime::{
    EngineOptions, KernelChoice, KvType, LoadOptions, SequenceOptions, StateType, TrustPolicy, Tuning,
    WeightMemory,
};

/// Most tokens of an answer where nobody says, as in `trit-run`.
const DEFAULT_TOKENS: usize = 256;

impl Default for trit_options {
    fn default() -> trit_options {
        trit_options {
            size: size_of::<trit_options>(),
            threads: 0,
            kernels: TRIT_KERNELS_AUTO,
            trust: TRIT_TRUST_BY_RECORD,
            verify: TRIT_VERIFY_ALL,
            context: 0,
            kv: TRIT_KV_F16,
            state: TRIT_STATE_F32,
            weights: TRIT_WEIGHTS_AUTO,
            tuning: TRIT_TUNING_REMEMBERED,
            reserved: 0,
            keys: ptr::null(),
            key_count: 0,
        }
    }
}

impl Default for trit_generation {
    fn default() -> trit_generation {
        trit_generation {
            size: size_of::<trit_generation>(),
            temperature: f32::NAN,
            top_p: f32::NAN,
            min_p: f32::NAN,
            repeat_penalty: f32::NAN,
            frequency_penalty: f32::NAN,
            presence_penalty: f32::NAN,
            top_k: TRIT_TOP_K_OF_MODEL,
            ignore_stop_ids: 0,
            seed: TRIT_SEED_RANDOM,
            max_tokens: DEFAULT_TOKENS,
            stop_texts: ptr::null(),
            stop_text_count: 0,
            no_drafts: 0,
            reserved: 0,
        }
    }
}

/// One of the values that a field may have.
fn one_of<T: Copy>(field: &str, value: u32, known: &[(u32, T)], expected: &str) -> Result<T, Failure> {
    let found = known.iter().find(|(number, _)| *number == value);
    found.map(|(_, meant)| *meant).ok_or_else(|| invalid(format!("{field} is {value}; expected {expected}")))
}

fn truth(field: &str, value: u32) -> Result<bool, Failure> {
    one_of(field, value, &[(0, false), (1, true)], "0 or 1")
}

fn unused(field: &str, value: u32) -> Result<(), Failure> {
    one_of(field, value, &[(0, ())], "0: it is not used")
}

/// How a bundle is to be opened.
pub struct Opening {
    /// How it is loaded.
    pub load: LoadOptions,
    /// What runs it.
    pub engine: EngineOptions,
    /// Its sessions.
    pub sequence: SequenceOptions,
}

impl Opening {
    /// What the structure says. `keys` are the files that it names, which are read.
    ///
    /// # Errors
    /// The field that cannot be; the file of a key that cannot be read or relied on.
    pub fn new(options: &trit_options, keys: &[PathBuf]) -> Result<Opening, Failure> {
        let kernels = [
            (TRIT_KERNELS_AUTO, KernelChoice::Auto),
            (TRIT_KERNELS_EMBEDDED, KernelChoice::Embedded),
            (TRIT_KERNELS_JIT, KernelChoice::Jit),
            (TRIT_KERNELS_PORTABLE, KernelChoice::Portable),
        ];
        let trust = [(TRIT_TRUST_BY_RECORD, 0), (TRIT_TRUST_ALWAYS, 1), (TRIT_TRUST_NEVER, 2)];
        let kv = [(TRIT_KV_F16, KvType::F16), (TRIT_KV_F32, KvType::F32), (TRIT_KV_INT8, KvType::Int8)];
        let state = [(TRIT_STATE_F32, StateType::F32), (TRIT_STATE_F16, StateType::F16)];
        let weights = [(TRIT_WEIGHTS_AUTO, WeightMemory::Auto), (TRIT_WEIGHTS_MAPPED, WeightMemory::Mapped)];
        let tuning = [
            (TRIT_TUNING_REMEMBERED, Tuning::Remembered),
            (TRIT_TUNING_FRESH, Tuning::Fresh),
            (TRIT_TUNING_OFF, Tuning::Off),
        ];
        let verify = [(TRIT_VERIFY_ALL, true), (TRIT_VERIFY_LITTLE, false)];
        unused("reserved", options.reserved)?;
        let trust = match one_of("trust", options.trust, &trust, "one of TRIT_TRUST_BY_RECORD and the like")?
        {
            0 if !keys.is_empty() => TrustPolicy::signed_by_files(keys)?,
            0 => TrustPolicy::default(),
            other if !keys.is_empty() => {
                let expected = "TRIT_TRUST_BY_RECORD where keys are named";
                return Err(invalid(format!("trust is {other}; expected {expected}")));
            }
            1 => TrustPolicy::everything(),
            _ => TrustPolicy::nothing(),
        };
        let load = LoadOptions {
            kernels: one_of("kernels", options.kernels, &kernels, "one of TRIT_KERNELS_AUTO and the like")?,
            trust,
            verify: one_of("verify", options.verify, &verify, "TRIT_VERIFY_ALL or TRIT_VERIFY_LITTLE")?,
            memory: one_of("weights", options.weights, &weights, "TRIT_WEIGHTS_AUTO or TRIT_WEIGHTS_MAPPED")?,
            tuning: one_of("tuning", options.tuning, &tuning, "one of TRIT_TUNING_REMEMBERED and the like")?,
            ..LoadOptions::default()
        };
        let counted = |value: u32| (value > 0).then_some(value as usize);
        Ok(Opening {
            load,
            engine: EngineOptions { threads: counted(options.threads), ..EngineOptions::default() },
            sequence: SequenceOptions {
                context: counted(options.context),
                kv: one_of("kv", options.kv, &kv, "TRIT_KV_F16, TRIT_KV_F32 or TRIT_KV_INT8")?,
                state: one_of("state", options.state, &state, "TRIT_STATE_F32 or TRIT_STATE_F16")?,
                ..SequenceOptions::default()
            },
        })
    }
}

/// How an answer is to be generated.
pub struct Generation {
    /// How tokens are chosen, where the caller says it.
    pub sampling: SamplerOverrides,
    /// Start of the random sequence.
    pub seed: u64,
    /// Most tokens.
    pub max_tokens: usize,
    /// Texts that end it.
    pub stop_texts: Vec<String>,
    /// Whether ids that end it are tokens like others.
    pub ignore_stop_ids: bool,
    /// Whether to draft.
    pub draft: bool,
}

impl Generation {
    /// What the structure says; its stop texts have been read already.
    ///
    /// # Errors
    /// The field that cannot be.
    pub fn new(options: &trit_generation, stop_texts: &[&str]) -> Result<Generation, Failure> {
        let given = |value: f32| (!value.is_nan()).then_some(value);
        let sampling = SamplerOverrides {
            temperature: given(options.temperature),
            top_k: (options.top_k != TRIT_TOP_K_OF_MODEL).then_some(options.top_k as usize),
            top_p: given(options.top_p),
            min_p: given(options.min_p),
            repeat_penalty: given(options.repeat_penalty),
            frequency_penalty: given(options.frequency_penalty),
            presence_penalty: given(options.presence_penalty),
        };
        sampling.check()?;
        unused("reserved", options.reserved)?;
        if let Some(at) = stop_texts.iter().position(|text| text.is_empty()) {
            return Err(invalid(format!("stop_texts[{at}] is empty; nothing would be generated before it")));
        }
        let seed = match options.seed {
            TRIT_SEED_RANDOM => random_seed(),
            seed => seed,
        };
        Ok(Generation {
            sampling,
            seed,
            max_tokens: options.max_tokens,
            stop_texts: stop_texts.iter().map(|text| (*text).to_owned()).collect(),
            ignore_stop_ids: truth("ignore_stop_ids", options.ignore_stop_ids)?,
            draft: !truth("no_drafts", options.no_drafts)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_cannot_be_are_named() {
        let good = trit_options::default();
        Opening::new(&good, &[]).unwrap();
        for (options, field) in [
            (trit_options { kernels: 4, ..good }, "kernels"),
            (trit_options { trust: 3, ..good }, "trust"),
            (trit_options { verify: 2, ..good }, "verify"),
            (trit_options { kv: 3, ..good }, "kv"),
            (trit_options { state: 2, ..good }, "state"),
            (trit_options { weights: 2, ..good }, "weights"),
            (trit_options { tuning: u32::MAX, ..good }, "tuning"),
            (trit_options { reserved: 1, ..good }, "reserved"),
        ] {
            let failure = Opening::new(&options, &[]).err().unwrap();
            assert_eq!(failure.status, trit_status::TRIT_INVALID_ARGUMENT);
            let said = failure.into_error().message.into_string().unwrap();
            assert!(said.starts_with(&format!("{field} is ")), "{said}");
        }
        let always = trit_options { trust: TRIT_TRUST_ALWAYS, ..good };
        let failure = Opening::new(&always, &["vendor.pub".into()]).err().unwrap();
        assert_eq!(failure.status, trit_status::TRIT_INVALID_ARGUMENT);
        let good = trit_generation::default();
        Generation::new(&good, &["x"]).unwrap();
        for (options, stop) in [
            (trit_generation { temperature: -1.0, ..good }, "x"),
            (trit_generation { top_p: f32::INFINITY, ..good }, "x"),
            (trit_generation { ignore_stop_ids: 2, ..good }, "x"),
            (trit_generation { no_drafts: 2, ..good }, "x"),
            (trit_generation { reserved: 2, ..good }, "x"),
            (good, ""),
        ] {
            let failure = Generation::new(&options, &[stop]).err().unwrap();
            assert_eq!(failure.status, trit_status::TRIT_INVALID_ARGUMENT);
        }
    }

    #[test]
    fn a_random_seed_is_another_each_time_and_never_the_mark() {
        let seed = || Generation::new(&trit_generation::default(), &[]).unwrap().seed;
        assert!(seed() != seed() && seed() != TRIT_SEED_RANDOM);
    }
}
