//! `tcpretrans`: for each pattern of losses, the rows by reason are as many as the kernel counts.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use tcp_tools_tests::counters::{counter, wait_counter};
use tcp_tools_tests::netns::{Netns, set_ipv4};
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::sock::{self, V4};
use tcp_tools_tests::tier;
use tcp_tools_tests::trace::Trace;

/// A namespace whose retransmits are traced.
pub(crate) struct Lab {
    pub(crate) netns: Netns,
    pub(crate) trace: Trace,
    /// Whether this tier sees tail loss probes with new data.
    sees_all_probes: bool,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let netns = Netns::enter_new();
        // The segments that are sent again are those that were sent.
        set_ipv4("tcp_retrans_collapse", "0");
        let sees_all_probes = tier("loss_probe").is_some();
        let args: &[&str] = if sees_all_probes { &["-l"] } else { &[] };
        let trace = Trace::view("tcpretrans", &netns, args);
        Self {
            netns,
            trace,
            sees_all_probes,
        }
    }

    /// Without tail loss probes: only the timer sends the last segments again.
    pub(crate) fn without_probes() -> Self {
        let lab = Self::new();
        set_ipv4("tcp_early_retrans", "0");
        lab
    }

    /// Ends the trace; what was to be sent again has been. The kernel has counted no others than there are rows, and
    /// of its tail loss probes those that no row shows.
    pub(crate) fn finish(self, hidden_probes: u64) -> Vec<Value> {
        let ended = self.trace.interrupt();
        ended.assert_clean();
        let rows = ended.rows();
        let number = |field: &str, values: &[&str]| {
            let has = |row: &&Value| values.iter().any(|value| row[field] == *value);
            rows.iter().filter(has).count() as u64
        };
        // Here the kernel only counts what has been sent.
        let sent = |reasons: &[&str]| -> Vec<&Value> {
            let has = |row: &&Value| reasons.iter().any(|reason| row["reason"] == *reason);
            let sent = rows.iter().filter(|row| row["error"].is_null());
            sent.filter(has).collect()
        };
        let segments = |reasons: &[&str]| -> u64 {
            let sent = sent(reasons).into_iter();
            sent.map(|row| row["segments"].as_u64().unwrap()).sum()
        };
        let probes = sent(&["probe"]).len() as u64;
        let timeouts = number("reason", &["rto"]);
        let by_row = BTreeMap::from([
            ("TCPFastRetrans", segments(&["fast"])),
            ("TCPSlowStartRetrans", segments(&["slow_start", "mtu"])),
            ("TCPLossProbes", probes + hidden_probes),
            ("TCPTimeouts", timeouts + hidden_failures()),
            ("TCPSynRetrans", number("type", &["S", "A"])),
            ("unknown", number("reason", &["unknown"])),
        ]);
        let mut by_kernel: BTreeMap<&str, u64> = by_row.keys().map(|name| (*name, 0)).collect();
        for (name, count) in &mut by_kernel {
            if *name != "unknown" {
                *count = counter(name);
            }
        }
        assert_eq!(
            by_row, by_kernel,
            "rows, and what the kernel counts: {rows:#?}"
        );
        assert_eq!(
            failures(&rows),
            counter("TCPRetransFail") - hidden_failures()
        );
        rows
    }
}

pub(crate) fn count(rows: &[Value], letter: &str, reason: &str) -> u64 {
    let those = rows
        .iter()
        .filter(|row| row["type"] == letter && row["reason"] == reason);
    those.count() as u64
}

pub(crate) fn failures(rows: &[Value]) -> u64 {
    rows.iter().filter(|row| row["error"] == "EPERM").count() as u64
}

/// Whether the kernel traces retransmits that fail: since Linux 6.17.
pub(crate) fn traces_failures() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse::<u32>());
    let mut number = || numbers.next().unwrap().unwrap();
    (number(), number()) >= (6, 17)
}

/// Retransmits that failed, and that this kernel does not trace. In these tests all of them are the timer's.
fn hidden_failures() -> u64 {
    if traces_failures() {
        0
    } else {
        counter("TCPRetransFail")
    }
}

/// Segments sent again that were so before, but for probes: each was marked as lost once more.
fn again(rows: &[Value]) -> u64 {
    let mut times = BTreeMap::new();
    for row in rows.iter().filter(|row| row["type"] == "R") {
        *times.entry(row["seq"].as_u64().unwrap()).or_insert(0) += 1;
    }
    times.values().map(|count| count - 1).sum()
}

/// A session whose client sends each write at once, and knows the round trip.
pub(crate) fn pair() -> Pair {
    let pair = Pair::open(V4);
    pair.client.set_tcp_nodelay(true).unwrap();
    pair.exchange(10, 0);
    pair
}

pub(crate) fn deliver(pair: &Pair, count: usize) {
    pair.server.detach_filter().unwrap();
    sock::recv(&pair.server, count).unwrap();
    sock::wait_acked(&pair.client).unwrap();
}

#[test]
fn fast_retransmits_while_a_probe_is_pending() {
    let lab = Lab::new();
    let pair = pair();
    wait_counter("TCPFastRetrans", 10, || {
        sock::deafen(&pair.server).unwrap();
        sock::send(&pair.client, 200).unwrap();
        sock::hear_after_loss(&pair.server).unwrap();
        for _ in 0..5 {
            sock::send(&pair.client, 100).unwrap();
        }
        sock::recv(&pair.server, 700).unwrap();
        sock::wait_acked(&pair.client).unwrap();
    });
    lab.finish(0);
}

