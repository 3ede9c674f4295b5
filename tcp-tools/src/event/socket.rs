//! A socket as it is at one moment.

use tcp_ebpf::{
    tcp::{LISTEN, SYN_SENT, State},
    wire::{self, form, timer},
};

use super::{
    DecodeError, Flow, Role,
    progress::{fin_is_acked, fin_was_sent, inferred_role, rx, tx},
    state_name,
};

/// A TCP socket as it is at one moment, in whatever state.
#[derive(Clone, Debug, PartialEq)]
pub struct Socket {
    /// When, between whom, whose; the owner holds a descriptor of it.
    pub flow: Flow,
    /// Lets the filters through. Others are listeners that a view has asked for.
    pub selected: bool,
    /// One of the eleven that /proc/net/tcp has; [`state_name`] gives its name.
    pub state: State,
    /// Bytes received and not read; of a listener, connections that wait to be accepted.
    pub recv_q: u32,
    /// Bytes not acknowledged, a FIN included; of a listener, connections that may wait.
    pub send_q: u32,
    /// The timer that is set.
    pub timer: Option<Timer>,
    /// What a connection has besides; not those of which the kernel keeps but a stub: unfinished handshakes,
    /// TIME_WAIT.
    pub stream: Option<Stream>,
    /// User that it belongs to; of a handshake, its listener.
    pub uid: Option<u32>,
    /// Inode number of its descriptor's file.
    pub inode: Option<u64>,
    /// The kernel's own name of it, if somebody has asked for that.
    pub cookie: Option<u64>,
    /// cgroup v2 id of the socket itself, which is not always that of the process.
    pub cgroup_id: Option<u64>,
    /// The owner's lowest descriptor of it.
    pub fd: Option<u32>,
    /// Processes beside the owner that hold descriptors of it.
    pub others: Option<u32>,
}

/// A timer of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// As `ss` calls it.
    pub name: &'static str,
    /// Time until it strikes.
    pub left_us: u64,
    /// How often it has struck in a row.
    pub retransmits: u8,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Which end this is, where that can be told.
    pub role: Option<Role>,
    /// Application bytes that the peer acknowledged, where that can be told.
    pub tx_bytes: Option<u64>,
    /// Application bytes received.
    pub rx_bytes: u64,
    /// Payload bytes sent, those sent again included.
    pub sent_bytes: u64,
    /// Payload bytes sent again.
    pub retrans_bytes: u64,
    /// Smoothed round trip.
    pub srtt_us: Option<u32>,
    /// Its mean deviation.
    pub rttvar_us: Option<u32>,
    /// Least round trip.
    pub min_rtt_us: Option<u32>,
    /// Congestion window in segments.
    pub cwnd: u32,
    /// Largest segment.
    pub mss_bytes: u32,
    /// Segments retransmitted.
    pub retransmits: u32,
}

impl Socket {
    pub(super) fn new(record: &wire::Socket) -> Result<Self, DecodeError> {
        let state = record.now.state;
        state_name(state).ok_or(DecodeError::field("state", state))?;
        let is_full = match record.form {
            form::FULL => true,
            form::REQUEST | form::TIME_WAIT => false,
            other => return Err(DecodeError::field("form", other)),
        };
        Ok(Self {
            flow: Flow::new(&record.head)?,
            selected: record.selected != 0,
            state,
            recv_q: record.recv_q,
            send_q: record.send_q,
            timer: timer(record)?,
            stream: (is_full && state != LISTEN).then(|| Stream::new(record)),
            uid: (record.form != form::TIME_WAIT).then_some(record.uid),
            inode: known(record.inode),
            cookie: known(record.cookie),
            cgroup_id: known(record.cgroup_id),
            fd: None,
            others: None,
        })
    }

    /// Whether it has, or may get, another end.
    #[must_use]
    pub fn has_remote(&self) -> bool {
        self.flow.rport != 0
    }
}

impl Stream {
    fn new(record: &wire::Socket) -> Self {
        let (role, tx_bytes) = role_and_tx(record);
        Self {
            role,
            tx_bytes,
            rx_bytes: rx(&record.now),
            sent_bytes: record.bytes_sent,
            retrans_bytes: record.bytes_retrans,
            srtt_us: Some(record.srtt_us8 / 8).filter(|us| *us != 0),
            // Set to a guess of a second before the first sample (`tcp_init_sock`, net/ipv4/tcp.c).
            rttvar_us: Some(record.mdev_us4 / 4).filter(|_| record.srtt_us8 != 0),
            min_rtt_us: Some(record.min_rtt_us).filter(|us| !matches!(us, 0 | &u32::MAX)),
            cwnd: record.cwnd,
            mss_bytes: record.mss,
            retransmits: record.retransmits,
        }
    }
}

