//! What was lost, by cause. Loss is never silent.

use aya::maps::{Map, MapData, PerCpuArray};
use tcp_ebpf::wire::counter;

use super::Error;

/// Totals since the trace began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records that found no room in the ring buffer, because the reader was too slow for its size.
    pub ring_full: u64,
    /// Sessions that found no room in the map of sockets, each counted once: they are reported as partial, or not at
    /// all where older sessions are left out.
    pub map_full: u64,
    /// Reads of kernel memory that failed: a field of some record is zero and should not be.
    pub read_fault: u64,
    /// Times that the kernel did not run a program: because one was running on that processor already
    /// (`recursion_misses` of its `bpf_prog_info`; always 0 before Linux 5.12), or, for whatever reason, when a
    /// socket's state changed, as what came later gave away. Once the map of sockets was full this may count too
    /// much: as if each time that both programs for the state were skipped had ended a session without an entry.
    pub missed: u64,
    /// Records that user space could not understand.
    pub undecoded: u64,
}

/// A cause of loss, as it is called in JSON and in messages.
pub struct Cause {
    /// Its total since the trace began.
    pub total: &'static str,
    /// What has come since the last report.
    pub step: &'static str,
    /// What it is.
    pub doc: &'static str,
    count: fn(&Losses) -> u64,
}

/// All causes.
pub const CAUSES: [Cause; 5] = [
    Cause {
        total: "ring_full",
        step: "new_ring_full",
        doc: "Records that found no room in the ring buffer.",
        count: |losses| losses.ring_full,
    },
    Cause {
        total: "map_full",
        step: "new_map_full",
        doc: "Sockets that found no room among those that are remembered: their sessions are reported as partial, or not \
            at all with --new-only.",
        count: |losses| losses.map_full,
    },
    Cause {
        total: "read_fault",
        step: "new_read_fault",
        doc: "Reads of kernel memory that failed.",
        count: |losses| losses.read_fault,
    },
    Cause {
        total: "missed",
        step: "new_missed",
        doc: "Times that the kernel did not run a program.",
        count: |losses| losses.missed,
    },
    Cause {
        total: "undecoded",
        step: "new_undecoded",
        doc: "Records that could not be understood.",
        count: |losses| losses.undecoded,
    },
];

impl Losses {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.causes().map(|(_, count)| count).sum()
    }

    /// Each cause of something, and how much.
    pub fn causes(&self) -> impl Iterator<Item = (&'static Cause, u64)> {
        let counts = CAUSES.iter().map(|cause| (cause, (cause.count)(self)));
        counts.filter(|(_, count)| *count > 0)
    }

    /// What has come since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            ring_full: self.ring_full.saturating_sub(earlier.ring_full),
            map_full: self.map_full.saturating_sub(earlier.map_full),
            read_fault: self.read_fault.saturating_sub(earlier.read_fault),
            missed: self.missed.saturating_sub(earlier.missed),
            undecoded: self.undecoded.saturating_sub(earlier.undecoded),
        }
    }
}

pub(super) struct Counters(PerCpuArray<MapData, u64>);

impl Counters {
    pub(super) fn new(map: MapData) -> Result<Self, Error> {
        PerCpuArray::try_from(Map::PerCpuArray(map))
            .map(Self)
            .map_err(Error::object)
    }

    pub(super) fn get(&self, which: u32) -> Result<u64, Error> {
        Ok(self.0.get(&which, 0).map_err(Error::object)?.iter().sum())
    }

    pub(super) fn losses(&self) -> Result<Losses, Error> {
        Ok(Losses {
            ring_full: self.get(counter::RING_FULL)?,
            map_full: self.get(counter::MAP_FULL)?,
            read_fault: self.get(counter::READ_FAULT)?,
            missed: self.get(counter::UNSEEN)?,
            ..Losses::default()
        })
    }
}
