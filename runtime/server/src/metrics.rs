//! What the server counts, and its text for Prometheus.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use trit_runtime::scheduler::Statistics;

/// Upper bounds of the times until a first token, in seconds.
const FIRST: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Upper bounds of the times between two tokens, in seconds.
const BETWEEN: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// How many of some times were at most how long.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in seconds, the lowest first.
    bounds: &'static [f64],
    /// How many times were within each bound and above the one before; the last counts those above all bounds.
    counts: Vec<AtomicU64>,
    /// Their sum, in nanoseconds.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a time.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let at = self.bounds.iter().position(|&bound| seconds <= bound).unwrap_or(self.bounds.len());
        self.counts[at].fetch_add(1, Relaxed);
        self.sum.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// What the server counts by itself. The scheduler counts the rest.
#[derive(Debug)]
pub struct Metrics {
    /// Requests by route and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// Answers by why they ended.
    answers: Mutex<BTreeMap<&'static str, u64>>,
    /// Connections that are open.
    pub connections: AtomicUsize,
    /// Connections that were refused because there were too many.
    pub refused_connections: AtomicU64,
    /// Requests that are being answered, streams included.
    pub in_flight: AtomicUsize,
    /// Times from a request to the first token of an answer.
    pub first_token: Histogram,
    /// Times between two tokens of an answer.
    pub between_tokens: Histogram,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            requests: Mutex::default(),
            answers: Mutex::default(),
            connections: AtomicUsize::new(0),
            refused_connections: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            first_token: Histogram::new(&FIRST),
            between_tokens: Histogram::new(&BETWEEN),
        }
    }
}

impl Metrics {
    /// Counts a request that got an answer, or the beginning of one.
    pub fn request(&self, route: &'static str, status: u16) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((route, status)).or_default() +=
            1;
    }

    /// Counts an answer that ended.
    pub fn answer(&self, finish: &'static str) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(finish).or_default() += 1;
    }

    /// Everything as text for Prometheus. Before a model is loaded there are no statistics.
    pub fn text(&self, model: Option<(&str, &Statistics)>) -> String {
        let mut page = Page::default();
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        page.family("trit_requests_total", "counter", "Requests by route and status of the answer.");
        for ((route, status), count) in requests {
            page.value("trit_requests_total", &[("route", route), ("status", &status.to_string())], count);
        }
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        page.family("trit_answers_total", "counter", "Generated answers by why they ended.");
        for (finish, count) in answers {
            page.value("trit_answers_total", &[("finish", finish)], count);
        }
        page.one(
            "trit_requests_in_flight",
            "gauge",
            "Requests being answered, streams included.",
            self.in_flight.load(Relaxed),
        );
        page.one("trit_connections", "gauge", "Open connections.", self.connections.load(Relaxed));
        page.one(
            "trit_connections_refused_total",
            "counter",
            "Connections refused because as many were open as may be.",
            self.refused_connections.load(Relaxed),
        );
        page.histogram(
            "trit_time_to_first_token_seconds",
            "Time from a request to the first token of its answer.",
            &self.first_token,
        );
        page.histogram(
            "trit_inter_token_seconds",
            "Time between two tokens of an answer.",
            &self.between_tokens,
        );
        if let Some((name, statistics)) = model {
            page.family("trit_model_info", "gauge", "The model that is served.");
            page.value("trit_model_info", &[("model", name)], 1);
            page.scheduler(statistics);
        }
        page.0
    }
}

/// Text in Prometheus' format.
#[derive(Default)]
struct Page(String);

impl Page {
    // Writing to a string succeeds.

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.value(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let (mut below, bucket) = (0, format!("{name}_bucket"));
        for (count, bound) in histogram.counts.iter().zip(histogram.bounds) {
            below += count.load(Relaxed);
            self.value(&bucket, &[("le", &bound.to_string())], below);
        }
        below += histogram.counts[histogram.bounds.len()].load(Relaxed);
        self.value(&bucket, &[("le", "+Inf")], below);
        self.value(&format!("{name}_sum"), &[], histogram.sum.load(Relaxed) as f64 / 1e9);
        self.value(&format!("{name}_count"), &[], below);
    }

    fn scheduler(&mut self, statistics: &Statistics) {
        let Statistics { running, waiting, slots, kept_texts, kv_bytes, kv_memory, .. } = *statistics;
        for (name, help, value) in [
            ("trit_running", "Requests that run.", running),
            ("trit_queue_depth", "Requests that wait for a slot.", waiting),
            ("trit_slots", "Most requests that run at a time.", slots),
            ("trit_kept_texts", "Texts kept in memory for requests that begin alike.", kept_texts),
            ("trit_kv_bytes", "Bytes of KV caches and recurrent states of all texts.", kv_bytes),
            ("trit_kv_limit_bytes", "Most bytes of KV caches and recurrent states.", kv_memory),
        ] {
            self.one(name, "gauge", help, value);
        }
        self.family("trit_tokens_total", "counter", "Tokens by kind.");
        for (kind, count) in [
            ("prompt", statistics.prompt_tokens),
            ("cached", statistics.cached_tokens),
            ("generated", statistics.generated_tokens),
            ("drafted", statistics.drafted_tokens),
            ("accepted", statistics.accepted_tokens),
        ] {
            self.value("trit_tokens_total", &[("kind", kind)], count);
        }
        for (name, help, value) in [
            (
                "trit_preempted_total",
                "How often a request lost its cache because memory was short.",
                statistics.preempted,
            ),
            (
                "trit_evicted_texts_total",
                "Kept texts that had to go because memory was short.",
                statistics.evicted_texts,
            ),
            ("trit_steps_total", "Steps of the engine.", statistics.steps),
        ] {
            self.one(name, "counter", help, value);
        }
        let busy = statistics.busy.as_secs_f64();
        self.one("trit_busy_seconds_total", "counter", "Time that steps of the engine took.", busy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_what_is_at_most_a_bound() {
        let metrics = Metrics::default();
        for milliseconds in [1, 2, 3, 100_000] {
            metrics.between_tokens.observe(Duration::from_millis(milliseconds));
        }
        metrics.request("/v1/models", 200);
        metrics.request("/v1/models", 200);
        let text = metrics.text(None);
        for line in [
            "trit_inter_token_seconds_bucket{le=\"0.001\"} 1",
            "trit_inter_token_seconds_bucket{le=\"0.002\"} 2",
            "trit_inter_token_seconds_bucket{le=\"0.005\"} 3",
            "trit_inter_token_seconds_bucket{le=\"5\"} 3",
            "trit_inter_token_seconds_bucket{le=\"+Inf\"} 4",
            "trit_inter_token_seconds_sum 100.006",
            "trit_inter_token_seconds_count 4",
            "trit_requests_total{route=\"/v1/models\",status=\"200\"} 2",
            "# TYPE trit_inter_token_seconds histogram",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.value("x", &[("model", "a\"b\\c\nd")], 1);
        assert_eq!(page.0, "x{model=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
