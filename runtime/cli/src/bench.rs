//! `trit-run bench`: tokens per second, and the memory bandwidth of the same machine in the same run.

mod peak;
mod report;
mod traffic;

use crate::args::Bench;
use crate::failure::{DONE, Failure, print_json, print_lines};
use crate::{open, profile};
use indicatif::ProgressBar;
use peak::Peak;
use report::{Phase, Reading, Report, Row};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;
use trit_runtime::bandwidth::ReadBuffer;
use trit_runtime::format::target::Target;
use trit_runtime::{
    Batch, Engine, EngineOptions, LogitsRequest, Model, Profile, RuntimeError, Sequence, SequenceOptions, cpu,
};

/// Least bytes read to measure the bandwidth: more than any cache holds.
const LEAST_READ: usize = 512 << 20;
/// Least repetitions of that: each takes a fraction of a second.
const LEAST_REPETITIONS: usize = 5;
/// Profiled passes of a decode, where it is repeated that often: those that count are not profiled.
const PROFILED: usize = 3;

/// What is measured with each number of threads.
#[derive(Clone, Copy)]
struct Test {
    phase: Phase,
    tokens: usize,
    depth: usize,
    /// Sequences at once.
    batch: usize,
}

impl Test {
    /// In the order of llama-bench: at each depth the prompt, then the tokens after it.
    fn all(args: &Bench) -> Vec<Test> {
        let at = |&depth| {
            let prefill = Test { phase: Phase::Prefill, tokens: args.prompt, depth, batch: 1 };
            let decode = args.batch.iter();
            let decode =
                decode.map(move |&batch| Test { phase: Phase::Decode, tokens: args.n, depth, batch });
            std::iter::once(prefill).chain(decode)
        };
        args.depth.iter().flat_map(at).filter(|test| test.tokens > 0).collect()
    }

    fn name(&self) -> String {
        let name = match (self.phase, self.batch) {
            (Phase::Prefill, _) => format!("pp{}", self.tokens),
            (Phase::Decode, 1) => format!("tg{}", self.tokens),
            (Phase::Decode, batch) => format!("tg{} x {batch}", self.tokens),
        };
        if self.depth == 0 { name } else { format!("{name} @ d{}", self.depth) }
    }

    fn context(&self) -> usize {
        self.depth.saturating_add(self.tokens)
    }

    fn passes(&self, args: &Bench) -> usize {
        match self.phase {
            Phase::Decode if args.repetitions >= PROFILED as u16 => PROFILED,
            Phase::Prefill if !args.profile => 0,
            _ => 1,
        }
    }
}

