//! Records that the programs write: to the ring buffer, or to an iterator's file.

/// First byte of every record.
pub mod kind {
    /// A [`super::Session`] that has ended.
    pub const SESSION: u8 = 1;
    /// A [`super::Session`] that is open at this moment.
    pub const OPEN: u8 = 2;
    /// A [`super::Connect`]: the SYN is sent.
    pub const ATTEMPT: u8 = 3;
    /// A [`super::Connect`]: the outcome is known.
    pub const OUTCOME: u8 = 4;
    /// An [`super::Accept`].
    pub const ACCEPT: u8 = 5;
    /// A [`super::Retransmit`] of a segment that a socket had sent.
    pub const RETRANSMIT: u8 = 6;
    /// A [`super::Retransmit`] of a SYN-ACK.
    pub const SYNACK: u8 = 7;
    /// A [`super::Retransmit`]: a tail loss probe with new data was sent.
    pub const LOSS_PROBE: u8 = 8;
    /// A [`super::Socket`]
    pub const SOCKET: u8 = 9;
    /// A [`super::Holder`]
    pub const HOLDER: u8 = 10;
    /// An [`super::Idle`]
    pub const IDLE: u8 = 11;
    /// A [`super::Reset`]
    pub const RESET: u8 = 12;
}

/// How the owner of a socket is known.
pub mod owner {
    /// Not known.
    pub const NONE: u8 = 0;
    /// It called connect().
    pub const CONNECT: u8 = 1;
    /// It called accept().
    pub const ACCEPT: u8 = 2;
    /// It held a descriptor when the trace began, or it called listen().
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
    /// No process holds the socket any more (SOCK_DEAD).
    pub const ORPHANED: u8 = 4;
    // The rest only in sessions that have ended, and where `config::event::RESET` is asked for.
    /// Received bytes were left unread.
    pub const UNREAD: u8 = 8;
    /// Something in the send queue, the FIN perhaps, was never sent.
    pub const UNSENT: u8 = 16;
    /// Data has arrived since our FIN was queued, or TCP_LINGER2 is negative: the kernel may answer with a RST
    /// after it has closed the socket.
    pub const RST_MAY_FOLLOW: u8 = 32;
    /// A RST was sent before the socket was closed.
    pub const RST_SENT: u8 = 64;
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
    pub pad: u16,
    /// `tcp_sock.total_retrans`: segments retransmitted.
    pub retransmits: u32,
}

/// What every record begins with: what, when, between whom, whose.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// See [`kind`].
    pub kind: u8,
    /// See [`owner`].
    pub owner_by: u8,
    /// `AF_INET` or `AF_INET6`
    pub family: u16,
    /// Local port, host order.
    pub lport: u16,
    /// Remote port, host order.
    pub rport: u16,
    /// Network namespace, by inode number.
    pub netns: u32,
    /// Zero.
    pub pad: u32,
    /// Local address in network order; IPv4 in the first four bytes.
    pub laddr: [u64; 2],
    /// Remote address, likewise.
    pub raddr: [u64; 2],
    /// When this record was made: `CLOCK_MONOTONIC`, like all times here, in ns.
    pub ts_ns: u64,
    /// The process; all zero if not known.
    pub owner: Owner,
}

/// A TCP session: [`kind::SESSION`] or [`kind::OPEN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// What, when, between whom, whose.
    pub head: Head,
    /// Address of the `struct sock`: which socket this is, as long as it is open.
    pub id: u64,
    /// When the socket entered SYN_SENT; 0 if it did not, or it was not seen.
    pub opened_ns: u64,
    /// When the SYN was sent (after the choice of a port); 0 as above.
    pub syn_ns: u64,
    /// When it entered ESTABLISHED, or for a session older than the trace when that began; 0 if never.
    pub established_ns: u64,
    /// Where the streams stand now.
    pub now: Progress,
    /// Where they stood when the trace began; zero unless `partial`.
    pub base: Progress,
    /// `tcp_sock.bytes_sent`: payload bytes, retransmitted ones included. With the next two it tells the role
    /// where that is not known; where it is, they are zero.
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
    /// Processes that held a descriptor of it when the trace began; 0 if none, or that is not known.
    pub holders: u32,
    /// `sk_err`: the errno that ended the session, or 0.
    pub error: u16,
    /// See [`role`].
    pub role: u8,
    /// 1 if the session was opened before the trace, or its birth was not seen.
    pub partial: u8,
}

