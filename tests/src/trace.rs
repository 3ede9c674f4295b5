//! A running `tcp-tools`.

use std::env;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::Value;

use crate::netns::Netns;
use crate::row::{Row, assert_rows, assert_rows_but_for, check_line};
use crate::{PATIENCE, tool, wait_readable};

/// A trace that is attached. It ends with this value at the latest.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    stdout: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    lines: Vec<String>,
    view: &'static str,
    netns: u64,
}

/// What a trace leaves behind.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none when a signal killed it.
    pub code: Option<i32>,
    /// All lines of standard output.
    pub lines: Vec<String>,
    /// Standard error.
    pub stderr: String,
    view: &'static str,
    netns: u64,
}

impl Trace {
    /// `VIEW --json` with `args`; `--netns` keeps what other tests do out of the ring.
    pub fn view(view: &'static str, netns: &Netns, args: &[&str]) -> Self {
        Self::text(view, netns, &[&["--json"], args].concat())
    }

    /// `VIEW --json` with `args`, on all namespaces, as [`Trace::json`] is. The ring has room for what tests
    /// that flood theirs do meanwhile.
    pub fn everywhere(view: &'static str, netns: &Netns, args: &[&str]) -> Self {
        let args = [&["--json", "--buffer-size", "4M"], args].concat();
        Self::spawn(view, netns, &args, |_| {}, usize::MAX)
    }

    /// `VIEW` with `args`, of which `--netns` keeps what other tests do out.
    pub fn text(view: &'static str, netns: &Netns, args: &[&str]) -> Self {
        let inode = netns.inode.to_string();
        let args = [&["--netns", &inode], args].concat();
        Self::spawn(view, netns, &args, |_| {}, usize::MAX)
    }

    /// As [`Trace::view`], on a kernel that seems to lack the function `target`.
    pub fn without(target: &str, view: &'static str, netns: &Netns, args: &[&str]) -> Self {
        let inode = netns.inode.to_string();
        let only = ["--json", "--netns", &inode];
        Self::prepared(view, netns, &[&only, args].concat(), |command| {
            command.env("TCP_TOOLS_REFUSE", target);
        })
    }

    /// `VIEW` with `args` and nothing else, once `prepare` has done something to the command.
    pub fn prepared(
        view: &'static str,
        netns: &Netns,
        args: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        Self::spawn(view, netns, args, prepare, usize::MAX)
    }

    /// `tcplife --json` with `args`. It sees every socket of the machine: what it says of other
    /// namespaces than `netns` is checked for its form and left out.
    pub fn json(netns: &Netns, args: &[&str]) -> Self {
        Self::everywhere("tcplife", netns, args)
    }

    /// `tcplife` with `args`, of which `--netns` keeps other tests' sessions out.
    pub fn only(netns: &Netns, args: &[&str]) -> Self {
        Self::text("tcplife", netns, args)
    }

    /// As [`Trace::only`], into a pipe that is closed after some lines.
    pub fn head(netns: &Netns, args: &[&str], lines: usize) -> Self {
        Self::head_of("tcplife", netns, args, lines)
    }

    /// The same of another view.
    pub fn head_of(view: &'static str, netns: &Netns, args: &[&str], lines: usize) -> Self {
        let inode = netns.inode.to_string();
        let args = [&["--netns", &inode], args].concat();
        Self::spawn(view, netns, &args, |_| {}, lines)
    }

