//! Signals that ask for an end: SIGINT, SIGTERM, SIGHUP.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// Whether the last SIGINT came from a terminal: the kernel sent it, not a process.
static FROM_TERMINAL: AtomicBool = AtomicBool::new(false);

/// A signal, and where it came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    /// A terminal sent it, to all processes in its foreground.
    pub(crate) from_terminal: bool,
}

/// These signals, which no longer kill this process.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Must be called within a tokio runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        // Actions run in the order of their registration: the source is known when tokio reports the signal.
        note_source()?;
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Received {
        let received = |signal, from_terminal| Received {
            signal,
            from_terminal,
        };
        tokio::select! {
            _ = self.interrupt.recv() => received(Signal::INT, FROM_TERMINAL.load(Ordering::Relaxed)),
            _ = self.terminate.recv() => received(Signal::TERM, false),
            // A terminal that is gone sends it to the leader of its session alone.
            _ = self.hangup.recv() => received(Signal::HUP, false),
        }
    }
}

fn note_source() -> io::Result<()> {
    // Positive codes are the kernel's (`SI_FROMKERNEL`, include/uapi/asm-generic/siginfo.h).
    let note = |info: &libc::siginfo_t| FROM_TERMINAL.store(info.si_code > 0, Ordering::Relaxed);
    // SAFETY: storing an atomic is async-signal-safe.
    unsafe { signal_hook_registry::register_sigaction(libc::SIGINT, note) }.map(drop)
}