/// An open session that stands where the last snapshot has shown it: [`kind::IDLE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// See [`kind`].
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 7],
    /// As [`Session::id`].
    pub id: u64,
    /// [`Session::opened_ns`], or [`Session::established_ns`] if that is 0.
    pub born_ns: u64,
}

/// A socket has sent a RST after it was closed, and after its [`Session`] was reported: [`kind::RESET`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// See [`kind`].
    pub kind: u8,
    /// Zero.
    pub pad8: u8,
    /// Local port, host order.
    pub lport: u16,
    /// Remote port, host order.
    pub rport: u16,
    /// Zero.
    pub pad16: u16,
    /// As [`Session::id`].
    pub id: u64,
    /// When; ns.
    pub ts_ns: u64,
}

/// Bits of [`Connect::flags`].
pub mod connect_flag {
    /// The SYN asks for, or carries data by, TCP Fast Open.
    pub const FAST_OPEN: u8 = 1;
    /// A subflow of Multipath TCP.
    pub const MPTCP: u8 = 2;
    /// Segments of the peer have arrived.
    pub const ANSWERED: u8 = 4;
    /// connect() has returned because the time of SO_SNDTIMEO was over.
    pub const TIMED_OUT: u8 = 8;
    /// The process that closed the socket was ending.
    pub const EXITED: u8 = 16;
    /// The error was reported to the socket (`sk_err_soft`), but did not close it.
    pub const SOFT: u8 = 32;
    /// connect() has failed before a SYN was sent.
    pub const NO_SYN: u8 = 64;
}

/// An active open: [`kind::ATTEMPT`] or [`kind::OUTCOME`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// What, when, between whom, whose.
    pub head: Head,
    /// When the SYN was sent, or connect() was called if it was not.
    pub syn_ns: u64,
    /// The errno of an outcome. 0, or [`connect_flag::SOFT`], with `established` 0 if the socket was closed by
    /// its owner.
    pub error: u16,
    /// 1 if the connection was established.
    pub established: u8,
    /// See [`connect_flag`].
    pub flags: u8,
    /// SYNs that were sent again.
    pub retransmits: u32,
}

/// A passive open: [`kind::ACCEPT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// What, when, between whom, whose.
    pub head: Head,
    /// When the handshake ended; 0 if that was before the trace.
    pub established_ns: u64,
    /// Connections that wait in the listener's queue still; `u32::MAX` if not known.
    pub backlog: u32,
    /// Most that may; `u32::MAX` if not known.
    pub max_backlog: u32,
}

/// Bits of [`Retransmit::flags`]: what identifies the code that sent the segment.
pub mod retransmit_flag {
    /// The kernel has the fields behind the other bits.
    pub const KNOWN: u8 = 1;
    /// The segment is marked as lost (`TCPCB_LOST`).
    pub const LOST: u8 = 2;
    /// `tcp_xmit_retransmit_queue()` is at work: it has set `retransmit_skb_hint`.
    pub const QUEUE: u8 = 4;
    /// There is nothing to undo (`undo_marker` is 0).
    pub const NO_UNDO: u8 = 8;
    /// The peer's window is closed, and the socket is not an orphan.
    pub const ZERO_WINDOW: u8 = 16;
    /// The path MTU has been reduced at some time (`mtu_info`).
    pub const MTU_REDUCED: u8 = 32;
    /// Of a SYN-ACK: the timer of the request is running its function.
    pub const TIMER: u8 = 64;
}

/// A segment sent again, or a probe: [`kind::RETRANSMIT`], [`kind::SYNACK`], [`kind::LOSS_PROBE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retransmit {
    /// What, when, between whom, whose.
    pub head: Head,
    /// First sequence number of the segment.
    pub seq: u32,
    /// Payload of the segment in bytes.
    pub length: u32,
    /// Smoothed round trip in eighths of a µs; 0 if there was no sample.
    pub srtt_us8: u32,
    /// Congestion window in segments; 0 if there is none.
    pub cwnd: u32,
    /// How many segments this socket has sent again, this one included; 0 if not known.
    pub nth: u32,
    /// `sk_state`
    pub state: u8,
    /// `icsk_ca_state`
    pub ca_state: u8,
    /// `icsk_pending`: the timer that is set.
    pub timer: u8,
    /// See [`retransmit_flag`].
    pub flags: u8,
    /// What `tcp_transmit_skb()` returned: 0, a negative errno, or a positive `NET_XMIT_*`.
    pub error: i16,
    /// Segments that it goes out as; 0 if not known.
    pub segments: u16,
    /// Zero.
    pub pad: u32,
}

