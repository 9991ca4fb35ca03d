//! Where a token's time goes, by kind of step.

use std::fmt;
use std::time::Duration;
use trit_format::plan::{Epilogue, Step};

/// How long the first worker took for each kind of step, and how long it waited after it.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// One entry for each kind of step, in the order in which they first ran.
    kinds: Vec<Kind>,
    /// How many passes ran: one for a token in decode, one for a chunk of a prompt in prefill.
    pub regions: usize,
    /// How many tokens ran.
    pub tokens: usize,
    /// How many rows of the head's table were rescored, that is multiplied exactly, summed over the tokens of `heads`.
    pub rescored: usize,
    /// How many rows of the table the high plane left undecided, summed likewise.
    pub undecided: usize,
    /// For how many of these tokens both planes were read at once.
    pub full_scans: usize,
    /// For how many tokens the head was screened, because only the largest logits were asked for.
    pub heads: usize,
}

#[derive(Clone, Debug)]
struct Kind {
    name: &'static str,
    steps: usize,
    work: Duration,
    wait: Duration,
}

impl Profile {
    /// Adds one step: the time of its work, and the time of waiting for the other workers.
    pub(crate) fn add(&mut self, step: &Step, work: Duration, wait: Duration) {
        let name = match step {
            Step::Embed { .. } | Step::EmbedTernary { .. } => "embed",
            Step::RmsNorm { .. } | Step::RmsNormAdd { .. } => "norm",
            Step::Quantize { .. } | Step::NormQuantize { .. } => "norm and quantize",
            Step::RotateQuantize { .. } | Step::Unrotate { .. } => "rotate, quantize",
            Step::Convolve { .. } => "convolution",
            Step::DeltaRule { .. } => "delta rule",
            Step::GateNorm { .. } => "gated norm",
            Step::JoinHidden { .. } => "join",
            Step::Ternary { epilogue: Epilogue::Gate(_), .. } => "ternary, gated",
            Step::Ternary { .. } => "ternary",
            Step::RopeAppend { .. } | Step::RopeNormAppend { .. } => "rope, append",
            Step::Attend { .. } => "attention",
            Step::Head { .. } => "head",
            Step::Linear { .. } => "linear",
            Step::Gate { .. } => "gate",
            _ => "other",
        };
        let index = self.kinds.iter().position(|k| k.name == name).unwrap_or_else(|| {
            self.kinds.push(Kind { name, steps: 0, work: Duration::ZERO, wait: Duration::ZERO });
            self.kinds.len() - 1
        });
        let kind = &mut self.kinds[index];
        kind.steps += 1;
        kind.work += work;
        kind.wait += wait;
    }

    /// For each kind of step its name, its time in seconds, and the time the first worker waited after it.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, f64, f64)> {
        self.kinds.iter().map(|k| (k.name, k.work.as_secs_f64(), k.wait.as_secs_f64()))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: Duration = self.kinds.iter().map(|k| k.work + k.wait).sum();
        let per = |time: Duration| time.as_secs_f64() * 1e3 / self.tokens.max(1) as f64;
        let share = |time: Duration| 100.0 * time.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
        writeln!(f, "{:<18} {:>10} {:>7} {:>10} {:>9}", "step", "ms/token", "share", "waiting", "steps")?;
        for kind in &self.kinds {
            let (work, steps) = (per(kind.work), kind.steps / self.regions.max(1));
            writeln!(
                f,
                "{:<18} {work:>10.3} {:>6.1}% {:>10.3} {steps:>9}",
                kind.name,
                share(kind.work),
                per(kind.wait)
            )?;
        }
        write!(
            f,
            "{:<18} {:>10.3} over {} tokens in {} passes",
            "all",
            per(total),
            self.tokens,
            self.regions
        )?;
        if self.heads > 0 {
            let mean = |n: usize| n as f64 / self.heads as f64;
            write!(
                f,
                "\nhead: a token leaves {:.1} rows to the low plane and {:.1} to the exact product; both planes at \
                 once for {} of {} tokens",
                mean(self.undecided),
                mean(self.rescored),
                self.full_scans,
                self.heads
            )?;
        }
        Ok(())
    }
}
