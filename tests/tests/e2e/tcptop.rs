//! `tcptop`: what moves is counted to the byte, once, and put in order.

use std::collections::BTreeMap;

use serde_json::Value;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order, reset_in_order};
use tcp_tools_tests::sock::{self, DUAL, Ends, V4, V6};
use tcp_tools_tests::trace::{Ended, Trace};

/// One interval that only the end of the trace cuts short.
const ENDLESS: &str = "86400";

/// Bytes sent and received, by ports.
type Moved = BTreeMap<(u64, u64), (u64, u64)>;

fn trace(netns: &Netns, args: &[&str]) -> Trace {
    Trace::view("tcptop", netns, args)
}

fn number(row: &Value, field: &str) -> u64 {
    row[field].as_u64().unwrap_or_default()
}

fn ports(ends: Ends) -> (u64, u64) {
    (ends.local.port().into(), ends.remote.port().into())
}

fn sum(rows: &[Value], field: &str) -> u64 {
    rows.iter().map(|row| number(row, field)).sum()
}

/// The sums of all rows. Each interval's total must be what its rows add up to.
fn moved(ended: &Ended) -> Moved {
    ended.assert_clean();
    let (rows, totals) = (ended.events("tcptop"), ended.events("tcptop_total"));
    for (index, total) in totals.iter().enumerate() {
        assert_eq!(number(total, "interval"), index as u64 + 1);
        let of_interval = |row: &&Value| row["interval"] == total["interval"];
        let rows: Vec<Value> = rows.iter().filter(of_interval).cloned().collect();
        for field in ["rx_bytes", "tx_bytes", "retransmits"] {
            assert_eq!(sum(&rows, field), number(total, field), "{field}: {total}");
        }
        let mut flows: Vec<_> = rows
            .iter()
            .map(|row| (number(row, "lport"), number(row, "rport")))
            .collect();
        flows.sort_unstable();
        flows.dedup();
        assert_eq!(flows.len(), rows.len(), "one row a socket: {rows:#?}");
    }
    let mut moved = Moved::new();
    for row in &rows {
        let at = moved
            .entry((number(row, "lport"), number(row, "rport")))
            .or_default();
        at.0 += number(row, "tx_bytes");
        at.1 += number(row, "rx_bytes");
    }
    moved
}

/// What both ends of a pair have moved.
fn both(pair: &Pair, to_server: u64, to_client: u64) -> [((u64, u64), (u64, u64)); 2] {
    let ends = Ends::of(&pair.client).unwrap();
    [
        (ports(ends), (to_server, to_client)),
        (ports(ends.swapped()), (to_client, to_server)),
    ]
}

type Sender = fn(&socket2::Socket, usize) -> std::io::Result<()>;

const SENDERS: [Sender; 3] = [sock::send, sock::send_file, sock::send_spliced];

fn transfer(pair: &Pair, count: usize, send: Sender) {
    std::thread::scope(|scope| {
        scope.spawn(|| send(&pair.client, count).unwrap());
        sock::recv(&pair.server, count).unwrap();
    });
    sock::wait_acked(&pair.client).unwrap();
}

#[test]
fn exact_whatever_moves_them() {
    let netns = Netns::enter_new();
    // Some moved bytes before, which are not to be seen.
    let older: Vec<Pair> = SENDERS.map(|_| Pair::open(V4)).into();
    older.iter().for_each(|pair| pair.exchange(70_000, 5_000));
    let mut trace = trace(&netns, &["0.02"]);
    let younger: Vec<Pair> = SENDERS.map(|_| Pair::open(V6)).into();
    let mut expected = Moved::new();
    for pairs in [&older, &younger] {
        for (pair, send) in pairs.iter().zip(SENDERS) {
            transfer(pair, 2_000_003, send);
            pair.exchange(0, 17);
            expected.extend(both(pair, 2_000_003, 17));
        }
    }
    // Some of it was seen while they were open.
    trace.wait_rows(12);
    for (index, pair) in older.into_iter().chain(younger).enumerate() {
        match index % 3 {
            0 => close_in_order(pair.client, pair.server),
            1 => reset_in_order(pair.server, pair.client),
            _ => std::mem::forget(pair),
        }
    }
    assert_eq!(moved(&trace.interrupt()), expected);
}

