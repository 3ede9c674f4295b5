//! `tcpconnect`: each attempt that sends a SYN has one row, in the caller's name, with its real port.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tcp_tools_tests::actor::{Actor, ends};
use tcp_tools_tests::features;
use tcp_tools_tests::netns::{Netns, client_ends, one_client_port, set_ipv4};
use tcp_tools_tests::row::{Process, Row};
use tcp_tools_tests::sock::{self, DUAL, Ends, V4, V6};
use tcp_tools_tests::trace::{Ended, Trace};

/// A listener on a free port of `address`, and where it is.
fn listener(address: SocketAddr) -> (Socket, SocketAddr) {
    let listener = sock::listen(address, 16).unwrap();
    let address = sock::local(&listener).unwrap();
    (listener, address)
}

/// A listener that drops each SYN.
fn deaf_listener() -> (Socket, SocketAddr) {
    let (listener, address) = listener(V4);
    sock::deafen(&listener).unwrap();
    (listener, address)
}

/// A port without a listener, as long as the socket lives.
fn closed_port() -> (Socket, SocketAddr) {
    let holder = sock::tcp(V4).unwrap();
    holder.bind(&V4.into()).unwrap();
    let address = sock::local(&holder).unwrap();
    (holder, address)
}

#[test]
fn blocking_attempt_of_each_family() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let mapped: SocketAddr = "[::ffff:127.0.0.1]:0".parse().unwrap();
    let rows = [(V4, V4), (V6, V6), (DUAL, V4), (DUAL, mapped)].map(|(at, to)| {
        let (_listener, mut address) = listener(at);
        address.set_ip(to.ip());
        let client = sock::connect(address).unwrap();
        Row::connect(Ends::of(&client).unwrap())
    });
    trace.expect(&rows);
}

#[test]
fn attempt_that_is_not_waited_for() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (listener, address) = listener(V4);
    let client = sock::start_connect(address).unwrap();
    let server = sock::accept(&listener).unwrap();
    let at_client = Ends::of(&server).unwrap().swapped();
    trace.expect(&[Row::connect(at_client)]);
    drop(client);
}

#[test]
fn refused_attempt() {
    for waits in [true, false] {
        let netns = Netns::enter_new();
        let trace = Trace::view("tcpconnect", &netns, &[]);
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
        trace.expect(&[Row::connect(client_ends(address))]);
    }
}

#[test]
fn attempt_that_times_out_has_one_row_for_all_its_syns() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (_listener, address) = deaf_listener();
    one_client_port();
    let socket = sock::tcp(V4).unwrap();
    let soon = Duration::from_millis(100);
    socket.set_tcp_user_timeout(Some(soon)).unwrap();
    let error = socket.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    trace.expect(&[Row::connect(client_ends(address))]);
}

#[test]
fn attempt_without_a_route_sends_no_syn_and_has_no_row() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let error = sock::connect("10.1.2.3:80".parse().unwrap()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
    let (_listener, address) = listener(V4);
    let client = sock::connect(address).unwrap();
    trace.expect(&[Row::connect(Ends::of(&client).unwrap())]);
}

#[test]
fn attempt_that_waits_when_the_trace_ends() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (_listener, address) = deaf_listener();
    let client = sock::start_connect(address).unwrap();
    let local = sock::local(&client).unwrap();
    let remote = address;
    trace
        .interrupt()
        .assert_rows(&[Row::connect(Ends { local, remote })]);
}

#[test]
fn attempt_that_is_given_up() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (_listener, address) = deaf_listener();
    one_client_port();
    drop(sock::start_connect(address).unwrap());
    trace.expect(&[Row::connect(client_ends(address))]);
}

#[test]
fn each_attempt_of_one_socket() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (_holder, closed) = closed_port();
    let (_listener, open) = listener(V4);
    one_client_port();
    let socket = sock::tcp(V4).unwrap();
    socket.connect(&closed.into()).unwrap_err();
    socket.connect(&closed.into()).unwrap_err();
    socket.connect(&open.into()).unwrap();
    trace.expect(&[closed, closed, open].map(|address| Row::connect(client_ends(address))));
}

#[test]
fn attempt_in_a_thread_has_the_name_of_the_process() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (_listener, address) = listener(V4);
    let mut actor = Actor::start("a-process");
    let at_client = ends(&actor.ask(&format!("thread a-thread connect c {address}")));
    trace.expect(&[Row::connect(at_client).of(&actor.process())]);
}

#[test]
fn attempt_in_a_child_belongs_to_the_child() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (listener, address) = listener(V4);
    let mut actor = Actor::start("parent");
    let pid = actor.ask(&format!("fork comm child; connect c {address}"));
    let child = Process {
        pid: pid.parse().unwrap(),
        comm: "child".into(),
        uid: 0,
    };
    let server = sock::accept(&listener).unwrap();
    let at_client = Ends::of(&server).unwrap().swapped();
    trace.expect(&[Row::connect(at_client).of(&child)]);
}

#[test]
fn attempt_by_fast_open_is_marked() {
    let netns = Netns::enter_new();
    // Client and server, and data in the SYN without a cookie.
    set_ipv4("tcp_fastopen", "1543");
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (listener, address) = listener(V4);
    let client = sock::connect_and_send(address, 10).unwrap();
    let marked = Row::connect(Ends::of(&client).unwrap()).with("fast_open", true);
    sock::recv(&sock::accept(&listener).unwrap(), 10).unwrap();
    let plain = sock::connect(address).unwrap();
    trace.expect(&[marked, Row::connect(Ends::of(&plain).unwrap())]);
}

