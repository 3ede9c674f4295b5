//! `tcpaccept`: passive opens.

use tcp_ebpf::config::event;

use super::{
    Context, Layout, Needs, Row, Subject, UnknownField, View,
    columns::{column, uint},
    histogram::Distribution,
};
use crate::{
    cli::common,
    event::{Accept, Event, Flow},
    kernel::Point,
    output::{Column, Kind, Lines, Writer},
};

/// Options of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// At the end, print the distribution of the time in the accept queue
    #[arg(long)]
    histogram: bool,
    #[command(flatten)]
    pub(crate) common: common::Args,
}

/// Short options of bcc's that mean something else, or nothing, in other views.
pub const SHORT: &[(&str, char)] = &[("local_port", 'P')];

/// The view.
pub struct Tcpaccept {
    writer: Writer<Row<Accept>>,
    histogram: Option<Distribution>,
}

impl Tcpaccept {
    /// The view as `args` ask for it.
    ///
    /// # Errors
    ///
    /// When `--fields` names what the view does not have.
    pub fn new(args: &Args) -> Result<Self, UnknownField> {
        let output = &args.common.output;
        let mut table = output.time_columns();
        table.extend(["pid", "comm", "ip", "raddr", "rport", "laddr", "lport"]);
        table.extend(["queue_us", "backlog", "max_backlog"]);
        let layout = Layout { table, ..layout() };
        Ok(Self {
            writer: layout.writer(output.format(), output.fields.as_deref())?,
            histogram: args.histogram.then(Distribution::default),
        })
    }
}

impl View for Tcpaccept {
    fn needs(&self) -> Needs {
        let points = vec![Point::State, Point::Accept];
        Needs {
            points,
            events: event::ACCEPT,
            new_only: true,
            ..Needs::default()
        }
    }

    fn event(&mut self, event: Event, context: &mut Context) -> bool {
        let Event::Accept(accept) = event else {
            return false;
        };
        if let (Some(histogram), Some(us)) = (&mut self.histogram, accept.queue_us) {
            histogram.add(us);
        }
        self.writer.row(&Row::new(accept, context));
        true
    }

    fn end(&mut self) {
        if let Some(histogram) = &self.histogram {
            let title = "Time in the accept queue, us";
            histogram.write(&mut self.writer, "tcpaccept_histogram", "queue_us", title);
        }
    }

    fn lines(&mut self) -> &mut dyn Lines {
        &mut self.writer
    }
}

impl Subject for Accept {
    const VIEW: &'static str = "tcpaccept";

    fn flow(&self) -> &Flow {
        &self.flow
    }
}

/// All columns, and those shown when nobody chooses.
#[must_use]
pub fn layout() -> Layout<Accept> {
    Layout {
        own: OWN,
        table: Vec::new(),
        table_only: &[],
    }
}

const OWN: &[&Column<Row<Accept>>] = &[
    &column(
        "queue_us",
        "QUEUE_US",
        Kind::Integer,
        "How long the connection waited to be accepted, if it was established during the trace.",
        |row| uint(row.event.queue_us),
    ),
    &column(
        "backlog",
        "BACKLOG",
        Kind::Integer,
        "Connections that wait there still.",
        |row| uint(row.event.backlog),
    ),
    &column(
        "max_backlog",
        "MAX_BACKLOG",
        Kind::Integer,
        "Most that may wait.",
        |row| uint(row.event.max_backlog),
    ),
];
