//! Writes the record of a session.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcp_ebpf::{
    tcp::State,
    wire::{Session, counter, kind},
};

use crate::{
    filter::Subject,
    maps::{self, Conn, EVENTS},
    sock::Sock,
};

/// Hands a session that has ended to user space, if it is wanted; `state` is its last one before CLOSE.
#[inline(always)]
pub(crate) fn emit(sock: Sock, state: State, conn: &Conn) {
    let subject = Subject::new(sock, conn.owner.pid);
    if !subject.is_wanted() {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Session>(0) else {
        maps::count(counter::RING_FULL);
        return;
    };
    fill(entry.as_mut_ptr(), kind::SESSION, &subject, state, conn);
    entry.submit(0);
    maps::count(counter::SUBMITTED);
}

/// Field by field, so that nothing is built on the stack and copied.
#[inline(always)]
pub(crate) fn fill(to: *mut Session, kind: u8, subject: &Subject, state: State, conn: &Conn) {
    let sock = subject.sock;
    // SAFETY: `to` is valid for writes of a `Session`: reserved in the ring, or on the stack.
    unsafe {
        (&raw mut (*to).kind).write(kind);
        (&raw mut (*to).owner_by).write(conn.owner_by);
        (&raw mut (*to).role).write(conn.role);
        (&raw mut (*to).partial).write(conn.partial);
        (&raw mut (*to).family).write(subject.family);
        (&raw mut (*to).lport).write(subject.lport);
        (&raw mut (*to).rport).write(subject.rport);
        (&raw mut (*to).error).write(sock.error());
        (&raw mut (*to).netns).write(subject.netns);
        sock.addresses(subject.family, &raw mut (*to).laddr, &raw mut (*to).raddr);
        (&raw mut (*to).ts_ns).write(bpf_ktime_get_ns());
        (&raw mut (*to).opened_ns).write(conn.opened_ns);
        (&raw mut (*to).syn_ns).write(conn.syn_ns);
        (&raw mut (*to).established_ns).write(conn.established_ns);
        (&raw mut (*to).owner).write(conn.owner);
        (&raw mut (*to).now).write(sock.progress(state));
        (&raw mut (*to).base).write(conn.base);
        (&raw mut (*to).bytes_sent).write(sock.bytes_sent());
        (&raw mut (*to).bytes_retrans).write(sock.bytes_retrans());
        (&raw mut (*to).unacked).write(sock.unacked());
        (&raw mut (*to).srtt_us8).write(sock.srtt_us8());
        (&raw mut (*to).handshake_us8).write(conn.handshake_us8);
        (&raw mut (*to).min_rtt_us).write(sock.min_rtt_us());
        (&raw mut (*to).retransmits).write(sock.retransmits());
        (&raw mut (*to).pad).write(0);
    }
}
