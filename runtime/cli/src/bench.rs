//! `trit-run bench`: tokens per second, and the memory bandwidth of the same machine in the same run.

use crate::args::Bench;
use crate::failure::{Failure, print, print_json};
use crate::open;
use indicatif::ProgressBar;
use serde::Serialize;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::time::Instant;
use trit_runtime::{Model, RuntimeError, Session, SessionOptions};

/// Bytes read to measure the bandwidth: more than any cache holds.
const STREAM_BYTES: usize = 512 << 20;

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    /// GB/s of a plain read loop, by number of threads.
    stream_gb_s: BTreeMap<usize, f64>,
    cpu: String,
    kernels: String,
}

/// One test with one number of threads.
#[derive(Serialize)]
struct Row {
    test: String,
    threads: usize,
    /// Median.
    tokens_per_s: f64,
    min: f64,
    max: f64,
}

/// Measures every test with every number of threads.
pub fn run(args: &Bench) -> Result<ExitCode, Failure> {
    let model = open::model(&args.bundle, &args.load, false)?;
    let granted = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads: Vec<usize> = args.threads.iter().map(|&t| t.into()).collect();
    if threads.is_empty() {
        threads.push(granted);
    }
    let repetitions = usize::from(args.repetitions);
    let tests = usize::from(args.prompt > 0) + usize::from(args.n > 0);
    let progress = open::progress((threads.len() * (tests * (repetitions + 1) + 1)) as u64, "bench");
    let mut report = Report {
        rows: Vec::new(),
        stream_gb_s: BTreeMap::new(),
        cpu: cpu_name(),
        kernels: model.kernels().to_string(),
    };
    let buffer = stream_buffer();
    for &threads in &threads {
        report.stream_gb_s.insert(threads, stream_gb_s(&buffer, threads, repetitions));
        progress.inc(1);
    }
    drop(buffer);
    for &threads in &threads {
        let rows =
            measure(&model, args, threads, &progress).map_err(|e| Failure::runtime(&args.bundle, e))?;
        report.rows.extend(rows);
    }
    progress.finish_and_clear();
    if args.json {
        print_json(&report)?
    } else {
        print(table(&model, &report))?
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    model: &Arc<Model>,
    args: &Bench,
    threads: usize,
    progress: &ProgressBar,
) -> Result<Vec<Row>, RuntimeError> {
    let context = Some(args.prompt.max(args.n).max(1));
    let options =
        SessionOptions { context, threads: Some(threads), kv: args.load.kv, ..SessionOptions::default() };
    let mut session = Session::new(model.clone(), options)?;
    let mut rows = Vec::new();
    let vocab = model.manifest().hyperparameters.vocab_size;
    if args.prompt > 0 {
        let ids = ids(args.prompt, vocab);
        let prefill = |session: &mut Session| session.prefill(&ids).map(|_| ());
        rows.push(row(
            &mut session,
            format!("pp{}", args.prompt),
            ids.len(),
            args.repetitions,
            progress,
            prefill,
        )?);
    }
    if args.n > 0 {
        let ids = ids(args.n, vocab);
        let decode = |session: &mut Session| ids.iter().try_for_each(|&id| session.decode(id).map(|_| ()));
        rows.push(row(&mut session, format!("tg{}", args.n), ids.len(), args.repetitions, progress, decode)?);
    }
    Ok(rows)
}

/// Runs `work` on an empty sequence, once to warm up and then `repetitions` times.
fn row(
    session: &mut Session,
    test: String,
    tokens: usize,
    repetitions: u16,
    progress: &ProgressBar,
    work: impl Fn(&mut Session) -> Result<(), RuntimeError>,
) -> Result<Row, RuntimeError> {
    let mut rates = Vec::new();
    for _ in 0..=repetitions {
        session.truncate(0);
        let start = Instant::now();
        work(session)?;
        rates.push(tokens as f64 / start.elapsed().as_secs_f64());
        progress.inc(1);
    }
    rates.remove(0);
    let (tokens_per_s, min, max) = median_min_max(&mut rates);
    Ok(Row { test, threads: session.threads(), tokens_per_s, min, max })
}

fn median_min_max(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let (half, last) = (values.len() / 2, values.len() - 1);
    let median = if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
    (median, values[0], values[last])
}

/// Token ids all over the vocabulary, the same each time: what they are does not change the work.
fn ids(n: usize, vocab: u32) -> Vec<u32> {
    (0..n as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 % vocab).collect()
}

/// As much memory as is read, at most half of what the system says is available.
fn stream_buffer() -> Vec<u64> {
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|info| {
        let line = info.lines().find(|l| l.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(1 << 10)
    });
    let bytes = available.map_or(STREAM_BYTES, |free| STREAM_BYTES.min(free / 2)).max(1 << 20);
    // Written, because pages that were never written all are the same page of zeros.
    (0..(bytes / 8) as u64).collect()
}

/// Median GB/s of reading the whole buffer, each thread a part of its own.
fn stream_gb_s(buffer: &[u64], threads: usize, repetitions: usize) -> f64 {
    let parts = buffer.chunks(buffer.len().div_ceil(threads));
    let barrier = Barrier::new(parts.len() + 1);
    let mut rates = std::thread::scope(|scope| {
        for part in parts {
            let barrier = &barrier;
            scope.spawn(move || {
                for _ in 0..repetitions {
                    barrier.wait();
                    black_box(sum(black_box(part)));
                    barrier.wait();
                }
            });
        }
        let time = |_| {
            barrier.wait();
            let start = Instant::now();
            barrier.wait();
            size_of_val(buffer) as f64 / 1e9 / start.elapsed().as_secs_f64()
        };
        (0..repetitions).map(time).collect::<Vec<f64>>()
    });
    median_min_max(&mut rates).0
}

/// Reads everything; eight sums, so that no addition waits for the one before it.
fn sum(values: &[u64]) -> u64 {
    let mut sums = [0u64; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*value);
        }
    }
    sums.iter().chain(rest).fold(0, |sum, value| sum.wrapping_add(*value))
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

/// Rows as llama-bench prints them.
fn table(model: &Model, report: &Report) -> String {
    let name = &model.manifest().model.name;
    let width = name.chars().count().max(5);
    let mut out =
        format!("| {:<width$} | threads |   test |   tokens/s |        min |        max |\n", "model");
    out += &format!("| {:-<width$} | ------: | -----: | ---------: | ---------: | ---------: |\n", "");
    for Row { test, threads, tokens_per_s, min, max } in &report.rows {
        out += &format!(
            "| {name:<width$} | {threads:>7} | {test:>6} | {tokens_per_s:>10.2} | {min:>10.2} | {max:>10.2} |\n"
        );
    }
    for (threads, gb_s) in &report.stream_gb_s {
        out += &format!("\nstreaming with -t {threads}: {gb_s:.1} GB/s");
    }
    out + &format!("\ncpu: {}\nkernels: {}\n", report.cpu, report.kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(median_min_max(&mut [3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(median_min_max(&mut [4.0, 1.0, 2.0, 3.0]), (2.5, 1.0, 4.0));
        assert_eq!(median_min_max(&mut [5.0]), (5.0, 5.0, 5.0));
    }

    #[test]
    fn the_read_loop_reads_everything() {
        let values: Vec<u64> = (0..1003).collect();
        assert_eq!(sum(&values), 1003 * 1002 / 2);
    }

    #[test]
    fn bandwidth_is_measured_with_more_threads_than_parts() {
        assert!(stream_gb_s(&[1; 1000], 3, 2) > 0.0);
        assert!(stream_gb_s(&[1; 1000], 64, 1) > 0.0);
    }
}
