//! `tcp-tools sockets`, run once.

use std::collections::BTreeMap;

use serde_json::Value;
use socket2::Socket;

use crate::netns::Netns;
use crate::proc_net::{self, Entry, Line};
use crate::row::check_line;
use crate::sock;
use crate::trace::run_view;

/// What `sockets --json` with `args` says of `netns`, line by line.
///
/// # Panics
/// When it fails, says anything on standard error, or writes a line that is not well formed.
pub fn lines(netns: &Netns, args: &[&str]) -> Vec<Value> {
    let inode = netns.inode.to_string();
    let args = [&["--json", "--netns", &inode], args].concat();
    let text = text(&args);
    text.lines().map(check_line).collect()
}

/// What `sockets` writes with `args`.
///
/// # Panics
/// When it fails, or says anything on standard error.
pub fn text(args: &[&str]) -> String {
    let output = run_view("sockets", args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

/// What `list` gives, and what the kernel says at that time. Timers strike meanwhile, and what nobody holds goes
/// away: only what the kernel says both before and after counts.
pub fn with_truth<T>(mut list: impl FnMut() -> T) -> (T, Vec<Line>) {
    loop {
        let before = proc_net::sockets();
        let listed = list();
        if proc_net::sockets() == before {
            return (listed, before);
        }
    }
}

/// What all sources tell of a socket, in order.
pub fn entries(rows: &[Value]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = rows.iter().map(entry).collect();
    entries.sort();
    entries
}

fn entry(row: &Value) -> Entry {
    let port = |field: &str| row.get(field).map(|it| it.as_u64().unwrap() as u16);
    let address = |field: &str| {
        row.get(field)
            .map(|it| it.as_str().unwrap().parse().unwrap())
    };
    let is_connection = row["state"] != "LISTEN";
    Entry {
        state: row["state"].as_str().unwrap().into(),
        laddr: address("laddr").unwrap(),
        lport: port("lport").unwrap(),
        raddr: address("raddr"),
        rport: port("rport"),
        recv_q: row["recv_q"].as_u64().unwrap(),
        send_q: is_connection.then(|| row["send_q"].as_u64().unwrap()),
    }
}

/// The only row of the socket that is bound to the address of `socket`, connected as that is.
///
/// # Panics
/// When there is none, or more than one.
pub fn row_of<'a>(rows: &'a [Value], socket: &Socket) -> &'a Value {
    let port = sock::local(socket).unwrap().port();
    let peer = socket.peer_addr().ok().and_then(|it| it.as_socket());
    let found: Vec<_> = rows
        .iter()
        .filter(|row| row["lport"] == port && row.get("rport").is_some() == peer.is_some())
        .filter(|row| peer.is_none_or(|peer| row["rport"] == peer.port()))
        .collect();
    assert_eq!(found.len(), 1, "{rows:#?}");
    found[0]
}

/// How many of `entries` are in which state.
pub fn by_state<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for entry in entries {
        *counts.entry(entry.state.to_lowercase()).or_default() += 1;
    }
    counts
}
