//! `tcpretrans`: reasons other than lost data. Again the rows are as many as the kernel counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use socket2::Socket;
use tcp_tools_tests::counters::{counter, wait_counter};
use tcp_tools_tests::netns::set_ipv4;
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::segment::Tap;
use tcp_tools_tests::sock::{self, V4};
use tcp_tools_tests::trace::Trace;
use tcp_tools_tests::{icmp, skip};

use crate::retrans_reasons::{Lab, count, deliver, failures, pair, traces_failures};

#[test]
fn syn_is_sent_again_by_the_timer() {
    let mut lab = Lab::new();
    let listener = sock::listen(V4, 1).unwrap();
    sock::deafen(&listener).unwrap();
    let client = sock::start_connect(sock::local(&listener).unwrap()).unwrap();
    lab.trace.wait_rows(2);
    drop(client);
    let rows = lab.finish(0);
    assert_eq!(count(&rows, "S", "rto"), rows.len() as u64, "{rows:#?}");
}

#[test]
fn synack_is_sent_again_by_the_timer() {
    let mut lab = Lab::new();
    let listener = sock::listen(V4, 1).unwrap();
    // The client is established, and the listener waits a second for its data.
    sock::set_tcp_flag(&listener, libc::TCP_DEFER_ACCEPT).unwrap();
    let client = sock::connect(sock::local(&listener).unwrap()).unwrap();
    lab.trace.wait_rows(1);
    sock::send(&client, 10).unwrap();
    let server = sock::accept(&listener).unwrap();
    sock::recv(&server, 10).unwrap();
    sock::wait_acked(&client).unwrap();
    let rows = lab.finish(0);
    let synacks = rows.iter().filter(|row| row["type"] == "A").count() as u64;
    assert_eq!(count(&rows, "A", "rto"), synacks, "{rows:#?}");
}

#[test]
fn synack_is_sent_again_because_the_syn_came_again() {
    const COPIES: u64 = 3;
    let mut lab = Lab::new();
    set_ipv4("tcp_invalid_ratelimit", "0");
    let listener = sock::listen(V4, 1).unwrap();
    let address = sock::local(&listener).unwrap();
    let tap = Tap::new().unwrap();
    let client = deaf_client(address);
    let syn = tap.next(|segment| segment.is_syn()).unwrap();
    for _ in 0..COPIES {
        syn.send().unwrap();
    }
    lab.trace.wait_rows(COPIES as usize);
    client.detach_filter().unwrap();
    sock::accept(&listener).unwrap();
    let rows = lab.finish(0);
    let syns = count(&rows, "S", "rto");
    assert_eq!(count(&rows, "A", "dup_syn"), COPIES + syns, "{rows:#?}");
}

/// Has sent a SYN, and drops what comes back.
fn deaf_client(address: SocketAddr) -> Socket {
    let client = sock::tcp(address).unwrap();
    client.set_nonblocking(true).unwrap();
    sock::deafen(&client).unwrap();
    client.connect(&address.into()).unwrap_err();
    client
}

/// The SYN-ACK is sent again by the child that a SYN with data has made, not by its listener.
#[test]
fn synack_of_fast_open() {
    // Client and server, which asks for no cookie, on every listener: Documentation/networking/ip-sysctl.rst.
    const WITHOUT_COOKIES: u32 = 0x1 | 0x2 | 0x4 | 0x200 | 0x400;
    let mut lab = Lab::new();
    set_ipv4("tcp_fastopen", &WITHOUT_COOKIES.to_string());
    let listener = sock::listen(V4, 4).unwrap();
    let address = sock::local(&listener).unwrap();
    let client = sock::tcp(address).unwrap();
    client.set_nonblocking(true).unwrap();
    sock::deafen(&client).unwrap();
    client
        .send_to_with_flags(&[b'x'; 10], &address.into(), libc::MSG_FASTOPEN)
        .unwrap();
    let server = sock::accept(&listener).unwrap();
    sock::recv(&server, 10).unwrap();
    lab.trace.wait_for_row("type", "A");
    lab.trace.wait_for_row("type", "S");
    client.detach_filter().unwrap();
    client.set_nonblocking(false).unwrap();
    sock::send(&client, 10).unwrap();
    sock::recv(&server, 10).unwrap();
    sock::wait_acked(&client).unwrap();
    let rows = lab.finish(0);
    assert!(
        count(&rows, "A", "dup_syn") <= count(&rows, "S", "rto"),
        "{rows:#?}"
    );
}

