//! `tcpretrans`: what is sent again, why, and whose socket it is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use socket2::Socket;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::counters::counter;
use tcp_tools_tests::ktrace::{Event, KernelTrace, What};
use tcp_tools_tests::netns::{Netns, set_ipv4};
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::row::{Row, assert_rows};
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::Trace;
use tcp_tools_tests::{PATIENCE, tier};

/// A namespace without tail loss probes: only the timer sends the last segments again.
fn without_probes() -> Netns {
    let netns = Netns::enter_new();
    set_ipv4("tcp_early_retrans", "0");
    netns
}

pub(crate) fn trace(netns: &Netns) -> Trace {
    Trace::view("tcpretrans", netns, &[])
}

/// A listener on a free port, and where it is.
pub(crate) fn listener(address: SocketAddr) -> (Socket, SocketAddr) {
    let listener = sock::listen(address, 16).unwrap();
    let address = sock::local(&listener).unwrap();
    (listener, address)
}

/// Sends `count` bytes, of which nothing arrives until the trace has shown `rows` rows.
fn lose_until(trace: &mut Trace, pair: &Pair, count: usize, rows: usize) {
    sock::deafen(&pair.server).unwrap();
    sock::send(&pair.client, count).unwrap();
    trace.wait_rows(rows);
    pair.server.detach_filter().unwrap();
    sock::recv(&pair.server, count).unwrap();
    sock::wait_acked(&pair.client).unwrap();
}

fn data(pair: &Pair, reason: &str) -> Row {
    Row::retransmit("R", reason, "connect", Ends::of(&pair.client).unwrap())
}

/// How often timers that retransmit have expired in this namespace.
fn timeouts() -> usize {
    counter("TCPTimeouts") as usize
}

fn numbers(rows: &[Value], field: &str) -> Vec<u64> {
    rows.iter()
        .map(|row| row[field].as_u64().unwrap())
        .collect()
}

/// The retransmits in the kernel's own trace, all of which the timer has caused.
fn retransmits(kernel: &KernelTrace) -> Vec<Event> {
    let mut events = kernel.events();
    events.retain(|event| matches!(event.what, What::Retransmit { .. }));
    assert_eq!(events.len(), timeouts());
    events
}

#[test]
fn timer_sends_the_same_segment_again_and_again() {
    for family in [0, 1] {
        let netns = without_probes();
        netns.add_addresses();
        let kernel = KernelTrace::start(&netns);
        let mut trace = trace(&netns);
        let pair = Pair::open(SocketAddr::new(netns.addresses()[family], 0));
        lose_until(&mut trace, &pair, 100, 2);
        let ended = trace.interrupt();
        ended.assert_clean();
        let rows = ended.rows();
        let events = retransmits(&kernel);
        let shown = numbers(&rows, "nth");
        // Only what the kernel may have hidden may be missing.
        let expected: Vec<Row> = (1..)
            .zip(&events)
            .filter(|(nth, event)| !event.hidden || shown.contains(nth))
            .map(|(nth, _)| {
                let row = data(&pair, "rto").with("state", "ESTABLISHED");
                row.with("len_bytes", 100).with("nth", nth)
            })
            .collect();
        assert_rows(&rows, &expected);
        let seqs = numbers(&rows, "seq");
        assert!(seqs.iter().all(|seq| *seq == seqs[0]), "{seqs:?}");
        assert!(
            rows.iter()
                .all(|row| row["srtt_us"].is_u64() && row["cwnd"].is_u64())
        );
    }
}

#[test]
fn segments_that_were_lost_together_follow_one_another() {
    const MSS: u32 = 1000;
    let netns = without_probes();
    let mut trace = trace(&netns);
    let (listener, address) = listener(V4);
    let client = sock::tcp(address).unwrap();
    // Also of what the peer announces, and so less than what one buffer holds.
    client.set_tcp_mss(MSS).unwrap();
    client.connect(&address.into()).unwrap();
    let server = sock::accept(&listener).unwrap();
    let pair = Pair { client, server };
    lose_until(&mut trace, &pair, 5 * MSS as usize, 1);
    let ended = trace.interrupt();
    ended.assert_clean();
    let rows = ended.rows();
    let (timer, others) = rows.split_at(timeouts());
    let row = |reason| data(&pair, reason).with("state", "ESTABLISHED");
    assert_rows(timer, &vec![row("rto"); timeouts()]);
    for other in others {
        assert_rows(std::slice::from_ref(other), &[row("slow_start")]);
    }
    let segments: u64 = numbers(others, "segments").iter().sum();
    assert_eq!(segments, counter("TCPSlowStartRetrans"));
    let (seqs, lengths) = (numbers(&rows, "seq"), numbers(&rows, "len_bytes"));
    assert!(lengths[0] <= MSS.into(), "{lengths:?}");
    // The first segment, until it has arrived; then what is behind it, each byte once.
    let first = seqs.iter().take_while(|seq| **seq == seqs[0]).count();
    let last = seqs.iter().zip(&lengths).skip(first - 1);
    let end = last.fold(seqs[0], |next, (seq, length)| {
        assert_eq!(*seq, next, "{seqs:?} {lengths:?}");
        (next + length) % (1 << 32)
    });
    let total = (end + (1 << 32) - seqs[0]) % (1 << 32);
    assert_eq!(total, 5 * u64::from(MSS), "{seqs:?} {lengths:?}");
}

