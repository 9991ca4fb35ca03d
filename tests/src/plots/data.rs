//! The files that pictures are drawn from, read and checked.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// A file's content.
pub enum File {
    /// What `trit-run bench --json` printed.
    Report(Report),
    /// Figures of other engines.
    Peers(Peers),
}

/// Of what `trit-run bench --json` prints the part that is drawn.
#[derive(Deserialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// The CPU's name.
    pub cpu: String,
    tier: String,
    kv: String,
    stream_gb_s: BTreeMap<usize, f64>,
    /// Most memory used.
    pub peak_bytes: Option<u64>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    test: String,
    phase: Phase,
    depth: usize,
    threads: usize,
    tokens_per_s: f64,
    ternary_bytes: Option<u64>,
    #[serde(default)]
    linear_bytes: u64,
    head_bytes: Option<f64>,
}

/// What part of a generation a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The prompt.
    Prefill,
    /// Tokens after it.
    Decode,
}

/// Figures of other engines.
#[derive(Default, Deserialize)]
pub struct Peers {
    source: String,
    /// The engines.
    pub peers: Vec<Peer>,
}

/// Another engine: tokens/s by number of threads.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name, and what it ran.
    pub name: String,
    #[serde(default)]
    decode: BTreeMap<usize, f64>,
    #[serde(default)]
    prefill: BTreeMap<usize, f64>,
    /// Peak memory.
    pub peak_mib: Option<f64>,
    /// Bytes of weights a token reads, in MB: for tables.
    #[serde(default, rename = "weights_mb")]
    _weights_mb: Option<f64>,
}

impl Peer {
    /// Tokens/s by number of threads.
    pub fn rates(&self, phase: Phase) -> &BTreeMap<usize, f64> {
        match phase {
            Phase::Decode => &self.decode,
            Phase::Prefill => &self.prefill,
        }
    }
}

/// Reads and checks a file's text.
///
/// # Errors
/// What is wrong with it.
pub fn read(json: &str) -> Result<File, String> {
    let value: serde_json::Value = serde_json::from_str(json).map_err(|e| format!("is no JSON: {e}"))?;
    let has = |key| value.get(key).is_some();
    let malformed = |e: serde_json::Error| format!("cannot be drawn: {e}");
    if has("peers") {
        let peers: Peers = serde_json::from_value(value).map_err(malformed)?;
        check_peers(&peers)?;
        Ok(File::Peers(peers))
    } else if has("rows") {
        let report: Report = serde_json::from_value(value).map_err(malformed)?;
        check_report(&report)?;
        Ok(File::Report(report))
    } else {
        Err("has neither rows, as trit-run bench --json prints them, nor peers".into())
    }
}

fn check_report(report: &Report) -> Result<(), String> {
    if report.rows.is_empty() {
        return Err("has no rows".into());
    }
    let mut seen = BTreeSet::new();
    for (i, row) in report.rows.iter().enumerate() {
        positive(&format!("rows[{i}].tokens_per_s"), row.tokens_per_s)?;
        positive(&format!("rows[{i}].threads"), row.threads as f64)?;
        if !seen.insert((row.phase, row.depth, row.threads)) {
            return Err(format!(
                "rows[{i}], {}: there is another test of that phase, depth and number of threads",
                row.test
            ));
        }
    }
    report.stream_gb_s.iter().try_for_each(|(t, v)| positive(&format!("stream_gb_s.{t}"), *v))
}

fn check_peers(peers: &Peers) -> Result<(), String> {
    if peers.source.trim().is_empty() {
        return Err("source is empty: say where the figures come from".into());
    }
    for peer in &peers.peers {
        let rates = peer.decode.values().chain(peer.prefill.values());
        rates.chain(&peer.peak_mib).try_for_each(|v| positive(&peer.name, *v))?;
    }
    Ok(())
}

/// Numbers that a bar can have the length of.
fn positive(what: &str, value: f64) -> Result<(), String> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(format!("{what} is {value}, not a number above 0")),
    }
}

/// Checks that a report can stand beside others.
///
/// # Errors
/// Why not.
pub fn fits(others: &[Report], report: &Report) -> Result<(), String> {
    let Some(first) = others.first() else { return Ok(()) };
    for (what, a, b) in [("model", &first.model, &report.model), ("CPU", &first.cpu, &report.cpu)] {
        if a != b {
            return Err(format!("is about {what} {b:?}, files before it about {a:?}: draw them apart"));
        }
    }
    match others.iter().any(|other| other.label() == report.label()) {
        true => Err(format!("{} was measured twice", report.label())),
        false => Ok(()),
    }
}

impl Report {
    /// What ran, in the words of the command line.
    pub fn label(&self) -> String {
        match self.kv.as_str() {
            "f16" => format!("trit-run {}", self.tier),
            kv => format!("trit-run {}, --kv {kv}", self.tier),
        }
    }

    /// Tokens/s by number of threads with an empty context.
    pub fn by_threads(&self, phase: Phase) -> BTreeMap<usize, f64> {
        let rows = self.rows.iter().filter(|row| row.phase == phase && row.depth == 0);
        rows.map(|row| (row.threads, row.tokens_per_s)).collect()
    }

    /// Tokens/s of decode by tokens in the context, by number of threads.
    pub fn by_depth(&self) -> BTreeMap<usize, BTreeMap<usize, f64>> {
        let mut all: BTreeMap<usize, BTreeMap<usize, f64>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.phase == Phase::Decode) {
            all.entry(row.threads).or_default().insert(row.depth, row.tokens_per_s);
        }
        all
    }

    /// Plain streaming reads in GB/s, by number of threads.
    pub fn bandwidths(&self) -> String {
        let numbers: Vec<String> = self.stream_gb_s.values().map(|gb_s| format!("{gb_s:.1}")).collect();
        numbers.join(", ")
    }

    /// Tokens/s at which reading the weights would take all of the memory's bandwidth, by number of threads.
    pub fn allowed(&self) -> BTreeMap<usize, f64> {
        let rows = self.rows.iter().filter(|row| row.phase == Phase::Decode && row.depth == 0);
        let allowed = |row: &Row| {
            let bytes = (row.ternary_bytes? + row.linear_bytes) as f64 + row.head_bytes?;
            let gb_s = self.stream_gb_s.get(&row.threads)?;
            (bytes > 0.0).then_some((row.threads, gb_s * 1e9 / bytes))
        };
        rows.filter_map(allowed).collect()
    }
}
