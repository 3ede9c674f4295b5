//! What each socket has moved since it was last looked at.
//!
//! The kernel counts for the life of a socket. Here is what was seen of each; the difference is the interval's.
//! All that is added up is such differences, so the sum over a run is what the sockets have moved in it, whatever
//! came between.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
};

use crate::event::{Flow, Moved, Session, SocketId};

/// What moved within an interval: on one socket, or on several that have something in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Throughput {
    /// When the interval ended, between whom, whose; see [`Subject::is_one`](crate::views::Subject::is_one).
    pub flow: Flow,
    /// What it is the sum of; `None` if it is one socket.
    pub sockets: Option<u64>,
    /// Application bytes that the peer acknowledged.
    pub tx_bytes: u64,
    /// Application bytes received.
    pub rx_bytes: u64,
    /// Segments retransmitted.
    pub retransmits: u64,
    /// Smoothed round trip; of several sockets, the longest.
    pub srtt_us: Option<u32>,
    /// State of the socket; of one that was closed, the last one before.
    pub state: Option<&'static str>,
    /// Processes beside the owner that held the socket when the trace began; `None` if it is younger.
    pub others: Option<u32>,
    /// The container that several sockets have in common.
    pub container: Option<Rc<str>>,
}

impl Throughput {
    /// The sum of nothing yet, over sockets that have nothing in common.
    #[must_use]
    pub fn nothing() -> Self {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            flow: Flow {
                ts_ns: 0,
                laddr: nowhere,
                lport: 0,
                raddr: nowhere,
                rport: 0,
                mapped: false,
                netns: 0,
                owner: None,
            },
            sockets: Some(0),
            tx_bytes: 0,
            rx_bytes: 0,
            retransmits: 0,
            srtt_us: None,
            state: None,
            others: None,
            container: None,
        }
    }

    /// Adds what moved on others.
    pub fn add(&mut self, more: &Self) {
        self.sockets = Some(self.sockets.unwrap_or(1) + more.sockets.unwrap_or(1));
        self.tx_bytes += more.tx_bytes;
        self.rx_bytes += more.rx_bytes;
        self.retransmits += more.retransmits;
        self.srtt_us = self.srtt_us.max(more.srtt_us);
    }

    /// Both ways.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tx_bytes + self.rx_bytes
    }
}

/// What has been seen of a socket.
#[derive(Debug, Default)]
struct Seen {
    tx_bytes: u64,
    rx_bytes: u64,
    retransmits: u32,
    /// Number of the interval in which a snapshot showed it last.
    interval: u64,
    /// Number of the interval that has a row of it, and which.
    row: (u64, usize),
}

impl Seen {
    /// Notes that a snapshot has shown it in this interval, and says whether none had.
    fn is_first_in(&mut self, interval: u64) -> bool {
        std::mem::replace(&mut self.interval, interval) != interval
    }

    /// Of a socket whose past is not known, what moved until now is not counted.
    fn first(session: &Session) -> Self {
        if session.moved().rx_bytes.is_some() {
            return Self::default();
        }
        Self {
            tx_bytes: session.tx_bytes.unwrap_or(0),
            rx_bytes: session.rx_bytes,
            retransmits: session.retransmits,
            ..Self::default()
        }
    }
}

/// What it has moved since the trace began, or else in its life.
fn counters(session: &Session) -> Moved {
    match session.moved() {
        Moved { rx_bytes: None, .. } => Moved {
            tx_bytes: session.tx_bytes,
            rx_bytes: Some(session.rx_bytes),
            retransmits: Some(session.retransmits),
        },
        known => known,
    }
}

/// Counts what moves. Sockets that do not are cheap: nothing is kept of them but what was seen.
#[derive(Debug)]
pub(super) struct Tally {
    sockets: HashMap<SocketId, Seen>,
    rows: Vec<Throughput>,
    interval: u64,
    open: u64,
}

/// Rows of one interval. More sockets than this, almost all of them closed, are counted together.
const MAX_ROWS: usize = 65_536;

/// Sockets that no snapshot shows may live still, where nobody can look (their network namespace has no process
/// and no name), or their end was lost. They are forgotten when they are more than those that are shown, and these.
const UNSHOWN: usize = 4096;

impl Default for Tally {
    fn default() -> Self {
        Self {
            sockets: HashMap::new(),
            rows: Vec::new(),
            // 0 is that of no row.
            interval: 1,
            open: 0,
        }
    }
}

