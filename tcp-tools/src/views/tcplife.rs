//! `tcplife`: TCP sessions with their duration and bytes.

use tcp_ebpf::config::event;

use crate::{
    cli::common,
    event::{Close, Event, Flow, Session, Side},
    kernel::Point,
    output::{Align, Column, Fixed, Format, Kind, Lines, Value, Writer},
};

use super::{
    Context, Layout, Needs, Row, Subject, UnknownField, View,
    columns::{column, errno, kib, text, uint},
    summary::Summary,
};

/// Options of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Leave out sessions that were opened before the trace
    #[arg(long)]
    pub(crate) new_only: bool,
    /// At the end, also print sessions that are still open
    #[arg(long)]
    active: bool,
    /// At the end, print percentiles by service port and by process
    #[arg(long)]
    summary: bool,
    #[command(flatten)]
    pub(crate) common: common::Args,
}

/// Short options of bcc's that mean something else, or nothing, in other views.
pub const SHORT: &[(&str, char)] = &[("local_port", 'L'), ("remote_port", 'D'), ("csv", 's')];

/// The view.
pub struct Tcplife {
    writer: Writer<Row<Session>>,
    summary: Option<Summary>,
    active: bool,
    new_only: bool,
}

impl Tcplife {
    /// The view as `args` ask for it.
    ///
    /// # Errors
    ///
    /// When `--fields` names what the view does not have.
    pub fn new(args: &Args) -> Result<Self, UnknownField> {
        let output = &args.common.output;
        let mut table = output.time_columns();
        table.extend(["pid", "comm"]);
        if output.wide {
            table.push("ip");
        }
        table.extend([
            "laddr", "lport", "raddr", "rport", "tx_kb", "rx_kb", "ms", "end",
        ]);
        // A table marks the duration itself.
        if output.format() == Format::Csv {
            table.push("partial");
        }
        let layout = Layout { table, ..layout() };
        Ok(Self {
            writer: layout.writer(output.format(), output.fields.as_deref())?,
            summary: args.summary.then(Summary::default),
            active: args.active,
            new_only: args.new_only,
        })
    }
}

impl View for Tcplife {
    fn needs(&self) -> Needs {
        let mut points = vec![Point::State, Point::Reset, Point::Connect, Point::Accept];
        if !self.new_only {
            points.extend([Point::SeedSockets, Point::SeedOwners]);
        }
        if self.active {
            points.push(Point::OpenSockets);
        }
        Needs {
            points,
            events: event::SESSION | event::RESET,
            new_only: self.new_only,
            ..Needs::default()
        }
    }

    fn event(&mut self, event: Event, context: &mut Context) -> bool {
        let Event::Session(session) = event else {
            return false;
        };
        if let Some(summary) = &mut self.summary {
            summary.add(&session);
        }
        self.writer.row(&Row::new(session, context));
        true
    }

    fn end(&mut self) {
        let Some(summary) = &self.summary else { return };
        match self.writer.format() {
            Format::Table { .. } => self.writer.text(&format!("\n{}\n", summary.table())),
            Format::Json => summary.each(|fields| self.writer.object(fields)),
            // A second table would spoil the first.
            Format::Csv => eprintln!("{}", summary.table()),
        }
    }

    fn lines(&mut self) -> &mut dyn Lines {
        &mut self.writer
    }
}

impl Subject for Session {
    const VIEW: &'static str = "tcplife";

    fn flow(&self) -> &Flow {
        &self.flow
    }
}

/// All columns, and those shown when nobody chooses.
#[must_use]
pub fn layout() -> Layout<Session> {
    Layout {
        own: OWN,
        table: Vec::new(),
        table_only: &["tx_kb", "rx_kb", "ms", "end"],
    }
}

