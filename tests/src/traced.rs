//! A command that is followed from system call to system call: it can be killed at one of them, or be told that one failed, as
//! where a disk is full.

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};

/// What is to become of a command where one of its threads begins or ends a system call.
pub enum Then {
    /// It goes on.
    Go,
    /// It is killed.
    Kill,
    /// The call does nothing, and says that it failed for this reason. Where a call ends, that is too late, and it goes on.
    Fail(Errno),
}

/// A place where a command stops: one of its threads begins or ends a system call.
pub struct Stop {
    thread: Pid,
    /// Whether the call begins.
    pub begins: bool,
}

/// What became of a command.
pub struct Ended {
    /// Its exit code; `None` where it was killed as [`Then::Kill`] says.
    pub code: Option<i32>,
    /// Standard error.
    pub err: String,
}

/// Runs a command, and asks `then` what is to become of it wherever one of its threads begins or ends a system call. `None` where the
/// system does not allow a process to be followed, which is said on standard error with what is `left_out`.
///
/// It waits for every child of this process, so one command is followed at a time, in a test program with one test.
///
/// # Panics
/// If the command cannot be started, or is killed by somebody else.
pub fn follow(program: &Command, left_out: &str, mut then: impl FnMut(&Stop) -> Then) -> Option<Ended> {
    // It stops itself, so that it is followed from the first call of the program on.
    let mut command = Command::new("sh");
    command
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .arg(program.get_program())
        .args(program.get_args());
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let mut said: File = tempfile::tempfile().expect("a file without a name");
    let err = said.try_clone().expect("descriptors are left");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err);
    if let Some(folder) = program.get_current_dir() {
        command.current_dir(folder);
    }
    #[expect(clippy::zombie_processes, reason = "its tracer waits for it, after all of its threads")]
    let mut child = command.spawn().expect("sh starts");
    let main = Pid::from_raw(child.id() as i32);
    let stopped = waitpid(main, Some(WaitPidFlag::WUNTRACED)).expect("it is a child");
    assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{stopped:?}");
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    if ptrace::seize(main, options | Options::PTRACE_O_TRACEEXEC).is_err() {
        kill(main, Signal::SIGKILL).expect("it is a child");
        child.wait().expect("it is a child");
        let _ = writeln!(std::io::stderr(), "NOT RUN: {left_out}: the system lets no process be followed");
        return None;
    }
    kill(main, Signal::SIGCONT).expect("it is a child");
    let mut begun = false;
    // The threads within a call, and why it fails, where it was made to do nothing.
    let mut within: HashMap<Pid, Option<Errno>> = HashMap::new();
    let code = loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).expect("there is a child");
        let next = |pid: Pid, signal: Option<Signal>| {
            // A thread may have ended meanwhile.
            let _ = ptrace::syscall(pid, signal);
        };
        match status {
            WaitStatus::PtraceSyscall(pid) if !begun => next(pid, None),
            WaitStatus::PtraceSyscall(thread) => {
                let ends = within.remove(&thread);
                let begins = ends.is_none() && calls::begins(thread);
                match then(&Stop { thread, begins }) {
                    Then::Kill => {
                        kill(main, Signal::SIGKILL).expect("it is a child");
                        // Threads that are followed are waited for one by one, and the process last.
                        while waitpid(None, Some(WaitPidFlag::__WALL)).is_ok() {}
                        break None;
                    }
                    Then::Fail(errno) if begins => {
                        calls::skip(thread);
                        within.insert(thread, Some(errno));
                    }
                    _ if begins => {
                        within.insert(thread, None);
                    }
                    _ => {}
                }
                if let Some(Some(errno)) = ends {
                    calls::give(thread, errno);
                }
                next(thread, None);
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                begun |= event == nix::libc::PTRACE_EVENT_EXEC;
                next(pid, None);
            }
            WaitStatus::Stopped(pid, Signal::SIGSTOP | Signal::SIGTRAP | Signal::SIGCONT) => next(pid, None),
            WaitStatus::Stopped(pid, signal) => next(pid, Some(signal)),
            WaitStatus::Exited(pid, code) if pid == main => break Some(code),
            WaitStatus::Signaled(pid, ..) if pid == main => panic!("{program:?} was killed by somebody else"),
            _ => {}
        }
    };
    let mut err = String::new();
    said.rewind().expect("it is a file");
    said.read_to_string(&mut err).expect("messages are text");
    Some(Ended { code, err })
}

