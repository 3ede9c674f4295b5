//! The kernel's clock, and that of people.

use std::time::{SystemTime, UNIX_EPOCH};

/// Relates the kernel's clock to those of people.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start_ns: u64,
    offset_ns: u64,
}

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        let mut clock = Self {
            start_ns: monotonic_ns(),
            offset_ns: 0,
        };
        clock.adjust();
        clock
    }

    /// The wall clock may have been set meanwhile.
    pub(super) fn adjust(&mut self) {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        self.offset_ns = wall_ns.wrapping_sub(monotonic_ns());
    }

    /// Since the epoch, of a moment on `CLOCK_MONOTONIC`; ns.
    #[must_use]
    pub fn wall_ns(&self, ts_ns: u64) -> u64 {
        ts_ns.wrapping_add(self.offset_ns)
    }

    /// Since the trace began, of a moment on `CLOCK_MONOTONIC`; ns.
    #[must_use]
    pub fn elapsed_ns(&self, ts_ns: u64) -> u64 {
        ts_ns.saturating_sub(self.start_ns)
    }
}

/// `CLOCK_MONOTONIC`, ns.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