const OWN: &[&Column<Row<Session>>] = &[
    &column(
        "role",
        "ROLE",
        Kind::String,
        "Which end this is: client or server.",
        |row| text(row.event.role.map(|role| role.name())),
    ),
    &Column {
        width: 8,
        ..column("tx_kb", "TX_KB", Kind::Number, "tx_bytes in KiB.", |row| {
            kib(row.event.tx_bytes)
        })
    },
    &Column {
        width: 8,
        ..column("rx_kb", "RX_KB", Kind::Number, "rx_bytes in KiB.", |row| {
            kib(Some(row.event.rx_bytes))
        })
    },
    &Column {
        width: 9,
        ..column(
            "ms",
            "MS",
            Kind::Number,
            "duration_us in ms; at least, if partial.",
            |row| milliseconds(&row.event),
        )
    },
    &Column {
        width: 8,
        ..column(
            "end",
            "END",
            Kind::String,
            "close and closed_by in short, < remote, > local; open if it has not ended.",
            |row| Value::Text(end(&row.event)),
        )
    },
    &column(
        "tx_bytes",
        "TX_BYTES",
        Kind::Integer,
        "Application bytes that the peer acknowledged, over the life of the socket.",
        |row| uint(row.event.tx_bytes),
    ),
    &column(
        "rx_bytes",
        "RX_BYTES",
        Kind::Integer,
        "Application bytes received, over the life of the socket.",
        |row| Value::Uint(row.event.rx_bytes),
    ),
    &column(
        "tx_trace_bytes",
        "TX_TRACE_BYTES",
        Kind::Integer,
        "Of a partial session, tx_bytes since the trace began.",
        |row| uint(row.event.tx_trace_bytes),
    ),
    &column(
        "rx_trace_bytes",
        "RX_TRACE_BYTES",
        Kind::Integer,
        "Of a partial session, rx_bytes since the trace began.",
        |row| uint(row.event.rx_trace_bytes),
    ),
    &column(
        "duration_us",
        "DURATION_US",
        Kind::Integer,
        "From ESTABLISHED to CLOSE, or from SYN_SENT if it never got there; of a partial session, since \
         the trace began.",
        |row| uint(row.event.duration_us),
    ),
    &column(
        "handshake_us",
        "HANDSHAKE_US",
        Kind::Integer,
        "Client: SYN to ESTABLISHED. Server: SYN-ACK to ACK.",
        |row| uint(row.event.handshake_us),
    ),
    &column(
        "srtt_us",
        "SRTT_US",
        Kind::Integer,
        "Smoothed round trip.",
        |row| uint(row.event.srtt_us),
    ),
    &column(
        "min_rtt_us",
        "MIN_RTT_US",
        Kind::Integer,
        "Least round trip.",
        |row| uint(row.event.min_rtt_us),
    ),
    &column(
        "retransmits",
        "RETRANSMITS",
        Kind::Integer,
        "Segments retransmitted.",
        |row| Value::Uint(row.event.retransmits.into()),
    ),
    &Column {
        width: 12,
        ..column(
            "close",
            "CLOSE",
            Kind::String,
            "How it ended: fin, rst_sent, rst_received, refused, timeout, unreachable, aborted.",
            |row| text(row.event.close.map(|close| close.name())),
        )
    },
    &column(
        "closed_by",
        "CLOSED_BY",
        Kind::String,
        "Who ended it, local or remote: sent the RST or gave up, or sent the first FIN. Absent if the FINs \
         crossed, or it is not known.",
        |row| text(row.event.closed_by.map(Side::name)),
    ),
    &Column {
        width: 12,
        ..column(
            "error",
            "ERROR",
            Kind::String,
            "The errno that ended it, by name.",
            |row| errno(row.event.error),
        )
    },
    &column(
        "partial",
        "PARTIAL",
        Kind::Boolean,
        "True if it was opened before the trace.",
        |row| Value::Flag(row.event.partial),
    ),
    &column(
        "active",
        "ACTIVE",
        Kind::Boolean,
        "True if it is open still (--active).",
        |row| Value::Flag(row.event.is_open()),
    ),
    &Column {
        width: 11,
        align: Align::Left,
        ..column(
            "state",
            "STATE",
            Kind::String,
            "Of a session that is open, its state.",
            |row| text(row.event.is_open().then_some(row.event.state)),
        )
    },
];

fn end(session: &Session) -> &'static str {
    let Some(close) = session.close else {
        return "open";
    };
    match (close, session.closed_by) {
        (Close::Fin, Some(Side::Local)) => "fin>",
        (Close::Fin, Some(Side::Remote)) => "fin<",
        (Close::Fin, None) => "fin",
        (Close::RstSent, _) => "rst>",
        (Close::RstReceived, _) => "rst<",
        (Close::Refused, _) => "refused<",
        (Close::Timeout, _) => "timeout",
        (Close::Unreachable, _) => "unreach",
        (Close::Aborted, _) => "abort>",
    }
}

fn milliseconds(session: &Session) -> Value<'static> {
    let Some(units) = session.duration_us else {
        return Value::Null;
    };
    let fixed = Fixed {
        units,
        scale: 3,
        shown: 2,
    };
    if session.partial {
        Value::AtLeast(fixed)
    } else {
        Value::Fixed(fixed)
    }
}
