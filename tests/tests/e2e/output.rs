//! Formats, and how a trace ends.

use serde_json::Value;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order, reset_in_order};
use tcp_tools_tests::row::{assert_rows, this_process};
use tcp_tools_tests::sock::{self, Ends, V4, V6};
use tcp_tools_tests::trace::{Ended, Trace};

const COLUMNS: [&str; 10] = [
    "PID", "COMM", "LADDR", "LPORT", "RADDR", "RPORT", "TX_KB", "RX_KB", "MS", "END",
];

/// The two rows of an IPv4 session that moves 4,096 bytes to the server and 2,048 back.
fn session(netns: &Netns, args: &[&str]) -> (Ends, Ended) {
    let mut trace = Trace::only(netns, args);
    let pair = Pair::open(V4);
    let ends = Ends::of(&pair.client).unwrap();
    pair.exchange(4096, 2048);
    close_in_order(pair.client, pair.server);
    trace.wait_lines(3);
    let ended = trace.interrupt();
    ended.assert_clean();
    assert_eq!(ended.lines.len(), 3, "{:#?}", ended.lines);
    (ends, ended)
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn table_has_the_known_columns_and_a_line_for_each_end() {
    let netns = Netns::enter_new();
    let (ends, ended) = session(&netns, &[]);
    assert_eq!(words(&ended.lines[0]), COLUMNS);
    let me = this_process();
    let (client, server) = (
        ends.local.port().to_string(),
        ends.remote.port().to_string(),
    );
    let pid = me.pid.to_string();
    for (line, [lport, rport], kib, end) in [
        (&ended.lines[1], [&client, &server], [4.0, 2.0], "fin>"),
        (&ended.lines[2], [&server, &client], [2.0, 4.0], "fin<"),
    ] {
        let row = words(line);
        let ip = "127.0.0.1";
        assert_eq!(row[..6], [&pid, &me.comm, ip, lport, ip, rport], "{line}");
        assert_eq!(row[9..], [end], "{line}");
        let numbers: Vec<f64> = row[6..9].iter().map(|cell| cell.parse().unwrap()).collect();
        assert!(numbers[..2] == kib && numbers[2] >= 0.0, "{line}");
    }
}

#[test]
fn table_columns_follow_the_options() {
    for (args, before, after_comm) in [
        (&["-T"][..], &["TIME"][..], None),
        (&["-t"], &["TIME(s)"], None),
        (&["-T", "-t"], &["TIME", "TIME(s)"], None),
        (&["-w"], &[], Some("IP")),
    ] {
        let netns = Netns::enter_new();
        let (_, ended) = session(&netns, args);
        let mut columns = COLUMNS.to_vec();
        if let Some(column) = after_comm {
            columns.insert(2, column);
        }
        let columns = [before, &columns].concat();
        assert_eq!(words(&ended.lines[0]), columns);
        for line in &ended.lines[1..] {
            assert_eq!(words(line).len(), columns.len(), "{line}");
        }
    }
}

#[test]
fn table_shows_a_dash_for_an_unknown_owner_and_marks_older_sessions() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V6, 1).unwrap();
    let old = Pair::through(&listener);
    let mut trace = Trace::only(
        &netns,
        &["-L", &sock::local(&listener).unwrap().port().to_string()],
    );
    close_in_order(old.client, old.server);
    trace.wait_lines(2);
    let never_accepted = sock::connect(sock::local(&listener).unwrap()).unwrap();
    drop(listener);
    trace.wait_lines(3);
    drop(never_accepted);
    let ended = trace.interrupt();
    ended.assert_clean();
    let [_, older, unowned] = ended.lines.as_slice() else {
        panic!("{:#?}", ended.lines)
    };
    assert!(words(older)[8].starts_with('>'), "{older}");
    assert_eq!(words(unowned)[..3], ["-", "-", "::1"]);
}

#[test]
fn csv_has_a_header_and_quotes_what_needs_it() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let mut client = Actor::start(r#"a,"b" c"#);
    let mut trace = Trace::only(&netns, &["-s"]);
    let at_client = client.connect("c", sock::local(&listener).unwrap());
    client.ask("send c 2048");
    client.ask("close c");
    let server = sock::accept(&listener).unwrap();
    sock::drain(&server).unwrap();
    drop(server);
    trace.wait_lines(3);
    let ended = trace.interrupt();
    ended.assert_clean();
    let text = ended.lines.join("\n");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|cell| cell == name).expect(name);
    let rows: Vec<_> = reader.records().map(|record| record.unwrap()).collect();
    assert_eq!(rows.len(), 2);
    let row = rows
        .iter()
        .find(|row| &row[column("COMM")] == r#"a,"b" c"#)
        .expect(&text);
    assert_eq!(row[column("PID")], client.process().pid.to_string());
    assert_eq!(row[column("LADDR")], *"127.0.0.1");
    assert_eq!(row[column("LPORT")], at_client.local.port().to_string());
    assert_eq!(row[column("RPORT")], at_client.remote.port().to_string());
    assert_eq!(row[column("TX_KB")].parse(), Ok(2.0));
}

