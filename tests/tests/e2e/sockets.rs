//! `sockets`: what it shows, held against the kernel's own lists.

use std::io;
use std::process::Command;

use serde_json::Value;
use socket2::Socket;
use tcp_tools_tests::netns::{Netns, set_ipv4};
use tcp_tools_tests::proc_net::{Entry, Line, STATES};
use tcp_tools_tests::snapshot::{by_state, entries, lines, row_of, text, with_truth};
use tcp_tools_tests::sock::{self, V4};
use tcp_tools_tests::states::Every;
use tcp_tools_tests::{skip, trace::run_view};

fn entries_of(lines: &[Line]) -> Vec<Entry> {
    lines.iter().map(|line| line.entry.clone()).collect()
}

#[test]
fn sockets_in_every_state_are_those_of_proc() {
    let netns = Netns::enter_new();
    let every = Every::of_all_families();
    let (rows, truth) = with_truth(|| lines(&netns, &[]));
    assert_eq!(entries(&rows), entries_of(&truth));
    // Nobody can see a socket that is closed; all other states are there, for each family.
    let mut states: Vec<&str> = truth.iter().map(|it| it.entry.state.as_str()).collect();
    states.sort_unstable();
    states.dedup();
    assert_eq!(states.len(), STATES.len() - 1, "{states:?}");
    let held: usize = every.iter().map(Every::held).sum();
    assert_eq!(
        rows.iter().filter(|it| it.get("fd").is_some()).count(),
        held
    );
}

#[test]
fn timers_and_inodes_are_those_of_proc() {
    let netns = Netns::enter_new();
    let _every = Every::of_all_families();
    let (rows, truth) = with_truth(|| lines(&netns, &[]));
    let mut listed: Vec<(Entry, Option<String>, Option<u64>)> = rows
        .iter()
        .map(|row| {
            let timer = row.get("timer").map(|it| it.as_str().unwrap().into());
            let inode = row.get("inode").map(|it| it.as_u64().unwrap());
            (entries(std::slice::from_ref(row)).remove(0), timer, inode)
        })
        .collect();
    listed.sort();
    let truth: Vec<_> = truth
        .into_iter()
        .map(|it| (it.entry, it.timer.map(String::from), it.inode))
        .collect();
    assert_eq!(listed, truth);
    for timer in ["on", "keepalive", "timewait", "persist"] {
        assert!(rows.iter().any(|row| row["timer"] == timer), "{timer}");
    }
    assert!(rows.iter().any(|row| row.get("timer").is_none()));
}

/// `ss -tan`, if it is there.
fn ss() -> Option<Vec<(Entry, u64)>> {
    let output = match Command::new("ss").args(["-tanH"]).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut entries: Vec<_> = text.lines().map(ss_entry).collect();
    entries.sort();
    Some(entries)
}

/// The socket, and its send queue also if it listens.
fn ss_entry(line: &str) -> (Entry, u64) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let state = words[0].replace('-', "_").replace("WAIT_", "WAIT");
    let state = if state == "ESTAB" {
        "ESTABLISHED".into()
    } else {
        state
    };
    let endpoint = |word: &str| {
        let (address, port) = word.rsplit_once(':').unwrap();
        let address = match address.trim_matches(['[', ']']) {
            "*" => "::",
            address => address,
        };
        let address: std::net::IpAddr = address.parse().unwrap();
        (address.to_canonical(), port.parse().ok())
    };
    let (laddr, lport) = endpoint(words[3]);
    let (raddr, rport) = endpoint(words[4]);
    let is_connection = state != "LISTEN";
    let send_q = words[2].parse().unwrap();
    let entry = Entry {
        state,
        laddr,
        lport: lport.unwrap(),
        raddr: is_connection.then_some(raddr),
        rport,
        recv_q: words[1].parse().unwrap(),
        send_q: is_connection.then_some(send_q),
    };
    (entry, send_q)
}

fn listed(rows: &[Value]) -> Vec<(Entry, u64)> {
    let mut listed: Vec<_> = rows
        .iter()
        .map(|row| {
            let send_q = row["send_q"].as_u64().unwrap();
            (entries(std::slice::from_ref(row)).remove(0), send_q)
        })
        .collect();
    listed.sort();
    listed
}

