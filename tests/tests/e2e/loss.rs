//! Nothing is lost without a word.

use std::collections::HashSet;
use std::env;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order};
use tcp_tools_tests::proc_net;
use tcp_tools_tests::row::{Row, assert_rows};
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::{Ended, Trace};

const SESSIONS: usize = 500;

/// Floods the smallest ring while nobody reads it, for ten seconds in a soak (`TCP_TOOLS_SOAK`); only this test's
/// namespace counts.
fn flooded(args: &[&str]) -> (Vec<Row>, Trace) {
    let time = Duration::from_secs(if env::var_os("TCP_TOOLS_SOAK").is_some() {
        10
    } else {
        0
    });
    let netns = Netns::enter_new();
    let args = [&["--json", "--buffer-size", "4096"], args].concat();
    let trace = Trace::only(&netns, &args);
    (fill(&trace, time), trace)
}

fn fill(trace: &Trace, time: Duration) -> Vec<Row> {
    let listener = sock::listen(V4, 1).unwrap();
    trace.freeze();
    let (start, mut rows) = (Instant::now(), Vec::new());
    while rows.len() < 2 * SESSIONS || start.elapsed() < time {
        rows.extend(Pair::through(&listener).close());
    }
    trace.signal(libc::SIGCONT);
    rows
}

fn flood(args: &[&str]) -> (Vec<Row>, Ended) {
    let (rows, trace) = flooded(args);
    (rows, trace.interrupt())
}

/// What came and what was lost make up all that happened, and all that came did happen.
fn assert_accounted_for(ended: &Ended, made: &[Row]) {
    let lost = ended.lost().expect("a `lost` line");
    let total = |cause: &str| lost[cause].as_u64().unwrap_or(0) as usize;
    let came = ended.rows();
    assert!(total("ring_full") > 0, "{lost}");
    let told = came.len() + total("ring_full");
    // Of what was missed, some may be others'.
    let may_be_missing = made.len() - ended.missed();
    assert!(
        (may_be_missing..=made.len()).contains(&told),
        "{told} of {}: {lost}",
        made.len()
    );
    for cause in ["map_full", "read_fault"] {
        assert_eq!(total(cause), 0, "{lost}");
    }
    let lports: HashSet<_> = came.iter().map(ports).collect();
    assert_eq!(lports.len(), came.len(), "a row came twice");
    // Others may have missed something.
    let said = format!(
        "tcp-tools: lost {} events",
        total("ring_full") + ended.missed()
    );
    assert!(
        ended.stderr.contains(&said),
        "{:?} does not say {said:?}",
        ended.stderr
    );
}

fn ports(row: &Value) -> (u64, u64) {
    (
        row["lport"].as_u64().unwrap(),
        row["rport"].as_u64().unwrap(),
    )
}

#[test]
fn full_ring_loses_as_many_as_it_says() {
    let (made, ended) = flood(&[]);
    assert_eq!(ended.code, Some(0));
    assert_accounted_for(&ended, &made);
}

#[test]
fn loss_is_told_also_when_nothing_follows() {
    let (made, mut trace) = flooded(&[]);
    trace.wait_for_event("lost");
    assert_accounted_for(&trace.interrupt(), &made);
}

/// The sum of a field of all `lost` lines, and its last value.
fn sum_and_last(lost: &[Value], field: &str) -> (u64, u64) {
    let mut values = lost.iter().filter_map(|line| line[field].as_u64());
    (values.clone().sum(), values.next_back().unwrap_or(0))
}

#[test]
fn steps_add_up_to_the_totals_and_to_what_is_said_at_the_end() {
    const CAUSES: [&str; 5] = ["ring_full", "map_full", "read_fault", "missed", "undecoded"];
    let (_, mut trace) = flooded(&[]);
    trace.wait_for_event("lost");
    fill(&trace, Duration::ZERO);
    let ended = trace.interrupt();
    let lost = ended.events("lost");
    assert!(lost.len() >= 2, "{lost:#?}");
    let (sum, _) = sum_and_last(&lost, "new");
    let (_, total) = sum_and_last(&lost, "total");
    assert_eq!(sum, total, "{lost:#?}");
    let said: Vec<_> = CAUSES
        .iter()
        .filter_map(|cause| {
            let (sum, _) = sum_and_last(&lost, &format!("new_{cause}"));
            let (_, last) = sum_and_last(&lost, cause);
            assert_eq!(sum, last, "{cause}: {lost:#?}");
            (last > 0).then(|| format!("{cause} {last}"))
        })
        .collect();
    let said = format!("tcp-tools: lost {total} events ({});", said.join(", "));
    assert!(ended.stderr.starts_with(&said), "{said}{}", ended.stderr);
}

#[test]
fn strict_makes_loss_an_exit_code() {
    let (made, ended) = flood(&["--strict"]);
    assert_eq!(ended.code, Some(3));
    assert_accounted_for(&ended, &made);
}

#[test]
fn strict_without_loss_is_fine() {
    let netns = Netns::enter_new();
    let mut trace = Trace::only(&netns, &["--json", "--strict"]);
    let rows = Pair::open(V4).close();
    trace.wait_rows(2);
    trace.interrupt().assert_rows(&rows);
}