#[test]
fn several_segments_lost_of_one_window() {
    let lab = Lab::new();
    let pair = pair();
    wait_counter("TCPFastRetrans", 6, || {
        sock::deafen_for(&pair.server, 200).unwrap();
        for _ in 0..3 {
            sock::send(&pair.client, 200).unwrap();
            sock::send(&pair.client, 100).unwrap();
        }
        sock::send(&pair.client, 100).unwrap();
        deliver(&pair, 1000);
    });
    lab.finish(0);
}

#[test]
fn retransmit_that_is_lost_as_well() {
    let lab = Lab::new();
    let pair = pair();
    let mut lost_twice = false;
    while !lost_twice {
        let fast = counter("TCPFastRetrans");
        sock::deafen_for(&pair.server, 200).unwrap();
        sock::send(&pair.client, 200).unwrap();
        // One acknowledgement for all of these leaves room for more in the window than the segment that was lost.
        sock::deafen(&pair.client).unwrap();
        let mut sent = 200;
        for _ in 0..8 {
            sock::send(&pair.client, 100).unwrap();
            sent += 100;
        }
        pair.client.detach_filter().unwrap();
        wait_counter(
            "TCPLostRetransmit",
            counter("TCPLostRetransmit") + 1,
            || {
                sock::send(&pair.client, 100).unwrap();
                sent += 100;
            },
        );
        deliver(&pair, sent);
        // On a slow machine the timer may be first.
        lost_twice = counter("TCPFastRetrans") >= fast + 2;
    }
    let rows = lab.finish(0);
    assert_eq!(again(&rows), counter("TCPLostRetransmit"), "{rows:#?}");
    let mut fast = BTreeMap::new();
    for row in rows.iter().filter(|row| row["reason"] == "fast") {
        *fast.entry(row["seq"].as_u64().unwrap()).or_insert(0) += 1;
    }
    assert!(fast.values().any(|times| *times > 1), "{rows:#?}");
}

#[test]
fn slow_start_after_the_timer() {
    let mut lab = Lab::without_probes();
    let pair = pair();
    sock::deafen(&pair.server).unwrap();
    for _ in 0..5 {
        sock::send(&pair.client, 100).unwrap();
    }
    lab.trace.wait_for_row("reason", "rto");
    deliver(&pair, 500);
    let rows = lab.finish(0);
    assert!(count(&rows, "R", "slow_start") >= 1, "{rows:#?}");
}

#[test]
fn timer_that_expires_again_and_again() {
    let mut lab = Lab::without_probes();
    let pair = pair();
    sock::deafen(&pair.server).unwrap();
    sock::send(&pair.client, 100).unwrap();
    lab.trace.wait_rows(3);
    deliver(&pair, 100);
    let rows = lab.finish(0);
    assert_eq!(count(&rows, "R", "rto"), rows.len() as u64);
    assert_eq!(again(&rows), counter("TCPLostRetransmit"), "{rows:#?}");
}

#[test]
fn probe_with_old_data() {
    let mut lab = Lab::new();
    let pair = pair();
    sock::deafen(&pair.server).unwrap();
    sock::send(&pair.client, 100).unwrap();
    lab.trace.wait_for_row("reason", "probe");
    deliver(&pair, 100);
    lab.finish(0);
}

#[test]
fn probe_with_new_data_is_one_row() {
    let lab = Lab::new();
    let pair = Pair::open(V4);
    pair.exchange(10, 0);
    sock::deafen(&pair.server).unwrap();
    // The second waits for the acknowledgement of the first (Nagle).
    sock::send(&pair.client, 100).unwrap();
    sock::send(&pair.client, 50).unwrap();
    wait_counter("TCPLossProbes", 1, || {});
    deliver(&pair, 150);
    let hidden = u64::from(!lab.sees_all_probes);
    let rows = lab.finish(hidden);
    let probes: Vec<_> = rows.iter().filter(|row| row["type"] == "L").collect();
    for probe in &probes {
        assert_eq!(probe["len_bytes"], 50, "{rows:#?}");
        assert!(probe["nth"].is_null(), "{rows:#?}");
    }
    assert_eq!(probes.len() as u64, 1 - hidden);
}

#[test]
fn probe_with_old_data_where_new_data_has_no_room() {
    const ROOM: usize = 4096;
    const MUCH: usize = 16 * ROOM;
    let mut lab = Lab::new();
    let listener = sock::listen(V4, 1).unwrap();
    listener.set_recv_buffer_size(ROOM).unwrap();
    let pair = Pair::through(&listener);
    pair.client.set_tcp_nodelay(true).unwrap();
    pair.exchange(10, 0);
    sock::deafen(&pair.server).unwrap();
    for _ in 0..MUCH / 512 {
        sock::send(&pair.client, 512).unwrap();
    }
    lab.trace.wait_for_row("reason", "probe");
    // With the socket goes what it has not sent: another probe could carry that.
    sock::reset(pair.client).unwrap();
    lab.finish(0);
}
