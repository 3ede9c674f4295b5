//! Probe point `connect`: active opens, in the caller's context.
//!
//! `state` remembers the socket and its owner at SYN_SENT. The SYN leaves a little later, when the port is
//! chosen; where no function can be hooked, the next change of state tells that it has left.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated::bpf_probe_read_user},
    macros::{fentry, kprobe, tracepoint},
    programs::{FEntryContext, ProbeContext, TracePointContext},
};
use tcp_ebpf::{
    config::event::{ATTEMPT, OUTCOME, RETRANSMIT, SESSION},
    tcp::{AF_INET, AF_INET6},
    wire::{Connect, connect_flag, kind, owner, role},
};

use crate::{
    emit::emit,
    filter::Subject,
    globals::wants,
    maps::{self, Call, Claim, Conn},
    owner::{current, is_exiting},
    sock::Sock,
};

/// `tcp_connect(sk)`, net/ipv4/tcp_output.c.
#[fentry(function = "tcp_connect")]
fn connect_fentry(ctx: FEntryContext) -> i32 {
    syn_leaves(Sock::new(ctx.arg(0)));
    0
}

#[kprobe]
fn connect_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0) {
        syn_leaves(Sock::new(sock));
    }
    0
}

#[inline(always)]
fn syn_leaves(sock: Sock) {
    if let Some(conn) = maps::conn(sock) {
        // SAFETY: no preconditions.
        conn.syn_ns = unsafe { bpf_ktime_get_ns() };
        conn.connect_flags |= flags(sock);
        attempt(sock, conn);
    }
}

/// What [`connect_flag`] marks.
#[inline(always)]
pub(crate) fn flags(sock: Sock) -> u8 {
    if !wants(ATTEMPT | OUTCOME) {
        return 0;
    }
    let fast_open = if sock.is_fast_open() {
        connect_flag::FAST_OPEN
    } else {
        0
    };
    let mptcp = if sock.is_mptcp() {
        connect_flag::MPTCP
    } else {
        0
    };
    fast_open | mptcp
}

/// Reports once that an attempt is made.
#[inline(always)]
pub(crate) fn attempt(sock: Sock, conn: &mut Conn) {
    if wants(ATTEMPT) && conn.attempted == 0 {
        conn.attempted = 1;
        report(kind::ATTEMPT, sock, conn, false);
    }
}

/// An attempt has succeeded, or the socket was closed before that.
#[inline(always)]
pub(crate) fn ended(sock: Sock, conn: &mut Conn, established: bool) {
    if !wants(ATTEMPT | OUTCOME) {
        return;
    }
    // A SYN that was sent is not acknowledged yet, at CLOSE either.
    let syn_sent = established || sock.unacked() != 0;
    if syn_sent {
        attempt(sock, conn);
    }
    if wants(OUTCOME) {
        if syn_sent || sock.error() != 0 {
            report(kind::OUTCOME, sock, conn, established);
        } else {
            // No port, no route: only the call's result will tell.
            under_way(false);
        }
    }
    if !wants(SESSION | RETRANSMIT) {
        maps::forget(sock);
    }
}

#[inline(never)]
fn report(kind: u8, sock: Sock, conn: &Conn, established: bool) {
    emit(kind, &Subject::of(sock), &conn.claim, |to| {
        fill(to, sock, conn, established)
    });
}

/// Writes all but the head.
#[inline(always)]
pub(crate) fn fill(to: *mut Connect, sock: Sock, conn: &Conn, established: bool) {
    // Fast Open may have put the SYN off, until there was data.
    let mut flags = conn.connect_flags | flags(sock);
    let mut error = 0;
    if !established {
        let (errno, ending) = ending(sock, conn);
        error = errno;
        flags |= ending;
    }
    put(
        to,
        conn.syn_ns,
        error,
        established,
        flags,
        sock.retransmits(),
    );
}

/// Why an attempt ends without a connection: the errno, and bits of [`connect_flag`].
///
/// An error that closes the socket is in `sk_err` by then (`tcp_reset`, `tcp_write_err`, `tcp_v4_err`, `tcp_v6_err`,
/// v6.1 to v6.18). Without one it is the owner who closes it, and this is the owner's thread.
#[inline(always)]
fn ending(sock: Sock, conn: &Conn) -> (u16, u8) {
    let mut flags = 0;
    if sock.segments_received() != conn.segments_before {
        flags |= connect_flag::ANSWERED;
    }
    let error = sock.error();
    if error != 0 {
        return (error, flags);
    }
    if is_exiting() {
        flags |= connect_flag::EXITED;
    }
    // One that an earlier attempt left behind says nothing of this one.
    let soft = sock.soft_error();
    if soft == conn.soft_before {
        return (0, flags);
    }
    (soft, flags | connect_flag::SOFT)
}

#[inline(always)]
fn put(to: *mut Connect, syn_ns: u64, error: u16, established: bool, flags: u8, retransmits: u32) {
    // SAFETY: `to` is valid for writes of a `Connect`.
    unsafe {
        (&raw mut (*to).syn_ns).write(syn_ns);
        (&raw mut (*to).error).write(error);
        (&raw mut (*to).established).write(established as u8);
        (&raw mut (*to).flags).write(flags);
        (&raw mut (*to).retransmits).write(retransmits);
    }
}

