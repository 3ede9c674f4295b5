//! The one place that knows what is inside a socket.

mod common;
mod descriptor;
mod marks;

use tcp_ebpf::{
    offsets::{self, Field},
    tcp::{IPPROTO_TCP, State},
    wire::{Progress, flag, timer},
};

pub(crate) use self::common::Common;
use crate::mem;

/// close() has let the socket go (enum sock_flags, include/net/sock.h; unchanged since 2.6).
const SOCK_DEAD: u64 = 1;

/// A `struct sock *`; the reads below expect it to be TCP's ([`Sock::is_tcp`]).
#[derive(Clone, Copy)]
pub(crate) struct Sock(u64);

impl Sock {
    #[inline(always)]
    pub(crate) fn new(address: u64) -> Self {
        Self(address)
    }

    /// Its address: what it is known by while it is open.
    #[inline(always)]
    pub(crate) fn key(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn read<T: Copy>(self, field: Field<T>) -> T {
        mem::read(self.0, field)
    }

    /// Not so for the other users of these hooks: MPTCP's own sockets, SCTP, DCCP.
    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        self.protocol() == IPPROTO_TCP
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> u16 {
        self.read(offsets::sk_protocol)
    }

    #[inline(always)]
    pub(crate) fn state(self) -> State {
        self.read(offsets::skc_state)
    }

    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        self.read(offsets::skc_family)
    }

