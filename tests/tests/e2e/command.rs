//! `-- COMMAND`: the trace begins before the command, and exits with its status.

use serde_json::Value;
use tcp_tools_tests::actor_binary;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::row::{Process, Row};
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::{Ended, Trace};

/// Runs `view` on a command until that ends.
fn run(view: &'static str, options: &[&str], command: &[&str]) -> Ended {
    let netns = Netns::enter_new();
    Trace::view(view, &netns, &[options, &["--"], command].concat()).wait_end()
}

/// The `actor`, that does what it is told and ends.
fn actor(commands: &[&str]) -> Vec<String> {
    let program = actor_binary().to_str().unwrap().to_owned();
    let commands = commands.iter().map(ToString::to_string);
    std::iter::once(program).chain(commands).collect()
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Of the process that the actor is; which one, nobody knows beforehand.
fn of_actor(row: Row) -> Row {
    row.of(&Process {
        pid: 0,
        comm: "actor".into(),
        uid: 0,
    })
    .with("pid", Value::Null)
}

#[test]
fn exit_status_is_the_commands() {
    let actor = actor_binary();
    let actor = actor.to_str().unwrap();
    for (command, code) in [
        (&[actor, "exit 0"][..], 0),
        (&[actor, "exit 7"], 7),
        (&["sh", "-c", "kill -KILL $$"], 128 + libc::SIGKILL),
        // Rust programs ignore it, which a command must not inherit.
        (&["sh", "-c", "kill -PIPE $$"], 128 + libc::SIGPIPE),
    ] {
        let ended = run("tcpconnect", &[], command);
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(code), ""),
            "{command:?}"
        );
        assert!(ended.lines.is_empty(), "{:?}", ended.lines);
    }
}

#[test]
fn command_that_cannot_be_run() {
    for (command, code) in [
        ("/no/such/program", 127),
        ("no-such-program", 127),
        ("/proc/version", 126),
    ] {
        let ended = run("tcpconnect", &[], &[command]);
        assert_eq!(ended.code, Some(code), "{command}");
        let said = format!("tcp-tools: cannot run {command}: ");
        assert!(ended.stderr.starts_with(&said), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn what_the_command_writes_is_no_data() {
    let ended = run("tcpconnect", &[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), "out\nerr\n"));
    assert!(ended.lines.is_empty(), "{:?}", ended.lines);
}

#[test]
fn every_view_sees_all_that_the_command_does() {
    let session = actor(&[
        "listen l 127.0.0.1:6300",
        "connect c 127.0.0.1:6300",
        "accept l s",
        "close c",
        "drain s",
        "close s",
    ]);
    for (view, rows) in [
        ("tcplife", 2),
        ("tcpconnect", 1),
        ("tcpaccept", 1),
        ("tcpretrans", 0),
    ] {
        let ended = run(view, &[], &words(&session));
        ended.assert_clean();
        assert_eq!(ended.rows().len(), rows, "{view}: {:#?}", ended.lines);
        assert!(ended.rows().iter().all(|row| row["comm"] == "actor"));
    }
}

#[test]
fn attempt_made_at_once_is_not_missed() {
    let attempt = actor(&[
        "listen l 127.0.0.1:6301",
        "connect c 127.0.0.1:6301",
        "exit 3",
    ]);
    for _ in 0..10 {
        let ended = run("tcpconnect", &["--latency"], &words(&attempt));
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(3), ""));
        let rows = ended.rows();
        assert_eq!(
            (rows.len(), ended.lines.len()),
            (1, 1),
            "{:#?}",
            ended.lines
        );
        assert_eq!(
            (&rows[0]["rport"], &rows[0]["outcome"]),
            (&6301.into(), &"established".into())
        );
        assert!(rows[0]["latency_us"].is_u64(), "{}", rows[0]);
    }
}

/// The command and a child of its connect, and so does this process meanwhile.
fn command_and_others(options: &[&str]) -> (Ended, [Ends; 3]) {
    let netns = Netns::enter_new();
    let listener = sock::listen(V4, 4).unwrap();
    let address = sock::local(&listener).unwrap();
    let connect = format!("connect c {address}");
    let command = actor(&[&connect, &format!("fork connect k {address}"), "drain c"]);
    let args = [options, &["--"], &words(&command)].concat();
    let trace = Trace::view("tcpconnect", &netns, &args);
    let server = sock::accept(&listener).unwrap();
    let server_of_child = sock::accept(&listener).unwrap();
    let client = sock::connect(address).unwrap();
    let at_client = |server| Ends::of(server).unwrap().swapped();
    let ends = [
        at_client(&server),
        at_client(&server_of_child),
        Ends::of(&client).unwrap(),
    ];
    drop(server);
    (trace.wait_end(), ends)
}

#[test]
fn only_the_command_and_its_children_are_traced() {
    let (ended, [command, child, _]) = command_and_others(&[]);
    ended.assert_rows(&[command, child].map(|ends| of_actor(Row::connect(ends))));
    let rows = ended.rows();
    assert_ne!(rows[0]["pid"], rows[1]["pid"]);
}

#[test]
fn others_are_traced_if_asked_for() {
    let (ended, [command, child, other]) = command_and_others(&["--all"]);
    let [command, child] = [command, child].map(|ends| of_actor(Row::connect(ends)));
    ended.assert_rows(&[command, child, Row::connect(other)]);
}
