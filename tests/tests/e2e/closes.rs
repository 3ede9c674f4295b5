//! How sessions end, and who ended them.

use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use tcp_tools_tests::icmp::Router;
use tcp_tools_tests::netns::{Netns, client_ends, one_client_port};
use tcp_tools_tests::pair::{Pair, close_in_order, reset_in_order};
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, Ends, V4, V6};
use tcp_tools_tests::trace::Trace;

fn refused(address: SocketAddr) {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    // A port that is taken, so that it is free of listeners.
    let holder = sock::tcp(address).unwrap();
    holder.bind(&address.into()).unwrap();
    let remote = sock::local(&holder).unwrap();
    one_client_port();
    let error = sock::connect(remote).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    let row = Row::client(client_ends(remote));
    trace.expect(&[row.close("refused", "remote").error("ECONNREFUSED")]);
}

#[test]
fn refused_ipv4() {
    refused(V4);
}

#[test]
fn refused_ipv6() {
    refused(V6);
}

#[test]
fn refused_while_the_caller_does_not_wait() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let holder = sock::tcp(V4).unwrap();
    holder.bind(&V4.into()).unwrap();
    let remote = sock::local(&holder).unwrap();
    one_client_port();
    // Either answer of connect() is right: the reset may come before it returns.
    let _socket = sock::start_connect(remote);
    let row = Row::client(client_ends(remote));
    trace.expect(&[row.close("refused", "remote").error("ECONNREFUSED")]);
}

#[test]
fn timed_out_in_syn_sent() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    sock::deafen(&listener).unwrap();
    let remote = sock::local(&listener).unwrap();
    one_client_port();
    let socket = sock::tcp(V4).unwrap();
    socket
        .set_tcp_user_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let error = socket.connect(&remote.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    let row = Row::client(client_ends(remote));
    trace.expect(&[row.with("close", "timeout").error("ETIMEDOUT")]);
}

#[test]
fn timed_out_while_established() {
    let netns = Netns::enter_new();
    let mut trace = Trace::json(&netns, &[]);
    let pair = Pair::open(V4);
    let row = pair.client_row();
    sock::deafen(&pair.server).unwrap();
    pair.client
        .set_tcp_user_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    sock::send(&pair.client, 10).unwrap();
    let error = sock::drain(&pair.client).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    trace.wait_rows(1);
    let ended = trace.interrupt();
    // Nothing of what was sent was acknowledged; the server knows of nothing and stays open.
    ended.assert_rows(&[row.with("close", "timeout").error("ETIMEDOUT")]);
    assert!(ended.rows()[0]["retransmits"].as_u64().unwrap() > 0);
}

#[test]
fn given_up_before_it_was_established() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    sock::deafen(&listener).unwrap();
    let remote = sock::local(&listener).unwrap();
    one_client_port();
    drop(sock::start_connect(remote).unwrap());
    trace.expect(&[Row::client(client_ends(remote)).close("aborted", "local")]);
}

#[test]
fn unreachable() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    sock::deafen(&listener).unwrap();
    let remote = sock::local(&listener).unwrap();
    one_client_port();
    let router = Router::new().unwrap();
    let socket = sock::start_connect(remote).unwrap();
    router.refuse_first().unwrap();
    let row = Row::client(client_ends(remote)).with("close", "unreachable");
    trace.expect(&[row.error("EHOSTUNREACH")]);
    let error = socket.take_error().unwrap().expect("the router was heard");
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
}

#[test]
fn reset_by_the_client() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let pair = Pair::open(V6);
    let rows = [
        pair.client_row().close("rst_sent", "local"),
        pair.server_row()
            .close("rst_received", "remote")
            .error("ECONNRESET"),
    ];
    reset_in_order(pair.client, pair.server);
    trace.expect(&rows);
}

#[test]
fn reset_by_the_server() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let pair = Pair::open(V6);
    let rows = [
        pair.client_row()
            .close("rst_received", "remote")
            .error("ECONNRESET"),
        pair.server_row().close("rst_sent", "local"),
    ];
    reset_in_order(pair.server, pair.client);
    trace.expect(&rows);
}

#[test]
fn reset_because_data_was_left_unread() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let Pair { client, server } = Pair::open(V4);
    let at_client = Ends::of(&client).unwrap();
    sock::send(&client, 100).unwrap();
    sock::wait_acked(&client).unwrap();
    drop(server);
    sock::drain(&client).unwrap_err();
    trace.expect(&[
        Row::client(at_client)
            .bytes(100, 0)
            .close("rst_received", "remote")
            .error("ECONNRESET"),
        Row::server(at_client.swapped())
            .bytes(0, 100)
            .close("rst_sent", "local"),
    ]);
}

#[test]
fn reset_because_the_peer_had_closed_already() {
    let netns = Netns::enter_new();
    let mut trace = Trace::json(&netns, &[]);
    let Pair { client, server } = Pair::open(V4);
    let at_client = Ends::of(&client).unwrap();
    // In this order, as the FIN's acknowledgement must not come while close() holds the socket: then the kernel keeps
    // the session for another minute (tcp_rcv_state_process() in FIN_WAIT1, net/ipv4/tcp_input.c, v6.12).
    client.shutdown(Shutdown::Write).unwrap();
    sock::drain(&server).unwrap();
    sock::wait_acked(&client).unwrap();
    drop(client);
    trace.wait_rows(1);
    sock::send(&server, 100).unwrap();
    // The bytes were never acknowledged, and it was the client who ended the session.
    trace.expect(&[
        Row::client(at_client).close("fin", "local"),
        Row::server(at_client.swapped())
            .close("rst_received", "remote")
            .error("EPIPE"),
    ]);
}

#[test]
fn half_closed_by_the_client() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let Pair { client, server } = Pair::open(V4);
    let at_client = Ends::of(&client).unwrap();
    sock::send(&client, 10).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(sock::drain(&server).unwrap(), 10);
    sock::transfer(&server, &client, 100_000).unwrap();
    close_in_order(server, client);
    trace.expect(&[
        Row::client(at_client)
            .bytes(10, 100_000)
            .close("fin", "local"),
        Row::server(at_client.swapped())
            .bytes(100_000, 10)
            .close("fin", "remote"),
    ]);
}

#[test]
fn half_closed_by_the_server() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let Pair { client, server } = Pair::open(V6);
    let at_client = Ends::of(&client).unwrap();
    sock::send(&server, 10).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(sock::drain(&client).unwrap(), 10);
    sock::transfer(&client, &server, 100_000).unwrap();
    close_in_order(client, server);
    trace.expect(&[
        Row::client(at_client)
            .bytes(100_000, 10)
            .close("fin", "remote"),
        Row::server(at_client.swapped())
            .bytes(10, 100_000)
            .close("fin", "local"),
    ]);
}