#[test]
fn sessions_that_live_and_die_within_an_interval() {
    let netns = Netns::enter_new();
    let trace = trace(&netns, &[ENDLESS]);
    let mut expected = Moved::new();
    for (to_server, to_client) in [(1, 0), (0, 1), (123_457, 77)] {
        let pair = Pair::open(V4);
        pair.exchange(to_server, to_client);
        expected.extend(both(&pair, to_server as u64, to_client as u64));
        close_in_order(pair.client, pair.server);
    }
    // Nothing to tell of these.
    Pair::open(V4).close();
    let ended = trace.interrupt();
    assert_eq!(moved(&ended), expected);
    assert_eq!(ended.events("tcptop_total").len(), 1);
    for row in ended.rows() {
        assert!(
            row["owner"] == "connect" || row["owner"] == "accept",
            "{row}"
        );
    }
}

#[test]
fn a_bounded_run_prints_so_many_intervals() {
    let netns = Netns::enter_new();
    let idle = Pair::open(V4);
    let ended = trace(&netns, &["0.02", "5"]).wait_end();
    assert!(moved(&ended).is_empty());
    let totals = ended.events("tcptop_total");
    assert_eq!(totals.len(), 5);
    for total in totals {
        assert_eq!(number(&total, "sockets"), 2);
        assert!(number(&total, "interval_us") > 0 && total["loadavg_1m"].is_number());
    }
    drop(idle);
}

#[test]
fn sums_by_whatever_it_is_add_up() {
    let netns = Netns::enter_new();
    let by = ["conn", "process", "remote", "lport", "container"];
    let traces = by.map(|by| (by, trace(&netns, &[ENDLESS, "--by", by])));
    let mut here = Actor::start("here");
    let mut there = Actor::start("there");
    let listeners = [("a", V4), ("b", V6), ("c", DUAL)].map(|(name, address)| {
        let address = there.listen(name, address);
        // An IPv6 socket that talks IPv4.
        let mapped = || {
            format!("[::ffff:127.0.0.1]:{}", address.port())
                .parse()
                .unwrap()
        };
        (name, if name == "c" { mapped() } else { address })
    });
    for (count, (name, address)) in [1000, 200, 30].into_iter().zip(listeners) {
        here.connect(name, address);
        let server = format!("{name}2");
        there.accept(name, &server);
        here.ask(&format!("send {name} {count}"));
        there.ask(&format!("recv {server} {count}"));
        here.ask(&format!("acked {name}"));
    }
    let text =
        |field: &'static str| move |row: &Value| row[field].as_str().unwrap_or("-").to_owned();
    for (by, trace) in traces {
        let ended = trace.interrupt();
        ended.assert_clean();
        let rows = ended.events("tcptop");
        for field in ["rx_bytes", "tx_bytes"] {
            let total = number(&ended.events("tcptop_total")[0], field);
            assert_eq!((sum(&rows, field), total), (1230, 1230), "{by}");
        }
        let sockets = if by == "conn" {
            6
        } else {
            sum(&rows, "sockets")
        };
        assert_eq!(sockets, 6, "{by}");
        let sums = |name: &dyn Fn(&Value) -> String| {
            let both = |row: &Value| number(row, "rx_bytes") + number(row, "tx_bytes");
            let sums = rows.iter().map(|row| (name(row), both(row)));
            let sums: BTreeMap<String, u64> = sums.collect();
            assert_eq!(sums.len(), rows.len(), "{by}: {rows:#?}");
            sums.into_values().collect::<Vec<_>>()
        };
        match by {
            "process" => assert_eq!(sums(&text("comm")), [1230, 1230]),
            // 127.0.0.1, mapped or not, and ::1.
            "remote" => assert_eq!(sums(&text("raddr")), [2060, 400]),
            "container" => assert_eq!(sums(&text("container")), [2460]),
            "conn" | "lport" => assert_eq!(sums(&|row| number(row, "lport").to_string()).len(), 6),
            other => panic!("no sums are known of {other}"),
        }
    }
}

