//! `tcp-tools doctor`.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tcp_tools_tests::{features, tool};

/// The points of which the tiers differ; the others are the same on all.
const TIERED: [&str; 5] = [
    "state",
    "connect",
    "accept",
    "loss_probe",
    "loss_probe_return",
];

/// What not every tier has, and what no view needs to run.
const OPTIONAL: [&str; 2] = ["loss_probe", "loss_probe_return"];

fn doctor(args: &[&str]) -> Output {
    Command::new(tool())
        .arg("doctor")
        .args(args)
        .output()
        .unwrap()
}

fn json(args: &[&str]) -> (Option<i32>, Value) {
    let output = doctor(&[&["--json"], args].concat());
    let value = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        value.unwrap_or_else(|error| panic!("{error}: {output:?}")),
    )
}

/// Name, mechanism, tier; each refused mechanism has its reason.
fn points(report: &Value) -> Vec<(&str, Option<&str>, Option<&str>)> {
    let points = report["points"].as_array().unwrap();
    for refused in points
        .iter()
        .flat_map(|point| point["refused"].as_array().unwrap())
    {
        let reason = refused["reason"].as_str().unwrap();
        assert!(
            !refused["mechanism"].as_str().unwrap().is_empty(),
            "{refused}"
        );
        assert!(reason.len() > 3, "{refused}");
    }
    points
        .iter()
        .map(|point| {
            (
                point["point"].as_str().unwrap(),
                point["chosen"].as_str(),
                point["tier"].as_str(),
            )
        })
        .collect()
}

#[test]
fn every_point_has_a_mechanism_here() {
    let (code, report) = json(&[]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["ok"], true);
    let missing = report["missing_fields"].as_array().unwrap();
    let mut losses: Vec<_> = missing
        .iter()
        .map(|it| it["switched_off"].as_str().unwrap())
        .collect();
    losses.sort_unstable();
    losses.dedup();
    assert_eq!(losses, features::switched_off(), "{report}");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(
        report["kernel"].to_string().contains(release.trim()),
        "{report}"
    );
    for part in ["kernel", "btf", "capabilities", "pid_namespace"] {
        assert!(report[part].is_object(), "{part}: {report}");
    }
    assert!(report.get("lockdown").is_some());
    let points = points(&report);
    for name in TIERED {
        assert!(
            points.iter().any(|point| point.0 == name),
            "{name}: {report}"
        );
    }
    for (name, chosen, tier) in points {
        if chosen.is_none() && OPTIONAL.contains(&name) {
            continue;
        }
        assert!(chosen.is_some(), "{name}: {report}");
        let tiers: &[&str] = if TIERED.contains(&name) {
            &["fentry", "kprobe", "tracepoint"]
        } else {
            &["any"]
        };
        assert!(tiers.contains(&tier.unwrap()), "{name}: {report}");
    }
}

#[test]
fn forced_tier_is_what_is_chosen_or_refused_with_the_reason() {
    for forced in ["fentry", "kprobe", "tracepoint"] {
        let (code, report) = json(&["--hooks", forced]);
        assert_eq!(code == Some(0), report["ok"] == true, "{report}");
        for (name, chosen, tier) in points(&report) {
            match tier {
                Some(tier) => assert!([forced, "any"].contains(&tier), "{name}: {report}"),
                None => assert!(
                    chosen.is_none() && (report["ok"] == false || OPTIONAL.contains(&name)),
                    "{name}: {report}"
                ),
            }
        }
        for point in report["points"].as_array().unwrap() {
            let refused = point["refused"].as_array().unwrap();
            let explained = !refused.is_empty()
                || point["point"]
                    .as_str()
                    .is_some_and(|name| OPTIONAL.contains(&name));
            assert!(!point["chosen"].is_null() || explained, "{point}");
        }
    }
}

#[test]
fn table_names_every_point_and_its_mechanism() {
    let output = doctor(&[]);
    assert_eq!(output.status.code(), Some(0));
    let table = String::from_utf8(output.stdout).unwrap();
    let (_, report) = json(&[]);
    for (name, chosen, _) in points(&report) {
        let of_point = |line: &&str| line.split_whitespace().next() == Some(name);
        let line = table.lines().find(of_point).expect(name);
        assert!(line.contains(chosen.unwrap_or("none: ")), "{line}");
    }
}

/// These tests are built as the tool is.
#[test]
fn hooks_are_refused_for_tests_and_not_in_a_release() {
    let mut command = Command::new(tool());
    let output = command
        .args(["doctor", "--json"])
        .env("TCP_TOOLS_REFUSE", "tcp_retransmit_skb")
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let points = points(&report);
    let retransmit = points.iter().find(|it| it.0 == "retransmit").unwrap();
    assert_eq!(retransmit.1.is_none(), cfg!(debug_assertions), "{report}");
    assert_eq!(report["ok"] == false, cfg!(debug_assertions), "{report}");
}

#[test]
fn bad_btf_is_a_finding_and_not_the_end() {
    let (code, report) = json(&["--btf", "/dev/null"]);
    assert_eq!(code, Some(1));
    assert_eq!(report["ok"], false);
}
