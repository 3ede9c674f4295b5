//! What happens to the machine during a trace. It happens to everything else on it as well, so these run only
//! where they are asked for, one at a time: in the virtual machines.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tcp_tools_tests::cgroup::Cgroup;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order};
use tcp_tools_tests::row::Row;
use tcp_tools_tests::skip;
use tcp_tools_tests::sock::V4;
use tcp_tools_tests::trace::Trace;

const HOUR: Duration = Duration::from_secs(3600);

/// Of `CLOCK_REALTIME`.
fn set_clock(time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let time = libc::timespec {
        tv_sec: since.as_secs().cast_signed(),
        tv_nsec: since.subsec_nanos().into(),
    };
    // SAFETY: `time` outlives the call.
    let done = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) };
    assert_eq!(done, 0);
}

/// Of a row, in seconds.
fn time_of_day(row: &Value) -> i64 {
    let time = &row["ts"].as_str().unwrap()[11..19];
    let parts = time.split(':').map(|part| part.parse::<i64>().unwrap());
    parts.fold(0, |sum, part| sum * 60 + part)
}

#[test]
#[ignore = "sets the machine's clock"]
fn steps_of_the_clock_change_times_of_day_and_no_durations() {
    let netns = Netns::enter_new();
    let mut trace = Trace::only(&netns, &["--json"]);
    let pair = Pair::open(V4);
    let rows = [
        pair.client_row().close("fin", "local"),
        pair.server_row().close("fin", "remote"),
    ];
    set_clock(SystemTime::now() + HOUR);
    close_in_order(pair.client, pair.server);
    trace.wait_rows(2);
    set_clock(SystemTime::now() - 2 * HOUR);
    let late = Pair::open(V4).close();
    trace.wait_rows(4);
    set_clock(SystemTime::now() + HOUR);
    let ended = trace.interrupt();
    ended.assert_rows(&[rows, late].concat());
    let rows = ended.rows();
    let went = time_of_day(&rows[2]) - time_of_day(&rows[0]);
    let passed = rows[2]["ts_ns"].as_u64().unwrap() - rows[0]["ts_ns"].as_u64().unwrap();
    let passed = i64::try_from(passed / 1_000_000_000).unwrap();
    let stepped = (went - passed).rem_euclid(24 * 3600);
    assert!(
        (22 * 3600 - 2..=22 * 3600 + 2).contains(&stepped),
        "{rows:?}"
    );
    for row in rows {
        let duration_us = row["duration_us"].as_u64().unwrap();
        assert!(u128::from(duration_us) < HOUR.as_micros() / 2, "{row}");
    }
}

/// Puts a processor back that a test has taken away.
struct Processor(&'static str);

impl Processor {
    /// The last that a machine of two has; the first cannot go.
    fn second() -> Option<Self> {
        let second = Self("/sys/devices/system/cpu/cpu1/online");
        fs::exists(second.0).unwrap().then_some(second)
    }

    fn set(&self, online: bool) {
        fs::write(self.0, if online { "1" } else { "0" }).unwrap();
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        drop(fs::write(self.0, "1"));
    }
}

#[test]
#[ignore = "takes a processor away from the machine"]
fn processor_that_goes_and_comes_back_loses_nothing() {
    let Some(processor) = Processor::second() else {
        return skip("a processor that can be taken away");
    };
    let netns = Netns::enter_new();
    let trace = Trace::only(&netns, &["--json", "--strict"]);
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..6 {
        // Opened on any processor, closed on those that are left.
        let pairs: Vec<_> = (0..20).map(|_| Pair::open(V4)).collect();
        processor.set(round % 2 == 1);
        rows.extend(pairs.into_iter().flat_map(Pair::close));
    }
    trace.expect(&rows);
}

#[test]
#[ignore = "takes a processor away from the machine"]
fn trace_that_begins_without_a_processor_sees_it_when_it_comes() {
    let Some(processor) = Processor::second() else {
        return skip("a processor that can be taken away");
    };
    processor.set(false);
    let netns = Netns::enter_new();
    let trace = Trace::only(&netns, &["--json", "--strict"]);
    processor.set(true);
    let rows: Vec<Row> = (0..100).flat_map(|_| Pair::open(V4).close()).collect();
    trace.expect(&rows);
}

/// As in a container that is too small: the kernel takes back every page that the tool can do without, and
/// makes it wait when it asks for more.
#[test]
#[ignore = "needs the memory controller of cgroup2"]
fn tool_that_is_short_of_memory_loses_nothing() {
    const MOST: u64 = 1 << 20;
    let Some(cgroup) = Cgroup::new() else {
        return skip("cgroup2");
    };
    let root = cgroup.path.parent().unwrap();
    fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
    let netns = Netns::enter_new();
    // What a process has already does not move with it: it must be born there.
    cgroup.take(std::process::id());
    let trace = Trace::only(&netns, &["--json", "--strict"]);
    fs::write(root.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    // Kernels before 5.11 charge no maps to the cgroup, and the tool alone may have less than that.
    let held = fs::read_to_string(cgroup.path.join("memory.current")).unwrap();
    let little = MOST.min(held.trim().parse::<u64>().unwrap() / 2);
    fs::write(cgroup.path.join("memory.high"), little.to_string()).unwrap();
    let pairs: Vec<_> = (0..200).map(|_| Pair::open(V4)).collect();
    let rows: Vec<Row> = pairs.into_iter().flat_map(Pair::close).collect();
    let events = fs::read_to_string(cgroup.path.join("memory.events")).unwrap();
    assert!(!events.contains("high 0\n"), "it was never short: {events}");
    trace.expect(&rows);
}
