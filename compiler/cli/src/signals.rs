//! What happens when the process is asked to end while a bundle is written.

use trit_text::output::{Interrupts, clean_up_when_killed};

/// From here on SIGTERM, SIGHUP and Ctrl-C end the process only after the unfinished bundle is removed, with the exit
/// code that shells count: 128 and the signal.
pub fn leave_nothing_unfinished() {
    clean_up_when_killed(Interrupts::Too, || {});
}
