//! `schema`: what the lines of JSON hold.

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::OK;
use crate::{
    kernel::CAUSES,
    output::{Column, Format, Kind},
    views::{Layout, Row, Subject, sockets, tcpaccept, tcpconnect, tcplife, tcpretrans, tcptop},
};

/// Options of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Only of this view
    #[arg(value_parser = VIEWS)]
    view: Option<String>,
}

pub(super) const VIEWS: [&str; 6] = [
    "tcplife",
    "tcpconnect",
    "tcpaccept",
    "tcpretrans",
    "tcptop",
    "sockets",
];

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let schema = match &args.view {
        Some(view) => of_view(view),
        None => all(),
    };
    let text = serde_json::to_string_pretty(&schema).context("cannot write the schema")?;
    super::print(&format!("{text}\n"))?;
    Ok(OK)
}

/// Any line of any view.
fn all() -> Value {
    let views: Vec<_> = VIEWS.iter().map(|view| of_view(view)).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of tcp-tools --json",
        "anyOf": views,
    })
}

fn of_view(view: &str) -> Value {
    const FLOW: [&str; 3] = ["lport", "rport", "count"];
    const NUMBERS: [&str; 7] = ["count", "min", "p50", "p90", "p99", "p999", "max"];
    let histogram = |event| closing(event, "The end of --histogram.", &["measure"], &NUMBERS);
    let count = |event| {
        closing(
            event,
            "The end of --count: one flow.",
            &["laddr", "raddr"],
            &FLOW,
        )
    };
    let mut lines = match view {
        "tcplife" => vec![
            of_rows(&tcplife::layout(), &REMOTE),
            closing(
                "tcplife_summary",
                "The end of --summary: one measure of one group, which is a service port or a process.",
                &["comm", "measure"],
                &[&["port"][..], &NUMBERS].concat(),
            ),
        ],
        "tcpconnect" => vec![
            of_rows(&tcpconnect::layout(), &REMOTE),
            count("tcpconnect_count"),
            histogram("tcpconnect_histogram"),
        ],
        "tcpaccept" => vec![
            of_rows(&tcpaccept::layout(), &REMOTE),
            histogram("tcpaccept_histogram"),
        ],
        "sockets" => vec![
            of_rows(
                &sockets::layout(),
                &["netns", "laddr", "state", "recv_q", "send_q"],
            ),
            of_summary(),
        ],
        "tcptop" => vec![throughput(), throughput_total()],
        "tcpretrans" => vec![
            of_rows(&tcpretrans::layout(), &REMOTE),
            count("tcpretrans_count"),
        ],
        other => unreachable!("{other} is not in VIEWS"),
    };
    lines.push(lost());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("A line of tcp-tools {view} --json"),
        "anyOf": lines,
    })
}

/// Fields that every row has; others are absent where they are not known.
const ALWAYS: [&str; 5] = ["event", "ts", "ts_ns", "owner", "ip"];

/// What rows of connections have besides.
const REMOTE: [&str; 3] = ["raddr", "rport", "netns"];

fn of_rows<E: Subject>(layout: &Layout<E>, always: &[&str]) -> Value {
    let mut properties: Map<_, _> = layout.json().map(property::<Row<E>>).collect();
    properties.insert(String::from("event"), json!({"const": E::VIEW}));
    let required = [&ALWAYS, always].concat();
    json!({
        "type": "object",
        "description": "A row. With --fields it has what was asked for, and nothing is required.",
        "properties": properties,
        "required": required,
    })
}

/// `sockets --summary`
fn of_summary() -> Value {
    let columns = || sockets::summary_columns();
    let mut properties: Map<_, _> = columns().map(property).collect();
    properties.insert(
        String::from("event"),
        json!({"const": sockets::SUMMARY_EVENT}),
    );
    let required = columns().map(|column| column.name);
    let required: Vec<_> = required
        .filter(|name| !["side", "port"].contains(name))
        .collect();
    json!({
        "type": "object",
        "description": "--summary: sockets by state, for one port or for all.",
        "properties": properties,
        "required": required,
    })
}