/// `sys_enter_connect`: an attempt may fail before the socket changes its state.
#[tracepoint]
fn connect_enter_tp(ctx: TracePointContext) -> u32 {
    // struct syscall_trace_enter: struct trace_entry (8 bytes), int nr, padding, unsigned long args[]
    // (kernel/trace/trace.h).
    const FD: usize = 16;
    const ADDRESS: usize = 24;
    // SAFETY: within the context of this tracepoint.
    let (fd, address) = unsafe {
        (
            ctx.as_ptr().add(FD).cast::<u64>().read(),
            ctx.as_ptr().add(ADDRESS).cast::<u64>().read(),
        )
    };
    if let Some(sock) = Sock::of_descriptor(fd)
        && sock.is_tcp()
    {
        // SAFETY: no preconditions.
        let since_ns = unsafe { bpf_ktime_get_ns() };
        let call = Call {
            sock: sock.key(),
            address,
            since_ns,
            under_way: 0,
            waits: Sock::is_blocking_descriptor(fd) as u64,
        };
        maps::begin_call(bpf_get_current_pid_tgid(), &call);
    }
    0
}

/// The connect() that this thread is in, if any, has got as far as the socket's state, or fallen back.
#[inline(always)]
pub(crate) fn under_way(is: bool) {
    if wants(OUTCOME)
        && let Some(call) = maps::call(bpf_get_current_pid_tgid())
    {
        call.under_way = is as u64;
    }
}

/// `sys_exit_connect`
#[tracepoint]
fn connect_exit_tp(ctx: TracePointContext) -> u32 {
    // struct syscall_trace_exit: struct trace_entry (8 bytes), int nr, long ret (kernel/trace/trace.h).
    const RET: usize = 16;
    let thread = bpf_get_current_pid_tgid();
    let Some(call) = maps::call(thread) else {
        return 0;
    };
    // SAFETY: within the context of this tracepoint.
    let ret = unsafe { ctx.as_ptr().add(RET).cast::<i64>().read() };
    if call.under_way == 0 && is_failed_attempt(ret) {
        failed(call, -ret as u16);
    }
    if call.waits != 0 && matches!(ret, EINPROGRESS | EALREADY) {
        timed_out(Sock::new(call.sock));
    }
    maps::end_call(thread);
    0
}

/// A call that waits returns so when the time of SO_SNDTIMEO is over (`__inet_stream_connect`, net/ipv4/af_inet.c,
/// v6.1 to v6.18); the attempt goes on.
#[inline(always)]
fn timed_out(sock: Sock) {
    if let Some(conn) = maps::conn(sock)
        && conn.role == role::CLIENT
        && conn.established_ns == 0
    {
        conn.connect_flags |= connect_flag::TIMED_OUT;
    }
}

const EALREADY: i64 = -114;
const EINPROGRESS: i64 = -115;

/// Errors of an attempt, not of the call: its arguments, an attempt that goes on, a signal.
#[inline(always)]
fn is_failed_attempt(ret: i64) -> bool {
    const EINTR: i64 = -4;
    const EBADF: i64 = -9;
    const EFAULT: i64 = -14;
    const EINVAL: i64 = -22;
    const EDESTADDRREQ: i64 = -89;
    const EAFNOSUPPORT: i64 = -97;
    const EISCONN: i64 = -106;
    /// `ERESTARTSYS` and its like, include/linux/errno.h.
    const FIRST_INTERNAL: i64 = -512;
    ret < 0
        && ret > FIRST_INTERNAL
        && !matches!(
            ret,
            EINTR
                | EBADF
                | EFAULT
                | EINVAL
                | EDESTADDRREQ
                | EAFNOSUPPORT
                | EISCONN
                | EALREADY
                | EINPROGRESS
        )
}

/// `struct sockaddr_in6`; `struct sockaddr_in` is shorter and has its address where the flow label is.
#[repr(C)]
#[derive(Clone, Copy)]
struct Address {
    family: u16,
    port: u16,
    v4: u32,
    v6: [u64; 2],
}

/// The socket does not know where it should have gone, but its caller does.
#[inline(always)]
fn failed(call: &Call, error: u16) {
    let sock = Sock::new(call.sock);
    let mut address = Address {
        family: 0,
        port: 0,
        v4: 0,
        v6: [0; 2],
    };
    // SAFETY: writes no more than the size given; the helper checks the source. Where there is only a
    // sockaddr_in, the bytes behind it do not matter, and if they cannot be read it is retried without.
    let failed = unsafe {
        bpf_probe_read_user(
            (&raw mut address).cast(),
            size_of::<Address>() as u32,
            call.address as *const _,
        ) != 0
            && bpf_probe_read_user((&raw mut address).cast(), 8, call.address as *const _) != 0
    };
    if failed {
        return;
    }
    let mut subject = Subject::of(sock);
    subject.rport = u16::from_be(address.port);
    match address.family {
        AF_INET => {
            subject.family = AF_INET;
            subject.raddr = [u64::from(address.v4), 0];
            subject.laddr = [subject.laddr[0] & 0xffff_ffff, 0];
        }
        AF_INET6 => subject.raddr = address.v6,
        _ => return,
    }
    let claim: Claim = current(owner::CONNECT);
    let flags = flags(sock) | connect_flag::NO_SYN;
    emit(kind::OUTCOME, &subject, &claim, |to| {
        put(to, call.since_ns, error, false, flags, 0);
    });
}
