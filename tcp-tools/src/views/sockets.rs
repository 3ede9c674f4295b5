//! `sockets`: TCP sockets as they are now, and who holds them.

mod columns;
mod states;

use std::time::Duration;

use tcp_ebpf::{
    config::event,
    tcp::{LISTEN, State},
};

use crate::{
    cli::common,
    event::{Event, Flow, Socket},
    kernel::Point,
    output::{Lines, Writer},
};

pub use self::states::{EVENT as SUMMARY_EVENT, layout as summary_columns};
use self::{columns::OWN, states::States};
use super::{Context, Layout, Needs, Row, Source, Subject, UnknownField, View};

/// Options of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Only sockets in these states, by the names of ss or bcc
    #[arg(long, value_name = "STATE,...", value_delimiter = ',', value_parser = common::state)]
    state: Vec<State>,
    /// Only listeners
    #[arg(short, long, conflicts_with = "state")]
    listening: bool,
    /// Show the timer of each socket
    #[arg(short = 'o', long)]
    timers: bool,
    /// Show round trip, congestion window, retransmits and bytes of each connection
    #[arg(short, long)]
    info: bool,
    /// Instead of the sockets, print how many are in which state: in all, by the local port that somebody
    /// listens on, and by the remote port of all others
    #[arg(short, long, conflicts_with_all = ["fields", "timers", "info", "max_events"])]
    summary: bool,
    /// Repeat at this interval, for example 1s or 500ms
    #[arg(long, value_name = "TIME", value_parser = interval)]
    interval: Option<Duration>,
    #[command(flatten)]
    pub(crate) common: common::Args,
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(String::from("the interval must be greater than 0")),
        Ok(interval) => Ok(interval),
        Err(error) => Err(error.to_string()),
    }
}

/// Options that make no sense together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArgsError {
    /// See there.
    #[error(transparent)]
    Field(#[from] UnknownField),
    /// A single snapshot takes no time.
    #[error("{0} needs --interval: without it there is one snapshot, at once")]
    NoInterval(&'static str),
}

/// The view.
pub struct Sockets {
    rows: Rows,
    every: Option<Duration>,
    states: u32,
}

enum Rows {
    Sockets(Writer<Row<Socket>>),
    Summary(States),
}

impl Sockets {
    /// The view as `args` ask for it.
    ///
    /// # Errors
    ///
    /// When `--fields` names what the view does not have, or something needs an interval.
    pub fn new(args: &Args) -> Result<Self, ArgsError> {
        let common::Args {
            output,
            bounds,
            command,
            ..
        } = &args.common;
        if args.interval.is_none() {
            if bounds.duration.is_some() {
                return Err(ArgsError::NoInterval("--duration"));
            }
            if !command.command.is_empty() {
                return Err(ArgsError::NoInterval("a command"));
            }
        }
        let mut time = output.time_columns();
        if args.interval.is_some() && time.is_empty() {
            time.push("time");
        }
        let rows = if args.summary {
            Rows::Summary(States::new(output.format(), &time))
        } else {
            let table = table(args, time);
            let layout = Layout { table, ..layout() };
            Rows::Sockets(layout.writer(output.format(), output.fields.as_deref())?)
        };
        let listening = args.listening.then_some(LISTEN);
        let wanted = args.state.iter().copied().chain(listening);
        Ok(Self {
            rows,
            every: args.interval,
            states: wanted.fold(0, |states, state| states | 1 << state),
        })
    }
}

/// Names of the columns of a table, and of CSV.
fn table(args: &Args, time: Vec<&'static str>) -> Vec<&'static str> {
    let output = &args.common.output;
    let mut table = time;
    table.extend(["state", "recv_q", "send_q"]);
    if output.wide {
        table.push("ip");
    }
    table.extend(if output.resolve {
        ["lhost", "lport", "rhost", "rport"]
    } else {
        ["laddr", "lport", "raddr", "rport"]
    });
    if args.timers {
        table.extend(["timer", "timer_ms", "timer_retransmits"]);
    }
    if args.info {
        table.extend(["rtt_ms", "cwnd", "retransmits", "tx_kb", "rx_kb"]);
    }
    table.extend(["pid", "comm", "others"]);
    table
}

impl View for Sockets {
    fn needs(&self) -> Needs {
        let events = match self.rows {
            Rows::Sockets(_) => 0,
            // Whatever the filters say: they tell the ports of servers.
            Rows::Summary(_) => event::LISTENERS,
        };
        Needs {
            source: Source::Snapshots { every: self.every },
            points: vec![Point::Sockets, Point::Holders],
            events,
            states: self.states,
            ..Needs::default()
        }
    }

    fn snapshot(&mut self, ts_ns: u64, context: &Context) {
        if let Rows::Summary(states) = &mut self.rows {
            states.begin(ts_ns, &context.clock);
        }
    }

    fn event(&mut self, event: Event, context: &mut Context) -> bool {
        let Event::Socket(socket) = event else {
            return false;
        };
        match &mut self.rows {
            Rows::Sockets(writer) if socket.selected => {
                writer.row(&Row::new(socket, context));
                true
            }
            Rows::Sockets(_) => false,
            Rows::Summary(states) => {
                states.add(&socket);
                false
            }
        }
    }

    fn end(&mut self) {
        if let Rows::Summary(states) = &mut self.rows {
            states.write();
        }
    }

    fn lines(&mut self) -> &mut dyn Lines {
        match &mut self.rows {
            Rows::Sockets(writer) => writer,
            Rows::Summary(states) => states.lines(),
        }
    }
}

impl Subject for Socket {
    const VIEW: &'static str = "sockets";

    fn flow(&self) -> &Flow {
        &self.flow
    }
}

/// All columns, and those shown when nobody chooses.
#[must_use]
pub fn layout() -> Layout<Socket> {
    Layout {
        own: OWN,
        table: Vec::new(),
        table_only: &["timer_ms", "rtt_ms", "tx_kb", "rx_kb"],
    }
}