#[test]
fn sockets_in_every_state_are_those_of_ss() {
    let netns = Netns::enter_new();
    let _every = Every::of_all_families();
    let ((rows, ss), _) = with_truth(|| (lines(&netns, &[]), ss()));
    match ss {
        Some(ss) => assert_eq!(listed(&rows), ss),
        None => skip("ss"),
    }
}

/// Connections from this process to itself, the ends of servers in the queue of the listener.
fn many(count: usize) -> Vec<Socket> {
    std::fs::write("/proc/sys/net/core/somaxconn", "65535").unwrap();
    set_ipv4("tcp_max_syn_backlog", "65535");
    let listener = sock::listen(V4, 65_535).unwrap();
    let address = sock::local(&listener).unwrap();
    let clients = (0..count).map(|_| sock::connect(address).unwrap());
    let mut sockets: Vec<Socket> = clients.collect();
    sockets.push(listener);
    sockets
}

#[test]
fn four_thousand_connections_are_those_of_proc_and_of_ss() {
    const COUNT: usize = 4000;
    let netns = Netns::enter_new();
    let sockets = many(COUNT);
    let ((rows, ss), truth) = with_truth(|| (lines(&netns, &[]), ss()));
    assert_eq!(rows.len(), 2 * COUNT + 1);
    assert_eq!(entries(&rows), entries_of(&truth));
    let held = rows.iter().filter(|row| row["pid"] == std::process::id());
    assert_eq!(held.count(), sockets.len());
    match ss {
        Some(ss) => assert_eq!(listed(&rows), ss),
        None => skip("ss"),
    }
}

#[test]
fn bytes_of_a_connection_are_exact() {
    let netns = Netns::enter_new();
    let pair = tcp_tools_tests::pair::Pair::open(V4);
    pair.exchange(300_000, 20);
    let rows = lines(&netns, &[]);
    let (client, server) = (row_of(&rows, &pair.client), row_of(&rows, &pair.server));
    for (row, role, tx, rx) in [
        (client, "client", 300_000, 20),
        (server, "server", 20, 300_000),
    ] {
        let known = [&row["role"], &row["tx_bytes"], &row["rx_bytes"]];
        assert_eq!(known, [&Value::from(role), &tx.into(), &rx.into()], "{row}");
        let sent = row["sent_bytes"].as_u64().unwrap() - row["retrans_bytes"].as_u64().unwrap();
        assert_eq!(sent, tx, "{row}");
        for field in ["srtt_us", "min_rtt_us", "cwnd", "mss_bytes"] {
            assert!(row[field].as_u64().unwrap() > 0, "{field}: {row}");
        }
    }
}

#[test]
fn listener_shows_its_queue_and_no_other_end() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 7).unwrap();
    let address = sock::local(&listener).unwrap();
    let _waiting = [0, 1, 2].map(|_| sock::connect(address).unwrap());
    let rows = lines(&netns, &["-l"]);
    assert_eq!(rows.len(), 1);
    let row = row_of(&rows, &listener);
    assert_eq!((&row["recv_q"], &row["send_q"]), (&3.into(), &7.into()));
    let table = text(&["-l", "--netns", &netns.inode.to_string()]);
    let cells: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    let port = address.port().to_string();
    let expected = ["LISTEN", "3", "7", "127.0.0.1", &port, "-", "-"];
    assert_eq!(cells[..7], expected, "{table}");
}

/// Rows of `--summary`: side, port, and how many sockets in each state.
fn summary(netns: &Netns, args: &[&str]) -> Vec<Value> {
    let rows = lines(netns, &[&["--summary"], args].concat());
    assert!(rows.iter().all(|row| row["event"] == "sockets_summary"));
    rows
}

