//! What each filter lets through, and that it lets nothing else through.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, V4};
use tcp_tools_tests::trace::Trace;

/// One session to each of these, and one of IPv4 to an IPv6 socket at the last.
const TARGETS: [SocketAddr; 6] = [
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7001),
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7002),
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7003),
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7004),
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 7001),
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 7005),
];

/// Of the rows of all sessions, those that `pass` come.
fn check(args: &[&str], pass: impl Fn(&Row) -> bool) {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, args);
    let sessions = TARGETS.map(|target| {
        let listener = sock::listen(target, 1).unwrap();
        let mut address = target;
        if target.ip().is_unspecified() {
            address.set_ip(V4.ip());
        }
        let client = sock::connect(address).unwrap();
        Pair {
            client,
            server: sock::accept(&listener).unwrap(),
        }
        .close()
    });
    let rows: Vec<Row> = sessions.into_iter().flatten().filter(pass).collect();
    assert!(!rows.is_empty());
    trace.expect(&rows);
}

#[test]
fn local_ports() {
    check(&["-L", "7001"], |row| row.number("lport") == 7001);
    check(&["--local-port", "7001,7003"], |row| {
        [7001, 7003].contains(&row.number("lport"))
    });
    check(&["-L", "7002-7004"], |row| {
        (7002..=7004).contains(&row.number("lport"))
    });
}

#[test]
fn remote_ports() {
    check(&["-D", "7002"], |row| row.number("rport") == 7002);
    check(&["--remote-port", "7001-7002,7005"], |row| {
        [7001, 7002, 7005].contains(&row.number("rport"))
    });
}

#[test]
fn ip_version() {
    check(&["-4"], |row| row.number("ip") == 4);
    check(&["-6"], |row| row.number("ip") == 6);
}

#[test]
fn filters_hold_together() {
    check(&["-6", "-L", "7001"], |row| {
        row.number("ip") == 6 && row.number("lport") == 7001
    });
    check(
        &[
            "-4",
            "-D",
            "7001-7002",
            "--pid",
            &std::process::id().to_string(),
        ],
        |row| row.number("ip") == 4 && row.number("rport") <= 7002,
    );
}

#[test]
fn processes() {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let address = sock::local(&listener).unwrap();
    let mut actors = ["first", "second", "third"].map(Actor::start);
    // One session that is older than the trace, of a process that passes.
    let old = actors[0].connect("old", address);
    let old_server = sock::accept(&listener).unwrap();
    let pids = format!("{},{}", actors[0].process().pid, actors[2].process().pid);
    let trace = Trace::json(&netns, &["-p", &pids]);
    let mut rows = vec![
        Row::client(old)
            .of(&actors[0].process())
            .seeded(0, 0)
            .close("fin", "local"),
    ];
    actors[0].ask("close old");
    sock::drain(&old_server).unwrap();
    for (index, actor) in actors.iter_mut().enumerate() {
        let at_client = actor.connect("c", address);
        let server = sock::accept(&listener).unwrap();
        actor.ask("close c");
        sock::drain(&server).unwrap();
        if index != 1 {
            rows.push(
                Row::client(at_client)
                    .of(&actor.process())
                    .close("fin", "local"),
            );
        }
    }
    trace.expect(&rows);
}

#[test]
fn process_of_an_accepted_session() {
    let netns = Netns::enter_new();
    let mut server = Actor::start("server");
    let address = server.listen("l", V4);
    let trace = Trace::json(&netns, &["--pid", &server.process().pid.to_string()]);
    let client = sock::connect(address).unwrap();
    let at_server = server.accept("l", "s");
    server.ask("close s");
    sock::drain(&client).unwrap();
    drop(client);
    trace.expect(&[Row::server(at_server)
        .of(&server.process())
        .close("fin", "local")]);
}

#[test]
fn network_namespace_by_inode_path_or_process() {
    let netns = Netns::enter_new();
    let (other, mut actor) = Netns::elsewhere(|| Actor::start("elsewhere"));
    let pid = actor.process().pid.to_string();
    for name in [other.inode.to_string(), format!("/proc/{pid}/ns/net"), pid] {
        let mut trace = Trace::json(&netns, &["--netns", &name]);
        trace.watch(&other);
        Pair::open(V4).close();
        let rows = actor.talk_to_itself();
        trace.wait_rows(2);
        let ended = trace.interrupt();
        ended.assert_rows(&rows);
        assert_eq!(
            ended.lines.len() - ended.events("lost").len(),
            2,
            "other namespaces got through --netns {name}"
        );
    }
}
