//! Runs a view on a live stream: drain, format, write, until something ends it.
//!
//! A view that takes stock is also shown all open sockets once an interval; one that would rather be seen in
//! place is, where somebody looks.

mod clock;
mod resets;
pub mod snapshot;
mod stock;
mod stop;

use std::{
    fs::File,
    io::{self, Write as _},
    time::Duration,
};

use tokio::time::Instant;
use wildmatch::WildMatch;

use crate::{
    command::Running,
    event::{DecodeError, Event, decode, decode_all},
    kernel::{self, Losses, Point, Tracer},
    output::{Format, Lines, Value},
    terminal::{Input, Terminal},
    views::{Context, Reaction, View},
};

pub use self::clock::Clock;
use self::{
    clock::monotonic_ns,
    resets::Resets,
    stock::Stock,
    stop::{Stop, at},
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
    /// End when this command does.
    pub command: Option<Running>,
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
    /// The terminal does not do as it is told.
    #[error("cannot use the terminal: {0}; -C does without, and lets lines follow one another")]
    Terminal(io::Error),
}

/// How a trace ended.
#[derive(Debug)]
pub struct Ended {
    /// What was lost.
    pub losses: Losses,
    /// The command, which may run still.
    pub command: Option<Running>,
}

/// Runs `view` on what `tracer` sees, until a bound is reached, a signal comes or nobody reads any more;
/// then writes what is left. With a command, signals are its own business, and its end is that of the trace.
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
    // So many rows are so many lines; and what a command says would spoil a picture.
    let in_place =
        view.picture().is_some() && bounds.max_events.is_none() && bounds.command.is_none();
    // From here on signals do not kill, so whoever waits for `ready` may send one, and the terminal may be taken.
    let mut stop = Stop::new(bounds.duration, bounds.command).map_err(Error::Wait)?;
    let terminal = if in_place {
        Terminal::take().map_err(Error::Terminal)?
    } else {
        None
    };
    let mut stream = Stream {
        intake: Intake {
            context,
            // Without the point none is reported, and nothing need wait.
            resets: tracer.has(Point::Reset).then(Resets::default),
            comm: bounds.comm,
            rows_left: bounds.max_events.unwrap_or(u64::MAX),
            undecoded: 0,
        },
        tracer,
        reported: Losses::default(),
        check: None,
        stock: view.pace().map(Stock::new),
        terminal,
        view,
    };
    stream.view.start(monotonic_ns());
    let mut flow = write_out(stream.view)?;
    stream.draw()?;
    if let Some(ready) = bounds.ready {
        tell_ready(ready)?;
    }
    while flow == Flow::Open && !stream.is_complete() {
        let (next_stock, check) = (stream.stock.as_ref().map(|stock| stock.next), stream.check);
        let resets = stream.intake.resets.as_ref().and_then(Resets::due);
        flow = tokio::select! {
            biased;
            () = stop.wait() => break,
            input = input(stream.terminal.as_mut()) => {
                if stream.react(input.map_err(Error::Wait)?)? == Reaction::Quit {
                    break;
                }
                flow
            }
            () = at(next_stock) => stream.take_stock()?,
            () = at(check) => stream.check_losses()?,
            () = at(resets) => stream.release_expired()?,
            ready = stream.tracer.ring.readable() => {
                ready.map_err(Error::Wait)?;
                stream.drain()?
            }
        };
    }
    // The last picture stays, as lines.
    if stream.terminal.take().is_some() {
        stream.stock = None;
        stream.write_interval();
        write_out(stream.view)?;
    }
    let losses = stream.finish(flow)?;
    Ok(Ended {
        losses,
        command: stop.into_command(),
    })
}

async fn input(terminal: Option<&mut Terminal>) -> io::Result<Input> {
    match terminal {
        Some(terminal) => terminal.input().await,
        None => std::future::pending().await,
    }
}

/// Whether somebody still reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Closed,
}

/// Records that become lines before these are written: some 100 kB of JSON.
const BATCH: usize = 256;

/// What lies between a record and its row.
struct Intake {
    context: Context,
    resets: Option<Resets>,
    comm: Option<WildMatch>,
    rows_left: u64,
    undecoded: u64,
}

impl Intake {
    fn take(&mut self, view: &mut dyn View, event: Result<Event, DecodeError>) {
        match event {
            Ok(event) => {
                let ready = match &mut self.resets {
                    Some(resets) => resets.take(event),
                    None => Some(event),
                };
                if let Some(event) = ready {
                    self.show(view, event);
                }
            }
            Err(error) => {
                self.undecoded += 1;
                log::warn!("{error}");
            }
        }
    }

    fn show(&mut self, view: &mut dyn View, event: Event) {
        if self.rows_left > 0 && self.wants(&event) {
            self.rows_left -= u64::from(view.event(event, &mut self.context));
        }
    }

    /// Shows the sessions that `next` gives of those that wait for a RST.
    fn release(&mut self, view: &mut dyn View, next: impl Fn(&mut Resets) -> Option<Event>) {
        while let Some(event) = self.resets.as_mut().and_then(&next) {
            self.show(view, event);
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let Some(pattern) = &self.comm else {
            return true;
        };
        let Some(flow) = event.flow() else {
            // Whether it is wanted was seen when it was shown.
            return true;
        };
        flow.owner
            .as_ref()
            .is_some_and(|owner| pattern.matches(&String::from_utf8_lossy(owner.comm())))
    }
}

struct Stream<'a> {
    tracer: Tracer,
    view: &'a mut dyn View,
    intake: Intake,
    reported: Losses,
    /// When losses are looked for: only if something has happened since that was done last.
    check: Option<Instant>,
    stock: Option<Stock>,
    terminal: Option<Terminal>,
}

