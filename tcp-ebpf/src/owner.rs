//! Who a socket belongs to, and whether that process is wanted.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task},
};
use tcp_ebpf::{offsets, wire::Owner};

use crate::{
    globals::config,
    maps::{self, Claim},
    mem,
};

/// A claim by the process that runs now; only meaningful in a system call.
#[inline(never)]
pub(crate) fn current(by: u8) -> Claim {
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    let comm = if pid == tid {
        let mut comm = MaybeUninit::<[u64; 2]>::uninit();
        // SAFETY: fills and pads 16 bytes in place, also when it fails.
        unsafe {
            bpf_get_current_comm(comm.as_mut_ptr().cast(), 16);
            comm.assume_init()
        }
    } else {
        // A thread's own name says what it does, not which program this is.
        mem::read(
            mem::read(current_task(), offsets::group_leader),
            offsets::comm,
        )
    };
    let owner = Owner {
        // SAFETY: no preconditions.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        comm,
        pid,
        uid: bpf_get_current_uid_gid() as u32,
    };
    claim(owner, by, current_task)
}

/// A claim by the process that a `struct task_struct *` is a thread of.
#[inline(always)]
pub(crate) fn of_task(task: u64, by: u8) -> Claim {
    let owner = Owner {
        cgroup_id: cgroup_id(cgroup_of(task)),
        comm: mem::read(mem::read(task, offsets::group_leader), offsets::comm),
        pid: mem::read(task, offsets::tgid),
        uid: mem::read(mem::read(task, offsets::cred), offsets::cred_uid),
    };
    claim(owner, by, || task)
}

/// When the process began that a `struct task_struct *` is a thread of: CLOCK_MONOTONIC, ns.
#[inline(always)]
pub(crate) fn started_ns(task: u64) -> u64 {
    mem::read(mem::read(task, offsets::group_leader), offsets::start_time)
}

#[inline(always)]
fn claim(owner: Owner, by: u8, task: impl Fn() -> u64) -> Claim {
    let wanted = (config!(by_pid) == 0 || maps::is_traced_pid(owner.pid))
        && (config!(by_uid) == 0 || maps::is_traced_uid(owner.uid))
        && (config!(by_cgroup) == 0 || is_below_traced_cgroup(task()));
    Claim {
        owner,
        by,
        wanted: wanted as u8,
        pad16: 0,
        pad32: 0,
    }
}

/// Whether the thread that runs now is ending, and with it its process: the kernel closes its sockets, not the program.
#[inline(always)]
pub(crate) fn is_exiting() -> bool {
    // PF_EXITING, include/linux/sched.h.
    const EXITING: u32 = 4;
    mem::read(current_task(), offsets::task_flags) & EXITING != 0
}

#[inline(always)]
fn current_task() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_task() }
}

#[inline(always)]
fn cgroup_of(task: u64) -> u64 {
    mem::read(mem::read(task, offsets::cgroups), offsets::dfl_cgrp)
}

/// Of a `struct cgroup *`.
#[inline(always)]
pub(crate) fn cgroup_id(cgroup: u64) -> u64 {
    mem::read(mem::read(cgroup, offsets::cgroup_kn), offsets::kn_id)
}

#[inline(always)]
fn is_below_traced_cgroup(task: u64) -> bool {
    /// Deeper trees are cut off; systemd and Kubernetes stay below ten.
    const MAX_DEPTH: usize = 16;
    let mut cgroup = cgroup_of(task);
    for _ in 0..MAX_DEPTH {
        if maps::is_traced_cgroup(cgroup_id(cgroup)) {
            return true;
        }
        let parent = mem::read(cgroup, offsets::cgroup_parent);
        if parent == 0 {
            return false;
        }
        cgroup = mem::read(parent, offsets::css_cgroup);
    }
    false
}
