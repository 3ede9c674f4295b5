//! Probe point `accept`: a connection is handed to a process.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    },
    macros::{fentry, fexit, kprobe, tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, TracePointContext},
};
use tcp_ebpf::{
    config::event::{ACCEPT, RETRANSMIT, SESSION},
    offsets,
    tcp::{CLOSE, LISTEN, SYN_RECV},
    wire::{Accept, kind, owner, role},
};

use crate::{
    emit::emit,
    filter::Subject,
    globals::{accept_args, wants},
    maps::{self, Claim},
    mem,
    owner::current,
    sock::Sock,
};

/// `security_sock_graft(sk, parent)`: accept() ties the new socket to its file, right after
/// `inet_csk_accept` has returned it (`__inet_accept`, net/ipv4/af_inet.c).
///
/// It is hooked rather than `inet_csk_accept` itself, because a hook on that function's return misses the
/// calls that were blocked in it when the trace began, and a kretprobe also all beyond its few instances.
#[fentry(function = "security_sock_graft")]
fn accept_fentry(ctx: FEntryContext) -> i32 {
    accepted(Sock::new(ctx.arg(0)));
    0
}

#[kprobe]
fn accept_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0) {
        accepted(Sock::new(sock));
    }
    0
}

/// `struct sock *inet_csk_accept(..)`, net/ipv4/inet_connection_sock.c, for kernels without
/// CONFIG_SECURITY_NETWORK. The calls that are blocked in it when another tracer comes to that function or goes
/// lose all their fexit programs (`bpf_tramp_image_put()`, kernel/bpf/trampoline.c, 6.1). There is no such
/// kretprobe: it would lose all calls beyond its few instances without a word.
#[fexit(function = "inet_csk_accept")]
fn accept_fexit(ctx: FExitContext) -> i32 {
    accepted(Sock::new(returned(&ctx)));
    0
}

/// The return value follows the arguments in the context (`btf_ctx_access`, kernel/bpf/btf.c, 5.10):
/// `(sk, flags, err, kern)` before Linux 6.10, `(sk, arg)` since. The helper `bpf_get_func_ret` would find it
/// only from 5.17 on. Read through [`mem::probe`], because the verifier permits plain loads from a context
/// only at offsets that are part of the instruction (`check_ctx_reg`, kernel/bpf/verifier.c, 5.10).
#[inline(always)]
fn returned(ctx: &FExitContext) -> u64 {
    let mut value = 0;
    mem::probe(
        ctx.as_ptr() as u64 + 8 * u64::from(accept_args()),
        &raw mut value,
    );
    value
}

/// `sys_exit_accept` and `sys_exit_accept4`: from the new descriptor to its socket.
#[tracepoint]
fn accept_tp(ctx: TracePointContext) -> u32 {
    // struct syscall_trace_exit: struct trace_entry (8 bytes), int nr, long ret (kernel/trace/trace.h).
    const RET: usize = 16;
    // SAFETY: within the context of this tracepoint.
    let fd = unsafe { ctx.as_ptr().add(RET).cast::<i64>().read() };
    if fd >= 0
        && let Some(sock) = Sock::of_descriptor(fd as u64)
    {
        accepted(sock);
    }
    0
}

#[inline(always)]
fn accepted(sock: Sock) {
    if sock.key() == 0 || !sock.is_tcp() {
        return;
    }
    let claim = current(owner::ACCEPT);
    let established_ns = if let Some(conn) = maps::conn(sock) {
        if conn.claim.is_weak() {
            conn.claim = claim;
        }
        // Of a socket that is older than the trace, the time is when that began.
        if conn.partial == 0 {
            conn.established_ns
        } else {
            0
        }
    } else {
        if wants(SESSION | RETRANSMIT) && sock.state() != CLOSE {
            remember_unknown(sock, &claim);
        }
        0
    };
    if wants(ACCEPT) {
        report(sock, &claim, established_ns);
        if !wants(SESSION | RETRANSMIT) {
            maps::forget(sock);
        }
    }
}

/// A session whose birth was not seen: the kernel skipped the program, or it is older than the trace. Or there was
/// no room for it, which its birth or the snapshot has counted. Or Fast Open hands it over before its handshake has
/// ended, which will count it.
#[inline(always)]
fn remember_unknown(sock: Sock, claim: &Claim) {
    let fast_open = sock.state() == SYN_RECV;
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    maps::remember(sock, |conn| {
        conn.claim = *claim;
        conn.role = role::SERVER;
        if !fast_open {
            conn.established_ns = now;
            conn.partial = 1;
        }
    });
}

#[inline(never)]
fn report(sock: Sock, claim: &Claim, established_ns: u64) {
    let subject = Subject::of(sock);
    emit(kind::ACCEPT, &subject, claim, |to: *mut Accept| {
        let (backlog, max_backlog) = backlog(subject.lport);
        // SAFETY: `to` is valid for writes of an `Accept`.
        unsafe {
            (&raw mut (*to).established_ns).write(established_ns);
            (&raw mut (*to).backlog).write(backlog);
            (&raw mut (*to).max_backlog).write(max_backlog);
        }
    });
}

/// The queue of the listener that this thread calls accept() on, now and at most.
///
/// No hook is given the listener, but the call's first argument is still in the registers that the thread
/// came with, also when it was blocked long before the trace. Not so for io_uring.
#[inline(always)]
fn backlog(lport: u16) -> (u32, u32) {
    /// x86_64, arch/x86/entry/syscalls/syscall_64.tbl.
    const ACCEPT: u64 = 43;
    const ACCEPT4: u64 = 288;
    const UNKNOWN: (u32, u32) = (u32::MAX, u32::MAX);
    if !mem::has(offsets::regs_di) || !mem::has(offsets::sk_ack_backlog) {
        return UNKNOWN;
    }
    // SAFETY: the task that runs now; loads are checked.
    let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    if !matches!(mem::read(regs, offsets::regs_orig_ax), ACCEPT | ACCEPT4) {
        return UNKNOWN;
    }
    match Sock::of_descriptor(mem::read(regs, offsets::regs_di)) {
        Some(it) if it.is_tcp() && it.state() == LISTEN && it.lport() == lport => it.backlog(),
        _ => UNKNOWN,
    }
}
