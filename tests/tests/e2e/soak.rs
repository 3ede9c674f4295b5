//! Much traffic, slow readers, full disks, full maps: nothing grows, and what is lost is told.
//!
//! `TCP_TOOLS_SOAK` is how many times as much traffic there shall be as by default, a few seconds of it:
//! 1500 takes about half an hour and 4 GB.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write, pipe};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tcp_tools_tests::bpf::Objects;
use tcp_tools_tests::capability::{status, status_field};
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order, reset_in_order};
use tcp_tools_tests::row::{Row, check_line};
use tcp_tools_tests::sock::{self, V4, V6};
use tcp_tools_tests::trace::Trace;

fn scale() -> usize {
    env::var("TCP_TOOLS_SOAK").map_or(1, |scale| scale.parse().unwrap())
}

/// Two rows each.
fn traffic(sessions: usize) {
    let listeners = [V4, V6].map(|address| sock::listen(address, 1).unwrap());
    for number in 0..sessions {
        let pair = Pair::through(&listeners[number % 2]);
        pair.exchange(number % 5 * 1000, number % 3 * 1000);
        match number % 4 {
            0 => reset_in_order(pair.client, pair.server),
            1 => close_in_order(pair.server, pair.client),
            _ => close_in_order(pair.client, pair.server),
        }
    }
}

/// kB
fn memory(pid: libc::pid_t, field: &str) -> u64 {
    status_field(&status(pid), field, 10)
}

fn descriptors(pid: libc::pid_t) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn soak_grows_neither_memory_nor_maps_nor_descriptors() {
    const WARM_UP: usize = 500;
    const MAY_GROW_KB: u64 = 1024;
    let netns = Netns::enter_new();
    let mut trace = Trace::only(&netns, &["--json"]);
    let objects = Objects::of(trace.pid());
    traffic(WARM_UP);
    trace.wait_rows(2 * WARM_UP);
    let before = (memory(trace.pid(), "VmRSS"), descriptors(trace.pid()));
    let sessions = 2000 * scale();
    traffic(sessions);
    // Two a session, had they stayed.
    objects.wait_entries_below("CONNS", sessions);
    let after = (memory(trace.pid(), "VmRSS"), descriptors(trace.pid()));
    assert!(
        after.0 <= before.0 + MAY_GROW_KB,
        "kB: {before:?} {after:?}"
    );
    assert_eq!(after.1, before.1);
    let peak = memory(trace.pid(), "VmHWM");
    let ended = trace.interrupt();
    ended.assert_clean();
    let missing = 2 * (WARM_UP + sessions) - ended.row_count();
    let missed = ended.missed();
    assert!(missing <= missed, "{missing} rows are missing");
    // Not by the macro: the test's harness would keep it to itself.
    let _ = writeln!(
        io::stderr(),
        "soak: {sessions} sessions, {missing} rows missing of {missed} that are told; \
         (kB, descriptors) {before:?} to {after:?}, peak {peak} kB"
    );
}

#[test]
fn stopped_tool_loses_nothing_that_the_ring_holds() {
    let netns = Netns::enter_new();
    let trace = Trace::only(&netns, &["--json", "--strict"]);
    trace.freeze();
    let listener = sock::listen(V4, 1).unwrap();
    let rows: Vec<Row> = (0..1000)
        .flat_map(|_| Pair::through(&listener).close())
        .collect();
    trace.signal(libc::SIGCONT);
    trace.expect(&rows);
}

#[test]
fn slow_pipe_loses_as_many_as_it_says() {
    const PAGE: libc::c_int = 4096;
    const SESSIONS: usize = 1000;
    let netns = Netns::enter_new();
    let (mut reader, writer) = pipe().unwrap();
    // SAFETY: no memory is involved.
    let size = unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETPIPE_SZ, PAGE) };
    assert_eq!(size, PAGE);
    let inode = netns.inode.to_string();
    let args = ["--json", "--netns", &inode, "--buffer-size", "4096"];
    let trace = Trace::prepared("tcplife", &netns, &args, |command| {
        command.stdout(writer);
    });
    // Nobody reads, until the pipe is full, and then the ring.
    traffic(SESSIONS);
    trace.signal(libc::SIGINT);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let ended = trace.wait_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines: Vec<_> = text.lines().map(check_line).collect();
    let rows = lines.iter().filter(|line| line["event"] == "tcplife");
    let lost = lines.iter().rfind(|line| line["event"] == "lost");
    let lost = lost.expect("a `lost` line");
    assert_eq!(
        rows.count() as u64 + lost["ring_full"].as_u64().unwrap(),
        2 * SESSIONS as u64,
        "{lost}"
    );
}

/// A file on a file system of 64 kB that nobody else sees.
fn file_on_small_disk() -> io::Result<File> {
    const FSCONFIG_SET_STRING: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    let owned = |fd: libc::c_long| {
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
    };
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: literal C strings and descriptors that live until after the calls.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0))?;
        let fd = context.as_raw_fd();
        let (key, value) = (c"size".as_ptr(), c"64k".as_ptr());
        libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_SET_STRING, key, value, 0);
        libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0);
        let mount = owned(libc::syscall(libc::SYS_fsmount, fd, 0, 0))?;
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC;
        let file = libc::openat(mount.as_raw_fd(), c"out".as_ptr(), flags, 0o600);
        Ok(owned(file.into())?.into())
    }
}

#[test]
fn full_disk_is_a_clear_error() {
    let netns = Netns::enter_new();
    let file = file_on_small_disk().unwrap();
    let inode = netns.inode.to_string();
    let args = ["--json", "--netns", &inode];
    let trace = Trace::prepared("tcplife", &netns, &args, |command| {
        command.stdout(file);
    });
    let objects = Objects::of(trace.pid());
    // Some 500 bytes a row.
    traffic(500);
    let ended = trace.wait_end();
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.stderr,
        "tcp-tools: cannot write to standard output: No space left on device (os error 28)\n"
    );
    objects.wait_gone();
}

/// A thousandth of a million sockets, and half as many again.
#[test]
fn sockets_beyond_the_bound_are_reported_and_told() {
    const BOUND: usize = 1000;
    const SESSIONS: usize = BOUND * 3 / 4;
    const MOST_KB: u64 = 32 << 10;
    let netns = Netns::enter_new();
    let bound = BOUND.to_string();
    let mut trace = Trace::only(&netns, &["--json", "--max-sockets", &bound]);
    let objects = Objects::of(trace.pid());
    let listener = sock::listen(V4, 1).unwrap();
    let pairs: Vec<_> = (0..SESSIONS).map(|_| Pair::through(&listener)).collect();
    let remembered = objects.entries("CONNS");
    assert!(remembered <= BOUND, "{remembered}");
    for pair in pairs {
        close_in_order(pair.client, pair.server);
    }
    trace.wait_rows(2 * SESSIONS);
    let peak = memory(trace.pid(), "VmHWM");
    assert!(peak < MOST_KB, "{peak} kB");
    let ended = trace.interrupt();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lost = ended.lost().expect("a `lost` line");
    assert_eq!(ended.rows().len(), 2 * SESSIONS, "{lost}");
    let refused = lost["map_full"].as_u64().unwrap();
    assert!(refused as usize >= 2 * SESSIONS - BOUND, "{lost}");
    assert!(ended.stderr.contains("a larger --max-sockets helps"));
}