#[test]
fn owner_is_the_sockets_and_not_who_is_on_the_processor() {
    let netns = without_probes();
    let kernel = KernelTrace::start(&netns);
    let mut actor = Actor::start("idle-owner");
    let (listener, address) = listener(SocketAddr::new(netns.addresses()[0], 0));
    let old = actor.connect("old", address);
    let old_server = sock::accept(&listener).unwrap();
    let mut trace = trace(&netns);
    let new = actor.connect("new", address);
    let new_server = sock::accept(&listener).unwrap();
    let (done, deadline) = (AtomicBool::new(false), Instant::now() + PATIENCE);
    let processors = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) && Instant::now() < deadline {
                    std::hint::spin_loop();
                }
            });
        }
        for server in [&old_server, &new_server] {
            sock::deafen(server).unwrap();
        }
        actor.ask("send old 10");
        actor.ask("send new 10");
        trace.wait_rows(6);
        done.store(true, Ordering::Relaxed);
        for server in [&old_server, &new_server] {
            server.detach_filter().unwrap();
            sock::recv(server, 10).unwrap();
        }
    });
    let ended = trace.interrupt();
    ended.assert_clean();
    let rows = ended.rows();
    let events = retransmits(&kernel);
    let expected = [(old, "fd"), (new, "connect")].map(|(ends, owner)| {
        let shown = rows.iter().filter(|row| row["lport"] == ends.local.port());
        let of_flow = events.iter().filter(|event| event.ends == ends);
        let (hidden, seen): (Vec<_>, Vec<_>) = of_flow.partition(|event| event.hidden);
        // Only what the kernel may have hidden may be missing.
        let count = shown.count().clamp(seen.len(), seen.len() + hidden.len());
        assert!(count >= 2, "{rows:#?}");
        vec![Row::retransmit("R", "rto", owner, ends).of(&actor.process()); count]
    });
    assert_rows(&rows, &expected.concat());
}

#[test]
fn accepted_sessions_segments_belong_to_who_accepted() {
    let netns = without_probes();
    let mut trace = trace(&netns);
    let mut server = Actor::start("server");
    let address = server.listen("l", V4);
    let client = sock::connect(address).unwrap();
    let at_server = server.accept("l", "s");
    sock::deafen(&client).unwrap();
    server.ask("send s 10");
    trace.wait_rows(1);
    client.detach_filter().unwrap();
    sock::recv(&client, 10).unwrap();
    let row = Row::retransmit("R", "rto", "accept", at_server).of(&server.process());
    trace.interrupt().assert_rows(&vec![row; timeouts()]);
}

#[test]
fn fin_of_a_process_that_is_gone_still_has_its_owner() {
    let netns = without_probes();
    let mut trace = trace(&netns);
    let (listener, address) = listener(V4);
    let mut actor = Actor::start("short-lived");
    let at_client = actor.connect("c", address);
    let server = sock::accept(&listener).unwrap();
    sock::deafen(&server).unwrap();
    let process = actor.process();
    actor.exit();
    trace.wait_rows(1);
    server.detach_filter().unwrap();
    sock::drain(&server).unwrap();
    let row = Row::retransmit("R", "rto", "connect", at_client).of(&process);
    let row = row.with("state", "FIN_WAIT1").with("len_bytes", 0);
    trace.interrupt().assert_rows(&vec![row; timeouts()]);
}

#[test]
fn syn_is_told_apart() {
    let netns = Netns::enter_new();
    let mut trace = trace(&netns);
    let (listener, remote) = listener(V4);
    sock::deafen(&listener).unwrap();
    let client = sock::start_connect(remote).unwrap();
    let local = sock::local(&client).unwrap();
    trace.wait_rows(1);
    drop(client);
    let row = Row::retransmit("S", "rto", "connect", Ends { local, remote });
    let row = row
        .with("state", "SYN_SENT")
        .with("len_bytes", 0)
        .with("nth", 1);
    trace.interrupt().assert_rows(&[row]);
}