#[test]
fn path_mtu_becomes_smaller() {
    const SEGMENT: usize = 1300;
    let lab = Lab::without_probes();
    let tap = Tap::new().unwrap();
    // Each time another address: what the kernel has learnt of a path stays. If the timer expires before the router
    // answers, that path shows nothing.
    let is_seen = (2..20).any(|last| {
        let mut address = V4;
        address.set_ip(Ipv4Addr::new(127, 0, 0, last).into());
        let listener = sock::listen(address, 1).unwrap();
        let client = sock::tcp(address).unwrap();
        client.set_tcp_nodelay(true).unwrap();
        client.set_tcp_mss(SEGMENT as u32 + 100).unwrap();
        client
            .connect(&sock::local(&listener).unwrap().into())
            .unwrap();
        let server = sock::accept(&listener).unwrap();
        let pair = Pair { client, server };
        pair.exchange(10, 0);
        let counters = ["TCPTimeouts", "TCPSlowStartRetrans"];
        let before = counters.map(counter);
        sock::deafen(&pair.server).unwrap();
        sock::send(&pair.client, SEGMENT).unwrap();
        sock::send(&pair.client, SEGMENT).unwrap();
        let segment = tap.next(|segment| segment.payload() == SEGMENT).unwrap();
        icmp::too_big(&segment, 1000).unwrap();
        // It is answered at once, or the timer expires.
        let mut now = before;
        while now == before {
            now = counters.map(counter);
        }
        deliver(&pair, 2 * SEGMENT);
        now[0] == before[0]
    });
    assert!(is_seen);
    let rows = lab.finish(0);
    assert!(count(&rows, "R", "mtu") >= 1, "{rows:#?}");
}

#[test]
fn window_is_closed_over_what_was_sent() {
    let mut lab = Lab::without_probes();
    // A forged segment has no timestamp.
    set_ipv4("tcp_timestamps", "0");
    let pair = pair();
    // The next segment of the server's end is newer than the last that announced a window.
    pair.exchange(0, 10);
    let tap = Tap::new().unwrap();
    sock::deafen(&pair.server).unwrap();
    sock::send(&pair.client, 100).unwrap();
    let segment = tap.next(|segment| segment.payload() == 100).unwrap();
    segment.closed_window().send().unwrap();
    lab.trace.wait_for_row("reason", "zero_window");
    deliver(&pair, 100);
    lab.finish(0);
}

fn nft(command: &str) {
    let done = Command::new("nft").arg(command).status().unwrap();
    assert!(done.success(), "nft {command}");
}

#[test]
fn local_firewall_drops_what_is_sent_again() {
    let Ok(_) = Command::new("nft").arg("--version").output() else {
        return skip("nft");
    };
    let lab = Lab::without_probes();
    let table = Trace::text("tcpretrans", &lab.netns, &[]);
    let pair = pair();
    sock::deafen(&pair.server).unwrap();
    sock::send(&pair.client, 100).unwrap();
    nft("add table ip t; add chain ip t out { type filter hook output priority 0; policy drop; }");
    wait_counter("TCPRetransFail", 2, || {});
    nft("delete table ip t");
    deliver(&pair, 100);
    let failed = counter("TCPRetransFail");
    let rows = lab.finish(0);
    let marked = if traces_failures() { failed } else { 0 };
    assert_eq!(failures(&rows), marked, "{rows:#?}");
    let shown = table.interrupt();
    let letters = shown
        .lines
        .iter()
        .map(|line| line.split_whitespace().nth(4));
    let failures = letters.filter(|letter| *letter == Some("R!")).count() as u64;
    assert_eq!(failures, marked, "{:#?}", shown.lines);
}
