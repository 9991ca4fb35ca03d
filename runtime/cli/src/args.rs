//! The command line, as typed. What it means together with a bundle is decided where it is used.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use trit_runtime::format::manifest::SamplingDefaults;
use trit_runtime::format::target::Target;
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::{KernelChoice, KvType};

/// Run a .trit bundle: generate text, chat, measure, check.
#[derive(Debug, Parser)]
#[command(
    name = "trit-run",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Without a prompt: on a terminal a chat, or a continuation where the model has no chat template; \
                  otherwise the prompt is read from standard input.\n\n\
                  How tokens are chosen is as the model's authors suggest, but for what is given: what they say of single tokens \
                  (suppressed ones, bad words, biases, runs that may not repeat) holds always.\n\n\
                  Exit codes: 0 done, 1 internal, 2 usage, 3 invalid input, 4 unsupported, 5 untrusted, \
                  130 interrupted."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub generate: Generate,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure tokens per second, and the memory bandwidth to compare with.
    Bench(Bench),
    /// Measure how well the model predicts a text.
    Perplexity(Perplexity),
    /// Write the logits after every token.
    Logits(Logits),
    /// Check that this machine computes what the bundle says it should.
    Selftest(Selftest),
}

#[derive(Debug, Args)]
pub struct Generate {
    /// The .trit bundle to run.
    // Required, but for the subcommands, which have their own.
    #[arg(required = true)]
    pub bundle: Option<PathBuf>,
    /// Text to continue.
    #[arg(short, long, allow_hyphen_values = true, conflicts_with_all = ["ids", "file"])]
    pub prompt: Option<String>,
    /// Token ids to continue; none are added.
    #[arg(long, value_delimiter = ',', value_name = "1,2,3", conflicts_with = "file")]
    pub ids: Option<Vec<u32>>,
    /// File with text to continue, without its last line break; - is standard input.
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// System message of a chat.
    #[arg(long, conflicts_with_all = ["prompt", "ids", "file", "json"])]
    pub system: Option<String>,
    /// Most tokens to generate [default: 256; in a chat as many as there is room for].
    #[arg(short, long = "tokens", value_name = "N")]
    pub n: Option<usize>,
    /// Generate on after the model says it is done.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Do not guess tokens from the text before them; the tokens generated are the same either way.
    #[arg(long)]
    pub no_speculation: bool,
    /// Print where the time goes, on standard error.
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub sampling: Sampling,
    /// Print one JSON object with ids, text and timings.
    #[arg(long)]
    pub json: bool,
    /// Print kernels and speed on standard error even when that is no terminal.
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// How tokens are chosen. What is not given is as the model's authors suggest.
#[derive(Debug, Args)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token always.
    #[arg(long, value_name = "T", value_parser = at_least_0)]
    pub temp: Option<f32>,
    /// Choose among the K most probable tokens; 0: among all.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Choose among the most probable tokens that together reach probability P.
    #[arg(long, value_name = "P", value_parser = fraction)]
    pub top_p: Option<f32>,
    /// Choose among tokens at least P times as probable as the most probable.
    #[arg(long, value_name = "P", value_parser = fraction)]
    pub min_p: Option<f32>,
    /// Make tokens that occurred less probable; 1: off.
    #[arg(long, value_name = "R", value_parser = above_0)]
    pub repeat_penalty: Option<f32>,
    /// Start of the random sequence, for the same result again [default: another one each time].
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
}

impl Sampling {
    /// What chooses tokens of a bundle.
    pub fn sampler(&self, defaults: &SamplingDefaults) -> Sampler {
        Sampler::with_rules(self.options(defaults), &defaults.rules)
    }

    /// What was given, filled up from the bundle.
    pub fn options(&self, defaults: &SamplingDefaults) -> SamplerOptions {
        let mut defaults = defaults.clone();
        // Who limits the candidates wants to choose among them, even where the authors suggest the most probable.
        defaults.do_sample |= self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        let base = SamplerOptions::from_defaults(&defaults, self.seed.unwrap_or_else(random_seed));
        SamplerOptions {
            temperature: self.temp.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(base.repeat_penalty),
            seed: base.seed,
        }
    }
}

/// 32 bits, so that every JSON reader keeps it exactly.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) >> 32
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Kernels to run: auto, embedded, jit or portable.
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub kernels: KernelChoice,
    /// Instruction-set tier to use instead of the best one, such as x86-64-v3.
    #[arg(long, value_name = "TIER", value_parser = target)]
    pub cpu: Option<Target>,
    /// Run the bundle's machine code whoever compiled it: it can do whatever you can do.
    #[arg(long)]
    pub trust: bool,
    /// Do not check the digests of the weights.
    #[arg(long)]
    pub no_verify: bool,
    /// Keep weights in the file's mapping: less memory of one's own, but slower.
    #[arg(long)]
    pub mmap: bool,
    /// Time the kernels again instead of using what was found fastest on this machine before.
    #[arg(long)]
    pub tune: bool,
    /// Element type of the KV cache: f16, f32 or int8. Where f16 cannot hold a model's keys or values, f32 is used from there on.
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub kv: KvType,
}

