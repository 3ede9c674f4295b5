//! The views against the kernel's own trace events, on random traffic: nothing missing, nothing extra.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tcp_tools_tests::counters::counter;
use tcp_tools_tests::ktrace::{Event, KernelTrace, What};
use tcp_tools_tests::netns::{Netns, set_ipv4};
use tcp_tools_tests::sock::{Ends, V4};
use tcp_tools_tests::trace::{Ended, Trace};
use tcp_tools_tests::traffic::{self, Done};

/// What is compared: between whom, and a word that depends on the view.
type Key = (SocketAddr, SocketAddr, String);

/// How many rows a view must have of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    all: usize,
    /// Of these, how many are of events that the kernel may have hidden from every BPF program.
    hidden: usize,
}

/// The rows that a view must have.
#[derive(Default)]
struct Truth(BTreeMap<Key, Expected>);

impl Truth {
    fn add(&mut self, ends: Ends, word: &str, hidden: bool) {
        let expected = self.0.entry(key(ends, word)).or_default();
        expected.all += 1;
        expected.hidden += usize::from(hidden);
    }

    /// Of events, those that are rows, each with its word.
    fn of<'a>(events: &'a [Event], word: impl Fn(&'a Event) -> Option<&'a str>) -> Self {
        let mut truth = Self::default();
        for event in events {
            if let Some(word) = word(event) {
                truth.add(event.ends, word, event.hidden);
            }
        }
        truth
    }

    fn len(&self) -> usize {
        self.0.values().map(|expected| expected.all).sum()
    }

    /// Compares, and gives the number of missing rows. A row may be missing if the kernel may have hidden its event, or if
    /// the tool has counted it as lost.
    fn assert(mut self, view: &str, rows: &[Value], word: &str, lost: u64) -> u64 {
        let mut found: BTreeMap<Key, usize> = BTreeMap::new();
        for row in rows {
            *found.entry(key_of(row, word)).or_default() += 1;
        }
        let (all, mut hidden, mut missing) = (self.len(), 0, Vec::new());
        for key in found.keys() {
            self.0.entry(key.clone()).or_default();
        }
        let mut extra = Vec::new();
        for (key, expected) in &self.0 {
            let count = found.get(key).copied().unwrap_or_default();
            let gap = expected.all.saturating_sub(count);
            hidden += gap.min(expected.hidden);
            missing.extend(vec![key; gap.saturating_sub(expected.hidden)]);
            extra.extend(vec![key; count.saturating_sub(expected.all)]);
        }
        let [lost_rows, allowed] = [missing.len() as u64, lost];
        eprintln!("{view}: {all} rows, {hidden} hidden, {lost_rows} missing of {allowed} lost");
        assert!(extra.is_empty(), "{view}: extra: {extra:#?}");
        assert!(lost_rows <= allowed, "{view}: missing: {missing:#?}");
        hidden as u64 + lost_rows
    }
}

fn key(ends: Ends, word: &str) -> Key {
    (ends.local, ends.remote, word.into())
}

fn key_of(row: &Value, word: &str) -> Key {
    let end = |address: &str, port: &str| {
        let address = row[address].as_str().unwrap().parse().unwrap();
        SocketAddr::new(address, row[port].as_u64().unwrap().try_into().unwrap())
    };
    let ends = Ends {
        local: end("laddr", "lport"),
        remote: end("raddr", "rport"),
    };
    key(ends, row[word].as_str().unwrap_or_default())
}

/// What a trace says that it lost, of all causes. Its own warnings are none.
fn lost(ended: &Ended) -> u64 {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let causes = ["ring_full", "map_full", "read_fault", "missed"];
    let lost = ended.lost();
    let count = |cause| lost.as_ref().and_then(|lost| lost[cause].as_u64());
    causes.into_iter().filter_map(count).sum()
}

