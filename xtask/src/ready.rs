//! Starts a trace and learns when it is attached.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};

/// Starts `tcp-tools VIEW`, which `command` is, and returns when everything is attached.
///
/// # Errors
/// When it cannot be started, or ends before.
pub(crate) fn start(mut command: Command) -> Result<Child> {
    let (mut ready, writer) = io::pipe()?;
    make_inheritable(&writer)?;
    command.args(["--ready-fd", &writer.as_raw_fd().to_string()]);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    // The end of the pipe must be the child's alone, or its death would not show here.
    drop(writer);
    let mut text = String::new();
    ready.read_to_string(&mut text)?;
    if text != "ready\n" {
        let status = child.wait()?;
        bail!("tcp-tools did not start to trace: {status}");
    }
    Ok(child)
}

/// Lets a child keep the descriptor; Rust opens all of them to be closed on exec.
fn make_inheritable(descriptor: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: sets a flag of a descriptor that is open for as long as it is borrowed.
    match unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