#[test]
fn sessions_that_do_not_fit_the_map_are_reported_as_partial() {
    let netns = Netns::enter_new();
    let mut trace = Trace::only(&netns, &["--json", "--strict", "--max-sockets", "4"]);
    let listener = sock::listen(V4, 1).unwrap();
    let pairs: Vec<Pair> = (0..10).map(|_| Pair::through(&listener)).collect();
    let rows: Vec<Row> = pairs
        .iter()
        .flat_map(|pair| {
            [
                pair.client_row().close("fin", "local"),
                pair.server_row().close("fin", "remote"),
            ]
        })
        // Without an entry nobody remembers who connected, and from when on bytes counted.
        .map(|row| {
            let forgotten = [
                "owner",
                "pid",
                "comm",
                "uid",
                "role",
                "partial",
                "tx_trace_bytes",
                "rx_trace_bytes",
                "closed_by",
            ];
            forgotten
                .into_iter()
                .fold(row, |row, field| row.with(field, ()))
        })
        .collect();
    for pair in pairs {
        close_in_order(pair.client, pair.server);
    }
    trace.wait_rows(20);
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let came = ended.rows();
    assert_rows(&came, &rows);
    let whole = came
        .iter()
        .filter(|row| row.get("partial").is_none())
        .count();
    assert!(whole <= 4, "{whole} whole rows out of a map of four");
    let lost = ended.lost().expect("a `lost` line");
    assert!(lost["map_full"].as_u64().unwrap() >= 16, "{lost}");
}

/// On a preemptible kernel programs interrupt each other, and the kernel skips one that is running already. Of a
/// session that is not remembered nothing but its end is seen.
#[test]
fn sessions_that_do_not_fit_the_map_are_reported_or_missed_by_busy_processors() {
    const THREADS: usize = 16;
    const EACH: usize = 50;
    let netns = Netns::enter_new();
    let trace = Trace::only(&netns, &["--json", "--max-sockets", "1"]);
    let sessions = || {
        let pairs = (0..EACH).map(|_| Pair::open(V4));
        let ends = pairs.flat_map(|pair| {
            let ends = Ends::of(&pair.client).unwrap();
            pair.close();
            let (local, remote) = (ends.local.port().into(), ends.remote.port().into());
            [(local, remote), (remote, local)]
        });
        ends.collect::<Vec<(u64, u64)>>()
    };
    let mut made: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(sessions)).collect();
        let ends = threads.into_iter().map(|thread| thread.join().unwrap());
        ends.flatten().collect()
    });
    // A softirq may be late.
    proc_net::wait_until_closed();
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for ports in ended.rows().iter().map(ports) {
        let found = made.iter().position(|it| *it == ports);
        made.swap_remove(found.expect("a row of a session that was made, once"));
    }
    let missing = made.len();
    assert!(
        missing <= ended.missed(),
        "{missing} rows: {:?}",
        ended.lost()
    );
}

/// Sessions that are open together, twice as many ends as the map has room for, again and again.
const BOUND: &str = "40";
const WAVES: usize = 12;
const PAIRS: usize = 40;

fn waves() -> usize {
    let listener = sock::listen(V4, 1).unwrap();
    for _ in 0..WAVES {
        let pairs: Vec<Pair> = (0..PAIRS).map(|_| Pair::through(&listener)).collect();
        for pair in pairs {
            close_in_order(pair.client, pair.server);
        }
    }
    WAVES * PAIRS * 2
}

fn map_full(ended: &Ended) -> usize {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lost = ended.lost().expect("a `lost` line");
    lost["map_full"].as_u64().unwrap() as usize
}

fn is_partial(row: &&Value) -> bool {
    row.get("partial").is_some()
}

#[test]
fn new_sessions_without_room_are_missing_and_counted_once() {
    let netns = Netns::enter_new();
    let args = ["--json", "--new-only", "--max-sockets", BOUND];
    let trace = Trace::only(&netns, &args);
    let ends = waves();
    let ended = trace.interrupt();
    let (rows, left_out) = (ended.rows(), map_full(&ended));
    assert_eq!(rows.iter().filter(is_partial).count(), 0);
    assert!(left_out > 0 && !rows.is_empty());
    assert_eq!(rows.len() + left_out, ends);
}

#[test]
fn sessions_without_room_are_partial_and_counted_once() {
    let netns = Netns::enter_new();
    let mut trace = Trace::only(&netns, &["--json", "--max-sockets", BOUND]);
    let ends = waves();
    trace.wait_rows(ends);
    let ended = trace.interrupt();
    let (rows, left_out) = (ended.rows(), map_full(&ended));
    assert_eq!(rows.len(), ends);
    assert!(left_out > 0 && left_out < ends);
    assert_eq!(rows.iter().filter(is_partial).count(), left_out);
}

/// Seen in the list of sockets, and again by each of their descriptors.
#[test]
fn older_sessions_without_room_are_counted_once() {
    const OLDER: usize = 30;
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let pairs: Vec<Pair> = (0..OLDER).map(|_| Pair::through(&listener)).collect();
    let copies: Vec<_> = pairs
        .iter()
        .map(|pair| pair.client.try_clone().unwrap())
        .collect();
    let mut trace = Trace::only(&netns, &["--json", "--max-sockets", "20"]);
    drop(copies);
    for pair in pairs {
        close_in_order(pair.client, pair.server);
    }
    trace.wait_rows(2 * OLDER);
    let ended = trace.interrupt();
    let rows = ended.rows();
    let seeded = rows
        .iter()
        .filter(|row| row.get("rx_trace_bytes").is_some());
    assert_eq!(seeded.count() + map_full(&ended), 2 * OLDER);
}
