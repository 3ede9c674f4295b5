//! Who a socket belongs to.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task},
};
use tcp_ebpf::{offsets, wire::Owner};

use crate::mem;

/// The process that runs now; only meaningful in a system call.
#[inline(always)]
pub(crate) fn current() -> Owner {
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let mut comm = [0; 2];
    if pid == tid {
        // SAFETY: fills and pads 16 bytes in place.
        unsafe { bpf_get_current_comm((&raw mut comm).cast(), 16) };
    } else {
        // A thread's own name says what it does, not which program this is.
        // SAFETY: no preconditions.
        let task = unsafe { bpf_get_current_task() };
        comm = mem::read(mem::read(task, offsets::group_leader), offsets::comm);
    }
    Owner {
        // SAFETY: no preconditions.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        comm,
        pid,
        uid: bpf_get_current_uid_gid() as u32,
    }
}

/// The process that a `struct task_struct *` is a thread of.
#[inline(always)]
pub(crate) fn of_task(task: u64) -> Owner {
    let css_set = mem::read(task, offsets::cgroups);
    let kernfs = mem::read(mem::read(css_set, offsets::dfl_cgrp), offsets::cgroup_kn);
    Owner {
        cgroup_id: mem::read(kernfs, offsets::kn_id),
        comm: mem::read(mem::read(task, offsets::group_leader), offsets::comm),
        pid: mem::read(task, offsets::tgid),
        uid: mem::read(mem::read(task, offsets::cred), offsets::cred_uid),
    }
}
