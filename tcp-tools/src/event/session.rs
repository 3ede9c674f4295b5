//! A TCP session, and what its record says about it.

use tcp_ebpf::wire::{self, kind, role};

use super::{
    Close, DecodeError, Flow, Side,
    ends::{close, closed_by, reset_may_follow},
    progress::{fin_is_acked, fin_was_sent, inferred_role, rx, tx},
    state_name,
};

/// Which socket it is: one address is given to many, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// Address of the `struct sock`. Never to be shown: it tells where the kernel's memory is.
    pub address: u64,
    /// When it was first seen, `CLOCK_MONOTONIC` in ns; 0 as long as a server's Fast Open handshake lasts.
    pub born_ns: u64,
}

/// Bytes and segments since the trace began, where that can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Application bytes that the peer acknowledged.
    pub tx_bytes: Option<u64>,
    /// Application bytes received.
    pub rx_bytes: Option<u64>,
    /// Segments retransmitted.
    pub retransmits: Option<u32>,
}

/// A TCP session that has ended, or that is open at this moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// When, between whom, whose.
    pub flow: Flow,
    /// Which socket it is.
    pub id: SocketId,
    /// Processes beside the owner that held a descriptor of it when the trace began; `None` if it is younger,
    /// or nobody held it.
    pub others: Option<u32>,
    /// Which end this is, where known.
    pub role: Option<Role>,
    /// Opened before the trace, or its birth was not seen.
    pub partial: bool,
    /// Application bytes that the peer acknowledged, over the whole life of the socket.
    pub tx_bytes: Option<u64>,
    /// Application bytes received, over the whole life of the socket.
    pub rx_bytes: u64,
    /// Of a partial session, `tx_bytes` since the trace began, where its start is known.
    pub tx_trace_bytes: Option<u64>,
    /// Likewise `rx_bytes`.
    pub rx_trace_bytes: Option<u64>,
    /// Likewise `retransmits`.
    pub retransmits_trace: Option<u32>,
    /// From ESTABLISHED, or from SYN_SENT if it never got there. Of a partial session, since the trace
    /// began.
    pub duration_us: Option<u64>,
    /// Of the active end SYN to ESTABLISHED, of the passive one SYN-ACK to ACK.
    pub handshake_us: Option<u64>,
    /// Smoothed round trip.
    pub srtt_us: Option<u32>,
    /// Least round trip.
    pub min_rtt_us: Option<u32>,
    /// Segments retransmitted.
    pub retransmits: u32,
    /// How it ended; `None` while it is open.
    pub close: Option<Close>,
    /// Who ended it: who sent the RST or gave up; of an end in order, who sent the first FIN. `None` where that is
    /// not known.
    pub closed_by: Option<Side>,
    /// A RST may follow, which is how it ended then: see [`Session::reset`].
    pub reset_may_follow: bool,
    /// The errno that the kernel left in the socket; 0 for none.
    pub error: u16,
    /// Its state now; of a session that has ended, the last one before CLOSE.
    pub state: &'static str,
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sent the SYN.
    Client,
    /// It was made by a listener.
    Server,
}

impl Role {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

impl Session {
    /// Whether the session is open still.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.close.is_none()
    }

    /// What it has moved since the trace began.
    #[must_use]
    pub fn moved(&self) -> Moved {
        if self.partial {
            Moved {
                tx_bytes: self.tx_trace_bytes,
                rx_bytes: self.rx_trace_bytes,
                retransmits: self.retransmits_trace,
            }
        } else {
            Moved {
                tx_bytes: self.tx_bytes,
                rx_bytes: Some(self.rx_bytes),
                retransmits: Some(self.retransmits),
            }
        }
    }

    /// The RST that [`Session::reset_may_follow`] announces was sent.
    pub fn reset(&mut self) {
        self.close = Some(Close::RstSent);
        self.closed_by = Some(Side::Local);
    }

    pub(super) fn new(record: &wire::Session) -> Result<Self, DecodeError> {
        let state =
            state_name(record.now.state).ok_or(DecodeError::field("state", record.now.state))?;
        let (role, syn) = role_and_syn(record)?;
        let partial = record.partial != 0;
        // Without a state there is no base: the session's birth was not seen, nor was it seeded.
        let base = (partial && record.base.state != 0).then_some(&record.base);
        let ended = record.head.kind == kind::SESSION;
        let close = ended.then(|| close(record));
        let tx_bytes = syn.map(|syn| tx(&record.now, syn));
        // The same SYN is among the bytes of both, if it is.
        let any_syn = syn.unwrap_or(0);
        let tx_since = |base| tx(&record.now, any_syn).saturating_sub(tx(base, any_syn));
        Ok(Self {
            flow: Flow::new(&record.head)?,
            id: SocketId {
                address: record.id,
                born_ns: match record.opened_ns {
                    0 => record.established_ns,
                    opened_ns => opened_ns,
                },
            },
            others: record.holders.checked_sub(1),
            role,
            partial,
            tx_bytes,
            rx_bytes: rx(&record.now),
            tx_trace_bytes: base.map(tx_since),
            rx_trace_bytes: base.map(|base| rx(&record.now).saturating_sub(rx(base))),
            duration_us: duration_us(record),
            handshake_us: handshake_us(record, role),
            srtt_us: Some(record.srtt_us8 / 8).filter(|us| *us != 0),
            min_rtt_us: Some(record.min_rtt_us).filter(|us| !matches!(us, 0 | &u32::MAX)),
            retransmits: record.now.retransmits,
            retransmits_trace: base
                .map(|base| record.now.retransmits.saturating_sub(base.retransmits)),
            close,
            closed_by: close.and_then(|close| closed_by(record, close)),
            reset_may_follow: ended && reset_may_follow(record),
            error: record.error,
            state,
        })
    }
}