/// A listener, made before or during the trace, whose SYN-ACK is lost.
fn lost_synack(before: bool) {
    let netns = Netns::enter_new();
    let mut server = Actor::start("listener");
    let mut address = V4;
    if before {
        address = server.listen("l", V4);
    }
    let mut trace = trace(&netns);
    if !before {
        address = server.listen("l", V4);
    }
    let client = sock::tcp(address).unwrap();
    client.set_nonblocking(true).unwrap();
    sock::deafen(&client).unwrap();
    client.connect(&address.into()).unwrap_err();
    let local = sock::local(&client).unwrap();
    let at_server = Ends {
        local: address,
        remote: local,
    };
    // The client's SYN and the server's SYN-ACK have timers that end at nearly the same time, and
    // another SYN is answered by another SYN-ACK.
    trace.wait_rows(2);
    client.detach_filter().unwrap();
    server.accept("l", "s");
    let ended = trace.interrupt();
    ended.assert_clean();
    let syns = sock::retransmits(&client).unwrap() as usize;
    let answers = counter("TCPSynRetrans") as usize - timeouts();
    let synack = |reason| {
        let row = Row::retransmit("A", reason, "fd", at_server).of(&server.process());
        row.with("state", "NEW_SYN_RECV")
    };
    let syn = Row::retransmit("S", "rto", "connect", at_server.swapped());
    let expected = [
        vec![synack("dup_syn"); answers],
        vec![synack("rto"); timeouts() - syns],
        vec![syn; syns],
    ];
    assert_rows(&ended.rows(), &expected.concat());
}

#[test]
fn synack_belongs_to_who_listens() {
    lost_synack(false);
}

#[test]
fn synack_of_a_listener_older_than_the_trace() {
    lost_synack(true);
}

#[test]
fn tail_loss_probe_that_repeats_old_data() {
    let netns = Netns::enter_new();
    let mut trace = trace(&netns);
    let pair = Pair::open(V4);
    pair.exchange(10, 0);
    lose_until(&mut trace, &pair, 100, 1);
    let ended = trace.interrupt();
    ended.assert_clean();
    let rows = ended.rows();
    let at_client = Ends::of(&pair.client).unwrap();
    let probe = Row::retransmit("L", "probe", "connect", at_client);
    let probe = probe.with("state", "ESTABLISHED").with("len_bytes", 100);
    assert_rows(&rows[..1], &[probe.with("nth", 1)]);
    // What the timer had to do until the segment arrived.
    assert_rows(&rows[1..], &vec![data(&pair, "rto"); timeouts()]);
}

#[test]
fn tail_loss_probe_that_carries_new_data() {
    let netns = Netns::enter_new();
    let mut trace = Trace::view("tcpretrans", &netns, &["--lossprobe"]);
    let pair = Pair::open(V4);
    pair.exchange(10, 0);
    sock::deafen(&pair.server).unwrap();
    // The second waits for the acknowledgement of the first (Nagle).
    sock::send(&pair.client, 100).unwrap();
    sock::send(&pair.client, 50).unwrap();
    trace.wait_rows(1);
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(0));
    let first = &ended.rows()[..1];
    if tier("loss_probe").is_none() {
        let said = "tail loss probes that carry new data are not seen";
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
        // The timer comes next.
        return assert_rows(first, &[data(&pair, "rto")]);
    }
    ended.assert_clean();
    let at_client = Ends::of(&pair.client).unwrap();
    let probe = Row::retransmit("L", "probe", "connect", at_client);
    assert_rows(first, &[probe.with("len_bytes", 50)]);
    assert!(first[0].get("nth").is_none(), "{}", first[0]);
}

#[test]
fn fast_retransmit_of_a_segment_that_later_ones_have_overtaken() {
    let netns = without_probes();
    let mut trace = trace(&netns);
    let pair = Pair::open(V4);
    pair.client.set_tcp_nodelay(true).unwrap();
    pair.exchange(10, 0);
    sock::deafen(&pair.server).unwrap();
    sock::send(&pair.client, 200).unwrap();
    sock::hear_after_loss(&pair.server).unwrap();
    for _ in 0..5 {
        sock::send(&pair.client, 100).unwrap();
    }
    trace.wait_rows(1);
    sock::recv(&pair.server, 700).unwrap();
    let row = data(&pair, "fast").with("state", "ESTABLISHED");
    trace
        .interrupt()
        .assert_rows(&[row.with("len_bytes", 200).with("nth", 1)]);
}