    fn spawn(
        view: &'static str,
        netns: &Netns,
        args: &[&str],
        prepare: impl FnOnce(&mut Command),
        lines: usize,
    ) -> Self {
        let (ready, ready_writer) = std::io::pipe().unwrap();
        let ready_fd = ready_writer.as_raw_fd();
        // First: `args` may end with a command.
        let number = ready_fd.to_string();
        let mut command = run_view(view, &[&["--ready-fd", &number], args].concat());
        // SAFETY: fcntl is async-signal-safe. The child alone keeps the descriptor over exec.
        unsafe {
            command.pre_exec(move || match libc::fcntl(ready_fd, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        drop(ready_writer);
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let stdout = match child.stdout.take() {
            Some(stdout) => read_lines(stdout, lines),
            // `prepare` has sent it elsewhere.
            None => mpsc::channel().1,
        };
        let mut trace = Self {
            child,
            stdout,
            stderr: Some(stderr),
            lines: Vec::new(),
            view,
            netns: netns.inode,
        };
        trace.wait_ready(ready);
        trace
    }

    fn wait_ready(&mut self, mut pipe: PipeReader) {
        wait_readable(pipe.as_fd(), "the trace to be ready");
        let mut line = String::new();
        pipe.read_to_string(&mut line).unwrap();
        if line != "ready\n" {
            let stderr = self.stderr.take().unwrap().join().unwrap();
            panic!("--ready-fd got {line:?}; standard error: {stderr}");
        }
    }

    /// Attends to the rows of another namespace from now on.
    pub fn watch(&mut self, netns: &Netns) {
        self.netns = netns.inode;
    }

    /// Process id of the tool.
    pub fn pid(&self) -> libc::pid_t {
        self.child.id() as libc::pid_t
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child has not been waited for, so the pid is its own.
        let done = unsafe { libc::kill(self.pid(), signal) };
        assert!(done == 0, "kill: {}", std::io::Error::last_os_error());
    }

    /// Stops it (SIGSTOP); back when it stands still.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        let mut status = 0;
        // SAFETY: WUNTRACED reports the stop and leaves the child to be waited for again.
        let pid = unsafe { libc::waitpid(self.pid(), &mut status, libc::WUNTRACED) };
        assert!(
            pid == self.pid() && libc::WIFSTOPPED(status),
            "it ended instead of stopping"
        );
    }

    /// Waits until standard output has had `count` lines.
    pub fn wait_lines(&mut self, count: usize) {
        self.wait("lines", count, |_| true);
    }

    /// Waits until `count` rows of the test's namespace have come.
    pub fn wait_rows(&mut self, count: usize) {
        let (view, netns) = (self.view, self.netns);
        self.wait("rows", count, |line| {
            let row = check_line(line);
            row["event"] == view && row["netns"] == netns
        });
    }

    /// How many rows of the test's namespace have been waited for.
    pub fn rows_so_far(&self) -> usize {
        rows_among(&self.lines, self.view, self.netns).count()
    }

    /// Waits until a row of the test's namespace has come with this value of a field.
    pub fn wait_for_row(&mut self, field: &str, value: &str) {
        let is_it = self.is_row_with(field, value);
        self.wait("rows", 1, is_it);
    }

    /// Waits for a line of another event than the view's rows.
    pub fn wait_for_event(&mut self, event: &str) {
        self.wait(event, 1, |line| check_line(line)["event"] == event);
    }

    /// Whether such a row is among those that were waited for.
    pub fn has_row(&self, field: &str, value: &str) -> bool {
        let is_it = self.is_row_with(field, value);
        self.lines.iter().any(|line| is_it(line))
    }

    fn is_row_with<'a>(&self, field: &'a str, value: &'a str) -> impl Fn(&str) -> bool + use<'a> {
        let (view, netns) = (self.view, self.netns);
        move |line| {
            let row = check_line(line);
            row["event"] == view && row["netns"] == netns && row[field] == value
        }
    }

    fn wait(&mut self, what: &str, count: usize, counts: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut found = self.lines.iter().filter(|line| counts(line)).count();
        while found < count {
            match self
                .stdout
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    found += usize::from(counts(&line));
                    self.lines.push(line);
                }
                Err(error) => self.give_up(&format!("{found} {what} of {count} ({error})")),
            }
        }
    }