/// Measures every test with every number of threads.
pub fn run(args: &Bench) -> Result<u8, Failure> {
    let start = Instant::now();
    let model = open::model(&args.bundle, &args.load, false)?;
    let open_s = start.elapsed().as_secs_f64();
    let tests = Test::all(args);
    let context = context(args, &model, &tests)?;
    let ids = ids(args, &model, context)?;
    let mut threads: Vec<usize> = args.threads.iter().map(|&t| t.into()).collect();
    if threads.is_empty() {
        threads.push(std::thread::available_parallelism().map_or(1, usize::from));
    }
    let runs = |test: &Test| 1 + usize::from(args.repetitions) + test.passes(args);
    let steps = threads.len() * (tests.iter().map(runs).sum::<usize>() + 1);
    let progress = open::progress(steps as u64, "bench");
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        model: model.manifest().model.name.clone(),
        bytes: std::fs::metadata(&args.bundle).map_or(0, |m| m.len()),
        cpu: cpu::name(),
        kernels: model.kernels().to_string(),
        tier: model.kernels().target.map_or("portable", Target::name),
        // As it is written after --kv.
        kv: format!("{:?}", args.load.kv).to_lowercase(),
        repetitions: args.repetitions,
        open_s,
        peak_bytes: None,
        stream_gb_s: BTreeMap::new(),
        rows: Vec::new(),
    };
    let (mut peak, mut told) = (Peak::default(), false);
    for &threads in &threads {
        let failed = |e| Failure::runtime(&args.bundle, e);
        let default = EngineOptions::default();
        let batch = tests.iter().map(|test| test.batch).max().unwrap_or(1);
        let rows = default.rows.min(context).max(batch);
        let options = EngineOptions { threads: Some(threads), oversubscribe: true, rows };
        let engine = Engine::new(model.clone(), options).map_err(failed)?;
        let options = SequenceOptions {
            context: Some(context),
            kv: args.load.kv,
            state: args.load.state,
            ..SequenceOptions::default()
        };
        let sequences = (0..batch).map(|_| engine.sequence(options)).collect::<Result<Vec<Sequence>, _>>();
        let mut sequences = sequences.map_err(failed)?;
        let measure = |test: &Test| measure(&engine, &mut sequences, test, args, &ids, &progress);
        let mut rows =
            tests.iter().map(measure).collect::<Result<Vec<Row>, RuntimeError>>().map_err(failed)?;
        let widened = sequences.iter().find_map(Sequence::widened);
        if !std::mem::replace(&mut told, widened.is_some()) {
            open::tell_widened(widened);
        }
        drop((engine, sequences));
        // Right after what it is compared with; its memory is not the model's.
        peak.read();
        let read = rows.iter().filter_map(|row| row.reading).map(|r| r.bytes() as usize).max();
        let gb_s = stream_gb_s(read.unwrap_or(0), threads, args).map_err(failed)?;
        peak.forget();
        progress.inc(1);
        for row in &mut rows {
            if let Some(reading) = &mut row.reading {
                reading.share = reading.bytes() * row.tokens_per_s / 1e9 / gb_s;
            }
        }
        report.stream_gb_s.insert(threads, gb_s);
        report.rows.extend(rows);
    }
    report.peak_bytes = peak.bytes();
    progress.finish_and_clear();
    if args.json {
        print_json(&report)?
    } else {
        print_lines(report.table())?;
        for row in &report.rows {
            if let Some(profile) = &row.profile {
                let plural = if row.threads == 1 { "thread" } else { "threads" };
                profile::show(&format!("{}, {} {plural}", row.test, row.threads), profile);
            }
        }
    }
    Ok(DONE)
}

/// The context that the longest test needs.
///
/// # Errors
/// A usage failure where the model has none that long.
fn context(args: &Bench, model: &Model, tests: &[Test]) -> Result<usize, Failure> {
    let longest = model.manifest().hyperparameters.context_length as usize;
    let Some(test) = tests.iter().max_by_key(|test| test.context()) else { return Ok(1) };
    match test.context() {
        context if context <= longest => Ok(context),
        context => Err(Failure::usage(format_args!(
            "{}: {} needs a context of {context} tokens, but this bundle takes at most {longest}; give smaller -p, -n or -d",
            args.bundle.display(),
            test.name()
        ))),
    }
}

/// `n` token ids: of the text that was given, again and again, or all over the vocabulary, the same each time.
fn ids(args: &Bench, model: &Model, n: usize) -> Result<Vec<u32>, Failure> {
    let Some(file) = &args.file else {
        let vocab = model.manifest().hyperparameters.vocab_size;
        let id = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 % vocab;
        return Ok((0..n as u64).map(id).collect());
    };
    let text = std::fs::read_to_string(file).map_err(|e| Failure::invalid(file, e))?;
    let tokenizer = open::tokenizer(model, "bench without --file")?;
    let ids = tokenizer.encode(&text, true).map_err(|e| Failure::text(&args.bundle, e))?;
    match ids.is_empty() {
        true => Err(Failure::invalid(file, "has no text")),
        false => Ok(ids.into_iter().cycle().take(n).collect()),
    }
}

