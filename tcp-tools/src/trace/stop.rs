//! What ends a trace from outside.

use std::{fs::File, io, os::fd::AsFd as _, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::Child,
    signal::unix::{SignalKind, signal},
    time::Instant,
};

/// Everything that ends a trace from outside.
pub(super) struct Stop {
    signals: [tokio::signal::unix::Signal; 3],
    /// Standard output, if it is something that can be closed at the other end.
    reader: Option<AsyncFd<File>>,
    end: Option<Instant>,
    child: Option<Child>,
}

impl Stop {
    pub(super) fn new(duration: Option<Duration>, child: Option<Child>) -> io::Result<Self> {
        Ok(Self {
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
            reader: watch_reader(),
            end: duration.and_then(|duration| Instant::now().checked_add(duration)),
            child,
        })
    }

    /// Cancel-safe.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            () = any(&mut self.signals) => {}
            () = reader_gone(self.reader.as_ref()) => {}
            () = at(self.end) => {}
            () = child_gone(self.child.as_mut()) => {}
        }
    }

    /// Asks the child to end if it still runs, and waits for it; another signal ends it for good.
    pub(super) async fn end_child(&mut self) -> io::Result<Option<ExitStatus>> {
        let Self { signals, child, .. } = self;
        let Some(child) = child else { return Ok(None) };
        if let (None, Some(id)) = (child.try_wait()?, child.id()) {
            // It has not been waited for, so the number is still its own.
            let id = i32::try_from(id).ok().and_then(Pid::from_raw);
            id.map(|id| kill_process(id, Signal::TERM)).transpose()?;
        }
        tokio::select! {
            status = child.wait() => return status.map(Some),
            () = any(signals) => {}
        }
        child.start_kill()?;
        child.wait().await.map(Some)
    }
}

async fn any([interrupt, terminate, hangup]: &mut [tokio::signal::unix::Signal; 3]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

async fn child_gone(child: Option<&mut Child>) {
    match child {
        Some(child) => drop(child.wait().await),
        None => std::future::pending().await,
    }
}

/// A quiet trace would otherwise notice a closed pipe only at its next row. Files cannot be watched, and
/// need not be.
fn watch_reader() -> Option<AsyncFd<File>> {
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().ok()?);
    // SAFETY: the file owns its descriptor, and the `AsyncFd` owns the file.
    unsafe { AsyncFd::register_with_interest(stdout, Interest::ERROR) }.ok()
}

async fn reader_gone(reader: Option<&AsyncFd<File>>) {
    match reader {
        Some(reader) => drop(reader.ready(Interest::ERROR).await),
        None => std::future::pending().await,
    }
}

pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