#[test]
fn comm_cannot_reach_the_terminal_unescaped() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let mut client = Actor::start("\x1b[31mred\x07");
    let mut trace = Trace::only(&netns, &[]);
    client.connect("c", sock::local(&listener).unwrap());
    client.ask("close c");
    trace.wait_lines(2);
    let ended = trace.interrupt();
    ended.assert_clean();
    assert!(
        !ended.lines.join("").contains(|c: char| c.is_control()),
        "{:?}",
        ended.lines
    );
}

#[test]
fn fields_choose_and_order_what_json_has() {
    let netns = Netns::enter_new();
    let mut trace = Trace::only(&netns, &["--json", "--fields", "rport,tx_bytes,laddr"]);
    let pair = Pair::open(V4);
    let ends = Ends::of(&pair.client).unwrap();
    pair.close();
    trace.wait_lines(2);
    let ended = trace.interrupt();
    ended.assert_clean();
    let line = |port| format!(r#"{{"rport":{port},"tx_bytes":0,"laddr":"127.0.0.1"}}"#);
    let mut lines = ended.lines;
    lines.sort();
    let mut expected = [line(ends.local.port()), line(ends.remote.port())];
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn fields_choose_and_order_the_columns_of_the_table() {
    let netns = Netns::enter_new();
    let (ends, ended) = session(&netns, &["--fields", "rport,pid,lport"]);
    assert_eq!(words(&ended.lines[0]), ["RPORT", "PID", "LPORT"]);
    let (server, client) = (
        ends.remote.port().to_string(),
        ends.local.port().to_string(),
    );
    let pid = this_process().pid.to_string();
    assert_eq!(words(&ended.lines[1]), [&server, &pid, &client]);
}

#[test]
fn verbose_keeps_standard_output_clean() {
    let netns = Netns::enter_new();
    let mut trace = Trace::json(&netns, &["-v"]);
    let rows = Pair::open(V4).close();
    trace.wait_rows(2);
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(0));
    assert_rows(&ended.rows(), &rows);
}

#[test]
fn max_events_ends_the_trace() {
    let netns = Netns::enter_new();
    let trace = Trace::only(&netns, &["--json", "-n", "3"]);
    let listener = sock::listen(V4, 1).unwrap();
    for _ in 0..5 {
        Pair::through(&listener).close();
    }
    let ended = trace.wait_end();
    ended.assert_clean();
    assert_eq!(ended.rows().len(), 3);
}

#[test]
fn duration_ends_the_trace() {
    let netns = Netns::enter_new();
    let ended = Trace::only(&netns, &["--json", "--duration", "10ms"]).wait_end();
    ended.assert_rows(&[]);
}

#[test]
fn interrupt_and_terminate_deliver_what_has_happened_and_end_the_trace() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let netns = Netns::enter_new();
        let trace = Trace::json(&netns, &[]);
        let listener = sock::listen(V4, 1).unwrap();
        let mut rows = Vec::new();
        // With a reset both ends are closed when the second is told; a FIN may still be on its way.
        for _ in 0..100 {
            let pair = Pair::through(&listener);
            rows.push(pair.client_row().close("rst_sent", "local"));
            rows.push(
                pair.server_row()
                    .close("rst_received", "remote")
                    .error("ECONNRESET"),
            );
            reset_in_order(pair.client, pair.server);
        }
        trace.signal(signal);
        trace.wait_end().assert_rows(&rows);
    }
}

#[test]
fn closed_pipe_ends_a_quiet_trace_without_a_word() {
    let netns = Netns::enter_new();
    let mut trace = Trace::head(&netns, &[], 1);
    Pair::open(V4).close();
    trace.wait_stdout_end();
    let ended = trace.wait_end();
    ended.assert_clean();
    assert_eq!(ended.lines.len(), 1);
}

#[test]
fn closed_pipe_ends_a_busy_trace_without_a_word() {
    let netns = Netns::enter_new();
    let trace = Trace::head(&netns, &[], 1);
    for _ in 0..500 {
        Pair::open(V4).close();
    }
    let ended = trace.wait_end();
    ended.assert_clean();
    assert_eq!(ended.lines.len(), 1);
}

#[test]
fn summary_follows_the_rows_at_the_end() {
    let netns = Netns::enter_new();
    let mut trace = Trace::only(&netns, &["--json", "--summary"]);
    let listener = sock::listen(V4, 1).unwrap();
    let port = sock::local(&listener).unwrap().port();
    for size in [10, 20, 30] {
        let pair = Pair::through(&listener);
        pair.exchange(size, 0);
        close_in_order(pair.client, pair.server);
    }
    trace.wait_lines(6);
    let ended = trace.interrupt();
    ended.assert_clean();
    let by_port = ended.lines[6..].iter().find_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["event"], "tcplife_summary");
        (line["port"] == port && line["measure"] == "tx_bytes").then_some(line)
    });
    let by_port = by_port.expect("a line for the port");
    assert_eq!(
        (&by_port["count"], &by_port["max"]),
        (&6.into(), &30.into()),
        "{by_port}"
    );
}