impl Tally {
    /// A socket is open, or was closed.
    pub(super) fn add(&mut self, session: &Session) {
        let (interval, id) = (self.interval, session.id);
        if !self.sockets.contains_key(&id) {
            self.rename(id);
        }
        let seen = self
            .sockets
            .entry(id)
            .or_insert_with(|| Seen::first(session));
        let moved = difference(seen, session);
        if moved.bytes() > 0 || moved.retransmits > 0 {
            let (of, at) = seen.row;
            match self.rows.get_mut(at).filter(|_| of == interval) {
                Some(row) => merge(row, moved),
                None => {
                    seen.row = (interval, self.rows.len().min(MAX_ROWS));
                    push(&mut self.rows, moved);
                }
            }
        }
        if session.is_open() {
            self.open += u64::from(seen.is_first_in(interval));
        } else {
            self.open -= u64::from(seen.interval == interval);
            self.sockets.remove(&id);
        }
    }

    /// A socket is open that has moved nothing since it was added. Nothing is known of one that never was: it
    /// is not wanted.
    pub(super) fn idle(&mut self, id: SocketId) {
        if let Some(seen) = self.sockets.get_mut(&id) {
            self.open += u64::from(seen.is_first_in(self.interval));
        } else if self.rename(id) {
            self.idle(id);
        }
    }

    /// A socket gets its time of birth at the end of a Fast Open handshake. False if it is another.
    fn rename(&mut self, id: SocketId) -> bool {
        let before = self.sockets.remove(&SocketId { born_ns: 0, ..id });
        before.map(|seen| self.sockets.insert(id, seen)).is_some()
    }

    /// Ends the interval: its number, what moved, and how many sockets were open. `rows` is taken for its memory.
    pub(super) fn end_interval(
        &mut self,
        mut rows: Vec<Throughput>,
    ) -> (u64, Vec<Throughput>, u64) {
        rows.clear();
        let rows = std::mem::replace(&mut self.rows, rows);
        let open = std::mem::take(&mut self.open);
        let shown = usize::try_from(open).unwrap_or(usize::MAX);
        if self.sockets.len().saturating_sub(shown) > shown.saturating_add(UNSHOWN) {
            self.sockets
                .retain(|_, seen| seen.interval == self.interval);
        }
        let interval = self.interval;
        self.interval += 1;
        (interval, rows, open)
    }
}

/// What it has moved since it was last seen. What is not known now may be next time.
fn difference(seen: &mut Seen, session: &Session) -> Throughput {
    fn advance<T: Copy + Ord + Default + std::ops::Sub<Output = T>>(
        seen: &mut T,
        now: Option<T>,
    ) -> T {
        let Some(now) = now.filter(|now| *now > *seen) else {
            return T::default();
        };
        now - std::mem::replace(seen, now)
    }
    let moved = counters(session);
    Throughput {
        flow: session.flow.clone(),
        sockets: None,
        tx_bytes: advance(&mut seen.tx_bytes, moved.tx_bytes),
        rx_bytes: advance(&mut seen.rx_bytes, moved.rx_bytes),
        retransmits: advance(&mut seen.retransmits, moved.retransmits).into(),
        srtt_us: session.srtt_us,
        state: Some(session.state),
        others: session.others,
        container: None,
    }
}

/// The socket was open, and is closed in the same interval; or it is the row of all that are too many.
fn merge(row: &mut Throughput, more: Throughput) {
    if row.sockets.is_some() {
        return row.add(&Throughput {
            sockets: Some(0),
            ..more
        });
    }
    *row = Throughput {
        tx_bytes: row.tx_bytes + more.tx_bytes,
        rx_bytes: row.rx_bytes + more.rx_bytes,
        retransmits: row.retransmits + more.retransmits,
        ..more
    };
}

