//! `tcpaccept`: each connection that accept() returns has one row, of the process that called.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::Socket;
use tcp_tools_tests::actor::{Actor, ends};
use tcp_tools_tests::features;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::row::{Process, Row, this_process};
use tcp_tools_tests::sock::{self, DUAL, Ends, V4, V6};
use tcp_tools_tests::trace::{Ended, Trace, run_view};

fn trace(netns: &Netns) -> Trace {
    Trace::view("tcpaccept", netns, &[])
}

/// A listener on a free port, and where it is.
fn listener(backlog: i32) -> (Socket, SocketAddr) {
    let listener = sock::listen(V4, backlog).unwrap();
    let address = sock::local(&listener).unwrap();
    (listener, address)
}

/// A client whose session is established at the server as well, and waits to be accepted.
fn waiting(address: SocketAddr) -> Socket {
    let client = sock::connect(address).unwrap();
    sock::send(&client, 1).unwrap();
    sock::wait_acked(&client).unwrap();
    client
}

fn at_server(client: &Socket) -> Ends {
    Ends::of(client).unwrap().swapped()
}

#[test]
fn session_of_each_family_by_either_call() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let mut rows = Vec::new();
    for (at, to) in [(V4, V4), (V6, V6), (DUAL, V4)] {
        let listener = sock::listen(at, 1).unwrap();
        let mut address = sock::local(&listener).unwrap();
        address.set_ip(to.ip());
        for accept in [sock::accept, sock::accept_by_old_call] {
            let _client = sock::connect(address).unwrap();
            let server = accept(&listener).unwrap();
            rows.push(Row::accept(Ends::of(&server).unwrap()));
        }
    }
    trace.expect(&rows);
}

#[test]
fn session_that_nobody_accepts_has_no_row() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let (listener, address) = listener(1);
    let _first = sock::connect(address).unwrap();
    let server = sock::accept(&listener).unwrap();
    let _second = waiting(address);
    trace.expect(&[Row::accept(Ends::of(&server).unwrap())]);
}

#[test]
fn call_that_fails_has_no_row() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let (listener, _) = listener(1);
    listener.set_nonblocking(true).unwrap();
    let error = sock::accept(&listener).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    trace.interrupt().assert_rows(&[]);
}

#[test]
fn session_accepted_in_a_thread_has_the_name_of_the_process() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let mut actor = Actor::start("a-process");
    let address = actor.listen("l", V4);
    let _client = sock::connect(address).unwrap();
    let at_server = ends(&actor.ask("thread a-thread accept l s"));
    trace.expect(&[Row::accept(at_server).of(&actor.process())]);
}

#[test]
fn session_accepted_in_a_child_belongs_to_the_child() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let mut actor = Actor::start("parent");
    let address = actor.listen("l", V4);
    let client = sock::connect(address).unwrap();
    let pid = actor.ask("fork comm child; accept l s");
    let child = Process {
        pid: pid.parse().unwrap(),
        comm: "child".into(),
        uid: 0,
    };
    trace.expect(&[Row::accept(at_server(&client)).of(&child)]);
}

#[test]
fn queue_time_is_what_the_session_waited() {
    let netns = Netns::enter_new();
    let mut trace = trace(&netns);
    let (listener, address) = listener(64);
    let start = Instant::now();
    let _client = waiting(address);
    let established = Instant::now();
    // Something to do meanwhile.
    let _others: Vec<Socket> = (0..32).map(|_| waiting(address)).collect();
    let shortest = established.elapsed();
    sock::accept(&listener).unwrap();
    let longest = start.elapsed();
    trace.wait_rows(1);
    let ended = trace.interrupt();
    ended.assert_clean();
    let rows = ended.rows();
    let queued = Duration::from_micros(rows[0]["queue_us"].as_u64().unwrap());
    // The row has whole microseconds.
    let shortest = shortest - Duration::from_micros(1);
    assert!(queued >= shortest && queued <= longest, "{}", rows[0]);
}

