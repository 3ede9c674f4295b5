//! `sockets`: whose they are, and the filters.

use std::fs;

use serde_json::Value;
use tcp_tools_tests::actor::Actor;
use tcp_tools_tests::cgroup::Cgroup;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::proc_net::Entry;
use tcp_tools_tests::skip;
use tcp_tools_tests::snapshot::{entries, lines, row_of, with_truth};
use tcp_tools_tests::sock::{self, DUAL, Ends, V4, V6};
use tcp_tools_tests::states::Every;

/// The rows of the sockets that `ends` are of.
fn row_of_ends(rows: &[Value], ends: Ends) -> Option<&Value> {
    let (local, remote) = (ends.local.port(), ends.remote.port());
    rows.iter()
        .find(|row| row["lport"] == local && row["rport"] == remote)
}

#[test]
fn owner_is_the_process_that_holds_the_socket() {
    let netns = Netns::enter_new();
    let mut server = Actor::start("the server");
    let mut client = Actor::start("the client");
    client.set_uid(65_534);
    let address = server.listen("l", V4);
    let at_client = client.connect("c", address);
    let waiting = client.connect("waiting", address);
    let at_server = server.accept("l", "s");
    let rows = lines(&netns, &[]);
    assert_eq!(rows.len(), 5);
    for (ends, owner) in [
        (at_client, client.process()),
        (at_server, server.process()),
        (waiting, client.process()),
    ] {
        let row = row_of_ends(&rows, ends).unwrap();
        let known = ["pid", "comm", "uid", "owner", "others"].map(|field| row[field].clone());
        let expected: [Value; 5] = [
            owner.pid.into(),
            owner.comm.into(),
            if owner.pid == client.process().pid {
                65_534
            } else {
                0
            }
            .into(),
            "fd".into(),
            0.into(),
        ];
        assert_eq!(known, expected, "{row}");
        let fd = format!("/proc/{}/fd/{}", owner.pid, row["fd"]);
        let link = fs::read_link(fd).unwrap();
        let inode = format!("socket:[{}]", row["inode"]);
        assert_eq!(link.to_str(), Some(inode.as_str()), "{row}");
    }
    let accepted_by_nobody = row_of_ends(&rows, waiting.swapped()).unwrap();
    assert_eq!(accepted_by_nobody["owner"], "none");
}

#[test]
fn several_holders_are_counted_and_the_oldest_is_shown() {
    let netns = Netns::enter_new();
    let mut maker = Actor::start("maker");
    let at_client = maker.open();
    let mut actors = ["first", "second", "third"].map(Actor::start);
    for actor in &mut actors {
        maker.share("s", actor, "s");
        // Two descriptors of one process are one holder.
        maker.share("s", actor, "again");
    }
    let rows = lines(&netns, &[]);
    let row = row_of_ends(&rows, at_client.swapped()).unwrap();
    assert_eq!(row["pid"], maker.process().pid, "{row}");
    assert_eq!(row["others"], 3, "{row}");
    assert_eq!(row_of_ends(&rows, at_client).unwrap()["others"], 0);
    // A filter by process is for any holder, and then that is shown.
    let second = actors[1].process().pid;
    let rows = lines(&netns, &["-p", &second.to_string()]);
    assert_eq!(rows.len(), 1);
    let row = row_of_ends(&rows, at_client.swapped()).unwrap();
    assert_eq!(
        (&row["pid"], &row["comm"]),
        (&second.into(), &"second".into())
    );
    assert_eq!(row["others"], 3, "{row}");
    // The one that made it goes.
    maker.ask("close s");
    let rows = lines(&netns, &[]);
    let row = row_of_ends(&rows, at_client.swapped()).unwrap();
    assert_eq!(row["pid"], actors[0].process().pid, "{row}");
    assert_eq!(row["others"], 2, "{row}");
}

