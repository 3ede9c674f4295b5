//! `-- COMMAND`: a child that is known before it begins, and gets the signals that come to this process.
//!
//! The child is started at once, but waits for a word before it becomes the command: its number can be put
//! into the filters first, and nothing that it does is missed. Until then it is this same program.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, PipeWriter, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::ExitStatus,
};

use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, getpgid, getpgrp, kill_process},
    stdio::dup2_stdout,
};
use tokio::process::{Child, Command};

use crate::signals::{Received, Signals};

/// The hidden first argument that makes this program wait and become another; a descriptor follows.
const STAND_IN: &str = "--stand-in-for-command";

/// A child that waits to become its command.
pub struct Waiting {
    child: Child,
    start: PipeWriter,
}

impl Waiting {
    /// Starts the stand-in. What the command writes to its standard output goes to standard error: ours is
    /// for data. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When this program cannot be started a second time.
    pub fn new(command: &[OsString]) -> io::Result<Self> {
        let (word, start) = io::pipe()?;
        fcntl_setfd(&word, FdFlags::empty())?;
        let child = Command::new("/proc/self/exe")
            .arg(STAND_IN)
            .arg(word.as_raw_fd().to_string())
            .args(command)
            .stdout(io::stderr().as_fd().try_clone_to_owned()?)
            .spawn()?;
        Ok(Self { child, start })
    }

    /// Its process id, which the command will keep.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Lets it become the command. From here on signals do not kill this process, but are passed on.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn release(mut self) -> io::Result<Running> {
        let signals = Signals::catch()?;
        self.start.write_all(b"!")?;
        Ok(Running {
            child: self.child,
            signals,
        })
    }
}

/// A command that was started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    signals: Signals,
}

impl Running {
    /// Waits for its end; passes signals on until then. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = self.child.wait() => return status,
                received = self.signals.next() => self.pass_on(received),
            }
        }
    }

    /// Once the trace has ended: closes standard output, whose reader need not wait for the command, and
    /// waits for that. With `kill`, asks it to end if it still runs.
    ///
    /// # Errors
    ///
    /// As [`Running::wait`].
    pub async fn finish(mut self, kill: bool) -> io::Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            let (_, closed) = io::pipe()?;
            dup2_stdout(closed)?;
            if kill {
                self.send(Signal::TERM);
            }
        }
        self.wait().await
    }

    fn pass_on(&self, received: Received) {
        let pid = self.child.id().and_then(to_pid);
        let has_got_it = received.from_terminal && getpgid(pid).is_ok_and(|it| it == getpgrp());
        if !has_got_it {
            self.send(received.signal);
        }
    }

    fn send(&self, signal: Signal) {
        // It has not been waited for, so the number is still its own.
        if let Some(pid) = self.child.id().and_then(to_pid)
            && let Err(error) = kill_process(pid, signal)
        {
            log::warn!("cannot pass a signal on to the command: {error}");
        }
    }
}

fn to_pid(id: u32) -> Option<Pid> {
    Pid::from_raw(id.try_into().ok()?)
}

/// If this process was started as a stand-in, becomes the command; returns only the exit status of failure.
#[must_use]
pub fn stand_in(arguments: &[OsString]) -> Option<u8> {
    match arguments {
        [_, flag, fd, program, rest @ ..] if flag == STAND_IN => {
            Some(become_command(fd, program, rest))
        }
        _ => None,
    }
}

fn become_command(fd: &OsStr, program: &OsStr, arguments: &[OsString]) -> u8 {
    /// As shells have it.
    const CANNOT_RUN: u8 = 126;
    const NOT_FOUND: u8 = 127;
    let word = fd
        .to_str()
        .and_then(|fd| fd.parse().ok())
        .ok_or(io::ErrorKind::InvalidInput);
    let word = word.map_err(io::Error::from).and_then(inherited);
    if word.and_then(|mut word| word.read_exact(&mut [0])).is_err() {
        // Whoever started this has given up, and has said why.
        return CANNOT_RUN;
    }
    let mut command = std::process::Command::new(program);
    let error = match as_invoking_user(&mut command) {
        Ok(()) => command.args(arguments).exec(),
        Err(error) => error,
    };
    eprintln!("tcp-tools: cannot run {}: {error}", program.display());
    if error.kind() == io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        CANNOT_RUN
    }
}

/// Under sudo it is the tool that needs to be root: the command runs as the user who called sudo, with that
/// user's groups and home.
fn as_invoking_user(command: &mut std::process::Command) -> io::Result<()> {
    let id = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) else {
        return Ok(());
    };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if uid.is_root() || !Uid::effective().is_root() {
        return Ok(());
    }
    match User::from_uid(uid)? {
        Some(user) => {
            initgroups(&CString::new(user.name.as_str())?, gid)?;
            command.env("HOME", user.dir);
            command.env("USER", &user.name).env("LOGNAME", &user.name);
        }
        None => setgroups(&[gid])?,
    }
    setgid(gid)?;
    setuid(uid)?;
    Ok(())
}

/// A descriptor that this process was started with, and that is its own from here on.
///
/// # Errors
///
/// When there is no such descriptor, or it is one of the standard streams.
pub fn inherited(fd: i32) -> io::Result<File> {
    // SAFETY: takes an integer.
    if fd <= libc::STDERR_FILENO || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and nothing else in this process knows of it: it was passed for this purpose.
    let file = unsafe { File::from_raw_fd(fd) };
    fcntl_setfd(&file, FdFlags::CLOEXEC)?;
    Ok(file)
}

/// The status to exit with after a child, as shells have it.
#[must_use]
pub fn exit_code(status: ExitStatus) -> u8 {
    const SIGNALED: i32 = 128;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| SIGNALED + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