/// Runs one test, once to warm up, then as often as asked, then with a profile.
fn measure(
    engine: &Engine,
    sequences: &mut [Sequence],
    test: &Test,
    args: &Bench,
    ids: &[u32],
    progress: &ProgressBar,
) -> Result<Row, RuntimeError> {
    let sequences = &mut sequences[..test.batch];
    for sequence in &mut *sequences {
        sequence.truncate(0);
        if test.depth > 0 {
            engine.advance(sequence, &ids[..test.depth], &[], None)?;
        }
    }
    let ids = &ids[test.depth..test.context()];
    let mut run = || {
        sequences.iter_mut().for_each(|sequence| sequence.truncate(test.depth));
        let start = Instant::now();
        pass(engine, sequences, test.phase, ids)?;
        progress.inc(1);
        Ok((test.batch * test.tokens) as f64 / start.elapsed().as_secs_f64())
    };
    run()?;
    let mut rates = (0..args.repetitions).map(|_| run()).collect::<Result<Vec<f64>, RuntimeError>>()?;
    let (tokens_per_s, min, max) = median_min_max(&mut rates);
    let profile = profiled(engine, test.passes(args), run)?;
    let manifest = engine.model().manifest();
    // What a token reads is clear where it does not share it with others.
    let alone = test.phase == Phase::Decode && test.batch == 1;
    let reading = profile.as_ref().filter(|_| alone).map(|profile| Reading {
        ternary_bytes: traffic::ternary_bytes(manifest),
        linear_bytes: traffic::linear_bytes(manifest),
        head_bytes: traffic::head_bytes(manifest, profile),
        ternary_gb_s: traffic::ternary_gb_s(manifest, profile),
        share: 0.0,
    });
    Ok(Row {
        test: test.name(),
        phase: test.phase,
        tokens: test.tokens,
        batch: test.batch,
        depth: test.depth,
        threads: engine.threads(),
        tokens_per_s,
        min,
        max,
        reading,
        profile: profile.filter(|_| args.profile),
    })
}

/// Runs tokens as a prompt, or one after the other in every sequence, each with other tokens. Of the logits it asks what greedy
/// generation does.
fn pass(engine: &Engine, sequences: &mut [Sequence], phase: Phase, ids: &[u32]) -> Result<(), RuntimeError> {
    let request = [LogitsRequest::largest()];
    if phase == Phase::Prefill {
        engine.advance(&mut sequences[0], ids, &request, None)?;
        black_box(sequences[0].logits(0));
        return Ok(());
    }
    for step in 0..ids.len() {
        let mut batch = Batch::new();
        for (i, sequence) in sequences.iter_mut().enumerate() {
            batch.push(sequence, std::slice::from_ref(&ids[(step + i) % ids.len()]), &request);
        }
        engine.step(&mut batch)?.into_iter().collect::<Result<Vec<usize>, RuntimeError>>()?;
        drop(batch);
        sequences.iter().for_each(|sequence| {
            black_box(sequence.logits(0));
        });
    }
    Ok(())
}

/// Runs `passes` times and gives the profile of the pass whose ternary products took a median time.
fn profiled(
    engine: &Engine,
    passes: usize,
    mut run: impl FnMut() -> Result<f64, RuntimeError>,
) -> Result<Option<Profile>, RuntimeError> {
    let mut profiles = Vec::new();
    for _ in 0..passes {
        engine.start_profile();
        run()?;
        profiles.extend(engine.stop_profile());
    }
    let manifest = engine.model().manifest();
    let gb_s = |profile: &Profile| traffic::ternary_gb_s(manifest, profile).unwrap_or(0.0);
    profiles.sort_by(|a, b| gb_s(a).total_cmp(&gb_s(b)));
    let middle = profiles.len() / 2;
    Ok(profiles.into_iter().nth(middle))
}

fn median_min_max(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let (half, last) = (values.len() / 2, values.len() - 1);
    let median = if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
    (median, values[0], values[last])
}

/// GB/s of reading at least `bytes`, or half of the memory that is left.
fn stream_gb_s(bytes: usize, threads: usize, args: &Bench) -> Result<f64, RuntimeError> {
    let room = trit_runtime::available().map_or(usize::MAX, |free| (free / 2).max(1 << 20));
    let buffer = ReadBuffer::new(bytes.max(LEAST_READ).min(room))?;
    Ok(buffer.gb_s(threads, LEAST_REPETITIONS.max(args.repetitions.into())))
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
    fn tests_are_named_as_llama_bench_names_them() {
        let test = |phase, tokens, depth, batch| Test { phase, tokens, depth, batch }.name();
        assert_eq!(test(Phase::Prefill, 512, 0, 1), "pp512");
        assert_eq!(test(Phase::Decode, 128, 4096, 1), "tg128 @ d4096");
        assert_eq!(test(Phase::Decode, 64, 0, 8), "tg64 x 8");
    }
}
