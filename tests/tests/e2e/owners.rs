//! The owner is the process that connected or accepted, whoever closes and whoever is on the CPU.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

use tcp_tools_tests::actor::{Actor, ends};
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::row::{Process, Row};
use tcp_tools_tests::skip;
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::Trace;

/// A process that listens under the name `listener`.
fn server(comm: &str) -> (Actor, SocketAddr) {
    let mut actor = Actor::start(comm);
    let address = actor.listen("listener", V4);
    (actor, address)
}

#[test]
fn each_end_belongs_to_the_process_that_connected_or_accepted() {
    let netns = Netns::enter_new();
    let (mut server, address) = server("a-server");
    let mut client = Actor::start("a client");
    let trace = Trace::json(&netns, &[]);
    let at_client = client.connect("c", address);
    let at_server = server.accept("listener", "s");
    client.ask("send c 1234");
    server.ask("recv s 1234");
    client.ask("close c");
    server.ask("drain s");
    server.ask("close s");
    trace.expect(&[
        Row::client(at_client)
            .of(&client.process())
            .bytes(1234, 0)
            .close("fin", "local"),
        Row::server(at_server)
            .of(&server.process())
            .bytes(0, 1234)
            .close("fin", "remote"),
    ]);
}

#[test]
fn accept_in_a_forked_child_belongs_to_the_child() {
    let netns = Netns::enter_new();
    let (mut server, address) = server("parent");
    let trace = Trace::json(&netns, &[]);
    let client = sock::connect(address).unwrap();
    let at_client = Ends::of(&client).unwrap();
    sock::send(&client, 10).unwrap();
    let pid = server.ask("fork comm child; accept listener s; recv s 10; close s");
    let child = Process {
        pid: pid.parse().unwrap(),
        comm: "child".into(),
        uid: 0,
    };
    sock::drain(&client).unwrap();
    drop(client);
    trace.expect(&[
        Row::client(at_client).bytes(10, 0).close("fin", "remote"),
        Row::server(at_client.swapped())
            .of(&child)
            .bytes(0, 10)
            .close("fin", "local"),
    ]);
}

#[test]
fn accept_and_connect_in_a_thread_belong_to_the_process_by_its_own_name() {
    let netns = Netns::enter_new();
    let (mut server, address) = server("server");
    let mut client = Actor::start("client");
    let trace = Trace::json(&netns, &[]);
    let at_client = ends(&client.ask(&format!("thread asker connect c {address}")));
    let at_server = ends(&server.ask("thread worker accept listener s"));
    client.ask("thread closer close c");
    server.ask("drain s");
    server.ask("close s");
    trace.expect(&[
        Row::client(at_client)
            .of(&client.process())
            .close("fin", "local"),
        Row::server(at_server)
            .of(&server.process())
            .close("fin", "remote"),
    ]);
}

#[test]
fn session_closed_by_another_thread_belongs_to_the_process_by_its_own_name() {
    let netns = Netns::enter_new();
    let (mut server, address) = server("server");
    let mut client = Actor::start("client");
    let trace = Trace::json(&netns, &[]);
    let at_client = client.connect("c", address);
    let at_server = server.accept("listener", "s");
    client.ask("thread closer close c");
    server.ask("thread closer drain s; close s");
    trace.expect(&[
        Row::client(at_client)
            .of(&client.process())
            .close("fin", "local"),
        Row::server(at_server)
            .of(&server.process())
            .close("fin", "remote"),
    ]);
}

#[test]
fn session_inherited_by_a_child_belongs_to_the_process_that_accepted() {
    let netns = Netns::enter_new();
    let (mut server, address) = server("server");
    let trace = Trace::json(&netns, &[]);
    let client = sock::connect(address).unwrap();
    let at_client = Ends::of(&client).unwrap();
    server.ask("accept listener s");
    server.ask("fork comm child; send s 10; close s");
    sock::recv(&client, 10).unwrap();
    server.ask("close s");
    sock::drain(&client).unwrap();
    drop(client);
    trace.expect(&[
        Row::client(at_client).bytes(0, 10).close("fin", "remote"),
        Row::server(at_client.swapped())
            .of(&server.process())
            .bytes(10, 0)
            .close("fin", "local"),
    ]);
}

