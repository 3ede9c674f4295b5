//! What the kernel counts in a network namespace: `/proc/net/netstat` and `/proc/net/snmp`.

use std::fs;
use std::thread;
use std::time::Instant;

use crate::PATIENCE;

/// A counter of the calling thread's namespace, such as `TCPAbortOnData` or `OutRsts`.
///
/// # Panics
/// When the kernel has no such counter.
pub fn counter(name: &str) -> u64 {
    let files = ["netstat", "snmp"];
    let found = files.iter().find_map(|file| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        value(&text, name)
    });
    found.unwrap_or_else(|| panic!("no counter {name}"))
}

/// Waits until that counter is at least `count`; `between` runs before each look.
///
/// # Panics
/// After [`PATIENCE`].
pub fn wait_counter(name: &str, count: u64, mut between: impl FnMut()) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        between();
        let value = counter(name);
        if value >= count {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {value}, not {count}");
        thread::yield_now();
    }
}

/// Lines come in pairs: names, and values.
fn value(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    lines.chunks(2).find_map(|pair| {
        let at = pair[0].iter().position(|word| *word == name)?;
        Some(pair[1][at].parse().unwrap())
    })
}
