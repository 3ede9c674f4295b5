//! What kinds of sockets have in common.

use tcp_ebpf::{
    offsets::{self, Field},
    tcp::AF_INET6,
};

use super::Sock;
use crate::mem;

/// What kinds of sockets have in common, as far as it says between whom they are: one read instead of many.
pub(crate) struct Common {
    sock: Sock,
    words: [u64; Self::WORDS],
}

impl Sock {
    /// Read now.
    #[inline(always)]
    pub(crate) fn common(self) -> Common {
        Common {
            sock: self,
            words: mem::read_words(self.0),
        }
    }
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
