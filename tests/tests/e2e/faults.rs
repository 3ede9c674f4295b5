//! What goes wrong around a trace: it is killed, it is not alone, hooks are refused, and what it looks at
//! vanishes.

use std::collections::BTreeSet;

use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::bpf::Objects;
use tcp_tools_tests::cgroup::Cgroup;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::row::{Process, Row};
use tcp_tools_tests::skip;
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::{Trace, run_view};
use tcp_tools_tests::views::{ALL, until_stopped};

#[test]
fn killed_tool_leaves_nothing_in_the_kernel() {
    for view in ALL {
        let netns = Netns::enter_new();
        let trace = Trace::view(view, &netns, until_stopped(view));
        let objects = Objects::of(trace.pid());
        assert!(!objects.programs.is_empty(), "{view}: {objects:?}");
        assert!(objects.maps.len() > 2, "{view}: {objects:?}");
        trace.signal(libc::SIGKILL);
        assert_eq!(trace.wait_end().code, None);
        objects.wait_gone();
    }
}

#[test]
fn two_traces_at_once_see_the_same() {
    let netns = Netns::enter_new();
    let traces = [(); 2].map(|()| Trace::view("tcplife", &netns, &[]));
    let rows: Vec<Row> = (0..20).flat_map(|_| Pair::open(V4).close()).collect();
    for trace in traces {
        trace.expect(&rows);
    }
}

#[test]
fn trace_goes_on_when_another_is_killed() {
    let netns = Netns::enter_new();
    let [one, other] = [(); 2].map(|()| Trace::view("tcplife", &netns, &[]));
    let mut rows = Pair::open(V4).close().to_vec();
    other.signal(libc::SIGKILL);
    other.wait_end();
    rows.extend(Pair::open(V4).close());
    one.expect(&rows);
}

#[test]
fn refused_hook_is_a_named_loss() {
    for (view, target, loss) in [
        (
            "tcpretrans",
            "tcp_retransmit_synack",
            "retransmitted SYN-ACKs are not seen",
        ),
        (
            "tcplife",
            "bpf_iter_task_file",
            "owners of sessions opened before the trace are not known",
        ),
        (
            "tcplife",
            "bpf_iter_tcp",
            "sessions opened before the trace show no bytes since it began",
        ),
    ] {
        let netns = Netns::enter_new();
        let mut trace = Trace::without(target, view, &netns, &[]);
        let rows = match view {
            "tcplife" => Pair::open(V4).close().to_vec(),
            "tcpretrans" => Vec::new(),
            other => panic!("no rows are known of {other}"),
        };
        trace.wait_rows(rows.len());
        let ended = trace.interrupt();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let said = format!("tcp-tools: warning: {loss}: ");
        assert!(ended.stderr.starts_with(&said), "{}", ended.stderr);
        tcp_tools_tests::row::assert_rows(&ended.rows(), &rows);
    }
}

