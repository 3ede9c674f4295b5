//! The one place that knows what is inside a socket.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use tcp_ebpf::{
    offsets::{self, Field},
    tcp::{AF_INET6, CLOSING, FIN_WAIT1, IPPROTO_TCP, LAST_ACK, State},
    wire::{Progress, flag, retransmit_flag, timer},
};

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

    /// The `struct sock *` behind a descriptor of the current process:
    /// `current->files->fdt->fd[fd]->private_data->sk`.
    ///
    /// Another thread may close it meanwhile, and then anything may be there: a fault is no loss here, and the
    /// caller must look at what it gets.
    #[inline(always)]
    pub(crate) fn of_descriptor(fd: u64) -> Option<Self> {
        let file = Self::file_of_descriptor(fd);
        let sk = mem::peek(mem::peek(file, offsets::private_data), offsets::socket_sk);
        (sk != 0).then_some(Self(sk))
    }

    /// Whether system calls on a descriptor of the current process may wait. False where that is not known.
    #[inline(always)]
    pub(crate) fn is_blocking_descriptor(fd: u64) -> bool {
        // O_NONBLOCK, include/uapi/asm-generic/fcntl.h.
        const NONBLOCK: u32 = 0o4000;
        mem::has(offsets::f_flags)
            && mem::peek(Self::file_of_descriptor(fd), offsets::f_flags) & NONBLOCK == 0
    }

    /// The `struct file *` of a descriptor of the current process; see [`Sock::of_descriptor`].
    #[inline(always)]
    fn file_of_descriptor(fd: u64) -> u64 {
        // SAFETY: no preconditions.
        let task = unsafe { bpf_get_current_task() };
        let files = mem::peek(task, offsets::files);
        let fdt = mem::peek(files, offsets::fdt);
        let mut file = 0_u64;
        mem::probe(
            mem::peek(fdt, offsets::fd).wrapping_add((fd & 0xffff_ffff) * 8),
            &raw mut file,
        );
        file
    }

    /// The `struct sock *` behind a `struct file *`: what `bpf_sock_from_file()` finds, which Linux has from 5.11 on.
    /// A file whose inode is a socket's can only be one that `sock_alloc_file()` has made (net/socket.c, 5.10).
    #[inline(always)]
    pub(crate) fn of_file(file: u64) -> Option<Self> {
        // include/uapi/linux/stat.h
        const S_IFMT: u16 = 0o170_000;
        const S_IFSOCK: u16 = 0o140_000;
        let mode = mem::read(mem::read(file, offsets::f_inode), offsets::i_mode);
        if mode & S_IFMT != S_IFSOCK {
            return None;
        }
        let sk = mem::read(mem::read(file, offsets::private_data), offsets::socket_sk);
        (sk != 0).then_some(Self(sk))
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

    /// Read now.
    #[inline(always)]
    pub(crate) fn common(self) -> Common {
        Common {
            sock: self,
            words: mem::read_words(self.0),
        }
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

    /// Segments with payload that have arrived, whatever became of them (`tcp_segs_in`, include/net/tcp.h).
    #[inline(always)]
    pub(crate) fn data_segments(self) -> u32 {
        self.read(offsets::data_segs_in)
    }

    /// What its end says beside [`Sock::progress`]: bits of [`flag`]. `segments` is what
    /// [`Sock::data_segments`] was when the FIN was queued.
    #[inline(always)]
    pub(crate) fn end_flags(self, segments: u32) -> u8 {
        let mut flags = 0;
        let unread = self
            .read(offsets::rcv_nxt)
            .wrapping_sub(self.read(offsets::copied_seq));
        // Only asked where the peer's FIN was received, which counts as one until the end of the data is read.
        if unread > 1 {
            flags |= flag::UNREAD;
        }
        if self.snd_nxt() != self.write_seq() {
            flags |= flag::UNSENT;
        }
        if self.data_segments() != segments || self.read(offsets::linger2) < 0 {
            flags |= flag::RST_MAY_FOLLOW;
        }
        flags
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

    /// Whether its FIN is among what it has sent.
    #[inline(always)]
    pub(crate) fn has_sent_fin(self) -> bool {
        let is_closed = matches!(self.state(), FIN_WAIT1 | CLOSING | LAST_ACK);
        is_closed && self.snd_nxt() == self.write_seq()
    }

    /// Bits of [`retransmit_flag`] while a segment is being sent again.
    #[inline(always)]
    pub(crate) fn retransmit_flags(self) -> u8 {
        let is_known = mem::has(offsets::ca_state)
            && mem::has(offsets::icsk_pending)
            && mem::has(offsets::skb_sacked)
            && mem::has(offsets::retransmit_skb_hint)
            && mem::has(offsets::undo_marker)
            && mem::has(offsets::mtu_info)
            && mem::has(offsets::snd_wnd);
        if !is_known {
            return 0;
        }
        let mut flags = retransmit_flag::KNOWN;
        if self.read(offsets::retransmit_skb_hint) != 0 {
            flags |= retransmit_flag::QUEUE;
        }
        if self.read(offsets::undo_marker) == 0 {
            flags |= retransmit_flag::NO_UNDO;
        }
        if self.read(offsets::mtu_info) != 0 {
            flags |= retransmit_flag::MTU_REDUCED;
        }
        if self.read(offsets::snd_wnd) == 0 && !self.is_orphaned() {
            flags |= retransmit_flag::ZERO_WINDOW;
        }
        flags
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

/// What kinds of sockets have in common, as far as it says between whom they are: one read instead of many.
pub(crate) struct Common {
    sock: Sock,
    words: [u64; Self::WORDS],
}

impl Common {
    /// From `skc_daddr` to `skc_v6_rcv_saddr` (include/net/sock.h, v5.8 to v6.18). What a kernel keeps
    /// elsewhere is read from there.
    const WORDS: usize = 11;

    #[inline(always)]
    fn get<T: Copy>(&self, field: Field<T>) -> T {
        mem::of_words(&self.words, field).unwrap_or_else(|| self.sock.read(field))
    }

    #[inline(always)]
    pub(crate) fn family(&self) -> u16 {
        self.get(offsets::skc_family)
    }

    /// `skc_num`: also of requests and in TIME_WAIT, where there is no `inet_sport`.
    #[inline(always)]
    pub(crate) fn num(&self) -> u16 {
        self.get(offsets::skc_num)
    }

    #[inline(always)]
    pub(crate) fn rport(&self) -> u16 {
        u16::from_be(self.get(offsets::skc_dport))
    }

    #[inline(always)]
    pub(crate) fn netns(&self) -> u32 {
        mem::read(self.get(offsets::skc_net), offsets::net_inum)
    }

    /// Local and remote address in network order; IPv4 in the first four bytes.
    #[inline(always)]
    pub(crate) fn addresses(&self, family: u16) -> ([u64; 2], [u64; 2]) {
        if family == AF_INET6 {
            (
                self.get(offsets::skc_v6_rcv_saddr),
                self.get(offsets::skc_v6_daddr),
            )
        } else {
            let local = self.get(offsets::skc_rcv_saddr);
            let remote = self.get(offsets::skc_daddr);
            ([u64::from(local), 0], [u64::from(remote), 0])
        }
    }
}
