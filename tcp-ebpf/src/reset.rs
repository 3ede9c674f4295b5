//! Probe point `reset`: a socket sends a RST.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use tcp_ebpf::{
    tcp::{CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK},
    wire::{Reset, counter, kind},
};

use crate::{
    globals::count,
    maps::{self, EVENTS},
    sock::Sock,
};

/// `trace_tcp_send_reset(sk, skb, ..)`, include/trace/events/tcp.h. `skb` is the segment that the RST answers, or
/// null. Since v6.10 `sk` may be null (no socket), a request or in TIME_WAIT; the latter two are in none of the
/// states below.
///
/// A RST before CLOSE ends the session, except in SYN_SENT, SYN_RECV and LISTEN, where it may answer a segment that
/// is not of the connection (tcp_rcv_state_process(), net/ipv4/tcp_input.c, v6.1 to v6.18).
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
fn reset_raw_tp(ctx: RawTracePointContext) -> i32 {
    let (sock, segment) = (Sock::new(ctx.arg(0)), ctx.arg::<u64>(1));
    if sock.key() == 0 {
        return 0;
    }
    match sock.state() {
        ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT | LAST_ACK | CLOSING => {
            if let Some(conn) = maps::conn(sock) {
                conn.reset = 1;
            }
        }
        // In close() of a socket that a process still holds, the state before CLOSE has said that a RST follows.
        CLOSE if (segment != 0 || sock.is_orphaned()) && sock.is_tcp() => report(sock),
        _ => {}
    }
    0
}

/// The session has been reported, and what was remembered of it is gone, its owner included: filters have decided
/// then, and user space knows which sessions it waits for.
#[inline(always)]
fn report(sock: Sock) {
    let Some(mut entry) = EVENTS.reserve::<Reset>(0) else {
        count(counter::RING_FULL);
        return;
    };
    entry.write(Reset {
        kind: kind::RESET,
        pad8: 0,
        lport: sock.lport(),
        rport: sock.rport(),
        pad16: 0,
        id: sock.key(),
        // SAFETY: no preconditions.
        ts_ns: unsafe { bpf_ktime_get_ns() },
    });
    entry.submit(0);
    count(counter::SUBMITTED);
}
