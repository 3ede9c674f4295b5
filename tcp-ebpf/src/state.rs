//! Probe point `state`: every change of a TCP socket's state.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::{
    macro_support::{Level, level_enabled},
    trace,
};
use tcp_ebpf::{
    config::event::{ACCEPT, ATTEMPT, OUTCOME, RESET, RETRANSMIT, SESSION},
    tcp::{CLOSE, ESTABLISHED, FIN_WAIT1, LISTEN, SYN_RECV, SYN_SENT, State},
    wire::{counter, owner, role},
};

use crate::{
    connect,
    globals::{config, count, wants},
    maps::{self, Conn},
    owner::current,
    session,
    sock::Sock,
};

/// `trace_inet_sock_set_state(sk, oldstate, newstate)`, include/trace/events/sock.h.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn state_raw_tp(ctx: RawTracePointContext) -> i32 {
    let (old, new) = states(&ctx);
    changed(Sock::new(ctx.arg(0)), old, new, true);
    0
}

/// `tcp_set_state(sk, state)`, net/ipv4/tcp.c. It misses the changes to LISTEN and from there.
#[fentry(function = "tcp_set_state")]
fn state_fentry(ctx: FEntryContext) -> i32 {
    let sock = Sock::new(ctx.arg(0));
    changed(sock, sock.state(), ctx.arg::<u32>(1) as State, true);
    0
}

#[kprobe]
fn state_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sock), Some(new)) = (ctx.arg(0), ctx.arg::<u32>(1)) {
        let sock = Sock::new(sock);
        changed(sock, sock.state(), new as State, true);
    }
    0
}

/// Makes up for what the kernel skips: it does not run a program that is busy on that processor already,
/// because an interrupt or another task came in between (`recursion_misses`, Linux 5.12; for kprobes any
/// other program is enough). This one comes after the programs above, and looks whether they were there.
///
/// It must not call one of those instead: it would write over what the busy one has on its stack. Programs that
/// the kernel does not run while they are busy may have one stack per processor since Linux 6.13
/// (`bpf_enable_priv_stack`, kernel/bpf/verifier.c).
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn state_again_raw_tp(ctx: RawTracePointContext) -> i32 {
    let (old, new) = states(&ctx);
    let sock = Sock::new(ctx.arg(0));
    if !is_done(sock, old, new) {
        changed(sock, old, new, false);
        // No program looks after this one.
        maps::was_left_out(sock);
    }
    0
}

/// Whether this ends a session that is reported.
#[inline(always)]
fn is_end(old: State, new: State) -> bool {
    wants(SESSION) && new == CLOSE && !matches!(old, LISTEN | CLOSE)
}

#[inline(always)]
fn states(ctx: &RawTracePointContext) -> (State, State) {
    (ctx.arg::<u32>(1) as State, ctx.arg::<u32>(2) as State)
}

/// Whether what is remembered of the socket is as [`changed`] leaves it.
#[inline(always)]
fn is_done(sock: Sock, old: State, new: State) -> bool {
    // What does not fit is not tried, or counted, twice.
    let is_left_out = |who| !wants(who) || maps::is_elsewhere(sock) || maps::was_left_out(sock);
    match (old, new) {
        (LISTEN | CLOSE, CLOSE) => true,
        _ if is_end(old, new) => maps::is_elsewhere(sock) || maps::take_end(sock),
        (_, CLOSE) => maps::conn(sock).is_none(),
        (_, SYN_SENT) => maps::conn(sock).is_some() || is_left_out(CLIENTS),
        (SYN_RECV, ESTABLISHED) => {
            maps::conn(sock).is_some_and(|conn| conn.established_ns != 0) || is_left_out(SERVERS)
        }
        (_, ESTABLISHED) => maps::conn(sock).is_none_or(|conn| conn.established_ns != 0),
        (SYN_RECV, _) => maps::conn(sock).is_some() || is_left_out(SERVERS),
        _ => true,
    }
}

/// Records that sockets are remembered for that connect.
const CLIENTS: u32 = SESSION | ATTEMPT | OUTCOME | RETRANSMIT;
/// Likewise for those that listeners make.
const SERVERS: u32 = SESSION | ACCEPT | RETRANSMIT;

#[inline(always)]
fn changed(sock: Sock, old: State, new: State, is_first: bool) {
    if level_enabled(Level::Trace) {
        log_change(sock, old, new);
    }
    match (old, new) {
        (_, SYN_SENT) => opened(sock),
        (LISTEN, CLOSE) if wants(RETRANSMIT) => maps::forget(sock),
        (LISTEN | CLOSE, CLOSE) => {}
        (_, CLOSE) => closed(sock, old, is_first),
        (_, ESTABLISHED) => established(sock, old),
        // A Fast Open server may be closed before the handshake has ended.
        (SYN_RECV, _) if maps::conn(sock).is_none() => remember_server(sock, 0),
        (_, FIN_WAIT1) if wants(RESET) => finishing(sock),
        _ => {}
    }
}

