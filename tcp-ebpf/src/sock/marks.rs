//! What a socket's fields show of the code that ends its session, or sends a segment again.

use tcp_ebpf::{
    offsets,
    tcp::{CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK},
    wire::{Progress, flag, retransmit_flag},
};

use super::Sock;
use crate::mem;

impl Sock {
    /// Segments with payload that have arrived, whatever became of them (`tcp_segs_in`, include/net/tcp.h).
    #[inline(always)]
    pub(crate) fn data_segments(self) -> u32 {
        self.read(offsets::data_segs_in)
    }

    /// What its end shows besides `now`, as far as it matters in the last state: bits of [`flag`]. `segments` is what
    /// [`Sock::data_segments`] was when the FIN was queued.
    #[inline(always)]
    pub(crate) fn end_flags(self, now: &Progress, segments: u32) -> u8 {
        match now.state {
            CLOSING | LAST_ACK if now.flags & (flag::ALL_ACKED | flag::ORPHANED) == 0 => {
                self.left_over()
            }
            FIN_WAIT1 | FIN_WAIT2 if now.flags & flag::FIN_RECEIVED == 0 => {
                let may_follow =
                    self.data_segments() != segments || self.read(offsets::linger2) < 0;
                if may_follow { flag::RST_MAY_FOLLOW } else { 0 }
            }
            _ => 0,
        }
    }

    /// What was neither read nor sent, of a socket that has received a FIN.
    #[inline(always)]
    fn left_over(self) -> u8 {
        let mut flags = 0;
        let unread = self
            .read(offsets::rcv_nxt)
            .wrapping_sub(self.read(offsets::copied_seq));
        // The FIN counts as one until the end of the data is read.
        if unread > 1 {
            flags |= flag::UNREAD;
        }
        if self.snd_nxt() != self.write_seq() {
            flags |= flag::UNSENT;
        }
        flags
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
}
