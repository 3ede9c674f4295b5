//! How sessions end in each state and for each reason: the rows of both ends, and what the kernel counts.
//!
//! The client is the end that does something; the server lets it come into the state that it shall do it in.

use std::net::{Shutdown, SocketAddr};
use std::process::Command;
use std::time::Duration;

use socket2::Socket;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::counters::counter;
use tcp_tools_tests::netns::{Netns, set_ipv4};
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::proc_net;
use tcp_tools_tests::row::Row;
use tcp_tools_tests::skip;
use tcp_tools_tests::sock::{self, Ends, V4, V6};
use tcp_tools_tests::states::{wait_state, wait_until};
use tcp_tools_tests::trace::Trace;

/// States in which a process can close a socket.
const STATES: [&str; 6] = [
    "ESTABLISHED",
    "CLOSE_WAIT",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "CLOSING",
    "LAST_ACK",
];

/// Bytes that the server sends and the client does not read.
const UNREAD: usize = 10;

/// Brings the client into `state`. In the last but two the server does not get the client's FIN.
fn enter(state: &str, Pair { client, server }: &Pair) {
    match state {
        "ESTABLISHED" => {}
        "CLOSE_WAIT" => server.shutdown(Shutdown::Write).unwrap(),
        "FIN_WAIT1" => {
            sock::deafen_to_fins(server).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
        "FIN_WAIT2" => client.shutdown(Shutdown::Write).unwrap(),
        "CLOSING" => {
            sock::deafen_to_fins(server).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            // The client's answer comes through.
            wait_state(server, "FIN_WAIT2");
        }
        "LAST_ACK" => {
            server.shutdown(Shutdown::Write).unwrap();
            wait_state(server, "FIN_WAIT2");
            sock::deafen_to_fins(server).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
        other => panic!("no such case: {other}"),
    }
    wait_state(client, state);
}

/// What the kernel has counted in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    /// TCPAbortOnData, TCPAbortOnClose, TCPAbortOnLinger.
    aborts: u64,
    /// OutRsts: of sockets, and where there is none.
    resets: u64,
    /// RetransSegs
    retransmits: u64,
}

impl Counts {
    fn now() -> Self {
        let aborts = ["TCPAbortOnData", "TCPAbortOnClose", "TCPAbortOnLinger"];
        Self {
            aborts: aborts.into_iter().map(counter).sum(),
            resets: counter("OutRsts"),
            retransmits: counter("RetransSegs"),
        }
    }
}

/// A trace, and all that is expected of it.
struct Table {
    netns: Netns,
    trace: Trace,
    listener: Socket,
    rows: Vec<Row>,
    counts: Counts,
}

impl Table {
    fn new(address: SocketAddr) -> Self {
        let netns = Netns::enter_new();
        Self {
            trace: Trace::json(&netns, &[]),
            netns,
            listener: sock::listen(address, 1).unwrap(),
            rows: Vec::new(),
            counts: Counts::now(),
        }
    }

    fn pair(&self) -> Pair {
        Pair::through(&self.listener)
    }

    /// A session whose client is in `state` and has not read `unread` bytes.
    fn pair_in(&self, state: &str, unread: usize) -> Pair {
        let pair = self.pair();
        sock::send(&pair.server, unread).unwrap();
        sock::wait_acked(&pair.server).unwrap();
        enter(state, &pair);
        pair
    }

    /// These rows come, and the kernel counts so many aborts and RSTs more.
    fn expect(&mut self, case: &str, rows: [Row; 2], aborts: u64, resets: u64) {
        self.rows.extend(rows);
        self.trace.wait_rows(self.rows.len());
        let Counts {
            aborts: aborts_before,
            resets: resets_before,
            retransmits,
        } = self.counts;
        let expected = (aborts_before + aborts, resets_before + resets);
        // Some are counted after the RST, perhaps by a child of another test, which held the socket until its exec.
        wait_until(case, || {
            let now = Counts::now();
            now.aborts >= expected.0 && now.resets >= expected.1
        });
        let found = Counts::now();
        assert_eq!(found.aborts, expected.0, "{case}");
        // On a slow machine a segment is sent again, and may arrive where no socket is left.
        if found.retransmits == retransmits {
            assert_eq!(found.resets, expected.1, "{case}");
        }
        self.counts = found;
    }

    fn end(self) {
        self.trace.interrupt().assert_rows(&self.rows);
        drop(self.netns);
    }
}

fn rst_sent(row: Row) -> Row {
    row.close("rst_sent", "local")
}

fn rst_received(row: Row, error: &str) -> Row {
    row.close("rst_received", "remote").error(error)
}

/// What the server's socket says when a RST comes while the client is in `state`.
fn error_of_peer(state: &str) -> &'static str {
    // The server has got the client's FIN, and so is in CLOSE_WAIT.
    if state == "FIN_WAIT2" {
        "EPIPE"
    } else {
        "ECONNRESET"
    }
}

