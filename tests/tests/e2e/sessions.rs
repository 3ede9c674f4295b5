//! One row for each end of each session: addresses, ports, roles, namespaces, durations.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use socket2::SockAddr;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order};
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, DUAL, Ends, V4, V6};
use tcp_tools_tests::trace::Trace;

/// IPv4 in IPv6 notation: what makes an IPv6 socket speak IPv4.
fn mapped(address: SocketAddr) -> SocketAddr {
    (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), address.port()).into()
}

#[test]
fn ipv4_has_a_row_for_each_end() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    trace.expect(&Pair::open(V4).close());
}

#[test]
fn ipv6_has_a_row_for_each_end() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    trace.expect(&Pair::open(V6).close());
}

#[test]
fn ipv4_client_of_a_dual_stack_server_shows_as_ipv4_and_mapped_at_the_server() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(DUAL, 1).unwrap();
    let port = sock::local(&listener).unwrap().port();
    let client = sock::connect((Ipv4Addr::LOCALHOST, port).into()).unwrap();
    let pair = Pair {
        client,
        server: sock::accept(&listener).unwrap(),
    };
    assert!(Ends::of(&pair.server).unwrap().local.is_ipv6());
    trace.expect(&pair.close());
}

#[test]
fn ipv6_socket_that_connects_to_a_mapped_address_shows_as_ipv4_and_mapped_at_the_client() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    let client = sock::connect(mapped(sock::local(&listener).unwrap())).unwrap();
    let pair = Pair {
        client,
        server: sock::accept(&listener).unwrap(),
    };
    assert!(Ends::of(&pair.client).unwrap().local.is_ipv6());
    trace.expect(&pair.close());
}

#[test]
fn session_through_a_syn_cookie_has_a_row_for_each_end() {
    let netns = Netns::enter_new();
    fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").unwrap();
    let trace = Trace::json(&netns, &[]);
    trace.expect(&Pair::open(V4).close());
}

#[test]
fn session_by_fast_open_counts_the_bytes_of_the_syn() {
    let netns = Netns::enter_new();
    // Client and server, both without a cookie, on every listener.
    fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1543").unwrap();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 8).unwrap();
    let address = sock::local(&listener).unwrap();
    let client = sock::connect_and_send(address, 100).unwrap();
    let pair = Pair {
        client,
        server: sock::accept(&listener).unwrap(),
    };
    sock::recv(&pair.server, 100).unwrap();
    let rows = [
        pair.client_row().bytes(100, 0).close("fin", "local"),
        pair.server_row().bytes(0, 100).close("fin", "remote"),
    ];
    close_in_order(pair.client, pair.server);
    trace.expect(&rows);
}

#[test]
fn session_accepted_by_the_old_system_call_has_a_row_for_each_end() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    let client = sock::connect(sock::local(&listener).unwrap()).unwrap();
    let pair = Pair {
        client,
        server: sock::accept_by_old_call(&listener).unwrap(),
    };
    trace.expect(&pair.close());
}

#[test]
fn socket_connected_to_itself_is_one_client() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let socket = sock::tcp(V4).unwrap();
    socket.bind(&V4.into()).unwrap();
    socket.connect(&socket.local_addr().unwrap()).unwrap();
    let row = Row::client(Ends::of(&socket).unwrap()).bytes(100, 100);
    sock::transfer(&socket, &socket, 100).unwrap();
    drop(socket);
    trace.expect(&[row.close("fin", "local")]);
}

#[test]
fn socket_that_connects_again_after_a_refusal_has_a_row_for_each_attempt() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let socket = sock::tcp(V4).unwrap();
    // Bound, so that both attempts have a known port.
    socket.bind(&V4.into()).unwrap();
    let local = sock::local(&socket).unwrap();
    let listener = sock::tcp(V4).unwrap();
    listener.bind(&V4.into()).unwrap();
    let remote = listener.local_addr().unwrap();
    socket.connect(&remote).unwrap_err();
    listener.listen(1).unwrap();
    socket.connect(&remote).unwrap();
    let pair = Pair {
        client: socket,
        server: sock::accept(&listener).unwrap(),
    };
    let ends = Ends {
        local,
        remote: remote.as_socket().unwrap(),
    };
    let refused = Row::client(ends)
        .close("refused", "remote")
        .error("ECONNREFUSED");
    let [client, server] = pair.close();
    trace.expect(&[refused, client, server]);
}

#[test]
fn socket_that_disconnects_and_connects_again_has_a_row_for_each_session() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    let first = Pair::through(&listener);
    let rows = [
        first.client_row().close("rst_sent", "local"),
        first
            .server_row()
            .close("rst_received", "remote")
            .error("ECONNRESET"),
    ];
    disconnect(&first.client);
    first
        .client
        .connect(&listener.local_addr().unwrap())
        .unwrap();
    let second = Pair {
        client: first.client,
        server: sock::accept(&listener).unwrap(),
    };
    trace.expect(&[rows, second.close()].concat());
}

/// connect() to AF_UNSPEC.
fn disconnect(socket: &socket2::Socket) {
    // SAFETY: all-zero is a valid sockaddr_storage, of family AF_UNSPEC.
    let unspecified = unsafe { SockAddr::new(std::mem::zeroed(), 16) };
    socket.connect(&unspecified).unwrap();
}

#[test]
fn session_in_another_network_namespace_has_that_inode() {
    let netns = Netns::enter_new();
    let (other, mut actor) = Netns::elsewhere(|| Actor::start("elsewhere"));
    let mut trace = Trace::json(&netns, &[]);
    trace.watch(&other);
    trace.expect(&actor.talk_to_itself());
}

#[test]
fn durations_lie_within_what_the_test_measured() {
    let netns = Netns::enter_new();
    let mut trace = Trace::json(&netns, &[]);
    let began = Instant::now();
    let pair = Pair::open(V4);
    let opened = Instant::now();
    pair.exchange(100_000, 100_000);
    let at_least = opened.elapsed().as_micros();
    let expected = [
        pair.client_row()
            .bytes(100_000, 100_000)
            .close("fin", "local"),
        pair.server_row()
            .bytes(100_000, 100_000)
            .close("fin", "remote"),
    ];
    let repeated = [&pair.client, &pair.server].map(|end| sock::retransmits(end).unwrap());
    close_in_order(pair.client, pair.server);
    trace.wait_rows(2);
    let at_most = began.elapsed().as_micros();
    let ended = trace.interrupt();
    ended.assert_rows(&expected);
    for row in ended.rows() {
        let micros = |field: &str| u128::from(row[field].as_u64().expect(field));
        // The row's clock is in microseconds, cut off.
        assert!(
            (at_least - 1..=at_most).contains(&micros("duration_us")),
            "{row}"
        );
        assert!(micros("handshake_us") <= at_most, "{row}");
        assert!(micros("min_rtt_us") <= at_most, "{row}");
        assert!(micros("srtt_us") <= at_most, "{row}");
        let repeated = repeated[usize::from(row["role"] == "server")];
        assert!(micros("retransmits") >= repeated.into(), "{row}");
    }
}
