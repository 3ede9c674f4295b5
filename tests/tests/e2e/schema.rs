//! `schema`: what the lines of JSON hold. That they hold it, the harness checks of each.

use std::process::Command;

use serde_json::Value;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::schema::{compile, print};
use tcp_tools_tests::sock::V4;
use tcp_tools_tests::tool;
use tcp_tools_tests::trace::Trace;

const VIEWS: [&str; 4] = ["tcplife", "tcpconnect", "tcpaccept", "tcpretrans"];

/// The rows that each view makes of one session.
fn lines() -> Vec<(&'static str, Value)> {
    let netns = Netns::enter_new();
    let mut traces = VIEWS.map(|view| (view, Trace::view(view, &netns, &[])));
    let [client, server] = Pair::open(V4).close();
    assert_ne!(client.number("lport"), server.number("lport"));
    for (view, rows) in [(0, 2), (1, 1), (2, 1)] {
        traces[view].1.wait_rows(rows);
    }
    let rows = |(view, trace): (_, Trace)| {
        trace
            .interrupt()
            .rows()
            .into_iter()
            .map(move |row| (view, row))
    };
    traces.into_iter().flat_map(rows).collect()
}

#[test]
fn each_view_has_a_schema_of_its_own_lines() {
    let lines = lines();
    assert_eq!(lines.len(), 4);
    let whole = compile(&print(&[]));
    for view in VIEWS {
        let schema = compile(&print(&[view]));
        for (of, line) in &lines {
            assert_eq!(schema.is_valid(line), *of == view, "{view}: {line}");
            assert!(whole.is_valid(line), "{line}");
        }
    }
}

#[test]
fn missing_and_mistyped_fields_are_noticed() {
    let (_, line) = lines().remove(1);
    let schema = compile(&print(&[]));
    let mut without = line.clone();
    without.as_object_mut().unwrap().remove("netns");
    assert!(!schema.is_valid(&without));
    for field in ["lport", "raddr", "ts"] {
        let mut wrong = line.clone();
        wrong[field] = Value::Bool(true);
        assert!(!schema.is_valid(&wrong), "{field}");
    }
}

#[test]
fn each_field_says_what_it_means() {
    for view in VIEWS.into_iter().chain(["tcptop"]) {
        let schema = print(&[view]);
        let properties = schema["anyOf"][0]["properties"].as_object().unwrap();
        assert!(properties.len() > 10);
        for (name, property) in properties {
            let described = property["description"].is_string() || name == "event";
            assert!(described, "{view}: {name}");
        }
    }
}

#[test]
fn no_other_view_has_one() {
    let output = Command::new(tool())
        .args(["schema", "doctor"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
