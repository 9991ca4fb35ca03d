//! Where time goes, for people and for programs.

use crate::failure::note_lines;
use serde::Serialize;
use trit_runtime::Profile;
use trit_runtime::generate::Generation;

/// A profile as `--json` prints it.
#[derive(Serialize)]
pub struct ProfileJson {
    passes: usize,
    tokens: usize,
    steps: Vec<StepJson>,
    /// Vocabulary rows over all tokens: those that the high plane alone could not decide, and exact products taken.
    refined: usize,
    survivors: usize,
    /// Tokens of which the best logits were looked for, and those for which both planes were read at once.
    heads: usize,
    full_scans: usize,
}

/// One kind of step, over all passes.
#[derive(Serialize)]
struct StepJson {
    step: &'static str,
    /// Of the first worker.
    seconds: f64,
    /// Until the others were done too.
    waiting_s: f64,
}

impl From<&Profile> for ProfileJson {
    fn from(profile: &Profile) -> ProfileJson {
        let step = |(step, seconds, waiting_s)| StepJson { step, seconds, waiting_s };
        ProfileJson {
            passes: profile.regions,
            tokens: profile.tokens,
            steps: profile.kinds().map(step).collect(),
            refined: profile.refined,
            survivors: profile.survivors,
            heads: profile.heads,
            full_scans: profile.full_scans,
        }
    }
}

/// Prints a profile on standard error, under a title.
pub fn show(title: &str, profile: &Profile) {
    if profile.tokens > 0 {
        note_lines(format_args!("\n{title}\n{profile}"));
    }
}

/// Prints where the time of a generation went, on standard error; nothing where no profile was kept.
pub fn show_generation(generation: &Generation) {
    let Some([prompt, decode]) = &generation.profiles else { return };
    show("prompt", prompt);
    show("generated tokens", decode);
    let (made, right) = (generation.drafted, generation.accepted);
    note_lines(format_args!("\nguessed {made} tokens, {right} of them right"));
}
