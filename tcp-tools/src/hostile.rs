//! Bytes from outside, fed to each door that they can come in by. A function returns, whatever the bytes
//! are, or panics where a promise is broken.
//!
//! `cargo test` tries damaged samples and counts what they allocate; the targets in `fuzz/` try the rest.

#![expect(clippy::expect_used, reason = "it reports by panicking")]

use std::path::Path;

use clap::{Args, Command};
use tcp_ebpf::tcp;

use crate::{
    enrich::{Containers, Hierarchy, container_of},
    event::{decode, decode_all},
    kernel::btf::{Btf, Names},
    trace::Clock,
    views::{Context, View, tcpaccept, tcpconnect, tcplife, tcpretrans},
};

/// What an iterator writes: records behind one another.
pub fn records(bytes: &[u8]) {
    let _ = decode(bytes);
    assert!(
        decode_all(bytes).count() <= bytes.len(),
        "more events than bytes"
    );
}

/// A ring that is replayed: records, each behind a byte that tells whether to mend its head, so that more
/// than the decoder sees it. The first two bytes choose view and format.
pub fn ring(bytes: &[u8]) {
    const RECORD: usize = 200;
    let [view, format, ring @ ..] = bytes else {
        return;
    };
    let options = FORMATS[usize::from(*format) % FORMATS.len()];
    let mut view = any_view(*view, options);
    let mut context = Context {
        clock: Clock::start(),
        containers: Containers::new(None),
        names: None,
    };
    view.lines().header();
    for record in ring.chunks(1 + RECORD) {
        let mut record = record.to_vec();
        let mend = record.remove(0);
        if mend != 0 && record.len() > 4 {
            record[0] = record[0] % 8 + 1;
            record[1] %= 4;
            let family = [tcp::AF_INET, tcp::AF_INET6][usize::from(mend % 2)];
            record[2..4].copy_from_slice(&family.to_ne_bytes());
        }
        if let Ok(event) = decode(&record) {
            view.event(event, &mut context);
        }
    }
    view.end();
    let text = str::from_utf8(view.lines().bytes()).expect("output is text");
    let acts = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(acts), "it acts on a terminal: {text:?}");
    if options.contains(&"--json") {
        for line in text.lines() {
            let object: serde_json::Value = serde_json::from_str(line).expect(line);
            assert!(object["event"].is_string(), "{line}");
        }
    }
}

const FORMATS: [&[&str]; 5] = [
    &["-T", "-t"],
    &["-w"],
    &["--csv"],
    &["--json"],
    &["--json", "--fields", "comm,laddr,raddr,event"],
];

fn any_view(which: u8, options: &[&str]) -> Box<dyn View> {
    fn view<A: Args, V: View + 'static, E: std::fmt::Debug>(
        options: &[&str],
        new: impl Fn(&A) -> Result<V, E>,
    ) -> Box<dyn View> {
        let args = parsed(options).expect("these options are right");
        Box::new(new(&args).expect("these fields exist"))
    }
    let with = |option| [options, &[option]].concat();
    match which % 8 {
        0 => view(options, tcplife::Tcplife::new),
        1 => view(&with("--summary"), tcplife::Tcplife::new),
        2 => view(options, tcpconnect::Tcpconnect::new),
        3 => view(&with("--latency"), tcpconnect::Tcpconnect::new),
        4 => view(
            &[options, &["--latency", "--histogram"]].concat(),
            tcpconnect::Tcpconnect::new,
        ),
        5 => view(options, tcpaccept::Tcpaccept::new),
        6 => view(&with("--histogram"), tcpaccept::Tcpaccept::new),
        _ => view(options, tcpretrans::Tcpretrans::new),
    }
}

fn parsed<A: Args>(options: &[&str]) -> Result<A, clap::Error> {
    let command = A::augment_args(Command::new("view")).no_binary_name(true);
    A::from_arg_matches(&command.try_get_matches_from(options)?)
}

/// A file that is given as `--btf`: as it is, and as the type section of one whose header is right.
pub fn btf(bytes: &[u8]) {
    ask_btf(bytes.to_vec());
    let strings = b"\0sock\0tcp_sock\0connect\0a\0b\0";
    let sections = [(0, bytes.len()), (bytes.len(), strings.len())];
    let mut framed = 0xeb9f_u16.to_ne_bytes().to_vec();
    framed.extend([1, 0]);
    framed.extend(24_u32.to_ne_bytes());
    for (offset, length) in sections {
        framed.extend((offset as u32).to_ne_bytes());
        framed.extend((length as u32).to_ne_bytes());
    }
    framed.extend(bytes);
    framed.extend(strings);
    ask_btf(framed);
}

fn ask_btf(bytes: Vec<u8>) {
    const NAMES: Names = Names {
        structs: &["sock", "tcp_sock"],
        functions: &["connect"],
    };
    let Ok(btf) = Btf::from_bytes(bytes, Path::new("fuzzed"), &NAMES) else {
        return;
    };
    let _ = btf.func_id("connect");
    for strukt in NAMES.structs {
        for path in ["a", "a.b", "b:1", "none.none"] {
            let _ = btf.field(strukt, path);
        }
    }
}

/// The value of an option; the first byte chooses which.
pub fn options(bytes: &[u8]) {
    const OPTIONS: [&str; 12] = [
        "--local=",
        "--remote=",
        "--local-port=",
        "--remote-port=",
        "--fields=",
        "--duration=",
        "--buffer-size=",
        "--comm=",
        "--latency=",
        "--pid=",
        "--netns=",
        "--max-events=",
    ];
    let Some((which, value)) = bytes.split_first() else {
        return;
    };
    let value = String::from_utf8_lossy(value);
    let option = format!("{}{value}", OPTIONS[usize::from(*which) % OPTIONS.len()]);
    if let Ok(args) = parsed(&[&option]) {
        let _ = tcpconnect::Tcpconnect::new(&args);
    }
}

/// What other programs write about cgroups: the list of mounts, and the names that they give to cgroups; and
/// what people ask for by name.
pub fn cgroups(bytes: &[u8]) {
    let _ = Hierarchy::in_mounts(bytes);
    let text = String::from_utf8_lossy(bytes);
    if let Some(container) = container_of(&text) {
        assert!(!container.id.is_empty());
        assert!(container.id.len() <= text.len());
    }
    if let Some(hierarchy) = Hierarchy::in_mounts(b"1 2 0:30 / /sys/fs/cgroup rw - cgroup2 x rw") {
        let _ = hierarchy.cgroup(&text);
    }
}

#[cfg(test)]
mod tests;
