//! `tcpconnect`: active opens, and what becomes of them.

use std::time::Duration;

use tcp_ebpf::config::event;

use super::{
    Context, Layout, Needs, Row, Subject, UnknownField, View,
    columns::{Common, column, errno, flag, text, uint},
    count::{self, Count, Counter, Key},
    histogram::Distribution,
};
use crate::{
    cli::common,
    event::{Cause, Connect, Event, Flow, Outcome},
    kernel::Point,
    output::{Column, Fixed, Kind, Lines, Value, Writer},
};

/// Options of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Show the local port
    #[arg(short = 'L', long)]
    lport: bool,
    /// Show the user id
    #[arg(short = 'U', long)]
    print_uid: bool,
    /// Count connects per source, destination and port; printed at the end
    #[arg(short, long, conflicts_with_all = ["latency", "histogram", "fields"])]
    count: bool,
    /// Show the outcome of each attempt and how long it took, if that was MIN_MS or more
    #[arg(long, value_name = "MIN_MS", num_args = 0..=1, default_missing_value = "0", value_parser = common::milliseconds)]
    latency: Option<Duration>,
    /// Show failures only
    #[arg(long)]
    failed: bool,
    /// At the end, print the distribution of the time to establish a connection
    #[arg(long)]
    histogram: bool,
    #[command(flatten)]
    pub(crate) common: common::Args,
}

/// Short options of bcc's that mean something else, or nothing, in other views.
pub const SHORT: &[(&str, char)] = &[("remote_port", 'P')];

/// The view.
pub struct Tcpconnect {
    writer: Writer<Row<Connect>>,
    counter: Option<Counter>,
    histogram: Option<Distribution>,
    outcomes: bool,
    failed: bool,
    min_us: u64,
}

impl Tcpconnect {
    /// The view as `args` ask for it.
    ///
    /// # Errors
    ///
    /// When `--fields` names what the view does not have.
    pub fn new(args: &Args) -> Result<Self, UnknownField> {
        let output = &args.common.output;
        let outcomes = args.latency.is_some() || args.failed || args.histogram;
        let mut table = output.time_columns();
        let optional = |wanted: bool, name| wanted.then_some(name);
        table.extend(optional(args.print_uid, "uid"));
        table.extend(["pid", "comm", "ip", "laddr"]);
        table.extend(optional(args.lport, "lport"));
        table.extend(["raddr", "rport"]);
        table.extend(optional(outcomes, "ms"));
        table.extend(optional(outcomes, "result"));
        table.extend(optional(outcomes, "syn_retransmits"));
        let layout = Layout { table, ..layout() };
        let min_us = args.latency.unwrap_or_default().as_micros();
        Ok(Self {
            writer: layout.writer(output.format(), output.fields.as_deref())?,
            counter: args
                .count
                .then(|| Counter::new(output.format(), &COUNT_EVENT, false)),
            histogram: args.histogram.then(Distribution::default),
            outcomes,
            failed: args.failed,
            min_us: u64::try_from(min_us).unwrap_or(u64::MAX),
        })
    }
}

impl View for Tcpconnect {
    fn needs(&self) -> Needs {
        let mut points = vec![Point::State, Point::Connect];
        points.extend(if self.outcomes {
            vec![Point::ConnectCall, Point::ConnectReturn]
        } else {
            vec![Point::OpenSockets]
        });
        let events = if self.outcomes {
            event::OUTCOME
        } else {
            event::ATTEMPT
        };
        Needs {
            points,
            events,
            new_only: true,
            ..Needs::default()
        }
    }

    fn event(&mut self, event: Event, context: &mut Context) -> bool {
        let Event::Connect(connect) = event else {
            return false;
        };
        if let (Some(histogram), Outcome::Established, Some(us)) =
            (&mut self.histogram, connect.outcome, connect.latency_us)
        {
            histogram.add(us);
        }
        if connect.latency_us.is_some_and(|us| us < self.min_us)
            || self.failed && connect.outcome == Outcome::Established
        {
            return false;
        }
        let flow = &connect.flow;
        if let Some(counter) = &mut self.counter {
            counter.add(Key {
                laddr: flow.laddr,
                lport: None,
                raddr: flow.raddr,
                rport: flow.rport,
            });
        } else {
            self.writer.row(&Row::new(connect, context));
        }
        true
    }