#[test]
fn refused_hook_that_all_depends_on_is_an_error() {
    let mut command = run_view("tcpretrans", &["--duration", "1s"]);
    let output = command
        .env("TCP_TOOLS_REFUSE", "tcp_retransmit_skb")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let said = "tcp-tools: cannot attach to retransmit: ";
    assert!(stderr.starts_with(said), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn network_namespace_that_vanishes_is_no_fault() {
    let (netns, mut actor) = Netns::elsewhere(|| Actor::start("resident"));
    let mut trace = Trace::view("tcplife", &netns, &["--active"]);
    let rows = actor.talk_to_itself();
    trace.wait_rows(2);
    actor.exit();
    drop(netns);
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    tcp_tools_tests::row::assert_rows(&ended.rows()[..2], &rows);
}

#[test]
fn cgroup_that_vanishes_is_no_fault() {
    let Some(cgroup) = Cgroup::new() else {
        skip("cgroup2");
        return;
    };
    let netns = Netns::enter_new();
    let mut actor = Actor::start("member");
    cgroup.take(actor.process().pid);
    let path = cgroup.path.to_str().unwrap();
    let mut trace = Trace::view("tcplife", &netns, &["--cgroup", path]);
    let rows = actor.talk_to_itself();
    trace.wait_rows(2);
    actor.exit();
    drop(cgroup);
    // Of no cgroup that is asked for.
    Pair::open(V4).close();
    trace.interrupt().assert_rows(&rows);
}

/// As if the kernel had run no program when sessions ended: what was remembered of them is still there.
#[test]
fn ends_that_no_program_saw_are_told_when_the_addresses_are_used_again() {
    const ENDED: usize = 50;
    const LATER: usize = 4 * ENDED;
    let netns = Netns::enter_new();
    let mut trace = Trace::prepared("tcplife", &netns, &["--json"], |_| {});
    let sockets = Objects::of(trace.pid()).map("CONNS");
    let open = |count| -> Vec<Pair> { (0..count).map(|_| Pair::open(V4)).collect() };
    let close = |pairs: Vec<Pair>| pairs.into_iter().map(Pair::close).for_each(drop);
    let pairs = open(ENDED);
    // Those of other tests among them.
    let values = sockets.keys().into_iter();
    let values: Vec<_> = values
        .filter_map(|key| Some((key, sockets.get(key)?)))
        .collect();
    close(pairs);
    trace.wait_rows(2 * ENDED);
    for (address, mut value) in values {
        sockets.insert(address, &mut value);
    }
    // All at once: what the kernel gives away are the places of those that have ended.
    close(open(LATER));
    trace.wait_rows(2 * (ENDED + LATER));
    let ended = trace.interrupt();
    let missed = ended.lost().and_then(|lost| lost["missed"].as_u64());
    assert!(missed > Some(0), "{}", ended.stderr);
}

#[test]
fn a_thousand_short_lived_processes_have_a_session_each_or_it_is_told() {
    const MISSED_AT_MOST: usize = 5;
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 4).unwrap();
    let address = sock::local(&listener).unwrap();
    let mut actor = Actor::start("mayfly");
    let mut trace = Trace::view("tcplife", &netns, &[]);
    let mut pids = BTreeSet::new();
    let mut rows: Vec<Row> = (0..1000)
        .flat_map(|_| {
            let pid = actor.ask(&format!("fork connect c {address}"));
            let server = sock::accept(&listener).unwrap();
            let ends = Ends::of(&server).unwrap();
            sock::drain(&server).unwrap();
            let mayfly = Process {
                pid: pid.parse().unwrap(),
                ..actor.process()
            };
            pids.insert(mayfly.pid);
            let client = Row::client(ends.swapped()).of(&mayfly);
            [
                client.close("fin", "local"),
                Row::server(ends).close("fin", "remote"),
            ]
        })
        .collect();
    assert_eq!(pids.len(), 1000, "each was a process of its own");
    // They take the places of those that have ended.
    let later: Vec<_> = (0..400).map(|_| Pair::open(V4)).collect();
    rows.extend(later.into_iter().flat_map(Pair::close));
    trace.wait_rows(rows.len() - MISSED_AT_MOST);
    trace.interrupt().assert_rows_or_missed(&rows);
}

/// Connects from a process that gets the number of one that has gone, and whose name is `second`.
fn by_successor(pid: u32, address: std::net::SocketAddr) {
    let mut parent = Actor::start("parent");
    let child = parent.ask(&format!("fork_as {pid} comm second;connect c {address}"));
    assert_eq!(child, pid.to_string());
}

#[test]
fn process_with_the_number_of_another_is_told_apart() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 4).unwrap();
    let address = sock::local(&listener).unwrap();
    let trace = Trace::view("tcpconnect", &netns, &[]);
    let mut first = Actor::start("first");
    let process = first.process();
    let of_first = Row::connect(first.connect("c", address)).of(&process);
    first.exit();
    drop(sock::accept(&listener).unwrap());
    by_successor(process.pid, address);
    let server = sock::accept(&listener).unwrap();
    let second = Process {
        comm: "second".into(),
        ..process
    };
    let of_second = Row::connect(Ends::of(&server).unwrap().swapped()).of(&second);
    trace.expect(&[of_first, of_second]);
}

#[test]
fn stranger_with_the_number_of_a_traced_process_is_not_traced() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 4).unwrap();
    let address = sock::local(&listener).unwrap();
    let mut first = Actor::start("first");
    let process = first.process();
    let pid = process.pid.to_string();
    let trace = Trace::view("tcpconnect", &netns, &["--pid", &pid, "--follow"]);
    let row = Row::connect(first.connect("c", address)).of(&process);
    first.exit();
    by_successor(process.pid, address);
    trace.expect(&[row]);
}
