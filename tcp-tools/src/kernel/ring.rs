//! Reads the ring buffer.

use std::{io, time::Duration};

use aya::maps::{Map, MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

use super::Error;

/// Records within one [`PAUSE`] from which on the system counts as busy. Not within one drain: as long as each
/// record wakes the reader, it finds few, however many come.
const BUSY: usize = 16;

/// How long a busy reader lets records gather. While it has not caught up, the kernel wakes nobody:
/// one wake-up per pause instead of one per record, which costs more than all the rest
/// (`ringbuf_commit`, kernel/bpf/ringbuf.c). A quiet system never pauses.
const PAUSE: Duration = Duration::from_millis(4);

/// The ring buffer that the programs write their records to.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
    /// When the drain was that began to count, and the records since.
    recent: (Instant, usize),
    /// Not before this moment, because the last drain found a busy system.
    next_drain: Option<Instant>,
}

impl Ring {
    /// Must be called within a tokio runtime.
    pub(super) fn new(map: MapData) -> Result<Self, Error> {
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(Error::object)?;
        // SAFETY: the map owns its descriptor, and the `AsyncFd` owns the map.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| Error::Ring(error.into()))?;
        Ok(Self {
            ring,
            recent: (Instant::now(), 0),
            next_drain: None,
        })
    }

    /// Returns when there is something to drain. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be waited on.
    pub async fn readable(&mut self) -> io::Result<()> {
        if let Some(moment) = self.next_drain {
            tokio::time::sleep_until(moment).await;
            self.next_drain = None;
        }
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Hands over the records that wait, `limit` of them at most, and returns how many there were.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < limit
            && let Some(record) = self.ring.get_mut().next()
        {
            each(&record);
            count += 1;
        }
        let now = Instant::now();
        if now >= self.recent.0 + PAUSE {
            self.recent = (now, 0);
        }
        self.recent.1 += count;
        if self.recent.1 >= BUSY {
            self.next_drain = Some(now + PAUSE);
        }
        count
    }
}