    fn end(&mut self) {
        if let Some(counter) = &mut self.counter {
            counter.end();
        }
        if let Some(histogram) = &self.histogram {
            let title = "Time to establish a connection, us";
            histogram.write(
                &mut self.writer,
                "tcpconnect_histogram",
                "latency_us",
                title,
            );
        }
    }

    fn lines(&mut self) -> &mut dyn Lines {
        match &mut self.counter {
            Some(counter) => &mut counter.writer,
            None => &mut self.writer,
        }
    }
}

impl Subject for Connect {
    const VIEW: &'static str = "tcpconnect";

    fn flow(&self) -> &Flow {
        &self.flow
    }
}

const COUNT_EVENT: Column<Count> = count::event(|_| Value::Text("tcpconnect_count"));

/// All columns, and those shown when nobody chooses.
#[must_use]
pub fn layout() -> Layout<Connect> {
    Layout {
        own: OWN,
        table: Vec::new(),
        table_only: &["ms", "result"],
    }
}

type C = Common<Connect>;

const OWN: &[&Column<Row<Connect>>] = &[
    &Column {
        header: "SADDR",
        ..C::LADDR
    },
    &Column {
        header: "DADDR",
        ..C::RADDR
    },
    &Column {
        header: "DPORT",
        ..C::RPORT
    },
    &Column {
        width: 9,
        ..column("ms", "MS", Kind::Number, "latency_us in ms.", |row| {
            row.event.latency_us.map_or(Value::Null, |units| {
                Value::Fixed(Fixed {
                    units,
                    scale: 3,
                    shown: 2,
                })
            })
        })
    },
    &Column {
        width: 14,
        ..column(
            "result",
            "RESULT",
            Kind::String,
            "established; or the errno; or why the socket was closed without one: cause.",
            |row| match (row.event.error, row.event.cause) {
                (0, Some(cause)) => Value::Text(cause.name()),
                (0, None) => Value::Text(row.event.outcome.name()),
                (number, _) => errno(number),
            },
        )
    },
    &Column {
        width: 11,
        ..column(
            "outcome",
            "OUTCOME",
            Kind::String,
            "What has become of the attempt: established, failed, or aborted if the socket was closed \
             on this side before an answer. Only with --latency, --failed or --histogram.",
            |row| {
                text(match row.event.outcome {
                    Outcome::Pending => None,
                    outcome => Some(outcome.name()),
                })
            },
        )
    },
    &Column {
        width: 14,
        ..column(
            "cause",
            "CAUSE",
            Kind::String,
            "What ended an attempt that made no connection. Of a failed one: rst; icmp (an ICMP error, or the loss of the \
             route); timeout (no more SYNs, or TCP_USER_TIMEOUT); local (no SYN was sent, or an administrator ended it). \
             Of an aborted one: caller_timeout (SO_SNDTIMEO was over when it was closed), exited (the process ended or was \
             killed), closed (otherwise; latency_us is how long the program waited). Absent if unknown.",
            |row| text(row.event.cause.map(Cause::name)),
        )
    },
    &Column {
        width: 12,
        ..column(
            "error",
            "ERROR",
            Kind::String,
            "The errno of a failure, by name. Of an aborted attempt, the last error that the kernel noted without ending \
             it: most often an ICMP error that came while a system call had the socket locked.",
            |row| errno(row.event.error),
        )
    },
    &column(
        "latency_us",
        "LATENCY_US",
        Kind::Integer,
        "From the SYN, or from connect() if none was sent, to the outcome.",
        |row| uint(row.event.latency_us),
    ),
    &column(
        "syn_retransmits",
        "RETRANS",
        Kind::Integer,
        "Retransmitted SYNs.",
        |row| match row.event.outcome {
            Outcome::Pending => Value::Null,
            _ => Value::Uint(row.event.retransmits.into()),
        },
    ),
    &column(
        "fast_open",
        "FAST_OPEN",
        Kind::Boolean,
        "True for TCP Fast Open.",
        |row| flag(row.event.fast_open),
    ),
    &column(
        "mptcp",
        "MPTCP",
        Kind::Boolean,
        "True for a subflow of Multipath TCP.",
        |row| flag(row.event.mptcp),
    ),
];
