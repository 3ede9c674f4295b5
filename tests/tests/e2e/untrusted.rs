//! Names that processes give themselves: whatever they hold, nothing of it acts on a terminal or
//! pretends to be another column or row.

use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::sock::{self, V4};
use tcp_tools_tests::trace::Trace;

/// Names, and how a table and CSV show them.
const NAMES: [(&[u8], &str); 8] = [
    (b"\x1b[2J\x1b[H", r"\x1B[2J\x1B[H"),
    (b"a,\"b\",'c", "a,\"b\",'c"),
    (b"two\nlines\r", r"two\x0Alines\x0D"),
    (b"\xff\xfe\x80.", r"\xFF\xFE\x80."),
    ("\u{202e}evil".as_bytes(), r"\u{202E}evil"),
    ("\u{9b}2J\u{7f}".as_bytes(), r"\u{009B}2J\x7F"),
    (b"tab\tand\x07bell", r"tab\x09and\x07bell"),
    (br"\x1B[2J", r"\x5Cx1B[2J"),
];

/// What `tcpconnect` says of one process under each name.
fn lines(args: &[&str], headers: usize) -> Vec<String> {
    let netns = Netns::enter_new();
    let mut trace = Trace::text("tcpconnect", &netns, args);
    let listener = sock::listen(V4, 16).unwrap();
    let address = sock::local(&listener).unwrap();
    let mut actor = Actor::start("plain");
    for (number, (name, _)) in NAMES.iter().enumerate() {
        let digits: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        actor.ask(&format!("comm_hex {digits}"));
        actor.connect(&number.to_string(), address);
    }
    trace.wait_lines(NAMES.len() + headers);
    let ended = trace.interrupt();
    ended.assert_clean();
    assert_eq!(
        ended.lines.len(),
        NAMES.len() + headers,
        "{:#?}",
        ended.lines
    );
    let hidden = |c: char| c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c);
    assert!(!ended.lines.concat().contains(hidden), "{:?}", ended.lines);
    ended.lines
}

#[test]
fn table_shows_what_is_hidden() {
    let lines = lines(&[], 1);
    for ((_, shown), line) in NAMES.iter().zip(&lines[1..]) {
        assert!(line.contains(shown), "{shown}: {line}");
        // What comes behind the name.
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[cells.len() - 2], "127.0.0.1", "{line}");
    }
}

#[test]
fn csv_reads_back() {
    let text = lines(&["--csv"], 1).join("\n");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let at = reader.headers().unwrap().iter().position(|it| it == "COMM");
    let comms: Vec<String> = reader
        .records()
        .map(|record| record.unwrap()[at.unwrap()].into())
        .collect();
    assert_eq!(comms, NAMES.map(|(_, shown)| shown));
}

#[test]
fn json_reads_back() {
    let lines = lines(&["--json"], 0);
    for ((name, _), line) in NAMES.iter().zip(&lines) {
        let row = tcp_tools_tests::row::check_line(line);
        assert_eq!(
            row["comm"],
            String::from_utf8_lossy(name).as_ref(),
            "{line}"
        );
    }
}
