//! Boots the machine and watches its console until it comes to a verdict.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// The start of the line that init ends with.
const VERDICT: &str = "tcp-tools-vm: verdict ";

/// How a kernel line starts that means the machine is broken, after the time stamp's `] `.
const COMPLAINTS: [&str; 4] = [
    "] Kernel panic",
    "] BUG: ",
    "] Oops: ",
    "] watchdog: BUG: soft lockup",
];

/// A machine that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(180);

/// How long a machine may take to power off, or to end the report of a panic.
const FAREWELL: Duration = Duration::from_secs(20);

/// Only emergencies reach the console, but anything that breaks the kernel becomes one. The
/// watchdog is slow because an emulated CPU of a busy host stands still for seconds. Every start and end
/// of a tool waits for RCU, with everything else idle unless that is expedited.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=1 mitigations=off random.trust_cpu=on \
    panic=-1 oops=panic softlockup_panic=1 watchdog_thresh=60 sysctl.kernel.hung_task_panic=1 \
    rcupdate.rcu_expedited=1";

/// A machine to boot once.
pub(crate) struct Machine {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// In MiB.
    pub(crate) memory: u32,
    pub(crate) kvm: bool,
    /// Emulate one processor whose clock counts its instructions, for figures that do not depend on how
    /// busy this machine is.
    pub(crate) steady: bool,
}

impl Machine {
    /// Boots, prints the console on standard output, and returns the guest's exit status. The
    /// machine has ended when this returns.
    ///
    /// # Errors
    /// When the machine does not come to a verdict within `limit`: the message says why.
    pub(crate) fn run(&self, limit: Duration) -> Result<ExitCode> {
        let mut child = self.start()?;
        let result = watch(&mut child, limit);
        // It has powered off by itself, or has nothing more to say.
        child.kill()?;
        child.wait()?;
        result
    }

    fn start(&self) -> Result<Child> {
        let accelerator: &[&str] = if self.kvm {
            &["-accel", "kvm", "-cpu", "host"]
        } else {
            // One thread for both processors: with one each, QEMU 7.2 may still run an instruction
            // that the other processor has patched. The kernel patches itself for every hook, and
            // then stops with "Oops: int3". Without ERMS the kernel copies and clears eight bytes at a
            // time: QEMU emulates "rep movsb" one byte at a time. Page tables of five levels cost too.
            &[
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max,erms=off,la57=off",
            ]
        };
        let processors: &[&str] = if self.steady {
            &["-smp", "1", "-icount", "shift=0,sleep=off"]
        } else {
            &["-smp", "2"]
        };
        Command::new("qemu-system-x86_64")
            .args(accelerator)
            .args(processors)
            .args(["-m", &self.memory.to_string()])
            .args([
                "-display",
                "none",
                "-monitor",
                "none",
                "-serial",
                "stdio",
                "-no-reboot",
            ])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", COMMAND_LINE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start qemu-system-x86_64")
    }
}

/// Passes the console on until the verdict.
fn watch(child: &mut Child, limit: Duration) -> Result<ExitCode> {
    let lines = console(child)?;
    let deadline = Instant::now() + limit;
    let mut stdout = std::io::stdout().lock();
    loop {
        let line = next_line(&lines, deadline)?;
        if let Some((output, verdict)) = line.split_once(VERDICT) {
            stdout.write_all(output.as_bytes())?;
            return exit_code(verdict);
        }
        writeln!(stdout, "{line}")?;
        if is_complaint(&line) {
            while let Ok(line) = lines.recv_timeout(FAREWELL) {
                writeln!(stdout, "{line}")?;
            }
            bail!("the guest's kernel broke: {line}");
        }
    }
}

fn next_line(lines: &Receiver<String>, deadline: Instant) -> Result<String> {
    let left = deadline.saturating_duration_since(Instant::now());
    lines
        .recv_timeout(left.min(SILENCE))
        .map_err(|end| match end {
            RecvTimeoutError::Disconnected => anyhow!("the guest ended without a verdict"),
            RecvTimeoutError::Timeout if left < SILENCE => {
                anyhow!("no verdict in the time that --timeout gives; the guest was stopped")
            }
            RecvTimeoutError::Timeout => {
                anyhow!(
                    "the guest hangs: no output for {} s; it was stopped",
                    SILENCE.as_secs()
                )
            }
        })
}

fn is_complaint(line: &str) -> bool {
    let starts = COMPLAINTS.iter().any(|complaint| line.contains(complaint));
    starts || line.contains("] INFO: task ") && line.contains(" blocked for more than ")
}

/// `ok`, or `failed` with the exit status of what ran.
fn exit_code(verdict: &str) -> Result<ExitCode> {
    if verdict == "ok" {
        return Ok(ExitCode::SUCCESS);
    }
    let status = verdict
        .strip_prefix("failed ")
        .and_then(|status| status.parse::<u8>().ok());
    let status = status.with_context(|| format!("cannot read the guest's verdict: {verdict}"))?;
    eprintln!("the guest reports failure, exit status {status}");
    Ok(ExitCode::from(status))
}

/// The console's lines; the channel closes when the machine ends.
fn console(child: &mut Child) -> Result<Receiver<String>> {
    let output = child.stdout.take().context("the machine has no console")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        for line in lines {
            let line = String::from_utf8_lossy(&line).replace('\r', "");
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_complaints_are_told_from_other_output() {
        for line in [
            "[    4.2] Kernel panic - not syncing: sysrq triggered crash",
            "half a line[    4.2] BUG: kernel NULL pointer dereference, address: 0",
            "[  130.0] watchdog: BUG: soft lockup - CPU#0 stuck for 123s!",
            "[  130.0] INFO: task sh:1 blocked for more than 120 seconds.",
        ] {
            assert!(is_complaint(line), "{line}");
        }
        for line in [
            "BUG: of a program",
            "[ok] Kernel",
            "[    1.0] INFO: task nobody minds",
        ] {
            assert!(!is_complaint(line), "{line}");
        }
    }

    #[test]
    fn silence_and_a_lost_machine_are_failures() {
        let (sender, lines) = mpsc::channel();
        let late = next_line(&lines, Instant::now()).unwrap_err();
        assert!(late.to_string().contains("--timeout"), "{late}");
        drop(sender);
        let gone = next_line(&lines, Instant::now() + SILENCE).unwrap_err();
        assert!(gone.to_string().contains("without a verdict"), "{gone}");
    }

    #[test]
    fn an_unreadable_verdict_is_an_error() {
        exit_code("failed").unwrap_err();
        exit_code("fine").unwrap_err();
    }
}