/// What the kernel says that each view must show.
fn truths(events: &[Event], done: &Done) -> [(&'static str, &'static str, Truth); 4] {
    let ends = Truth::of(events, |event| event.enters("CLOSE").then_some(""));
    // Each socket that has been in SYN_SENT leaves it once.
    let attempts = Truth::of(events, |event| event.leaves("SYN_SENT").then_some(""));
    let sent_again = Truth::of(events, |event| match &event.what {
        What::Retransmit { state } => Some(state.as_str()),
        What::SynAck => Some("NEW_SYN_RECV"),
        What::State { .. } => None,
    });
    let mut accepts = Truth::default();
    for ends in &done.accepted {
        accepts.add(*ends, "", false);
    }
    assert_eq!(attempts.len(), done.attempts);
    assert!(ends.len() > accepts.len() + attempts.len());
    [
        ("tcplife", "", ends),
        ("tcpconnect", "", attempts),
        ("tcpaccept", "", accepts),
        ("tcpretrans", "state", sent_again),
    ]
}

/// Compares the reasons of retransmits with the kernel's counters of the calling thread's namespace. `missing` rows are of
/// any reason.
fn assert_reasons(rows: &[Value], missing: u64, done: &Done) {
    // The kernel counts segments that have left the host.
    let segments = |reasons: &[&str]| -> u64 {
        let is_sent = |row: &&Value| row["error"].is_null();
        let has_reason = |row: &&Value| reasons.iter().any(|reason| row["reason"] == *reason);
        let sent = rows.iter().filter(is_sent).filter(has_reason);
        sent.map(|row| row["segments"].as_u64().unwrap()).sum()
    };
    let number = |field: &str, values: &[&str]| {
        let has = |row: &&Value| values.iter().any(|value| row[field] == *value);
        rows.iter().filter(has).count() as u64
    };
    let counters = [
        ("TCPFastRetrans", segments(&["fast"])),
        ("TCPSlowStartRetrans", segments(&["slow_start", "mtu"])),
        ("TCPLossProbes", number("reason", &["probe"])),
        (
            "TCPTimeouts",
            number("reason", &["rto"]) + done.timed_out as u64,
        ),
        ("TCPSynRetrans", number("type", &["S", "A"])),
    ];
    let gaps = counters.map(|(name, of_rows)| {
        let of_kernel = counter(name);
        eprintln!("{name}: {of_kernel}, by rows {of_rows}");
        assert!(of_kernel > 0, "{name}: nothing to compare");
        let gap = of_kernel.checked_sub(of_rows);
        gap.unwrap_or_else(|| panic!("{name}: rows too many: {rows:#?}"))
    });
    // A timer that expires in vain, because the segment is in a queue still or the host refuses it, sends nothing.
    let in_vain = counter("TCPSpuriousRtxHostQueues") + counter("TCPRetransFail");
    // The last counter has some of those before it.
    let [.., syns] = gaps;
    assert!(syns <= missing, "SYNs and SYN-ACKs: {rows:#?}");
    let others: u64 = gaps.iter().take(4).sum();
    assert!(others <= missing + in_vain, "{gaps:?}: {rows:#?}");
    assert_eq!(number("reason", &["unknown"]), 0, "{rows:#?}");
}

/// Compares what the two ends of a session say: how it ended, by whom, and what was sent and received; and that both
/// belong to this process. Returns how many sessions were compared: a row may be hidden, and a refused client has no
/// other end.
fn assert_ends_agree(rows: &[Value]) -> usize {
    let mut by_ends: BTreeMap<Key, Vec<&Value>> = BTreeMap::new();
    for row in rows {
        by_ends.entry(key_of(row, "")).or_default().push(row);
        let is_accepted = row["owner"] == "accept" || row["owner"] == "connect";
        // The listener was closed before.
        let is_left = row["owner"] == "none" && row["close"] == "rst_sent";
        assert!(
            is_left || is_accepted && row["pid"] == std::process::id(),
            "{row}"
        );
    }
    let mut compared = 0;
    for ((local, remote, _), of_end) in &by_ends {
        let of_other = by_ends.get(&(*remote, *local, String::new()));
        // Ports may be used again: then it is not known which rows belong together.
        let ([row], Some([other])) = (of_end.as_slice(), of_other.map(Vec::as_slice)) else {
            continue;
        };
        let word = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let sides = [word(row, "closed_by"), word(other, "closed_by")];
        let sides = sides.each_ref().map(String::as_str);
        let agrees = match [word(row, "close").as_str(), word(other, "close").as_str()] {
            ["fin", "fin"] => {
                assert_eq!(row["tx_bytes"], other["rx_bytes"], "{row} {other}");
                assert_eq!(row["rx_bytes"], other["tx_bytes"], "{row} {other}");
                matches!(sides, ["local", "remote"] | ["remote", "local"])
            }
            ["rst_sent", "rst_received"] => sides == ["local", "remote"],
            ["rst_received", "rst_sent"] => sides == ["remote", "local"],
            // Whoever is left sends to a socket that is gone.
            ["timeout", "rst_received"] | ["rst_received", "timeout"] => true,
            _ => false,
        };
        assert!(agrees, "{row} {other}");
        compared += 1;
    }
    compared / 2
}