#[test]
fn attempt_that_fast_open_puts_off_until_there_is_data_is_marked() {
    /// Of linux/tcp.h.
    const TCP_FASTOPEN_CONNECT: libc::c_int = 30;
    let netns = Netns::enter_new();
    set_ipv4("tcp_fastopen", "1543");
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (listener, address) = listener(V4);
    let client = sock::tcp(address).unwrap();
    sock::set_tcp_flag(&client, TCP_FASTOPEN_CONNECT).unwrap();
    client.connect(&address.into()).unwrap();
    sock::send(&client, 10).unwrap();
    let server = sock::accept(&listener).unwrap();
    sock::recv(&server, 10).unwrap();
    let at_client = Ends::of(&server).unwrap().swapped();
    trace.expect(&[Row::connect(at_client).with("fast_open", true)]);
}

#[test]
fn attempt_of_multipath_tcp_is_marked() {
    /// Of linux/in.h.
    const IPPROTO_MPTCP: i32 = 262;
    let netns = Netns::enter_new();
    let client = Socket::new(
        Domain::IPV4,
        Type::STREAM,
        Some(Protocol::from(IPPROTO_MPTCP)),
    );
    if !features::multipath_tcp() {
        // That `doctor` reports this is tested there.
        let error = client.unwrap_err().raw_os_error();
        return assert_eq!(error, Some(libc::EPROTONOSUPPORT));
    }
    let client = client.unwrap();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let (listener, address) = listener(V4);
    client.connect(&address.into()).unwrap();
    let server = sock::accept(&listener).unwrap();
    let at_client = Ends::of(&server).unwrap().swapped();
    trace.expect(&[Row::connect(at_client).with("mptcp", true)]);
}

/// Three connects to one port and one to another, counted.
fn counted(trace: Trace) -> ([u16; 2], Ended) {
    let listeners = [listener(V4), listener(V4)];
    for times in [(0, 3), (1, 1)] {
        for _ in 0..times.1 {
            sock::connect(listeners[times.0].1).unwrap();
        }
    }
    let ended = trace.interrupt();
    ended.assert_clean();
    (listeners.map(|(_, address)| address.port()), ended)
}

#[test]
fn counts_per_destination() {
    let netns = Netns::enter_new();
    let (ports, ended) = counted(Trace::view("tcpconnect", &netns, &["-c"]));
    let counts = ended.events("tcpconnect_count");
    assert_eq!((counts.len(), ended.lines.len()), (2, 2));
    for (line, (port, count)) in counts.iter().zip([(ports[0], 3), (ports[1], 1)]) {
        assert_eq!(line["laddr"], "127.0.0.1");
        assert_eq!(line["raddr"], "127.0.0.1");
        assert_eq!(
            (&line["rport"], &line["count"]),
            (&port.into(), &count.into())
        );
    }
}

#[test]
fn table_of_counts() {
    let netns = Netns::enter_new();
    let (ports, ended) = counted(Trace::text("tcpconnect", &netns, &["--count"]));
    let cells: Vec<Vec<&str>> = ended
        .lines
        .iter()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let ip = "127.0.0.1";
    assert_eq!(cells[0][..2], ["LADDR", "RADDR"]);
    assert_eq!(cells[1], [ip, ip, &ports[0].to_string(), "3"]);
    assert_eq!(cells[2], [ip, ip, &ports[1].to_string(), "1"]);
}

/// The header and the only row of a table.
fn table(args: &[&str]) -> (SocketAddr, [Vec<String>; 2]) {
    let netns = Netns::enter_new();
    let mut trace = Trace::text("tcpconnect", &netns, args);
    let (_listener, address) = listener(V4);
    let client = sock::connect(address).unwrap();
    trace.wait_lines(2);
    let ended = trace.interrupt();
    ended.assert_clean();
    let cells = |line: &String| line.split_whitespace().map(String::from).collect();
    let lines: Vec<_> = ended.lines.iter().map(cells).collect();
    (sock::local(&client).unwrap(), lines.try_into().unwrap())
}

#[test]
fn table_has_the_columns_of_bcc() {
    for (args, columns) in [
        (&[][..], "PID COMM IP SADDR DADDR DPORT"),
        (&["-t"], "TIME(s) PID COMM IP SADDR DADDR DPORT"),
        (&["-U"], "UID PID COMM IP SADDR DADDR DPORT"),
        (&["-L"], "PID COMM IP SADDR LPORT DADDR DPORT"),
        (
            &["-t", "-U", "-L"],
            "TIME(s) UID PID COMM IP SADDR LPORT DADDR DPORT",
        ),
        (
            &["--lport", "--print-uid"],
            "UID PID COMM IP SADDR LPORT DADDR DPORT",
        ),
        (&["-T"], "TIME PID COMM IP SADDR DADDR DPORT"),
    ] {
        let (local, [header, row]) = table(args);
        assert_eq!(header.join(" "), columns, "{args:?}");
        assert_eq!(row.len(), header.len(), "{args:?}");
        let cell = |name: &str| header.iter().position(|it| it == name).map(|at| &row[at]);
        assert_eq!(cell("PID"), Some(&std::process::id().to_string()));
        if let Some(lport) = cell("LPORT") {
            assert_eq!(*lport, local.port().to_string());
        }
        if let Some(uid) = cell("UID") {
            assert_eq!(uid, "0");
        }
    }
}
