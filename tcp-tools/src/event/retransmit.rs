//! What TCP sends again.

use tcp_ebpf::{
    tcp::{SYN_RECV, SYN_SENT},
    wire::{
        self, kind,
        retransmit_flag::{KNOWN, LOST, MTU_REDUCED, NO_UNDO, QUEUE, TIMER, ZERO_WINDOW},
    },
};

use super::{DecodeError, Flow, errno_name, state_name};

/// A segment was sent again, or a tail loss probe was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Retransmit {
    /// When, between whom, whose.
    pub flow: Flow,
    /// What is sent.
    pub segment: Segment,
    /// Why.
    pub reason: Reason,
    /// Why it has not left the host.
    pub error: Option<&'static str>,
    /// State of the socket.
    pub state: &'static str,
    /// First sequence number; `None` for a SYN-ACK.
    pub seq: Option<u32>,
    /// Payload in bytes.
    pub len_bytes: u32,
    /// How many segments it goes out as; `None` if not known.
    pub segments: Option<u16>,
    /// Smoothed round trip.
    pub srtt_us: Option<u32>,
    /// Congestion window in segments.
    pub cwnd: Option<u32>,
    /// How many segments this socket has sent again, this one included; `None` where it is none of them.
    pub nth: Option<u32>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Data, or a FIN.
    Data,
    /// A SYN.
    Syn,
    /// A SYN-ACK.
    SynAck,
    /// A tail loss probe.
    Probe,
}

/// Why it is sent: what the kernel's own counters distinguish, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The retransmission timer expired (`TCPTimeouts`), or that of a SYN-ACK.
    Rto,
    /// Acknowledgements showed a loss (`TCPFastRetrans`).
    Fast,
    /// Recovery from an expired timer (`TCPSlowStartRetrans`).
    SlowStart,
    /// To find out about the loss of the last segments (`TCPLossProbes`).
    Probe,
    /// The path MTU became smaller; the kernel counts these under `TCPSlowStartRetrans` as well.
    Mtu,
    /// The peer has closed its window over data that was sent.
    ZeroWindow,
    /// The client sent its SYN again.
    DupSyn,
    /// It cannot be determined.
    Unknown,
}

impl Segment {
    /// As it is shown: `R`, `S`, `A`, `L`.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Data => "R",
            Self::Syn => "S",
            Self::SynAck => "A",
            Self::Probe => "L",
        }
    }

    /// The letter of one that has not left the host.
    #[must_use]
    pub fn failed_letter(self) -> &'static str {
        match self {
            Self::Data => "R!",
            Self::Syn => "S!",
            Self::SynAck => "A!",
            Self::Probe => "L!",
        }
    }
}

impl Reason {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rto => "rto",
            Self::Fast => "fast",
            Self::SlowStart => "slow_start",
            Self::Probe => "probe",
            Self::Mtu => "mtu",
            Self::ZeroWindow => "zero_window",
            Self::DupSyn => "dup_syn",
            Self::Unknown => "unknown",
        }
    }
}

impl Retransmit {
    pub(super) fn new(record: &wire::Retransmit) -> Result<Self, DecodeError> {
        let state = state_name(record.state).ok_or(DecodeError::field("state", record.state))?;
        let reason = reason(record);
        let segment = match record.head.kind {
            kind::SYNACK => Segment::SynAck,
            kind::LOSS_PROBE => Segment::Probe,
            _ if record.state == SYN_SENT => Segment::Syn,
            _ if reason == Reason::Probe => Segment::Probe,
            _ => Segment::Data,
        };
        let known = |value: u32| Some(value).filter(|value| *value != 0);
        // Some failures come before the segment is counted, and new data is no retransmit.
        let is_counted = record.head.kind == kind::RETRANSMIT && record.error == 0;
        Ok(Self {
            flow: Flow::new(&record.head)?,
            segment,
            reason,
            error: error(record.error),
            state,
            seq: (segment != Segment::SynAck).then_some(record.seq),
            len_bytes: record.length,
            segments: Some(record.segments).filter(|count| *count != 0),
            srtt_us: known(record.srtt_us8 / 8),
            cwnd: known(record.cwnd),
            nth: is_counted.then_some(record.nth).and_then(known),
        })
    }
}

/// Errnos are negative; what the queueing discipline answered is not (`net_xmit_eval()`, include/linux/netdevice.h).
fn error(number: i16) -> Option<&'static str> {
    match number {
        0 => None,
        1.. => Some("NET_XMIT_DROP"),
        errno => Some(errno_name(errno.unsigned_abs()).unwrap_or("unknown")),
    }
}

