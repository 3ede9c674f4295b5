//! The columns of `tcptop`.

use super::{By, Shown};
use crate::{
    event::Flow,
    output::{Align, Column, Fixed, Format, Kind, Value},
    views::{
        Layout, Row, Subject,
        columns::{column, endpoint, kib, text, uint},
    },
};

impl Subject for Shown {
    const VIEW: &'static str = "tcptop";

    fn flow(&self) -> &Flow {
        &self.throughput.flow
    }

    fn is_one(&self) -> bool {
        self.throughput.sockets.is_none()
    }
}

/// All columns, and those shown of rows by `by` when nobody chooses.
#[must_use]
pub fn layout(by: By, format: Format, resolve: bool, times: &[&'static str]) -> Layout<Shown> {
    let is_csv = format == Format::Csv;
    let mut table = times.to_vec();
    if is_csv {
        table.push("interval");
    }
    table.extend(match by {
        By::Conn if is_csv => &["pid", "comm", "laddr", "lport", "raddr", "rport"][..],
        By::Conn => &["pid", "comm", "local", "remote"],
        By::Process => &["pid", "comm", "sockets"],
        By::Remote if resolve => &["rhost", "sockets"],
        By::Remote => &["raddr", "sockets"],
        By::Lport => &["lport", "sockets"],
        By::Container => &["container", "sockets"],
    });
    table.extend(if is_csv {
        ["rx_bytes", "tx_bytes", "srtt_us", "retransmits"]
    } else {
        ["rx_kb", "tx_kb", "rtt_ms", "retransmits"]
    });
    Layout {
        own: OWN,
        table,
        table_only: &["local", "remote", "rx_kb", "tx_kb", "rtt_ms"],
    }
}

const fn ends(
    name: &'static str,
    header: &'static str,
    doc: &'static str,
    get: for<'a> fn(&'a Row<Shown>) -> Value<'a>,
) -> Column<Row<Shown>> {
    Column {
        width: 21,
        wide: Some(47),
        ..column(name, header, Kind::String, doc, get)
    }
}

const fn wide(width: usize, column: Column<Row<Shown>>) -> Column<Row<Shown>> {
    Column { width, ..column }
}

const OWN: &[&Column<Row<Shown>>] = &[
    &column(
        "by",
        "BY",
        Kind::String,
        "What the row is the throughput of: one end of a connection (conn), or what several have in common: \
         process, remote, lport, container.",
        |row| Value::Text(row.event.by.name()),
    ),
    &column(
        "interval",
        "INTERVAL",
        Kind::Integer,
        "Number of the interval, from 1.",
        |row| Value::Uint(row.event.interval),
    ),
    &column(
        "interval_us",
        "INTERVAL_US",
        Kind::Integer,
        "Length of the interval.",
        |row| Value::Uint(row.event.interval_us),
    ),
    &ends("local", "LADDR", "Local address and port.", |row| {
        let flow = row.event.flow();
        if flow.lport == 0 {
            return Value::Null;
        }
        endpoint(row.lname.as_deref(), flow.laddr, flow.lport)
    }),
    &ends("remote", "RADDR", "Remote address and port.", |row| {
        let flow = row.event.flow();
        if flow.raddr.is_unspecified() {
            return Value::Null;
        }
        endpoint(row.rname.as_deref(), flow.raddr, flow.rport)
    }),
    &wide(
        12,
        column(
            "container",
            "CONTAINER",
            Kind::String,
            "Container of the process, or of the sockets.",
            |row| {
                let shared = row.event.throughput.container.as_deref();
                let container = shared.or(row.container.as_deref());
                container.map_or(Value::Null, |name| Value::Untrusted(name.as_bytes()))
            },
        ),
    ),
    &column(
        "sockets",
        "SOCKETS",
        Kind::Integer,
        "Sockets that are counted together; absent in a row of one.",
        |row| uint(row.event.throughput.sockets),
    ),
    &wide(
        8,
        column("rx_kb", "RX_KB", Kind::Number, "rx_bytes in KiB.", |row| {
            kib(Some(row.event.throughput.rx_bytes))
        }),
    ),
    &wide(
        8,
        column("tx_kb", "TX_KB", Kind::Number, "tx_bytes in KiB.", |row| {
            kib(Some(row.event.throughput.tx_bytes))
        }),
    ),
    &column(
        "rx_bytes",
        "RX_BYTES",
        Kind::Integer,
        "Application bytes received within the interval.",
        |row| Value::Uint(row.event.throughput.rx_bytes),
    ),
    &column(
        "tx_bytes",
        "TX_BYTES",
        Kind::Integer,
        "Application bytes that the peer acknowledged within the interval.",
        |row| Value::Uint(row.event.throughput.tx_bytes),
    ),
    &wide(
        8,
        column("rtt_ms", "RTT_MS", Kind::Number, "srtt_us in ms.", |row| {
            let milliseconds = |us: u32| Fixed {
                units: us.into(),
                scale: 3,
                shown: 2,
            };
            let srtt_us = row.event.throughput.srtt_us;
            srtt_us.map_or(Value::Null, |us| Value::Fixed(milliseconds(us)))
        }),
    ),
    &column(
        "srtt_us",
        "SRTT_US",
        Kind::Integer,
        "Smoothed round trip, as it was last; of several sockets, the longest.",
        |row| uint(row.event.throughput.srtt_us),
    ),
    &column(
        "retransmits",
        "RETRANS",
        Kind::Integer,
        "Segments retransmitted within the interval.",
        |row| Value::Uint(row.event.throughput.retransmits),
    ),
    &Column {
        width: 12,
        align: Align::Left,
        ..column(
            "state",
            "STATE",
            Kind::String,
            "State of the socket; of one that was closed, the last one before.",
            |row| text(row.event.throughput.state),
        )
    },
    &column(
        "others",
        "OTHERS",
        Kind::Integer,
        "Processes beside this one that held the socket when the trace began; absent if it is younger.",
        |row| uint(row.event.throughput.others),
    ),
];