impl Stop {
    /// The name of the call that begins, where a disk that is full or cannot be written makes it fail: it makes a file or a folder, gives
    /// one a name, or puts bytes into a file. Standard output and standard error are nobody's files.
    pub fn writes(&self) -> Option<&'static str> {
        if !self.begins { None } else { calls::writes(self.thread) }
    }
}

/// System calls as registers hold them.
#[cfg(target_arch = "x86_64")]
mod calls {
    use nix::errno::Errno;
    use nix::libc::{self, c_long};
    use nix::sys::ptrace;
    use nix::unistd::Pid;

    /// Whether a thread that is within no call, as far as is known, begins one. A new thread first ends the call that made it.
    pub fn begins(thread: Pid) -> bool {
        // The system puts this there before it looks which call it is.
        ptrace::getregs(thread).is_ok_and(|registers| registers.rax as i64 == -i64::from(libc::ENOSYS))
    }

    /// Makes the call that a thread begins one that does nothing.
    pub fn skip(thread: Pid) {
        change(thread, |registers| registers.orig_rax = u64::MAX);
    }

    /// Makes the call that a thread ends one that failed.
    pub fn give(thread: Pid, errno: Errno) {
        change(thread, |registers| registers.rax = -i64::from(errno as i32) as u64);
    }

    /// A thread that has stopped may still be ended by another one, which ends the process. It is let go then.
    fn change(thread: Pid, change: impl FnOnce(&mut libc::user_regs_struct)) {
        if let Ok(mut registers) = ptrace::getregs(thread) {
            change(&mut registers);
            let _ = ptrace::setregs(thread, registers);
        }
    }

    pub fn writes(thread: Pid) -> Option<&'static str> {
        // As in `change`.
        let registers = ptrace::getregs(thread).ok()?;
        let (first, second, third) = (registers.rdi, registers.rsi, registers.rdx);
        let has = |flags: u64, flag: i32| flags & flag as u64 == flag as u64;
        let creates = |flags: u64| has(flags, libc::O_CREAT) || has(flags, libc::O_TMPFILE);
        // A file, not a pipe or a counter by which threads wake each other.
        let is_file = |fd: u64| {
            fd > 2 && std::fs::metadata(format!("/proc/{thread}/fd/{fd}")).is_ok_and(|found| found.is_file())
        };
        let (name, counts) = match registers.orig_rax as c_long {
            libc::SYS_open => ("open", creates(second)),
            libc::SYS_openat => ("openat", creates(third)),
            libc::SYS_creat => ("creat", true),
            libc::SYS_mkdir | libc::SYS_mkdirat => ("mkdir", true),
            libc::SYS_link | libc::SYS_linkat => ("link", true),
            libc::SYS_symlink | libc::SYS_symlinkat => ("symlink", true),
            libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => ("rename", true),
            libc::SYS_write | libc::SYS_writev => ("write", is_file(first)),
            libc::SYS_pwrite64 | libc::SYS_pwritev | libc::SYS_pwritev2 => ("pwrite", is_file(first)),
            libc::SYS_ftruncate => ("ftruncate", is_file(first)),
            libc::SYS_fallocate => ("fallocate", is_file(first)),
            libc::SYS_fsync | libc::SYS_fdatasync => ("fsync", is_file(first)),
            libc::SYS_sendfile => ("sendfile", is_file(first)),
            libc::SYS_copy_file_range => ("copy_file_range", is_file(third)),
            _ => return None,
        };
        counts.then_some(name)
    }
}

/// Nobody has written down yet where other architectures have them.
#[cfg(not(target_arch = "x86_64"))]
mod calls {
    use nix::errno::Errno;
    use nix::unistd::Pid;

    pub fn begins(_: Pid) -> bool {
        false
    }

    pub fn skip(_: Pid) {}

    pub fn give(_: Pid, _: Errno) {}

    pub fn writes(_: Pid) -> Option<&'static str> {
        None
    }
}