/// Which end this is, and how many of `bytes_acked` are its SYN.
fn role_and_syn(record: &wire::Session) -> Result<(Option<Role>, Option<u64>), DecodeError> {
    let acked = record.now.bytes_acked;
    Ok(match record.role {
        role::CLIENT => (Some(Role::Client), Some(acked.min(1))),
        role::SERVER => (Some(Role::Server), Some(0)),
        role::UNKNOWN => {
            // Whether a FIN is among the sequence numbers in flight is not known.
            let fin_in_flight = fin_was_sent(record.now.state) && !fin_is_acked(&record.now);
            let in_flight = (!fin_in_flight).then_some(record.unacked);
            let sent_once = record.bytes_sent.checked_sub(record.bytes_retrans);
            inferred_role(&record.now, sent_once, in_flight).unzip()
        }
        other => {
            return Err(DecodeError::field("role", other));
        }
    })
}

fn since_us(from_ns: u64, to_ns: u64) -> Option<u64> {
    (from_ns != 0).then(|| to_ns.saturating_sub(from_ns) / 1000)
}

fn duration_us(record: &wire::Session) -> Option<u64> {
    since_us(record.established_ns, record.head.ts_ns)
        .or_else(|| since_us(record.opened_ns, record.head.ts_ns))
}

fn handshake_us(record: &wire::Session, role: Option<Role>) -> Option<u64> {
    match role? {
        Role::Client if record.established_ns != 0 => {
            since_us(record.syn_ns, record.established_ns)
        }
        Role::Client => None,
        Role::Server => Some(u64::from(record.handshake_us8 / 8)).filter(|us| *us != 0),
    }
}

#[cfg(test)]
mod tests {
    use tcp_ebpf::{
        tcp::{AF_INET, ESTABLISHED, LAST_ACK},
        wire::{Progress, flag},
    };

    use super::*;

    /// A server end that has sent 10 bytes and its FIN, and received 20 and the peer's.
    fn served() -> wire::Session {
        wire::Session {
            head: wire::Head {
                kind: kind::SESSION,
                family: AF_INET,
                ts_ns: 9_000_000,
                ..wire::Head::default()
            },
            role: role::SERVER,
            established_ns: 4_000_000,
            bytes_sent: 10,
            now: Progress {
                bytes_acked: 11,
                bytes_received: 21,
                state: LAST_ACK,
                flags: flag::ALL_ACKED | flag::FIN_RECEIVED,
                ..Progress::default()
            },
            ..wire::Session::default()
        }
    }

    fn with(change: impl FnOnce(&mut wire::Session)) -> Session {
        let mut record = served();
        change(&mut record);
        Session::new(&record).unwrap()
    }

    #[test]
    fn bytes_are_those_of_the_application() {
        let server = with(|_| {});
        assert_eq!((server.tx_bytes, server.rx_bytes), (Some(10), 20));
        let client = with(|record| {
            record.role = role::CLIENT;
            record.now.bytes_acked += 1;
        });
        assert_eq!((client.tx_bytes, client.rx_bytes), (Some(10), 20));
        let reset = with(|record| {
            record.now.state = ESTABLISHED;
            record.now.flags = 0;
        });
        assert_eq!((reset.tx_bytes, reset.rx_bytes), (Some(11), 21));
    }

    #[test]
    fn the_role_of_an_old_session_follows_from_its_counters() {
        let server = with(|record| record.role = role::UNKNOWN);
        assert_eq!(
            (server.role, server.tx_bytes),
            (Some(Role::Server), Some(10))
        );
        let client = with(|record| {
            record.role = role::UNKNOWN;
            record.now.bytes_acked += 1;
        });
        assert_eq!(
            (client.role, client.tx_bytes),
            (Some(Role::Client), Some(10))
        );
        let unknown = with(|record| {
            record.role = role::UNKNOWN;
            record.now.bytes_acked += 7;
        });
        assert_eq!((unknown.role, unknown.tx_bytes), (None, None));
    }

    #[test]
    fn an_old_session_knows_what_the_trace_saw() {
        let session = with(|record| {
            record.partial = 1;
            record.base = Progress {
                bytes_acked: 4,
                bytes_received: 5,
                state: ESTABLISHED,
                ..Progress::default()
            };
        });
        assert_eq!(
            (session.tx_trace_bytes, session.rx_trace_bytes),
            (Some(6), Some(15))
        );
        let unseeded = with(|record| record.partial = 1);
        assert_eq!(
            (unseeded.tx_trace_bytes, unseeded.rx_trace_bytes),
            (None, None)
        );
    }
}
