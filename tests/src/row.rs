//! Rows of `tcplife`: what a test expects, whether a line is well formed, and how two sets differ.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

use crate::sock::Ends;

/// Fields whose values a test cannot foretell. Their form is checked, by [`check_line`].
const MEASURED: &[&str] = &[
    "event",
    "ts",
    "ts_ns",
    "netns",
    "cgroup_id",
    "container",
    "duration_us",
    "handshake_us",
    "srtt_us",
    "min_rtt_us",
    "retransmits",
];
/// All other fields. An expected row has those that it names, and no others.
const EXACT: &[&str] = &[
    "pid",
    "comm",
    "uid",
    "owner",
    "ip",
    "mapped",
    "laddr",
    "lport",
    "raddr",
    "rport",
    "role",
    "tx_bytes",
    "rx_bytes",
    "close",
    "closed_by",
    "error",
    "partial",
    "tx_trace_bytes",
    "rx_trace_bytes",
    "active",
    "state",
];

/// Who owns a socket.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process id (not a thread's).
    pub pid: u32,
    /// Name of the process (not a thread's).
    pub comm: String,
    /// User id.
    pub uid: u32,
}

/// The process of the test itself. The tests run in threads with other names.
pub fn this_process() -> Process {
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    Process {
        pid: std::process::id(),
        comm: comm.trim_end().into(),
        uid: 0,
    }
}

/// An expected row: a session of this process, without any bytes, until a method says otherwise.
#[derive(Clone, Debug)]
pub struct Row(Map<String, Value>);

impl Row {
    /// The end that connected.
    pub fn client(ends: Ends) -> Self {
        Self::end("client", "connect", ends)
    }

    /// The end that was accepted.
    pub fn server(ends: Ends) -> Self {
        Self::end("server", "accept", ends)
    }

    fn end(role: &str, owner: &str, ends: Ends) -> Self {
        let (laddr, mapped) = shown(ends.local);
        let (raddr, _) = shown(ends.remote);
        let mut row = Self(Map::new())
            .with("role", role)
            .with("owner", owner)
            .with("ip", if laddr.is_ipv4() { 4 } else { 6 })
            .with("laddr", laddr.to_string())
            .with("lport", ends.local.port())
            .with("raddr", raddr.to_string())
            .with("rport", ends.remote.port())
            .bytes(0, 0)
            .of(&this_process());
        if mapped {
            row = row.with("mapped", true);
        }
        row
    }

    /// Another owner than this process.
    pub fn of(self, process: &Process) -> Self {
        let row = self
            .with("pid", process.pid)
            .with("comm", process.comm.as_str());
        row.with("uid", process.uid)
    }

    /// Nobody knows the owner.
    pub fn unowned(mut self) -> Self {
        self.0
            .retain(|field, _| !["pid", "comm", "uid"].contains(&field.as_str()));
        self.with("owner", "none")
    }

    /// Bytes sent and acknowledged, bytes received.
    pub fn bytes(self, tx: usize, rx: usize) -> Self {
        self.with("tx_bytes", tx).with("rx_bytes", rx)
    }

    /// How it ended, and whether the `local` or the `remote` side ended it.
    pub fn close(self, how: &str, by: &str) -> Self {
        self.with("close", how).with("closed_by", by)
    }

    /// The error that the kernel left in the socket.
    pub fn error(self, name: &str) -> Self {
        self.with("error", name)
    }

    /// Older than the trace, with the bytes sent and received since that began.
    pub fn seeded(self, tx_trace: usize, rx_trace: usize) -> Self {
        let row = self.with("owner", "fd").with("partial", true);
        row.with("tx_trace_bytes", tx_trace)
            .with("rx_trace_bytes", rx_trace)
    }

    /// Still open, in this state.
    pub fn active(self, state: &str) -> Self {
        self.with("active", true).with("state", state)
    }

    /// With this value of a field; null stands for any value, and for none.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        assert!(EXACT.contains(&field), "no such field: {field}");
        self.0.insert(field.into(), value.into());
        self
    }

    /// The value of a field that it has and that is a number.
    pub fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap()
    }

    fn matches(&self, actual: &Map<String, Value>) -> bool {
        EXACT.iter().all(|field| match self.0.get(*field) {
            Some(Value::Null) => true,
            expected => expected == actual.get(*field),
        })
    }
}