fn role_and_tx(record: &wire::Socket) -> (Option<Role>, Option<u64>) {
    if record.now.state == SYN_SENT {
        return (Some(Role::Client), Some(0));
    }
    let fin_waits = fin_was_sent(record.now.state) && !fin_is_acked(&record.now);
    // The FIN is the last in the send queue.
    let fin_in_flight = fin_waits && record.unacked == record.send_q;
    let in_flight = record.unacked.checked_sub(u32::from(fin_in_flight));
    let sent_once = record.bytes_sent.checked_sub(record.bytes_retrans);
    inferred_role(&record.now, sent_once, in_flight)
        .map(|(role, syn)| (role, tx(&record.now, syn)))
        .unzip()
}

fn timer(record: &wire::Socket) -> Result<Option<Timer>, DecodeError> {
    let name = match record.timer {
        timer::OFF => return Ok(None),
        timer::ON => "on",
        timer::KEEPALIVE => "keepalive",
        timer::TIME_WAIT => "timewait",
        timer::PERSIST => "persist",
        other => return Err(DecodeError::field("timer", other)),
    };
    Ok(Some(Timer {
        name,
        left_us: record.timer_us,
        retransmits: record.timer_retransmits,
    }))
}

fn known(id: u64) -> Option<u64> {
    (id != 0).then_some(id)
}

#[cfg(test)]
mod tests {
    use tcp_ebpf::{
        tcp::{AF_INET, ESTABLISHED, FIN_WAIT1, TIME_WAIT},
        wire::{Progress, flag, kind},
    };

    use super::*;

    /// A client that has sent 10 bytes, of which 4 are acknowledged, and received 20.
    fn client() -> wire::Socket {
        wire::Socket {
            head: wire::Head {
                kind: kind::SOCKET,
                family: AF_INET,
                rport: 80,
                ..wire::Head::default()
            },
            now: Progress {
                bytes_acked: 5,
                bytes_received: 20,
                state: ESTABLISHED,
                ..Progress::default()
            },
            bytes_sent: 12,
            bytes_retrans: 2,
            unacked: 6,
            send_q: 6,
            form: form::FULL,
            ..wire::Socket::default()
        }
    }

    fn stream(change: impl FnOnce(&mut wire::Socket)) -> Stream {
        let mut record = client();
        change(&mut record);
        Socket::new(&record).unwrap().stream.unwrap()
    }

    #[test]
    fn bytes_are_those_of_the_application() {
        let open = stream(|_| {});
        assert_eq!(
            (open.role, open.tx_bytes, open.rx_bytes),
            (Some(Role::Client), Some(4), 20)
        );
        let server = stream(|record| record.now.bytes_acked -= 1);
        assert_eq!(
            (server.role, server.tx_bytes),
            (Some(Role::Server), Some(4))
        );
        let unclear = stream(|record| record.now.bytes_acked += 7);
        assert_eq!((unclear.role, unclear.tx_bytes), (None, None));
    }

    #[test]
    fn a_fin_is_no_byte_of_the_application() {
        let unsent = stream(|record| {
            record.now.state = FIN_WAIT1;
            record.send_q += 1;
        });
        assert_eq!(
            (unsent.role, unsent.tx_bytes),
            (Some(Role::Client), Some(4))
        );
        let in_flight = stream(|record| {
            record.now.state = FIN_WAIT1;
            record.send_q += 1;
            record.unacked += 1;
        });
        assert_eq!(in_flight, unsent);
        let acked = stream(|record| {
            record.now.state = FIN_WAIT1;
            record.now.flags = flag::ALL_ACKED;
            record.now.bytes_acked = 12;
            (record.send_q, record.unacked) = (0, 0);
        });
        assert_eq!((acked.role, acked.tx_bytes), (Some(Role::Client), Some(10)));
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let stub = Socket::new(&wire::Socket {
            now: Progress {
                state: TIME_WAIT,
                ..Progress::default()
            },
            form: form::TIME_WAIT,
            timer: timer::TIME_WAIT,
            timer_us: 7,
            ..client()
        })
        .unwrap();
        assert_eq!((stub.uid, stub.inode, stub.cookie), (None, None, None));
        assert_eq!(stub.stream, None);
        assert_eq!(stub.timer.map(|timer| timer.left_us), Some(7));
        let listener = Socket::new(&wire::Socket {
            now: Progress {
                state: LISTEN,
                ..Progress::default()
            },
            ..client()
        });
        assert_eq!(listener.unwrap().stream, None);
    }

    #[test]
    fn values_without_a_meaning_are_errors() {
        for change in [
            |record: &mut wire::Socket| record.now.state = 0,
            |record: &mut wire::Socket| record.form = 4,
            |record: &mut wire::Socket| record.timer = 5,
            |record: &mut wire::Socket| record.head.family = 1,
        ] {
            let mut record = client();
            change(&mut record);
            assert!(matches!(
                Socket::new(&record),
                Err(DecodeError::Field { .. })
            ));
        }
    }
}
