//! How much memory this process may still take: what the machine has free, and what its containers allow.
//!
//! A container is a control group with a limit. A process that exceeds the limit is killed, however much the machine
//! has free. Therefore every group from the process's own up to the root counts. Cached pages of files are charged to a
//! group too, but the system takes them back before it kills a process, so they count as free.

use std::path::{Path, PathBuf};

/// Bytes that this process may still take without displacing other programs or being killed; `None` where the system
/// does not say.
pub fn available() -> Option<usize> {
    available_under(Path::new("/"))
}

/// As [`available`], with the system's files under `root`.
fn available_under(root: &Path) -> Option<usize> {
    let bytes = machine(root).into_iter().chain(groups(root)).min()?;
    Some(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Bytes that the machine has free.
fn machine(root: &Path) -> Option<u64> {
    let info = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = info.lines().find(|l| l.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// The two interfaces of control groups.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    One,
    Two,
}

/// The bytes that are left in each control group with a limit that this process belongs to.
fn groups(root: &Path) -> Vec<u64> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
    let (own, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut left = Vec::new();
    for line in own.lines() {
        // Number, controllers, path; the second version has number 0 and no controllers.
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let version = match (number, controllers) {
            ("0", "") => Version::Two,
            (_, controllers) if controllers.split(',').any(|c| c == "memory") => Version::One,
            _ => continue,
        };
        for mount in mounts.lines().filter_map(|line| Mount::parse(line, version)) {
            left.extend(mount.folders(root, path).filter_map(|folder| left_in(&folder, version)));
        }
    }
    left
}

/// A mount point where control groups appear as folders.
struct Mount {
    /// The group that stands at the mount point.
    group: PathBuf,
    /// The mount point.
    point: PathBuf,
}

impl Mount {
    /// Parses a line of `/proc/self/mountinfo`. `None` unless it mounts groups of that version with the memory
    /// controller.
    fn parse(line: &str, version: Version) -> Option<Mount> {
        // 41 31 0:38 /group /mount/point options ... - type source super-options
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let fits = match (kind.next()?, version) {
            ("cgroup2", Version::Two) => true,
            ("cgroup", Version::One) => kind.nth(1)?.split(',').any(|option| option == "memory"),
            _ => false,
        };
        let mut place = place.split(' ').skip(3).map(unescaped);
        fits.then_some(Mount { group: place.next()?.into(), point: place.next()?.into() })
    }

    /// The folders of group `path` and of all above it, as far as they are mounted here.
    fn folders(&self, root: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
        let inside = root.join(self.point.strip_prefix("/").unwrap_or(&self.point));
        // A container may see its own group at the mount point under the name that the group has outside. A group
        // beside or above the mount point (`/../other`) cannot be seen; the mount point is then the nearest visible
        // group.
        let below = Path::new(path).strip_prefix(&self.group).unwrap_or(Path::new(""));
        let hidden = below.components().any(|part| part == std::path::Component::ParentDir);
        let own = if hidden { inside.clone() } else { inside.join(below) };
        let count = own.components().count() - inside.components().count() + 1;
        let folders: Vec<PathBuf> = own.ancestors().take(count).map(Path::to_owned).collect();
        folders.into_iter()
    }
}

/// Spaces and the like stand as three octal digits in `/proc/self/mountinfo`.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[3..]);
            }
            None => text.extend(["\\", part]),
        }
    }
    text
}

/// The bytes that the group in that folder has left; `None` where it has no limit.
fn left_in(folder: &Path, version: Version) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    // Where there is no limit, the second version says `max`.
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, used, prefix) = match version {
        // A group beyond `high` is slowed down until it hardly runs.
        Version::Two => {
            let limits = [number("memory.max"), number("memory.high")];
            (limits.into_iter().flatten().min()?, number("memory.current")?, "")
        }
        // Where there is no limit, the first version gives the largest number of whole pages.
        Version::One => {
            let limit = number("memory.limit_in_bytes").filter(|&limit| limit < 1 << 60)?;
            (limit, number("memory.usage_in_bytes")?, "total_")
        }
    };
    let stat = read("memory.stat").unwrap_or_default();
    let of_files = |line: &str| {
        let (name, bytes) = line.strip_prefix(prefix)?.split_once(' ')?;
        matches!(name, "inactive_file" | "active_file").then_some(bytes.trim().parse::<u64>().ok()?)
    };
    let files: u64 = stat.lines().filter_map(of_files).sum();
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests;
