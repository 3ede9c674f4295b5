//! `tcptop` as tables and as CSV.

use std::collections::BTreeMap;

use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::Pair;
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
        lines[0].contains(" loadavg: ") && lines[0].contains("TX_KB: 2.0 "),
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

#[test]
fn csv_has_a_total_behind_the_rows_of_each_interval() {
    let (lines, ends) = table(&["--csv"]);
    let text = lines.join("\n");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
    assert_eq!(
        header[..6],
        ["INTERVAL", "PID", "COMM", "LADDR", "LPORT", "RADDR"]
    );
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    let sent = rows
        .iter()
        .find(|row| row["LPORT"] == ends.local.port().to_string())
        .unwrap();
    assert_eq!(
        (sent["TX_BYTES"].as_str(), sent["RX_BYTES"].as_str()),
        ("2048", "0")
    );
    let total = &rows[2];
    assert_eq!(
        (total["TX_BYTES"].as_str(), total["RX_BYTES"].as_str()),
        ("2048", "2048")
    );
    for field in ["PID", "LADDR", "LPORT", "RADDR", "RPORT"] {
        assert_eq!(total[field], "", "{field}");
    }
}