#[test]
fn the_busy_one_is_first_among_many_idle_ones() {
    const IDLE: usize = 5000;
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 16).unwrap();
    let idle: Vec<Pair> = (0..IDLE).map(|_| Pair::through(&listener)).collect();
    let busy = Pair::through(&listener);
    let args = [ENDLESS, "--rows", "1", "--sort", "tx"];
    let trace = trace(&netns, &args);
    busy.exchange(100_000, 1);
    let ends = Ends::of(&busy.client).unwrap();
    let ended = trace.interrupt();
    ended.assert_clean();
    let [first] = &ended.rows()[..] else {
        panic!("one row was asked for: {:#?}", ended.lines);
    };
    let ports_of = (number(first, "lport"), number(first, "rport"));
    assert_eq!(ports_of, ports(ends), "{first}");
    let total = &ended.events("tcptop_total")[0];
    assert_eq!(number(total, "sockets"), 2 * (IDLE as u64 + 1));
    // What had no row counts, too.
    assert_eq!(number(total, "rx_bytes"), 100_001);
    drop(idle);
}

#[test]
fn a_socket_that_rests_is_open_still_and_counts_when_it_moves_again() {
    let netns = Netns::enter_new();
    let mut actor = Actor::start("other");
    let listener = sock::listen(V4, 1).unwrap();
    actor.connect("c", sock::local(&listener).unwrap());
    let server = sock::accept(&listener).unwrap();
    let choices: [(&[&str], u64); 2] = [(&[], 2), (&["--comm", "other"], 1)];
    let mut traces = choices.map(|(args, open)| (trace(&netns, &[&["0.05"], args].concat()), open));
    for lines in [4, 10] {
        for (trace, _) in &mut traces {
            trace.wait_lines(lines);
        }
        sock::send(&server, 10).unwrap();
        actor.ask("recv c 10");
        sock::wait_acked(&server).unwrap();
    }
    for (trace, open) in traces {
        let ended = trace.interrupt();
        ended.assert_clean();
        let totals = ended.events("tcptop_total");
        assert!(totals.iter().all(|total| number(total, "sockets") == open));
        assert_eq!(sum(&totals, "rx_bytes"), 20, "{totals:#?}");
    }
}

#[test]
fn rows_are_in_the_order_that_is_asked_for() {
    let netns = Netns::enter_new();
    let sorts = ["rx", "tx", "sum", "rtt", "retrans"];
    let traces = sorts.map(|sort| (sort, trace(&netns, &[ENDLESS, "--sort", sort])));
    let pairs = [(5000, 10), (40, 9000), (3000, 3000)].map(|(to_server, to_client)| {
        let pair = Pair::open(V4);
        pair.exchange(to_server, to_client);
        pair
    });
    // One of them must send again.
    sock::deafen(&pairs[1].server).unwrap();
    sock::send(&pairs[1].client, 1).unwrap();
    sock::hear_after_loss(&pairs[1].server).unwrap();
    sock::wait_acked(&pairs[1].client).unwrap();
    for (sort, trace) in traces {
        let ended = trace.interrupt();
        assert_eq!(moved(&ended).len(), 6);
        let measure = |row: &Value| match sort {
            "rx" => number(row, "rx_bytes"),
            "tx" => number(row, "tx_bytes"),
            "sum" => number(row, "rx_bytes") + number(row, "tx_bytes"),
            "rtt" => number(row, "srtt_us"),
            "retrans" => number(row, "retransmits"),
            other => panic!("no measure is known of {other}"),
        };
        let measures: Vec<u64> = ended.rows().iter().map(measure).collect();
        assert!(measures.is_sorted_by(|a, b| a >= b), "{sort}: {measures:?}");
        assert!(measures[0] > 0, "{sort}");
    }
}

