//! Runs a view on a live stream: drain, format, write, until something ends it.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::ExitStatus,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::Child,
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use wildmatch::WildMatch;

use crate::{
    event::{DecodeError, Event, decode, decode_all},
    kernel::{self, Losses, Tracer},
    output::{Format, Value},
    views::{Context, View},
};

/// How long the stream may take, and what is wanted of it.
#[derive(Default)]
pub struct Bounds {
    /// End after this time.
    pub duration: Option<Duration>,
    /// End after this many rows.
    pub max_events: Option<u64>,
    /// Only events of processes with such a name.
    pub comm: Option<WildMatch>,
    /// End when this process does.
    pub child: Option<Child>,
    /// Told once that everything is attached.
    pub ready: Option<File>,
}

/// Why a trace failed while it ran.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel's side.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Rows cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// Nobody can be told that the trace is ready.
    #[error("cannot write to the descriptor of --ready-fd: {0}")]
    Ready(io::Error),
    /// Signals or the ring buffer cannot be waited on.
    #[error("cannot wait for events: {0}")]
    Wait(io::Error),
}

/// Relates the kernel's clock to those of people.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start_ns: u64,
    offset_ns: u64,
}

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        let mut clock = Self {
            start_ns: monotonic_ns(),
            offset_ns: 0,
        };
        clock.adjust();
        clock
    }

    /// The wall clock may have been set meanwhile.
    fn adjust(&mut self) {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        self.offset_ns = wall_ns.wrapping_sub(monotonic_ns());
    }

    /// Since the epoch, of a moment on `CLOCK_MONOTONIC`; ns.
    #[must_use]
    pub fn wall_ns(&self, ts_ns: u64) -> u64 {
        ts_ns.wrapping_add(self.offset_ns)
    }

    /// Since the trace began, of a moment on `CLOCK_MONOTONIC`; ns.
    #[must_use]
    pub fn elapsed_ns(&self, ts_ns: u64) -> u64 {
        ts_ns.saturating_sub(self.start_ns)
    }
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// How a trace ended.
#[derive(Debug)]
pub struct Ended {
    /// What was lost.
    pub losses: Losses,
    /// Of the process that was waited for.
    pub status: Option<ExitStatus>,
}

/// Runs `view` on what `tracer` sees, until a bound is reached, a signal comes or nobody reads any more;
/// then writes what is left. A child that still runs is asked to end, and waited for.
///
/// # Errors
///
/// When rows cannot be written (other than to a closed pipe, which is an end like any other), or the kernel
/// does not give what it should.
pub async fn run(
    tracer: Tracer,
    view: &mut dyn View,
    context: Context,
    bounds: Bounds,
) -> Result<Ended, Error> {
    let mut stream = Stream {
        tracer,
        view,
        intake: Intake {
            context,
            comm: bounds.comm,
            rows_left: bounds.max_events.unwrap_or(u64::MAX),
            undecoded: 0,
        },
        reported: Losses::default(),
        next_check: Instant::now(),
    };
    stream.view.lines().header();
    let mut flow = write_out(stream.view)?;
    // From here on signals do not kill, so whoever waits for `ready` may send one.
    let mut stop = Stop::new(bounds.duration, bounds.child).map_err(Error::Wait)?;
    if let Some(mut ready) = bounds.ready {
        ready.write_all(b"ready\n").map_err(Error::Ready)?;
    }
    while flow == Flow::Open && stream.intake.rows_left > 0 {
        tokio::select! {
            biased;
            () = stop.wait() => break,
            ready = stream.tracer.ring.readable() => ready.map_err(Error::Wait)?,
        }
        flow = stream.drain()?;
    }
    let status = stop.end_child().await.map_err(Error::Wait)?;
    let losses = stream.finish(flow)?;
    Ok(Ended { losses, status })
}

/// Whether somebody still reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Closed,
}

/// What lies between a record and its row.
struct Intake {
    context: Context,
    comm: Option<WildMatch>,
    rows_left: u64,
    undecoded: u64,
}