/// A row may be of one socket or of several, which have less in common.
fn throughput() -> Value {
    const REQUIRED: [&str; 9] = [
        "event",
        "ts",
        "ts_ns",
        "by",
        "interval",
        "interval_us",
        "rx_bytes",
        "tx_bytes",
        "retransmits",
    ];
    let mut schema = of_rows(
        &tcptop::layout(tcptop::By::Conn, Format::Json, false, &[]),
        &[],
    );
    schema["required"] = json!(REQUIRED);
    schema["description"] = json!(
        "What moved bytes, or had to send again, within an interval. A row by conn has the fields of other \
         views' rows, others have what their sockets share. With --fields it has what was asked for, and \
         nothing is required."
    );
    schema
}

fn throughput_total() -> Value {
    let total = |doc: &str| json!({"type": "integer", "minimum": 0, "description": doc});
    let load = |doc: &str| json!({"type": "number", "minimum": 0, "description": doc});
    json!({
        "type": "object",
        "description": "An interval has ended: sums of all that moved in it, whether it had a row or not.",
        "properties": {
            "event": {"const": "tcptop_total"},
            "ts": {"type": "string"},
            "ts_ns": {"type": "integer"},
            "interval": total("Number of the interval, from 1."),
            "interval_us": total("Length of the interval."),
            "rx_bytes": total("Application bytes received."),
            "tx_bytes": total("Application bytes that were acknowledged."),
            "retransmits": total("Segments retransmitted."),
            "sockets": total("Sockets that were open at the end of the interval, and passed the filters."),
            "sockets_active": total("Sockets that moved bytes or retransmitted in the interval, including closed ones."),
            "loadavg_1m": load("Load average of the machine over a minute."),
            "loadavg_5m": load("The same over five minutes."),
            "loadavg_15m": load("The same over fifteen minutes."),
        },
        "required": [
            "event", "ts", "ts_ns", "interval", "interval_us", "rx_bytes", "tx_bytes", "retransmits", "sockets",
        ],
    })
}

fn property<R>(column: &'static Column<R>) -> (String, Value) {
    let kind = match column.kind {
        Kind::Boolean => "boolean",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::String => "string",
    };
    (
        column.name.to_owned(),
        json!({"type": kind, "description": column.doc}),
    )
}

/// What any view may say in between.
fn lost() -> Value {
    let count = |doc: &str| json!({"type": "integer", "minimum": 1, "description": doc});
    let mut properties = Map::new();
    properties.insert(String::from("event"), json!({"const": "lost"}));
    properties.insert(String::from("ts"), json!({"type": "string"}));
    properties.insert(String::from("ts_ns"), json!({"type": "integer"}));
    for cause in &CAUSES {
        let total = format!("{} Total since the trace began.", cause.doc);
        let step = format!(
            "Of {}, what has come since the previous `lost` line.",
            cause.total
        );
        properties.insert(cause.total.to_owned(), count(&total));
        properties.insert(cause.step.to_owned(), count(&step));
    }
    let total = "Sum over all causes since the trace began. The last line has the trace's.";
    properties.insert(String::from("total"), count(total));
    let new =
        "Sum over all causes since the previous `lost` line. These add up to the last `total`.";
    properties.insert(String::from("new"), count(new));
    json!({
        "type": "object",
        "description": "Events were lost. Running totals by cause, which must not be added up, and `new` and \
            `new_*`, which may: what has come since the previous `lost` line.",
        "properties": properties,
        "required": ["event", "ts", "ts_ns", "total", "new"],
    })
}

/// What a view says at its end, where it is asked to: `event` and its numbers.
fn closing(event: &str, doc: &str, strings: &[&str], integers: &[&str]) -> Value {
    let strings = strings.iter().map(|name| (*name, "string"));
    let integers = integers.iter().map(|name| (*name, "integer"));
    let mut properties: Map<_, _> = strings
        .chain(integers)
        .map(|(name, kind)| (name.to_owned(), json!({"type": kind})))
        .collect();
    properties.insert(String::from("event"), json!({"const": event}));
    json!({"type": "object", "description": doc, "properties": properties, "required": ["event"]})
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    /// With `UPDATE_SCHEMA=1` the files are written.
    #[test]
    fn the_committed_schemas_are_what_is_printed() {
        for view in VIEWS {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{view}.json"));
            let text = format!("{:#}\n", of_view(view));
            if env::var_os("UPDATE_SCHEMA").is_some() {
                fs::write(&file, &text).unwrap();
            }
            let committed = fs::read_to_string(&file).unwrap_or_default();
            assert!(
                committed == text,
                "{} is out of date: UPDATE_SCHEMA=1 cargo test -p tcp-tools schema",
                file.display()
            );
        }
    }
}