#[derive(Debug, Args)]
pub struct SessionArgs {
    /// Longest sequence in tokens [default: what the model was made for].
    #[arg(short, long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// Worker threads [default: as many as the system grants].
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// The .trit bundle to measure.
    pub bundle: PathBuf,
    /// Tokens of the prompt; 0 leaves the test out.
    #[arg(short, long = "prompt", value_name = "TOKENS", default_value_t = 512)]
    pub prompt: usize,
    /// Tokens to generate; 0 leaves the test out.
    #[arg(short, long = "tokens", value_name = "N", default_value_t = 128)]
    pub n: usize,
    /// Tokens in the KV cache before each test, which are not timed.
    #[arg(short, long, value_delimiter = ',', value_name = "0,4096", default_value = "0")]
    pub depth: Vec<usize>,
    /// Text whose tokens are run, instead of tokens all over the vocabulary: how sure the model is decides how much of
    /// the head is read.
    #[arg(short, long, value_name = "TEXT")]
    pub file: Option<PathBuf>,
    /// Numbers of worker threads [default: as many as the system grants].
    #[arg(short, long, value_delimiter = ',', value_name = "1,2", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Vec<u16>,
    /// How often each test runs.
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub repetitions: u16,
    /// Print where the time of each test goes, on standard error, or in the JSON object.
    #[arg(long)]
    pub profile: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, Args)]
pub struct Perplexity {
    /// The .trit bundle to measure.
    pub bundle: PathBuf,
    /// Text, tokenized and cut into windows of the context's length.
    #[arg(long, value_name = "TEXT", required_unless_present = "ids", conflicts_with = "ids")]
    pub file: Option<PathBuf>,
    /// JSON file {"ids": [...], "window": 1024}.
    #[arg(long, value_name = "FILE.json")]
    pub ids: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

#[derive(Debug, Args)]
pub struct Logits {
    /// The .trit bundle to run.
    pub bundle: PathBuf,
    /// Token ids; none are added.
    #[arg(long, value_delimiter = ',', value_name = "1,2,3", required = true)]
    pub ids: Vec<u32>,
    /// File to write: tensor "logits", f32 [n_tokens, vocab_size].
    #[arg(short, long, value_name = "L.safetensors")]
    pub output: PathBuf,
    #[command(flatten)]
    pub session: SessionArgs,
}

#[derive(Debug, Args)]
pub struct Selftest {
    /// The .trit bundle to check.
    pub bundle: PathBuf,
    #[command(flatten)]
    pub session: SessionArgs,
}

fn number(text: &str, valid: fn(f32) -> bool, expected: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|&v: &f32| v.is_finite() && valid(v))
        .ok_or_else(|| format!("expected {expected}"))
}

fn at_least_0(text: &str) -> Result<f32, String> {
    number(text, |v| v >= 0.0, "a number, 0 or more")
}

fn above_0(text: &str) -> Result<f32, String> {
    number(text, |v| v > 0.0, "a number above 0")
}

fn fraction(text: &str) -> Result<f32, String> {
    number(text, |v| (0.0..=1.0).contains(&v), "a number from 0 to 1")
}

fn target(text: &str) -> Result<Target, String> {
    Target::from_name(text)
        .ok_or_else(|| format!("expected one of {}", Target::ALL.map(Target::name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_lines_parse() {
        let line = "trit-run B -p -x -n 4 --ignore-eos --temp 0 --top-k 2 --top-p 0.5 --min-p 0.1 --repeat-penalty 1.1 \
                    --seed 9 -c 64 -t 2 --json --kv f32 --kernels portable --cpu x86-64-v3 --trust --no-verify";
        let Cli { command: None, generate } = parse(line).unwrap() else { panic!("that is no subcommand") };
        assert_eq!(generate.prompt.as_deref(), Some("-x"));
        assert_eq!(generate.session.load.cpu, Some(Target::X86_64V3));
        for line in [
            "trit-run B",
            "trit-run B --ids 1,2,3",
            "trit-run bench B -p 512 -n 128 -t 1,2 -r 5 --json",
            "trit-run bench B -d 0,512,4096 --file T --profile",
            "trit-run perplexity B --file T --kv f32",
            "trit-run perplexity B --ids F.json --json",
            "trit-run logits B --ids 1,2,3 --output L.safetensors",
            "trit-run selftest B",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        for line in [
            "trit-run",
            "trit-run B -p x --ids 1",
            "trit-run B --ids 1,x",
            "trit-run B --temp nan",
            "trit-run B --top-p 1.5",
            "trit-run B --repeat-penalty 0",
            "trit-run B -t 0",
            "trit-run B --cpu x86-64-v9",
            "trit-run B --kernels magic",
            "trit-run perplexity B",
            "trit-run perplexity B --file T --ids F",
            "trit-run logits B --output L",
            "trit-run bench B -r 0",
            "trit-run bench B -d -1",
            "trit-run bench B -d 0,x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_bundle_suggests_and_the_user_decides() {
        let sampling = |line: &str| parse(line).unwrap().generate.sampling;
        let suggested = SamplingDefaults {
            do_sample: true,
            temperature: Some(0.7),
            top_p: Some(0.9),
            ..SamplingDefaults::default()
        };
        let options = sampling("trit-run B --seed 1").options(&suggested);
        assert_eq!((options.temperature, options.top_p, options.seed), (0.7, 0.9, 1));
        assert_eq!(sampling("trit-run B --temp 0").options(&suggested).temperature, 0.0);
        let greedy = SamplingDefaults::default();
        assert_eq!(sampling("trit-run B --seed 1").options(&greedy).temperature, 0.0);
        assert_eq!(sampling("trit-run B --top-k 3").options(&greedy).temperature, 1.0);
    }
}
