//! Probe points `fork` and `exit`: follows the children of the processes that are traced.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tcp_ebpf::offsets;

use crate::{maps, mem};

/// `trace_sched_process_fork(parent, child)`, include/trace/events/sched.h.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn fork_raw_tp(ctx: RawTracePointContext) -> i32 {
    let parent = mem::read(ctx.arg(0), offsets::tgid);
    let child = mem::read(ctx.arg(1), offsets::tgid);
    // A new thread is no new process.
    if child != parent && maps::is_traced_pid(parent) {
        maps::trace_pid(child);
    }
    0
}

/// `trace_sched_process_exit(task, ..)`: when the last thread has ended, the number may be given to a stranger. The
/// first one may end before: on its own, or because another has called execve().
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn exit_raw_tp(ctx: RawTracePointContext) -> i32 {
    let task = ctx.arg(0);
    let pid = mem::read(task, offsets::tgid);
    // do_exit() has counted this thread down already, kernel/exit.c (6.18).
    let left = mem::read(mem::read(task, offsets::signal), offsets::signal_live);
    if left == 0 && maps::is_traced_pid(pid) {
        maps::untrace_pid(pid);
    }
    0
}
