//! How much memory this process may use: the least limit of the control groups
//! that it is in and of its own, or what the machine has.
//!
//! A process is limited by its own group and by every group above it. Where the
//! files of a group are depends on the version of control groups (both may be
//! mounted at once) and on how much of the tree is visible from inside a
//! container, so all of it is read from what the kernel says of this process.

use std::fs;
use std::path::{Component, Path, PathBuf};

use rlimit::Resource;

/// The memory of a machine that does not tell.
const UNKNOWN: u64 = 1 << 30;

/// Bytes that this process may use.
pub(super) fn available() -> u64 {
    let own = [Resource::AS, Resource::DATA].into_iter().filter_map(|limit| limit.get_soft().ok());
    own.fold(available_under(Path::new("/")), u64::min)
}

/// What files say that begin at `root`: of the groups and the machine.
fn available_under(root: &Path) -> u64 {
    machine(root).into_iter().chain(groups(root)).min().unwrap_or(UNKNOWN)
}

fn machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Where one hierarchy of groups is mounted.
struct Mount {
    /// The group that is seen at `point`.
    root: PathBuf,
    point: PathBuf,
    is_unified: bool,
}

impl Mount {
    /// Of one line of mountinfo, if it is one of a hierarchy that limits memory.
    fn read(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let is_unified = match kind.next()? {
            "cgroup2" => true,
            "cgroup" if kind.nth(1)?.split(',').any(|option| option == "memory") => false,
            _ => return None,
        };
        Some(Self { root: unescape(root).into(), point: unescape(point).into(), is_unified })
    }

    /// Files that limit a group.
    const fn files(&self) -> &'static [&'static str] {
        if self.is_unified { &["memory.max", "memory.high"] } else { &["memory.limit_in_bytes"] }
    }

    /// The limits of that group and of those above it, as far as they are visible.
    fn limits(&self, root: &Path, group: &Path) -> Vec<u64> {
        let below = group.strip_prefix(&self.root).unwrap_or(Path::new(""));
        // A group outside of what is visible is `/..` and on: its limits cannot be read.
        let is_visible = below.components().all(|part| matches!(part, Component::Normal(_)));
        let below = if is_visible { below } else { Path::new("") };
        let point = root.join(self.point.strip_prefix("/").unwrap_or(&self.point));
        let read = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
        below
            .ancestors()
            .flat_map(|group| self.files().iter().map(move |file| (group, file)))
            .filter_map(|(group, file)| read(point.join(group).join(file)))
            .collect()
    }
}

/// Every limit of the groups that this process is in. Where there is none, files
/// say `max`, or a number near the largest.
fn groups(root: &Path) -> Vec<u64> {
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let group = |is_unified: bool| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let is_memory = controllers.split(',').any(|name| name == "memory");
            (if is_unified { controllers.is_empty() } else { is_memory }).then(|| Path::new(path))
        })
    };
    mounts
        .lines()
        .filter_map(Mount::read)
        .filter_map(|mount| Some(mount.limits(root, group(mount.is_unified)?)))
        .flatten()
        .collect()
}

/// A path of mountinfo, in which spaces and the like are three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.zip(part.get(3..)) {
            Some((code, rest)) => path.extend([char::from(code).to_string().as_str(), rest]),
            None => path.extend(["\\", part]),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n");
    const UNIFIED: &str = "25 1 0:22 / /proc rw - proc proc rw\n\
        30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const MIB: u64 = 1 << 20;

    /// What is found where these files are.
    fn found(files: &[(&str, &str)]) -> u64 {
        let root = std::env::temp_dir().join(format!("quantd-memory-{}", uuid::Uuid::now_v7()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = available_under(&root);
        fs::remove_dir_all(&root).ok();
        found
    }

    #[test]
    fn a_machine_without_groups_has_its_memory_and_an_unknown_one_a_little() {
        assert_eq!(found(&[MACHINE]), 16 << 30);
        assert_eq!(found(&[]), 1 << 30);
        let unlimited = [
            MACHINE,
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("proc/self/mountinfo", UNIFIED),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
        ];
        assert_eq!(found(&unlimited), 16 << 30);
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let at = |own: &str, above: &str, high: &str| {
            found(&[
                MACHINE,
                ("proc/self/cgroup", "0::/system.slice/quantd.service\n"),
                ("proc/self/mountinfo", UNIFIED),
                ("sys/fs/cgroup/system.slice/quantd.service/memory.max", own),
                ("sys/fs/cgroup/system.slice/memory.max", above),
                ("sys/fs/cgroup/system.slice/memory.high", high),
                ("sys/fs/cgroup/other.slice/memory.max", "1\n"),
            ])
        };
        assert_eq!(at("268435456\n", "max\n", "max\n"), 256 * MIB);
        assert_eq!(at("max\n", "536870912\n", "max\n"), 512 * MIB);
        assert_eq!(at("268435456\n", "134217728\n", "max\n"), 128 * MIB);
        assert_eq!(at("268435456\n", "max\n", "67108864\n"), 64 * MIB);
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", UNIFIED),
            ("sys/fs/cgroup/memory.max", "268435456\n"),
        ];
        assert_eq!(found(&files), 256 * MIB);
        // Moved out of the groups that are visible: what is visible still limits it.
        let files = [&files[..1], &[("proc/self/cgroup", "0::/../other\n")], &files[2..]].concat();
        assert_eq!(found(&files), 256 * MIB);
    }

    #[test]
    fn the_first_version_has_a_tree_for_memory() {
        let groups = "12:cpu,cpuacct:/docker/c0ffee\n9:memory:/docker/c0ffee\n1:name=systemd:/x\n";
        let cpu = "41 32 0:37 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let host =
            format!("{cpu}42 32 0:38 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
        let files = [
            MACHINE,
            ("proc/self/cgroup", groups),
            ("proc/self/mountinfo", &host),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/docker/c0ffee/memory.limit_in_bytes", "268435456\n"),
            ("sys/fs/cgroup/cpu/docker/c0ffee/memory.limit_in_bytes", "1\n"),
        ];
        assert_eq!(found(&files), 256 * MIB);
        // A container of that version: the group's own directory is mounted.
        let inside =
            "42 32 0:38 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let files = [
            MACHINE,
            ("proc/self/cgroup", groups),
            ("proc/self/mountinfo", inside),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ];
        assert_eq!(found(&files), 128 * MIB);
    }

    #[test]
    fn both_versions_at_once_and_strange_places() {
        let mounts = "42 32 0:38 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            43 32 0:39 / /mnt/all\\040groups rw - cgroup2 none rw\n\
            44 32 a line of another kind\n";
        let files = [
            MACHINE,
            ("proc/self/cgroup", "3:memory:/a:b\n0::/c\nnonsense\n"),
            ("proc/self/mountinfo", mounts),
            ("sys/fs/cgroup/memory/a:b/memory.limit_in_bytes", "536870912\n"),
            ("mnt/all groups/c/memory.max", "268435456\n"),
        ];
        assert_eq!(found(&files), 256 * MIB);
        assert_eq!(found(&files[..4]), 512 * MIB);
    }

    #[test]
    fn octal_digits_of_paths_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert_eq!(unescape("/a\\9\\04"), "/a\\9\\04");
    }
}