/// What a socket is to the kernel: [`Socket::form`].
pub mod form {
    /// A `struct tcp_sock`
    pub const FULL: u8 = 1;
    /// A `struct request_sock`: a handshake that a listener waits for.
    pub const REQUEST: u8 = 2;
    /// A `struct inet_timewait_sock`: what is left of a socket, in TIME_WAIT or FIN_WAIT2.
    pub const TIME_WAIT: u8 = 3;
}

/// The timer of a socket: [`Socket::timer`]. The numbers are those of sock_diag (`idiag_timer`).
pub mod timer {
    /// None is set.
    pub const OFF: u8 = 0;
    /// Retransmission, tail loss probe or reordering.
    pub const ON: u8 = 1;
    /// Keepalive; in FIN_WAIT2 the time that is left for the peer's FIN.
    pub const KEEPALIVE: u8 = 2;
    /// Until the end of TIME_WAIT, or of FIN_WAIT2.
    pub const TIME_WAIT: u8 = 3;
    /// Probe of a closed window.
    pub const PERSIST: u8 = 4;
}

/// A socket as it is at this moment: [`kind::SOCKET`]. It has no owner: see [`Holder`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// What, when, between whom.
    pub head: Head,
    /// Where the streams stand. The state is as people are shown it: SYN_RECV of a request, FIN_WAIT2 of
    /// a [`form::TIME_WAIT`] that is not there yet. All that follows up to `mss` is only of [`form::FULL`].
    pub now: Progress,
    /// `tcp_sock.bytes_sent`: payload bytes, retransmitted ones included.
    pub bytes_sent: u64,
    /// `tcp_sock.bytes_retrans`
    pub bytes_retrans: u64,
    /// Inode number of the descriptor's file; 0 if there is none.
    pub inode: u64,
    /// cgroup v2 id of the socket itself; 0 if not known.
    pub cgroup_id: u64,
    /// Bytes received and not read; of a listener, connections that wait to be accepted.
    pub recv_q: u32,
    /// Bytes not acknowledged, a FIN included; of a listener, connections that may wait.
    pub send_q: u32,
    /// Sequence numbers sent and not acknowledged, a FIN included.
    pub unacked: u32,
    /// Smoothed round trip in eighths of a µs; 0 if there was no sample.
    pub srtt_us8: u32,
    /// Its mean deviation in quarters of a µs.
    pub mdev_us4: u32,
    /// Least round trip in µs; `u32::MAX` or 0 if there was no sample.
    pub min_rtt_us: u32,
    /// Congestion window in segments.
    pub cwnd: u32,
    /// Segments retransmitted.
    pub retransmits: u32,
    /// Largest segment in bytes.
    pub mss: u32,
    /// User that the socket belongs to; of a request, its listener.
    pub uid: u32,
    /// `sk_cookie`; 0 if nobody has asked for it yet.
    pub cookie: u64,
    /// How long the timer still runs; µs.
    pub timer_us: u64,
    /// See [`timer`].
    pub timer: u8,
    /// How often it has struck in a row.
    pub timer_retransmits: u8,
    /// See [`form`].
    pub form: u8,
    /// 1 if the filters let it through, all but those by process.
    pub selected: u8,
    /// Zero.
    pub pad: u32,
}

/// A process that holds a descriptor of a TCP socket: [`kind::HOLDER`]. One for each descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// See [`kind`].
    pub kind: u8,
    /// 1 if the filters by process let it through.
    pub wanted: u8,
    /// Zero.
    pub pad: u16,
    /// The descriptor.
    pub fd: u32,
    /// Inode number of its file. Not the address of the socket: while records are gathered, the kernel gives
    /// that to others.
    pub inode: u64,
    /// When the process began; ns.
    pub started_ns: u64,
    /// The process.
    pub process: Owner,
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
    /// Records that filters kept out of it; and sockets that were not remembered, because a filter would.
    pub const FILTERED: u32 = 4;
    /// Changes of a socket's state that no program saw, as a later one gave away.
    pub const UNSEEN: u32 = 5;
    /// Number of counters.
    pub const COUNT: u32 = 6;
}

const _: () = {
    assert!(size_of::<Owner>() == 32);
    assert!(size_of::<Progress>() == 24);
    assert!(size_of::<Head>() == 88);
    assert!(size_of::<Session>() == 208);
    assert!(size_of::<Idle>() == 24);
    assert!(size_of::<Reset>() == 24);
    assert!(size_of::<Connect>() == 104);
    assert!(size_of::<Accept>() == 104);
    assert!(size_of::<Retransmit>() == 120);
    assert!(size_of::<Socket>() == 208);
    assert!(size_of::<Holder>() == 56);
};
