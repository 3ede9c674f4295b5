//! Entry points for fuzzing and property tests: bytes from outside, for each input. A function returns for all bytes, or
//! panics where a promise is broken.
//!
//! `cargo test` tries damaged samples and counts what they allocate; the targets in `fuzz/` try the rest.

#![expect(clippy::expect_used, reason = "it reports by panicking")]

use std::{collections::BTreeSet, path::Path, sync::LazyLock};

use clap::{Args, Command, error::ErrorKind};
use tcp_ebpf::{tcp, wire::kind};

use crate::{
    enrich::{Containers, Hierarchy, container_of},
    event::{Event, Holders, decode, decode_all},
    kernel::btf::{Btf, Names},
    trace::Clock,
    views::{Context, View, sockets, tcpaccept, tcpconnect, tcplife, tcpretrans, tcptop},
};

/// A valid record of each kind that any decoder knows, once for each family of addresses. Found out from the decoders, so
/// that a new kind or field cannot be left out.
static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let families = [tcp::AF_INET, tcp::AF_INET6];
    let kinds = 0..=u8::MAX;
    kinds
        .flat_map(|kind| families.iter().filter_map(move |it| sample(kind, *it)))
        .collect()
});

/// The shortest record of this kind whose bytes are all 1, which is a valid value of every field but the family.
fn sample(kind: u8, family: u16) -> Option<Vec<u8>> {
    const LONGEST: usize = 1024;
    let mut record = vec![1; LONGEST];
    record[0] = kind;
    record[2..4].copy_from_slice(&family.to_ne_bytes());
    let length = (4..=LONGEST).find(|length| is_record(&record[..*length]))?;
    record.truncate(length);
    Some(record)
}

fn is_record(bytes: &[u8]) -> bool {
    match bytes.first() {
        Some(&kind::HOLDER) => Holders::default().replace(bytes) == 0,
        _ => decode(bytes).is_ok(),
    }
}

/// What an iterator writes: records behind one another.
pub fn records(bytes: &[u8]) {
    let _ = decode(bytes);
    assert!(
        decode_all(bytes).count() <= bytes.len(),
        "more events than bytes"
    );
    assert!(Holders::default().replace(bytes) <= bytes.len() as u64);
}

/// A ring that is replayed: samples, damaged. The first two bytes choose view and format.
pub fn ring(bytes: &[u8]) {
    replay(bytes);
}

/// What came of a replay.
#[derive(Debug, Default)]
struct Replayed {
    /// Kinds of the records that were decoded.
    kinds: BTreeSet<u8>,
    /// The view has shown something of them.
    has_rows: bool,
}

fn replay(bytes: &[u8]) -> Replayed {
    let mut replayed = Replayed::default();
    let [view, format, ring @ ..] = bytes else {
        return replayed;
    };
    let options = FORMATS[usize::from(*format) % FORMATS.len()];
    let Some(mut view) = any_view(usize::from(*view), options) else {
        return replayed;
    };
    let mut context = Context {
        clock: Clock::start(),
        containers: Containers::new(None),
        names: None,
    };
    let mut holders = Holders::default();
    view.start(0);
    view.snapshot(0, &context);
    for record in damaged(ring) {
        if record.first() == Some(&kind::HOLDER) {
            if holders.replace(&record) == 0 {
                replayed.kinds.insert(kind::HOLDER);
            }
        } else if let Ok(mut event) = decode(&record) {
            replayed.kinds.insert(record[0]);
            if let Event::Socket(socket) = &mut event {
                holders.give_owner(socket);
            }
            replayed.has_rows |= view.event(event, &mut context);
        }
    }
    view.interval(1);
    replayed.has_rows |= view.rows(u64::MAX, &mut context) > 0;
    let before = view.lines().bytes().len();
    view.end();
    replayed.has_rows |= view.lines().bytes().len() > before;
    check_lines(view.lines().bytes(), options);
    if let Some(picture) = view.picture() {
        let (width, height) = (u16::from(*format), u16::from(bytes[0]));
        for key in *b"ssbpb" {
            check_text(&picture.draw(width, height, &mut context));
            picture.key(key);
        }
    }
    replayed
}

/// Records, each behind a byte that chooses its sample; what follows are the bits that are wrong in it. Behind a byte that
/// chooses none is a record of these bytes alone.
fn damaged(mut ring: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        let (which, rest) = ring.split_first()?;
        let longest = SAMPLES.iter().map(Vec::len).max().unwrap_or_default();
        let chosen = usize::from(*which) % (SAMPLES.len() + 1);
        let mut record = SAMPLES.get(chosen).cloned();
        let record = record.get_or_insert_with(|| vec![0; longest.min(rest.len())]);
        for (byte, wrong) in record.iter_mut().zip(rest) {
            *byte ^= wrong;
        }
        ring = rest.get(record.len()..).unwrap_or_default();
        Some(std::mem::take(record))
    })
}

fn check_lines(lines: &[u8], options: &[&str]) {
    let text = str::from_utf8(lines).expect("output is text");
    check_text(text);
    if options.contains(&"--json") {
        for line in text.lines() {
            let object: serde_json::Value = serde_json::from_str(line).expect(line);
            assert!(object["event"].is_string(), "{line}");
        }
    }
}

fn check_text(text: &str) {
    let acts = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(acts), "it acts on a terminal: {text:?}");
}

const FORMATS: [&[&str]; 5] = [
    &["-T", "-t"],
    &["-w"],
    &["--csv"],
    &["--json"],
    &["--json", "--fields", "comm,laddr,raddr,event"],
];

/// Each view, with the options that make other lines of it.
const VIEWS: &[(&str, &[&str])] = &[
    ("tcplife", &[]),
    ("tcplife", &["--summary"]),
    ("tcpconnect", &[]),
    ("tcpconnect", &["--latency"]),
    ("tcpconnect", &["--latency", "--histogram"]),
    ("tcpconnect", &["--count"]),
    ("tcpaccept", &[]),
    ("tcpaccept", &["--histogram"]),
    ("tcpretrans", &[]),
    ("tcpretrans", &["--count"]),
    ("tcptop", &[]),
    ("tcptop", &["--by", "process"]),
    ("tcptop", &["--by", "container", "--sort", "rtt"]),
    ("sockets", &["--timers", "--info"]),
    ("sockets", &["--summary"]),
];

/// None where the options exclude those of the format.
fn any_view(which: usize, options: &[&str]) -> Option<Box<dyn View>> {
    fn view<A: Args, V: View + 'static, E: std::fmt::Debug>(
        options: &[&str],
        new: impl Fn(&A) -> Result<V, E>,
    ) -> Option<Box<dyn View>> {
        match parsed(options) {
            Ok(args) => Some(Box::new(new(&args).expect("these fields exist"))),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{error}");
                None
            }
        }
    }
    let (name, own) = VIEWS[which % VIEWS.len()];
    let options = &[options, own].concat();
    match name {
        "tcplife" => view(options, tcplife::Tcplife::new),
        "tcpconnect" => view(options, tcpconnect::Tcpconnect::new),
        "tcpaccept" => view(options, tcpaccept::Tcpaccept::new),
        "tcpretrans" => view(options, tcpretrans::Tcpretrans::new),
        "tcptop" => view(options, tcptop::Tcptop::new),
        "sockets" => view(options, sockets::Sockets::new),
        other => unreachable!("{other} is no view"),
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
        typedefs: &["a"],
    };
    let Ok(btf) = Btf::from_bytes(bytes, Path::new("fuzzed"), &NAMES) else {
        return;
    };
    let _ = btf.func_id("connect");
    let _ = btf.pointer_arg_count("a");
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
