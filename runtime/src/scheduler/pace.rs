//! How many tokens of prompts fit into a step, from how long steps took.

use std::time::Duration;

/// By how much prompts may lengthen a step in which answers are generated, in parts of the step without them. With 0.9,
/// who reads an answer waits less than twice as long for a token.
const STRETCH: f64 = 0.9;
/// Fewest tokens of prompts that run in a step, so that they make progress beside any answers.
const LEAST: usize = 8;
/// Seconds that a step of prompts alone may take, and how many tokens it has at least. A request that arrives or is
/// cancelled waits for the end of the step.
const ALONE: (f64, usize) = (0.5, 64);
/// Weight of the newest step in a running mean.
const NEW: f64 = 0.2;
/// How many tokens of prompts run beside answers before anything was measured.
const FIRST: usize = 32;

/// Running means of how long steps took.
#[derive(Default)]
pub(super) struct Pace {
    /// Seconds of a step of answers alone, by its number of rows.
    answers: Vec<Option<f64>>,
    /// Seconds that a token of a prompt adds to a step.
    prompt_row: Option<f64>,
}

impl Pace {
    /// Learns from a step.
    pub fn learn(&mut self, answer_rows: usize, prompt_rows: usize, time: Duration) {
        let seconds = time.as_secs_f64();
        let mean = |old: &mut Option<f64>, new: f64| {
            *old = Some(old.map_or(new, |old| old + NEW * (new - old)));
        };
        if prompt_rows == 0 {
            if self.answers.len() <= answer_rows {
                self.answers.resize(answer_rows + 1, None);
            }
            mean(&mut self.answers[answer_rows], seconds);
        } else {
            let alone = if answer_rows == 0 { Some(0.0) } else { self.answers_alone(answer_rows) };
            if let Some(alone) = alone {
                // What is below a tenth of the mean of all rows is noise.
                let least = 0.1 * seconds / (answer_rows + prompt_rows) as f64;
                mean(&mut self.prompt_row, ((seconds - alone) / prompt_rows as f64).max(least));
            }
        }
    }

    /// Seconds of a step of answers alone: those of the nearest number of rows that was measured.
    fn answers_alone(&self, rows: usize) -> Option<f64> {
        let measured = self.answers.iter().enumerate().filter_map(|(at, time)| Some((at, (*time)?)));
        measured.min_by_key(|(at, _)| at.abs_diff(rows)).map(|(_, time)| time)
    }

    /// How many tokens of prompts may run beside `answer_rows` rows of answers, in steps of at most `most` rows.
    pub fn prompt_rows(&self, answer_rows: usize, most: usize) -> usize {
        let room = most.saturating_sub(answer_rows);
        let rows = match (answer_rows, self.prompt_row) {
            (0, None) => room,
            (0, Some(row)) => ((ALONE.0 / row) as usize).max(ALONE.1),
            (_, None) => FIRST,
            (_, Some(row)) => {
                let alone = self.answers_alone(answer_rows);
                alone.map_or(FIRST, |alone| ((STRETCH * alone / row) as usize).max(LEAST))
            }
        };
        rows.min(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_lengthen_steps_by_a_bounded_factor() {
        let mut pace = Pace::default();
        assert_eq!(
            (pace.prompt_rows(0, 512), pace.prompt_rows(4, 512), pace.prompt_rows(500, 512)),
            (512, 32, 12)
        );
        for _ in 0..50 {
            pace.learn(8, 0, Duration::from_millis(100));
            pace.learn(0, 100, Duration::from_millis(200));
        }
        // A row takes 2 ms, and 90 ms may be added.
        assert_eq!(pace.prompt_rows(8, 512), 45);
        assert_eq!(pace.prompt_rows(7, 512), 45);
        assert_eq!(pace.prompt_rows(0, 512), 250);
        // Rows become slow: the share shrinks, but never to nothing.
        for _ in 0..50 {
            pace.learn(8, 45, Duration::from_millis(1000));
        }
        assert!((8..45).contains(&pace.prompt_rows(8, 512)), "{}", pace.prompt_rows(8, 512));
        (0..50).for_each(|_| pace.learn(8, 8, Duration::from_secs(10)));
        assert_eq!(
            (pace.prompt_rows(8, 512), pace.prompt_rows(0, 512), pace.prompt_rows(512, 512)),
            (8, 64, 0)
        );
    }
}
