//! `sockets`: formats, columns, and snapshots one after another.

use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::row::check_line;
use tcp_tools_tests::skip;
use tcp_tools_tests::snapshot::{entries, lines, text};
use tcp_tools_tests::sock::{self, V4, V6};
use tcp_tools_tests::states::Every;
use tcp_tools_tests::trace::{Trace, run_view};

fn table(netns: &Netns, args: &[&str]) -> Vec<String> {
    let inode = netns.inode.to_string();
    let text = text(&[&["--netns", &inode], args].concat());
    text.lines().map(String::from).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn columns_of_the_table() {
    let netns = Netns::enter_new();
    let _every = Every::new(V4);
    let owner = ["PID", "COMM", "OTHERS"];
    let flow = ["LADDR", "LPORT", "RADDR", "RPORT"];
    let queues = ["STATE", "RECV-Q", "SEND-Q"];
    let timer = ["TIMER", "TIMER_MS", "TRIES"];
    let info = ["RTT_MS", "CWND", "RETRANS", "TX_KB", "RX_KB"];
    for (args, expected) in [
        (&[][..], [&queues[..], &flow, &owner].concat()),
        (&["-o"], [&queues[..], &flow, &timer, &owner].concat()),
        (&["--timers"], [&queues[..], &flow, &timer, &owner].concat()),
        (&["-i"], [&queues[..], &flow, &info, &owner].concat()),
        (
            &["--timers", "--info"],
            [&queues[..], &flow, &timer, &info, &owner].concat(),
        ),
        (&["-w"], [&queues[..], &["IP"], &flow, &owner].concat()),
        (&["-T"], [&["TIME"], &queues[..], &flow, &owner].concat()),
        (&["-t"], [&["TIME(s)"], &queues[..], &flow, &owner].concat()),
        (
            &["--fields", "fd,state,inode"],
            vec!["FD", "STATE", "INODE"],
        ),
    ] {
        let lines = table(&netns, args);
        assert_eq!(words(&lines[0]), expected, "{args:?}");
        for line in &lines[1..] {
            assert_eq!(words(line).len(), expected.len(), "{args:?}: {line}");
        }
    }
}

#[test]
fn csv_has_the_same_cells() {
    let netns = Netns::enter_new();
    let pair = Pair::open(V6);
    let text = table(&netns, &["--csv", "-oi"]).join("\n");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().unwrap().clone();
    assert_eq!(headers.len(), 18);
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!((&row[0], &row[3]), ("ESTABLISHED", "::1"));
        assert_eq!(row[16], *tcp_tools_tests::row::this_process().comm);
    }
    drop(pair);
}

#[test]
fn names_of_addresses_are_waited_for() {
    let netns = Netns::enter_new();
    let _pair = Pair::open(V4);
    // Whatever /etc/hosts calls it.
    let rows = lines(&netns, &["--resolve"]);
    assert_eq!(rows.len(), 2);
    let table = table(&netns, &["--resolve"]);
    for row in rows {
        let Some(name) = row.get("rname") else {
            return skip("name of 127.0.0.1 in /etc/hosts");
        };
        let is_shown = |line: &String| words(line)[5] == name.as_str().unwrap();
        assert!(table.iter().skip(1).all(is_shown), "{table:#?}");
    }
}

#[test]
fn snapshots_follow_one_another() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let mut trace = Trace::view("sockets", &netns, &["--interval", "10ms"]);
    trace.wait_rows(2);
    let pair = Pair::through(&listener);
    trace.wait_for_row("state", "ESTABLISHED");
    drop(pair.client);
    trace.wait_for_row("state", "CLOSE_WAIT");
    trace.wait_for_row("state", "FIN_WAIT2");
    let ended = trace.interrupt();
    ended.assert_clean();
    // All of a snapshot have one time, and each snapshot its own.
    let rows = ended.rows();
    let mut times: Vec<_> = rows
        .iter()
        .map(|row| row["ts_ns"].as_u64().unwrap())
        .collect();
    assert!(times.is_sorted());
    times.dedup();
    let first: Vec<_> = rows.iter().filter(|row| row["ts_ns"] == times[0]).collect();
    assert_eq!(first.len(), 1);
    assert!(times.len() >= 3);
    for time in times {
        let of_one = rows.iter().filter(|row| row["ts_ns"] == time);
        let of_one: Vec<_> = of_one.cloned().collect();
        let mut listed = entries(&of_one);
        listed.dedup();
        assert_eq!(listed.len(), of_one.len(), "{of_one:#?}");
    }
}

#[test]
fn bounds_end_it() {
    let netns = Netns::enter_new();
    let _pair = Pair::open(V4);
    assert_eq!(lines(&netns, &["-n", "1"]).len(), 1);
    assert_eq!(
        lines(&netns, &["--max-events", "5", "--interval", "1ms"]).len(),
        5
    );
    let rows = lines(&netns, &["--interval", "1h", "--duration", "1ms"]);
    assert!([0, 2].contains(&rows.len()), "{rows:#?}");
    let rows = lines(&netns, &["--interval", "1ms", "--duration", "100ms"]);
    assert!(rows.len() >= 2, "{rows:#?}");
    let table = table(&netns, &["--interval", "1ms", "-n", "3"]);
    assert_eq!(words(&table[0])[0], "TIME");
    assert_eq!(table.len(), 4);
}

