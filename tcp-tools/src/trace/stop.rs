//! What ends a trace from outside.

use std::{fs::File, io, os::fd::AsFd as _, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

use crate::{command::Running, signals::Signals};

/// Everything that ends a trace from outside.
pub(super) struct Stop {
    source: Source,
    /// Standard output, if it is something that can be closed at the other end.
    reader: Option<AsyncFd<File>>,
    end: Option<Instant>,
}

/// Signals end a trace, unless there is a command: they are passed on to it, and its end is that of the trace.
enum Source {
    Signals(Signals),
    Command(Running),
}

impl Stop {
    pub(super) fn new(duration: Option<Duration>, command: Option<Running>) -> io::Result<Self> {
        Ok(Self {
            source: match command {
                Some(command) => Source::Command(command),
                None => Source::Signals(Signals::catch()?),
            },
            reader: watch_reader(),
            end: duration.and_then(|duration| Instant::now().checked_add(duration)),
        })
    }

    /// Cancel-safe.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            () = self.source.end() => {}
            () = reader_gone(self.reader.as_ref()) => {}
            () = at(self.end) => {}
        }
    }

    /// The command, if there is one; it may run still.
    pub(super) fn into_command(self) -> Option<Running> {
        match self.source {
            Source::Command(command) => Some(command),
            Source::Signals(_) => None,
        }
    }
}

impl Source {
    async fn end(&mut self) {
        match self {
            Self::Signals(signals) => drop(signals.next().await),
            Self::Command(command) => drop(command.wait().await),
        }
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
