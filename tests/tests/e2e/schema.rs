//! `schema`: what the lines of JSON hold. That they hold it, the harness checks of each.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::{Pair, close_in_order};
use tcp_tools_tests::schema::{compile, print};
use tcp_tools_tests::snapshot;
use tcp_tools_tests::sock::{self, V4};
use tcp_tools_tests::tool;
use tcp_tools_tests::trace::Trace;
use tcp_tools_tests::views::{ALL, until_stopped};

/// The rows that each view makes of one session: at least one.
fn lines() -> Vec<(&'static str, Value)> {
    let netns = Netns::enter_new();
    let events = ALL.into_iter().filter(|view| *view != "sockets");
    let mut traces: Vec<_> = events
        .map(|view| (view, Trace::view(view, &netns, until_stopped(view))))
        .collect();
    let pair = Pair::open(V4);
    pair.exchange(10, 10);
    sock::deafen(&pair.server).unwrap();
    sock::send(&pair.client, 10).unwrap();
    sock::hear_after_losses(&pair.server, 2).unwrap();
    sock::wait_acked(&pair.client).unwrap();
    let mut rows: Vec<(&'static str, Value)> = Vec::new();
    rows.extend(
        snapshot::lines(&netns, &[])
            .into_iter()
            .map(|row| ("sockets", row)),
    );
    sock::recv(&pair.server, 10).unwrap();
    close_in_order(pair.client, pair.server);
    for (view, trace) in &mut traces {
        trace.wait_rows(match *view {
            "tcplife" => 2,
            "tcpconnect" | "tcpaccept" | "tcpretrans" => 1,
            // At its end.
            "tcptop" => 0,
            other => panic!("no rows are known of {other}"),
        });
    }
    for (view, trace) in traces {
        rows.extend(trace.interrupt().rows().into_iter().map(|row| (view, row)));
    }
    let views: BTreeSet<&str> = rows.iter().map(|(view, _)| *view).collect();
    assert_eq!(views, ALL.into());
    rows
}

/// What the tool prints for a view: of its rows first.
fn schema_of_rows(view: &str) -> Value {
    let mut schema = print(&[view]);
    let rows = schema["anyOf"][0].take();
    assert_eq!(rows["properties"]["event"]["const"], view);
    rows
}

#[test]
fn list_of_views_is_the_tools_own() {
    let schema = print(&[]);
    let views = schema["anyOf"].as_array().unwrap().iter();
    let events: Vec<_> = views
        .map(|view| &view["anyOf"][0]["properties"]["event"]["const"])
        .collect();
    assert_eq!(events, ALL);
    let help = Command::new(tool()).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands
        .lines()
        .map_while(|line| line.split_whitespace().next());
    let mut commands: Vec<&str> = commands.collect();
    commands.retain(|command| !["schema", "doctor", "help"].contains(command));
    assert_eq!(commands, ALL);
}

#[test]
fn each_view_has_a_schema_of_its_own_lines() {
    let lines = lines();
    let whole = compile(&print(&[]));
    for view in ALL {
        let schema = compile(&print(&[view]));
        for (of, line) in &lines {
            assert_eq!(schema.is_valid(line), *of == view, "{view}: {line}");
            assert!(whole.is_valid(line), "{line}");
        }
    }
}

#[test]
fn missing_and_mistyped_fields_are_noticed() {
    let whole = compile(&print(&[]));
    for (view, line) in lines() {
        let rows = schema_of_rows(view);
        let required = rows["required"].as_array().unwrap();
        assert!(required.len() > 4, "{view}");
        for field in required.iter().filter_map(Value::as_str) {
            let mut without = line.clone();
            without.as_object_mut().unwrap().remove(field).unwrap();
            assert!(!whole.is_valid(&without), "{view}: {field}");
        }
        for field in ["lport", "laddr", "ts"] {
            let mut wrong = line.clone();
            wrong[field] = Value::Bool(true);
            assert!(!whole.is_valid(&wrong), "{view}: {field}");
        }
    }
}

#[test]
fn each_field_says_what_it_means() {
    for view in ALL {
        let rows = schema_of_rows(view);
        let properties = rows["properties"].as_object().unwrap();
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
