//! Draws the pictures of BENCHMARKS.md from measured data.
//!
//!     cargo run --release -p trit-tests --bin plots -- DATA.json... OUT_DIR
//!
//! A data file is what `trit-run bench --json` printed, or the figures of other engines as in `tests/bench/peers.json`.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use trit_tests::plots::{Picture, draw};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [data @ .., folder] = &args[..] else { return usage() };
    if data.is_empty() {
        return usage();
    }
    match run(data, Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("plots: {problem}");
            ExitCode::from(3)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: plots DATA.json... OUT_DIR");
    ExitCode::from(2)
}

fn run(data: &[String], folder: &Path) -> Result<(), String> {
    let read = |name: &String| match std::fs::read_to_string(name) {
        Ok(text) => Ok((name.clone(), text)),
        Err(e) => Err(format!("{name}: {e}")),
    };
    let files = data.iter().map(read).collect::<Result<Vec<_>, String>>()?;
    let pictures = draw(&files)?;
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for Picture { name, svg } in pictures {
        let path = folder.join(name);
        match svg {
            Ok(svg) => {
                std::fs::write(&path, svg).map_err(|e| format!("{}: {e}", path.display()))?;
                println!("{}", path.display());
            }
            Err(why) => println!("{} is left out: {why}", path.display()),
        }
    }
    Ok(())
}
