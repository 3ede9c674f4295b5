//! `tcptop` as tables and as CSV.

use std::collections::BTreeMap;

use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order};
use tcp_tools_tests::sock::{Ends, V4};
use tcp_tools_tests::trace::Trace;

/// One interval that only the end of the trace cuts short.
const ENDLESS: &str = "86400";

/// A table of one interval in which a pair has moved bytes, in lines.
fn table(args: &[&str]) -> (Vec<String>, Ends) {
    let netns = Netns::enter_new();
    let trace = Trace::text("tcptop", &netns, &[&[ENDLESS], args].concat());
    let pair = Pair::open(V4);
    pair.exchange(2048, 0);
    let ended = trace.interrupt();
    ended.assert_clean();
    (ended.lines, Ends::of(&pair.client).unwrap())
}

#[test]
fn a_pipe_gets_one_table_after_another() {
    let (lines, ends) = table(&[]);
    assert!(
        lines[0].contains(" loadavg: ")
            && lines[0].ends_with(" TX_KB: 2.0 sockets: 2 active, 2 open"),
        "{lines:#?}"
    );
    let header: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(
        header,
        [
            "PID", "COMM", "LADDR", "RADDR", "RX_KB", "TX_KB", "RTT_MS", "RETRANS"
        ]
    );
    let row = |line: &str| {
        line.split_whitespace()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let rows: Vec<_> = lines[3..5].iter().map(|line| row(line)).collect();
    let sent = rows
        .iter()
        .find(|row| row[2] == ends.local.to_string())
        .unwrap();
    assert_eq!(
        sent[3..6],
        [ends.remote.to_string(), "0.0".into(), "2.0".into()]
    );
    assert_eq!((lines.len(), lines[5].as_str()), (6, ""));

    let (lines, _) = table(&["-S", "-C", "--by", "process"]);
    let header: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(
        header,
        [
            "PID", "COMM", "SOCKETS", "RX_KB", "TX_KB", "RTT_MS", "RETRANS"
        ]
    );
    assert_eq!(row(&lines[1])[0], std::process::id().to_string());
    assert_eq!(lines.len(), 3);
}

/// Both have rows, though neither is open.
#[test]
fn the_head_line_counts_closed_sockets_that_have_rows() {
    let netns = Netns::enter_new();
    let trace = Trace::text("tcptop", &netns, &[ENDLESS]);
    let _idle = Pair::open(V4);
    let pair = Pair::open(V4);
    pair.exchange(2048, 0);
    close_in_order(pair.client, pair.server);
    let ended = trace.interrupt();
    ended.assert_clean();
    let lines = ended.lines;
    assert!(
        lines[0].ends_with(" sockets: 2 active, 2 open"),
        "{lines:#?}"
    );
    assert_eq!((lines.len(), lines[5].as_str()), (6, ""));
}

type Line = BTreeMap<String, String>;

fn csv(args: &[&str]) -> (Vec<String>, Vec<Line>, Ends) {
    let (lines, ends) = table(&[&["--csv"], args].concat());
    let text = lines.join("\n");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().iter().map(String::from).collect();
    let rows = reader.deserialize().map(Result::unwrap).collect();
    (header, rows, ends)
}

fn sum(rows: &[Line], field: &str) -> u64 {
    rows.iter()
        .map(|row| row[field].parse::<u64>().unwrap())
        .sum()
}

#[test]
fn csv_has_rows_alone_that_add_up() {
    let (header, rows, ends) = csv(&[]);
    assert_eq!(
        header[..6],
        ["INTERVAL", "PID", "COMM", "LADDR", "LPORT", "RADDR"]
    );
    assert_eq!(rows.len(), 2);
    let sent = rows
        .iter()
        .find(|row| row["LPORT"] == ends.local.port().to_string())
        .unwrap();
    assert_eq!(
        (sent["TX_BYTES"].as_str(), sent["RX_BYTES"].as_str()),
        ("2048", "0")
    );
    for by in ["conn", "process", "remote", "lport", "container"] {
        let (_, rows, _) = csv(&["--by", by]);
        let sums = (sum(&rows, "TX_BYTES"), sum(&rows, "RX_BYTES"));
        assert_eq!(sums, (2048, 2048), "{by}");
    }
}
