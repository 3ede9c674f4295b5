//! Snapshots within a trace: what is open once an interval.

use tokio::time::Instant;

use super::Error;
use crate::{
    event::{DecodeError, Event, decode_all},
    kernel::Tracer,
    views::Pace,
};

/// When stock is taken, and what of.
pub(super) struct Stock {
    pace: Pace,
    pub(super) next: Instant,
    taken: u64,
    /// The last snapshot; kept for its memory.
    records: Vec<u8>,
}

impl Stock {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            next: Instant::now() + pace.every,
            taken: 0,
            records: Vec::new(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.pace.count == Some(self.taken)
    }

    /// Shows every open socket to `each`.
    pub(super) fn take(
        &mut self,
        tracer: &Tracer,
        each: impl FnMut(Result<Event, DecodeError>),
    ) -> Result<(), Error> {
        let start = Instant::now();
        self.records.clear();
        tracer.open_sockets(&mut self.records)?;
        let read = start.elapsed();
        decode_all(&self.records).for_each(each);
        log::debug!(
            "snapshot: {} kB read in {read:?}, counted in {:?}",
            self.records.len() / 1000,
            start.elapsed() - read
        );
        self.taken += 1;
        while self.next <= Instant::now() {
            self.next += self.pace.every;
        }
        Ok(())
    }
}
