//! Probe point `state`: every change of a TCP socket's state.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::trace;
use tcp_ebpf::{
    tcp::{CLOSE, ESTABLISHED, LISTEN, SYN_RECV, SYN_SENT, State},
    wire::{owner, role},
};

use crate::{
    maps::{self, Conn, config},
    owner::current,
    session,
    sock::Sock,
};

/// `trace_inet_sock_set_state(sk, oldstate, newstate)`, include/trace/events/sock.h.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn state_raw_tp(ctx: RawTracePointContext) -> i32 {
    changed(
        Sock::new(ctx.arg(0)),
        ctx.arg::<u32>(1) as State,
        ctx.arg::<u32>(2) as State,
    );
    0
}

/// `tcp_set_state(sk, state)`, net/ipv4/tcp.c. It misses LISTEN to SYN_RECV, which nobody needs.
#[fentry(function = "tcp_set_state")]
fn state_fentry(ctx: FEntryContext) -> i32 {
    let sock = Sock::new(ctx.arg(0));
    changed(sock, sock.state(), ctx.arg::<u32>(1) as State);
    0
}

#[kprobe]
fn state_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sock), Some(new)) = (ctx.arg(0), ctx.arg::<u32>(1)) {
        let sock = Sock::new(sock);
        changed(sock, sock.state(), new as State);
    }
    0
}

#[inline(always)]
fn changed(sock: Sock, old: State, new: State) {
    if !sock.is_tcp() {
        return;
    }
    trace!((), "socket {:x}: state {} to {}", sock.key(), old, new);
    match (old, new) {
        (_, SYN_SENT) => opened(sock),
        (LISTEN | CLOSE, CLOSE) => {}
        (_, CLOSE) => closed(sock, old),
        (_, ESTABLISHED) => established(sock, old),
        // A Fast Open server may be closed before the handshake has ended.
        (SYN_RECV, _) if maps::conn(sock).is_none() => remember_server(sock, 0),
        _ => {}
    }
}

/// In connect(), and so in the caller's context on every tier. The port is not chosen yet.
#[inline(always)]
fn opened(sock: Sock) {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    maps::remember(
        sock,
        &Conn {
            opened_ns: now,
            syn_ns: now,
            owner: current(),
            owner_by: owner::CONNECT,
            role: role::CLIENT,
            ..Conn::default()
        },
    );
}

#[inline(always)]
fn established(sock: Sock, old: State) {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    match maps::conn(sock) {
        // An entry that is established already is a stranger's, left at this address.
        Some(conn) if conn.established_ns == 0 => conn.established_ns = now,
        _ if old == SYN_RECV => remember_server(sock, now),
        _ => {}
    }
}

/// A listener's child, most often in a softirq: accept() will tell whose it is.
#[inline(always)]
fn remember_server(sock: Sock, established_ns: u64) {
    maps::remember(
        sock,
        &Conn {
            established_ns,
            // The only sample so far is SYN-ACK to ACK (tcp_check_req() calls tcp_synack_rtt_meas(),
            // net/ipv4/tcp_minisocks.c).
            handshake_us8: sock.srtt_us8(),
            role: role::SERVER,
            ..Conn::default()
        },
    );
}

#[inline(always)]
fn closed(sock: Sock, old: State) {
    if let Some(conn) = maps::conn(sock) {
        session::emit(sock, old, conn);
        maps::forget(sock);
    } else if old == SYN_RECV {
        // Made and thrown away by the listener; its birth is this moment.
        session::emit(
            sock,
            old,
            &Conn {
                role: role::SERVER,
                ..Conn::default()
            },
        );
    } else if config!(new_only) == 0 {
        session::emit(
            sock,
            old,
            &Conn {
                partial: 1,
                ..Conn::default()
            },
        );
    }
}
