//! What the tool may do: no more than it needs to begin, and less as soon as it has begun.

use std::fs;
use std::sync::LazyLock;

use serde_json::Value;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::capability::{
    CAP_BPF, CAP_KILL, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE, bits, limit,
    perf_takes_cap_sys_admin, status, status_field,
};
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order};
use tcp_tools_tests::row::assert_rows;
use tcp_tools_tests::sock::{self, V4};
use tcp_tools_tests::trace::{Ended, Trace};
use tcp_tools_tests::views::ALL;
use tcp_tools_tests::{run_view, tier};

/// Killed by SIGTERM, as shells tell it.
const TERMINATED: i32 = 128 + libc::SIGTERM;

/// What the tool needs here.
fn minimum() -> Vec<u32> {
    if perf_is_kept_back() {
        vec![CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN]
    } else {
        vec![CAP_BPF, CAP_PERFMON]
    }
}

/// Whether CAP_PERFMON does not open the perf events that this tier hangs on.
fn perf_is_kept_back() -> bool {
    // The tool is asked once.
    static KEPT_BACK: LazyLock<bool> =
        LazyLock::new(|| perf_takes_cap_sys_admin() && tier("accept").as_deref() != Some("fentry"));
    *KEPT_BACK
}

/// Tracepoints of system calls are found in tracefs, which the tool must mount where nobody has.
fn has_tracefs() -> bool {
    fs::exists("/sys/kernel/tracing/events").unwrap()
}

/// The rows of the ends that connected.
fn clients(ended: &Ended) -> Vec<Value> {
    let mut rows = ended.rows();
    rows.retain(|row| row["role"] == "client");
    rows
}

#[test]
fn cap_bpf_and_cap_perfmon_are_enough() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let old = Pair::through(&listener);
    old.exchange(10, 20);
    let inode = netns.inode.to_string();
    let args = ["--json", "--netns", &inode];
    let mut trace = Trace::prepared("tcplife", &netns, &args, |it| limit(it, &minimum()));
    let new = Pair::through(&listener);
    let rows = [
        old.client_row()
            .seeded(0, 0)
            .bytes(10, 20)
            .close("fin", "local"),
        new.client_row().close("fin", "local"),
    ];
    for pair in [old, new] {
        close_in_order(pair.client, pair.server);
    }
    trace.wait_rows(4);
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_rows(&clients(&ended), &rows);
    if tier("accept").as_deref() == Some("tracepoint") && !has_tracefs() {
        let said = "tcp-tools: warning: owners of accepted connections are not known: accept";
        assert!(ended.stderr.starts_with(said), "{}", ended.stderr);
    } else {
        ended.assert_clean();
    }
}