impl Intake {
    fn take(&mut self, view: &mut dyn View, event: Result<Event, DecodeError>) {
        match event {
            Ok(event) if self.rows_left > 0 && self.wants(&event) => {
                self.rows_left -= u64::from(view.event(event, &mut self.context));
            }
            Ok(_) => {}
            Err(error) => {
                self.undecoded += 1;
                log::warn!("{error}");
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let Some(pattern) = &self.comm else {
            return true;
        };
        let owner = event.flow().owner.as_ref();
        owner.is_some_and(|owner| pattern.matches(&String::from_utf8_lossy(owner.comm())))
    }
}

struct Stream<'a> {
    tracer: Tracer,
    view: &'a mut dyn View,
    intake: Intake,
    reported: Losses,
    next_check: Instant,
}

impl Stream<'_> {
    /// One drain of the ring, one write.
    fn drain(&mut self) -> Result<Flow, Error> {
        self.intake.context.clock.adjust();
        let Self {
            tracer,
            view,
            intake,
            ..
        } = self;
        tracer
            .ring
            .drain(|record| intake.take(*view, decode(record)));
        if Instant::now() >= self.next_check {
            self.next_check = Instant::now() + Duration::from_secs(1);
            self.report_losses()?;
        }
        write_out(self.view)
    }

    /// Loss is told when it happens, in the stream if that is JSON.
    fn report_losses(&mut self) -> Result<Losses, Error> {
        let losses = Losses {
            undecoded: self.intake.undecoded,
            ..self.tracer.losses()?
        };
        if losses != self.reported {
            self.reported = losses;
            let lines = self.view.lines();
            if lines.format() == Format::Json {
                let now = monotonic_ns();
                let mut fields = vec![
                    ("event", Value::Text("lost")),
                    ("ts", Value::Rfc3339(self.intake.context.clock.wall_ns(now))),
                    ("ts_ns", Value::Uint(now)),
                ];
                let causes = losses.causes().into_iter().filter(|(_, count)| *count != 0);
                fields.extend(causes.map(|(name, count)| (name, Value::Uint(count))));
                lines.object(&fields);
            }
        }
        Ok(losses)
    }

    /// Detaches, and writes what is left: waiting records, what is open still, the summary.
    fn finish(mut self, mut flow: Flow) -> Result<Losses, Error> {
        self.tracer.detach();
        if self.intake.rows_left > 0 && flow == Flow::Open {
            flow = self.drain()?;
            let open = self.tracer.open_sockets()?;
            decode_all(&open).for_each(|event| self.intake.take(self.view, event));
        }
        self.view.end();
        let losses = self.report_losses()?;
        let (submitted, filtered) = self.tracer.submitted_and_filtered()?;
        log::debug!("the programs submitted {submitted} records; filters kept out {filtered}");
        if flow == Flow::Open {
            write_out(self.view)?;
        }
        Ok(losses)
    }
}

/// All lines that wait, in one write.
fn write_out(view: &mut dyn View) -> Result<Flow, Error> {
    let lines = view.lines();
    let written = io::stdout()
        .lock()
        .write_all(lines.bytes())
        .and_then(|()| io::stdout().flush());
    lines.clear();
    match written {
        Ok(()) => Ok(Flow::Open),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Flow::Closed),
        Err(error) => Err(Error::Output(error)),
    }
}

/// Everything that ends a trace from outside.
struct Stop {
    signals: [tokio::signal::unix::Signal; 3],
    /// Standard output, if it is something that can be closed at the other end.
    reader: Option<AsyncFd<File>>,
    end: Option<Instant>,
    child: Option<Child>,
}

impl Stop {
    fn new(duration: Option<Duration>, child: Option<Child>) -> io::Result<Self> {
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
    async fn wait(&mut self) {
        tokio::select! {
            () = any(&mut self.signals) => {}
            () = reader_gone(self.reader.as_ref()) => {}
            () = at(self.end) => {}
            () = child_gone(self.child.as_mut()) => {}
        }
    }

    /// Asks the child to end if it still runs, and waits for it; another signal ends it for good.
    async fn end_child(&mut self) -> io::Result<Option<ExitStatus>> {
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

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
