//! After attaching: gives up what the rest of the trace does not take.
//!
//! The process goes on as the same user, often root, and reads what any process on the machine may have
//! written. So it keeps no capability that it need not have, and can neither start programs nor write files.

use std::{collections::BTreeMap, error::Error};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{ABI, AccessFs, Ruleset, RulesetAttr as _};
use rustix::thread::set_no_new_privs;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

type Done = Result<(), Box<dyn Error>>;

/// What the trace will have to do yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Later {
    /// Look at the sockets of all network namespaces.
    pub(crate) snapshot: bool,
    /// Send signals to a command, which may be another user's.
    pub(crate) command: bool,
}

/// Confines the calling thread, and all that it starts from now on. What cannot be had is only worth a word:
/// the trace is no worse without.
pub(crate) fn confine(later: Later) {
    let tell = |what: &str, done: Done| {
        if let Err(error) = done {
            log::debug!("cannot {what}: {error}");
        }
    };
    tell(
        "set no_new_privs",
        set_no_new_privs(true).map_err(Into::into),
    );
    // A process in a Landlock domain may not look at the namespaces of those outside
    // (hook_ptrace_access_check, security/landlock/task.c).
    if !later.snapshot {
        tell("forbid writing files", forbid_writing());
    }
    tell("drop capabilities", drop_capabilities(later));
    tell("forbid system calls", forbid_calls());
}

fn drop_capabilities(later: Later) -> Done {
    // Before Linux 6.0, every call of bpf(2) takes it: to read counters, to run iterators
    // (__sys_bpf, kernel/bpf/syscall.c).
    let mut kept = vec![Capability::CAP_BPF];
    if later.snapshot {
        // To find namespaces by their processes, and to enter them.
        kept.extend([Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE]);
    }
    if later.command {
        kept.push(Capability::CAP_KILL);
    }
    let had = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = kept.into_iter().filter(|it| had.contains(it)).collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    Ok(())
}

/// Descriptors that are open stay as they are, such as standard output.
fn forbid_writing() -> Done {
    let writing = AccessFs::from_write(ABI::V3);
    Ruleset::default()
        .handle_access(writing)?
        .create()?
        .restrict_self()?;
    Ok(())
}

/// Calls that nothing here makes from now on, and whoever took this process over would.
fn forbid_calls() -> Done {
    const BPF_PROG_LOAD: u64 = 5;
    const NEVER: &[libc::c_long] = &[
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_perf_event_open,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_unshare,
        libc::SYS_reboot,
    ];
    let loads_program =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, BPF_PROG_LOAD)?;
    let mut rules: BTreeMap<_, _> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_bpf, vec![SeccompRule::new(vec![loads_program])?]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into()?,
    )?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command, thread};

    use super::*;

    /// In a thread of its own, which ends with its confinement.
    fn confined<T: Send>(later: Later, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                confine(later);
                body()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn a_confined_thread_starts_no_program() {
        let later = Later {
            snapshot: true,
            command: true,
        };
        let error = confined(later, || Command::new("/bin/true").status().unwrap_err());
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn a_confined_thread_writes_no_file() {
        if fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|it| !it.contains("landlock")) {
            return crate::testing::skip("Landlock");
        }
        let later = Later {
            snapshot: false,
            command: false,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "text").unwrap();
        confined(later, || {
            assert_eq!(fs::read_to_string(&path).unwrap(), "text");
            for error in [
                fs::write(&path, "other").unwrap_err(),
                fs::write(dir.path().join("new"), "").unwrap_err(),
                fs::remove_file(&path).unwrap_err(),
            ] {
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
