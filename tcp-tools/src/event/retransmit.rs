//! What TCP sends again.

use tcp_ebpf::{
    tcp::SYN_SENT,
    wire::{self, kind},
};

use super::{DecodeError, Flow, state_name};

/// A segment was sent again, or a tail loss probe is about to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Retransmit {
    /// When, between whom, whose.
    pub flow: Flow,
    /// What is sent.
    pub segment: Segment,
    /// Why.
    pub reason: Reason,
    /// State of the socket.
    pub state: &'static str,
    /// First sequence number; `None` for a SYN-ACK.
    pub seq: Option<u32>,
    /// Payload in bytes; `None` where it is not decided yet.
    pub len_bytes: Option<u32>,
    /// Smoothed round trip.
    pub srtt_us: Option<u32>,
    /// Congestion window in segments.
    pub cwnd: Option<u32>,
    /// How many segments this socket has sent again, this one included.
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

/// Why it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The retransmission timer ran out, or recovery from that goes on.
    Rto,
    /// Duplicate or selective acknowledgements told of a loss.
    Fast,
    /// To find out about the loss of the last segments.
    Probe,
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
}

impl Reason {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rto => "rto",
            Self::Fast => "fast",
            Self::Probe => "probe",
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
        Ok(Self {
            flow: Flow::new(&record.head)?,
            segment,
            reason,
            state,
            seq: (segment != Segment::SynAck).then_some(record.seq),
            len_bytes: (record.head.kind != kind::LOSS_PROBE).then_some(record.length),
            srtt_us: known(record.srtt_us8 / 8),
            cwnd: known(record.cwnd),
            nth: (segment != Segment::SynAck)
                .then_some(record.nth)
                .and_then(known),
        })
    }
}

fn reason(record: &wire::Retransmit) -> Reason {
    /// `TCP_CA_CWR`, `TCP_CA_Recovery`: include/uapi/linux/tcp.h.
    const RECOVERY: [u8; 2] = [2, 3];
    /// `ICSK_TIME_LOSS_PROBE`: include/net/inet_connection_sock.h.
    const LOSS_PROBE: u8 = 5;
    match record.head.kind {
        kind::LOSS_PROBE => Reason::Probe,
        kind::SYNACK => Reason::Rto,
        _ if record.state == SYN_SENT => Reason::Rto,
        _ if record.timer == LOSS_PROBE => Reason::Probe,
        _ if RECOVERY.contains(&record.ca_state) => Reason::Fast,
        _ => Reason::Rto,
    }
}
