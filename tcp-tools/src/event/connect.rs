//! An active open.

use tcp_ebpf::wire::{self, connect_flag, kind};

use super::{DecodeError, Flow};

/// A process has asked for a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// When, between whom, whose.
    pub flow: Flow,
    /// What has become of it.
    pub outcome: Outcome,
    /// What ended an attempt that made no connection, where that is known.
    pub cause: Option<Cause>,
    /// Its errno. Of one that was closed on this side, the last error that was reported to the socket without
    /// closing it. 0 for none.
    pub error: u16,
    /// From the SYN, or from connect() if no SYN was sent, to the outcome.
    pub latency_us: Option<u64>,
    /// SYNs sent again.
    pub retransmits: u32,
    /// The SYN asks for TCP Fast Open, or carries data by it.
    pub fast_open: bool,
    /// A subflow of Multipath TCP.
    pub mptcp: bool,
}

/// What has become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not known yet: the SYN has just been sent.
    Pending,
    /// The connection stands.
    Established,
    /// The kernel ended it with an error.
    Failed,
    /// The socket was closed on this side before there was an answer.
    Aborted,
}

/// What ended an attempt that made no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer sent a RST.
    Rst,
    /// An ICMP message, or the loss of the route.
    Icmp,
    /// All SYNs that may be sent, or the time of TCP_USER_TIMEOUT.
    Timeout,
    /// The socket was closed after connect() had returned because the time of SO_SNDTIMEO was over.
    CallerTimeout,
    /// The socket was closed.
    Closed,
    /// Its process ended, or was killed.
    Exited,
    /// This host: no SYN was sent, or an administrator ended it.
    Local,
}

impl Outcome {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Established => "established",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

impl Cause {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rst => "rst",
            Self::Icmp => "icmp",
            Self::Timeout => "timeout",
            Self::CallerTimeout => "caller_timeout",
            Self::Closed => "closed",
            Self::Exited => "exited",
            Self::Local => "local",
        }
    }
}

impl Connect {
    pub(super) fn new(record: &wire::Connect) -> Result<Self, DecodeError> {
        let has = |flag| record.flags & flag != 0;
        let is_aborted = record.error == 0 || has(connect_flag::SOFT);
        let (outcome, cause) = match (record.head.kind, record.established) {
            (kind::ATTEMPT, _) => (Outcome::Pending, None),
            (_, 0) if is_aborted => (Outcome::Aborted, Some(closed(record.flags))),
            (_, 0) => (Outcome::Failed, failed(record.error, record.flags)),
            _ => (Outcome::Established, None),
        };
        let latency_ns = record.head.ts_ns.saturating_sub(record.syn_ns);
        Ok(Self {
            flow: Flow::new(&record.head)?,
            outcome,
            cause,
            error: match outcome {
                Outcome::Failed | Outcome::Aborted => record.error,
                Outcome::Pending | Outcome::Established => 0,
            },
            latency_us: (outcome != Outcome::Pending && record.syn_ns != 0)
                .then_some(latency_ns / 1000),
            retransmits: record.retransmits,
            fast_open: has(connect_flag::FAST_OPEN),
            mptcp: has(connect_flag::MPTCP),
        })
    }
}

/// Why the owner closed the socket, as far as the kernel knows. How long a program would wait is its own affair if it
/// polls.
fn closed(flags: u8) -> Cause {
    if flags & connect_flag::EXITED != 0 {
        Cause::Exited
    } else if flags & connect_flag::TIMED_OUT != 0 {
        Cause::CallerTimeout
    } else {
        Cause::Closed
    }
}

/// A RST makes it ECONNREFUSED in SYN_SENT and ECONNRESET in SYN_RECV (`tcp_reset`, net/ipv4/tcp_input.c, v6.1 to v6.18).
/// Port unreachable is ECONNREFUSED as well (`icmp_err_convert`, net/ipv4/icmp.c), but there comes no segment.
fn failed(error: u16, flags: u8) -> Option<Cause> {
    if flags & connect_flag::NO_SYN != 0 {
        return Some(Cause::Local);
    }
    Some(match i32::from(error) {
        libc::ECONNRESET => Cause::Rst,
        libc::ECONNREFUSED if flags & connect_flag::ANSWERED != 0 => Cause::Rst,
        libc::ETIMEDOUT => Cause::Timeout,
        // An administrator's (`tcp_abort`, net/ipv4/tcp.c), or no port (`tcp_v4_connect`, net/ipv4/tcp_ipv4.c).
        libc::ECONNABORTED | libc::EADDRNOTAVAIL => Cause::Local,
        // `icmp_err_convert`; `icmpv6_err_convert`, net/ipv6/icmp.c.
        libc::ECONNREFUSED
        | libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::EHOSTDOWN
        | libc::ENONET
        | libc::ENOPROTOOPT
        | libc::EOPNOTSUPP
        | libc::EACCES
        | libc::EPROTO => Cause::Icmp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tcp_ebpf::tcp::AF_INET;

    use super::*;

    fn ended(error: i32, flags: u8) -> (Outcome, Option<Cause>, u16) {
        let connect = Connect::new(&wire::Connect {
            head: wire::Head {
                kind: kind::OUTCOME,
                family: AF_INET,
                ..wire::Head::default()
            },
            error: u16::try_from(error).unwrap(),
            flags,
            ..wire::Connect::default()
        })
        .unwrap();
        (connect.outcome, connect.cause, connect.error)
    }

    #[test]
    fn what_ended_an_attempt_follows_from_error_and_flags() {
        use connect_flag::{ANSWERED, EXITED, NO_SYN, SOFT, TIMED_OUT};
        let failed = |errno: i32, flags, cause| {
            let expected = (Outcome::Failed, cause, errno as u16);
            assert_eq!(ended(errno, flags), expected);
        };
        failed(libc::ECONNREFUSED, ANSWERED, Some(Cause::Rst));
        failed(libc::ECONNREFUSED, 0, Some(Cause::Icmp));
        failed(libc::ECONNRESET, ANSWERED, Some(Cause::Rst));
        failed(libc::EHOSTUNREACH, 0, Some(Cause::Icmp));
        failed(libc::EACCES, 0, Some(Cause::Icmp));
        failed(libc::ETIMEDOUT, TIMED_OUT, Some(Cause::Timeout));
        failed(libc::ECONNABORTED, 0, Some(Cause::Local));
        failed(libc::ENETUNREACH, NO_SYN, Some(Cause::Local));
        failed(libc::ENOMEM, 0, None);
        let aborted = |errno: i32, flags, cause| {
            let expected = (Outcome::Aborted, Some(cause), errno as u16);
            assert_eq!(ended(errno, flags), expected);
        };
        aborted(0, 0, Cause::Closed);
        aborted(0, TIMED_OUT, Cause::CallerTimeout);
        aborted(0, TIMED_OUT | EXITED, Cause::Exited);
        aborted(libc::EHOSTUNREACH, SOFT, Cause::Closed);
        aborted(libc::EHOSTUNREACH, SOFT | EXITED, Cause::Exited);
    }
}
