//! The command line as it is typed. What an option means for a certain bundle is decided where the option is used.

#[cfg(feature = "serve")]
use crate::serve::Serve;
use crate::template::Template;
use crate::tokenize::Tokenize;
use crate::{values, version};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use trit_runtime::format::manifest::SamplingDefaults;
use trit_runtime::format::target::Target;
use trit_runtime::sample::{Sampler, SamplerOptions, SamplerOverrides, random_seed};
use trit_runtime::{KernelChoice, KvType, StateType};

/// Run a .trit bundle: generate text, chat, measure, check.
#[derive(Debug, Parser)]
#[command(
    name = "trit-run",
    version,
    long_version = version::long(),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Without a prompt: on a terminal a chat, or a continuation where the model has no chat template; \
                  otherwise the prompt is read from standard input.\n\n\
                  How tokens are chosen is as the model's authors suggest, but for what is given: what they say of \
                  single tokens (suppressed ones, bad words, biases, runs that may not repeat) holds always.\n\n\
                  Exit codes:\n  \
                  0    done\n  \
                  1    internal error, or a selftest that failed\n  \
                  2    usage\n  \
                  3    invalid input, a model whose results are no numbers, or output that cannot be written\n  \
                  4    not supported by this program, or not possible on this machine: kernels, memory, threads\n  \
                  5    machine code, or a signature, that is not trusted\n  \
                  130  interrupted"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub generate: Generate,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a model over HTTP to any number of clients, in the interfaces of OpenAI and Anthropic.
    #[cfg(feature = "serve")]
    Serve(Serve),
    /// Measure tokens per second, and the memory bandwidth to compare with.
    Bench(Bench),
    /// Measure how well the model predicts a text.
    Perplexity(Perplexity),
    /// Write the logits after every token.
    Logits(Logits),
    /// Check that this machine computes what the bundle says it should.
    Selftest(Selftest),
    /// Print the token ids of a text, or the text of ids.
    Tokenize(Tokenize),
    /// Print the prompt that the chat template makes of messages.
    Template(Template),
    /// Print a completion script for a shell.
    Completions(Completions),
    /// Print the manual page of this program, or of one of its commands.
    Man(Man),
}

#[derive(Debug, Args)]
pub struct Generate {
    /// The .trit bundle to run.
    // Required unless there is a subcommand, which has a bundle of its own.
    #[arg(required = true)]
    pub bundle: Option<PathBuf>,
    /// Text to continue, as with -p.
    #[arg(value_name = "TEXT", conflicts_with_all = ["prompt", "ids", "file"])]
    pub text: Option<String>,
    /// Text to continue; with --chat, to answer.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with_all = ["ids", "file"])]
    pub prompt: Option<String>,
    /// Token ids to continue; none are added.
    #[arg(long, value_delimiter = ',', value_name = "1,2,3", conflicts_with = "file", allow_negative_numbers = true,
          value_parser = values::id)]
    pub ids: Option<Vec<u32>>,
    /// File with text to continue, without its last line break; - is standard input.
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// Take the text for a user's message and answer it, by the model's chat template.
    #[arg(long, conflicts_with = "ids")]
    pub chat: bool,
    /// System message of a chat; --chat goes without saying.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "ids")]
    pub system: Option<String>,
    /// Neither read nor write the file of what was typed in chats.
    #[arg(long)]
    pub no_history: bool,
    /// Most tokens to generate; -1: as many as there is room for [default: 256; in a chat -1].
    #[arg(short, long = "tokens", value_name = "N", allow_negative_numbers = true, value_parser = values::most_tokens)]
    pub n: Option<usize>,
    /// End before this text, which is not printed; may be given more than once.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = values::some_text)]
    pub stop: Vec<String>,
    /// Generate on after the model says it is done.
    #[arg(long)]
    pub ignore_eos: bool,
    /// File that keeps what has run, so that a prompt that begins alike, as with the same system message, need not run
    /// again. It is made where there is none, and replaced with prompt and answer in the end. A file of another bundle is
    /// refused, and stays. Who can read it can read the text.
    #[arg(long, value_name = "FILE")]
    pub prompt_cache: Option<PathBuf>,
    /// Leave the file of --prompt-cache as it is.
    #[arg(long, requires = "prompt_cache")]
    pub prompt_cache_ro: bool,
    /// Do not draft tokens, be it from the text before them or by the model's own block; the tokens generated are the same
    /// either way.
    #[arg(long)]
    pub no_speculation: bool,
    /// Print where the time goes, on standard error.
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub sampling: Sampling,
    #[cfg(feature = "guide")]
    #[command(flatten)]
    pub grammar: crate::grammar::GrammarArgs,
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
#[derive(Clone, Debug, Args)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token always.
    #[arg(long, value_name = "T", allow_negative_numbers = true, value_parser = values::temperature)]
    pub temp: Option<f32>,
    /// Choose among the K most probable tokens; 0 or -1: among all.
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = values::top_k)]
    pub top_k: Option<usize>,
    /// Choose among the most probable tokens that together reach probability P.
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = values::top_p)]
    pub top_p: Option<f32>,
    /// Choose among tokens at least P times as probable as the most probable.
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = values::min_p)]
    pub min_p: Option<f32>,
    /// Make tokens that occurred less probable; 1: off.
    #[arg(long, value_name = "R", allow_negative_numbers = true, value_parser = values::penalty)]
    pub repeat_penalty: Option<f32>,
    /// Start of the random sequence, for the same result again; -1: another one each time [default: -1].
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = values::seed)]
    pub seed: Option<u64>,
}

