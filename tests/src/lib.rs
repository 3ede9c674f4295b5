//! Harness of the end-to-end tests: the real binary on a real kernel, real traffic in a network
//! namespace of the test's own, exact sets of rows.
//!
//! | environment | meaning |
//! |---|---|
//! | `TCP_TOOLS_BIN` | the binary under test; default: the one that cargo built beside the tests |
//! | `TCP_TOOLS_TEST_BIN_DIR` | directory of the `actor` binary; the same default |
//! | `TCP_TOOLS_HOOKS` | hook tier that every trace is forced to |
//! | `TCP_TOOLS_REQUIRE` | `1`: a test that would skip fails |
//! | `TCP_TOOLS_SEED` | seed of the random traffic of `differential`, which prints the seed of each run |

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness reports by panicking"
)]

use std::env;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

pub use trace::run_view;

pub mod actor;
pub mod bpf;
pub mod capability;
pub mod cgroup;
pub mod counters;
pub mod features;
pub mod icmp;
pub mod ktrace;
pub mod netns;
pub mod pair;
pub mod proc_net;
pub mod row;
pub mod schema;
pub mod segment;
pub mod snapshot;
pub mod sock;
pub mod states;
pub mod terminal;
pub mod trace;
pub mod traffic;
pub mod uring;
pub mod views;

/// How long anything that must happen may take: a guest under emulation is ten times slower.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Path of the `tcp-tools` binary under test.
pub fn tool() -> PathBuf {
    existing(env::var_os("TCP_TOOLS_BIN").map_or_else(|| built("tcp-tools"), PathBuf::from))
}

/// Path of the `actor` helper.
pub fn actor_binary() -> PathBuf {
    let dir = env::var_os("TCP_TOOLS_TEST_BIN_DIR");
    existing(dir.map_or_else(|| built("actor"), |dir| PathBuf::from(dir).join("actor")))
}

/// Cargo puts test executables into `deps/`, and binaries one directory above.
fn built(name: &str) -> PathBuf {
    let exe = env::current_exe().unwrap();
    exe.ancestors().nth(2).unwrap().join(name)
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is not there; build it with `cargo build --workspace`",
        path.display()
    );
    path
}

/// The tier by which `point` is hooked here, as `doctor` tells; none if it is not.
pub fn tier(point: &str) -> Option<String> {
    let output = run_view("doctor", &["--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let points = report["points"].as_array().unwrap();
    let point = points.iter().find(|it| it["point"] == point).unwrap();
    point["tier"].as_str().map(String::from)
}

/// Says that a test cannot run because this machine lacks `feature`; the test returns after it.
///
/// # Panics
/// With `TCP_TOOLS_REQUIRE=1`.
pub fn skip(feature: &str) {
    assert!(
        env::var_os("TCP_TOOLS_REQUIRE").is_none_or(|v| v != "1"),
        "this machine lacks {feature}, and TCP_TOOLS_REQUIRE=1 allows no skips"
    );
    eprintln!("skipped: no {feature}");
}

/// Waits until `fd` has something to read or has reached its end.
///
/// # Panics
/// After [`PATIENCE`].
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, what: &str) {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let millis = i32::try_from(PATIENCE.as_millis()).unwrap();
    // SAFETY: one valid pollfd, as the count says.
    let ready = unsafe { libc::poll(&mut poll, 1, millis) };
    assert!(ready == 1, "waited {PATIENCE:?} for {what}");
}
