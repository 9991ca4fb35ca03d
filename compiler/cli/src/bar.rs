//! Progress on a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use trit_command::names::names;
use trit_text::output::Unfinished;
use trit_text::printable::escape_lines;
use tritc::Warning;
use tritc::progress::{Progress, Stage};

/// Shows a bar for each stage on standard error, where that is a terminal; with `verbose`, leaves a line for each
/// stage wherever it is.
pub struct Bar {
    bar: ProgressBar,
    verbose: bool,
    stage: Mutex<Option<(&'static str, Instant)>>,
    warnings: Mutex<Vec<Warning>>,
    unfinished: Unfinished,
}

impl Bar {
    pub fn new(verbose: bool, unfinished: &Unfinished) -> Bar {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        let (stage, warnings, unfinished) = (Mutex::new(None), Mutex::new(Vec::new()), unfinished.clone());
        let this = Bar { bar, verbose, stage, warnings, unfinished };
        this.next(Some("reading"));
        this.bar.set_message("reading");
        this.bar.enable_steady_tick(std::time::Duration::from_millis(100));
        this
    }

    /// Leaves lines on standard error.
    pub fn lines(&self, text: &str) {
        // Where standard error is closed there is nobody to tell.
        self.bar.suspend(|| drop(write!(std::io::stderr(), "{}", escape_lines(text))));
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Vec<Warning> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn next(&self, stage: Option<&'static str>) {
        let mut current = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, start)) = current.take()
            && self.verbose
        {
            let line = format!("{}: {name:<8} {:6.2} s", names().compiler, start.elapsed().as_secs_f64());
            self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{line}")));
        }
        *current = stage.map(|name| (name, Instant::now()));
    }
}

impl Progress for Bar {
    fn begin(&self, stage: Stage, total: u64) {
        self.next(Some(stage.name()));
        let units = match stage {
            Stage::Check => "{pos}/{len} layers",
            Stage::Pack | Stage::Quantize | Stage::Write => "{decimal_bytes}/{decimal_total_bytes}",
        };
        let template = format!("{{msg:8}} {{wide_bar}} {units} {{eta}}");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style);
        self.bar.set_length(total);
        self.bar.reset();
        self.bar.set_message(stage.name());
    }

    fn advance(&self, units: u64) {
        self.bar.inc(units);
    }

    fn warn(&self, warning: Warning) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }

    fn unfinished(&self) -> Unfinished {
        self.unfinished.clone()
    }

    fn end(&self) {
        self.next(None);
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // After an error nothing of the bar stays beside the message.
        self.bar.finish_and_clear();
    }
}
