//! Whether /proc and /sys are there: in containers and chroots they may be missing, or something may cover them.

use std::path::Path;

use rustix::fs::{FsWord, statfs};

// include/uapi/linux/magic.h (6.18)
const PROC_SUPER_MAGIC: FsWord = 0x9fa0;
const SYSFS_MAGIC: FsWord = 0x6265_6572;
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;

/// What to say of anything that is not found in a /proc that [`has_proc`] denies.
pub const NO_PROC: &str =
    "/proc is not mounted here, or is covered; mount it (mount -t proc proc /proc)";

/// Whether /proc is that of the kernel.
#[must_use]
pub fn has_proc() -> bool {
    is_of(Path::new("/proc"), PROC_SUPER_MAGIC)
}

/// Whether a path in /sys is in the kernel's sysfs, or would be if the kernel had it.
pub(super) fn is_in_sysfs(path: &Path) -> bool {
    let parents = path.ancestors().skip(1);
    let nearest = parents.into_iter().find(|parent| parent.exists());
    nearest.is_some_and(|parent| is_of(parent, SYSFS_MAGIC))
}

/// Whether this is a directory of the cgroup v2 hierarchy.
#[must_use]
pub fn is_cgroup2(path: &Path) -> bool {
    is_of(path, CGROUP2_SUPER_MAGIC)
}

fn is_of(path: &Path, magic: FsWord) -> bool {
    statfs(path).is_ok_and(|found| found.f_type == magic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_in_sysfs_where_its_directory_is() {
        assert!(has_proc());
        assert!(is_in_sysfs(Path::new("/sys/kernel/no_such_directory/file")));
        assert!(!is_in_sysfs(Path::new("/proc/sys/kernel/no_such_file")));
        assert!(!is_in_sysfs(Path::new("/no/such/file")));
    }
}