/// The address as rows show it, and whether it was an IPv4-mapped one.
fn shown(address: SocketAddr) -> (IpAddr, bool) {
    let shown = address.ip().to_canonical();
    (shown, shown != address.ip())
}

/// Compares two sets of rows.
///
/// # Panics
/// Unless each expected row came, exactly once, and no others.
pub fn assert_rows(actual: &[Value], expected: &[Row]) {
    let mut extra: Vec<_> = actual.iter().map(exact_fields).collect();
    let mut missing = Vec::new();
    for row in expected {
        match extra.iter().position(|candidate| row.matches(candidate)) {
            Some(index) => drop(extra.remove(index)),
            None => missing.push(&row.0),
        }
    }
    let mut diff = String::new();
    for (title, rows) in [
        ("missing", missing),
        ("not expected", extra.iter().collect()),
    ] {
        for row in rows {
            write!(diff, "\n{title}: {}", Value::Object(row.clone())).unwrap();
        }
    }
    assert!(
        diff.is_empty(),
        "{} rows of {} expected{diff}",
        actual.len(),
        expected.len()
    );
}

fn exact_fields(row: &Value) -> Map<String, Value> {
    let fields = row.as_object().unwrap().clone();
    fields
        .into_iter()
        .filter(|(field, _)| EXACT.contains(&field.as_str()))
        .collect()
}

/// Parses a line of `--json` and checks all that holds for each line of any trace.
///
/// # Panics
/// When it is not well formed.
pub fn check_line(line: &str) -> Value {
    let row: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let ok = well_formed(&row);
    assert!(ok.is_some_and(|ok| ok), "not a well-formed line: {line}");
    row
}

/// None: a field is missing or of another type than it must be.
fn well_formed(row: &Value) -> Option<bool> {
    let has = |field: &str| row.get(field).is_some();
    let number = |field: &str| row.get(field)?.as_u64();
    let text = |field: &str| row.get(field)?.as_str();
    let flag = |field: &str| row.get(field).is_some_and(|value| value == true);

    let common = is_timestamp(text("ts")?) && number("ts_ns")? > 0;
    if text("event")? == "lost" {
        let causes = ["ring_full", "map_full", "read_fault", "missed"];
        return Some(common && causes.iter().any(|cause| number(cause).is_some()));
    }
    let only_known = row
        .as_object()?
        .keys()
        .all(|k| [MEASURED, EXACT].concat().contains(&k.as_str()));
    let owner = match text("owner")? {
        "none" => ["pid", "comm", "uid"].iter().all(|field| !has(field)),
        "connect" | "accept" | "fd" => {
            number("pid")? > 0 && !text("comm")?.is_empty() && number("uid").is_some()
        }
        _ => false,
    };
    let version = number("ip")?;
    let addresses = ["laddr", "raddr"].iter().all(|field| {
        let address = text(field).and_then(|text| text.parse().ok());
        address.is_some_and(|ip: IpAddr| ip.is_ipv4() == (version == 4))
    });
    let ports = number("lport")? < 65_536 && number("rport")? < 65_536;
    // Only what happened before the trace began may be unknown.
    let known_counts = ["tx_bytes", "duration_us"];
    let counted = number("netns").is_some()
        && number("rx_bytes").is_some()
        && (flag("partial") || known_counts.iter().all(|field| number(field).is_some()));
    let end = if flag("active") {
        text("state").is_some() && !has("close")
    } else {
        text("close").is_some() && !has("state")
    };
    let partial = flag("partial") || !has("tx_trace_bytes") && !has("rx_trace_bytes");
    let event = text("event")? == "tcplife" && only_known && (version == 4 || version == 6);
    Some(common && event && owner && addresses && ports && counted && end && partial)
}

/// RFC 3339, UTC, microseconds.
fn is_timestamp(text: &str) -> bool {
    let form = "dddd-dd-ddTdd:dd:dd.ddddddZ";
    text.len() == form.len()
        && text.chars().zip(form.chars()).all(|(c, f)| match f {
            'd' => c.is_ascii_digit(),
            _ => c == f,
        })
}
