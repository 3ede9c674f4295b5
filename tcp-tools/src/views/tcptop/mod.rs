//! `tcptop`: throughput by connection and process.
//!
//! Nothing is hooked on the way of the data. The kernel counts each socket's bytes; once an interval they are read
//! (iterator over all sockets), and those of sockets that are closed come with the end of their session.

mod columns;
mod picture;
mod rank;
mod tally;

use std::{fs, num::NonZeroUsize, time::Duration};

use tcp_ebpf::config::event;

pub use self::{
    columns::layout,
    rank::{By, Sort},
    tally::Throughput,
};
use self::{
    picture::Look,
    rank::{grouped, rank},
    tally::Tally,
};
use super::{Context, Needs, Pace, Picture, Row, UnknownField, View};
use crate::{
    cli::common,
    event::Event,
    kernel::Point,
    output::{Column, Fixed, Format, Lines, Value, Writer},
};

/// Options of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Seconds between outputs
    #[arg(value_name = "INTERVAL", default_value = "1", value_parser = common::seconds)]
    interval: Duration,
    /// End after this many outputs
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Plain output: on a terminal too, one table follows another
    #[arg(short = 'C', long)]
    noclear: bool,
    /// Leave out the line with time, load and totals
    #[arg(short = 'S', long)]
    nosummary: bool,
    /// Group rows by
    #[arg(long, value_enum, default_value_t = By::Conn)]
    by: By,
    /// Sort key, descending
    #[arg(long, value_enum, default_value_t = Sort::Sum)]
    sort: Sort,
    /// At most this many rows each time; a terminal shows those that fit
    #[arg(long, value_name = "N")]
    rows: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(crate) common: common::Args,
}

/// Short options of bcc's that mean something else, or nothing, in other views.
pub const SHORT: &[(&str, char)] = &[];

/// A row: what moved, in which interval, and what it is counted by.
#[derive(Debug)]
pub struct Shown {
    throughput: Throughput,
    by: By,
    interval: u64,
    interval_us: u64,
}

/// The view.
pub struct Tcptop {
    args: Args,
    writer: Writer<Row<Shown>>,
    look: Look,
    tally: Tally,
    since_ns: u64,
    last: Interval,
}

/// What there is to say of an interval.
#[derive(Debug)]
struct Interval {
    number: u64,
    length_us: u64,
    rows: Vec<Throughput>,
    total: Throughput,
    /// Sockets that were open at its end.
    open: u64,
    /// As in /proc/loadavg; empty if that cannot be read.
    load: String,
}

impl Tcptop {
    /// The view as `args` ask for it.
    ///
    /// # Errors
    ///
    /// When `--fields` names what the view does not have.
    pub fn new(args: &Args) -> Result<Self, UnknownField> {
        let writer = Writer::new(args.common.output.format(), columns_of(args, args.by)?);
        Ok(Self {
            writer,
            look: Look::new(args),
            args: args.clone(),
            tally: Tally::default(),
            since_ns: 0,
            last: Interval {
                number: 0,
                length_us: 0,
                rows: Vec::new(),
                total: Throughput::nothing(),
                open: 0,
                load: String::new(),
            },
        })
    }

    /// The rows of the last interval that are to be seen, biggest first.
    fn ranked(&mut self, context: &mut Context) -> Vec<Row<Shown>> {
        let (by, sort, most) = self.look.of_rows();
        let last = &mut self.last;
        let mut sums = grouped(&last.rows, by, |id| context.containers.get(id));
        let rows = sums.as_mut().unwrap_or(&mut last.rows);
        rank(rows, sort);
        let (interval, interval_us) = (last.number, last.length_us);
        let shown = |throughput: &Throughput| Shown {
            throughput: throughput.clone(),
            by,
            interval,
            interval_us,
        };
        rows.iter()
            .take(most)
            .map(|row| Row::new(shown(row), context))
            .collect()
    }

    /// Time, load and totals.
    fn summary(&mut self, context: &Context) -> String {
        let Interval {
            total, open, load, ..
        } = &self.last;
        let wall_ns = context.clock.wall_ns(total.flow.ts_ns);
        let active = total.sockets.unwrap_or(0);
        let [rx, tx] = [total.rx_bytes, total.tx_bytes].map(|bytes| bytes as f64 / 1024.0);
        format!(
            "{} loadavg: {load} RX_KB: {rx:.1} TX_KB: {tx:.1} sockets: {active} active, {open} open",
            self.writer.shown(&Value::Clock(wall_ns)),
        )
    }

