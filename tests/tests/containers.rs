//! What a container allows is what is taken: in control groups of the system itself, where tests may make some.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use trit_tests::large;
use trit_tests::workbench::{compile, repository, run, trit_run};

/// A control group of one's own, removed at the end.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

impl Group {
    /// A group in which each of `limits` (file and value, for either version of the interface) is set. `None`, said on
    /// standard error, where there is no such group to be made.
    fn new(name: &str, controller: &str, limits: [&[(&str, &str)]; 2], left_out: &str) -> Option<Group> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for line in mounts.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let point = Path::new(place.split(' ').nth(4).unwrap());
            let limits = match kind.split(' ').collect::<Vec<_>>()[..] {
                ["cgroup2", ..] => limits[1],
                ["cgroup", .., options] if options.split(',').any(|o| o == controller) => limits[0],
                _ => continue,
            };
            let group = Group(point.join(format!("trit-test-{name}-{}", std::process::id())));
            // Not `create`, which these file systems know nothing of.
            let write = |(file, value): &(&str, &str)| {
                let mut file = std::fs::OpenOptions::new().write(true).open(group.0.join(file))?;
                file.write_all(value.as_bytes())
            };
            if std::fs::create_dir(&group.0).and_then(|()| limits.iter().try_for_each(write)).is_ok() {
                return Some(group);
            }
        }
        // Not `eprintln!`, which the test runner keeps to itself while a test passes.
        let _ = writeln!(std::io::stderr(), "NOT RUN: {left_out} (no control group can be made here)");
        None
    }

    /// `trit-run` inside.
    fn trit_run(&self, args: &[&str]) -> Command {
        let plain = trit_run(args);
        let mut inside = Command::new("sh");
        inside
            .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(&self.0)
            .arg(plain.get_program());
        inside.args(plain.get_args()).stdin(std::process::Stdio::null());
        inside.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }
}

/// 40 MB hold the program but not a copy of the planes, which have as much: they stay mapped, and nobody is killed.
#[test]
fn a_bundle_larger_than_its_container_runs() {
    let limits = [&[("memory.limit_in_bytes", "41943040")][..], &[("memory.max", "41943040")]];
    let Some(group) = Group::new("memory", "memory", limits, "a bundle in a small container") else { return };
    let bundle = large::bundle("containers");
    let args = [
        bundle.to_str().unwrap(),
        "--ids",
        "46,1218,605",
        "-n",
        "6",
        "--temp",
        "0",
        "--ignore-eos",
        "--json",
    ];
    // Embedded kernels: generating some takes memory of its own.
    let args = [&args[..], &["--kernels", "embedded", "-c", "64"]].concat();
    let outside = run(trit_run(&args)).json();
    let inside = run(group.trit_run(&args)).json();
    assert_eq!(inside["ids"], outside["ids"]);
}

/// One CPU's worth of time is one thread.
#[test]
fn no_more_threads_than_the_container_grants() {
    let limits = [
        &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "100000")][..],
        &[("cpu.max", "100000 100000")],
    ];
    let Some(group) = Group::new("cpu", "cpu", limits, "threads in a container") else { return };
    let bundle = compile(&repository().join("examples/models/fables-12m"), "containers-cpu");
    let args = [bundle.to_str().unwrap(), "-p", "Once", "-n", "2", "--temp", "0", "--verbose"];
    let ran = run(group.trit_run(&args));
    assert!(ran.code == Some(0) && ran.err.contains(", 1 thread\n"), "{}", ran.err);
}