#[test]
fn queue_time_is_unknown_of_a_session_older_than_the_trace() {
    let netns = Netns::enter_new();
    let (listener, address) = listener(2);
    let old = waiting(address);
    let mut trace = trace(&netns);
    let new = waiting(address);
    let rows = [old, new].map(|client| Row::accept(at_server(&client)));
    for _ in 0..2 {
        sock::accept(&listener).unwrap();
    }
    trace.wait_rows(2);
    let ended = trace.interrupt();
    ended.assert_rows(&rows);
    let known: Vec<bool> = ended
        .rows()
        .iter()
        .map(|it| it["queue_us"].is_u64())
        .collect();
    assert_eq!(known, [false, true]);
}

#[test]
fn backlog_is_what_waits_still_and_what_may() {
    let netns = Netns::enter_new();
    let trace = trace(&netns);
    let (listener, address) = listener(7);
    let clients: Vec<Socket> = (0..5).map(|_| waiting(address)).collect();
    let rows: Vec<Row> = clients
        .iter()
        .zip((0..5).rev())
        .map(|(client, left)| {
            let row = Row::accept(at_server(client));
            sock::accept(&listener).unwrap();
            row.backlog(left, 7)
        })
        .collect();
    trace.expect(&rows);
}

const PROCESSES: i32 = 32;

/// Processes that are all blocked in accept() on one listener.
fn blocked(listener: &Socket) -> Vec<Actor> {
    let actors: Vec<Actor> = (0..PROCESSES)
        .map(|number| {
            let mut actor = Actor::start(&format!("blocked-{number}"));
            actor.give("l", listener);
            actor.tell("accept l s");
            actor
        })
        .collect();
    for actor in &actors {
        actor.wait_blocked_in(libc::SYS_accept4);
    }
    actors
}

/// Gives each of them a session.
fn accept_all(actors: Vec<Actor>, address: SocketAddr) -> Vec<Row> {
    let clients: Vec<Socket> = actors
        .iter()
        .map(|_| sock::connect(address).unwrap())
        .collect();
    let rows = actors.into_iter().map(|mut actor| {
        let at_server = ends(&actor.answer());
        Row::accept(at_server).of(&actor.process())
    });
    let rows = rows.collect();
    drop(clients);
    rows
}

#[test]
fn calls_that_blocked_in_many_processes_before_the_trace_began() {
    let netns = Netns::enter_new();
    let (listener, address) = listener(PROCESSES);
    let actors = blocked(&listener);
    let trace = trace(&netns);
    trace.expect(&accept_all(actors, address));
}

/// A kretprobe would lose calls beyond its few instances without a word, so that tier has none.
fn has_fallback() -> bool {
    std::env::var("TCP_TOOLS_HOOKS").as_deref() != Ok("kprobe")
}

/// The tier without a fallback must say so.
fn assert_no_fallback() {
    let mut command = run_view("tcpaccept", &["--duration", "100ms"]);
    command.env("TCP_TOOLS_REFUSE", "security_sock_graft");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let said = "tcp-tools: --hooks kprobe is not possible on this kernel: accept: ";
    assert!(stderr.starts_with(said), "{stderr}");
}

/// A trace without the hook that comes first. One at a time: where one of the tier fentry ends, another misses the
/// calls that are blocked.
fn fallback(netns: &Netns) -> (Trace, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let trace = Trace::without("security_sock_graft", "tcpaccept", netns, &[]);
    (trace, alone)
}

#[test]
fn fallback_misses_none_of_many_blocked_calls_or_says_so() {
    if !has_fallback() {
        return assert_no_fallback();
    }
    let netns = Netns::enter_new();
    let (mut trace, _alone) = fallback(&netns);
    let (listener, address) = listener(PROCESSES);
    let actors = blocked(&listener);
    let mut rows = accept_all(actors, address);
    // One more, behind all others.
    let last = Pair::through(&listener);
    rows.push(Row::accept(Ends::of(&last.server).unwrap()));
    trace.wait_for_row("comm", &this_process().comm);
    trace.interrupt().assert_rows_or_missed(&rows);
}