impl Sampling {
    /// What chooses tokens of a bundle.
    pub fn sampler(&self, defaults: &SamplingDefaults) -> Sampler {
        Sampler::with_rules(self.options(defaults), &defaults.rules)
    }

    /// What was given, filled up from the bundle.
    pub fn options(&self, defaults: &SamplingDefaults) -> SamplerOptions {
        let &Sampling { temp: temperature, top_k, top_p, min_p, repeat_penalty, seed } = self;
        let overrides =
            SamplerOverrides { temperature, top_k, top_p, min_p, repeat_penalty, ..Default::default() };
        overrides.over(defaults, seed.unwrap_or_else(random_seed))
    }
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Kernels to run: auto, embedded, jit or portable.
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub kernels: KernelChoice,
    /// Instruction-set tier to use instead of the best one, such as x86-64-v3.
    #[arg(long, value_name = "TIER", value_parser = values::target)]
    pub cpu: Option<Target>,
    /// Run the bundle's machine code whoever compiled it: it can do whatever you can do.
    #[arg(long)]
    pub trust: bool,
    /// Run the bundle only if it is signed with this key, whoever compiled it; `tritc sign` signs, and the signature stands
    /// beside the bundle. May be given more than once, for one key of several.
    #[arg(long, value_name = "KEY.pub", conflicts_with = "trust")]
    pub key: Vec<PathBuf>,
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
    /// Element type of the recurrent state of hybrids: f32, or f16 for half the memory and a little less precision.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub state: StateType,
}

#[derive(Debug, Args)]
pub struct SessionArgs {
    /// Longest sequence in tokens; 0: what the bundle was compiled for [default: 0].
    #[arg(short, long, value_name = "TOKENS", allow_negative_numbers = true, value_parser = values::context)]
    pub context: Option<u32>,
    /// Worker threads [default: as many as the system grants].
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = values::threads)]
    pub threads: Option<u16>,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// The .trit bundle to measure.
    pub bundle: PathBuf,
    /// Tokens of the prompt; 0 leaves the test out.
    #[arg(short, long = "prompt", value_name = "TOKENS", default_value_t = 512, allow_negative_numbers = true,
          value_parser = values::tokens)]
    pub prompt: usize,
    /// Tokens to generate; 0 leaves the test out.
    #[arg(short, long = "tokens", value_name = "N", default_value_t = 128, allow_negative_numbers = true,
          value_parser = values::tokens)]
    pub n: usize,
    /// Tokens in the KV cache before each test, which are not timed.
    #[arg(short, long, value_delimiter = ',', value_name = "0,4096", default_value = "0", allow_negative_numbers = true,
          value_parser = values::tokens)]
    pub depth: Vec<usize>,
    /// Sequences that generate at once: tokens/s count those of all.
    #[arg(short, long, value_delimiter = ',', value_name = "1,8", default_value = "1", allow_negative_numbers = true,
          value_parser = values::sequences)]
    pub batch: Vec<usize>,
    /// Text whose tokens are run, instead of tokens all over the vocabulary: how sure the model is decides how much of
    /// the head is read.
    #[arg(short, long, value_name = "TEXT")]
    pub file: Option<PathBuf>,
    /// Numbers of worker threads [default: as many as the system grants].
    #[arg(short, long, value_delimiter = ',', value_name = "1,2", allow_negative_numbers = true,
          value_parser = values::threads)]
    pub threads: Vec<u16>,
    /// How often each test runs.
    #[arg(short, long, value_name = "N", default_value_t = 5, allow_negative_numbers = true,
          value_parser = values::repetitions)]
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
    #[arg(long, value_delimiter = ',', value_name = "1,2,3", required = true, allow_negative_numbers = true,
          value_parser = values::id)]
    pub ids: Vec<u32>,
    /// File to write: tensor "logits", f32 [n_tokens, vocab_size]. Only a file of that kind is replaced.
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

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: trit_command::scripts::Shell,
}

