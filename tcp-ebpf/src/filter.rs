//! What to keep out, so that it costs no room in the ring.

use crate::{
    maps::{self, config},
    sock::Sock,
};

/// What the filters ask about; read once, used again for the record.
pub(crate) struct Subject {
    pub(crate) sock: Sock,
    pub(crate) family: u16,
    pub(crate) lport: u16,
    pub(crate) rport: u16,
    pub(crate) netns: u32,
    /// 0 if not known.
    pub(crate) pid: u32,
}

impl Subject {
    #[inline(always)]
    pub(crate) fn new(sock: Sock, pid: u32) -> Self {
        Self {
            sock,
            family: sock.family(),
            lport: sock.lport(),
            rport: sock.rport(),
            netns: sock.netns(),
            pid,
        }
    }

    /// Configuration is constant to the verifier: what is not asked for is not even in the loaded program.
    #[inline(always)]
    pub(crate) fn is_wanted(&self) -> bool {
        let ip = config!(ip);
        let netns = config!(netns);
        !(ip != 0 && (ip == 4) != self.sock.is_ipv4(self.family)
            || netns != 0 && netns != self.netns
            || config!(by_local_port) != 0 && !maps::is_local_port(self.lport)
            || config!(by_remote_port) != 0 && !maps::is_remote_port(self.rport)
            || config!(by_pid) != 0 && !maps::is_traced_pid(self.pid))
    }
}
