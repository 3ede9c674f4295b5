//! How a session ended, and which end of the connection ended it.

use tcp_ebpf::{
    tcp::{
        CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, SYN_RECV, SYN_SENT,
        TIME_WAIT,
    },
    wire::{self, flag},
};

use super::progress::fin_is_acked;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// In order.
    Fin,
    /// We sent a RST.
    RstSent,
    /// The peer sent a RST.
    RstReceived,
    /// The peer answered our SYN with a RST.
    Refused,
    /// The peer stopped answering.
    Timeout,
    /// The network said that there is no way.
    Unreachable,
    /// Given up on this side: before it was established, by the kernel, or by an administrator.
    Aborted,
}

/// One of the two parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This end.
    Local,
    /// The other.
    Remote,
}

impl Close {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::RstSent => "rst_sent",
            Self::RstReceived => "rst_received",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
        }
    }
}

impl Side {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// Whether a bit of [`flag`] is set.
fn has(record: &wire::Session, bit: u8) -> bool {
    record.now.flags & bit != 0
}

/// The kernel has set `sk_err` before it closes a socket for a reason; without one, the last state shows it.
/// `tcp_reset`, `tcp_write_err`, `tcp_keepalive_timer`, `tcp_abort` in net/ipv4, v6.1 to v6.18.
pub(super) fn close(record: &wire::Session) -> Close {
    match i32::from(record.error) {
        libc::ECONNREFUSED if record.now.state == SYN_SENT => Close::Refused,
        // A RST may have been sent as well: the last attempt to reach the peer.
        libc::ETIMEDOUT => Close::Timeout,
        libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN => {
            Close::Unreachable
        }
        _ if has(record, flag::RST_SENT) => Close::RstSent,
        libc::ECONNRESET | libc::EPIPE | libc::ECONNREFUSED => Close::RstReceived,
        0 => close_without_error(record),
        _ => Close::Aborted,
    }
}

/// A socket that a process holds is closed without an error by the last ACK or FIN, or by its process: `__tcp_close`
/// with unread data, `tcp_disconnect` also for SO_LINGER 0 (net/ipv4/tcp.c, v6.1 to v6.18). Both send a RST, the
/// latter in CLOSING and LAST_ACK only if something was not sent.
fn close_without_error(record: &wire::Session) -> Close {
    let is_held = !has(record, flag::ORPHANED);
    match record.now.state {
        ESTABLISHED | CLOSE_WAIT => Close::RstSent,
        SYN_RECV | FIN_WAIT1 if is_held => Close::RstSent,
        // The FIN ends it in this state. Without one an orphan is left to a TIME_WAIT socket.
        FIN_WAIT2 if is_held && !has(record, flag::FIN_RECEIVED) => Close::RstSent,
        FIN_WAIT2 | TIME_WAIT => Close::Fin,
        CLOSING | LAST_ACK if fin_is_acked(&record.now) => Close::Fin,
        CLOSING | LAST_ACK if is_held && has(record, flag::UNREAD | flag::UNSENT) => Close::RstSent,
        _ => Close::Aborted,
    }
}

/// The kernel closes some sockets before it sends their RST (v6.1 to v6.18): `tcp_rcv_state_process()` where data
/// arrives that no process will read, with and without `tcp_reset()`, and `__tcp_close()` for TCP_LINGER2 and where
/// memory is short. Of the last a FIN that was never acknowledged is the sign.
pub(super) fn reset_may_follow(record: &wire::Session) -> bool {
    let is_open_to_data = has(record, flag::RST_MAY_FOLLOW);
    match (i32::from(record.error), record.now.state) {
        _ if has(record, flag::RST_SENT) => false,
        (libc::ECONNRESET, FIN_WAIT1 | FIN_WAIT2) => is_open_to_data,
        (0, FIN_WAIT2) => {
            has(record, flag::ORPHANED) && !has(record, flag::FIN_RECEIVED) && is_open_to_data
        }
        (0, FIN_WAIT1 | CLOSING | LAST_ACK) => {
            has(record, flag::ORPHANED) && !fin_is_acked(&record.now)
        }
        _ => false,
    }
}

pub(super) fn closed_by(record: &wire::Session, close: Close) -> Option<Side> {
    let wire::Head {
        laddr,
        lport,
        raddr,
        rport,
        ..
    } = &record.head;
    let is_its_own_peer = (laddr, lport) == (raddr, rport);
    match close {
        Close::Timeout | Close::Unreachable => None,
        Close::RstSent | Close::Aborted => Some(Side::Local),
        Close::RstReceived | Close::Refused => Some(Side::Remote),
        Close::Fin => match record.now.state {
            CLOSE_WAIT | LAST_ACK => Some(Side::Remote),
            // The FINs have crossed.
            CLOSING if !is_its_own_peer => None,
            _ => Some(Side::Local),
        },
    }
}

#[cfg(test)]
mod tests {
    use tcp_ebpf::{
        tcp::State,
        wire::{Progress, flag::*},
    };

