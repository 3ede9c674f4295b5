//! `tcpconnect --latency`: what becomes of each attempt, and how long that takes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::Socket;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::{Netns, client_ends, one_client_port};
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, Ends, V4, V6};
use tcp_tools_tests::trace::{Ended, Trace};

/// An address that this namespace has no route to.
const NO_ROUTE: &str = "10.1.2.3:80";

fn trace(netns: &Netns) -> Trace {
    Trace::view("tcpconnect", netns, &["--latency"])
}

/// A listener on a free port, and where it is.
fn listener() -> (Socket, SocketAddr) {
    let listener = sock::listen(V4, 16).unwrap();
    let address = sock::local(&listener).unwrap();
    (listener, address)
}

/// A port without a listener, as long as the socket lives.
fn closed_port() -> (Socket, SocketAddr) {
    let holder = sock::tcp(V4).unwrap();
    holder.bind(&V4.into()).unwrap();
    let address = sock::local(&holder).unwrap();
    (holder, address)
}

fn latency(row: &Value) -> Duration {
    Duration::from_micros(row["latency_us"].as_u64().unwrap())
}

/// Connects a socket whose first SYN-ACK is lost, so that it takes a second.
fn connect_slowly(address: SocketAddr) -> Socket {
    let client = sock::tcp(address).unwrap();
    client.set_nonblocking(true).unwrap();
    sock::deafen(&client).unwrap();
    let error = client.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
    sock::hear_after_loss(&client).unwrap();
    client
}

#[test]
fn established_takes_no_longer_than_the_call() {
    let netns = Netns::enter_new();
    let mut trace = trace(&netns);
    let (_listener, address) = listener();
    let start = Instant::now();
    let client = sock::connect(address).unwrap();
    let longest = start.elapsed();
    trace.wait_rows(1);
    let ended = trace.interrupt();
    ended.assert_rows(&[Row::connect(Ends::of(&client).unwrap()).established()]);
    let row = &ended.rows()[0];
    assert!(latency(row) <= longest, "{row} took {longest:?}");
    assert_eq!(row["syn_retransmits"], 0);
}

#[test]
fn established_later_than_the_call_takes_as_long_as_the_answer() {
    let netns = Netns::enter_new();
    let mut trace = trace(&netns);
    let (listener, address) = listener();
    let start = Instant::now();
    let client = connect_slowly(address);
    let deaf = Instant::now();
    let server = sock::accept(&listener).unwrap();
    let longest = start.elapsed();
    trace.wait_rows(1);
    let ended = trace.interrupt();
    let at_client = Ends::of(&server).unwrap().swapped();
    ended.assert_rows(&[Row::connect(at_client).established()]);
    let row = &ended.rows()[0];
    // The SYN is sent again after a second (TCP_TIMEOUT_INIT).
    assert!(latency(row) >= deaf.elapsed().min(Duration::from_millis(900)));
    assert!(latency(row) <= longest, "{row} took {longest:?}");
    assert!(row["syn_retransmits"].as_u64().unwrap() <= 2, "{row}");
    drop(client);
}

#[test]
fn refused_whether_it_is_waited_for_or_not() {
    for waits in [true, false] {
        let netns = Netns::enter_new();
        let trace = trace(&netns);
        let (_holder, address) = closed_port();
        one_client_port();
        let call = if waits {
            sock::connect
        } else {
            sock::start_connect
        };
        // Either answer is right if nobody waits: the reset may come before connect() returns.
        let socket = call(address);
        assert!(!waits || socket.is_err());
        trace.expect(&[Row::connect(client_ends(address)).failed("rst", "ECONNREFUSED")]);
    }
}

#[test]
fn timed_out() {
    let netns = Netns::enter_new();
    let mut trace = trace(&netns);
    let (listener, address) = listener();
    sock::deafen(&listener).unwrap();
    one_client_port();
    let socket = sock::tcp(V4).unwrap();
    let soon = Duration::from_millis(100);
    socket.set_tcp_user_timeout(Some(soon)).unwrap();
    let error = socket.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    trace.wait_rows(1);
    let ended = trace.interrupt();
    ended.assert_rows(&[Row::connect(client_ends(address)).failed("timeout", "ETIMEDOUT")]);
    assert!(latency(&ended.rows()[0]) >= soon);
}

#[test]
fn network_unreachable_before_a_syn_is_sent() {
    let remote: SocketAddr = NO_ROUTE.parse().unwrap();
    for args in [&["--latency"][..], &["--failed"]] {
        let netns = Netns::enter_new();
        let mut trace = Trace::view("tcpconnect", &netns, args);
        let start = Instant::now();
        let error = sock::connect(remote).unwrap_err();
        let longest = start.elapsed();
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        trace.wait_rows(1);
        let ended = trace.interrupt();
        let local = "0.0.0.0:0".parse().unwrap();
        ended.assert_rows(&[Row::connect(Ends { local, remote }).failed("local", "ENETUNREACH")]);
        assert!(latency(&ended.rows()[0]) <= longest);
    }
}

#[test]
fn network_unreachable_over_ipv6() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let remote: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
    let error = sock::connect(remote).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
    let local = "[::]:0".parse().unwrap();
    trace.expect(&[Row::connect(Ends { local, remote }).failed("local", "ENETUNREACH")]);
}

#[test]
fn no_port_is_left() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let (_listener, address) = listener();
    one_client_port();
    let _first = sock::connect(address).unwrap();
    let error = sock::connect(address).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    let mut ends = client_ends(address);
    let first = Row::connect(ends).established();
    ends.local.set_port(0);
    // Newer kernels take the address back as well.
    let second = Row::connect(ends).with("laddr", Value::Null);
    trace.expect(&[first, second.failed("local", "EADDRNOTAVAIL")]);
}

