//! Whether this process is in the namespaces that the kernel's programs and permissions are about: the initial ones.

use std::{fs, path::Path};

/// Whether the process ids that this process knows are those that the programs see. True also where that
/// cannot be found out.
#[must_use]
pub fn has_host_pids() -> bool {
    is_pid_namespace_initial().unwrap_or(true)
}

/// The same; `None` where it cannot be found out.
#[must_use]
pub fn is_pid_namespace_initial() -> Option<bool> {
    // `PROC_PID_INIT_INO`, include/linux/proc_ns.h (6.18)
    is_in("/proc/self/ns/pid", "pid:[4026531836]")
}

/// Whether the capabilities of this process are those that bpf(2) asks for. True also where that cannot be found
/// out.
pub(super) fn has_host_capabilities() -> bool {
    // `PROC_USER_INIT_INO`, in the same file
    is_in("/proc/self/ns/user", "user:[4026531837]").unwrap_or(true)
}

fn is_in(link: &str, initial: &str) -> Option<bool> {
    Some(fs::read_link(link).ok()? == Path::new(initial))
}
