//! Sessions that are older than the trace, and sessions that outlive it.

use std::net::Shutdown;

use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order, reset_in_order};
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, DUAL, Ends, V4, V6};
use tcp_tools_tests::trace::Trace;

#[test]
fn session_of_this_process_is_partial_with_exact_bytes() {
    let netns = Netns::enter_new();
    // Listeners stay: they are what tells the server's end from the client's.
    let listener = sock::listen(V4, 1).unwrap();
    let pair = Pair::through(&listener);
    pair.exchange(5_000_000, 2000);
    let trace = Trace::json(&netns, &[]);
    pair.exchange(30, 4);
    let rows = [
        pair.client_row()
            .seeded(30, 4)
            .bytes(5_000_030, 2004)
            .close("fin", "local"),
        pair.server_row()
            .seeded(4, 30)
            .bytes(2004, 5_000_030)
            .close("fin", "remote"),
    ];
    close_in_order(pair.client, pair.server);
    trace.expect(&rows);
}

#[test]
fn session_that_moves_nothing_more_has_no_bytes_of_the_trace() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V6, 1).unwrap();
    let [reset, closed] = [Pair::through(&listener), Pair::through(&listener)];
    reset.exchange(10, 20);
    closed.exchange(10, 20);
    let trace = Trace::json(&netns, &[]);
    let rows = [&reset, &closed].map(|pair| {
        [
            pair.client_row().seeded(0, 0).bytes(10, 20),
            pair.server_row().seeded(0, 0).bytes(20, 10),
        ]
    });
    let [[reset_client, reset_server], [client, server]] = rows;
    reset_in_order(reset.client, reset.server);
    close_in_order(closed.server, closed.client);
    trace.expect(&[
        reset_client.close("rst_sent", "local"),
        reset_server
            .close("rst_received", "remote")
            .error("ECONNRESET"),
        client.close("fin", "remote"),
        server.close("fin", "local"),
    ]);
}

#[test]
fn session_of_other_processes_belongs_to_those_that_hold_it() {
    let netns = Netns::enter_new();
    let mut server = Actor::start("old server");
    let mut client = Actor::start("old client");
    let address = server.listen("l", V4);
    let at_client = client.connect("c", address);
    let at_server = server.accept("l", "s");
    client.ask("send c 100");
    server.ask("recv s 100");
    client.ask("acked c");
    let trace = Trace::json(&netns, &[]);
    client.ask("send c 11");
    client.ask("close c");
    server.ask("drain s");
    server.ask("close s");
    let client_row = Row::client(at_client).of(&client.process()).bytes(111, 0);
    let server_row = Row::server(at_server).of(&server.process()).bytes(0, 111);
    trace.expect(&[
        client_row.seeded(11, 0).close("fin", "local"),
        server_row.seeded(0, 11).close("fin", "remote"),
    ]);
}

#[test]
fn session_in_another_network_namespace_is_seeded_too() {
    let netns = Netns::enter_new();
    let (other, mut actor) = Netns::elsewhere(|| Actor::start("elsewhere"));
    let address = actor.listen("l", V4);
    let at_client = actor.connect("c", address);
    let at_server = actor.accept("l", "s");
    for command in ["send c 1000", "recv s 1000", "acked c"] {
        actor.ask(command);
    }
    let mut trace = Trace::json(&netns, &[]);
    trace.watch(&other);
    for command in ["send s 20", "close s", "drain c", "close c"] {
        actor.ask(command);
    }
    let client = Row::client(at_client).of(&actor.process());
    let server = Row::server(at_server).of(&actor.process());
    trace.expect(&[
        client.seeded(0, 20).bytes(1000, 20).close("fin", "remote"),
        server.seeded(20, 0).bytes(20, 1000).close("fin", "local"),
    ]);
}

#[test]
fn session_of_a_dual_stack_server_has_the_right_roles() {
    let netns = Netns::enter_new();
    let listener = sock::listen(DUAL, 1).unwrap();
    let address = (V4.ip(), sock::local(&listener).unwrap().port()).into();
    let client = sock::connect(address).unwrap();
    let pair = Pair {
        client,
        server: sock::accept(&listener).unwrap(),
    };
    let trace = Trace::json(&netns, &[]);
    let rows = [
        pair.client_row().seeded(0, 0).close("fin", "local"),
        pair.server_row().seeded(0, 0).close("fin", "remote"),
    ];
    close_in_order(pair.client, pair.server);
    trace.expect(&rows);
}

