//! What to keep out, so that it costs no room in the ring.

use tcp_ebpf::{tcp::AF_INET6, wire::counter};

use crate::{
    globals::{self, config},
    maps::{self, Claim},
    sock::{Common, Sock},
};

/// Between whom something happened: what the filters ask about, and what every record tells.
pub(crate) struct Subject {
    pub(crate) family: u16,
    pub(crate) lport: u16,
    pub(crate) rport: u16,
    pub(crate) netns: u32,
    /// In network order; IPv4 in the first four bytes.
    pub(crate) laddr: [u64; 2],
    pub(crate) raddr: [u64; 2],
}

impl Subject {
    #[inline(always)]
    pub(crate) fn of(sock: Sock) -> Self {
        Self::new(&sock.common(), sock.lport())
    }

    /// Of whatever begins with a `struct sock_common`, also if it is no full socket.
    #[inline(always)]
    pub(crate) fn of_common(sock: Sock) -> Self {
        let common = sock.common();
        Self::new(&common, common.num())
    }

    #[inline(always)]
    fn new(common: &Common, lport: u16) -> Self {
        let family = common.family();
        let (laddr, raddr) = common.addresses(family);
        Self {
            family,
            lport,
            rport: common.rport(),
            netns: common.netns(),
            laddr,
            raddr,
        }
    }

    /// Whether all filters let it through; counted if not.
    ///
    /// Configuration is constant to the verifier: what is not asked for is not even in the loaded program.
    #[inline(always)]
    pub(crate) fn is_wanted(&self, claim: &Claim) -> bool {
        let wanted = self.is_wanted_flow() && claim.is_wanted();
        if !wanted {
            globals::count(counter::FILTERED);
        }
        wanted
    }

    /// Whether all filters but those by process let it through.
    #[inline(always)]
    pub(crate) fn is_wanted_flow(&self) -> bool {
        let ip = config!(ip);
        let netns = config!(netns);
        !(ip != 0 && (ip == 4) != self.is_ipv4()
            || netns != 0 && netns != self.netns
            || config!(by_local_port) != 0 && !globals::is_local_port(self.lport)
            || config!(by_remote_port) != 0 && !globals::is_remote_port(self.rport)
            || config!(by_local_net) != 0 && !maps::is_local_net(self.as_ipv6(self.laddr))
            || config!(by_remote_net) != 0 && !maps::is_remote_net(self.as_ipv6(self.raddr)))
    }

    /// True if people know it as IPv4: also when an IPv6 socket talks it, or listens for it.
    #[inline(always)]
    fn is_ipv4(&self) -> bool {
        let is_mapped = |[high, low]: [u64; 2]| high == 0 && low as u32 == MAPPED;
        self.family != AF_INET6 || is_mapped(self.raddr) || is_mapped(self.laddr)
    }

    /// The address as networks are written in the maps: IPv4 as mapped IPv6.
    #[inline(always)]
    fn as_ipv6(&self, [high, low]: [u64; 2]) -> [u32; 4] {
        if self.family == AF_INET6 {
            [
                high as u32,
                (high >> 32) as u32,
                low as u32,
                (low >> 32) as u32,
            ]
        } else {
            [0, 0, MAPPED, high as u32]
        }
    }
}

/// `::ffff:0:0/96`, its third word.
const MAPPED: u32 = 0xffff_u32.to_be();
