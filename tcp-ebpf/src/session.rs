//! The record of a session.

use tcp_ebpf::{
    config::event::RESET,
    tcp::State,
    wire::{Progress, Session, flag, kind, role},
};

use crate::{emit::emit, filter::Subject, globals::wants, maps::Conn, sock::Sock};

/// Reports a session that has ended; `state` is its last one before CLOSE.
#[inline(never)]
pub(crate) fn ended(sock: Sock, state: State, conn: &Conn) {
    emit(kind::SESSION, &Subject::of(sock), &conn.claim, |to| {
        let mut now = sock.progress(state);
        if wants(RESET) {
            now.flags |= sock.end_flags(&now, conn.segments_before);
            if conn.reset != 0 {
                now.flags |= flag::RST_SENT;
            }
        }
        fill(to, sock, now, conn)
    });
}

/// Writes all but the head.
#[inline(always)]
pub(crate) fn fill(to: *mut Session, sock: Sock, now: Progress, conn: &Conn) {
    let (bytes_sent, bytes_retrans, unacked) = if conn.role == role::UNKNOWN {
        (sock.bytes_sent(), sock.bytes_retrans(), sock.unacked())
    } else {
        (0, 0, 0)
    };
    // SAFETY: `to` is valid for writes of a `Session`: reserved in the ring, or on the stack.
    unsafe {
        (&raw mut (*to).id).write(sock.key());
        (&raw mut (*to).opened_ns).write(conn.opened_ns);
        (&raw mut (*to).syn_ns).write(conn.syn_ns);
        (&raw mut (*to).established_ns).write(conn.established_ns);
        (&raw mut (*to).now).write(now);
        (&raw mut (*to).base).write(conn.base);
        (&raw mut (*to).bytes_sent).write(bytes_sent);
        (&raw mut (*to).bytes_retrans).write(bytes_retrans);
        (&raw mut (*to).unacked).write(unacked);
        (&raw mut (*to).srtt_us8).write(sock.srtt_us8());
        (&raw mut (*to).handshake_us8).write(conn.handshake_us8);
        (&raw mut (*to).min_rtt_us).write(sock.min_rtt_us());
        (&raw mut (*to).holders).write(conn.holders);
        (&raw mut (*to).error).write(sock.error());
        (&raw mut (*to).role).write(conn.role);
        (&raw mut (*to).partial).write(conn.partial);
    }
}