#[test]
fn session_half_closed_before_the_trace_counts_no_fin_as_a_byte() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let Pair { client, server } = Pair::through(&listener);
    let at_client = Ends::of(&client).unwrap();
    sock::send(&client, 10).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    sock::drain(&server).unwrap();
    sock::wait_acked(&client).unwrap();
    let trace = Trace::json(&netns, &[]);
    sock::transfer(&server, &client, 1000).unwrap();
    close_in_order(server, client);
    trace.expect(&[
        Row::client(at_client)
            .seeded(0, 1000)
            .bytes(10, 1000)
            .close("fin", "local"),
        Row::server(at_client.swapped())
            .seeded(1000, 0)
            .bytes(1000, 10)
            .close("fin", "remote"),
    ]);
}

#[test]
fn session_that_waits_to_be_accepted_belongs_to_who_accepts_it() {
    let netns = Netns::enter_new();
    let mut server = Actor::start("late");
    let address = server.listen("l", V4);
    let client = sock::connect(address).unwrap();
    let at_client = Ends::of(&client).unwrap();
    let trace = Trace::json(&netns, &[]);
    server.ask("accept l s");
    drop(client);
    server.ask("drain s");
    server.ask("close s");
    let server_row = Row::server(at_client.swapped())
        .of(&server.process())
        .seeded(0, 0);
    trace.expect(&[
        Row::client(at_client).seeded(0, 0).close("fin", "local"),
        server_row.with("owner", "accept").close("fin", "remote"),
    ]);
}

#[test]
fn session_whose_process_has_exited_has_no_owner() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let mut client = Actor::start("gone");
    let at_client = client.connect("c", sock::local(&listener).unwrap());
    let server = sock::accept(&listener).unwrap();
    // The peer hears nothing until the trace is there: bytes and FIN are left to the kernel.
    sock::deafen(&server).unwrap();
    client.ask("send c 1000");
    client.exit();
    let trace = Trace::json(&netns, &[]);
    server.detach_filter().unwrap();
    assert_eq!(sock::drain(&server).unwrap(), 1000);
    drop(server);
    let client = Row::client(at_client)
        .seeded(1000, 0)
        .unowned()
        .bytes(1000, 0);
    let server = Row::server(at_client.swapped())
        .seeded(0, 1000)
        .bytes(0, 1000);
    trace.expect(&[client.close("fin", "local"), server.close("fin", "remote")]);
}

#[test]
fn session_belongs_to_the_oldest_that_holds_it_and_not_to_the_lowest_number() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let mut opener = Actor::start("opener");
    let process = opener.process();
    let at_client = opener.connect("c", sock::local(&listener).unwrap());
    let server = sock::accept(&listener).unwrap();
    opener.ask("hold");
    let trace = Trace::json(&netns, &[]);
    opener.exit();
    sock::drain(&server).unwrap();
    drop(server);
    let client = Row::client(at_client).of(&process).seeded(0, 0);
    let server = Row::server(at_client.swapped()).seeded(0, 0);
    trace.expect(&[client.close("fin", "local"), server.close("fin", "remote")]);
}

#[test]
fn new_only_leaves_older_sessions_out() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let old = Pair::through(&listener);
    let trace = Trace::json(&netns, &["--new-only"]);
    old.exchange(10, 10);
    old.close();
    trace.expect(&Pair::through(&listener).close());
}

#[test]
fn active_prints_the_sessions_that_are_still_open() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    // Neither the listener nor what is left of this session, a TIME_WAIT, is open.
    Pair::through(&listener).close();
    let old = Pair::through(&listener);
    old.exchange(100, 200);
    let mut trace = Trace::json(&netns, &["--active"]);
    old.exchange(1, 2);
    let new = Pair::through(&listener);
    new.exchange(10, 20);
    let half = Pair::through(&listener);
    half.client.shutdown(Shutdown::Write).unwrap();
    sock::drain(&half.server).unwrap();
    sock::wait_acked(&half.client).unwrap();
    let [client, server] = Pair::through(&listener).close();
    trace.wait_rows(2);
    trace.interrupt().assert_rows(&[
        client,
        server,
        old.client_row()
            .seeded(1, 2)
            .bytes(101, 202)
            .active("ESTABLISHED"),
        old.server_row()
            .seeded(2, 1)
            .bytes(202, 101)
            .active("ESTABLISHED"),
        new.client_row().bytes(10, 20).active("ESTABLISHED"),
        new.server_row().bytes(20, 10).active("ESTABLISHED"),
        half.client_row().active("FIN_WAIT2"),
        half.server_row().active("CLOSE_WAIT"),
    ]);
}
