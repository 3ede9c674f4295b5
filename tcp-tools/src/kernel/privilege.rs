//! Which capabilities this process has.

use super::namespace;

const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Capabilities that tracing needs and this process lacks (include/uapi/linux/capability.h).
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let effective = match namespace::has_host_capabilities() {
        true => effective().unwrap_or(u64::MAX),
        false => 0,
    };
    let has = |capability: u32| effective >> capability & 1 != 0;
    if has(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|(capability, _)| !has(*capability))
        .map(|(_, name)| name)
        .collect()
}

/// Whether this process may look at all others that it sees, as far as privilege goes.
pub(super) fn may_look() -> bool {
    effective().is_none_or(|effective| effective >> CAP_SYS_PTRACE & 1 != 0)
}

/// The effective capabilities of this thread, as bits; `None` where the kernel does not give them, and then its
/// own refusal must do.
#[must_use]
pub fn effective() -> Option<u64> {
    Some(rustix::thread::capabilities(None).ok()?.effective.bits())
}
