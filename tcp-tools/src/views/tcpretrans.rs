//! `tcpretrans`: what TCP sends again.

use tcp_ebpf::config::event;

use super::{
    Context, Layout, Needs, Row, Subject, UnknownField, View,
    columns::{column, endpoint, uint},
    count::{self, Count, Counter, Key},
};
use crate::{
    cli::common,
    event::{Event, Flow, Retransmit, Segment},
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
        table.extend(["pid", "ip", "local", "type", "remote", "state"]);
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
            points.push(Point::LossProbe);
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
        table_only: &["local", "remote"],
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
        |row| uint(row.event.len_bytes),
    ),
    &Column {
        width: 6,
        ..column(
            "reason",
            "REASON",
            Kind::String,
            "Why: rto (the timer ran out, or recovery from that), fast (acknowledgements told of a loss), \
             probe.",
            |row| Value::Text(row.event.reason.name()),
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
        |row| {
            // A probe with new data is none of them.
            match row.event.segment {
                Segment::Probe if row.event.len_bytes.is_none() => Value::Null,
                _ => uint(row.event.nth),
            }
        },
    ),
];
