//! What io_uring does for a process is that process's.

use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::Trace;
use tcp_tools_tests::uring::Ring;
use tcp_tools_tests::{skip, tier};

#[test]
fn attempt() {
    let netns = Netns::enter_new();
    let Some(mut ring) = Ring::new() else {
        return skip("io_uring");
    };
    let listener = sock::listen(V4, 1).unwrap();
    let address = sock::local(&listener).unwrap();
    for (args, outcome) in [(&[][..], false), (&["--latency"], true)] {
        let trace = Trace::view("tcpconnect", &netns, args);
        let client = ring.connect(address).unwrap();
        let row = Row::connect(Ends::of(&client).unwrap());
        trace.expect(&[if outcome { row.established() } else { row }]);
        sock::accept(&listener).unwrap();
    }
}

#[test]
fn accept() {
    let netns = Netns::enter_new();
    let Some(mut ring) = Ring::new() else {
        return skip("io_uring");
    };
    let trace = Trace::view("tcpaccept", &netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    let address = sock::local(&listener).unwrap();
    let _clients = [
        sock::connect(address).unwrap(),
        sock::connect(address).unwrap(),
    ];
    let by_ring = ring.accept(&listener).unwrap();
    let by_call = sock::accept(&listener).unwrap();
    let rows = [by_ring, by_call].map(|server| Row::accept(Ends::of(&server).unwrap()));
    // Only system calls have tracepoints.
    let is_seen = tier("accept").as_deref() != Some("tracepoint");
    trace.expect(if is_seen { &rows } else { &rows[1..] });
}
