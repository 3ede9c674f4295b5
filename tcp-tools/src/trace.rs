//! Runs a view on a live stream: drain, format, write, until something ends it.

mod clock;
pub mod snapshot;
mod stop;

use std::{
    fs::File,
    io::{self, Write as _},
    process::ExitStatus,
    time::Duration,
};

use tokio::{process::Child, time::Instant};
use wildmatch::WildMatch;

use crate::{
    event::{DecodeError, Event, decode, decode_all},
    kernel::{self, Losses, Tracer},
    output::{Format, Lines, Value},
    views::{Context, View},
};

pub use self::clock::Clock;
use self::{clock::monotonic_ns, stop::Stop};

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
    if let Some(ready) = bounds.ready {
        tell_ready(ready)?;
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
            tell_losses(&losses, self.view.lines(), &self.intake.context.clock);
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

fn tell_ready(mut ready: File) -> Result<(), Error> {
    ready.write_all(b"ready\n").map_err(Error::Ready)
}

/// Says in the stream what was lost so far, if that is JSON.
fn tell_losses(losses: &Losses, lines: &mut dyn Lines, clock: &Clock) {
    if lines.format() != Format::Json {
        return;
    }
    let now = monotonic_ns();
    let mut fields = vec![
        ("event", Value::Text("lost")),
        ("ts", Value::Rfc3339(clock.wall_ns(now))),
        ("ts_ns", Value::Uint(now)),
    ];
    let causes = losses.causes().into_iter().filter(|(_, count)| *count != 0);
    fields.extend(causes.map(|(name, count)| (name, Value::Uint(count))));
    lines.object(&fields);
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
