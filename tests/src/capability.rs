//! Running a program with certain capabilities only.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Of linux/capability.h.
pub const CAP_KILL: u32 = 5;
/// Of linux/capability.h.
pub const CAP_SYS_PTRACE: u32 = 19;
/// Of linux/capability.h.
pub const CAP_SYS_ADMIN: u32 = 21;
/// Of linux/capability.h.
pub const CAP_PERFMON: u32 = 38;
/// Of linux/capability.h.
pub const CAP_BPF: u32 = 39;

/// Whether perf events, on which kprobes and tracepoints of system calls hang, take CAP_SYS_ADMIN:
/// kernels of Debian and Ubuntu know levels above mainline's highest, 2.
pub fn perf_takes_cap_sys_admin() -> bool {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    level.trim().parse::<i32>().unwrap() > 2
}

/// The program will have these and no others, as root: what is outside the bounding set cannot be gained by
/// exec.
pub fn limit(command: &mut Command, capabilities: &[u32]) {
    const LAST: u32 = 63;
    let others: Vec<u32> = (0..=LAST).filter(|it| !capabilities.contains(it)).collect();
    // SAFETY: prctl is async-signal-safe and involves no memory.
    unsafe {
        command.pre_exec(move || {
            for capability in &others {
                let done = libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(*capability));
                let error = io::Error::last_os_error();
                // EINVAL: this kernel does not know it.
                if done != 0 && error.raw_os_error() != Some(libc::EINVAL) {
                    return Err(error);
                }
            }
            Ok(())
        });
    }
}

/// As a set of bits, like those in `/proc/PID/status`.
pub fn bits(capabilities: &[u32]) -> u64 {
    capabilities.iter().map(|it| 1 << it).sum()
}

/// The number behind `field` in a text like `/proc/PID/status`, read in this base.
pub fn status_field(status: &str, field: &str, radix: u32) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let word = line.and_then(|rest| rest.strip_prefix(':')?.split_whitespace().next());
    let word = word.unwrap_or_else(|| panic!("no {field} in {status}"));
    u64::from_str_radix(word, radix).unwrap()
}

/// `/proc/PID/status`
pub fn status(pid: libc::pid_t) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}
