//! Application bytes are counted to the byte, at both ends, however the session ends.

use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order, reset_in_order};
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, V4, V6};
use tcp_tools_tests::trace::Trace;

const SIZES: [usize; 4] = [0, 1, 4096, 5_000_000];

/// What ends a session, and how each end closes by whose doing.
struct Ending {
    client: (&'static str, &'static str),
    server: (&'static str, &'static str),
    run: fn(Pair),
}

/// Each of the sizes both ways and one way, in a session of its own.
fn check(ending: &Ending) {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let both_ways = SIZES.map(|size| (size, size));
    let one_way = [(5_000_000, 0), (0, 5_000_000), (4096, 1)];
    let mut rows = Vec::new();
    for (tx, rx) in both_ways.into_iter().chain(one_way) {
        let pair = Pair::open(V4);
        rows.push(closed(pair.client_row().bytes(tx, rx), ending.client));
        rows.push(closed(pair.server_row().bytes(rx, tx), ending.server));
        pair.exchange(tx, rx);
        (ending.run)(pair);
    }
    trace.expect(&rows);
}

fn closed(row: Row, (how, by): (&str, &str)) -> Row {
    let row = row.close(how, by);
    if how == "rst_received" {
        row.error("ECONNRESET")
    } else {
        row
    }
}

#[test]
fn exact_when_the_client_closes_first() {
    check(&Ending {
        client: ("fin", "local"),
        server: ("fin", "remote"),
        run: |pair| close_in_order(pair.client, pair.server),
    });
}

#[test]
fn exact_when_the_server_closes_first() {
    check(&Ending {
        client: ("fin", "remote"),
        server: ("fin", "local"),
        run: |pair| close_in_order(pair.server, pair.client),
    });
}

#[test]
fn exact_when_the_client_resets() {
    check(&Ending {
        client: ("rst_sent", "local"),
        server: ("rst_received", "remote"),
        run: |pair| reset_in_order(pair.client, pair.server),
    });
}

#[test]
fn exact_when_the_server_resets() {
    check(&Ending {
        client: ("rst_received", "remote"),
        server: ("rst_sent", "local"),
        run: |pair| reset_in_order(pair.server, pair.client),
    });
}

#[test]
fn exact_when_the_last_bytes_leave_together_with_the_fin() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let mut rows = Vec::new();
    for size in [1, 4096, 100_000] {
        let pair = Pair::open(V6);
        rows.push(pair.client_row().bytes(size, 0).close("fin", "local"));
        rows.push(pair.server_row().bytes(0, size).close("fin", "remote"));
        sock::send(&pair.client, size).unwrap();
        close_in_order(pair.client, pair.server);
    }
    trace.expect(&rows);
}

#[test]
fn exact_with_sendfile() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let pair = Pair::open(V4);
    let rows = [
        pair.client_row().bytes(0, 5_000_000).close("fin", "remote"),
        pair.server_row().bytes(5_000_000, 0).close("fin", "local"),
    ];
    let Pair { client, server } = pair;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sock::send_file(&server, 5_000_000).unwrap();
            drop(server);
        });
        assert_eq!(sock::drain(&client).unwrap(), 5_000_000);
    });
    drop(client);
    trace.expect(&rows);
}