/// RSTs on the wire for one that the client sends in `state`: where the server has not got the FIN before it, its
/// number is not the expected one. The server asks (RFC 5961), and gets another of no socket.
fn resets_in(state: &str) -> u64 {
    match state {
        "FIN_WAIT1" | "CLOSING" | "LAST_ACK" => 2,
        _ => 1,
    }
}

fn unread(address: SocketAddr, close: impl Fn(Socket)) {
    let mut table = Table::new(address);
    for state in STATES {
        let pair = table.pair_in(state, UNREAD);
        let rows = [
            rst_sent(pair.client_row().bytes(0, UNREAD)),
            rst_received(pair.server_row().bytes(UNREAD, 0), error_of_peer(state)),
        ];
        close(pair.client);
        table.expect(state, rows, 1, resets_in(state));
    }
    table.end();
}

#[test]
fn unread_data_ipv4() {
    unread(V4, drop);
}

#[test]
fn unread_data_ipv6() {
    unread(V6, drop);
}

#[test]
fn unread_data_after_shut_rd() {
    unread(V4, |client| client.shutdown(Shutdown::Read).unwrap());
}

#[test]
fn unread_data_of_a_process_that_is_killed() {
    unread(V4, |client| {
        let mut actor = Actor::start("killed");
        actor.give("c", &client);
        drop(client);
        actor.kill();
    });
}

#[test]
fn linger_zero() {
    let mut table = Table::new(V4);
    for state in STATES {
        let pair = table.pair_in(state, 0);
        let (client, server) = (pair.client_row(), pair.server_row());
        let is_silent = matches!(state, "CLOSING" | "LAST_ACK");
        sock::reset(pair.client).unwrap();
        if is_silent {
            // tcp_need_reset() (net/ipv4/tcp.c) has none in these states, but the kernel counts an abort.
            drop(pair.server);
            let rows = [
                client.close("aborted", "local"),
                server.close("fin", "local"),
            ];
            table.expect(state, rows, 1, 0);
        } else {
            let rows = [rst_sent(client), rst_received(server, error_of_peer(state))];
            table.expect(state, rows, 1, resets_in(state));
        }
    }
    table.end();
}

/// The client is closed in order in each state.
fn in_order(prepare: impl Fn(&Socket)) {
    let mut table = Table::new(V4);
    for state in STATES {
        let pair = table.pair_in(state, 0);
        let (client, server) = (pair.client_row(), pair.server_row());
        let rows = match state {
            "CLOSE_WAIT" | "LAST_ACK" => {
                [client.close("fin", "remote"), server.close("fin", "local")]
            }
            // The FINs have crossed; the server is acknowledged first.
            "CLOSING" => [client.with("close", "fin"), server.close("fin", "local")],
            _ => [client.close("fin", "local"), server.close("fin", "remote")],
        };
        prepare(&pair.client);
        if matches!(state, "FIN_WAIT1" | "CLOSING" | "LAST_ACK") {
            pair.server.detach_filter().unwrap();
        }
        drop(pair.client);
        sock::drain(&pair.server).unwrap();
        drop(pair.server);
        table.expect(state, rows, 0, 0);
    }
    table.end();
}

#[test]
fn linger_for_a_while() {
    in_order(|client| client.set_linger(Some(Duration::from_secs(30))).unwrap());
}

#[test]
fn shut_rd_then_closed() {
    in_order(|client| client.shutdown(Shutdown::Read).unwrap());
}

fn socket_at(ends: Ends) -> Option<proc_net::Line> {
    let ports = (ends.local.port(), Some(ends.remote.port()));
    let mut lines = proc_net::sockets().into_iter();
    lines.find(|it| (it.entry.lport, it.entry.rport) == ports)
}