/// Out of line: aya-log's code is long, and nobody listens most of the time.
#[inline(never)]
fn log_change(sock: Sock, old: State, new: State) {
    trace!(
        (),
        "protocol {}, local port {}, remote port {}: state {} to {}",
        sock.protocol(),
        sock.lport(),
        sock.common().rport(),
        old,
        new
    );
}

/// In connect(), and so in the caller's context on every tier. The port is not chosen yet.
#[inline(always)]
fn opened(sock: Sock) {
    if !wants(CLIENTS) || !sock.is_tcp() {
        return;
    }
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    born(sock, |conn| {
        conn.opened_ns = now;
        conn.syn_ns = now;
        conn.claim = current(owner::CONNECT);
        conn.role = role::CLIENT;
        conn.connect_flags = connect::flags(sock);
        if wants(OUTCOME) {
            conn.segments_before = sock.segments_received();
            conn.soft_before = sock.soft_error();
        }
    });
    connect::under_way(true);
}

/// Only where somebody asks whose listener it is: a function hook on `tcp_set_state` does not see this.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn listen_raw_tp(ctx: RawTracePointContext) -> i32 {
    let sock = Sock::new(ctx.arg(0));
    // In listen(): its SYN-ACKs are sent again on behalf of this process.
    if ctx.arg::<u32>(2) as State == LISTEN && sock.is_tcp() {
        let fits = maps::remember(sock, |conn| conn.claim = current(owner::FD));
        if !fits {
            count(counter::MAP_FULL);
        }
    }
    0
}

#[inline(always)]
fn established(sock: Sock, old: State) {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    match maps::conn(sock) {
        // An entry that is established already is a stranger's, left at this address.
        Some(conn) if conn.established_ns == 0 => {
            conn.established_ns = now;
            if conn.role == role::CLIENT {
                connect::ended(sock, conn, true);
            }
        }
        _ if old == SYN_RECV => remember_server(sock, now),
        _ => {}
    }
}

/// A listener's child, most often in a softirq: accept() will tell whose it is.
#[inline(always)]
fn remember_server(sock: Sock, established_ns: u64) {
    if !wants(SERVERS) || !sock.is_tcp() {
        return;
    }
    born(sock, |conn| {
        conn.established_ns = established_ns;
        // The only sample so far is SYN-ACK to ACK (tcp_check_req() calls tcp_synack_rtt_meas(),
        // net/ipv4/tcp_minisocks.c).
        conn.handshake_us8 = sock.srtt_us8();
        conn.role = role::SERVER;
    });
}

/// From now on data may be answered with a RST. Where this was missed, all data counts.
#[inline(always)]
fn finishing(sock: Sock) {
    if let Some(conn) = maps::conn(sock) {
        conn.segments_before = sock.data_segments();
    }
}

/// Remembers a socket from its first state on.
#[inline(always)]
fn born(sock: Sock, fill: impl FnOnce(&mut Conn)) {
    if !maps::remember(sock, fill) {
        maps::leave_out(sock);
    }
}

/// Where ends are reported, the first of the two programs leaves a mark for the second one, which then forgets the socket.
#[inline(always)]
fn closed(sock: Sock, old: State, is_first: bool) {
    let leaves_mark = is_first && wants(SESSION);
    if let Some(conn) = maps::conn(sock) {
        if conn.role == role::CLIENT && conn.established_ns == 0 {
            match old {
                SYN_SENT | SYN_RECV => connect::ended(sock, conn, false),
                _ => count(counter::UNSEEN),
            }
        }
        if wants(SESSION) && (conn.partial == 0 || config!(new_only) == 0) {
            session::ended(sock, old, conn);
        }
        if leaves_mark {
            conn.ended = 1;
        } else {
            maps::forget(sock);
        }
        return;
    }
    if !sock.is_tcp() {
        return;
    }
    if maps::is_elsewhere(sock) {
        return count(counter::FILTERED);
    }
    // Without room for the mark, this is left to the second one.
    if leaves_mark && !maps::mark_closed(sock) {
        return;
    }
    // Made and thrown away by the listener, or not seen when it was opened.
    let never_established = old == SYN_RECV;
    if wants(SESSION) && (never_established || config!(new_only) == 0) {
        let mut blank = MaybeUninit::uninit();
        let conn = Conn::blank(&mut blank, |conn| {
            if never_established {
                conn.role = role::SERVER;
            } else {
                conn.partial = 1;
            }
        });
        session::ended(sock, old, conn);
    }
}