#[test]
fn setting_that_keeps_perf_events_back_is_named() {
    let mut command = run_view("tcplife", &["--json", "--duration", "100ms"]);
    limit(&mut command, &[CAP_BPF, CAP_PERFMON]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // Where the setting does not apply, it must not be blamed.
    let is_kept_back = perf_is_kept_back();
    assert_eq!(output.status.code() != Some(0), is_kept_back, "{said}");
    let setting = "with kernel.perf_event_paranoid 3 it takes CAP_SYS_ADMIN";
    assert_eq!(said.contains(setting), is_kept_back, "{said}");
}

#[test]
fn cap_bpf_and_cap_perfmon_are_enough_for_each_view() {
    let views = [
        ("tcplife", &["--active"][..]),
        ("tcpconnect", &["--latency"]),
        ("tcpaccept", &[]),
        ("tcpretrans", &["-l"]),
        ("tcptop", &["1"]),
        ("sockets", &["--interval", "1s"]),
    ];
    assert_eq!(views.map(|(view, _)| view), ALL);
    for (view, args) in views {
        let netns = Netns::enter_new();
        let inode = netns.inode.to_string();
        let args = [&["--json", "--netns", &inode], args].concat();
        let trace = Trace::prepared(view, &netns, &args, |it| limit(it, &minimum()));
        let ended = trace.interrupt();
        assert_eq!(ended.code, Some(0), "{view}: {}", ended.stderr);
        let warned = |line: &str| line.starts_with("tcp-tools: warning: ");
        assert!(ended.stderr.lines().all(warned), "{view}: {}", ended.stderr);
    }
}

/// What a trace with these capabilities says of a session of another network namespace that is older.
fn old_session_elsewhere(capabilities: &[u32]) -> Ended {
    let (netns, (mut actor, port)) = Netns::elsewhere(|| {
        let mut actor = Actor::start("elder");
        let address = actor.listen("l", V4);
        actor.connect("c", address);
        actor.accept("l", "s");
        (actor, address.port().to_string())
    });
    // What other tests do would fill the ring; and a namespace that cannot be looked at cannot be asked for.
    let args = ["--json", "--remote-port", &port];
    let mut trace = Trace::prepared("tcplife", &netns, &args, |it| {
        limit(it, &[&minimum(), capabilities].concat());
    });
    for command in ["close c", "drain s", "close s"] {
        actor.ask(command);
    }
    trace.wait_rows(1);
    trace.interrupt()
}

#[test]
fn other_namespaces_take_cap_sys_admin_and_cap_sys_ptrace() {
    const SAID: &str = "in other network namespaces are not known: \
         entering them takes CAP_SYS_ADMIN and CAP_SYS_PTRACE";
    for (capabilities, enough) in [
        (&[CAP_SYS_ADMIN, CAP_SYS_PTRACE][..], true),
        (&[CAP_SYS_ADMIN], false),
        (&[CAP_SYS_PTRACE], false),
        (&[], false),
    ] {
        if perf_is_kept_back() && !capabilities.contains(&CAP_SYS_ADMIN) {
            continue;
        }
        let ended = old_session_elsewhere(capabilities);
        let said = ended.stderr.contains(SAID);
        assert_eq!(said, !enough, "{capabilities:?}: {}", ended.stderr);
        // What a process holds is known all the same.
        for row in ended.rows() {
            assert_eq!(row["owner"], "fd", "{row}");
            assert!(row["tx_trace_bytes"].is_u64(), "{row}");
        }
    }
}

#[test]
fn what_is_not_needed_is_dropped_after_attaching() {
    for (args, kept) in [
        (&[][..], &[CAP_BPF][..]),
        (&["--active"], &[CAP_BPF, CAP_SYS_ADMIN, CAP_SYS_PTRACE]),
        (&["--resolve"], &[CAP_BPF]),
        (&["--", "sleep", "1000"], &[CAP_BPF, CAP_KILL]),
    ] {
        let netns = Netns::enter_new();
        let trace = Trace::only(&netns, args);
        for thread in fs::read_dir(format!("/proc/{}/task", trace.pid())).unwrap() {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            for set in ["CapPrm", "CapEff"] {
                let found = status_field(&status, set, 16);
                assert_eq!(found, bits(kept), "{args:?} {set}");
            }
            for set in ["CapInh", "CapAmb"] {
                assert_eq!(status_field(&status, set, 16), 0, "{args:?} {set}");
            }
            assert_eq!(status_field(&status, "NoNewPrivs", 10), 1, "{args:?}");
            // SECCOMP_MODE_FILTER, include/uapi/linux/seccomp.h
            assert_eq!(status_field(&status, "Seccomp", 10), 2, "{args:?}");
        }
        trace.interrupt();
    }
}

#[test]
fn what_was_dropped_is_not_missed() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let old = Pair::through(&listener);
    let mut trace = Trace::json(&netns, &["--active"]);
    let new = Pair::through(&listener);
    let mut rows = new.close().to_vec();
    trace.wait_rows(2);
    for row in [old.client_row(), old.server_row()] {
        rows.push(row.seeded(0, 0).active("ESTABLISHED"));
    }
    trace.interrupt().assert_rows(&rows);
}

/// Runs a shell command under a trace, as if by sudo; on standard error is what it writes.
fn by_sudo(uid: u32, script: &str, args: &[&str]) -> Ended {
    let netns = Netns::enter_new();
    let args = [args, &["--", "sh", "-c", script]].concat();
    let trace = Trace::prepared("tcplife", &netns, &args, |command| {
        command.env("SUDO_UID", uid.to_string());
        command.env("SUDO_GID", uid.to_string());
        command.env("SUDO_USER", "ignored");
    });
    trace.wait_end()
}

#[test]
fn command_runs_as_the_user_who_called_sudo() {
    // One with a name, one without.
    for uid in [65534, 54321] {
        let ended = by_sudo(uid, "cat /proc/self/status", &[]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        for field in ["Uid", "Gid", "Groups"] {
            let found = status_field(&ended.stderr, field, 10);
            assert_eq!(found, u64::from(uid), "{field}");
        }
        for field in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(status_field(&ended.stderr, field, 16), 0, "{field}");
        }
    }
    let ended = by_sudo(0, "cat /proc/self/status", &[]);
    assert_eq!(status_field(&ended.stderr, "Uid", 10), 0);
}

#[test]
fn command_keeps_what_the_tool_drops() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcplife", &netns, &["--", "cat", "/proc/self/status"]);
    let ended = trace.wait_end();
    let own = status(std::process::id().cast_signed());
    for (field, radix) in [("CapEff", 16), ("NoNewPrivs", 10), ("Seccomp", 10)] {
        let [found, own] = [&ended.stderr, &own].map(|it| status_field(it, field, radix));
        assert_eq!(found, own, "{field}");
    }
}

#[test]
fn command_of_another_user_is_ended_all_the_same() {
    let ended = by_sudo(65534, "exec sleep 1000", &["--duration", "100ms", "--kill"]);
    assert_eq!(ended.code, Some(TERMINATED), "{}", ended.stderr);
}

#[test]
fn neither_environment_nor_arguments_are_told() {
    let netns = Netns::enter_new();
    let inode = netns.inode.to_string();
    let args = [
        "-vv", "--json", "--all", "--netns", &inode, "--", "sh", "-c",
    ];
    let args = [&args[..], &["exit 0; password-in-arguments"]].concat();
    let trace = Trace::prepared("tcplife", &netns, &args, |command| {
        command.env("PASSWORD", "password-in-environment");
    });
    Pair::open(V4).close();
    let ended = trace.wait_end();
    let all = format!("{}{}", ended.lines.concat(), ended.stderr);
    assert!(!all.contains("password-in-"), "{all}");
}
