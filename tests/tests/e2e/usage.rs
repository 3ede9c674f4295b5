//! Options that make no sense, and that no option is without a test.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Instant;

use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::row::Row;
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::Trace;
use tcp_tools_tests::views::ALL;
use tcp_tools_tests::{PATIENCE, skip, tool};

#[test]
fn filter_that_can_match_nothing_is_refused() {
    for view in ALL {
        for (option, value, says) in [
            ("--pid", "4194303", "there is no process 4194303"),
            ("--pid", "0", "not a process id: \"0\""),
            ("--pid", "1,4194303", "there is no process 4194303"),
            ("--local-port", "0", "not a port number: \"0\" (1-65535)"),
            ("--remote-port", "80,0-5", "not a port number: \"0\""),
            ("--remote-port", "9-8", "empty"),
            ("--local", "10.0.0.0/33", "no address or network"),
            ("--remote", "example.org", "no address or network"),
            ("--cgroup", "no/such/cgroup", "no cgroup"),
            ("--cgroup", "999999999999999", "no cgroup"),
            ("--container", "0123456789abcdef", "container"),
            ("--netns", "/no/such/file", "no network namespace"),
            ("--netns", "4194303", "no network namespace"),
            ("--fields", "pid,no_such_field", "unknown field"),
            ("--uid", "nobody", "invalid"),
        ] {
            let mut command = Command::new(tool());
            let output = command.args([view, option, value]).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                output.status.code(),
                Some(2),
                "{view} {option} {value}: {stderr}"
            );
            assert!(stderr.contains(says), "{view} {option} {value}: {stderr}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn options_that_exclude_or_need_each_other() {
    for args in [
        &["tcpconnect", "-4", "-6"][..],
        &["tcpconnect", "-4", "--local", "::1"],
        &["tcpconnect", "-6", "--remote", "10.0.0.0/8"],
        &["tcpconnect", "--local", "::1", "--remote", "10.0.0.1"],
        &["tcpconnect", "--follow"],
        &["tcpconnect", "--all"],
        &["tcpconnect", "--kill"],
        &["tcpconnect", "-c", "--latency"],
        &["tcpconnect", "-c", "--histogram"],
        &["tcpconnect", "--latency=soon"],
        &["tcpretrans", "-c", "--fields", "pid"],
        &["tcpaccept", "--json", "--csv"],
        &["tcptop", "0"],
        &["tcptop", "1", "0"],
        &["tcptop", "--rows", "0"],
        &["tcptop", "--by", "host"],
    ] {
        let output = Command::new(tool()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn link_by_the_name_of_a_view_is_that_view() {
    let dir = tempfile::tempdir().unwrap();
    for view in ALL {
        let link = dir.path().join(view);
        symlink(tool(), &link).unwrap();
        let help = |command: &mut Command| {
            String::from_utf8(command.arg("--help").output().unwrap().stdout).unwrap()
        };
        let by_name = help(&mut Command::new(&link));
        let usage = format!("Usage: tcp-tools {view} [OPTIONS]");
        assert!(by_name.contains(&usage), "{by_name}");
        assert!(
            by_name == help(Command::new(tool()).arg(view)),
            "{view}: {by_name}"
        );
    }
}

#[test]
fn short_options_are_those_of_bcc() {
    for (view, remote, local) in [
        ("tcpconnect", "-P", ""),
        ("tcpaccept", "", "-P"),
        ("tcplife", "-D", "-L"),
    ] {
        let help = help(view);
        let short = |long: &str| {
            let line = help.lines().find(|line| line.contains(long)).unwrap();
            line.split(long)
                .next()
                .unwrap()
                .trim()
                .trim_end_matches(',')
                .to_owned()
        };
        assert_eq!(short("--remote-port"), remote, "{view}");
        assert_eq!(short("--local-port"), local, "{view}");
        assert_eq!(
            (short("--pid").as_str(), short("--uid").as_str()),
            ("-p", "-u")
        );
    }
}

#[test]
fn names_of_addresses_do_not_hold_up_the_rows() {
    let netns = Netns::enter_new();
    for view in ["tcpconnect", "tcplife"] {
        let trace = Trace::view(view, &netns, &["--resolve"]);
        let listener = sock::listen(V4, 1).unwrap();
        let client = sock::connect(sock::local(&listener).unwrap()).unwrap();
        let server = sock::accept(&listener).unwrap();
        let ends = Ends::of(&client).unwrap();
        drop(client);
        sock::drain(&server).unwrap();
        drop(server);
        let rows = match view {
            "tcpconnect" => vec![Row::connect(ends)],
            "tcplife" => vec![
                Row::client(ends).close("fin", "local"),
                Row::server(ends.swapped()).close("fin", "remote"),
            ],
            other => panic!("no rows are known of {other}"),
        };
        trace.expect(&rows);
    }
}

#[test]
fn names_of_addresses_come_with_later_rows() {
    let hosts = fs::read_to_string("/etc/hosts").unwrap();
    let name = hosts.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "127.0.0.1").then(|| words.next())?
    });
    let Some(name) = name else {
        return skip("name of 127.0.0.1 in /etc/hosts");
    };
    let netns = Netns::enter_new();
    let mut trace = Trace::view("tcpconnect", &netns, &["--resolve"]);
    let listener = sock::listen(V4, 16).unwrap();
    let address = sock::local(&listener).unwrap();
    let deadline = Instant::now() + PATIENCE;
    for rows in 1.. {
        let _client = sock::connect(address).unwrap();
        drop(sock::accept(&listener).unwrap());
        trace.wait_rows(rows);
        // The resolver answers when it can.
        if trace.has_row("rname", name) && trace.has_row("lname", name) {
            break;
        }
        assert!(Instant::now() < deadline, "no name after {rows} rows");
    }
    trace.interrupt().assert_clean();
}

#[test]
fn fields_are_chosen_and_ordered() {
    for (format, expected) in [(&["--csv"][..], "DPORT,COMM,IP\n"), (&[], "DPORT COMM IP")] {
        let netns = Netns::enter_new();
        let args = [format, &["--fields", "rport,comm,ip", "-n", "1"]].concat();
        let trace = Trace::text("tcpconnect", &netns, &args);
        let listener = sock::listen(V4, 1).unwrap();
        sock::connect(sock::local(&listener).unwrap()).unwrap();
        let ended = trace.wait_end();
        ended.assert_clean();
        let header = ended.lines[0]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(header, expected.trim_end());
        assert_eq!(ended.lines.len(), 2);
    }
}

/// What all views have. Beside each, the tests that use it.
const COMMON: &[&str] = &[
    "all",         // command
    "pid",         // process_filters
    "follow",      // process_filters
    "uid",         // process_filters
    "comm",        // process_filters
    "cgroup",      // process_filters
    "container",   // process_filters
    "netns",       // net_filters, filters
    "ipv4",        // net_filters, filters
    "ipv6",        // net_filters, filters
    "local",       // net_filters
    "remote",      // net_filters
    "local-port",  // net_filters, filters
    "remote-port", // net_filters, filters
    "time",        // connect, accept, output
    "timestamp",   // connect, accept, output
    "wide",        // output
    "csv",         // untrusted, output
    "json",        // everywhere
    "fields",      // usage, output
    "resolve",     // usage
    "kill",        // command_end
    "duration",    // command_end, output
    "max-events",  // usage, command_end, output
    "strict",      // loss
    "ready-fd",    // everywhere
    "hooks",       // everywhere in virtual machines, cli
    "btf",         // cli
    "buffer-size", // loss
    "max-sockets", // loss
    "verbose",     // process_filters, net_filters
    "help",        // usage
];

/// What a view that lives on snapshots has no use for.
const OF_EVENTS: &[&str] = &["buffer-size", "max-sockets"];

/// What each view has besides.
const OWN: [(&str, &[&str]); 6] = [
    // sessions, older, output
    ("tcplife", &["new-only", "active", "summary"]),
    // connect, connect_latency
    (
        "tcpconnect",
        &[
            "lport",
            "print-uid",
            "count",
            "latency",
            "failed",
            "histogram",
        ],
    ),
    // accept
    ("tcpaccept", &["histogram"]),
    // retrans
    ("tcpretrans", &["sequence", "lossprobe", "count"]),
    // tcptop, tcptop_terminal
    ("tcptop", &["noclear", "nosummary", "by", "sort", "rows"]),
    // sockets, sockets_owners, sockets_output
    (
        "sockets",
        &[
            "state",
            "listening",
            "timers",
            "info",
            "summary",
            "interval",
        ],
    ),
];

fn help(view: &str) -> String {
    let output = Command::new(tool())
        .args([view, "--help"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_option_has_a_test() {
    assert_eq!(OWN.map(|(view, _)| view), ALL);
    for (view, own) in OWN {
        let help = help(view);
        let options = help.lines().map(str::trim_start);
        // Not `- auto`, which is a value.
        let options = options.filter(|line| line.starts_with('-') && !line.starts_with("- "));
        let mut options: Vec<&str> = options
            .map(|line| {
                let long = line.split_once("--").expect(line).1;
                let end = long.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                &long[..end.unwrap_or(long.len())]
            })
            .collect();
        options.sort_unstable();
        let mut tested = [COMMON, own].concat();
        tested.retain(|option| view != "sockets" || !OF_EVENTS.contains(option));
        tested.sort_unstable();
        assert_eq!(options, tested, "{view}");
    }
}
