//! Joins the end of a session and the RST that follows it.
//!
//! Some sockets are closed before the kernel sends their RST, in the same system call or softirq. Their sessions wait
//! here until it is reported, or for [`GRACE`] if none comes. All other events pass.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::clock::monotonic_ns;
use crate::event::{Event, Reset, Session};

/// Much more than a processor takes from the one to the other, so that a busy host of a virtual machine does not
/// count either.
const GRACE: Duration = Duration::from_millis(250);
const GRACE_NS: u64 = GRACE.as_millis() as u64 * 1_000_000;

/// More than this do not wait: the oldest goes first.
const AT_MOST: usize = 16_384;

/// Sessions that a RST may follow, oldest first.
#[derive(Default)]
pub(super) struct Resets {
    waiting: VecDeque<Session>,
}

impl Resets {
    /// What there is to show now that `event` has come.
    pub(super) fn take(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Session(session) if session.reset_may_follow => {
                self.waiting.push_back(session);
                let is_full = self.waiting.len() > AT_MOST;
                is_full.then(|| self.pop()).flatten()
            }
            Event::Reset(reset) => self.answer(&reset),
            other => Some(other),
        }
    }

    /// The session that `reset` has ended: the youngest, as an address is used again.
    fn answer(&mut self, reset: &Reset) -> Option<Event> {
        let at = self.waiting.iter().rposition(|session| {
            (session.id.address, session.flow.lport, session.flow.rport)
                == (reset.address, reset.lport, reset.rport)
        })?;
        let mut session = self.waiting.remove(at)?;
        session.reset();
        Some(Event::Session(session))
    }

    /// The next session that has waited long enough at `now_ns`, on `CLOCK_MONOTONIC`. All records that were written
    /// until then must have been taken.
    pub(super) fn expired(&mut self, now_ns: u64) -> Option<Event> {
        let oldest = self.waiting.front()?;
        let is_over = oldest.flow.ts_ns.saturating_add(GRACE_NS) <= now_ns;
        is_over.then(|| self.pop()).flatten()
    }

    /// The next session, however long it has waited: no more records come.
    pub(super) fn pop(&mut self) -> Option<Event> {
        self.waiting.pop_front().map(Event::Session)
    }

    /// When the next one will have waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        let waited = monotonic_ns().saturating_sub(self.waiting.front()?.flow.ts_ns);
        Some(Instant::now() + GRACE.saturating_sub(Duration::from_nanos(waited)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Close, Side, decode};
    use tcp_ebpf::{
        tcp::{AF_INET, FIN_WAIT2},
        wire::{self, flag, kind},
    };

    /// A session that ended in FIN_WAIT2, of the socket at address `id`.
    fn session(id: u64, ts_ms: u64, flags: u8) -> Event {
        let mut bytes = vec![0; size_of::<wire::Session>()];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &[kind::SESSION]);
        put(
            std::mem::offset_of!(wire::Head, family),
            &AF_INET.to_ne_bytes(),
        );
        put(
            std::mem::offset_of!(wire::Head, lport),
            &80_u16.to_ne_bytes(),
        );
        put(
            std::mem::offset_of!(wire::Head, ts_ns),
            &(ts_ms * 1_000_000).to_ne_bytes(),
        );
        put(std::mem::offset_of!(wire::Session, id), &id.to_ne_bytes());
        let now = std::mem::offset_of!(wire::Session, now);
        put(
            now + std::mem::offset_of!(wire::Progress, state),
            &[FIN_WAIT2],
        );
        put(now + std::mem::offset_of!(wire::Progress, flags), &[flags]);
        decode(&bytes).unwrap()
    }

    fn waiting(id: u64, ts_ms: u64) -> Event {
        session(id, ts_ms, flag::ORPHANED | flag::RST_MAY_FOLLOW)
    }

    fn reset(address: u64, lport: u16) -> Event {
        Event::Reset(Reset {
            ts_ns: 0,
            address,
            lport,
            rport: 0,
        })
    }

    fn closes(event: Option<Event>) -> Option<(u64, Close, Option<Side>)> {
        match event? {
            Event::Session(it) => Some((it.id.address, it.close?, it.closed_by)),
            other => panic!("{other:?}"),
        }
    }

    const LOCAL: Option<Side> = Some(Side::Local);

    #[test]
    fn other_sessions_pass_at_once() {
        let mut resets = Resets::default();
        for flags in [flag::ORPHANED, flag::FIN_RECEIVED | flag::RST_MAY_FOLLOW] {
            let passed = closes(resets.take(session(1, 0, flags)));
            assert_eq!(passed, Some((1, Close::Fin, LOCAL)));
        }
        assert_eq!(resets.due(), None);
    }

    #[test]
    fn a_reset_ends_the_session_that_waits_for_it() {
        let mut resets = Resets::default();
        assert_eq!(resets.take(waiting(1, 0)), None);
        assert_eq!(resets.take(waiting(2, 0)), None);
        assert!(resets.due().is_some());
        let sent = |id| Some((id, Close::RstSent, LOCAL));
        assert_eq!(closes(resets.take(reset(1, 80))), sent(1));
        assert_eq!(resets.take(reset(1, 80)), None);
        assert_eq!(resets.take(reset(2, 81)), None);
        assert_eq!(closes(resets.pop()), Some((2, Close::Fin, LOCAL)));
        assert_eq!(resets.pop(), None);
    }

    #[test]
    fn of_two_at_one_address_the_younger_has_sent_it() {
        let mut resets = Resets::default();
        assert_eq!(resets.take(waiting(1, 10)), None);
        assert_eq!(resets.take(waiting(1, 20)), None);
        assert!(resets.take(reset(1, 80)).is_some());
        assert_eq!(resets.expired(259_000_000), None);
        assert_eq!(
            closes(resets.expired(260_000_000)),
            Some((1, Close::Fin, LOCAL))
        );
        assert_eq!(resets.expired(u64::MAX), None);
    }

    #[test]
    fn no_more_than_a_bounded_number_waits() {
        let mut resets = Resets::default();
        for id in 0..AT_MOST as u64 {
            assert_eq!(resets.take(waiting(id, 0)), None);
        }
        assert_eq!(
            closes(resets.take(waiting(AT_MOST as u64, 0))),
            Some((0, Close::Fin, LOCAL))
        );
    }
}
