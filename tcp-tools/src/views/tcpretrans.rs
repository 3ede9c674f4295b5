//! `tcpretrans`: what TCP sends again.

use tcp_ebpf::config::event;

use super::{
    Context, Layout, Needs, Row, Subject, UnknownField, View,
    columns::{column, endpoint, text, uint},
    count::{self, Count, Counter, Key},
};
use crate::{
    cli::common,
    event::{Event, Flow, Retransmit},
    kernel::Point,
    output::{Column, Kind, Lines, Value, Writer},
};

/// Options of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Show the first sequence number of the segment
    #[arg(short, long)]
    sequence: bool,
    /// Also show tail loss probes that carry new data
    #[arg(short, long)]
    lossprobe: bool,
    /// Count retransmits per flow; printed at the end
    #[arg(short, long, conflicts_with = "fields")]
    count: bool,
    #[command(flatten)]
    pub(crate) common: common::Args,
}

/// Short options of bcc's that mean something else, or nothing, in other views.
pub const SHORT: &[(&str, char)] = &[];

/// The view.
pub struct Tcpretrans {
    writer: Writer<Row<Retransmit>>,
    counter: Option<Counter>,
    lossprobe: bool,
}

impl Tcpretrans {
    /// The view as `args` ask for it.
    ///
    /// # Errors
    ///
    /// When `--fields` names what the view does not have.
    pub fn new(args: &Args) -> Result<Self, UnknownField> {
        let output = &args.common.output;
        let mut table = output.time_columns();
        if table.is_empty() {
            table.push("time");
        }
        table.extend(["pid", "ip", "local", "sent", "remote", "state"]);
        if args.sequence {
            table.push("seq");
        }
        table.extend(["comm", "reason"]);
        let layout = Layout { table, ..layout() };
        Ok(Self {
            writer: layout.writer(output.format(), output.fields.as_deref())?,
            counter: args
                .count
                .then(|| Counter::new(output.format(), &COUNT_EVENT, true)),
            lossprobe: args.lossprobe,
        })
    }
}

impl View for Tcpretrans {
    fn needs(&self) -> Needs {
        let mut points = vec![
            Point::State,
            Point::Connect,
            Point::Accept,
            Point::Listen,
            Point::Retransmit,
            Point::SynAck,
            Point::SeedSockets,
            Point::SeedOwners,
        ];
        if self.lossprobe {
            points.extend([Point::LossProbe, Point::LossProbeReturn]);
        }
        Needs {
            points,
            events: event::RETRANSMIT,
            new_only: false,
            ..Needs::default()
        }
    }

    fn event(&mut self, event: Event, context: &mut Context) -> bool {
        let Event::Retransmit(retransmit) = event else {
            return false;
        };
        let flow = &retransmit.flow;
        if let Some(counter) = &mut self.counter {
            counter.add(Key {
                laddr: flow.laddr,
                lport: Some(flow.lport),
                raddr: flow.raddr,
                rport: flow.rport,
            });
        } else {
            self.writer.row(&Row::new(retransmit, context));
        }
        true
    }

    fn end(&mut self) {
        if let Some(counter) = &mut self.counter {
            counter.end();
        }
    }

    fn lines(&mut self) -> &mut dyn Lines {
        match &mut self.counter {
            Some(counter) => &mut counter.writer,
            None => &mut self.writer,
        }
    }
}

impl Subject for Retransmit {
    const VIEW: &'static str = "tcpretrans";

    fn flow(&self) -> &Flow {
        &self.flow
    }
}

const COUNT_EVENT: Column<Count> = count::event(|_| Value::Text("tcpretrans_count"));

/// All columns, and those shown when nobody chooses.
#[must_use]
pub fn layout() -> Layout<Retransmit> {
    Layout {
        own: OWN,
        table: Vec::new(),
        table_only: &["local", "sent", "remote"],
    }
}

const OWN: &[&Column<Row<Retransmit>>] = &[
    &Column {
        width: 21,
        wide: Some(47),
        ..column(
            "local",
            "LADDR:LPORT",
            Kind::String,
            "Local address and port.",
            |row| {
                let flow = row.event.flow();
                endpoint(row.lname.as_deref(), flow.laddr, flow.lport)
            },
        )
    },
    &Column {
        width: 2,
        ..column(
            "type",
            "T>",
            Kind::String,
            "What is sent: R a segment again, S a SYN, A a SYN-ACK, L a tail loss probe.",
            |row| Value::Text(row.event.segment.letter()),
        )
    },
    &Column {
        width: 2,
        ..column(
            "sent",
            "T>",
            Kind::String,
            "As type, with ! behind it where it has not left the host.",
            |row| {
                let segment = row.event.segment;
                Value::Text(match row.event.error {
                    None => segment.letter(),
                    Some(_) => segment.failed_letter(),
                })
            },
        )
    },
    &Column {
        width: 21,
        wide: Some(47),
        ..column(
            "remote",
            "RADDR:RPORT",
            Kind::String,
            "Remote address and port.",
            |row| {
                let flow = row.event.flow();
                endpoint(row.rname.as_deref(), flow.raddr, flow.rport)
            },
        )
    },
    &Column {
        width: 12,
        ..column(
            "state",
            "STATE",
            Kind::String,
            "State of the socket.",
            |row| Value::Text(row.event.state),
        )
    },
    &Column {
        width: 10,
        ..column(
            "seq",
            "SEQ",
            Kind::Integer,
            "First sequence number of the segment.",
            |row| uint(row.event.seq),
        )
    },
    &column(
        "len_bytes",
        "LEN_BYTES",
        Kind::Integer,
        "Payload of the segment.",
        |row| uint(Some(row.event.len_bytes)),
    ),
    &column(
        "segments",
        "SEGMENTS",
        Kind::Integer,
        "Segments that it goes out as: as many does the kernel count.",
        |row| uint(row.event.segments),
    ),
    &Column {
        width: 11,
        ..column(
            "reason",
            "REASON",
            Kind::String,
            "Why: rto (the timer expired), slow_start (recovery from that), fast (acknowledgements showed a loss), \
             probe (a tail loss probe), mtu (the path MTU became smaller), zero_window (the window was closed over \
             sent data), dup_syn (the client's SYN came again), unknown.",
            |row| Value::Text(row.event.reason.name()),
        )
    },
    &Column {
        width: 13,
        ..column(
            "error",
            "ERROR",
            Kind::String,
            "Why it has not left the host: an errno by name, or NET_XMIT_DROP (queueing discipline). Needs Linux 6.17.",
            |row| text(row.event.error),
        )
    },
    &column(
        "srtt_us",
        "SRTT_US",
        Kind::Integer,
        "Smoothed round trip.",
        |row| uint(row.event.srtt_us),
    ),
    &column(
        "cwnd",
        "CWND",
        Kind::Integer,
        "Congestion window in segments.",
        |row| uint(row.event.cwnd),
    ),
    &column(
        "nth",
        "NTH",
        Kind::Integer,
        "How many segments this socket has sent again, this one included.",
        |row| uint(row.event.nth),
    ),
];
