//! How `tcplife` shows ends, and sessions that have not ended, in tables and in CSV.

use std::collections::BTreeMap;
use std::net::Shutdown;

use tcp_tools_tests::netns::{Netns, client_ends, one_client_port};
use tcp_tools_tests::pair::{Pair, reset_in_order};
use tcp_tools_tests::row::assert_rows;
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::{Ended, Trace};

/// The lines of a table or of CSV, without the heading: words or fields by the name of their column.
fn rows(ended: &Ended, csv: bool) -> Vec<BTreeMap<String, String>> {
    let split = |line: &str| -> Vec<String> {
        let words: Vec<&str> = if csv {
            line.split(',').collect()
        } else {
            line.split_whitespace().collect()
        };
        words.into_iter().map(String::from).collect()
    };
    let mut lines = ended.lines.iter().map(|line| split(line));
    let names = lines.next().expect("a heading");
    let named = |row: Vec<String>| {
        assert_eq!(row.len(), names.len(), "{row:?}");
        names.iter().cloned().zip(row).collect()
    };
    lines.map(named).collect()
}

/// The value of `column` in the row of the socket with these ends.
fn cell<'a>(rows: &'a [BTreeMap<String, String>], ends: Ends, column: &str) -> &'a str {
    let is_it = |row: &&BTreeMap<String, String>| {
        row["LPORT"] == ends.local.port().to_string()
            && row["RPORT"] == ends.remote.port().to_string()
    };
    &rows.iter().find(is_it).expect("a row")[column]
}

fn last_columns(ended: &Ended) -> Vec<&str> {
    let words = ended.lines[0].split([' ', ',']);
    let mut words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.split_off(9)
}

#[test]
fn an_end_is_shown_with_who_ended_it() {
    for csv in [false, true] {
        let netns = Netns::enter_new();
        let mut trace = Trace::only(&netns, if csv { &["--csv"] } else { &[] });
        let listener = sock::listen(V4, 1).unwrap();
        let in_order = Pair::through(&listener);
        let fin = Ends::of(&in_order.client).unwrap();
        in_order.close();
        let Pair { client, server } = Pair::through(&listener);
        let reset = Ends::of(&client).unwrap();
        reset_in_order(client, server);
        trace.wait_lines(5);
        let taken = sock::tcp(V4).unwrap();
        taken.bind(&V4.into()).unwrap();
        let remote = sock::local(&taken).unwrap();
        one_client_port();
        sock::connect(remote).unwrap_err();
        let refused = client_ends(remote);
        trace.wait_lines(6);
        let ended = trace.interrupt();
        ended.assert_clean();
        let columns: &[&str] = if csv { &["END", "PARTIAL"] } else { &["END"] };
        assert_eq!(last_columns(&ended), columns);
        let rows = rows(&ended, csv);
        for (ends, end) in [
            (fin, "fin>"),
            (fin.swapped(), "fin<"),
            (reset, "rst>"),
            (reset.swapped(), "rst<"),
            (refused, "refused<"),
        ] {
            assert_eq!(cell(&rows, ends, "END"), end, "{:#?}", ended.lines);
        }
    }
}

#[test]
fn open_and_older_sessions_are_marked() {
    for csv in [false, true] {
        let netns = Netns::enter_new();
        let listener = sock::listen(V4, 1).unwrap();
        let pair = || Pair::through(&listener);
        let (old_open, old_ended) = (pair(), pair());
        let args: &[&str] = if csv {
            &["--active", "--csv"]
        } else {
            &["--active"]
        };
        let mut trace = Trace::only(&netns, args);
        let (new_open, new_ended) = (pair(), pair());
        new_open.client.shutdown(Shutdown::Write).unwrap();
        sock::drain(&new_open.server).unwrap();
        sock::wait_acked(&new_open.client).unwrap();
        let ends = [&old_open, &old_ended, &new_open, &new_ended];
        let ends = ends.map(|pair| Ends::of(&pair.client).unwrap());
        old_ended.close();
        new_ended.close();
        trace.wait_lines(5);
        let ended = trace.interrupt();
        ended.assert_clean();
        assert_eq!(ended.lines.len(), 9, "{:#?}", ended.lines);
        let rows = rows(&ended, csv);
        let expected = [
            ("open", true),
            ("fin>", true),
            ("open", false),
            ("fin>", false),
        ];
        for (ends, (end, is_older)) in ends.into_iter().zip(expected) {
            let shown = |column| cell(&rows, ends, column);
            assert_eq!(shown("END"), end, "{:#?}", ended.lines);
            let ms = shown("MS");
            let number = if csv {
                assert_eq!(shown("PARTIAL"), is_older.to_string());
                ms
            } else {
                assert_eq!(ms.starts_with('>'), is_older, "{ms}");
                ms.trim_start_matches('>')
            };
            assert!(number.parse::<f64>().unwrap() >= 0.0, "{ms}");
        }
    }
}

#[test]
fn a_kernel_without_the_tracepoint_is_warned_about() {
    let netns = Netns::enter_new();
    let mut trace = Trace::without("tcp_send_reset", "tcplife", &netns, &[]);
    let pair = Pair::open(V4);
    pair.client.shutdown(Shutdown::Write).unwrap();
    sock::wait_acked(&pair.client).unwrap();
    let rows = [
        pair.client_row().close("rst_sent", "local"),
        pair.server_row()
            .close("rst_received", "remote")
            .error("EPIPE"),
    ];
    // The state before CLOSE is enough for this one.
    sock::reset(pair.client).unwrap();
    trace.wait_rows(2);
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_rows(&ended.rows(), &rows);
    let warning = "resets that the kernel sends on its own are not seen";
    assert!(ended.stderr.contains(warning), "{}", ended.stderr);
}
