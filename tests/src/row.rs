//! Rows of the views: what a test expects, whether a line is well formed, and how two sets differ.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

use crate::features;
use crate::schema;
use crate::sock::Ends;

/// Fields whose values a test can foretell. An expected row has those that it names, and no others. Of
/// other fields the form is checked, by [`check_line`].
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
    "outcome",
    "cause",
    "fast_open",
    "mptcp",
    "backlog",
    "max_backlog",
    "type",
    "reason",
    "len_bytes",
    "nth",
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
        Self::flow(owner, ends).with("role", role).bytes(0, 0)
    }

    /// An active open, without an outcome.
    pub fn connect(ends: Ends) -> Self {
        Self::flow("connect", ends)
    }

    /// A passive open, whatever its listener's backlog.
    pub fn accept(ends: Ends) -> Self {
        let row = Self::flow("accept", ends).with("backlog", Value::Null);
        row.with("max_backlog", Value::Null)
    }

    /// The accept queue of the listener: its length now, and its limit. Kernels that hide them show none.
    pub fn backlog(mut self, now: u32, limit: u32) -> Self {
        if features::task_registers() {
            return self.with("backlog", now).with("max_backlog", limit);
        }
        self.0.remove("backlog");
        self.0.remove("max_backlog");
        self
    }

    /// A segment that is sent again, with any payload in any state: `letter` and `reason` say what and
    /// why, `owner` how the owner of the socket is known.
    pub fn retransmit(letter: &str, reason: &str, owner: &str, ends: Ends) -> Self {
        let row = Self::flow(owner, ends).with("type", letter);
        let row = row.with("reason", reason).with("state", Value::Null);
        row.with("len_bytes", Value::Null).with("nth", Value::Null)
    }

    fn flow(owner: &str, ends: Ends) -> Self {
        let (laddr, mapped) = shown(ends.local);
        let (raddr, _) = shown(ends.remote);
        let mut row = Self(Map::new())
            .with("owner", owner)
            .with("ip", if laddr.is_ipv4() { 4 } else { 6 })
            .with("raddr", raddr.to_string())
            .with("rport", ends.remote.port())
            .of(&this_process());
        // An attempt that found no way has neither.
        if !laddr.is_unspecified() {
            row = row.with("laddr", laddr.to_string());
        }
        if ends.local.port() != 0 {
            row = row.with("lport", ends.local.port());
        }
        if mapped {
            row.with("mapped", true)
        } else {
            row
        }
    }

    /// The attempt has succeeded.
    pub fn established(self) -> Self {
        self.with("outcome", "established")
    }

    /// The attempt has failed for this cause with this errno.
    pub fn failed(self, cause: &str, error: &str) -> Self {
        let row = self.with("outcome", "failed").with("cause", cause);
        row.error(error)
    }

    /// The attempt was ended on this side, for this cause.
    pub fn aborted(self, cause: &str) -> Self {
        self.with("outcome", "aborted").with("cause", cause)
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
    assert_rows_but_for(0, actual, expected);
}

