//! Tuning: finds which of several variants that compute the same is fastest on this machine. It is timed once, then
//! remembered.
//!
//! Variants of a kernel differ in unrolling and in how far ahead they prefetch, ways to scan planes alike, and give the
//! same results; which one suits a machine depends on its memory. They are timed on the model's own weights, read from
//! memory as in decoding, for a few milliseconds each. The time that a load spends on it is limited: see
//! [`Tuner::fastest`].

use super::remembered::Remembered;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trit_gemm::Variants;
use trit_gemm::tuning::{BYTES, Stream, Timer, fastest};
use trit_kernels::planes::{Hidden, Planes, SCAN_VARIANTS, scan_full, scan_high};

/// Whether variants are timed, and whether the result is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// The variants that were found fastest on this machine before are used. Where nothing is remembered, variants are
    /// timed, and the result is remembered.
    #[default]
    Remembered,
    /// Everything is timed again, and remembered.
    Fresh,
    /// Nothing is timed, and the first variant is used.
    Off,
}

/// Most choices that one load times, of kernels and of ways to scan: models have two or three of each, a bundle can
/// have thousands.
const MOST_TIMED: [usize; 2] = [12, 4];
/// Time that one load spends on timing. Choices after that use the first variant. Where memory is fast, there is time
/// for ten choices.
const BUDGET: Duration = Duration::from_secs(2);
/// A shape is timed only if its matrices have at least one in this many bytes of all weights, because the choice of
/// other shapes changes little.
const SHARE: usize = 32;

/// The kinds of choices. The number of timed choices is limited for each kind.
#[derive(Clone, Copy)]
enum Choice {
    Kernel,
    Scan,
}

/// Chooses kernels and ways to scan for one load of a bundle.
pub(crate) struct Tuner {
    tuning: Tuning,
    /// The file where timings are remembered, if there is one.
    file: Option<PathBuf>,
    cpu: String,
    remembered: Remembered,
    /// What this tuner found, as pairs of key and variant.
    found: Vec<(String, String)>,
    timed: [usize; 2],
    spent: Duration,
}

impl Tuner {
    /// A tuner that remembers in `file`.
    pub fn new(tuning: Tuning, file: Option<PathBuf>) -> Tuner {
        let read = file.as_deref().filter(|_| tuning == Tuning::Remembered);
        Tuner {
            tuning,
            cpu: crate::cpu::name(),
            remembered: read.map(Remembered::read).unwrap_or_default(),
            file,
            found: Vec::new(),
            timed: [0; 2],
            spent: Duration::ZERO,
        }
    }

    /// How many choices were timed so far.
    pub fn timed(&self) -> usize {
        self.timed.iter().sum()
    }

    /// The index of the variant to use for `weights`. All variants compute the same. `all` is the number of bytes of
    /// all weights of the model.
    pub fn choose(&mut self, variants: &Variants, weights: &[Stream], all: usize) -> usize {
        let bytes: usize = weights.iter().map(Stream::bytes).sum();
        if variants.count() < 2 || bytes < all / SHARE {
            return 0;
        }
        // Without memory for timing, the first variant is used.
        let Ok(mut timer) = Timer::new(variants, weights) else { return 0 };
        let what = format!(", {}: ", variants.target());
        self.fastest(Choice::Kernel, &what, &variants.names(), |i| timer.time(i))
    }

    /// The index in [`SCAN_VARIANTS`] of the one to use for the high one of `planes`, or for both.
    pub fn choose_scan_variant(&mut self, planes: &Planes, full: bool) -> usize {
        let names: Vec<String> =
            SCAN_VARIANTS.iter().map(|v| format!("{}+{}+{}", v.rows, v.far, v.near)).collect();
        let layout = planes.layout();
        let (read, what) = if full { (2, "both planes") } else { (1, "high plane") };
        let what = format!(": {what} of {} ", layout.hidden());
        let rows = (BYTES / (read * layout.plane_row_bytes())).clamp(1, layout.rows());
        let mut hidden = Hidden::new(layout);
        let ready = hidden.prepare(&vec![1.0; layout.hidden()]);
        let (mut approx, mut bound) = (vec![0.0; rows], vec![0.0; rows]);
        let mut starts = (0..=layout.rows() - rows).step_by(rows).cycle();
        self.fastest(Choice::Scan, &what, &names, |i| {
            let first = starts.next().unwrap_or_default();
            let planes = planes.with_scan_variant(full, SCAN_VARIANTS[i]);
            let scan = if full { scan_full } else { scan_high };
            let start = Instant::now();
            if ready {
                scan(&planes, first..first + rows, &[&hidden], &mut [&mut approx], &mut [&mut bound]);
            }
            start.elapsed()
        })
    }

