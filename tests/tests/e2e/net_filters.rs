//! Filters by addresses, ports and namespaces: what they let through in each view, and that what they
//! keep out never gets into the ring.

use std::net::{IpAddr, SocketAddr};

use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::row::{Row, this_process};
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::Trace;
use tcp_tools_tests::views::{End, Views, ring};

/// One session to each. The last is IPv4 between sockets of IPv6.
const TARGETS: [&str; 6] = [
    "127.0.0.1:6101",
    "127.0.0.1:6102",
    "127.7.0.1:6103",
    "127.7.1.1:6104",
    "[::1]:6101",
    "[::ffff:127.7.0.1]:6105",
];

/// A session of this process with itself.
fn session(target: &str) -> [End; 2] {
    let target: SocketAddr = target.parse().unwrap();
    let listener = sock::listen(target, 1).unwrap();
    let client = sock::connect(target).unwrap();
    let server = sock::accept(&listener).unwrap();
    let at_client = Ends::of(&client).unwrap();
    drop(client);
    sock::drain(&server).unwrap();
    let me = this_process();
    End::both(at_client, &me, &me)
}

/// Of the ends of all sessions, those that `pass` come; also if nothing but the filter keeps others out.
fn check(args: &[&str], pass: impl Fn(&End) -> bool) {
    let netns = Netns::enter_new();
    let alone = ["tcpconnect", "tcplife"].map(|view| Trace::everywhere(view, &netns, args));
    let inode = netns.inode.to_string();
    let views = Views::start(&netns, &[&["--netns", &inode], args].concat());
    let all: Vec<End> = TARGETS.into_iter().flat_map(session).collect();
    assert!(all.iter().any(&pass) && !all.iter().all(&pass));
    for (trace, view) in alone.into_iter().zip(["tcpconnect", "tcplife"]) {
        let passing = all.iter().filter(|end| pass(end));
        trace.expect(
            &passing
                .filter_map(|end| end.row(view))
                .collect::<Vec<Row>>(),
        );
    }
    views.expect(&all, pass);
}

fn lport(end: &End) -> u16 {
    end.ends.local.port()
}

fn rport(end: &End) -> u16 {
    end.ends.remote.port()
}

fn laddr(end: &End) -> IpAddr {
    end.ends.local.ip().to_canonical()
}

fn raddr(end: &End) -> IpAddr {
    end.ends.remote.ip().to_canonical()
}

fn is_within(address: IpAddr, prefix: &[u8]) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets().starts_with(prefix))
}

#[test]
fn local_ports() {
    check(&["--local-port", "6101"], |end| lport(end) == 6101);
    check(&["--local-port", "6101,6103-6104"], |end| {
        [6101, 6103, 6104].contains(&lport(end))
    });
}

#[test]
fn remote_ports() {
    check(&["--remote-port", "6102"], |end| rport(end) == 6102);
    check(&["--remote-port", "6101-6103,6105"], |end| {
        [6101, 6102, 6103, 6105].contains(&rport(end))
    });
}

#[test]
fn ip_version_as_it_is_shown() {
    check(&["--ipv4"], |end| laddr(end).is_ipv4());
    check(&["--ipv6"], |end| laddr(end).is_ipv6());
}

#[test]
fn local_networks() {
    check(&["--local", "127.7.0.0/16"], |end| {
        is_within(laddr(end), &[127, 7])
    });
    check(&["--local", "::1/128"], |end| laddr(end).is_ipv6());
}

#[test]
fn remote_networks() {
    check(&["--remote", "127.7.0.1"], |end| {
        is_within(raddr(end), &[127, 7, 0, 1])
    });
    check(&["--remote", "127.7.1.0/24,::1/127"], |end| {
        is_within(raddr(end), &[127, 7, 1]) || raddr(end).is_ipv6()
    });
}

#[test]
fn filters_hold_together() {
    check(&["-6", "--remote-port", "6101"], |end| {
        raddr(end).is_ipv6() && rport(end) == 6101
    });
    check(
        &["--remote", "127.7.0.0/16", "--remote-port", "6104-6105"],
        |end| is_within(raddr(end), &[127, 7]) && rport(end) >= 6104,
    );
    let pid = std::process::id().to_string();
    check(&["-p", &pid, "-4", "--local-port", "1-6102"], |end| {
        laddr(end).is_ipv4() && lport(end) <= 6102
    });
}

#[test]
fn network_namespace_by_inode_path_or_process() {
    let netns = Netns::enter_new();
    let (other, mut actor) = Netns::elsewhere(|| Actor::start("elsewhere"));
    let pid = actor.process().pid.to_string();
    for name in [other.inode.to_string(), format!("/proc/{pid}/ns/net"), pid] {
        let views = Views::start(&other, &["--netns", &name]);
        let mut all = session("127.0.0.1:6106").to_vec();
        all.extend(actor.session());
        let elsewhere = actor.process().pid;
        views.expect(&all, |end| end.owner.pid == elsewhere);
    }
    drop(netns);
}

#[test]
fn retransmits_to_a_remote_port() {
    let netns = Netns::enter_new();
    let listeners = [V4, V4].map(|address| sock::listen(address, 1).unwrap());
    let addresses = listeners.each_ref().map(|it| sock::local(it).unwrap());
    for listener in &listeners {
        sock::deafen(listener).unwrap();
    }
    let port = addresses[0].port().to_string();
    let mut all = Trace::view("tcpretrans", &netns, &[]);
    let args = ["-v", "--remote-port", &port, "--remote", "127.0.0.0/8"];
    let mut trace = Trace::view("tcpretrans", &netns, &args);
    let _clients = addresses.map(|address| sock::start_connect(address).unwrap());
    all.wait_rows(2);
    trace.wait_rows(1);
    let ended = trace.interrupt();
    let rows = ended.rows();
    assert!(
        rows.iter().all(|row| row["rport"] == addresses[0].port()),
        "{rows:#?}"
    );
    let (submitted, kept_out) = ring(&ended.stderr);
    assert_eq!(submitted, rows.len(), "{}", ended.stderr);
    assert!(kept_out >= 1, "{}", ended.stderr);
}
