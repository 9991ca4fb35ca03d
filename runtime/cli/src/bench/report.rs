//! What `trit-run bench` prints.

use crate::profile::ProfileJson;
use serde::Serialize;
use std::collections::BTreeMap;
use trit_runtime::Profile;

/// Everything measured, and on what: the object that `--json` prints.
#[derive(Serialize)]
pub struct Report {
    pub version: &'static str,
    /// The model's name.
    pub model: String,
    /// The bundle's size in bytes.
    pub bytes: u64,
    /// The CPU's name.
    pub cpu: String,
    /// Which kernels ran, and why it is not others.
    pub kernels: String,
    /// Their instruction-set tier; `portable` has none.
    pub tier: &'static str,
    /// Element type of the KV cache.
    pub kv: String,
    /// How often each test ran.
    pub repetitions: u16,
    /// Seconds to open the bundle and check its digests.
    pub open_s: f64,
    /// Most memory used, mapped files included, where the system says.
    pub peak_bytes: Option<u64>,
    /// GB/s of the best plain read loop, by number of threads.
    pub stream_gb_s: BTreeMap<usize, f64>,
    pub rows: Vec<Row>,
}

/// One test with one number of threads.
#[derive(Serialize)]
pub struct Row {
    /// `pp512`, `tg128`, `tg128 @ d4096`: as llama-bench names them; `tg128 x 8` for eight sequences at once.
    pub test: String,
    pub phase: Phase,
    /// Tokens run in each sequence.
    pub tokens: usize,
    /// Sequences that ran at once.
    pub batch: usize,
    /// Tokens in the KV cache before.
    pub depth: usize,
    pub threads: usize,
    /// Median, over all sequences.
    pub tokens_per_s: f64,
    pub min: f64,
    pub max: f64,
    /// What it read.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
    #[serde(rename = "profile", serialize_with = "profile", skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// What part of a generation a test is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Prefill,
    Decode,
}

/// How decode used the memory.
#[derive(Clone, Copy, Serialize)]
pub struct Reading {
    /// Bytes of ternary weights a token reads.
    pub ternary_bytes: u64,
    /// Bytes of other matrices a token reads, the head not among them.
    pub linear_bytes: u64,
    /// Bytes of the head a token reads, on average.
    pub head_bytes: f64,
    /// GB/s of the ternary products alone, from profiled passes.
    pub ternary_gb_s: Option<f64>,
    /// GB/s of all weights as part of the plain read loop's.
    pub share: f64,
}

impl Reading {
    /// Bytes of weights a token reads.
    pub fn bytes(&self) -> f64 {
        (self.ternary_bytes + self.linear_bytes) as f64 + self.head_bytes
    }
}

fn profile<S: serde::Serializer>(profile: &Option<Profile>, serializer: S) -> Result<S::Ok, S::Error> {
    profile.as_ref().map(ProfileJson::from).serialize(serializer)
}

impl Report {
    /// Markdown with rows as llama-bench prints them, and below it what they are to be compared with.
    pub fn table(&self) -> String {
        let titles = [
            "model",
            "size",
            "kernels",
            "kv",
            "threads",
            "test",
            "tokens/s",
            "min",
            "max",
            "ternary GB/s",
            "share",
        ];
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let mut rows = vec![titles.map(str::to_owned)];
        rows.extend(self.rows.iter().map(|row| {
            let reading = row.reading.as_ref();
            let dash = || "-".to_owned();
            [
                self.model.replace('|', "/"),
                mib(self.bytes),
                self.tier.to_owned(),
                self.kv.clone(),
                row.threads.to_string(),
                row.test.clone(),
                format!("{:.2}", row.tokens_per_s),
                format!("{:.2}", row.min),
                format!("{:.2}", row.max),
                reading.and_then(|r| r.ternary_gb_s).map_or_else(dash, |v| format!("{v:.1}")),
                reading.map_or_else(dash, |r| format!("{:.0}%", 100.0 * r.share)),
            ]
        }));
        let mut out = markdown(&rows, 4);
        out += &format!("\ntrit-run {}, {}\nkernels: {}\n", self.version, self.cpu, self.kernels);
        out += &format!("opened and verified in {:.3} s", self.open_s);
        if let Some(peak) = self.peak_bytes {
            out += &format!("; at most {} of memory", mib(peak));
        }
        for (threads, gb_s) in &self.stream_gb_s {
            let plural = if *threads == 1 { "thread" } else { "threads" };
            out += &format!("\nplain streaming read with {threads} {plural}: {gb_s:.1} GB/s");
        }
        if let Some(reading) = self.rows.iter().rev().find_map(|row| row.reading) {
            let mb = |bytes: f64| bytes / 1e6;
            let linear = match reading.linear_bytes {
                0 => String::new(),
                bytes => format!("{:.1} of floats, ", mb(bytes as f64)),
            };
            out += &format!(
                "\na decoded token reads {:.1} MB of weights: {:.1} ternary, {linear}{:.1} of the head; share: that, times tokens/s, \
                 of the streaming read",
                mb(reading.bytes()),
                mb(reading.ternary_bytes as f64),
                mb(reading.head_bytes)
            );
        }
        out + "\n"
    }
}

/// A table whose first `left` columns are text, the others numbers. The first row is its head.
fn markdown<const N: usize>(rows: &[[String; N]], left: usize) -> String {
    let width = |c: usize| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cell = |c: usize| match c < left {
            true => format!("| {:<w$} ", row[c], w = widths[c]),
            false => format!("| {:>w$} ", row[c], w = widths[c]),
        };
        (0..N).map(cell).collect::<String>() + "|\n"
    };
    let rule = |c: usize| match c < left {
        true => format!("| {:-<w$} ", "", w = widths[c]),
        false => format!("| {:->w$} ", ":", w = widths[c]),
    };
    let rule = (0..N).map(rule).collect::<String>() + "|\n";
    rows.iter().enumerate().map(|(i, row)| if i == 0 { line(row) + &rule } else { line(row) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_markdown_that_also_reads_well() {
        let rows = [["test", "t/s"], ["pp16 | x", "12.5"]].map(|r| r.map(str::to_owned));
        let expected = "| test     |  t/s |\n| -------- | ---: |\n| pp16 | x | 12.5 |\n";
        assert_eq!(markdown(&rows, 1), expected);
    }
}
