//! `tcpretrans`: what is sent again, why, and whose socket it is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use socket2::Socket;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::{Netns, set_ipv4};
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::row::{Row, assert_rows};
use tcp_tools_tests::sock::{self, Ends, V4, V6};
use tcp_tools_tests::trace::{Ended, Trace};
use tcp_tools_tests::{PATIENCE, tier};

/// A namespace without tail loss probes: only the timer sends the last segments again.
fn without_probes() -> Netns {
    let netns = Netns::enter_new();
    set_ipv4("tcp_early_retrans", "0");
    netns
}

fn trace(netns: &Netns) -> Trace {
    Trace::view("tcpretrans", netns, &[])
}

/// A listener on a free port, and where it is.
fn listener(address: SocketAddr) -> (Socket, SocketAddr) {
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

fn numbers(rows: &[Value], field: &str) -> Vec<u64> {
    rows.iter()
        .map(|row| row[field].as_u64().unwrap())
        .collect()
}

#[test]
fn timer_sends_the_same_segment_again_and_again() {
    for address in [V4, V6] {
        let netns = without_probes();
        let mut trace = trace(&netns);
        let pair = Pair::open(address);
        lose_until(&mut trace, &pair, 100, 2);
        let ended = trace.interrupt();
        ended.assert_clean();
        let rows = ended.rows();
        let expected: Vec<Row> = (1..=rows.len())
            .map(|nth| {
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
    assert_rows(
        &rows,
        &vec![data(&pair, "rto").with("state", "ESTABLISHED"); rows.len()],
    );
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
    let mut actor = Actor::start("idle-owner");
    let (listener, address) = listener(V4);
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
    });
    let ended = trace.interrupt();
    ended.assert_clean();
    let rows = ended.rows();
    for (ends, owner) in [(old, "fd"), (new, "connect")] {
        let of_one: Vec<Value> = rows
            .iter()
            .filter(|row| row["lport"] == ends.local.port())
            .cloned()
            .collect();
        assert!(of_one.len() >= 2, "{rows:#?}");
        let row = Row::retransmit("R", "rto", owner, ends).of(&actor.process());
        assert_rows(&of_one, &vec![row; of_one.len()]);
    }
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
    let ended = trace.interrupt();
    let rows = ended.rows();
    let row = Row::retransmit("R", "rto", "accept", at_server).of(&server.process());
    ended.assert_rows(&vec![row; rows.len()]);
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
    let ended = trace.interrupt();
    let rows = ended.rows();
    let row = Row::retransmit("R", "rto", "connect", at_client).of(&process);
    let row = row.with("state", "FIN_WAIT1").with("len_bytes", 0);
    ended.assert_rows(&vec![row; rows.len()]);
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
    let (synacks, others): (Vec<_>, Vec<_>) =
        ended.rows().into_iter().partition(|row| row["type"] == "A");
    assert!(!synacks.is_empty(), "{others:#?}");
    let row = Row::retransmit("A", "rto", "fd", at_server).of(&server.process());
    let row = row.with("state", "NEW_SYN_RECV");
    assert_rows(&synacks, &vec![row; synacks.len()]);
    let row = Row::retransmit("S", "rto", "connect", at_server.swapped());
    assert_rows(&others, &vec![row; others.len()]);
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
    // Whatever the timer had to do until the segment arrived.
    let rest = &rows[1..];
    assert_rows(rest, &vec![data(&pair, "rto"); rest.len()]);
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
    assert_rows(
        first,
        &[Row::retransmit("L", "probe", "connect", at_client)],
    );
    let unknown = ["len_bytes", "nth"]
        .iter()
        .all(|it| first[0].get(it).is_none());
    assert!(unknown, "{}", first[0]);
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

/// Two flows with one SYN sent again each.
fn two_flows(trace: &mut Trace, wait: impl FnOnce(&mut Trace)) -> [Ends; 2] {
    let (listener, remote) = listener(V4);
    sock::deafen(&listener).unwrap();
    let clients = [(); 2].map(|()| sock::start_connect(remote).unwrap());
    wait(trace);
    clients.map(|client| Ends {
        local: sock::local(&client).unwrap(),
        remote,
    })
}

#[test]
fn counts_per_flow() {
    let netns = Netns::enter_new();
    let mut counted = Trace::view("tcpretrans", &netns, &["-c"]);
    let mut seen = trace(&netns);
    let ends = two_flows(&mut seen, |trace| trace.wait_rows(2));
    drop(seen.interrupt());
    counted.signal(libc::SIGINT);
    counted.wait_lines(2);
    let ended = counted.wait_end();
    ended.assert_clean();
    let counts = ended.events("tcpretrans_count");
    assert_eq!((counts.len(), ended.lines.len()), (2, 2));
    for Ends { local, remote } in ends {
        let of_flow: Vec<&Value> = counts
            .iter()
            .filter(|line| line["lport"] == local.port() && line["rport"] == remote.port())
            .collect();
        assert_eq!(of_flow.len(), 1, "{counts:#?}");
        assert!(of_flow[0]["count"].as_u64().unwrap() >= 1);
    }
}

/// The header and the rows of a table.
fn table(args: &[&str]) -> (Ends, Ended) {
    let netns = Netns::enter_new();
    let mut trace = Trace::text("tcpretrans", &netns, args);
    let ends = two_flows(&mut trace, |trace| trace.wait_lines(3))[0];
    let ended = trace.interrupt();
    ended.assert_clean();
    (ends, ended)
}

#[test]
fn table_has_the_columns_of_bcc_and_more_behind_them() {
    for (args, columns) in [
        (
            &[][..],
            "TIME PID IP LADDR:LPORT T> RADDR:RPORT STATE COMM REASON",
        ),
        (
            &["-s"],
            "TIME PID IP LADDR:LPORT T> RADDR:RPORT STATE SEQ COMM REASON",
        ),
        (
            &["--sequence", "-t"],
            "TIME(s) PID IP LADDR:LPORT T> RADDR:RPORT STATE SEQ COMM REASON",
        ),
    ] {
        let (ends, ended) = table(args);
        let cells: Vec<Vec<&str>> = ended
            .lines
            .iter()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(cells[0].join(" "), columns);
        let (local, remote) = (ends.local.to_string(), ends.remote.to_string());
        let row = cells.iter().find(|row| row[3] == local).unwrap();
        assert_eq!(row.len(), cells[0].len());
        assert_eq!(row[1], std::process::id().to_string());
        assert_eq!(row[2..7], ["4", &local, "S", &remote, "SYN_SENT"]);
        assert_eq!(row.last(), Some(&"rto"));
    }
}
