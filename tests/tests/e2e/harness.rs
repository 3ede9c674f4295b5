//! The harness itself: it must not be content with everything.

use serde_json::{Value, json};
use tcp_tools_tests::row::{Row, assert_rows, check_line, this_process};
use tcp_tools_tests::sock::{Ends, V4};

/// A well-formed line, and the row that expects it.
fn line() -> (Value, Row) {
    let me = this_process();
    let line = json!({
        "event": "tcplife", "ts": "2026-01-02T03:04:05.678901Z", "ts_ns": 1, "netns": 1,
        "pid": me.pid, "comm": me.comm, "uid": 0, "owner": "connect", "role": "client",
        "ip": 4, "laddr": "127.0.0.1", "lport": 7, "raddr": "127.0.0.1", "rport": 8,
        "tx_bytes": 5, "rx_bytes": 0, "duration_us": 9, "close": "fin", "closed_by": "local",
    });
    let (mut local, mut remote) = (V4, V4);
    local.set_port(7);
    remote.set_port(8);
    let row = Row::client(Ends { local, remote })
        .bytes(5, 0)
        .close("fin", "local");
    (line, row)
}

fn with(mut line: Value, field: &str, value: Value) -> Value {
    line[field] = value;
    line
}

#[test]
fn expected_row_is_accepted() {
    let (line, row) = line();
    assert_rows(&[check_line(&line.to_string())], &[row]);
}

#[test]
#[should_panic(expected = "not expected: ")]
fn row_that_came_twice_is_noticed() {
    let (line, row) = line();
    assert_rows(&[line.clone(), line], &[row]);
}

#[test]
#[should_panic(expected = "missing: ")]
fn row_that_did_not_come_is_noticed() {
    let (line, row) = line();
    assert_rows(&[line], &[row.clone(), row]);
}

#[test]
#[should_panic(expected = "missing: ")]
fn byte_too_many_is_noticed() {
    let (line, row) = line();
    assert_rows(&[with(line, "tx_bytes", json!(6))], &[row]);
}

#[test]
#[should_panic(expected = "missing: ")]
fn field_that_should_be_absent_is_noticed() {
    let (line, row) = line();
    assert_rows(&[with(line, "partial", json!(true))], &[row]);
}

#[test]
#[should_panic(expected = "not a well-formed line")]
fn unknown_field_is_noticed() {
    check_line(&with(line().0, "colour", json!("red")).to_string());
}

#[test]
#[should_panic(expected = "not a well-formed line")]
fn owner_without_a_process_is_noticed() {
    check_line(&with(line().0, "pid", Value::Null).to_string());
}

#[test]
#[should_panic(expected = "not a well-formed line")]
fn address_of_the_wrong_family_is_noticed() {
    check_line(&with(line().0, "laddr", json!("::1")).to_string());
}