    /// Network namespace, by inode number.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        mem::read(self.read(offsets::skc_net), offsets::net_inum)
    }

    /// `inet_sport` and not `skc_num`: at CLOSE an autobound port has been put back already, and
    /// `skc_num` is 0 (`tcp_set_state`, net/ipv4/tcp.c, v6.1 to v6.18).
    #[inline(always)]
    pub(crate) fn lport(self) -> u16 {
        u16::from_be(self.read(offsets::inet_sport))
    }

    #[inline(always)]
    pub(crate) fn rport(self) -> u16 {
        u16::from_be(self.read(offsets::skc_dport))
    }

    #[inline(always)]
    pub(crate) fn error(self) -> u16 {
        self.read(offsets::sk_err) as u16
    }

    /// An error that did not close the socket: of an ICMP message that came while a system call had it locked
    /// (`tcp_v4_err`, net/ipv4/tcp_ipv4.c; `tcp_v6_err`, net/ipv6/tcp_ipv6.c; v6.1 to v6.18), or of a route that was
    /// lost. SO_ERROR takes it away (`sk_getsockopt`, net/core/sock.c), but not from the queue of errors.
    #[inline(always)]
    pub(crate) fn soft_error(self) -> u16 {
        match self.read(offsets::sk_err_soft) as u16 {
            0 => self.queued_error(),
            error => error,
        }
    }

    /// The last ICMP error that waits to be read with MSG_ERRQUEUE. IPv4 puts it there unasked since Linux 6.0
    /// (`ip_icmp_error`, net/ipv4/ip_sockglue.c), IPv6 with IPV6_RECVERR.
    #[inline(always)]
    fn queued_error(self) -> u16 {
        // SO_EE_ORIGIN_*, include/uapi/linux/errqueue.h.
        const ICMP: u8 = 2;
        const ICMP6: u8 = 3;
        if !mem::has(offsets::ee_origin) || self.read(offsets::error_queue_len) == 0 {
            return 0;
        }
        // The `struct sock_exterr_skb` is the buffer's control block.
        let block = mem::address(self.read(offsets::error_queue_last), offsets::skb_cb);
        match mem::read(block, offsets::ee_origin) {
            ICMP | ICMP6 => mem::read(block, offsets::ee_errno) as u16,
            _ => 0,
        }
    }

    /// Segments received, before anything is made of them (`tcp_v4_rcv`, net/ipv4/tcp_ipv4.c).
    #[inline(always)]
    pub(crate) fn segments_received(self) -> u32 {
        self.read(offsets::segs_in)
    }

    /// `state` is given, because at a state change the socket holds the old or the new one, by mechanism.
    #[inline(always)]
    pub(crate) fn progress(self, state: State) -> Progress {
        // SOCK_DONE: tcp_fin() has seen the peer's FIN (enum sock_flags, include/net/sock.h; unchanged
        // since 2.6). The state cannot tell: FIN_WAIT2 goes to CLOSE with and without it.
        const SOCK_DONE: u64 = 1 << 1;
        let sock_flags = self.read(offsets::skc_flags);
        let mut flags = 0;
        if self.read(offsets::snd_una) == self.write_seq() {
            flags |= flag::ALL_ACKED;
        }
        if sock_flags & SOCK_DONE != 0 {
            flags |= flag::FIN_RECEIVED;
        }
        if sock_flags & SOCK_DEAD != 0 {
            flags |= flag::ORPHANED;
        }
        Progress {
            bytes_acked: self.read(offsets::bytes_acked),
            bytes_received: self.read(offsets::bytes_received),
            state,
            flags,
            pad: 0,
            retransmits: self.retransmits(),
        }
    }

    /// Whether close() has let it go.
    #[inline(always)]
    pub(crate) fn is_orphaned(self) -> bool {
        self.read(offsets::skc_flags) & SOCK_DEAD != 0
    }

    /// More than before if anything has been acknowledged, received or retransmitted since; never 0.
    #[inline(always)]
    pub(crate) fn moved(self) -> u64 {
        self.read(offsets::bytes_acked)
            .wrapping_add(self.read(offsets::bytes_received))
            .wrapping_add(u64::from(self.retransmits()))
            .wrapping_add(1)
    }

    #[inline(always)]
    pub(crate) fn bytes_sent(self) -> u64 {
        self.read(offsets::bytes_sent)
    }

    #[inline(always)]
    pub(crate) fn bytes_retrans(self) -> u64 {
        self.read(offsets::bytes_retrans)
    }

    /// The sequence number of the next byte that the process writes.
    #[inline(always)]
    pub(crate) fn write_seq(self) -> u32 {
        self.read(offsets::write_seq)
    }

    #[inline(always)]
    pub(crate) fn unacked(self) -> u32 {
        self.read(offsets::snd_nxt)
            .wrapping_sub(self.read(offsets::snd_una))
    }

    #[inline(always)]
    pub(crate) fn snd_nxt(self) -> u32 {
        self.read(offsets::snd_nxt)
    }

    /// Bytes received and not read, bytes not acknowledged; as sock_diag has them (`tcp_diag_get_info`,
    /// net/ipv4/tcp_diag.c, v5.8 to v6.18).
    #[inline(always)]
    pub(crate) fn queues(self) -> (u32, u32) {
        let unread = self
            .read(offsets::rcv_nxt)
            .wrapping_sub(self.read(offsets::copied_seq));
        let unacked = self.write_seq().wrapping_sub(self.read(offsets::snd_una));
        // Where the socket is not locked meanwhile, one may be older than the other.
        let unread = if (unread as i32) < 0 { 0 } else { unread };
        (unread, unacked)
    }

    /// The timer that is set, when it strikes (in jiffies), how often it has in a row; as sock_diag has it
    /// (`inet_sk_diag_fill`, net/ipv4/inet_diag.c, v5.8 to v6.18).
    #[inline(always)]
    pub(crate) fn timer(self) -> (u8, u64, u8) {
        // ICSK_TIME_*, include/net/inet_connection_sock.h.
        const RETRANS: u8 = 1;
        const PROBE0: u8 = 3;
        const LOSS_PROBE: u8 = 5;
        const REO_TIMEOUT: u8 = 6;
        match self.pending_timer() {
            RETRANS | LOSS_PROBE | REO_TIMEOUT => (
                timer::ON,
                self.read(offsets::icsk_expires),
                self.read(offsets::icsk_retransmits),
            ),
            PROBE0 => (
                timer::PERSIST,
                self.read(offsets::icsk_expires),
                self.read(offsets::icsk_probes_out),
            ),
            _ if self.read(offsets::keepalive_pprev) != 0 => (
                timer::KEEPALIVE,
                self.read(offsets::keepalive_expires),
                self.read(offsets::icsk_probes_out),
            ),
            _ => (timer::OFF, 0, 0),
        }
    }

    /// Inode number of its descriptor's file; 0 if it has none.
    #[inline(always)]
    pub(crate) fn inode(self) -> u64 {
        match self.read(offsets::sk_socket) {
            0 => 0,
            socket => mem::read(socket, offsets::socket_inode),
        }
    }

    /// The cgroup that it was made in; 0 if not known.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        self.read(offsets::sk_cgroup)
    }

    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        self.read(offsets::skc_cookie)
    }

    /// Largest segment in bytes.
    #[inline(always)]
    pub(crate) fn mss(self) -> u32 {
        self.read(offsets::mss_cache)
    }

    /// Mean deviation of the round trip in quarters of a µs.
    #[inline(always)]
    pub(crate) fn mdev_us4(self) -> u32 {
        self.read(offsets::mdev_us)
    }

    /// Congestion window in segments.
    #[inline(always)]
    pub(crate) fn cwnd(self) -> u32 {
        self.read(offsets::snd_cwnd)
    }

    /// `enum tcp_ca_state`, include/uapi/linux/tcp.h.
    #[inline(always)]
    pub(crate) fn ca_state(self) -> u8 {
        mem::read_bits(self.0, offsets::ca_state)
    }

    /// `ICSK_TIME_*`, include/net/inet_connection_sock.h.
    #[inline(always)]
    pub(crate) fn pending_timer(self) -> u8 {
        self.read(offsets::icsk_pending)
    }

    /// Of a listener: connections that wait to be accepted, and how many may.
    #[inline(always)]
    pub(crate) fn backlog(self) -> (u32, u32) {
        (
            self.read(offsets::sk_ack_backlog),
            self.read(offsets::sk_max_ack_backlog),
        )
    }

    /// Whether a Fast Open is being made (known until the SYN has left), or the SYN was one.
    #[inline(always)]
    pub(crate) fn is_fast_open(self) -> bool {
        self.read(offsets::fastopen_req) != 0 || mem::read_bits(self.0, offsets::syn_fastopen) != 0
    }

    #[inline(always)]
    pub(crate) fn is_mptcp(self) -> bool {
        self.read(offsets::is_mptcp) != 0
    }

    /// In eighths of a µs, as the kernel keeps it.
    #[inline(always)]
    pub(crate) fn srtt_us8(self) -> u32 {
        self.read(offsets::srtt_us)
    }

    #[inline(always)]
    pub(crate) fn min_rtt_us(self) -> u32 {
        self.read(offsets::rtt_min)
    }

    #[inline(always)]
    pub(crate) fn retransmits(self) -> u32 {
        self.read(offsets::total_retrans)
    }
}
