//! Trees of files as systems show them.

use super::*;
use tempfile::TempDir;

const MB: u64 = 1 << 20;
const FREE: usize = 8_000_000 << 10;
const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

/// A system with those mounts, whose process is in those groups.
fn system(groups: &str, mounts: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n");
    write("proc/self/cgroup", groups);
    write("proc/self/mountinfo", &format!("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{mounts}"));
    root
}

fn group(root: &TempDir, folder: &str, files: &[(&str, String)]) {
    let folder = root.path().join("sys/fs/cgroup").join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        std::fs::write(folder.join(name), format!("{text}\n")).unwrap();
    }
}

/// A group of the second version.
fn two(root: &TempDir, folder: &str, max: &str, high: &str, current: u64, inactive: u64, active: u64) {
    let stat =
        format!("anon 5\nfile 7\ninactive_anon 1\ninactive_file {inactive}\nactive_file {active}\nshmem 9");
    group(
        root,
        folder,
        &[
            ("memory.max", max.into()),
            ("memory.high", high.into()),
            ("memory.current", current.to_string()),
            ("memory.stat", stat),
        ],
    );
}

/// A group of the first version.
fn one(root: &TempDir, folder: &str, limit: u64, usage: u64, files: u64) {
    let stat = format!(
        "inactive_file 1\nactive_file 1\ntotal_cache 77\ntotal_inactive_file {files}\ntotal_active_file 0"
    );
    group(
        root,
        folder,
        &[
            ("memory.limit_in_bytes", limit.to_string()),
            ("memory.usage_in_bytes", usage.to_string()),
            ("memory.stat", stat),
        ],
    );
}

fn left(root: &TempDir) -> usize {
    available_under(root.path()).unwrap()
}

#[test]
fn without_groups_the_machine_counts() {
    assert_eq!(left(&system("", "")), FREE);
    let root = system("0::/user.slice\n", V2);
    two(&root, "user.slice", "max", "max", 5, 0, 0);
    assert_eq!(left(&root), FREE);
    assert_eq!(available_under(Path::new("/no/such/root")), None);
}

#[test]
fn a_limit_of_the_second_version_counts_wherever_it_stands() {
    let root = system("0::/a/b/c\n", V2);
    two(&root, "a/b/c", "max", "max", 10 * MB, 0, 0);
    two(&root, "a/b", "max", "max", 10 * MB, 0, 0);
    two(&root, "a", &(200 * MB).to_string(), "max", 50 * MB, 0, 0);
    assert_eq!(left(&root) as u64, 150 * MB);
    // `high` slows down before `max` kills.
    two(&root, "a/b", "max", &(100 * MB).to_string(), 40 * MB, 0, 0);
    assert_eq!(left(&root) as u64, 60 * MB);
    // Pages of files are given back.
    two(&root, "a/b", "max", &(100 * MB).to_string(), 40 * MB, 25 * MB, 10 * MB);
    assert_eq!(left(&root) as u64, 95 * MB);
    // More is used than allowed.
    two(&root, "a/b", &(30 * MB).to_string(), "max", 40 * MB, 0, 0);
    assert_eq!(left(&root), 0);
    // A limit beyond what the machine has says nothing.
    two(&root, "a/b", &(1 << 50).to_string(), "max", 40 * MB, 0, 0);
    two(&root, "a", "max", "max", 0, 0, 0);
    assert_eq!(left(&root), FREE);
}

#[test]
fn a_limit_of_the_first_version_counts() {
    let none = 9_223_372_036_854_771_712;
    let root = system("5:cpu,cpuacct:/x\n4:memory:/a/b\n0::/ignored\n", V1);
    one(&root, "memory/a/b", none, 3 * MB, 0);
    one(&root, "memory/a", 200 * MB, 190 * MB, 150 * MB);
    one(&root, "memory", none, 900 * MB, 0);
    assert_eq!(left(&root) as u64, 160 * MB);
    one(&root, "memory/a", none, 190 * MB, 150 * MB);
    assert_eq!(left(&root), FREE);
}

#[test]
fn a_container_sees_its_own_group_at_the_mount_point() {
    // With a namespace of its own.
    let root = system("0::/\n", V2);
    two(&root, "", &(300 * MB).to_string(), "max", 100 * MB, 0, 0);
    assert_eq!(left(&root) as u64, 200 * MB);
    // Without: the group has its outer name, and only it is mounted.
    let mount = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let root = system("4:memory:/docker/abc\n", mount);
    one(&root, "memory", 300 * MB, 100 * MB, 0);
    assert_eq!(left(&root) as u64, 200 * MB);
    let root = system("4:memory:/docker/abc/inner\n", mount);
    one(&root, "memory", 300 * MB, 100 * MB, 0);
    one(&root, "memory/inner", 50 * MB, 20 * MB, 0);
    assert_eq!(left(&root) as u64, 30 * MB);
    // Moved out of what can be seen.
    let root = system("0::/../elsewhere\n", V2);
    two(&root, "", &(300 * MB).to_string(), "max", 100 * MB, 0, 0);
    assert_eq!(left(&root) as u64, 200 * MB);
}

#[test]
fn odd_files_are_no_limits() {
    let odd = "30 23 0:26 / /sys/fs/my\\040groups rw - cgroup2 none rw\nnonsense\n- -\n30 23 - cgroup2\n";
    let root = system("0::/a\nnonsense\n:\n1:memory\n", odd);
    let folder = root.path().join("sys/fs/my groups/a");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in [("memory.max", "much"), ("memory.high", "-1"), ("memory.current", "")] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    assert_eq!(left(&root), FREE);
    std::fs::write(folder.join("memory.max"), (70 * MB).to_string()).unwrap();
    assert_eq!(left(&root), FREE, "what is used is not known");
    std::fs::write(folder.join("memory.current"), (30 * MB).to_string()).unwrap();
    assert_eq!(left(&root) as u64, 40 * MB);
}
