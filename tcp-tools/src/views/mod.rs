//! The views: what each event means to people. One file each.
//!
//! A view has its options, its columns and its summary in one place. It knows events and columns, nothing
//! of the kernel's side and nothing of terminals.

mod columns;
mod summary;
pub mod tcplife;

use crate::{
    event::{Event, Flow},
    kernel::Point,
    output::Lines,
    trace::Clock,
};

pub use columns::{Layout, UnknownField};

/// One view on a stream of events.
pub trait View {
    /// The probe points that it lives on.
    fn points(&self) -> Vec<Point>;

    /// Takes an event in; true if that made a row.
    fn event(&mut self, event: Event, clock: &Clock) -> bool;

    /// The trace has ended: what is left to say, on standard output in the format of the rows.
    fn end(&mut self) {}

    /// The lines that wait to be written.
    fn lines(&mut self) -> &mut dyn Lines;
}

/// Something that happened to a socket, as a view shows it.
pub trait Subject: 'static {
    /// The name of the view, in JSON `event`.
    const VIEW: &'static str;

    /// When, between whom, whose.
    fn flow(&self) -> &Flow;
}

/// A row: an event, and its place on the clocks that people use.
#[derive(Debug)]
pub struct Row<E> {
    /// What happened.
    pub event: E,
    /// Since the epoch, ns.
    pub wall_ns: u64,
    /// Since the trace began, ns.
    pub elapsed_ns: u64,
}

impl<E: Subject> Row<E> {
    /// Places `event` on the clocks.
    #[must_use]
    pub fn new(event: E, clock: &Clock) -> Self {
        let ts_ns = event.flow().ts_ns;
        Self {
            wall_ns: clock.wall_ns(ts_ns),
            elapsed_ns: clock.elapsed_ns(ts_ns),
            event,
        }
    }
}
