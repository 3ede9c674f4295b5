//! `tcpconnect --latency`: what ended the attempts that made no connection.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use socket2::Socket;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::icmp::{self, Router, Unreachable};
use tcp_tools_tests::netns::{Netns, client_ends, one_client_port, set_ipv4};
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, Ends, V4, V6};
use tcp_tools_tests::trace::Trace;
use tcp_tools_tests::{PATIENCE, skip};

fn trace(args: &[&str]) -> (Netns, Trace) {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, args);
    (netns, trace)
}

/// A listener that drops each SYN.
fn deaf_listener(at: SocketAddr) -> (Socket, SocketAddr) {
    let listener = sock::listen(at, 16).unwrap();
    sock::deafen(&listener).unwrap();
    let address = sock::local(&listener).unwrap();
    (listener, address)
}

/// The same, in a namespace that has a single port left for clients.
fn deaf_peer(at: SocketAddr) -> (Socket, SocketAddr) {
    let peer = deaf_listener(at);
    one_client_port();
    peer
}

/// A port without a listener, as long as the socket lives.
fn closed_port() -> (Socket, SocketAddr) {
    let holder = sock::tcp(V4).unwrap();
    holder.bind(&V4.into()).unwrap();
    let address = sock::local(&holder).unwrap();
    (holder, address)
}

/// The row of an attempt that goes on. What another test starts may hold the socket, and its port, for a moment after it
/// is closed here: so each has a port of its own.
fn row_of(socket: &Socket, remote: SocketAddr) -> Row {
    let local = sock::local(socket).unwrap();
    Row::connect(Ends { local, remote })
}

fn assert_in_progress(socket: &Socket, address: SocketAddr, expected: libc::c_int) {
    let error = socket.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(expected));
}

#[test]
fn router_answers_each_code_of_each_family() {
    for at in [V4, V6] {
        for why in Unreachable::ALL {
            let (_netns, trace) = trace(&["--latency"]);
            let (_listener, address) = deaf_peer(at);
            let router = Router::of(at).unwrap();
            let _socket = sock::start_connect(address).unwrap();
            router.refuse_first_with(why).unwrap();
            let error = match (why, at.is_ipv6()) {
                (Unreachable::Net, _) => "ENETUNREACH",
                (Unreachable::Host, _) | (Unreachable::Prohibited, false) => "EHOSTUNREACH",
                (Unreachable::Prohibited, true) => "EACCES",
                (Unreachable::Port, _) => "ECONNREFUSED",
            };
            trace.expect(&[Row::connect(client_ends(address)).failed("icmp", error)]);
        }
    }
}

#[test]
fn router_answers_a_call_that_waits() {
    let (_netns, trace) = trace(&["--latency"]);
    let (_listener, address) = deaf_peer(V4);
    let router = Router::new().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| router.refuse_first().unwrap());
        let error = sock::connect(address).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    });
    trace.expect(&[Row::connect(client_ends(address)).failed("icmp", "EHOSTUNREACH")]);
}

#[test]
fn port_unreachable_after_a_reset_on_the_same_socket() {
    let (_netns, trace) = trace(&["--latency"]);
    let (_holder, closed) = closed_port();
    let (_listener, deaf) = deaf_peer(V4);
    let socket = sock::tcp(V4).unwrap();
    assert_in_progress(&socket, closed, libc::ECONNREFUSED);
    let router = Router::new().unwrap();
    socket.set_nonblocking(true).unwrap();
    assert_in_progress(&socket, deaf, libc::EINPROGRESS);
    router.refuse_first_with(Unreachable::Port).unwrap();
    trace.expect(&[
        Row::connect(client_ends(closed)).failed("rst", "ECONNREFUSED"),
        Row::connect(client_ends(deaf)).failed("icmp", "ECONNREFUSED"),
    ]);
}

/// Has the firewall of this namespace answer each SYN to `port` with an ICMP error; false without one.
fn reject(port: u16) -> bool {
    let rules = format!(
        "table inet t {{ chain input {{ type filter hook input priority 0; \
         tcp dport {port} reject with icmpx admin-prohibited; }}; }}"
    );
    let done = Command::new("nft").arg(rules).status();
    done.is_ok_and(|status| status.success())
}

/// Tries until the answer came while connect() had the socket locked, so that the kernel has only noted it: a softirq
/// may put it off. What the socket says itself decides.
fn firewall_answers_in_time(looks: bool) {
    let (_netns, trace) = trace(&["--failed"]);
    let (_listener, address) = deaf_listener(V4);
    if !reject(address.port()) {
        return skip("nft");
    }
    let deadline = Instant::now() + PATIENCE;
    let mut rows = Vec::new();
    let mut was_noted = false;
    while !was_noted {
        assert!(Instant::now() < deadline, "never while it was locked");
        let socket = sock::tcp(V4).unwrap();
        icmp::queue_errors(&socket).unwrap();
        socket.set_nonblocking(true).unwrap();
        // The error itself, if it came in time.
        socket.connect(&address.into()).unwrap_err();
        icmp::wait_error(&socket).unwrap();
        was_noted = sock::is_connecting(&socket).unwrap();
        if was_noted && looks {
            let error = socket.take_error().unwrap().unwrap();
            assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
        }
        // The address is forgotten as well, on newer kernels.
        let row = row_of(&socket, address).with("laddr", "127.0.0.1");
        rows.push(if was_noted {
            row.aborted("closed").error("EHOSTUNREACH")
        } else {
            // It has forgotten its port.
            row.with("lport", ()).failed("icmp", "EHOSTUNREACH")
        });
    }
    trace.expect(&rows);
}