/// As [`assert_rows`], but as many as `missed` may be missing.
pub fn assert_rows_but_for(missed: usize, actual: &[Value], expected: &[Row]) {
    let mut extra: Vec<_> = actual.iter().map(exact_fields).collect();
    let mut missing = Vec::new();
    for row in expected {
        match extra.iter().position(|candidate| row.matches(candidate)) {
            Some(index) => drop(extra.remove(index)),
            None => missing.push(&row.0),
        }
    }
    let is_as_expected = extra.is_empty() && missing.len() <= missed;
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
        is_as_expected,
        "{} rows of {} expected, {missed} may be missing{diff}",
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
/// When it is not well formed, or not what the tool's schema says.
pub fn check_line(line: &str) -> Value {
    let row: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    if let Err(problem) = schema::check(&row) {
        panic!("not a well-formed line: {line}: {problem}");
    }
    let ok = well_formed(&row);
    assert!(ok.is_some_and(|ok| ok), "not a well-formed line: {line}");
    row
}

/// What the schema does not say. None: a field is missing or of another type than it must be.
fn well_formed(row: &Value) -> Option<bool> {
    let event = row["event"].as_str()?;
    if event == "lost" {
        let causes = ["ring_full", "map_full", "read_fault", "missed"];
        let total = row["total"].as_u64()?;
        let is_step = (1..=total).contains(&row["new"].as_u64()?);
        return Some(is_stamped(row)? && is_step && causes.iter().any(|cause| row[cause].is_u64()));
    }
    let own = match event {
        "tcplife" => is_session(row)?,
        "tcpconnect" => row["outcome"] != "failed" || row["error"].is_string(),
        "tcpaccept" => row["backlog"].is_u64() == row["max_backlog"].is_u64(),
        "tcpretrans" => row["state"].is_string() && row["reason"].is_string(),
        "sockets" => is_socket(row)?,
        "tcptop" if row["by"] == "conn" => row["state"].is_string() && !row["sockets"].is_u64(),
        "tcptop" => return Some(is_stamped(row)? && row["sockets"].as_u64()? > 0),
        "tcptop_total" => return is_stamped(row),
        // Of a whole trace or snapshot: the schema says all of them.
        "tcplife_summary"
        | "tcpconnect_count"
        | "tcpconnect_histogram"
        | "tcpaccept_histogram"
        | "tcpretrans_count"
        | "sockets_summary" => return Some(true),
        _ => return None,
    };
    Some(own && is_stamped(row)? && is_flow(row)?)
}

fn is_stamped(row: &Value) -> Option<bool> {
    Some(is_timestamp(row["ts"].as_str()?) && row["ts_ns"].as_u64()? > 0)
}

fn is_flow(row: &Value) -> Option<bool> {
    let has = |field: &str| row.get(field).is_some();
    let number = |field: &str| row.get(field)?.as_u64();
    let text = |field: &str| row.get(field)?.as_str();
    let owner = match text("owner")? {
        "none" => ["pid", "comm", "uid"].iter().all(|field| !has(field)),
        "connect" | "accept" | "fd" => {
            number("pid")? > 0 && !text("comm")?.is_empty() && number("uid").is_some()
        }
        _ => false,
    };
    let version = number("ip")?;
    // An attempt that found no way has no local end yet, and a listener no remote one.
    let may_lack = |field: &str| {
        !has(field)
            && (row["outcome"] == "failed" || row["state"] == "LISTEN" && field.starts_with('r'))
    };
    let addresses = ["laddr", "raddr"].iter().all(|field| {
        let address = text(field).and_then(|text| text.parse().ok());
        may_lack(field) || address.is_some_and(|ip: IpAddr| ip.is_ipv4() == (version == 4))
    });
    let ports = ["lport", "rport"].iter().all(|field| {
        may_lack(field) || number(field).is_some_and(|port| (1..65_536).contains(&port))
    });
    let version = version == 4 || version == 6;
    Some(owner && addresses && ports && version && number("netns").is_some())
}

/// A listener has nothing that only connections have, nobody's socket has a descriptor.
fn is_socket(row: &Value) -> Option<bool> {
    let has = |field: &str| row.get(field).is_some();
    let is_listener = row["state"] == "LISTEN";
    let of_connections = [
        "raddr", "rport", "tx_bytes", "rx_bytes", "cwnd", "srtt_us", "role",
    ];
    let listener = !is_listener || of_connections.iter().all(|field| !has(field));
    let held = ["fd", "others", "inode"];
    let owned = row["owner"] == "none" || held.iter().all(|field| has(field));
    let timer = ["timer", "timer_us", "timer_retransmits"];
    let timer = timer.iter().all(|field| has(field) == has("timer"));
    Some(listener && owned && timer && row.get("send_q")?.is_u64())
}

fn is_session(row: &Value) -> Option<bool> {
    let has = |field: &str| row.get(field).is_some();
    let flag = |field: &str| row.get(field).is_some_and(|value| value == true);
    // Only what happened before the trace began may be unknown.
    let known_counts = ["tx_bytes", "duration_us"];
    let counted = row.get("rx_bytes")?.is_u64()
        && (flag("partial") || known_counts.iter().all(|field| row[field].is_u64()));
    let end = if flag("active") {
        row.get("state")?.is_string() && !has("close")
    } else {
        row.get("close")?.is_string() && !has("state")
    };
    let partial = flag("partial") || !has("tx_trace_bytes") && !has("rx_trace_bytes");
    Some(counted && end && partial)
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