/// Those of the states that are not zero.
fn counts(row: &Value) -> std::collections::BTreeMap<String, u64> {
    let counts = STATES.iter().map(|state| {
        let name = state.to_lowercase();
        let count = row[&name].as_u64().unwrap();
        (name, count)
    });
    let counts: std::collections::BTreeMap<_, _> = counts.filter(|(_, count)| *count > 0).collect();
    assert_eq!(row["total"], counts.values().sum::<u64>());
    counts
}

#[test]
fn summary_counts_states_by_port_as_proc_does() {
    let netns = Netns::enter_new();
    let _every = Every::of_all_families();
    let (rows, truth) = with_truth(|| summary(&netns, &[]));
    let truth = entries_of(&truth);
    let (all, ports) = rows.split_last().unwrap();
    assert!(all.get("port").is_none() && all.get("side").is_none());
    assert_eq!(counts(all), by_state(&truth));
    let listening: Vec<u16> = truth
        .iter()
        .filter(|it| it.state == "LISTEN")
        .map(|it| it.lport)
        .collect();
    assert_eq!(ports.len(), 2 * listening.len(), "{ports:#?}");
    for row in ports {
        let port = row["port"].as_u64().unwrap() as u16;
        assert!(listening.contains(&port), "{row}");
        let of_port = |it: &&Entry| match row["side"].as_str().unwrap() {
            "local" => it.lport == port,
            "remote" => it.rport == Some(port),
            other => panic!("{other}"),
        };
        assert_eq!(counts(row), by_state(truth.iter().filter(of_port)), "{row}");
    }
}

#[test]
fn summary_of_a_selection_still_knows_whose_port_it_is() {
    let netns = Netns::enter_new();
    let pair = Every::new(V4);
    for (args, state) in [
        (&["--state", "time-wait"][..], "TIME_WAIT"),
        (
            &["--state", "fin-wait-2", "--remote", "127.0.0.1"],
            "FIN_WAIT2",
        ),
        (&["--state", "close-wait"], "CLOSE_WAIT"),
    ] {
        let (rows, truth) = with_truth(|| summary(&netns, args));
        let truth = entries_of(&truth);
        let of_state: Vec<_> = truth.iter().filter(|it| it.state == state).collect();
        assert!(!of_state.is_empty());
        let (all, ports) = rows.split_last().unwrap();
        assert_eq!(counts(all), by_state(of_state.iter().copied()), "{args:?}");
        let side = if state == "CLOSE_WAIT" {
            "local"
        } else {
            "remote"
        };
        assert!(ports.iter().all(|row| row["side"] == side), "{ports:#?}");
        assert_eq!(ports.len(), 1, "{ports:#?}");
    }
    drop(pair);
}

#[test]
fn summary_of_nothing_is_one_line_of_zeros() {
    let netns = Netns::enter_new();
    let rows = summary(&netns, &[]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["total"], 0);
    let inode = netns.inode.to_string();
    for format in [&[][..], &["--csv"]] {
        let text = text(&[&["-s", "--netns", &inode], format].concat());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let separator = if format.is_empty() { ' ' } else { ',' };
        let cells = |line: &str| line.split(separator).filter(|it| !it.is_empty()).count();
        let unknown = if format.is_empty() { 0 } else { 2 };
        assert_eq!(cells(lines[0]), cells(lines[1]) + unknown, "{text}");
    }
}

#[test]
fn exit_status_and_loss_are_those_of_other_views() {
    let netns = Netns::enter_new();
    let inode = netns.inode.to_string();
    let _pair = tcp_tools_tests::pair::Pair::open(V4);
    let output = run_view("sockets", &["--strict", "-v", "--netns", &inode]);
    let output = { output }.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for (args, says) in [
        (&["--state", "open"][..], "unknown state \"open\""),
        (&["--interval", "0s"], "interval"),
        (&["--duration", "1s"], "--interval"),
        (&["--", "true"], "--interval"),
        (&["-l", "--state", "LISTEN"], "cannot be used with"),
        (&["-s", "--fields", "pid"], "cannot be used with"),
        (&["-s", "-o"], "cannot be used with"),
        (&["-s", "-i"], "cannot be used with"),
        (&["-s", "-n", "1"], "cannot be used with"),
    ] {
        let output = run_view("sockets", args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}
