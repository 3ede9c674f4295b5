//! Probe points `retransmit`, `synack` and `loss_probe`: what TCP sends again.
//!
//! All of them run in softirqs: the owner is that of the socket, never the task on the CPU.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe, map, raw_tracepoint},
    maps::PerCpuArray,
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use tcp_ebpf::{
    config::event::RETRANSMIT,
    offsets,
    tcp::{LISTEN, NEW_SYN_RECV},
    wire::{Retransmit, kind, retransmit_flag},
};

use crate::{
    emit::emit,
    filter::Subject,
    globals::{has_retransmit_error, wants},
    maps::{self, Claim},
    mem,
    sock::Sock,
};

/// `trace_tcp_retransmit_skb(sk, skb[, err])`, include/trace/events/tcp.h; before Linux 6.17 it is only reached when the
/// segment was sent. There is no hook on the function: compilers split `__tcp_retransmit_skb`, and callers then bypass
/// its entry; and on entry neither the segment nor its success is decided.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
fn retransmit_raw_tp(ctx: RawTracePointContext) -> i32 {
    let mut error = 0;
    if has_retransmit_error() {
        error = ctx.arg(2);
    }
    retransmitted(Sock::new(ctx.arg(0)), ctx.arg(1), error);
    0
}

#[inline(always)]
fn retransmitted(sock: Sock, skb: u64, error: i32) {
    // include/net/tcp.h
    const TCPCB_LOST: u8 = 0x04;
    if !wants(RETRANSMIT) || !sock.is_tcp() {
        return;
    }
    let cb = mem::address(skb, offsets::skb_cb);
    let mut flags = sock.retransmit_flags();
    if mem::read(cb, offsets::skb_sacked) & TCPCB_LOST != 0 {
        flags |= retransmit_flag::LOST;
    }
    report(
        kind::RETRANSMIT,
        sock,
        &Segment {
            seq: mem::read(cb, offsets::skb_seq),
            length: mem::read(skb, offsets::skb_len),
            segments: mem::read(cb, offsets::skb_gso_segs),
            error: error as i16,
            flags,
        },
    );
}

/// What is sent.
struct Segment {
    seq: u32,
    length: u32,
    segments: u16,
    error: i16,
    flags: u8,
}

/// A call of `tcp_send_loss_probe()`, net/ipv4/tcp_output.c.
#[repr(C)]
struct ProbeCall {
    /// Its argument; 0 outside of the call.
    sock: u64,
    /// `snd_nxt` on entry.
    snd_nxt: u32,
    pad: u32,
}

/// The call under way on each processor. There is one at most: bottom halves are off throughout (v5.8 to v6.18: a timer,
/// or `tcp_release_cb()` under the socket's spinlock), and it does not call itself.
#[map]
static PROBE_CALLS: PerCpuArray<ProbeCall> = PerCpuArray::with_max_entries(1, 0);

#[fentry(function = "tcp_send_loss_probe")]
fn loss_probe_fentry(ctx: FEntryContext) -> i32 {
    probe_begins(ctx.arg(0));
    0
}

#[fexit(function = "tcp_send_loss_probe")]
fn loss_probe_fexit(_: FExitContext) -> i32 {
    probe_ends();
    0
}

#[kprobe]
fn loss_probe_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0) {
        probe_begins(sock);
    }
    0
}

#[kretprobe]
fn loss_probe_kretprobe(_: RetProbeContext) -> u32 {
    probe_ends();
    0
}

#[inline(always)]
fn probe_begins(sock: u64) {
    if let Some(call) = PROBE_CALLS.get_ptr_mut(0) {
        // SAFETY: this processor's slot.
        unsafe {
            (*call).sock = sock;
            (*call).snd_nxt = Sock::new(sock).snd_nxt();
        }
    }
}

