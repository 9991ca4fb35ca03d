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
                  full, 4 unsupported, 5 not signed with the key that was asked for.",
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
    /// Check every digest in a bundle, and its signature
    Verify {
        /// The bundle
        bundle: PathBuf,
        /// Also generate every kernel again and compare it byte for byte
        #[arg(long)]
        rebuild: bool,
        /// Demand that the bundle is signed with this public key
        #[arg(long, value_name = "KEY.pub")]
        key: Option<PathBuf>,
    },
    /// Make a bundle for other CPUs of a bundle, without the checkpoint
    Retarget(Retarget),
    /// Take the bundle out of a program of one file
    Extract {
        /// The program
        program: PathBuf,
        /// The bundle to write [default: the program's name with .trit]
        #[arg(short, long, value_name = "OUT.trit")]
        output: Option<PathBuf>,
    },
    /// Make a key to sign bundles with: PATH, which is secret, and PATH.pub
    Keygen {
        /// The private key to write
        path: PathBuf,
    },
    /// Sign a bundle: write BUNDLE.sig, or sign a program of one file in itself
    Sign {
        /// The bundle
        bundle: PathBuf,
        /// The private key
        #[arg(long, value_name = "KEY")]
        key: PathBuf,
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
    /// Leave the block out that drafts tokens, where the model has one: the bundle is smaller, and the same texts come more
    /// slowly
    #[arg(long)]
    pub no_draft: bool,
    /// Layout of a GGUF file's I2_S weights [default: what the weights themselves say]
    #[arg(long, value_enum)]
    pub i2s_layout: Option<I2sLayoutOption>,
    /// Most tokens of a text [default: as many as the model is made for; with LongRoPE, as many as its short factors
    /// are for: beyond those the long factors are taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
}

/// In which form a bundle is written.
#[derive(clap::Args)]
pub struct Emitting {
    /// bundle, or exe: a program of one file, the runtime with the bundle in it, for Linux on the targets' architecture
    #[arg(long, value_enum, default_value = "bundle")]
    pub emit: EmitOption,
    /// The trit-run that a program begins with [default: trit-run-ARCH beside tritc, or trit-run for this machine's own
    /// architecture]
    #[arg(long, value_name = "TRIT-RUN")]
    pub stub: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmitOption {
    Bundle,
    Exe,
}

#[derive(clap::Args)]
pub struct Retarget {
    /// The bundle, or a program with one
    pub bundle: PathBuf,
    /// Machines to generate code for, as for compile [default: those that the bundle has code for]
    #[arg(long, value_name = "T", value_delimiter = ',')]
    pub target: Vec<TargetChoice>,
    /// The file to write [default: the bundle itself is replaced, and of a program its name with .trit; with --emit exe the
    /// bundle's name without .trit]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub emitting: Emitting,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Compile {
    /// model.safetensors, model.safetensors.index.json, the same of pytorch_model.bin, a .gguf file (the first of several
    /// parts), or a model directory, also one of a Hugging Face cache (models--ORG--NAME); config.json and tokenizer.json
    /// are found beside the tensors
    pub path: PathBuf,
    /// The bundle to write [default: the model's name with .trit, in the current directory; with --emit exe without]
    #[arg(short, long, value_name = "OUT.trit")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub emitting: Emitting,
    /// Machines to generate code for, separated by commas: native (this one), portable (no code), all, or x86-64-v2,
    /// x86-64-v3, x86-64-v3-vnni, x86-64-v4-vnni, x86-64-v4-vbmi, x86-64-amx, aarch64, aarch64-dotprod,
    /// aarch64-i8mm
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
