//! The views: what each event means to people. One file each.
//!
//! A view has its options, its columns and its summary in one place. It knows events and columns, nothing
//! of the kernel's side and nothing of terminals.

mod columns;
mod context;
mod count;
mod histogram;
mod summary;
pub mod tcpaccept;
pub mod tcpconnect;
pub mod tcplife;
pub mod tcpretrans;

use crate::{event::Event, kernel::Point, output::Lines};

pub use self::{
    columns::{Layout, UnknownField},
    context::{Context, Row, Subject},
};

/// What a view lives on.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Probe points to attach.
    pub points: Vec<Point>,
    /// Records that the programs shall write: bits of [`tcp_ebpf::config::event`].
    pub events: u32,
    /// Sessions older than the trace are of no interest.
    pub new_only: bool,
}

/// One view on a stream of events.
pub trait View {
    /// What it lives on.
    fn needs(&self) -> Needs;

    /// Takes an event in; true if that made a row.
    fn event(&mut self, event: Event, context: &mut Context) -> bool;

    /// The trace has ended: what is left to say, on standard output in the format of the rows.
    fn end(&mut self) {}

    /// The lines that wait to be written.
    fn lines(&mut self) -> &mut dyn Lines;
}