#[test]
fn random_traffic_is_what_the_kernel_says() {
    let seed = traffic::seed();
    let netns = Netns::enter_new();
    netns.add_addresses();
    // The segments that are sent again are those that were sent.
    set_ipv4("tcp_retrans_collapse", "0");
    let kernel = KernelTrace::start(&netns);
    let views = ["tcplife", "tcpconnect", "tcpaccept", "tcpretrans"];
    let traces = views.map(|view| Trace::view(view, &netns, &[]));
    let done = traffic::run(&netns, seed);
    let ended = traces.map(Trace::interrupt);
    let events = kernel.events();
    for ((view, word, truth), ended) in truths(&events, &done).into_iter().zip(&ended) {
        let rows = ended.rows();
        let missing = truth.assert(view, &rows, word, lost(ended));
        match view {
            "tcplife" => assert!(assert_ends_agree(&rows) > done.accepted.len() / 2),
            "tcpretrans" => assert_reasons(&rows, missing, &done),
            _ => {}
        }
    }
}

/// Both ends of the same address, and a row of them.
fn one_row() -> (Ends, Value) {
    let mut local = V4;
    local.set_port(7);
    let remote = local;
    let row = json!({"laddr": "127.0.0.1", "lport": 7, "raddr": "127.0.0.1", "rport": 7});
    (Ends { local, remote }, row)
}

/// A truth of two events of the same ends, of which the second may be hidden.
fn two_events(hidden: bool) -> Truth {
    let mut truth = Truth::default();
    for hidden in [false, hidden] {
        truth.add(one_row().0, "", hidden);
    }
    truth
}

#[test]
fn row_of_a_hidden_event_and_lost_rows_may_be_missing() {
    let (_, row) = one_row();
    let rows = [row.clone(), row];
    two_events(false).assert("view", &rows, "", 0);
    two_events(true).assert("view", &rows, "", 0);
    two_events(true).assert("view", &rows[1..], "", 0);
    two_events(false).assert("view", &rows[1..], "", 1);
    two_events(true).assert("view", &[], "", 1);
}

#[test]
#[should_panic(expected = "view: missing: ")]
fn missing_row_is_noticed() {
    two_events(false).assert("view", &[one_row().1], "", 0);
}

#[test]
#[should_panic(expected = "view: missing: ")]
fn row_that_is_missing_besides_a_hidden_one_is_noticed() {
    two_events(true).assert("view", &[], "", 0);
}

#[test]
#[should_panic(expected = "view: extra: ")]
fn row_too_many_is_noticed() {
    let (_, row) = one_row();
    two_events(true).assert("view", &[row.clone(), row.clone(), row], "", 1);
}

#[test]
#[should_panic(expected = "view: extra: ")]
fn row_of_other_ends_is_noticed() {
    let (_, mut row) = one_row();
    row["rport"] = 8.into();
    two_events(false).assert("view", &[row], "", 2);
}

#[test]
fn kernel_trace_is_removed_when_a_test_fails() {
    let netns = Netns::enter_new();
    let watch = KernelTrace::start(&netns);
    let failed = std::panic::catch_unwind(|| {
        let trace = KernelTrace::start(&netns);
        assert!(watch.sees(trace.name()));
        std::panic::panic_any(trace.name().to_owned())
    });
    let name = failed.unwrap_err().downcast::<String>().unwrap();
    assert!(watch.sees(watch.name()) && !watch.sees(&name));
}
