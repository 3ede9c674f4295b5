//! The one place that knows what is inside a socket.

use tcp_ebpf::{
    offsets::{self, Field},
    tcp::{AF_INET6, IPPROTO_TCP, State},
    wire::{Progress, flag},
};

use crate::mem;

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
        self.read(offsets::sk_protocol) == IPPROTO_TCP
    }

    #[inline(always)]
    pub(crate) fn state(self) -> State {
        self.read(offsets::skc_state)
    }

    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        self.read(offsets::skc_family)
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
    pub(crate) fn netns(self) -> u32 {
        mem::read(self.read(offsets::skc_net), offsets::net_inum)
    }

    /// Local and remote address, straight into a record.
    #[inline(always)]
    pub(crate) fn addresses(self, family: u16, local: *mut [u8; 16], remote: *mut [u8; 16]) {
        if family == AF_INET6 {
            mem::read_into(self.0, offsets::skc_v6_rcv_saddr, local);
            mem::read_into(self.0, offsets::skc_v6_daddr, remote);
        } else {
            put_v4(local, self.read(offsets::skc_rcv_saddr));
            put_v4(remote, self.read(offsets::skc_daddr));
        }
    }

    /// True if people know this socket as IPv4: also when it is an IPv6 socket that talks to one.
    #[inline(always)]
    pub(crate) fn is_ipv4(self, family: u16) -> bool {
        if family != AF_INET6 {
            return true;
        }
        let mut remote = [0_u64; 2];
        mem::read_into(self.0, offsets::skc_v6_daddr, (&raw mut remote).cast());
        remote[0] == 0 && remote[1] as u32 == 0xffff_u32.to_be()
    }

    #[inline(always)]
    pub(crate) fn error(self) -> u16 {
        self.read(offsets::sk_err) as u16
    }

    /// `state` is given, because at a state change the socket holds the old or the new one, by mechanism.
    #[inline(always)]
    pub(crate) fn progress(self, state: State) -> Progress {
        // SOCK_DONE: tcp_fin() has seen the peer's FIN (enum sock_flags, include/net/sock.h; unchanged
        // since 2.6). The state cannot tell: FIN_WAIT2 goes to CLOSE with and without it.
        const SOCK_DONE: u64 = 1 << 1;
        let mut flags = 0;
        if self.read(offsets::snd_una) == self.read(offsets::write_seq) {
            flags |= flag::ALL_ACKED;
        }
        if self.read(offsets::skc_flags) & SOCK_DONE != 0 {
            flags |= flag::FIN_RECEIVED;
        }
        Progress {
            bytes_acked: self.read(offsets::bytes_acked),
            bytes_received: self.read(offsets::bytes_received),
            state,
            flags,
            pad: [0; 6],
        }
    }

    #[inline(always)]
    pub(crate) fn bytes_sent(self) -> u64 {
        self.read(offsets::bytes_sent)
    }

    #[inline(always)]
    pub(crate) fn bytes_retrans(self) -> u64 {
        self.read(offsets::bytes_retrans)
    }

    #[inline(always)]
    pub(crate) fn unacked(self) -> u32 {
        self.read(offsets::snd_nxt)
            .wrapping_sub(self.read(offsets::snd_una))
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

#[inline(always)]
fn put_v4(to: *mut [u8; 16], address: u32) {
    // SAFETY: `to` is valid for writes; in a record it is aligned to four bytes.
    unsafe { to.cast::<[u32; 4]>().write([address, 0, 0, 0]) }
}