    use super::*;

    const LOCAL: Option<Side> = Some(Side::Local);
    const REMOTE: Option<Side> = Some(Side::Remote);

    fn record(state: State, error: i32, flags: u8) -> wire::Session {
        wire::Session {
            head: wire::Head {
                lport: 80,
                ..wire::Head::default()
            },
            now: Progress {
                state,
                flags,
                ..Progress::default()
            },
            error: u16::try_from(error).unwrap(),
            ..wire::Session::default()
        }
    }

    fn ended(state: State, error: i32, flags: u8) -> (Close, Option<Side>, bool) {
        let record = record(state, error, flags);
        let close = close(&record);
        let may_follow = reset_may_follow(&record);
        (close, closed_by(&record, close), may_follow)
    }

    #[test]
    fn an_end_in_order_shows_by_the_state() {
        let fin = |by| (Close::Fin, by, false);
        assert_eq!(ended(LAST_ACK, 0, ORPHANED | ALL_ACKED), fin(REMOTE));
        assert_eq!(ended(LAST_ACK, 0, ALL_ACKED | UNREAD), fin(REMOTE));
        assert_eq!(ended(FIN_WAIT2, 0, FIN_RECEIVED | UNREAD), fin(LOCAL));
        assert_eq!(ended(FIN_WAIT2, 0, ORPHANED), fin(LOCAL));
        assert_eq!(ended(CLOSING, 0, ALL_ACKED), fin(None));
    }

    #[test]
    fn a_process_that_closes_a_socket_at_once_sends_a_reset() {
        let sent = (Close::RstSent, LOCAL, false);
        for state in [SYN_RECV, ESTABLISHED, CLOSE_WAIT, FIN_WAIT1, FIN_WAIT2] {
            assert_eq!(ended(state, 0, 0), sent, "{state}");
        }
        for state in [CLOSING, LAST_ACK] {
            assert_eq!(ended(state, 0, FIN_RECEIVED | UNREAD), sent, "{state}");
            assert_eq!(ended(state, 0, FIN_RECEIVED | UNSENT), sent, "{state}");
            let silent = (Close::Aborted, LOCAL, false);
            assert_eq!(ended(state, 0, FIN_RECEIVED), silent, "{state}");
        }
    }

    #[test]
    fn a_reset_that_was_seen_decides_but_for_timeouts() {
        let sent = (Close::RstSent, LOCAL, false);
        for error in [0, libc::ECONNABORTED, libc::ECONNRESET] {
            assert_eq!(ended(FIN_WAIT2, error, RST_SENT | ORPHANED), sent);
            assert_eq!(ended(ESTABLISHED, error, RST_SENT), sent);
        }
        let timeout = (Close::Timeout, None, false);
        assert_eq!(ended(ESTABLISHED, libc::ETIMEDOUT, RST_SENT), timeout);
    }

    #[test]
    fn only_what_a_reset_may_follow_waits_for_it() {
        let waits = |state, error, flags| ended(state, error, flags).2;
        assert!(waits(FIN_WAIT2, 0, ORPHANED | RST_MAY_FOLLOW));
        assert!(waits(FIN_WAIT2, libc::ECONNRESET, RST_MAY_FOLLOW));
        assert!(waits(
            FIN_WAIT1,
            libc::ECONNRESET,
            ORPHANED | RST_MAY_FOLLOW
        ));
        assert!(waits(LAST_ACK, 0, ORPHANED));
        assert!(!waits(FIN_WAIT2, 0, ORPHANED));
        assert!(!waits(FIN_WAIT2, 0, RST_MAY_FOLLOW));
        assert!(!waits(FIN_WAIT2, libc::ECONNRESET, ORPHANED));
        assert!(!waits(ESTABLISHED, libc::ECONNRESET, RST_MAY_FOLLOW));
        assert!(!waits(LAST_ACK, 0, ORPHANED | ALL_ACKED | RST_MAY_FOLLOW));
    }

    #[test]
    fn the_error_shows_what_the_peer_or_the_network_did() {
        let ended = |state, error| {
            let (close, by, _) = ended(state, error, 0);
            (close, by)
        };
        assert_eq!(
            ended(ESTABLISHED, libc::ECONNRESET),
            (Close::RstReceived, REMOTE)
        );
        assert_eq!(
            ended(FIN_WAIT1, libc::ECONNRESET),
            (Close::RstReceived, REMOTE)
        );
        assert_eq!(ended(CLOSE_WAIT, libc::EPIPE), (Close::RstReceived, REMOTE));
        assert_eq!(
            ended(SYN_SENT, libc::ECONNREFUSED),
            (Close::Refused, REMOTE)
        );
        assert_eq!(ended(SYN_SENT, libc::ETIMEDOUT), (Close::Timeout, None));
        assert_eq!(ended(SYN_SENT, libc::ECONNABORTED), (Close::Aborted, LOCAL));
        assert_eq!(ended(SYN_SENT, 0), (Close::Aborted, LOCAL));
    }
}