/// New data was sent if, and only if, `snd_nxt` has advanced. Of a probe with old data `retransmit` reports.
#[inline(always)]
fn probe_ends() {
    let Some(call) = PROBE_CALLS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this processor's slot.
    let (sock, seq) = unsafe {
        let sock = core::mem::replace(&mut (*call).sock, 0);
        (Sock::new(sock), (*call).snd_nxt)
    };
    if sock.key() == 0 || !sock.is_tcp() || sock.snd_nxt() == seq {
        return;
    }
    let mut length = sock.snd_nxt().wrapping_sub(seq);
    if sock.has_sent_fin() {
        length -= 1;
    }
    report(
        kind::LOSS_PROBE,
        sock,
        &Segment {
            seq,
            length,
            segments: 0,
            error: 0,
            flags: 0,
        },
    );
}

#[inline(never)]
fn report(kind: u8, sock: Sock, segment: &Segment) {
    let claim = claim_of(sock);
    emit(kind, &Subject::of(sock), &claim, |to: *mut Retransmit| {
        // SAFETY: `to` is valid for writes of a `Retransmit`.
        unsafe {
            (&raw mut (*to).seq).write(segment.seq);
            (&raw mut (*to).length).write(segment.length);
            (&raw mut (*to).srtt_us8).write(sock.srtt_us8());
            (&raw mut (*to).cwnd).write(sock.cwnd());
            (&raw mut (*to).nth).write(sock.retransmits());
            (&raw mut (*to).state).write(sock.state());
            (&raw mut (*to).ca_state).write(sock.ca_state());
            (&raw mut (*to).timer).write(sock.pending_timer());
            (&raw mut (*to).flags).write(segment.flags);
            (&raw mut (*to).error).write(segment.error);
            (&raw mut (*to).segments).write(segment.segments);
            (&raw mut (*to).pad).write(0);
        }
    });
}

/// `trace_tcp_retransmit_synack(sk, req)`, include/trace/events/tcp.h: `req` begins with a
/// `struct sock_common` that knows the addresses, `sk` is the listener, or with Fast Open the child.
#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
fn synack_raw_tp(ctx: RawTracePointContext) -> i32 {
    let (listener, request) = (Sock::new(ctx.arg(0)), Sock::new(ctx.arg(1)));
    if !wants(RETRANSMIT) || !listener.is_tcp() {
        return 0;
    }
    let claim = claim_of(listener);
    let subject = Subject::of_common(request);
    let flags = synack_flags(listener, request);
    emit(kind::SYNACK, &subject, &claim, |to: *mut Retransmit| {
        // SAFETY: `to` is valid for writes of a `Retransmit`.
        unsafe {
            (&raw mut (*to).seq).write(0);
            (&raw mut (*to).length).write(0);
            (&raw mut (*to).srtt_us8).write(0);
            (&raw mut (*to).cwnd).write(0);
            (&raw mut (*to).nth).write(0);
            (&raw mut (*to).state).write(NEW_SYN_RECV);
            (&raw mut (*to).ca_state).write(0);
            (&raw mut (*to).timer).write(0);
            (&raw mut (*to).flags).write(flags);
            (&raw mut (*to).error).write(0);
            (&raw mut (*to).segments).write(1);
            (&raw mut (*to).pad).write(0);
        }
    });
    0
}

/// Whether the timer runs that sends a SYN-ACK again, or the client's SYN has come again (`tcp_check_req()`,
/// net/ipv4/tcp_minisocks.c). A timer is detached while its function runs (`expire_timers()`, kernel/time/timer.c, v5.8 to
/// v6.18), and `reqsk_timer_handler()` sets it again only after sending. A child of Fast Open has the timer of a socket,
/// and `tcp_write_timer_handler()` clears `icsk_pending` first.
#[inline(always)]
fn synack_flags(listener: Sock, request: Sock) -> u8 {
    let (is_known, is_timer) = if listener.state() == LISTEN {
        (
            mem::has(offsets::req_timer_pprev),
            mem::read(request.key(), offsets::req_timer_pprev) == 0,
        )
    } else {
        (
            mem::has(offsets::icsk_pending),
            listener.pending_timer() == 0,
        )
    };
    match (is_known, is_timer) {
        (true, true) => retransmit_flag::KNOWN | retransmit_flag::TIMER,
        (true, false) => retransmit_flag::KNOWN,
        (false, _) => 0,
    }
}

#[inline(always)]
fn claim_of(sock: Sock) -> Claim {
    maps::conn(sock).map_or_else(Claim::default, |conn| conn.claim)
}
