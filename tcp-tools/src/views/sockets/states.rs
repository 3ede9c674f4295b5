//! How many sockets are in which state, by port (`sockets --summary`).

use std::collections::{BTreeMap, HashSet};

use tcp_ebpf::tcp::{
    CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN, SYN_RECV,
    SYN_SENT, State, TIME_WAIT,
};

use crate::{
    event::{Role, Side, Socket},
    output::{Align, Column, Format, Kind, Lines, Value, Writer},
    trace::Clock,
    views::{
        columns::{column, uint},
        time::{Moment, Time, Timed},
    },
};

/// The name of the lines in JSON.
pub const EVENT: &str = "sockets_summary";

/// Sockets by state; the kernel counts states from 1.
type Counts = [u64; CLOSING as usize + 1];

/// A line of the result.
#[derive(Debug)]
pub struct Line {
    moment: Moment,
    /// The port and whose it is; `None` for all sockets.
    port: Option<(Side, u16)>,
    counts: Counts,
}

impl Timed for Line {
    fn moment(&self) -> &Moment {
        &self.moment
    }
}

/// Counts the sockets of one snapshot after another.
#[derive(Debug)]
pub(super) struct States {
    writer: Writer<Line>,
    moment: Moment,
    /// Network namespace and port.
    listeners: HashSet<(u32, u16)>,
    /// Local ports first.
    ports: BTreeMap<(bool, u16), Counts>,
    all: Counts,
}

impl States {
    /// `time` names columns to put first.
    pub(super) fn new(format: Format, time: &[&str]) -> Self {
        let is_wanted = |column: &&&Column<Line>| match format {
            Format::Json => !TABLE_ONLY.contains(&column.name),
            _ => !JSON_ONLY.contains(&column.name) && !TABLE_ONLY.contains(&column.name),
        };
        let time = time.iter().filter_map(|name| {
            let mut columns = COLUMNS.iter();
            columns.find(|column| column.name == *name && format != Format::Json)
        });
        let columns = time.chain(COLUMNS.iter().filter(is_wanted)).copied();
        Self {
            writer: Writer::new(format, columns.collect()),
            moment: Moment::default(),
            listeners: HashSet::new(),
            ports: BTreeMap::new(),
            all: Counts::default(),
        }
    }

    /// Counts from zero.
    pub(super) fn begin(&mut self, ts_ns: u64, clock: &Clock) {
        self.moment = Moment::new(ts_ns, clock);
        self.listeners.clear();
        self.ports.clear();
        self.all = Counts::default();
    }

    /// In each network namespace the kernel shows the listeners first.
    pub(super) fn add(&mut self, socket: &Socket) {
        let here = (socket.flow.netns, socket.flow.lport);
        if socket.state == LISTEN {
            self.listeners.insert(here);
        }
        if !socket.selected {
            return;
        }
        let role = socket.stream.and_then(|stream| stream.role);
        let is_server = matches!(socket.state, LISTEN | SYN_RECV)
            || role == Some(Role::Server)
            || role.is_none() && self.listeners.contains(&here);
        let port = match is_server {
            true => socket.flow.lport,
            false => socket.flow.rport,
        };
        for counts in [
            &mut self.all,
            self.ports.entry((!is_server, port)).or_default(),
        ] {
            if let Some(count) = counts.get_mut(usize::from(socket.state)) {
                *count += 1;
            }
        }
    }

    /// Writes a line for each port, and one for all.
    pub(super) fn write(&mut self) {
        for ((is_remote, port), counts) in &self.ports {
            let side = if *is_remote {
                Side::Remote
            } else {
                Side::Local
            };
            self.writer.row(&Line {
                moment: self.moment,
                port: Some((side, *port)),
                counts: *counts,
            });
        }
        self.writer.row(&Line {
            moment: self.moment,
            port: None,
            counts: self.all,
        });
    }

    pub(super) fn lines(&mut self) -> &mut dyn Lines {
        &mut self.writer
    }
}

/// The columns of a JSON object, in their order.
pub fn layout() -> impl Iterator<Item = &'static Column<Line>> {
    COLUMNS
        .iter()
        .copied()
        .filter(|column| !TABLE_ONLY.contains(&column.name))
}

const TABLE_ONLY: [&str; 2] = ["time", "time_s"];
const JSON_ONLY: [&str; 3] = ["event", "ts", "ts_ns"];

const COLUMNS: &[&Column<Line>] = &[
    &column("event", "EVENT", Kind::String, "Name of the count.", |_| {
        Value::Text(EVENT)
    }),
    &Time::TS,
    &Time::TS_NS,
    &Time::TIME,
    &Time::TIME_S,
    &Column {
        width: 6,
        ..column(
            "side",
            "SIDE",
            Kind::String,
            "Whose port it is: local (somebody listens on it) or remote; absent for all sockets.",
            |line| match &line.port {
                Some((side, _)) => Value::Text(side.name()),
                None => Value::Null,
            },
        )
    },
    &Column {
        width: 5,
        align: Align::Left,
        ..column("port", "PORT", Kind::Integer, "The port.", |line| {
            uint(line.port.as_ref().map(|(_, port)| *port))
        })
    },
    &count("established", "ESTAB", |line| of(line, ESTABLISHED)),
    &count("syn_sent", "SYN_SENT", |line| of(line, SYN_SENT)),
    &count("syn_recv", "SYN_RECV", |line| of(line, SYN_RECV)),
    &count("fin_wait1", "FIN_WAIT1", |line| of(line, FIN_WAIT1)),
    &count("fin_wait2", "FIN_WAIT2", |line| of(line, FIN_WAIT2)),
    &count("time_wait", "TIME_WAIT", |line| of(line, TIME_WAIT)),
    &count("close", "CLOSE", |line| of(line, CLOSE)),
    &count("close_wait", "CLOSE_WAIT", |line| of(line, CLOSE_WAIT)),
    &count("last_ack", "LAST_ACK", |line| of(line, LAST_ACK)),
    &count("listen", "LISTEN", |line| of(line, LISTEN)),
    &count("closing", "CLOSING", |line| of(line, CLOSING)),
    &Column {
        width: 6,
        ..column(
            "total",
            "TOTAL",
            Kind::Integer,
            "Sockets in any state.",
            |line| Value::Uint(line.counts.iter().sum()),
        )
    },
];

const fn count(
    name: &'static str,
    header: &'static str,
    get: for<'a> fn(&'a Line) -> Value<'a>,
) -> Column<Line> {
    column(name, header, Kind::Integer, "Sockets in this state.", get)
}

fn of(line: &Line, state: State) -> Value<'static> {
    uint(line.counts.get(usize::from(state)).copied())
}
