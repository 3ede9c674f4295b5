//! Records that the programs write: to the ring buffer, or to an iterator's file.

/// First byte of every record.
pub mod kind {
    /// A [`super::Session`] that has ended.
    pub const SESSION: u8 = 1;
    /// A [`super::Session`] that is open at this moment.
    pub const OPEN: u8 = 2;
}

/// How the owner of a socket is known.
pub mod owner {
    /// Not known.
    pub const NONE: u8 = 0;
    /// It called connect().
    pub const CONNECT: u8 = 1;
    /// It called accept().
    pub const ACCEPT: u8 = 2;
    /// It held a descriptor when the trace began.
    pub const FD: u8 = 3;
}

/// Which end of the connection the socket is.
pub mod role {
    /// Not known.
    pub const UNKNOWN: u8 = 0;
    /// It sent the SYN.
    pub const CLIENT: u8 = 1;
    /// It was made by a listener.
    pub const SERVER: u8 = 2;
}

/// Bits of [`Progress::flags`].
pub mod flag {
    /// Everything that was put in the send queue, the FIN included, has been acknowledged.
    pub const ALL_ACKED: u8 = 1;
    /// The peer's FIN has been received.
    pub const FIN_RECEIVED: u8 = 2;
}

/// The process that a socket belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// cgroup v2 id; 0 if not known.
    pub cgroup_id: u64,
    /// `comm` of the process (its thread group leader), NUL-padded; two words, because a `[u8; 16]` makes
    /// LLVM call memset and memcpy as BPF functions.
    pub comm: [u64; 2],
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
}

/// How far the byte streams of a socket have come, as the kernel counts.
///
/// The kernel's byte counters include the sequence number of our SYN (only at the active end) and of each
/// FIN; user space takes them off.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// `tcp_sock.bytes_acked`
    pub bytes_acked: u64,
    /// `tcp_sock.bytes_received`
    pub bytes_received: u64,
    /// `sk_state` at that moment; for a session that has ended, the state before CLOSE.
    pub state: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 6],
}

/// A TCP session: [`kind::SESSION`] or [`kind::OPEN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// See [`kind`].
    pub kind: u8,
    /// See [`owner`].
    pub owner_by: u8,
    /// See [`role`].
    pub role: u8,
    /// 1 if the session was opened before the trace, or its birth was not seen.
    pub partial: u8,
    /// `AF_INET` or `AF_INET6`
    pub family: u16,
    /// Local port, host order.
    pub lport: u16,
    /// Remote port, host order.
    pub rport: u16,
    /// `sk_err`: the errno that ended the session, or 0.
    pub error: u16,
    /// Network namespace, by inode number.
    pub netns: u32,
    /// Local address in network order; IPv4 in the first four bytes.
    pub laddr: [u8; 16],
    /// Remote address, likewise.
    pub raddr: [u8; 16],
    /// When this record was made: `CLOCK_MONOTONIC`, like all times here, in ns.
    pub ts_ns: u64,
    /// When the socket entered SYN_SENT; 0 if it did not, or it was not seen.
    pub opened_ns: u64,
    /// When the SYN was sent (after the choice of a port); 0 as above.
    pub syn_ns: u64,
    /// When it entered ESTABLISHED, or for a session older than the trace when that began; 0 if never.
    pub established_ns: u64,
    /// Its process; all zero if not known.
    pub owner: Owner,
    /// Where the streams stand now.
    pub now: Progress,
    /// Where they stood when the trace began; zero unless `partial`.
    pub base: Progress,
    /// `tcp_sock.bytes_sent`: payload bytes, retransmitted ones included.
    pub bytes_sent: u64,
    /// `tcp_sock.bytes_retrans`
    pub bytes_retrans: u64,
    /// Sequence numbers sent and not acknowledged, a FIN included.
    pub unacked: u32,
    /// Smoothed round trip in eighths of a µs; 0 if there was no sample.
    pub srtt_us8: u32,
    /// The passive end's first round trip (SYN-ACK to ACK), in eighths of a µs; 0 if none.
    pub handshake_us8: u32,
    /// Least round trip in µs; `u32::MAX` or 0 if there was no sample.
    pub min_rtt_us: u32,
    /// Segments retransmitted.
    pub retransmits: u32,
    /// Zero.
    pub pad: u32,
}

/// Indexes into the per-CPU array `COUNTERS`.
pub mod counter {
    /// Records that found no room in the ring buffer.
    pub const RING_FULL: u32 = 0;
    /// Sessions that found no room in the map of sockets.
    pub const MAP_FULL: u32 = 1;
    /// Reads of kernel memory that failed.
    pub const READ_FAULT: u32 = 2;
    /// Records that went into the ring buffer.
    pub const SUBMITTED: u32 = 3;
    /// Number of counters.
    pub const COUNT: u32 = 4;
}

const _: () = {
    assert!(size_of::<Owner>() == 32);
    assert!(size_of::<Progress>() == 24);
    assert!(size_of::<Session>() == 200);
};
