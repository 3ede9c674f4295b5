//! `tcpretrans`: counts per flow, and the table.

use serde_json::Value;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::sock::{self, Ends, V4};
use tcp_tools_tests::trace::{Ended, Trace};

use crate::retrans::{listener, trace};

/// Two flows with one SYN sent again each.
fn two_flows(trace: &mut Trace, wait: impl FnOnce(&mut Trace)) -> [Ends; 2] {
    let (listener, remote) = listener(V4);
    sock::deafen(&listener).unwrap();
    let clients = [(); 2].map(|()| sock::start_connect(remote).unwrap());
    wait(trace);
    clients.map(|client| Ends {
        local: sock::local(&client).unwrap(),
        remote,
    })
}

#[test]
fn counts_per_flow() {
    let netns = Netns::enter_new();
    let mut counted = Trace::view("tcpretrans", &netns, &["-c"]);
    let mut seen = trace(&netns);
    let ends = two_flows(&mut seen, |trace| trace.wait_rows(2));
    drop(seen.interrupt());
    counted.signal(libc::SIGINT);
    counted.wait_lines(2);
    let ended = counted.wait_end();
    ended.assert_clean();
    let counts = ended.events("tcpretrans_count");
    assert_eq!((counts.len(), ended.lines.len()), (2, 2));
    for Ends { local, remote } in ends {
        let of_flow: Vec<&Value> = counts
            .iter()
            .filter(|line| line["lport"] == local.port() && line["rport"] == remote.port())
            .collect();
        assert_eq!(of_flow.len(), 1, "{counts:#?}");
        assert!(of_flow[0]["count"].as_u64().unwrap() >= 1);
    }
}

/// The header and the rows of a table.
fn table(args: &[&str]) -> (Ends, Ended) {
    let netns = Netns::enter_new();
    let mut trace = Trace::text("tcpretrans", &netns, args);
    let ends = two_flows(&mut trace, |trace| trace.wait_lines(3))[0];
    let ended = trace.interrupt();
    ended.assert_clean();
    (ends, ended)
}

#[test]
fn table_has_the_columns_of_bcc_and_more_behind_them() {
    for (args, columns) in [
        (
            &[][..],
            "TIME PID IP LADDR:LPORT T> RADDR:RPORT STATE COMM REASON",
        ),
        (
            &["-s"],
            "TIME PID IP LADDR:LPORT T> RADDR:RPORT STATE SEQ COMM REASON",
        ),
        (
            &["--sequence", "-t"],
            "TIME(s) PID IP LADDR:LPORT T> RADDR:RPORT STATE SEQ COMM REASON",
        ),
    ] {
        let (ends, ended) = table(args);
        let cells: Vec<Vec<&str>> = ended
            .lines
            .iter()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(cells[0].join(" "), columns);
        let (local, remote) = (ends.local.to_string(), ends.remote.to_string());
        let row = cells.iter().find(|row| row[3] == local).unwrap();
        assert_eq!(row.len(), cells[0].len());
        assert_eq!(row[1], std::process::id().to_string());
        assert_eq!(row[2..7], ["4", &local, "S", &remote, "SYN_SENT"]);
        assert_eq!(row.last(), Some(&"rto"));
    }
}