#[test]
fn without_an_answer_there_is_no_row() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let (listener, address) = listener();
    sock::deafen(&listener).unwrap();
    let _client = sock::start_connect(address).unwrap();
    trace.interrupt().assert_rows(&[]);
}

#[test]
fn call_with_wrong_arguments_is_no_attempt() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let (_listener, address) = listener();
    let client = sock::connect(address).unwrap();
    let at_client = Ends::of(&client).unwrap();
    // Connected already.
    client.connect(&address.into()).unwrap_err();
    // Of another family.
    sock::tcp(V4).unwrap().connect(&V6.into()).unwrap_err();
    trace.expect(&[Row::connect(at_client).established()]);
}

#[test]
fn failure_in_a_thread_has_the_name_of_the_process() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let mut actor = Actor::start("a-process");
    actor.tell(&format!("thread a-thread connect c {NO_ROUTE}"));
    let error = actor.failure();
    assert!(error.contains("unreachable"), "{error}");
    let ends = Ends {
        local: "0.0.0.0:0".parse().unwrap(),
        remote: NO_ROUTE.parse().unwrap(),
    };
    let row = Row::connect(ends).of(&actor.process());
    trace.expect(&[row.failed("local", "ENETUNREACH")]);
}

/// A refused attempt, one that takes a second, and one that takes no time, in this order.
fn three_attempts() -> [Row; 3] {
    let (_holder, closed) = closed_port();
    sock::connect(closed).unwrap_err();
    let (slow, slow_address) = listener();
    let client = connect_slowly(slow_address);
    let server = sock::accept(&slow).unwrap();
    let (_fast, fast_address) = listener();
    let fast = sock::connect(fast_address).unwrap();
    drop(client);
    let refused = Ends {
        local: V4,
        remote: closed,
    };
    [
        Row::connect(refused)
            .with("lport", Value::Null)
            .failed("rst", "ECONNREFUSED"),
        Row::connect(Ends::of(&server).unwrap().swapped()).established(),
        Row::connect(Ends::of(&fast).unwrap()).established(),
    ]
}

/// Which of [`three_attempts`] have a row.
fn check(args: &[&str], expected: &[usize]) {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, args);
    let all = three_attempts();
    let rows: Vec<Row> = expected.iter().map(|index| all[*index].clone()).collect();
    trace.expect(&rows);
}

#[test]
fn options_choose_the_attempts() {
    check(&["--latency"], &[0, 1, 2]);
    check(&["--latency", "500"], &[1]);
    check(&["--latency=0.001"], &[0, 1, 2]);
    check(&["--failed"], &[0]);
    check(&["--failed", "--latency", "500"], &[]);
}

/// Five attempts, one of them refused, with a histogram at the end.
fn histogram(format: &[&str], lines: usize) -> Ended {
    let netns = Netns::enter_new();
    let args = [&["--histogram"], format].concat();
    let mut trace = Trace::text("tcpconnect", &netns, &args);
    let (_listener, address) = listener();
    for _ in 0..4 {
        sock::connect(address).unwrap();
    }
    let (_holder, closed) = closed_port();
    sock::connect(closed).unwrap_err();
    trace.wait_lines(lines);
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(0));
    ended
}

#[test]
fn histogram_in_json() {
    let ended = histogram(&["--json"], 5);
    ended.assert_clean();
    assert_eq!(ended.lines.len(), 6, "{:#?}", ended.lines);
    let [line] = &ended.events("tcpconnect_histogram")[..] else {
        panic!("{:#?}", ended.lines);
    };
    assert_eq!(
        (&line["measure"], &line["count"]),
        (&"latency_us".into(), &4.into())
    );
    let numbers = ["min", "p50", "p90", "p99", "p999", "max"].map(|name| line[name].as_u64());
    assert!(numbers.iter().all(Option::is_some), "{line}");
    assert!(numbers.is_sorted(), "{line}");
    let mut latencies: Vec<u64> = ended
        .rows()
        .iter()
        .filter(|row| row["outcome"] == "established")
        .map(|row| row["latency_us"].as_u64().unwrap())
        .collect();
    latencies.sort_unstable();
    let extremes = (latencies.first().copied(), latencies.last().copied());
    assert_eq!((numbers[0], numbers[5]), extremes, "{line}");
}

#[test]
fn histogram_in_a_table() {
    let ended = histogram(&[], 6);
    ended.assert_clean();
    let picture = ended.lines[6..].join("\n");
    for part in [
        "count 4", "min ", "p50 ", "p90 ", "p99 ", "p99.9 ", "max ", "#",
    ] {
        assert!(picture.contains(part), "no {part:?} in:\n{picture}");
    }
}

#[test]
fn histogram_does_not_spoil_csv() {
    let ended = histogram(&["--csv"], 6);
    assert_eq!(ended.lines.len(), 6);
    assert!(ended.stderr.contains("count 4"), "{}", ended.stderr);
}

#[test]
fn table_shows_outcome_and_latency() {
    let netns = Netns::enter_new();
    let mut trace = Trace::text("tcpconnect", &netns, &["--latency"]);
    three_attempts();
    trace.wait_lines(4);
    let ended = trace.interrupt();
    ended.assert_clean();
    let last = |line: &String, n: usize| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        cells[cells.len() - n].to_owned()
    };
    let results: Vec<_> = ended.lines.iter().map(|line| last(line, 2)).collect();
    assert_eq!(
        results,
        ["RESULT", "ECONNREFUSED", "established", "established"]
    );
    assert_eq!(last(&ended.lines[0], 1), "RETRANS");
    assert_eq!(last(&ended.lines[0], 3), "MS");
    let slow: f64 = last(&ended.lines[2], 3).parse().unwrap();
    assert!(slow >= 900.0, "{:#?}", ended.lines);
}