#[derive(Debug, Args)]
pub struct Man {
    /// One of the commands.
    pub command: Option<String>,
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
            "trit-run B text",
            "trit-run B bench",
            "trit-run B --chat -p x --system y --json",
            "trit-run B --system y",
            "trit-run B text --stop a --stop -b",
            "trit-run B --ids 1,2,3",
            "trit-run B -p x --prompt-cache F --prompt-cache-ro",
            "trit-run bench B -p 512 -n 128 -t 1,2 -r 5 --json",
            "trit-run bench B -d 0,512,4096 --file T --profile",
            "trit-run perplexity B --file T --kv f32",
            "trit-run perplexity B --ids F.json --json",
            "trit-run logits B --ids 1,2,3 --output L.safetensors",
            "trit-run selftest B",
            "trit-run tokenize B text --no-special --json",
            "trit-run tokenize B -f T",
            "trit-run tokenize B --decode 1,2,3",
            "trit-run template B --messages M --tools T --no-generation-prompt",
            "trit-run completions zsh",
            "trit-run man bench",
            #[cfg(feature = "serve")]
            "trit-run serve B --listen [::1]:0 --slots 4 --queue 8 --kv-memory 2G -c 512 -t 2 --cors * --log debug --drain 5",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        for line in [
            "trit-run",
            "trit-run B -p x --ids 1",
            "trit-run B text -p x",
            "trit-run B text more",
            "trit-run B --chat --ids 1",
            "trit-run B --system y --ids 1",
            "trit-run B --stop= -p x",
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
            "trit-run tokenize B text -f T",
            "trit-run tokenize B text --decode 1",
            "trit-run template B",
            "trit-run bench B -r 0",
            "trit-run bench B -d -1",
            "trit-run bench B -d 0,x",
            #[cfg(feature = "serve")]
            "trit-run serve",
            "trit-run serve B --listen nowhere",
            "trit-run serve B --kv-memory much",
            "trit-run serve B --cors example.com",
            "trit-run serve B --log everything",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn numbers_of_other_programs_mean_what_they_mean_there() {
        let generate = |line: &str| parse(line).unwrap_or_else(|e| panic!("{line}: {e}")).generate;
        assert_eq!(generate("trit-run B -n -1").n, Some(usize::MAX));
        assert_eq!(generate("trit-run B --top-k -1").sampling.top_k, Some(0));
        assert_eq!(generate("trit-run B -c 0").session.context, Some(0));
        // 32 random bits: that two of them are alike three times does not happen.
        let seeds = || (0..3).map(|_| generate("trit-run B --seed -1").sampling.seed).collect::<Vec<_>>();
        assert_ne!(seeds(), seeds());
        for (line, meant) in [
            ("trit-run B -n -2", "-1 for no limit"),
            ("trit-run B --seed -2", "-1, or leaving it out"),
            ("trit-run B --top-k -2", "0 or -1"),
            ("trit-run B --top-p -1", "1: choose among all"),
            ("trit-run B --min-p 2", "0: choose among all"),
            ("trit-run B --temp -1", "0 takes the most probable"),
            ("trit-run B --repeat-penalty 0", "1: off"),
            ("trit-run B -t 0", "leave -t out"),
            ("trit-run B -t -1", "leave -t out"),
            ("trit-run B -c -1", "was compiled for"),
            ("trit-run B --ids -1", "such as 1,2,3"),
            ("trit-run bench B -t -1", "leave -t out"),
            ("trit-run bench B -p -1", "0 or more"),
            ("trit-run bench B -n -1", "0 or more"),
            ("trit-run bench B -d -1", "0 or more"),
            ("trit-run bench B -r -1", "from 1"),
            ("trit-run logits B -o L --ids -1", "such as 1,2,3"),
            ("trit-run B --stop= -p x", "empty"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(meant), "{line}: {error}");
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