impl Stream<'_> {
    fn is_complete(&self) -> bool {
        self.intake.rows_left == 0 || self.stock.as_ref().is_some_and(Stock::is_complete)
    }

    /// One drain of the ring, one write; more of both where there is much, so that what waits to be written takes
    /// no more room than that.
    fn drain(&mut self) -> Result<Flow, Error> {
        while self.drain_batch() == BATCH {
            if write_out(self.view)? == Flow::Closed {
                return Ok(Flow::Closed);
            }
        }
        self.check
            .get_or_insert_with(|| Instant::now() + Duration::from_secs(1));
        write_out(self.view)
    }

    fn check_losses(&mut self) -> Result<Flow, Error> {
        self.check = None;
        self.report_losses()?;
        write_out(self.view)
    }

    /// A RST that is reported already still counts.
    fn release_expired(&mut self) -> Result<Flow, Error> {
        let now_ns = monotonic_ns();
        while self.drain_batch() == BATCH {}
        self.intake
            .release(self.view, |resets| resets.expired(now_ns));
        write_out(self.view)
    }

    fn drain_batch(&mut self) -> usize {
        self.intake.context.clock.adjust();
        let (view, intake) = (&mut *self.view, &mut self.intake);
        let ring = &mut self.tracer.ring;
        ring.drain(BATCH, |record| intake.take(view, decode(record)))
    }

    /// Ends an interval.
    fn take_stock(&mut self) -> Result<Flow, Error> {
        self.look_around()?;
        // What was closed meanwhile is told by now.
        while self.drain_batch() == BATCH {}
        self.show_interval()
    }

    fn look_around(&mut self) -> Result<(), Error> {
        let (view, intake) = (&mut *self.view, &mut self.intake);
        match &mut self.stock {
            Some(stock) => stock.take(&self.tracer, |event| intake.take(view, event)),
            None => Ok(()),
        }
    }

    fn show_interval(&mut self) -> Result<Flow, Error> {
        self.view.interval(monotonic_ns());
        self.draw()?;
        if self.terminal.is_none() {
            self.write_interval();
            self.report_losses()?;
        }
        write_out(self.view)
    }

    fn write_interval(&mut self) {
        let Intake {
            context, rows_left, ..
        } = &mut self.intake;
        *rows_left -= self.view.rows(*rows_left, context);
    }

    fn draw(&mut self) -> Result<(), Error> {
        if let (Some(terminal), Some(picture)) = (&mut self.terminal, self.view.picture()) {
            let (width, height) = terminal.size();
            let lines = picture.draw(width, height, &mut self.intake.context);
            terminal.draw(&lines).map_err(Error::Terminal)?;
        }
        Ok(())
    }

    /// To what somebody does at the terminal.
    fn react(&mut self, input: Input) -> Result<Reaction, Error> {
        let reaction = match (input, self.view.picture()) {
            (Input::Key(key), Some(picture)) => picture.key(key),
            _ => Reaction::Redraw,
        };
        if reaction == Reaction::Redraw {
            self.draw()?;
        }
        Ok(reaction)
    }

    /// Loss is told when it happens, in the stream if that is JSON.
    fn report_losses(&mut self) -> Result<Losses, Error> {
        let losses = Losses {
            undecoded: self.intake.undecoded,
            ..self.tracer.losses()?
        };
        if losses != self.reported {
            let new = losses.since(&self.reported);
            self.reported = losses;
            tell_losses(&losses, &new, self.view.lines(), &self.intake.context.clock);
        }
        Ok(losses)
    }

    /// Detaches, and writes what is left: waiting records, what is open still or moved in the interval that was
    /// cut short, the summary.
    fn finish(mut self, mut flow: Flow) -> Result<Losses, Error> {
        let reads = flow != Flow::Closed && !self.is_complete();
        if reads {
            // While closes are told still: those that this misses are.
            self.look_around()?;
        }
        self.tracer.detach();
        if reads {
            flow = self.drain()?;
            self.intake.release(self.view, Resets::pop);
            if self.stock.is_some() {
                flow = self.show_interval()?;
            } else {
                self.show_open()?;
            }
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

    fn show_open(&mut self) -> Result<(), Error> {
        let mut open = Vec::new();
        self.tracer.open_sockets(&mut open)?;
        decode_all(&open).for_each(|event| self.intake.take(self.view, event));
        Ok(())
    }
}

fn tell_ready(mut ready: File) -> Result<(), Error> {
    ready.write_all(b"ready\n").map_err(Error::Ready)
}

/// Says in the stream what was lost so far, and what of that is new, if that is JSON.
fn tell_losses(losses: &Losses, new: &Losses, lines: &mut dyn Lines, clock: &Clock) {
    if lines.format() != Format::Json {
        return;
    }
    let now = monotonic_ns();
    let mut fields = vec![
        ("event", Value::Text("lost")),
        ("ts", Value::Rfc3339(clock.wall_ns(now))),
        ("ts_ns", Value::Uint(now)),
    ];
    let totals = losses.causes().map(|(cause, count)| (cause.total, count));
    let steps = new.causes().map(|(cause, count)| (cause.step, count));
    let sums = [("total", losses.total()), ("new", new.total())];
    let counts = totals.chain(sums).chain(steps);
    fields.extend(counts.map(|(name, count)| (name, Value::Uint(count))));
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