#[test]
fn child_holds_what_it_has_inherited() {
    let netns = Netns::enter_new();
    let mut parent = Actor::start("parent");
    let address = parent.listen("l", V4);
    let client = sock::connect(address).unwrap();
    let at_server = parent.accept("l", "s");
    parent.tell("fork comm child; send s 1; recv s 1");
    // Now it is there, and stays until it is sent something.
    sock::recv(&client, 1).unwrap();
    let rows = lines(&netns, &[]);
    let row = row_of_ends(&rows, at_server).unwrap();
    assert_eq!(row["pid"], parent.process().pid, "{row}");
    assert_eq!(row["others"], 1, "{row}");
    let rows = lines(&netns, &["--comm", "chil?", "--state", "established"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["comm"], "child");
    sock::send(&client, 1).unwrap();
    parent.answer();
    let rows = lines(&netns, &[]);
    assert_eq!(row_of_ends(&rows, at_server).unwrap()["others"], 0);
}

#[test]
fn sockets_of_every_namespace_are_shown() {
    let here = Netns::enter_new();
    let pair = Pair::open(V4);
    let (there, (mut actor, ends)) = Netns::elsewhere(|| {
        let mut actor = Actor::start("elsewhere");
        let address = actor.listen("l", V6);
        let ends = actor.connect("c", address);
        (actor, ends)
    });
    let text = tcp_tools_tests::snapshot::text(&["--json"]);
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |netns: &Netns| -> Vec<Value> {
        let rows = rows.iter().filter(|row| row["netns"] == netns.inode);
        rows.cloned().collect()
    };
    assert_eq!(of(&here).len(), 2);
    assert_eq!(row_of(&of(&here), &pair.client)["pid"], std::process::id());
    assert_eq!(of(&there).len(), 3);
    let row = of(&there);
    let row = row_of_ends(&row, ends).unwrap();
    assert_eq!(row["pid"], actor.process().pid, "{row}");
    // The other namespace is known by one of its processes, too.
    let pid = actor.process().pid.to_string();
    let text = tcp_tools_tests::snapshot::text(&["--json", "--netns", &pid]);
    assert_eq!(text.lines().count(), 3);
    actor.ask("close c");
}

/// Of the sockets that there are, those that `pass` come with `args`.
fn check(netns: &Netns, args: &[&str], pass: impl Fn(&Entry) -> bool) {
    let (rows, truth) = with_truth(|| lines(netns, args));
    let expected: Vec<Entry> = truth.into_iter().map(|line| line.entry).collect();
    let expected: Vec<Entry> = expected.into_iter().filter(pass).collect();
    assert!(!expected.is_empty(), "{args:?}");
    assert_eq!(entries(&rows), expected, "{args:?}");
}

#[test]
fn filters_by_state() {
    let netns = Netns::enter_new();
    let _every = Every::new(V4);
    for (name, state) in [
        // This goes away by itself.
        ("time-wait", "TIME_WAIT"),
        ("established", "ESTABLISHED"),
        ("SYN-SENT", "SYN_SENT"),
        ("syn_recv", "SYN_RECV"),
        ("fin-wait-1", "FIN_WAIT1"),
        ("FIN_WAIT2", "FIN_WAIT2"),
        ("close-wait", "CLOSE_WAIT"),
        ("last-ack", "LAST_ACK"),
        ("listening", "LISTEN"),
        ("closing", "CLOSING"),
    ] {
        check(&netns, &["--state", name], |it| it.state == state);
    }
    check(&netns, &["--state", "estab,LISTEN"], |it| {
        ["ESTABLISHED", "LISTEN"].contains(&it.state.as_str())
    });
    check(&netns, &["--listening"], |it| it.state == "LISTEN");
    assert!(lines(&netns, &["--state", "closed"]).is_empty());
}

#[test]
fn filters_by_port_and_address() {
    let netns = Netns::enter_new();
    let listeners = [V4, V6, DUAL].map(|address| sock::listen(address, 4).unwrap());
    let addresses = listeners.each_ref().map(|it| sock::local(it).unwrap());
    let [first, second, last] = addresses.map(|it| it.port());
    let _pairs = listeners.each_ref().map(|listener| {
        let mut address = sock::local(listener).unwrap();
        if address.ip().is_unspecified() {
            address.set_ip(V4.ip());
        }
        let client = sock::connect(address).unwrap();
        (client, sock::accept(listener).unwrap())
    });
    let port = first.to_string();
    check(&netns, &["--local-port", &port], |it| it.lport == first);
    check(&netns, &["--remote-port", &port], |it| {
        it.rport == Some(first)
    });
    let list = format!("{first},{last}");
    check(&netns, &["--local-port", &list], |it| {
        [first, last].contains(&it.lport)
    });
    let range = format!("{0}-{0}", second);
    check(&netns, &["--remote-port", &range], |it| {
        it.rport == Some(second)
    });
    check(&netns, &["--local", "127.0.0.0/8"], |it| it.laddr.is_ipv4());
    check(&netns, &["--local", "::1"], |it| it.laddr == V6.ip());
    check(&netns, &["--remote", "127.0.0.1"], |it| {
        it.raddr == Some(V4.ip())
    });
    check(&netns, &["-6"], |it| it.laddr.is_ipv6());
    check(&netns, &["-4"], |it| it.laddr.is_ipv4());
    check(&netns, &["-6", "-l"], |it| {
        it.state == "LISTEN" && it.laddr.is_ipv6()
    });
    check(
        &netns,
        &["-4", "--state", "established", "--remote-port", &port],
        |it| it.rport == Some(first),
    );
}

#[test]
fn listener_on_a_mapped_address_is_ipv4() {
    let netns = Netns::enter_new();
    let address = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let mapped = sock::listen((address, 0).into(), 1).unwrap();
    let any = sock::listen(DUAL, 1).unwrap();
    let rows = lines(&netns, &["-4"]);
    assert_eq!(rows.len(), 1);
    let row = row_of(&rows, &mapped);
    let shown = (&row["ip"], &row["laddr"], &row["mapped"]);
    assert_eq!(shown, (&4.into(), &"127.0.0.1".into(), &true.into()));
    let rows = lines(&netns, &["-6"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(row_of(&rows, &any)["laddr"], "::");
}

/// Two actors that listen; of the one that `args` ask for the socket is shown, and not of the other.
fn check_process(args: impl Fn(&Actor) -> Vec<String>, prepare: impl FnOnce(&mut Actor)) {
    let netns = Netns::enter_new();
    let mut wanted = Actor::start("wanted");
    let mut other = Actor::start("other");
    prepare(&mut wanted);
    wanted.listen("l", V4);
    other.listen("l", V4);
    // Of one, that waits to be accepted, nobody holds the other end.
    let listener = sock::listen(V4, 1).unwrap();
    let _client = sock::connect(sock::local(&listener).unwrap()).unwrap();
    assert_eq!(lines(&netns, &[]).len(), 5);
    let args = args(&wanted);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let rows = lines(&netns, &args);
    assert_eq!(rows.len(), 1, "{args:?}: {rows:#?}");
    assert_eq!(rows[0]["pid"], wanted.process().pid, "{args:?}");
}

#[test]
fn filters_by_process() {
    let pid = |actor: &Actor| actor.process().pid.to_string();
    check_process(|actor| vec!["--pid".into(), pid(actor)], |_| {});
    check_process(|_| vec!["--comm".into(), "want*".into()], |_| {});
    check_process(
        |_| vec!["--uid".into(), "61300".into()],
        |actor| actor.set_uid(61_300),
    );
    check_process(
        |actor| vec!["-p".into(), pid(actor), "--comm".into(), "wanted".into()],
        |_| {},
    );
}

#[test]
fn filters_by_cgroup_and_container() {
    let Some(cgroup) = Cgroup::new() else {
        return skip("cgroup2");
    };
    let take = |actor: &mut Actor| cgroup.take(actor.process().pid);
    let path = cgroup.path.to_str().unwrap();
    check_process(|_| vec!["--cgroup".into(), path.into()], take);
    check_process(|_| vec!["--cgroup".into(), cgroup.id().to_string()], take);
    let id = format!("{:064x}", u128::from(std::process::id()) << 64 | 0x5eed);
    let id: String = id.chars().rev().collect();
    let container = cgroup.child(&format!("docker-{id}.scope"));
    let take = |actor: &mut Actor| container.take(actor.process().pid);
    check_process(|_| vec!["--container".into(), id.clone()], take);
}