#[test]
fn session_that_the_kernel_finishes_belongs_to_the_process_that_has_exited() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    let mut client = Actor::start("short-lived");
    let at_client = client.connect("c", sock::local(&listener).unwrap());
    let server = sock::accept(&listener).unwrap();
    // The peer hears nothing until the process is gone: bytes and FIN are left to the kernel.
    sock::deafen(&server).unwrap();
    client.ask("send c 1000");
    let process = client.process();
    client.exit();
    server.detach_filter().unwrap();
    assert_eq!(sock::drain(&server).unwrap(), 1000);
    drop(server);
    trace.expect(&[
        Row::client(at_client)
            .of(&process)
            .bytes(1000, 0)
            .close("fin", "local"),
        Row::server(at_client.swapped())
            .bytes(0, 1000)
            .close("fin", "remote"),
    ]);
}

#[test]
fn session_that_was_never_accepted_has_no_owner_at_the_server() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    let client = sock::connect(sock::local(&listener).unwrap()).unwrap();
    let at_client = Ends::of(&client).unwrap();
    sock::send(&client, 100).unwrap();
    sock::wait_acked(&client).unwrap();
    drop(listener);
    trace.expect(&[
        Row::client(at_client)
            .bytes(100, 0)
            .close("rst_received", "remote")
            .error("ECONNRESET"),
        Row::server(at_client.swapped())
            .unowned()
            .bytes(0, 100)
            .close("rst_sent", "local"),
    ]);
}

#[test]
fn session_of_another_user_carries_that_uid() {
    let netns = Netns::enter_new();
    let trace = Trace::json(&netns, &[]);
    let listener = sock::listen(V4, 1).unwrap();
    let mut actor = Actor::start("nobody's");
    actor.ask("uid 65534");
    let at_client = actor.connect("c", sock::local(&listener).unwrap());
    let server = sock::accept(&listener).unwrap();
    actor.ask("close c");
    sock::drain(&server).unwrap();
    drop(server);
    let nobody = Process {
        uid: 65534,
        ..actor.process()
    };
    trace.expect(&[
        Row::client(at_client).of(&nobody).close("fin", "local"),
        Row::server(at_client.swapped()).close("fin", "remote"),
    ]);
}

#[test]
fn accept_that_blocked_before_the_trace_began_has_its_owner() {
    let netns = Netns::enter_new();
    let (mut server, address) = server("early-bird");
    server.tell("accept listener s");
    server.wait_blocked_in(libc::SYS_accept4);
    let trace = Trace::json(&netns, &[]);
    let client = sock::connect(address).unwrap();
    let at_client = Ends::of(&client).unwrap();
    server.answer();
    drop(client);
    server.ask("drain s");
    server.ask("close s");
    trace.expect(&[
        Row::client(at_client).close("fin", "local"),
        Row::server(at_client.swapped())
            .of(&server.process())
            .close("fin", "remote"),
    ]);
}

/// Id of this process's cgroup: the inode number of its directory.
fn own_cgroup() -> Option<u64> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let directory = format!("{}{path}", mount.split(' ').nth(4)?);
    Some(fs::metadata(directory).unwrap().ino())
}

#[test]
fn rows_carry_the_cgroup_of_the_owner() {
    let Some(cgroup) = own_cgroup() else {
        return skip("cgroup2");
    };
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 1).unwrap();
    let old = Pair::through(&listener);
    let mut trace = Trace::json(&netns, &[]);
    old.close();
    Pair::through(&listener).close();
    trace.wait_rows(4);
    let ended = trace.interrupt();
    ended.assert_clean();
    let rows = ended.rows();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["cgroup_id"], cgroup, "{row}");
    }
}
