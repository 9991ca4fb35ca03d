//! The command line, as it is parsed.

use crate::version;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use trit_format::target::Target;
use tritc::compile::targets::TargetChoice;

/// Ahead-of-time compiler for ternary language models.
#[derive(Parser)]
#[command(
    name = "tritc",
    version,
    after_help = "Exit codes: 0 done, 1 internal error, 2 usage, 3 invalid input, or a disk, memory or output that is \
                  full, 4 unsupported.",
    long_version = version::long(),
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Compile a checkpoint to a .trit bundle
    Compile(Compile),
    /// Say what a bundle is, or what a checkpoint is and how it would be compiled
    Inspect(Inspect),
    /// Disassemble the kernels in a bundle
    Disasm {
        /// The bundle
        bundle: PathBuf,
        /// Only kernels for this target
        #[arg(long, value_parser = target, value_name = "T")]
        target: Option<Target>,
        /// Only kernels whose name contains this
        #[arg(long, value_name = "NAME")]
        kernel: Option<String>,
    },
    /// Check every digest in a bundle
    Verify {
        /// The bundle
        bundle: PathBuf,
        /// Also generate every kernel again and compare it byte for byte
        #[arg(long)]
        rebuild: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: trit_command::scripts::Shell,
    },
    /// Print the manual page of this program, or of one of its commands
    Man {
        /// One of the commands
        command: Option<String>,
    },
}

#[derive(clap::Args)]
pub struct Inspect {
    /// A bundle, or a checkpoint as compile takes it
    pub path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print the plan of a bundle's forward pass; with --json, as its field "plan"
    #[arg(long)]
    pub plan: bool,
    #[command(flatten)]
    pub reading: Reading,
}

/// How a checkpoint is to be read.
#[derive(clap::Args)]
pub struct Reading {
    /// Type of activations in ternary products; auto is what the model was trained with, or int8 by groups of columns
    /// where it was trained without quantized activations
    #[arg(long, value_enum, default_value = "auto")]
    pub activations: ActivationsOption,
    /// Rounds float weights that are not declared to be ternary; absmean is what BitNet does to its latent weights
    #[arg(long, value_enum)]
    pub quantize: Option<QuantizeOption>,
    /// Read float weights that are ternary only within rounding: how far they may be from it, relative to the scale of
    /// their group (0.02 is 2%). The bundle says that it was used
    #[arg(long, value_name = "X")]
    pub tolerance: Option<f32>,
    /// Treat a key of config.json, or of a GGUF file's metadata, as if it were not there; may be given more than once.
    /// Keys that are known to change what the model computes are not ignored
    #[arg(long, value_name = "KEY")]
    pub ignore_config_key: Vec<String>,
    /// Leave the tokenizer and the chat template out: the bundle takes and gives token ids only
    #[arg(long)]
    pub no_tokenizer: bool,
    /// Layout of a GGUF file's I2_S weights [default: what the weights themselves say]
    #[arg(long, value_enum)]
    pub i2s_layout: Option<I2sLayoutOption>,
    /// Most tokens of a text [default: as many as the model is made for; with LongRoPE, as many as its short factors
    /// are for: beyond those the long factors are taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
}

#[derive(clap::Args)]
pub struct Compile {
    /// model.safetensors, model.safetensors.index.json, the same of pytorch_model.bin, a .gguf file (the first of several
    /// parts), or a model directory, also one of a Hugging Face cache (models--ORG--NAME); config.json and tokenizer.json
    /// are found beside the tensors
    pub path: PathBuf,
    /// The bundle to write [default: the model's name with .trit, in the current directory]
    #[arg(short, long, value_name = "OUT.trit")]
    pub output: Option<PathBuf>,
    /// Machines to generate code for, separated by commas: native (this one), portable (no code), all, or x86-64-v2,
    /// x86-64-v3, x86-64-v3-vnni, x86-64-v4-vnni, x86-64-v4-vbmi, x86-64-amx, aarch64, aarch64-dotprod
    #[arg(long, value_name = "T", value_delimiter = ',', default_value = "native")]
    pub target: Vec<TargetChoice>,
    #[command(flatten)]
    pub reading: Reading,
    /// Name of the model [default: that of its directory, or of its GGUF file]
    #[arg(long)]
    pub name: Option<String>,
    /// Threads to compile with [default: as many as there are cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Say what is done and how long it takes
    #[arg(short, long)]
    pub verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActivationsOption {
    Auto,
    Int8,
    F32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantizeOption {
    Absmean,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum I2sLayoutOption {
    X86,
    Arm,
    #[value(name = "1x4")]
    FourRows,
}

fn target(name: &str) -> Result<Target, String> {
    Target::from_name(name).ok_or_else(|| {
        let names = Target::ALL.map(Target::name).join(", ");
        format!("expected one of {names}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_target() {
        let mut command = Arguments::command();
        let compile = command.find_subcommand_mut("compile").unwrap();
        let help = compile.render_long_help().to_string();
        for name in TargetChoice::names() {
            assert!(help.contains(name), "{name}");
        }
    }
}