    /// Ends the trace, and reports what was wrong with what the tool says was lost: rows that are missing
    /// without a count there were lost in silence.
    fn give_up(&mut self, problem: &str) -> ! {
        self.signal(libc::SIGINT);
        let deadline = Instant::now() + PATIENCE;
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(line) = self.stdout.recv_timeout(left()) {
            self.lines.push(line);
        }
        drop(self.child.kill());
        let stderr = self.stderr.take().map(|reader| reader.join().unwrap());
        let is_lost = |line: &&String| line.contains(r#""event":"lost""#);
        panic!(
            "{problem}; the last `lost` line: {:?}; standard error: {:?}; at its end {} lines: {:#?}",
            self.lines.iter().rfind(is_lost),
            stderr.unwrap_or_default(),
            self.lines.len(),
            self.lines
        )
    }

    /// Waits for the end of standard output, or for the pipe of [`Trace::head`] to be closed.
    pub fn wait_stdout_end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .stdout
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {:#?}", self.lines),
            }
        }
    }

    /// Waits for its own end.
    pub fn wait_end(mut self) -> Ended {
        self.wait_stdout_end();
        wait_exit(self.pid());
        let code = self.child.wait().unwrap().code();
        let stderr = self.stderr.take().unwrap().join().unwrap();
        Ended {
            code,
            lines: std::mem::take(&mut self.lines),
            stderr,
            view: self.view,
            netns: self.netns,
        }
    }

    /// Ends it as ^C does.
    pub fn interrupt(self) -> Ended {
        self.signal(libc::SIGINT);
        self.wait_end()
    }

    /// Waits for as many rows as are expected, ends the trace, and compares all that came.
    ///
    /// # Panics
    /// Unless it exits with 0, says nothing on standard error, and has given these rows exactly.
    pub fn expect(mut self, expected: &[Row]) {
        self.wait_rows(expected.len());
        self.interrupt().assert_rows(expected);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Gone already, unless the test has failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ended {
    /// Exit code 0, nothing on standard error, and so nothing lost; but for what was missed of sessions of other
    /// tests, which run meanwhile: a miss has no namespace. Who misses rows of its own sees that by the rows.
    pub fn assert_clean(&self) {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert!(self.stderr.lines().all(tells_missed), "{}", self.stderr);
    }

    /// As [`Ended::assert_clean`], and these rows.
    pub fn assert_rows(&self, expected: &[Row]) {
        self.assert_clean();
        assert_rows(&self.rows(), expected);
    }

    /// As [`Ended::assert_rows`], but for as many rows as it says that were missed.
    ///
    /// For many sessions of processes that end: their sockets end in whatever process a softirq interrupts, and
    /// there are machines whose kernel runs no program in processes of its own sandbox.
    pub fn assert_rows_or_missed(&self, expected: &[Row]) {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert_rows_but_for(self.missed(), &self.rows(), expected);
    }

    /// How many events it says that it missed.
    pub fn missed(&self) -> usize {
        let missed = self.lost().and_then(|lost| lost["missed"].as_u64());
        missed.unwrap_or(0).try_into().unwrap()
    }

    /// The rows of the test's namespace.
    pub fn rows(&self) -> Vec<Value> {
        rows_among(&self.lines, self.view, self.netns).collect()
    }

    /// How many these are, also where there are more than memory holds.
    pub fn row_count(&self) -> usize {
        rows_among(&self.lines, self.view, self.netns).count()
    }

    /// The lines of another event than the view's rows.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.lines.iter().map(|line| check_line(line));
        lines.filter(|line| line["event"] == event).collect()
    }

    /// The last totals of what was lost, as the stream itself told.
    pub fn lost(&self) -> Option<Value> {
        let mut lines = self.lines.iter().rev().map(|line| check_line(line));
        lines.find(|line| line["event"] == "lost")
    }
}

/// The rows of `view` that are of this network namespace.
fn rows_among(lines: &[String], view: &str, netns: u64) -> impl Iterator<Item = Value> {
    let rows = lines.iter().map(|line| check_line(line));
    rows.filter(move |row| row["event"] == view && row["netns"] == netns)
}

/// Whether it says that events were missed, and nothing else lost.
fn tells_missed(line: &str) -> bool {
    let told = line.strip_prefix("tcp-tools: lost ");
    told.and_then(|told| told.split_once(' '))
        .is_some_and(|(count, rest)| {
            let events = if count == "1" { "event" } else { "events" };
            rest == format!("{events} (missed {count}); missed: the kernel did not run a probe")
        })
}

/// `tcp-tools tcplife ARGS`, with the hook tier that the environment asks for.
pub fn tcplife(args: &[&str]) -> Command {
    run_view("tcplife", args)
}

/// `tcp-tools VIEW ARGS`, with the hook tier that the environment asks for.
pub fn run_view(view: &str, args: &[&str]) -> Command {
    let mut command = Command::new(tool());
    command.arg(view).stdin(Stdio::null());
    // Whoever runs the tests by sudo is not meant to be the one who calls the tool.
    command.env_remove("SUDO_UID").env_remove("SUDO_GID");
    if let Some(tier) = env::var_os("TCP_TOOLS_HOOKS") {
        command.arg("--hooks").arg(tier);
    }
    command.args(args);
    default_signals(&mut command);
    command
}

/// Gives a program the signals as a terminal's shell would: one that runs the tests in the background has them ignored, and
/// what is ignored at its start a shell cannot trap.
pub(crate) fn default_signals(command: &mut Command) {
    const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];
    // SAFETY: signal() is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            for signal in SIGNALS {
                if libc::signal(signal, libc::SIG_DFL) == libc::SIG_ERR {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Waits until the child `pid` is a zombie.
fn wait_exit(pid: libc::pid_t) {
    // SAFETY: pidfd_open gives a new descriptor that has no other owner.
    let pidfd = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd as i32)
    };
    wait_readable(pidfd.as_fd(), "the trace to end");
}

/// The first lines, at most `count`; after them the pipe is closed.
fn read_lines(stdout: ChildStdout, count: usize) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().take(count) {
            if sender.send(line.unwrap()).is_err() {
                break;
            }
        }
        // The pipe is closed by now, and only now the receiver sees the end.
        drop(sender);
    });
    receiver
}
