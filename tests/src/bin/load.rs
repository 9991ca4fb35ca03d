//! Puts a load on `trit-run serve`: thousands of requests of many clients, well-behaved and not.
//!
//!     cargo build --release --workspace --bins
//!     target/release/load BUNDLE [REQUESTS]
//!
//! BUNDLE has a tokenizer; REQUESTS are 10000 unless given. Prints what was asked and what was wrong, and fails if anything
//! was.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, ExitCode};
use trit_runtime::KernelChoice;
use trit_tests::engines;
use trit_tests::load::{Load, run};
use trit_tests::serving::Served;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let requests = args.get(1).map_or(Some(10_000), |count| count.parse().ok());
    let (Some(bundle), Some(requests)) = (args.first(), requests) else {
        eprintln!("usage: load BUNDLE [REQUESTS]");
        return ExitCode::from(2);
    };
    // The server that was built together with this program.
    let beside = std::env::current_exe().map(|path| path.with_file_name("trit-run")).unwrap_or_default();
    let mut command = Command::new(beside);
    command.args([
        "serve",
        bundle,
        "--listen",
        "127.0.0.1:0",
        "--trust",
        "--log",
        "error",
        "--max-connections",
        "700",
    ]);
    let served = Served::run(command);
    let model = engines::load(Path::new(bundle), KernelChoice::Auto);
    let report = run(&served, &model, Load { requests, clients: 32, idle: 500, body: 64 << 20 });
    println!("{report:#?}");
    ExitCode::from(u8::from(!report.faults.is_empty()))
}