fn push(rows: &mut Vec<Throughput>, row: Throughput) {
    if rows.len() < MAX_ROWS {
        return rows.push(row);
    }
    if rows.len() == MAX_ROWS {
        rows.push(Throughput::nothing());
    }
    rows[MAX_ROWS].add(&row);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Close;

    /// A socket that has received this much since it was born at `born_ns`.
    fn socket(born_ns: u64, rx_bytes: u64) -> Session {
        Session {
            flow: Throughput::nothing().flow,
            id: SocketId {
                address: 1,
                born_ns,
            },
            others: None,
            role: None,
            partial: false,
            tx_bytes: None,
            rx_bytes,
            tx_trace_bytes: None,
            rx_trace_bytes: None,
            retransmits_trace: None,
            duration_us: None,
            handshake_us: None,
            srtt_us: None,
            min_rtt_us: None,
            retransmits: 0,
            close: None,
            closed_by: None,
            reset_may_follow: false,
            error: 0,
            state: "ESTABLISHED",
        }
    }

    fn closed(session: Session) -> Session {
        Session {
            close: Some(Close::Fin),
            ..session
        }
    }

    /// Bytes received of each row, and how many sockets are open.
    fn end(tally: &mut Tally) -> (Vec<u64>, u64) {
        let (_, rows, open) = tally.end_interval(Vec::new());
        (rows.iter().map(|row| row.rx_bytes).collect(), open)
    }

    #[test]
    fn an_interval_has_what_came_since_the_last_one() {
        let mut tally = Tally::default();
        tally.add(&socket(5, 100));
        assert_eq!(end(&mut tally), (vec![100], 1));
        tally.add(&socket(5, 100));
        assert_eq!(end(&mut tally), (vec![], 1));
        tally.add(&socket(5, 130));
        tally.add(&closed(socket(5, 137)));
        assert_eq!(end(&mut tally), (vec![37], 0), "one row");
        assert!(tally.sockets.is_empty());
    }

    #[test]
    fn idle_sockets_are_open_if_they_are_wanted() {
        let mut tally = Tally::default();
        tally.add(&socket(5, 100));
        end(&mut tally);
        let id = socket(5, 0).id;
        tally.idle(id);
        tally.idle(id);
        tally.idle(SocketId { address: 2, ..id });
        assert_eq!(end(&mut tally), (vec![], 1));
        tally.idle(id);
        tally.add(&closed(socket(5, 101)));
        assert_eq!(end(&mut tally), (vec![1], 0));
    }

    #[test]
    fn an_address_is_given_to_one_after_another() {
        let mut tally = Tally::default();
        tally.add(&socket(5, 100));
        assert_eq!(end(&mut tally), (vec![100], 1));
        // The snapshot shows the next one before the end of the one before it is told.
        tally.add(&socket(9, 3));
        tally.add(&closed(socket(5, 110)));
        assert_eq!(end(&mut tally), (vec![3, 10], 1));
    }

    #[test]
    fn bytes_that_are_not_known_now_may_be_later() {
        let mut tally = Tally::default();
        let sent = |tx_bytes| Session {
            tx_bytes,
            ..socket(5, 0)
        };
        let mut tx = |session: &Session| {
            tally.add(session);
            let (_, rows, _) = tally.end_interval(Vec::new());
            rows.iter().map(|row| row.tx_bytes).sum::<u64>()
        };
        assert_eq!(tx(&sent(Some(10))), 10);
        assert_eq!(tx(&sent(None)), 0);
        assert_eq!(tx(&closed(sent(Some(25)))), 15);
    }

    #[test]
    fn a_socket_of_unknown_past_counts_from_when_it_is_seen() {
        let mut tally = Tally::default();
        let partial = |rx_bytes| Session {
            partial: true,
            ..socket(5, rx_bytes)
        };
        tally.add(&partial(1000));
        assert_eq!(end(&mut tally), (vec![], 1));
        tally.add(&partial(1007));
        assert_eq!(end(&mut tally), (vec![7], 1));
        tally.add(&closed(partial(1008)));
        assert_eq!(end(&mut tally), (vec![1], 0));
    }

    #[test]
    fn a_fast_open_server_is_born_late() {
        let mut tally = Tally::default();
        tally.add(&socket(0, 10));
        assert_eq!(end(&mut tally), (vec![10], 1));
        tally.idle(socket(7, 10).id);
        tally.add(&socket(7, 12));
        assert_eq!(end(&mut tally), (vec![2], 1));
    }

    #[test]
    fn too_many_rows_are_one() {
        let mut tally = Tally::default();
        let many = MAX_ROWS as u64 + 3;
        for born_ns in 1..=many {
            tally.add(&closed(socket(born_ns, 2)));
        }
        let (_, rows, _) = tally.end_interval(Vec::new());
        assert_eq!(rows.len(), MAX_ROWS + 1);
        assert_eq!(
            (rows[MAX_ROWS].sockets, rows[MAX_ROWS].rx_bytes),
            (Some(3), 6)
        );
        assert_eq!(rows.iter().map(|row| row.rx_bytes).sum::<u64>(), 2 * many);
    }

    #[test]
    fn sockets_that_nobody_shows_any_more_are_forgotten() {
        let mut tally = Tally::default();
        for born_ns in 1..=2 * UNSHOWN as u64 {
            tally.add(&socket(born_ns, 1));
        }
        end(&mut tally);
        tally.add(&socket(1, 2));
        assert_eq!(end(&mut tally), (vec![1], 1));
        assert_eq!(tally.sockets.len(), 1);
        tally.add(&socket(1, 2));
        assert_eq!(end(&mut tally), (vec![], 1));
    }
}
