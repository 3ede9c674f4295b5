//! A tracer that runs, with its output in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::PORT;
use super::proc::{self, Programs};
use super::tool::Tool;

/// How long a tracer may take to come to rest: Python tools compile for seconds, and an emulated
/// processor is ten times slower.
const PATIENCE: Duration = Duration::from_secs(120);

/// A tracer that has used next to no processor time in so many looks, one a tenth of a second, rests.
const LOOKS: u32 = 3;
const LOOK: Duration = Duration::from_millis(100);
const NEXT_TO_NOTHING: Duration = Duration::from_millis(1);

/// A tracer. It ends with this value at the latest.
pub(super) struct Running {
    name: String,
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Running {
    /// Starts `tool` and returns when it is attached: it holds a BPF program and rests. That is the
    /// same for all, whatever they say when.
    ///
    /// # Errors
    /// When it cannot be started or ends before; the message has its last words.
    pub(super) fn start(tool: &Tool, directory: &Path) -> Result<Self> {
        let (output, errors) = (directory.join("output"), directory.join("errors"));
        let child = tool
            .command()
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            .spawn()
            .with_context(|| format!("cannot start {}", tool.program().display()))?;
        let mut running = Self {
            name: tool.name.clone(),
            child,
            output,
            errors,
        };
        running.rest(|pid| Programs::of(pid).count > 0)?;
        Ok(running)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns when it has dealt with all that has happened so far.
    ///
    /// # Errors
    /// When it ends, or does not come to rest.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.rest(|_| true)
    }

    /// Returns when it rests and `also` holds.
    fn rest(&mut self, also: impl Fn(u32) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (mut before, mut rested) = (Duration::ZERO, 0);
        while rested < LOOKS {
            thread::sleep(LOOK);
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}): {}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!("{} does not come to rest", self.name);
            }
            let now = proc::cpu(self.pid())?;
            let rests = now.saturating_sub(before) < NEXT_TO_NOTHING && also(self.pid());
            rested = if rests { rested + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    /// Ends it as ^C does, and returns how many rows it has written of sessions of the load.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub(super) fn stop(mut self) -> Result<u64> {
        self.interrupt()?;
        let text = fs::read(&self.output).context("cannot read the tracer's output")?;
        Ok(rows(&text))
    }

    fn interrupt(&mut self) -> Result<ExitStatus> {
        // SAFETY: takes integers; the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(self.pid().cast_signed(), libc::SIGINT) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} does not end at SIGINT", self.name);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it says nothing").trim().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already, unless something has failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lines that name the port of the load, which stands between spaces in every tool's table.
pub(super) fn rows(text: &[u8]) -> u64 {
    let port = format!(" {PORT} ");
    let is_row = |line: &[u8]| line.windows(port.len()).any(|it| it == port.as_bytes());
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter(|line| is_row(line)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_load() {
        let text = format!(
            "PID COMM LADDR LPORT RADDR RPORT TX_KB RX_KB MS\n\
             1 client 127.0.0.1 40000 127.0.0.1 {PORT}  0.0 0.0 0.1\n\
             1 server 127.0.0.1 {PORT}  127.0.0.1 40000 0.0 0.0 0.1\n\
             2 curl 10.0.0.1 1{PORT} 10.0.0.2 443 0.0 0.0 0.1\n"
        );
        assert_eq!(rows(text.as_bytes()), 2);
    }
}