/// The server sends what no process will read: the client's end is closed before the RST is sent.
fn data_after_close(address: SocketAddr) {
    let mut table = Table::new(address);
    type Case = (&'static str, &'static str, fn(&Pair));
    let cases: [Case; 5] = [
        ("FIN_WAIT1, closed", "ECONNRESET", |pair| {
            sock::deafen_to_fins(&pair.server).unwrap();
        }),
        ("FIN_WAIT1, data with the ACK of the FIN", "EPIPE", |pair| {
            sock::deafen_to_empty(&pair.client).unwrap();
        }),
        ("FIN_WAIT2, closed", "EPIPE", |pair| {
            sock::set_linger2(&pair.client, 120).unwrap();
            enter("FIN_WAIT2", pair);
        }),
        ("FIN_WAIT1, held", "ECONNRESET", |pair| {
            enter("FIN_WAIT1", pair);
            pair.client.shutdown(Shutdown::Read).unwrap();
        }),
        ("FIN_WAIT2, held", "EPIPE", |pair| {
            enter("FIN_WAIT2", pair);
            pair.client.shutdown(Shutdown::Read).unwrap();
        }),
    ];
    for (case, error, prepare) in cases {
        let pair = table.pair();
        let client = rst_sent(pair.client_row());
        let server = rst_received(pair.server_row(), error);
        prepare(&pair);
        let at_client = Ends::of(&pair.client).unwrap();
        let held = case.ends_with("held").then_some(pair.client);
        if held.is_none() {
            // A child of another test holds it, too, between fork and exec.
            wait_until("close", || {
                socket_at(at_client).is_some_and(|it| it.inode.is_none())
            });
        }
        if error == "EPIPE" {
            wait_state(&pair.server, "CLOSE_WAIT");
        }
        sock::send(&pair.server, 100).unwrap();
        // tcp_reset() leaves its error in the socket; without it there is none.
        let client = if case.contains("ACK") {
            client
        } else {
            client.error("ECONNRESET")
        };
        table.expect(case, [client, server], 1, 1);
        drop(held);
    }
    table.end();
}

#[test]
fn data_after_close_ipv4() {
    data_after_close(V4);
}

#[test]
fn data_after_close_ipv6() {
    data_after_close(V6);
}

#[test]
fn data_before_the_close_does_not_delay_or_change_an_end() {
    let mut table = Table::new(V4);
    let pair = table.pair();
    pair.exchange(20, 30);
    pair.client.shutdown(Shutdown::Write).unwrap();
    sock::transfer(&pair.server, &pair.client, 40).unwrap();
    let rows = [
        pair.client_row().bytes(20, 70).close("fin", "local"),
        pair.server_row().bytes(70, 20).close("fin", "remote"),
    ];
    // Only a FIN may follow now, but the kernel's counters leave that open: the row waits, and says the same.
    drop(pair.client);
    sock::drain(&pair.server).unwrap();
    drop(pair.server);
    table.expect("data after the FIN was sent", rows, 0, 0);
    table.end();
}

#[test]
fn fin_wait2_is_cut_short() {
    let mut table = Table::new(V4);
    for state in ["ESTABLISHED", "FIN_WAIT2"] {
        let pair = table.pair();
        sock::set_linger2(&pair.client, -1).unwrap();
        enter(state, &pair);
        let rows = [
            rst_sent(pair.client_row()),
            rst_received(pair.server_row(), "EPIPE"),
        ];
        drop(pair.client);
        table.expect(state, rows, 1, 1);
    }
    table.end();
}

#[test]
fn fin_wait2_times_out() {
    let mut table = Table::new(V4);
    set_ipv4("tcp_fin_timeout", "1");
    // With more than a minute all of the socket stays in FIN_WAIT2 for what is above that (__tcp_close, net/ipv4/tcp.c,
    // v6.1 to v6.18), and then what TIME_WAIT needs of it for as long.
    for (case, linger2) in [("tcp_fin_timeout", 0), ("TCP_LINGER2", 61)] {
        let pair = table.pair();
        sock::set_linger2(&pair.client, linger2).unwrap();
        let at_client = Ends::of(&pair.client).unwrap();
        enter("FIN_WAIT2", &pair);
        let client = pair.client_row().close("fin", "local");
        let server = pair.server_row();
        drop(pair.client);
        wait_until("FIN_WAIT2 to time out", || socket_at(at_client).is_none());
        // The client's end has gone without a word.
        sock::send(&pair.server, 1).unwrap();
        table.expect(case, [client, rst_received(server, "EPIPE")], 0, 1);
    }
    table.end();
}

#[test]
fn aborted_by_an_administrator() {
    let mut table = Table::new(V4);
    for state in ["ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2"] {
        let pair = table.pair_in(state, 0);
        let rows = [
            rst_sent(pair.client_row()).error("ECONNABORTED"),
            rst_received(pair.server_row(), error_of_peer(state)),
        ];
        let port = Ends::of(&pair.client).unwrap().local.port();
        let filter = format!("sport = :{port}");
        let ss = Command::new("ss")
            .args(["-K", "-t", "-n", &filter])
            .output();
        if ss.is_err() {
            return skip("ss");
        }
        table.expect(state, rows, 0, resets_in(state));
    }
    table.end();
}
