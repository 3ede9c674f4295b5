//! What the kernel counts in a network namespace: `/proc/net/netstat`.

use std::fs;
use std::thread;
use std::time::Instant;

use crate::PATIENCE;

/// The counter `name` of the group `TcpExt` in the namespace of the calling thread, since that was made.
///
/// # Panics
/// When the kernel has no such counter.
pub fn tcp_ext(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let names = lines.next().unwrap().split_whitespace();
    let mut values = names.zip(lines.next().unwrap().split_whitespace());
    let value = values.find(|(found, _)| *found == name);
    value.expect(name).1.parse().unwrap()
}

/// Waits until that counter is at least `count`; `between` runs before each look.
///
/// # Panics
/// After [`PATIENCE`].
pub fn wait_tcp_ext(name: &str, count: u64, mut between: impl FnMut()) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        between();
        let value = tcp_ext(name);
        if value >= count {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {value}, not {count}");
        thread::yield_now();
    }
}
