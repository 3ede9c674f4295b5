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
pub mod tcptop;
mod time;

use std::time::Duration;

use crate::{event::Event, kernel::Point, output::Lines};

pub use self::{
    columns::{Layout, UnknownField},
    context::{Context, Row, Subject},
    time::Moment,
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

/// How often a view takes stock.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Length of an interval.
    pub every: Duration,
    /// The trace ends after so many.
    pub count: Option<u64>,
}

/// One view on a stream of events.
pub trait View {
    /// What it lives on.
    fn needs(&self) -> Needs;

    /// The trace begins, at this moment on `CLOCK_MONOTONIC`: writes what stands before all rows.
    fn start(&mut self, _now_ns: u64) {
        self.lines().header();
    }

    /// A snapshot follows that was taken at this moment, on `CLOCK_MONOTONIC` in ns.
    fn snapshot(&mut self, _ts_ns: u64, _context: &Context) {}

    /// Takes an event in; true if that made a row.
    fn event(&mut self, event: Event, context: &mut Context) -> bool;

    /// How often it takes stock; `None` if it lives on what happens alone.
    fn pace(&self) -> Option<Pace> {
        None
    }

    /// An interval ends at this moment on `CLOCK_MONOTONIC`: every socket that is open has been shown to
    /// [`event`](Self::event), and every one that was closed.
    fn interval(&mut self, _now_ns: u64) {}

    /// Writes what there is to say of the last interval; no more than `limit` rows, and says how many.
    fn rows(&mut self, _limit: u64, _context: &mut Context) -> u64 {
        0
    }

    /// Itself, if it would rather be seen in place than as lines that follow one another.
    fn picture(&mut self) -> Option<&mut dyn Picture> {
        None
    }

    /// The trace has ended, or a snapshot: what is left to say, on standard output in the format of the rows.
    fn end(&mut self) {}

    /// The lines that wait to be written.
    fn lines(&mut self) -> &mut dyn Lines;
}

/// What is drawn again and again in the same place.
pub trait Picture {
    /// The lines that show the last interval: at most `height`, none wider than `width`.
    fn draw(&mut self, width: u16, height: u16, context: &mut Context) -> String;

    /// Somebody has pressed a key.
    fn key(&mut self, key: u8) -> Reaction;
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    None,
    /// Another picture.
    Redraw,
    /// The end.
    Quit,
}