fn reason(record: &wire::Retransmit) -> Reason {
    let has = |flag: u8| record.flags & flag != 0;
    match record.head.kind {
        kind::LOSS_PROBE => Reason::Probe,
        _ if !has(KNOWN) => Reason::Unknown,
        kind::SYNACK if has(TIMER) => Reason::Rto,
        kind::SYNACK => Reason::DupSyn,
        _ => sender(record, has),
    }
}

/// Which of its callers `__tcp_retransmit_skb()` has (net/ipv4, v5.8 to v6.18):
///
/// - `tcp_send_loss_probe()`, which runs while its timer is pending still, and sends a segment that is not marked as
///   lost. All others send what is.
/// - `tcp_xmit_retransmit_queue()`, which first sets `retransmit_skb_hint`.
/// - `tcp_retransmit_timer()`, which first calls `tcp_enter_loss()`, and that clears the hint.
///
/// `icsk_pending` alone is not enough: what is pending there has not expired.
fn sender(record: &wire::Retransmit, has: impl Fn(u8) -> bool) -> Reason {
    /// `ICSK_TIME_LOSS_PROBE`, include/net/inet_connection_sock.h.
    const LOSS_PROBE: u8 = 5;
    /// `TCP_CA_Loss`, include/uapi/linux/tcp.h.
    const LOSS: u8 = 4;
    match (has(LOST), has(QUEUE), record.ca_state) {
        (false, ..) if record.timer == LOSS_PROBE => Reason::Probe,
        (true, true, state) if state != LOSS => Reason::Fast,
        (true, true, LOSS) if !has(NO_UNDO) => Reason::SlowStart,
        // tcp_non_congestion_loss_retransmit() enters Loss without anything to undo, for a smaller path MTU and for a Fast
        // Open whose data was not accepted. So does a timer that expires in CWR: after a smaller path MTU this is read as
        // that, and else it is unknown.
        (true, true, LOSS) if has(MTU_REDUCED) => Reason::Mtu,
        (true, false, LOSS) if record.timer != LOSS_PROBE => {
            let is_open = ![SYN_SENT, SYN_RECV].contains(&record.state);
            if is_open && has(ZERO_WINDOW) {
                Reason::ZeroWindow
            } else {
                Reason::Rto
            }
        }
        _ => Reason::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PENDING: [u8; 4] = [0, 1, 5, 6];

    fn reason_of(flags: u8, ca_state: u8, timer: u8) -> Reason {
        reason(&wire::Retransmit {
            head: wire::Head {
                kind: kind::RETRANSMIT,
                ..Default::default()
            },
            state: 1,
            flags,
            ca_state,
            timer,
            ..Default::default()
        })
    }

    #[test]
    fn a_pending_probe_timer_does_not_make_a_probe() {
        for timer in PENDING {
            for recovery in [1, 2, 3] {
                assert_eq!(
                    reason_of(KNOWN | LOST | QUEUE, recovery, timer),
                    Reason::Fast
                );
            }
            assert_eq!(reason_of(KNOWN | LOST | QUEUE, 4, timer), Reason::SlowStart);
        }
        for ca_state in 0..=4 {
            assert_eq!(reason_of(KNOWN, ca_state, 5), Reason::Probe);
            assert_eq!(reason_of(KNOWN | QUEUE, ca_state, 5), Reason::Probe);
        }
    }

    #[test]
    fn loss_without_anything_to_undo_is_no_congestion() {
        let queue = KNOWN | LOST | QUEUE | NO_UNDO;
        assert_eq!(reason_of(queue | MTU_REDUCED, 4, 1), Reason::Mtu);
        assert_eq!(reason_of(queue, 4, 1), Reason::Unknown);
    }

    #[test]
    fn timer_may_probe_a_closed_window() {
        assert_eq!(reason_of(KNOWN | LOST, 4, 0), Reason::Rto);
        assert_eq!(
            reason_of(KNOWN | LOST | ZERO_WINDOW, 4, 0),
            Reason::ZeroWindow
        );
    }

    #[test]
    fn what_fits_nothing_is_unknown() {
        for timer in PENDING {
            assert_eq!(reason_of(LOST | QUEUE, 3, timer), Reason::Unknown);
        }
        assert_eq!(reason_of(KNOWN, 3, 1), Reason::Unknown);
        assert_eq!(reason_of(KNOWN | LOST, 3, 1), Reason::Unknown);
        assert_eq!(reason_of(KNOWN | LOST, 4, 5), Reason::Unknown);
    }

    #[test]
    fn failures_have_names() {
        for (number, name) in [
            (0, None),
            (1, Some("NET_XMIT_DROP")),
            (-1, Some("EPERM")),
            (-16, Some("EBUSY")),
            (-11, Some("EAGAIN")),
            (-4095, Some("unknown")),
        ] {
            assert_eq!(error(number), name, "{number}");
        }
    }
}