    /// The index of the fastest of the variants called `names`. `time` runs one of them and returns how long it took.
    ///
    /// Where nothing is remembered, the variants are timed as long as [`MOST_TIMED`] and [`BUDGET`] allow it. After
    /// that the first variant is used, and not remembered.
    fn fastest(
        &mut self,
        choice: Choice,
        what: &str,
        names: &[String],
        time: impl FnMut(usize) -> Duration,
    ) -> usize {
        // The key names all variants, so that a bundle with other variants is timed anew.
        let key = format!("{}{what}{}", self.cpu, names.join(" "));
        if let Some(name) = self.remembered.find(&key)
            && let Some(index) = names.iter().position(|n| n == name)
        {
            return index;
        }
        let timed = &mut self.timed[choice as usize];
        if self.tuning == Tuning::Off || *timed == MOST_TIMED[choice as usize] || self.spent >= BUDGET {
            return 0;
        }
        *timed += 1;
        let (fastest, spent) = fastest(names.len(), BUDGET - self.spent, time);
        self.spent += spent;
        let name = names.get(fastest).cloned().unwrap_or_default();
        self.remembered.add(key.clone(), name.clone());
        self.found.push((key, name));
        fastest
    }

    /// Writes what was found to the file. Where there is none, or it cannot be written, the next load times again.
    pub fn remember(self) {
        if let (Some(file), false) = (&self.file, self.found.is_empty()) {
            // The file is only a cache: what is not written is timed again.
            let _ = Remembered::write(&self.found, file);
        }
    }
}

/// `trit/kernels.json` in this user's folder for caches.
pub(crate) fn file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = match cfg!(windows) {
        true => absolute("LOCALAPPDATA"),
        false => absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache"))),
    };
    Some(folder?.join("trit").join("kernels.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trit_gemm::tuning::ROUNDS;

    fn names(what: usize) -> Vec<String> {
        ["slow", "fast"].map(|name| format!("{what} {name}")).into()
    }

    /// How many times something is timed in one load that asks for `asked` choices, each taking `time`, and the tuner.
    fn load(file: &std::path::Path, tuning: Tuning, asked: usize, time: Duration) -> (usize, Tuner) {
        let mut tuner = Tuner::new(tuning, Some(file.to_owned()));
        let mut calls = 0;
        for i in 0..asked {
            let before = tuner.timed();
            let index = tuner.fastest(Choice::Kernel, "", &names(i), |i| {
                calls += 1;
                time * (2 - i as u32)
            });
            // The second is faster, and the first is taken where nothing is timed.
            assert_eq!(index, tuner.timed() - before);
        }
        (calls, tuner)
    }

    #[test]
    fn a_load_times_a_few_choices_and_the_next_goes_on() {
        let folder = std::env::temp_dir().join(format!("trit-tuner-{}", std::process::id()));
        let file = folder.join("kernels.json");
        let short = Duration::from_micros(1);
        let (calls, tuner) = load(&file, Tuning::Remembered, 500, short);
        assert_eq!((calls, tuner.timed()), (MOST_TIMED[0] * ROUNDS * 2, MOST_TIMED[0]));
        tuner.remember();
        // What was found is not timed again, and costs nothing of what a load may time.
        let mut next = Tuner::new(Tuning::Remembered, Some(file.clone()));
        for i in 0..2 * MOST_TIMED[0] {
            assert_eq!(next.fastest(Choice::Kernel, "", &names(i), |i| short * (2 - i as u32)), 1);
        }
        assert_eq!(next.timed(), MOST_TIMED[0]);
        assert_eq!(load(&file, Tuning::Off, 500, short).0, 0);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn slow_choices_end_with_the_budget() {
        let file = std::env::temp_dir().join("never-written.json");
        // A round is 3/8 of the budget: the third is the last.
        let (calls, tuner) = load(&file, Tuning::Remembered, 500, BUDGET / 8);
        assert_eq!((calls, tuner.timed()), (3 * 2, 1));
        let (calls, _) = load(&file, Tuning::Fresh, 500, BUDGET * 2);
        assert_eq!(calls, 2);
    }
}
