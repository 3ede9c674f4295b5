//! The views: what each event means to people. One file each.
//!
//! A view has its options, its columns and its summary in one place. It knows events and columns, nothing
//! of the kernel's side and nothing of terminals.

mod columns;
mod context;
mod count;
mod histogram;
pub mod sockets;
mod summary;
pub mod tcpaccept;
pub mod tcpconnect;
pub mod tcplife;
pub mod tcpretrans;

use std::time::Duration;

use crate::{event::Event, kernel::Point, output::Lines};

pub use self::{
    columns::{Layout, UnknownField},
    context::{Context, Row, Subject},
};

/// Where the events of a view come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// From what happens.
    #[default]
    Events,
    /// From what is there at one moment, or at one after another.
    Snapshots {
        /// Time between two of them; `None` for a single one.
        every: Option<Duration>,
    },
}

/// What a view lives on.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Where its events come from.
    pub source: Source,
    /// Probe points to attach.
    pub points: Vec<Point>,
    /// Records that the programs shall write: bits of [`tcp_ebpf::config::event`].
    pub events: u32,
    /// Sessions older than the trace are of no interest.
    pub new_only: bool,
    /// Of snapshots, only sockets in these states, bit `1 << state` for each; 0 for all.
    pub states: u32,
}

/// One view on a stream of events.
pub trait View {
    /// What it lives on.
    fn needs(&self) -> Needs;

    /// A snapshot follows that was taken at this moment, on `CLOCK_MONOTONIC` in ns.
    fn snapshot(&mut self, _ts_ns: u64, _context: &Context) {}

    /// Takes an event in; true if that made a row.
    fn event(&mut self, event: Event, context: &mut Context) -> bool;

    /// The trace has ended, or a snapshot: what is left to say, on standard output in the format of the rows.
    fn end(&mut self) {}

    /// The lines that wait to be written.
    fn lines(&mut self) -> &mut dyn Lines;
}
