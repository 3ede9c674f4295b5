//! A RST that a socket sends after it was closed.

use tcp_ebpf::wire;

/// It belongs to the session that was reported last for this socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// When it was sent: `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// As [`SocketId::address`](super::SocketId::address).
    pub address: u64,
    /// Local port.
    pub lport: u16,
    /// Remote port.
    pub rport: u16,
}

impl Reset {
    pub(super) fn new(record: &wire::Reset) -> Self {
        Self {
            ts_ns: record.ts_ns,
            address: record.id,
            lport: record.lport,
            rport: record.rport,
        }
    }
}
