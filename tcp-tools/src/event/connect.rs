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
    /// It failed with this errno.
    Failed(u16),
    /// The socket was closed before there was an answer.
    Aborted,
}

impl Outcome {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Established => "established",
            Self::Failed(_) => "failed",
            Self::Aborted => "aborted",
        }
    }

    /// The errno that it failed with; 0 for none.
    #[must_use]
    pub fn error(self) -> u16 {
        if let Self::Failed(errno) = self {
            errno
        } else {
            0
        }
    }
}

impl Connect {
    pub(super) fn new(record: &wire::Connect) -> Result<Self, DecodeError> {
        let outcome = match (record.head.kind, record.established, record.error) {
            (kind::ATTEMPT, ..) => Outcome::Pending,
            (_, 0, 0) => Outcome::Aborted,
            (_, 0, errno) => Outcome::Failed(errno),
            _ => Outcome::Established,
        };
        let latency_ns = record.head.ts_ns.saturating_sub(record.syn_ns);
        Ok(Self {
            flow: Flow::new(&record.head)?,
            outcome,
            latency_us: (outcome != Outcome::Pending && record.syn_ns != 0)
                .then_some(latency_ns / 1000),
            retransmits: record.retransmits,
            fast_open: record.flags & connect_flag::FAST_OPEN != 0,
            mptcp: record.flags & connect_flag::MPTCP != 0,
        })
    }
}
