//! Probe point `connect`: the SYN is about to leave, in the caller's context, with the real source port.
//!
//! `state` has remembered the socket and its owner at SYN_SENT. Between that and here lies the choice of a
//! port, which takes long when ports are scarce and is no part of the handshake.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use crate::{maps, sock::Sock};

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
    }
}
