//! Probe points `retransmit`, `synack` and `loss_probe`: what TCP sends again.
//!
//! All of them run in softirqs: the owner is that of the socket, never the task on the CPU.

use aya_ebpf::{
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use tcp_ebpf::{
    config::event::RETRANSMIT,
    offsets,
    tcp::NEW_SYN_RECV,
    wire::{Retransmit, kind},
};

use crate::{
    emit::emit,
    filter::Subject,
    globals::wants,
    maps::{self, Claim},
    mem,
    sock::Sock,
};

/// `trace_tcp_retransmit_skb(sk, skb, ..)`, include/trace/events/tcp.h. There is no hook on the function:
/// compilers split `__tcp_retransmit_skb`, and callers then pass its entry by; and on entry neither the
/// segment nor its success is decided.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
fn retransmit_raw_tp(ctx: RawTracePointContext) -> i32 {
    retransmitted(Sock::new(ctx.arg(0)), ctx.arg(1));
    0
}

#[inline(always)]
fn retransmitted(sock: Sock, skb: u64) {
    if !wants(RETRANSMIT) || !sock.is_tcp() {
        return;
    }
    let cb = mem::address(skb, offsets::skb_cb);
    report(
        kind::RETRANSMIT,
        sock,
        mem::read(cb, offsets::skb_seq),
        mem::read(skb, offsets::skb_len),
    );
}

/// `tcp_send_loss_probe(sk)`, net/ipv4/tcp_output.c.
#[fentry(function = "tcp_send_loss_probe")]
fn loss_probe_fentry(ctx: FEntryContext) -> i32 {
    probed(Sock::new(ctx.arg(0)));
    0
}

#[kprobe]
fn loss_probe_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0) {
        probed(Sock::new(sock));
    }
    0
}

/// With nothing new to send it will send old data, and `retransmit` tells of that.
#[inline(always)]
fn probed(sock: Sock) {
    if sock.is_tcp() && sock.has_unsent() {
        report(kind::LOSS_PROBE, sock, sock.snd_nxt(), 0);
    }
}

#[inline(never)]
fn report(kind: u8, sock: Sock, seq: u32, length: u32) {
    let claim = claim_of(sock);
    emit(kind, &Subject::of(sock), &claim, |to: *mut Retransmit| {
        // SAFETY: `to` is valid for writes of a `Retransmit`.
        unsafe {
            (&raw mut (*to).seq).write(seq);
            (&raw mut (*to).length).write(length);
            (&raw mut (*to).srtt_us8).write(sock.srtt_us8());
            (&raw mut (*to).cwnd).write(sock.cwnd());
            (&raw mut (*to).nth).write(sock.retransmits());
            (&raw mut (*to).state).write(sock.state());
            (&raw mut (*to).ca_state).write(sock.ca_state());
            (&raw mut (*to).timer).write(sock.pending_timer());
            (&raw mut (*to).pad).write(0);
        }
    });
}

/// `trace_tcp_retransmit_synack(sk, req)`, include/trace/events/tcp.h: `req` begins with a
/// `struct sock_common` that knows the addresses, `sk` is the listener.
#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
fn synack_raw_tp(ctx: RawTracePointContext) -> i32 {
    let (listener, request) = (Sock::new(ctx.arg(0)), Sock::new(ctx.arg(1)));
    if !wants(RETRANSMIT) || !listener.is_tcp() {
        return 0;
    }
    let claim = claim_of(listener);
    let subject = Subject::of_common(request);
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
            (&raw mut (*to).pad).write(0);
        }
    });
    0
}

#[inline(always)]
fn claim_of(sock: Sock) -> Claim {
    maps::conn(sock).map_or_else(Claim::default, |conn| conn.claim)
}