#[test]
fn summaries_follow_one_another() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let mut trace = Trace::view("sockets", &netns, &["-s", "--interval", "10ms"]);
    trace.wait_lines(4);
    let _pair = Pair::through(&listener);
    let end = trace.interrupt();
    end.assert_clean();
    let rows: Vec<_> = end.lines.iter().map(|line| check_line(line)).collect();
    assert!(rows.iter().all(|row| row["event"] == "sockets_summary"));
    assert_eq!(rows[0]["listen"], 1);
    assert_eq!(rows[1]["total"], 1);
}

#[test]
fn reader_that_leaves_ends_it() {
    let netns = Netns::enter_new();
    let _listener = sock::listen(V4, 1).unwrap();
    let mut trace = Trace::head_of("sockets", &netns, &["--interval", "1ms"], 3);
    trace.wait_stdout_end();
    let ended = trace.wait_end();
    ended.assert_clean();
    assert_eq!(ended.lines.len(), 3);
}

#[test]
fn command_is_watched_with_its_children_or_everybody() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 4).unwrap();
    let address = sock::local(&listener).unwrap();
    let mut other = Actor::start("other");
    other.connect("c", address);
    let connect = format!("fork connect c {address}; recv c 1");
    let actor = tcp_tools_tests::actor_binary();
    let actor = actor.to_str().unwrap();
    for all in [false, true] {
        let mut args = vec!["--interval", "10ms"];
        args.extend(all.then_some("--all"));
        args.extend(["--", actor, "comm child", &connect, "exit 5"]);
        let mut trace = Trace::view("sockets", &netns, &args);
        trace.wait_for_row("comm", "child");
        // The first in the queue is the other's.
        let mut server = sock::accept(&listener).unwrap();
        if !all {
            server = sock::accept(&listener).unwrap();
        }
        sock::send(&server, 1).unwrap();
        let ended = trace.wait_end();
        assert_eq!(ended.code, Some(5), "{}", ended.stderr);
        let is_other = |row: &serde_json::Value| row["comm"] == "other";
        assert_eq!(ended.rows().iter().any(is_other), all);
    }
}

#[test]
fn children_are_followed_if_asked_for() {
    for follow in [true, false] {
        let netns = Netns::enter_new();
        let mut parent = Actor::start("parent");
        let address = parent.listen("l", V4);
        let pid = parent.process().pid.to_string();
        let args = ["--interval", "10ms", "-p", &pid, "--follow"];
        let mut trace = Trace::view("sockets", &netns, &args[..if follow { 5 } else { 4 }]);
        trace.wait_rows(1);
        let listener = sock::listen(V4, 1).unwrap();
        let to = sock::local(&listener).unwrap();
        parent.tell(&format!("fork connect c {to}; recv c 1"));
        let server = sock::accept(&listener).unwrap();
        if follow {
            trace.wait_for_row("state", "ESTABLISHED");
        } else {
            let seen = trace.rows_so_far();
            trace.wait_rows(seen + 2);
        }
        sock::send(&server, 1).unwrap();
        parent.answer();
        let ended = trace.interrupt();
        ended.assert_clean();
        let is_childs = |row: &serde_json::Value| row["rport"] == to.port();
        assert_eq!(ended.rows().iter().any(is_childs), follow);
        assert!(
            ended
                .rows()
                .iter()
                .any(|row| row["lport"] == address.port())
        );
    }
}

#[test]
fn names_of_processes_do_not_act_on_a_terminal() {
    let netns = Netns::enter_new();
    let mut actor = Actor::start("plain");
    actor.ask("comm_hex 1b5b324a0a78");
    actor.listen("l", V4);
    for (args, shown) in [
        (&[][..], r"\x1B[2J\x0Ax"),
        (&["--csv"], r"\x1B[2J\x0Ax"),
        (&["--json"], r"\u001b[2J\u000ax"),
    ] {
        let lines = table(&netns, args).join("\n");
        assert!(lines.contains(shown), "{lines}");
        assert!(!lines.contains('\x1b'), "{lines:?}");
    }
}

#[test]
fn kernel_without_iterators_says_so() {
    let output = run_view("sockets", &[])
        .env("TCP_TOOLS_REFUSE", "bpf_iter_tcp")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot attach to sockets"), "{stderr}");
    let netns = Netns::enter_new();
    let _listener = sock::listen(V4, 1).unwrap();
    let inode = netns.inode.to_string();
    let output = run_view("sockets", &["--json", "--netns", &inode])
        .env("TCP_TOOLS_REFUSE", "bpf_iter_task_file")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(
        stderr.contains("owners of sockets are not known"),
        "{stderr}"
    );
    let row = check_line(str::from_utf8(&output.stdout).unwrap().trim());
    assert_eq!(row["owner"], "none");
}