    fn write_total(&mut self, context: &Context) {
        let Interval {
            number,
            length_us,
            total,
            open,
            load,
            ..
        } = &self.last;
        let mut loads = load.split(' ').map(hundredths);
        let mut load = || loads.next().flatten().map_or(Value::Null, Value::Fixed);
        self.writer.object(&[
            ("event", Value::Text("tcptop_total")),
            (
                "ts",
                Value::Rfc3339(context.clock.wall_ns(total.flow.ts_ns)),
            ),
            ("ts_ns", Value::Uint(total.flow.ts_ns)),
            ("interval", Value::Uint(*number)),
            ("interval_us", Value::Uint(*length_us)),
            ("rx_bytes", Value::Uint(total.rx_bytes)),
            ("tx_bytes", Value::Uint(total.tx_bytes)),
            ("retransmits", Value::Uint(total.retransmits)),
            ("sockets", Value::Uint(*open)),
            ("sockets_active", Value::Uint(total.sockets.unwrap_or(0))),
            ("loadavg_1m", load()),
            ("loadavg_5m", load()),
            ("loadavg_15m", load()),
        ]);
    }

    fn write_rows(&mut self, rows: &[Row<Shown>], context: &mut Context) {
        if matches!(self.writer.format(), Format::Table { .. }) {
            if !self.args.nosummary {
                let summary = self.summary(context);
                self.writer.text(&format!("{summary}\n\n"));
            }
            self.writer.header();
        }
        for row in rows {
            self.writer.row(row);
        }
        match self.writer.format() {
            Format::Table { .. } => self.writer.text("\n"),
            // All lines are rows, so that they can be added up.
            Format::Csv => {}
            Format::Json => self.write_total(context),
        }
    }
}

/// The columns of rows by `by`.
fn columns_of(args: &Args, by: By) -> Result<Vec<&'static Column<Row<Shown>>>, UnknownField> {
    let output = &args.common.output;
    let format = output.format();
    layout(by, format, output.resolve, &output.time_columns())
        .columns(format, output.fields.as_deref())
}

/// As /proc/loadavg has it; empty if it cannot be read.
fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.trim_end().to_owned()
}

/// A number with two decimals, as /proc/loadavg has them.
fn hundredths(text: &str) -> Option<Fixed> {
    let (whole, decimals) = text.split_once('.')?;
    let units = whole.parse::<u64>().ok()? * 100 + decimals.parse::<u64>().ok()?;
    (decimals.len() == 2).then_some(Fixed {
        units,
        scale: 2,
        shown: 2,
    })
}

impl View for Tcptop {
    fn needs(&self) -> Needs {
        Needs {
            points: vec![
                Point::State,
                Point::Connect,
                Point::Accept,
                Point::SeedSockets,
                Point::SeedOwners,
                Point::OpenSockets,
            ],
            events: event::SESSION,
            ..Needs::default()
        }
    }

    fn start(&mut self, now_ns: u64) {
        self.since_ns = now_ns;
        self.last.total.flow.ts_ns = now_ns;
        self.last.load = load();
        // A table has it once an interval.
        if self.writer.format() == Format::Csv {
            self.writer.header();
        }
    }

    fn event(&mut self, event: Event, _: &mut Context) -> bool {
        match event {
            Event::Session(session) => self.tally.add(&session),
            Event::Idle(id) => self.tally.idle(id),
            _ => {}
        }
        false
    }

    fn pace(&self) -> Option<Pace> {
        Some(Pace {
            every: self.args.interval,
            count: self.args.count,
        })
    }

    fn interval(&mut self, now_ns: u64) {
        // The picture stays, and what moves meanwhile is the next interval's.
        if self.look.is_paused {
            return;
        }
        let last = &mut self.last;
        (last.number, last.rows, last.open) =
            self.tally.end_interval(std::mem::take(&mut last.rows));
        last.length_us = now_ns.saturating_sub(self.since_ns) / 1000;
        self.since_ns = now_ns;
        last.total = Throughput::nothing();
        last.total.flow.ts_ns = now_ns;
        for row in &mut last.rows {
            row.flow.ts_ns = now_ns;
            last.total.add(row);
        }
        last.load = load();
    }

    fn rows(&mut self, limit: u64, context: &mut Context) -> u64 {
        let mut rows = self.ranked(context);
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        self.write_rows(&rows, context);
        rows.len() as u64
    }

    fn picture(&mut self) -> Option<&mut dyn Picture> {
        let is_table = matches!(self.writer.format(), Format::Table { .. });
        (is_table && !self.args.noclear).then_some(self as _)
    }

    fn lines(&mut self) -> &mut dyn Lines {
        &mut self.writer
    }
}