#[test]
fn filters_keep_sockets_out_of_rows_and_totals() {
    let netns = Netns::enter_new();
    let mut actor = Actor::start("other");
    let me = std::process::id().to_string();
    let listener = sock::listen(V4, 1).unwrap();
    let port = sock::local(&listener).unwrap().port().to_string();
    let filters = [
        (vec!["-4"], 4),
        (vec!["-6"], 1200),
        (vec!["-p", &me], 2 + 600),
        (vec!["--comm", "other"], 2 + 600),
        (vec!["--local-port", &port], 2),
    ];
    let traces = filters.map(|(args, sum)| (trace(&netns, &[&[ENDLESS], &args[..]].concat()), sum));
    actor.connect("c", sock::local(&listener).unwrap());
    let server = sock::accept(&listener).unwrap();
    let address = actor.listen("l", V6);
    let client = sock::connect(address).unwrap();
    actor.accept("l", "s");
    sock::send(&server, 2).unwrap();
    actor.ask("recv c 2");
    sock::wait_acked(&server).unwrap();
    sock::send(&client, 600).unwrap();
    actor.ask("recv s 600");
    sock::wait_acked(&client).unwrap();
    for (trace, bytes) in traces {
        let ended = trace.interrupt();
        ended.assert_clean();
        let totals = ended.events("tcptop_total");
        let all = |rows: &[Value]| sum(rows, "rx_bytes") + sum(rows, "tx_bytes");
        assert_eq!((all(&totals), all(&ended.rows())), (bytes, bytes));
    }
}

#[test]
fn holders_of_older_sockets_are_counted() {
    let netns = Netns::enter_new();
    let mut maker = Actor::start("maker");
    maker.open();
    let mut heir = Actor::start("heir");
    maker.share("c", &mut heir, "c");
    let trace = trace(&netns, &[ENDLESS]);
    for command in ["send c 3", "recv s 3", "acked c"] {
        maker.ask(command);
    }
    let younger = Pair::open(V4);
    younger.exchange(5, 0);
    let ended = trace.interrupt();
    moved(&ended);
    let others = |bytes: u64, field: &str| {
        let rows = ended.rows();
        let row = rows.iter().find(|row| number(row, field) == bytes).unwrap();
        row["others"].as_u64()
    };
    assert_eq!(others(3, "tx_bytes"), Some(1));
    assert_eq!(others(3, "rx_bytes"), Some(0));
    assert_eq!(others(5, "tx_bytes"), None);
}

#[test]
fn namespaces_that_come_and_go_do_no_harm() {
    let netns = Netns::enter_new();
    let mut trace = Trace::everywhere("tcptop", &netns, &["0.05"]);
    for _ in 0..20 {
        let (_, pair) = Netns::elsewhere(|| {
            let pair = Pair::open(V4);
            pair.exchange(10, 20);
            pair
        });
        // Nobody is there any more, but for two sockets of ours.
        drop(pair);
    }
    let pair = Pair::open(V4);
    pair.exchange(1, 0);
    trace.wait_rows(2);
    // Others may have more to tell than there is room for.
    assert_eq!(trace.interrupt().code, Some(0));
}

#[test]
fn a_namespace_without_processes_tells_at_the_end_of_a_session() {
    let (netns, pair) = Netns::elsewhere(|| Pair::open(V4));
    let me = std::process::id().to_string();
    let mut trace = Trace::everywhere("tcptop", &netns, &["0.05", "-p", &me]);
    pair.exchange(7, 8);
    close_in_order(pair.client, pair.server);
    trace.wait_rows(2);
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let rows = ended.rows();
    assert_eq!((sum(&rows, "rx_bytes"), sum(&rows, "tx_bytes")), (15, 15));
}
