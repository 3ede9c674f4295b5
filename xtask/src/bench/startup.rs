//! How soon a tool shows something: after it was started, and after a session has ended.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Stdio};
use std::ptr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ready;

use super::report::{Measure, Numbers, Report, Target};
use super::running::rows;
use super::tool::Tool;
use super::{Bench, alternate, load};

const FIRST_ROW: Measure = Measure {
    name: "start-up",
    unit: "ms",
    meaning: "from exec to the first row of a steady stream of sessions, on a terminal",
    target: Some(Target::Ratio(0.6)),
};

const READY: Measure = Measure {
    name: "start-up, ready",
    unit: "ms",
    meaning: "from exec to the line on --ready-fd, which stands for attached, with all open sockets known",
    target: None,
};

const DELAY: Measure = Measure {
    name: "delay of a row",
    unit: "ms",
    meaning: "from the end of a session to its row on a terminal, when nothing else happens",
    target: Some(Target::Value(5.0)),
};

/// Between the sessions of the stream: short against a start-up, long enough to leave a processor free.
const PACE: Duration = Duration::from_micros(200);

/// As long as a Python tool needs on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(120);

/// Nothing has happened for so long: the system is quiet.
const QUIET: Duration = Duration::from_millis(50);

/// A row that is later than this does not come any more.
const LATE: Duration = Duration::from_secs(2);

/// Sessions for the delay of a row, in each round.
const DELAYS: usize = 20;

/// Start-up of all tools that are here, and the delay of a row.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let ours = bench.ours(&["tcplife"]);
    let tools: Vec<&Tool> = std::iter::once(&ours)
        .chain(bench.peers.tracers())
        .collect();
    let mut times: Vec<Vec<f64>> = tools.iter().map(|_| Vec::new()).collect();
    let mut ready = Vec::new();
    with_stream(|| {
        alternate(bench.rounds, tools.len(), |at| {
            times[at].push(milliseconds(first_row(tools[at])?));
            if at == 0 {
                ready.push(milliseconds(until_ready(&ours)?));
            }
            Ok(())
        })
    })?;
    rows_of(report, &FIRST_ROW, &tools, &times);
    report.row(
        &READY,
        &Numbers {
            tool: &ours.name,
            values: &ready,
        },
        None,
    );

    let tools: Vec<&Tool> = std::iter::once(&ours).chain(&bench.peers.tcplife).collect();
    let mut delays: Vec<Vec<f64>> = tools.iter().map(|_| Vec::new()).collect();
    alternate(bench.rounds, tools.len(), |at| {
        delays[at].extend(row_delays(tools[at])?.into_iter().map(milliseconds));
        Ok(())
    })?;
    rows_of(report, &DELAY, &tools, &delays);
    Ok(())
}

/// Ours beside each of the others.
fn rows_of(report: &mut Report, measure: &Measure, tools: &[&Tool], numbers: &[Vec<f64>]) {
    let all = Numbers::of(tools, numbers);
    let Some((ours, peers)) = all.split_first() else {
        return;
    };
    if peers.is_empty() {
        report.row(measure, ours, None);
    }
    for peer in peers {
        report.row(measure, ours, Some(peer));
    }
}

/// Runs `body` while sessions come and go at a steady pace.
fn with_stream(body: impl FnOnce() -> Result<()>) -> Result<()> {
    let listener = load::listener()?;
    let session = || {
        load::one_session(&listener)?;
        thread::sleep(PACE);
        Ok(())
    };
    load::meanwhile(session, body)
}

fn first_row(tool: &Tool) -> Result<Duration> {
    let start = Instant::now();
    let terminal = OnTerminal::start(tool)?;
    let row = terminal.row_within(PATIENCE)?;
    let row = row.with_context(|| format!("{} shows no row", tool.name))?;
    Ok(row.duration_since(start))
}

/// From exec to `ready`.
fn until_ready(tool: &Tool) -> Result<Duration> {
    let mut command = tool.command();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let child = Ends(ready::start(command)?);
    let time = start.elapsed();
    drop(child);
    Ok(time)
}

/// From the end of both ends of a session to the second row, several times.
fn row_delays(tool: &Tool) -> Result<Vec<Duration>> {
    let listener = load::listener()?;
    let terminal = OnTerminal::start(tool)?;
    // Until it is attached nothing shows.
    while terminal.row_within(QUIET)?.is_none() {
        load::one_session(&listener)?;
    }
    let mut delays = Vec::new();
    for _ in 0..DELAYS {
        while terminal.row_within(QUIET)?.is_some() {}
        load::one_session(&listener)?;
        let end = Instant::now();
        // A row that does not come is lost, which is measured elsewhere.
        if terminal.row_within(LATE)?.is_some()
            && let Some(moment) = terminal.row_within(LATE)?
        {
            delays.push(moment.saturating_duration_since(end));
        }
    }
    Ok(delays)
}

/// A tool that writes to a terminal, where every tool shows its rows at once.
struct OnTerminal {
    name: String,
    _child: Ends,
    /// When each row came.
    rows: Receiver<Instant>,
}

/// A process that ends with this value.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // Gone already, perhaps.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl OnTerminal {
    fn start(tool: &Tool) -> Result<Self> {
        let (master, terminal) = terminal().context("cannot make a terminal")?;
        let child = tool
            .command()
            .stdin(Stdio::null())
            .stdout(terminal)
            .stderr(Stdio::null())
            .spawn();
        let child = child.with_context(|| format!("cannot start {}", tool.program().display()))?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || each_row(master, |moment| sender.send(moment).is_ok()));
        Ok(Self {
            name: tool.name.clone(),
            _child: Ends(child),
            rows: receiver,
        })
    }

    /// When the next row came, if one comes within `time`.
    fn row_within(&self, time: Duration) -> Result<Option<Instant>> {
        match self.rows.recv_timeout(time) {
            Ok(moment) => Ok(Some(moment)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("{} has ended", self.name),
        }
    }
}

/// Tells when each row of the load came, until nobody listens or the terminal is gone.
fn each_row(mut master: File, mut tell: impl FnMut(Instant) -> bool) {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        let now = Instant::now();
        text.extend_from_slice(&buffer[..length]);
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        for _ in 0..rows(&text[..whole]) {
            if !tell(now) {
                return;
            }
        }
        text.drain(..whole);
    }
}

/// The two ends of a new terminal: what is written to the second is read from the first.
fn terminal() -> io::Result<(File, OwnedFd)> {
    let (mut master, mut terminal) = (-1, -1);
    // SAFETY: writes two descriptors; the name and the settings are not asked for.
    let status = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut terminal,
            ptr::null_mut(),
            ptr::null(),
            ptr::null(),
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both have just been opened and have no other owner.
    let ends = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(terminal)) };
    for fd in [ends.0.as_raw_fd(), ends.1.as_raw_fd()] {
        // SAFETY: sets a flag of an open descriptor. A tool must not hold its own terminal's other end.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(ends)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