#[test]
fn ten_thousand_accepts_without_a_miss() {
    let netns = Netns::enter_new();
    let mut trace = trace(&netns);
    let (listener, _) = listener(1);
    let pairs: HashSet<u64> = (0..10_000)
        .map(|_| {
            let Pair { client, server } = Pair::through(&listener);
            let port = sock::local(&client).unwrap().port();
            // Without a wait: the port may be used again.
            sock::reset(client).unwrap();
            drop(server);
            port.into()
        })
        .collect();
    trace.wait_rows(10_000);
    let ended = trace.interrupt();
    ended.assert_clean();
    let rows = ended.rows();
    assert_eq!(rows.len(), 10_000);
    let me = this_process();
    assert!(rows.iter().all(|row| row["pid"] == me.pid));
    let ports: HashSet<u64> = rows
        .iter()
        .filter_map(|row| row["rport"].as_u64())
        .collect();
    assert_eq!(ports, pairs);
}

#[test]
fn fallback_sees_calls_made_after_the_trace_began() {
    if !has_fallback() {
        return assert_no_fallback();
    }
    let netns = Netns::enter_new();
    let (trace, _alone) = fallback(&netns);
    let (listener, address) = listener(7);
    let _clients = [waiting(address), waiting(address)];
    let rows = [1, 0].map(|left| {
        let server = sock::accept(&listener).unwrap();
        let row = Row::accept(Ends::of(&server).unwrap());
        row.backlog(left, 7)
    });
    trace.expect(&rows);
}

/// Three sessions, accepted, with a histogram of their queue times at the end.
fn histogram(format: &[&str], lines: usize) -> Ended {
    let netns = Netns::enter_new();
    let args = [&["--histogram"], format].concat();
    let mut trace = Trace::text("tcpaccept", &netns, &args);
    let (listener, _) = listener(1);
    for _ in 0..3 {
        Pair::through(&listener);
    }
    trace.wait_lines(lines);
    let ended = trace.interrupt();
    ended.assert_clean();
    ended
}

#[test]
fn histogram_in_json() {
    let ended = histogram(&["--json"], 3);
    let [line] = &ended.events("tcpaccept_histogram")[..] else {
        panic!("{:#?}", ended.lines);
    };
    assert_eq!(
        (&line["measure"], &line["count"]),
        (&"queue_us".into(), &3.into())
    );
    let mut times: Vec<&Value> = Vec::new();
    let rows = ended.rows();
    times.extend(rows.iter().map(|row| &row["queue_us"]));
    times.sort_unstable_by_key(|time| time.as_u64());
    assert_eq!([&line["min"], &line["max"]], [times[0], times[2]]);
    let numbers = ["min", "p50", "p90", "p99", "p999", "max"].map(|name| line[name].as_u64());
    assert!(numbers.iter().all(Option::is_some) && numbers.is_sorted());
}

#[test]
fn histogram_in_a_table() {
    let ended = histogram(&[], 4);
    assert!(ended.lines[4..].join("\n").contains("count 3"));
}

#[test]
fn table_has_the_columns_of_bcc_and_more_behind_them() {
    let known = "PID COMM IP RADDR RPORT LADDR LPORT QUEUE_US BACKLOG MAX_BACKLOG";
    for (args, before) in [
        (&[][..], ""),
        (&["-T"], "TIME "),
        (&["-t"], "TIME(s) "),
        (&["-T", "-t"], "TIME TIME(s) "),
    ] {
        let netns = Netns::enter_new();
        let mut trace = Trace::text("tcpaccept", &netns, args);
        let (listener, _) = listener(3);
        let pair = Pair::through(&listener);
        trace.wait_lines(2);
        let ended = trace.interrupt();
        ended.assert_clean();
        let cells = |index: usize| ended.lines[index].split_whitespace().collect::<Vec<_>>();
        let (header, row) = (cells(0), cells(1));
        assert_eq!(header.join(" "), format!("{before}{known}"));
        let cell = |name: &str| row[header.iter().position(|it| *it == name).unwrap()];
        let Ends { local, remote } = Ends::of(&pair.server).unwrap();
        assert_eq!(cell("PID"), std::process::id().to_string());
        assert_eq!(cell("LPORT"), local.port().to_string());
        assert_eq!(cell("RPORT"), remote.port().to_string());
        let backlog = if features::task_registers() {
            ["0", "3"]
        } else {
            ["-", "-"]
        };
        assert_eq!([cell("BACKLOG"), cell("MAX_BACKLOG")], backlog);
    }
}
