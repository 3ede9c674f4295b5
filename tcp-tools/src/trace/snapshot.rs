//! Runs a view on snapshots of the sockets: one, or one after another.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Bounds, Ended, Error, Flow, clock::monotonic_ns, stop::Stop, tell_losses, write_out};
use crate::{
    event::{Event, Holders, Socket, decode_all},
    kernel::{Losses, Tracer},
    views::{Context, View},
};

/// Bytes of lines that are written at once.
const CHUNK: usize = 64 << 10;

/// How long a snapshot waits for the names of its addresses.
const NAMES: Duration = Duration::from_secs(2);

/// Shows `view` all sockets and whose they are, once or `every` so often, until a bound is reached, a signal
/// comes or nobody reads any more. `holders` says which processes are wanted.
///
/// # Errors
///
/// As [`super::run`].
pub async fn run(
    tracer: Tracer,
    view: &mut dyn View,
    context: Context,
    bounds: Bounds,
    holders: Holders,
    every: Option<Duration>,
) -> Result<Ended, Error> {
    let mut stop = Stop::new(bounds.duration, bounds.command).map_err(Error::Wait)?;
    if let Some(ready) = bounds.ready {
        super::tell_ready(ready)?;
    }
    let mut camera = Camera {
        tracer,
        view,
        context,
        holders,
        records: Vec::new(),
        rows_left: bounds.max_events.unwrap_or(u64::MAX),
        undecoded: 0,
        reported: Losses::default(),
    };
    camera.view.lines().header();
    let mut ticks = every.map(ticks);
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => break,
            () = tick(ticks.as_mut()) => {}
        }
        let flow = camera.take()?;
        if flow == Flow::Closed || camera.rows_left == 0 || ticks.is_none() {
            break;
        }
    }
    Ok(Ended {
        losses: camera.reported,
        command: stop.into_command(),
    })
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    // A snapshot that takes longer than the interval does not make the next ones come in a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn tick(ticks: Option<&mut Interval>) {
    if let Some(ticks) = ticks {
        ticks.tick().await;
    }
}

struct Camera<'a> {
    tracer: Tracer,
    view: &'a mut dyn View,
    context: Context,
    holders: Holders,
    /// Kept, so that the next snapshot finds the memory of the last.
    records: Vec<u8>,
    rows_left: u64,
    undecoded: u64,
    reported: Losses,
}

impl Camera<'_> {
    /// Holders first, as `ss` has it: a socket that got its owner only then is shown without one.
    fn take(&mut self) -> Result<Flow, Error> {
        self.context.clock.adjust();
        let now = monotonic_ns();
        self.records.clear();
        self.tracer.holders(&mut self.records)?;
        self.undecoded += self.holders.replace(&self.records);
        self.records.clear();
        self.tracer.sockets(&mut self.records)?;
        self.wait_for_names();
        self.view.snapshot(now, &self.context);
        let flow = self.show(now)?;
        self.view.end();
        self.report_losses()?;
        match flow {
            Flow::Open => write_out(self.view),
            Flow::Closed => Ok(flow),
        }
    }

    fn wait_for_names(&mut self) {
        if let Some(names) = &mut self.context.names {
            let addresses = decode_all(&self.records).filter_map(|event| match event {
                Ok(Event::Socket(socket)) => Some([socket.flow.laddr, socket.flow.raddr]),
                _ => None,
            });
            names.wait_for(addresses.flatten().filter(|it| !it.is_unspecified()), NAMES);
        }
    }

    /// All of one snapshot have the time at which it was taken.
    fn show(&mut self, now: u64) -> Result<Flow, Error> {
        for event in decode_all(&self.records) {
            let mut socket = match event {
                Ok(Event::Socket(socket)) => socket,
                Ok(_) => continue,
                Err(error) => {
                    self.undecoded += 1;
                    log::warn!("{error}");
                    continue;
                }
            };
            if self.rows_left == 0 {
                break;
            }
            let wanted = self.holders.give_owner(&mut socket);
            let socket = Socket {
                selected: socket.selected && wanted,
                flow: crate::event::Flow {
                    ts_ns: now,
                    ..socket.flow
                },
                ..socket
            };
            let is_row = self.view.event(Event::Socket(socket), &mut self.context);
            self.rows_left -= u64::from(is_row);
            if self.view.lines().bytes().len() >= CHUNK && write_out(self.view)? == Flow::Closed {
                return Ok(Flow::Closed);
            }
        }
        Ok(Flow::Open)
    }

    fn report_losses(&mut self) -> Result<(), Error> {
        let losses = Losses {
            undecoded: self.undecoded,
            ..self.tracer.losses()?
        };
        if losses != self.reported {
            let new = losses.since(&self.reported);
            self.reported = losses;
            tell_losses(&losses, &new, self.view.lines(), &self.context.clock);
        }
        Ok(())
    }
}
