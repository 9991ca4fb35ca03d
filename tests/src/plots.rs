//! From measurements to pictures: JSON as `trit-run bench --json` prints it, and figures of other engines, become SVG
//! files, the same bytes for the same data.
//!
//! | picture | shows |
//! |---|---|
//! | `decode.svg`, `prefill.svg` | tokens/s of each engine, by number of threads |
//! | `threads.svg` | decode by number of threads, beside what the memory's bandwidth allows |
//! | `context.svg` | decode by tokens in the context |
//! | `memory.svg` | peak memory of each engine |
//!
//! The pictures are written by hand here: five of them, of bars and lines, are less code than a plotting library's
//! configuration, and stay readable on light and dark pages, which needs control over every colour.

mod bars;
mod data;
mod lines;
mod svg;

use bars::{Bar, Bars};
use data::{Peers, Phase, Report};
use lines::{Line, Lines};
use std::collections::BTreeMap;

/// One of the pictures.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    /// File name.
    pub name: &'static str,
    /// The SVG, or why there is nothing to draw.
    pub svg: Result<String, &'static str>,
}

/// Draws what the files, pairs of name and content, hold.
///
/// # Errors
/// A message that starts with the file's name where it is no such data, or does not go together with those before it.
pub fn draw(files: &[(String, String)]) -> Result<Vec<Picture>, String> {
    let (mut reports, mut peers) = (Vec::new(), None);
    for (name, json) in files {
        match data::read(json).map_err(|problem| format!("{name}: {problem}"))? {
            data::File::Report(report) => {
                data::fits(&reports, &report).map_err(|problem| format!("{name}: {problem}"))?;
                reports.push(report);
            }
            data::File::Peers(_) if peers.is_some() => {
                return Err(format!("{name}: only one file can have the figures of other engines"));
            }
            data::File::Peers(found) => peers = Some(found),
        }
    }
    let Some(first) = reports.first() else {
        return Err("no measurements: give at least one file that trit-run bench --json printed".into());
    };
    let on = format!("{}, {}", first.model, first.cpu);
    let peers = peers.unwrap_or_default();
    Ok(vec![
        Picture { name: "decode.svg", svg: rates(Phase::Decode, &reports, &peers, &on) },
        Picture { name: "prefill.svg", svg: rates(Phase::Prefill, &reports, &peers, &on) },
        Picture { name: "threads.svg", svg: by_threads(&reports, &on) },
        Picture { name: "context.svg", svg: by_context(&reports, &on) },
        Picture { name: "memory.svg", svg: memory(&reports, &peers, &on) },
    ])
}

/// Tokens/s of every engine with an empty context.
fn rates(phase: Phase, reports: &[Report], peers: &Peers, on: &str) -> Result<String, &'static str> {
    let mut bars: Vec<Bar> = reports
        .iter()
        .map(|report| Bar { label: report.label(), ours: true, values: report.by_threads(phase) })
        .chain(peers.peers.iter().map(|peer| Bar {
            label: peer.name.clone(),
            ours: false,
            values: peer.rates(phase).clone(),
        }))
        .filter(|bar| !bar.values.is_empty())
        .collect();
    if !bars.iter().any(|bar| bar.ours) {
        return Err("no test of that phase with an empty context");
    }
    fastest_first(&mut bars);
    let title = match phase {
        Phase::Decode => "Decode, tokens/s",
        Phase::Prefill => "Prefill, tokens/s",
    };
    Ok(Bars { title, on, series: Some("thread"), bars: &bars, digits: 1 }.svg())
}

fn fastest_first(bars: &mut [Bar]) {
    let best = |bar: &Bar| bar.values.values().copied().fold(0.0, f64::max);
    bars.sort_by(|a, b| best(b).total_cmp(&best(a)));
}

fn by_threads(reports: &[Report], on: &str) -> Result<String, &'static str> {
    let mut lines: Vec<Line> = Vec::new();
    let mut limit: Option<(f64, Line)> = None;
    for report in reports {
        let values = report.by_threads(Phase::Decode);
        if values.len() < 2 {
            continue;
        }
        // What memory allows the fastest of them: others read other amounts of the head.
        let fastest = values.values().copied().fold(0.0, f64::max);
        if limit.as_ref().is_none_or(|(before, _)| fastest > *before) {
            let label = format!("its weights streamed at {} GB/s", report.bandwidths());
            limit = Some((fastest, Line { label, limit: true, values: report.allowed() }));
        }
        lines.push(Line { label: report.label(), limit: false, values });
    }
    lines.extend(limit.map(|(_, line)| line).filter(|line| !line.values.is_empty()));
    match lines.is_empty() {
        true => Err("no file has decode with two numbers of threads"),
        false => Ok(Lines { title: "Decode by threads, tokens/s", on, axis: "threads", lines: &lines }.svg()),
    }
}

fn by_context(reports: &[Report], on: &str) -> Result<String, &'static str> {
    let mut lines = Vec::new();
    for report in reports {
        for (threads, values) in report.by_depth() {
            if values.len() >= 2 {
                let plural = if threads == 1 { "thread" } else { "threads" };
                let label = format!("{}, {threads} {plural}", report.label());
                lines.push(Line { label, limit: false, values });
            }
        }
    }
    match lines.is_empty() {
        true => Err("no file has decode with two depths"),
        false => Ok(Lines {
            title: "Decode by context, tokens/s",
            on,
            axis: "tokens in the context",
            lines: &lines,
        }
        .svg()),
    }
}

fn memory(reports: &[Report], peers: &Peers, on: &str) -> Result<String, &'static str> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let ours = reports.iter().filter_map(|r| Some((r.label(), true, mib(r.peak_bytes?))));
    let theirs = peers.peers.iter().filter_map(|p| Some((p.name.clone(), false, p.peak_mib?)));
    let bar = |(label, ours, value)| Bar { label, ours, values: BTreeMap::from([(0, value)]) };
    let mut bars: Vec<Bar> = ours.chain(theirs).map(bar).collect();
    if !bars.iter().any(|bar| bar.ours) {
        return Err("no file has peak_bytes");
    }
    fastest_first(&mut bars);
    bars.reverse();
    Ok(Bars { title: "Peak memory, MiB", on, series: None, bars: &bars, digits: 0 }.svg())
}
