//! Many sessions: each end of each of them has its row, once.

use std::sync::Barrier;
use std::thread;

use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order};
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, Ends, V4, V6};
use tcp_tools_tests::trace::Trace;

#[test]
fn two_thousand_sessions_one_after_another() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    let rows: Vec<Row> = (0..2000)
        .flat_map(|_| Pair::through(&listener).close())
        .collect();
    trace.expect(&rows);
}

#[test]
fn two_hundred_sessions_at_once() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V6, 200).unwrap();
    let address = sock::local(&listener).unwrap();
    let all_open = Barrier::new(200);
    let clients = thread::scope(|scope| {
        let start = || {
            let client = sock::connect(address).unwrap();
            let ends = Ends::of(&client).unwrap();
            sock::send(&client, 100).unwrap();
            all_open.wait();
            ends
        };
        let threads: Vec<_> = (0..200).map(|_| scope.spawn(start)).collect();
        for _ in 0..200 {
            sock::drain(&sock::accept(&listener).unwrap()).unwrap();
        }
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let rows: Vec<Row> = clients
        .into_iter()
        .flat_map(|at_client| {
            let client = Row::client(at_client).bytes(100, 0);
            let server = Row::server(at_client.swapped()).bytes(0, 100);
            [client.close("fin", "local"), server.close("fin", "remote")]
        })
        .collect();
    trace.expect(&rows);
}

#[test]
fn two_hundred_older_sessions() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let pairs: Vec<Pair> = (0..200).map(|_| Pair::through(&listener)).collect();
    for (size, pair) in pairs.iter().enumerate() {
        pair.exchange(size, 0);
    }
    let trace = Trace::json(&netns, &[]);
    let rows: Vec<Row> = pairs
        .iter()
        .enumerate()
        .flat_map(|(size, pair)| {
            let client = pair.client_row().seeded(0, 0).bytes(size, 0);
            let server = pair.server_row().seeded(0, 0).bytes(0, size);
            [client.close("fin", "local"), server.close("fin", "remote")]
        })
        .collect();
    for pair in pairs {
        close_in_order(pair.client, pair.server);
    }
    trace.expect(&rows);
}