#[test]
fn firewall_answers_while_the_call_has_the_socket_locked() {
    firewall_answers_in_time(false);
}

/// SO_ERROR clears the error, and programs that poll look there before they close the socket.
#[test]
fn firewall_answers_and_the_program_reads_the_error() {
    firewall_answers_in_time(true);
}

#[test]
fn caller_waits_no_longer_than_it_has_said() {
    let soon = Some(Duration::from_millis(50));
    let (_netns, trace) = trace(&["--failed"]);
    let (_listener, address) = deaf_listener(V4);
    let waits = sock::tcp(V4).unwrap();
    waits.set_write_timeout(soon).unwrap();
    assert_in_progress(&waits, address, libc::EINPROGRESS);
    // Only the second call waits.
    let waits_later = sock::start_connect(address).unwrap();
    waits_later.set_write_timeout(soon).unwrap();
    waits_later.set_nonblocking(false).unwrap();
    assert_in_progress(&waits_later, address, libc::EALREADY);
    // It could wait, and does not.
    let never_waits = sock::tcp(V4).unwrap();
    never_waits.set_write_timeout(soon).unwrap();
    never_waits.set_nonblocking(true).unwrap();
    assert_in_progress(&never_waits, address, libc::EINPROGRESS);
    let rows = [
        row_of(&waits, address).aborted("caller_timeout"),
        row_of(&waits_later, address).aborted("caller_timeout"),
        row_of(&never_waits, address).aborted("closed"),
    ];
    drop((waits, waits_later, never_waits));
    trace.expect(&rows);
}

#[test]
fn connection_after_the_caller_has_stopped_waiting() {
    let netns = Netns::enter_new();
    let trace = Trace::view("tcpconnect", &netns, &["--latency"]);
    let (listener, address) = deaf_listener(V4);
    let client = sock::tcp(V4).unwrap();
    client
        .set_write_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert_in_progress(&client, address, libc::EINPROGRESS);
    listener.detach_filter().unwrap();
    let server = sock::accept(&listener).unwrap();
    let at_client = Ends::of(&server).unwrap().swapped();
    trace.expect(&[Row::connect(at_client).established()]);
}

#[test]
fn socket_is_closed_before_there_was_an_answer() {
    for args in [&["--latency"][..], &["--failed"]] {
        let (_netns, trace) = trace(args);
        let (_listener, address) = deaf_peer(V4);
        drop(sock::start_connect(address).unwrap());
        trace.expect(&[Row::connect(client_ends(address)).aborted("closed")]);
    }
}

#[test]
fn process_ends_before_there_was_an_answer() {
    let (_netns, trace) = trace(&["--latency"]);
    let (_listener, address) = deaf_peer(V4);
    let mut leaver = Actor::start("leaver");
    let left = leaver.process();
    leaver.start_connect("c", address);
    leaver.exit();
    let mut killed = Actor::start("killed");
    let victim = killed.process();
    killed.tell(&format!("connect c {address}"));
    killed.wait_blocked_in(libc::SYS_connect);
    killed.kill();
    trace.expect(&[left, victim].map(|process| {
        let row = Row::connect(client_ends(address)).of(&process);
        row.aborted("exited")
    }));
}

#[test]
fn kernel_gives_up_after_the_syns_that_it_says() {
    let (_netns, mut trace) = trace(&["--failed"]);
    set_ipv4("tcp_syn_retries", "1");
    // Since Linux 6.5 so many more.
    let _ = fs::write("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", "0");
    let (_listener, address) = deaf_peer(V4);
    let error = sock::connect(address).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    trace.wait_rows(1);
    let ended = trace.interrupt();
    ended.assert_rows(&[Row::connect(client_ends(address)).failed("timeout", "ETIMEDOUT")]);
    assert_eq!(ended.rows()[0]["syn_retransmits"], 1);
}

#[test]
fn table_shows_what_ended_it_and_how_many_syns_were_sent_again() {
    let netns = Netns::enter_new();
    let mut trace = Trace::text("tcpconnect", &netns, &["--failed"]);
    let (_listener, address) = deaf_listener(V4);
    let patient = sock::start_connect(address).unwrap();
    drop(sock::start_connect(address).unwrap());
    let hasty = sock::tcp(V4).unwrap();
    hasty
        .set_write_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    assert_in_progress(&hasty, address, libc::EINPROGRESS);
    drop(hasty);
    let sent_again = sock::wait_retransmits(&patient, 1).unwrap();
    drop(patient);
    trace.wait_lines(4);
    let ended = trace.interrupt();
    ended.assert_clean();
    let lines: Vec<Vec<&str>> = ended
        .lines
        .iter()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let header = "PID COMM IP SADDR DADDR DPORT MS RESULT RETRANS";
    assert_eq!(lines[0].join(" "), header);
    let results: Vec<_> = lines.iter().map(|cells| cells[7]).collect();
    assert_eq!(results, ["RESULT", "closed", "caller_timeout", "closed"]);
    let retrans: u32 = lines[3][8].parse().unwrap();
    assert!(retrans >= sent_again, "{:#?}", ended.lines);
}
