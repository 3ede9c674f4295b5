//! Runs a view on a live stream: drain, format, write, until something ends it.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tcp_ebpf::wire;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use crate::{
    event::decode,
    kernel::{self, Losses, Tracer},
    output::{Format, Value},
    views::View,
};

/// How long the stream may take, and what is expected of it.
#[derive(Debug, Default)]
pub struct Bounds {
    /// End after this time.
    pub duration: Option<Duration>,
    /// End after this many rows.
    pub max_events: Option<u64>,
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
    fn new() -> Self {
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
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: takes a valid pointer, and this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Runs `view` on what `tracer` sees, until a bound is reached, a signal comes or nobody reads any more;
/// then writes what is left, and returns what was lost.
///
/// # Errors
///
/// When rows cannot be written (other than to a closed pipe, which is an end like any other), or the kernel
/// does not give what it should.
pub async fn run(tracer: Tracer, view: &mut dyn View, bounds: Bounds) -> Result<Losses, Error> {
    let mut stream = Stream {
        tracer,
        view,
        clock: Clock::new(),
        rows_left: bounds.max_events.unwrap_or(u64::MAX),
        undecoded: 0,
        reported: Losses::default(),
        next_check: Instant::now(),
    };
    stream.view.lines().header();
    let mut flow = write_out(stream.view)?;
    // From here on signals do not kill, so whoever waits for `ready` may send one.
    let mut stop = Stop::new(bounds.duration).map_err(Error::Wait)?;
    if let Some(mut ready) = bounds.ready {
        ready.write_all(b"ready\n").map_err(Error::Ready)?;
    }
    while flow == Flow::Open && stream.rows_left > 0 {
        tokio::select! {
            biased;
            () = stop.wait() => break,
            ready = stream.tracer.ring.readable() => ready.map_err(Error::Wait)?,
        }
        flow = stream.drain()?;
    }
    stream.finish(flow)
}

/// Whether somebody still reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Closed,
}

struct Stream<'a> {
    tracer: Tracer,
    view: &'a mut dyn View,
    clock: Clock,
    rows_left: u64,
    undecoded: u64,
    reported: Losses,
    next_check: Instant,
}

impl Stream<'_> {
    /// One drain of the ring, one write.
    fn drain(&mut self) -> Result<Flow, Error> {
        self.clock.adjust();
        let Self {
            tracer,
            view,
            clock,
            rows_left,
            undecoded,
            ..
        } = self;
        tracer
            .ring
            .drain(|record| take(*view, record, clock, rows_left, undecoded));
        if Instant::now() >= self.next_check {
            self.next_check = Instant::now() + Duration::from_secs(1);
            self.report_losses()?;
        }
        write_out(self.view)
    }

    /// Loss is told when it happens, in the stream if that is JSON.
    fn report_losses(&mut self) -> Result<Losses, Error> {
        let losses = Losses {
            undecoded: self.undecoded,
            ..self.tracer.losses()?
        };
        if losses != self.reported {
            self.reported = losses;
            let lines = self.view.lines();
            if lines.format() == Format::Json {
                let now = monotonic_ns();
                let mut fields = vec![
                    ("event", Value::Text("lost")),
                    ("ts", Value::Rfc3339(self.clock.wall_ns(now))),
                    ("ts_ns", Value::Uint(now)),
                ];
                let causes = losses.causes().into_iter().filter(|(_, count)| *count != 0);
                fields.extend(causes.map(|(name, count)| (name, Value::Uint(count))));
                lines.object(&fields);
            }
        }
        Ok(losses)
    }

    /// Detaches, and writes what is left: waiting records, sessions still open, the summary.
    fn finish(mut self, mut flow: Flow) -> Result<Losses, Error> {
        self.tracer.detach();
        if self.rows_left > 0 && flow == Flow::Open {
            flow = self.drain()?;
            let open = self.tracer.open_sessions()?;
            for record in open.chunks(size_of::<wire::Session>()) {
                let Self {
                    view,
                    clock,
                    rows_left,
                    undecoded,
                    ..
                } = &mut self;
                take(*view, record, clock, rows_left, undecoded);
            }
        }
        self.view.end();
        let losses = self.report_losses()?;
        if flow == Flow::Open {
            write_out(self.view)?;
        }
        Ok(losses)
    }
}

fn take(
    view: &mut dyn View,
    record: &[u8],
    clock: &Clock,
    rows_left: &mut u64,
    undecoded: &mut u64,
) {
    if *rows_left == 0 {
        return;
    }
    match decode(record) {
        Ok(event) => *rows_left -= u64::from(view.event(event, clock)),
        Err(error) => {
            *undecoded += 1;
            log::warn!("{error}");
        }
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
    signals: [Signal; 3],
    /// Standard output, if it is something that can be closed at the other end.
    reader: Option<AsyncFd<File>>,
    end: Option<Instant>,
}

impl Stop {
    fn new(duration: Option<Duration>) -> io::Result<Self> {
        Ok(Self {
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
            reader: watch_reader(),
            end: duration.and_then(|duration| Instant::now().checked_add(duration)),
        })
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = reader_gone(self.reader.as_ref()) => {}
            () = at(self.end) => {}
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

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
