//! The command line: from arguments to a trace, from its end to an exit code.

pub mod common;
mod doctor;
mod parse;
mod schema;

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind};

use crate::{
    command::{self, Waiting},
    confine::{Later, confine},
    enrich::{Containers, Hierarchy, Names},
    event::Holders,
    kernel::{Losses, Tracer},
    trace::{self, Bounds, Clock},
    views::{
        Context as ViewContext, Needs, Source, View, sockets, tcpaccept, tcpconnect, tcplife,
        tcpretrans, tcptop,
    },
};

/// Everything went well.
const OK: u8 = 0;
/// It could not run, or broke.
const FAILED: u8 = 1;
/// Something was lost, under `--strict`.
const LOST: u8 = 3;

/// Live TCP views of this host
///
/// Exit codes: 0 fine (also after Ctrl-C or when the reader of a pipe leaves), or the status of -- COMMAND; 1 it
/// could not run, 2 wrong options, 3 events were lost under --strict.
#[derive(Debug, Parser)]
// The name is also that of a link.
#[command(version, bin_name = "tcp-tools", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// TCP sessions with their duration and bytes, as they end
    Tcplife(tcplife::Args),
    /// Outgoing connections (connect) and their result
    Tcpconnect(tcpconnect::Args),
    /// Accepted connections, with time in the accept queue
    Tcpaccept(tcpaccept::Args),
    /// TCP retransmissions
    Tcpretrans(tcpretrans::Args),
    /// Throughput by connection and process, once an interval
    Tcptop(tcptop::Args),
    /// TCP sockets as they are now, and who holds them
    Sockets(sockets::Args),
    /// The JSON Schema of a view's lines, or of all
    Schema(schema::Args),
    /// What this kernel offers, and what each view lacks
    Doctor(doctor::Args),
}

/// Short options that depend on the view, because runbooks and fingers know them so from bcc.
const SHORT: &[(&str, &[(&str, char)])] = &[
    ("tcplife", tcplife::SHORT),
    ("tcpconnect", tcpconnect::SHORT),
    ("tcpaccept", tcpaccept::SHORT),
    ("tcpretrans", tcpretrans::SHORT),
    ("tcptop", tcptop::SHORT),
];

/// Options that a view of snapshots does not use: it stores no events.
const HIDDEN: &[(&str, &[&str])] = &[("sockets", &["buffer_size", "max_sockets"])];

/// Runs the command that the process's arguments ask for.
#[must_use]
pub fn main() -> ExitCode {
    let given: Vec<_> = std::env::args_os().collect();
    if let Some(code) = command::stand_in(&given) {
        return ExitCode::from(code);
    }
    let matches = definition().get_matches_from(arguments(given));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let done = match &cli.command {
        Command::Schema(args) => schema::run(args),
        Command::Doctor(args) => doctor::run(args),
        view => view.view().map_or(Ok(OK), |(args, view)| match view {
            Ok(mut view) => run(args, &mut *view),
            Err(problem) => usage(&problem),
        }),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tcp-tools: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

pub(crate) fn definition() -> clap::Command {
    let cli = SHORT.iter().fold(Cli::command(), |cli, (view, options)| {
        cli.mut_subcommand(view, |view| {
            options.iter().fold(view, |view, (option, short)| {
                view.mut_arg(option, |arg| arg.short(*short))
            })
        })
    });
    HIDDEN.iter().fold(cli, |cli, (view, options)| {
        cli.mut_subcommand(view, |view| {
            options.iter().fold(view, |view, option| {
                view.mut_arg(option, |arg| arg.hide(true))
            })
        })
    })
}

/// A view's name as the program's own name (through a link) stands for the command.
fn arguments(given: Vec<OsString>) -> Vec<OsString> {
    let name = given
        .first()
        .and_then(|program| Path::new(program).file_name()?.to_str());
    let command = name.filter(|name| definition().find_subcommand(name).is_some());
    let command = command.map(OsString::from);
    let mut given = given.into_iter();
    given
        .next()
        .into_iter()
        .chain(command)
        .chain(given)
        .collect()
}

/// Ends the process as clap does for options that make no sense.
fn usage(problem: &dyn std::fmt::Display) -> ! {
    definition()
        .error(ErrorKind::ValueValidation, problem)
        .exit()
}

/// A view with the options that all share, or why its options make no sense.
type Chosen<'a> = (&'a common::Args, Result<Box<dyn View>, String>);

impl Command {
    /// The view that it runs, if it runs one.
    fn view(&self) -> Option<Chosen<'_>> {
        fn boxed<V: View + 'static>(
            view: Result<V, impl std::fmt::Display>,
        ) -> Result<Box<dyn View>, String> {
            match view {
                Ok(view) => Ok(Box::new(view)),
                Err(problem) => Err(problem.to_string()),
            }
        }
        Some(match self {
            Self::Tcplife(args) => (&args.common, boxed(tcplife::Tcplife::new(args))),
            Self::Tcpconnect(args) => (&args.common, boxed(tcpconnect::Tcpconnect::new(args))),
            Self::Tcpaccept(args) => (&args.common, boxed(tcpaccept::Tcpaccept::new(args))),
            Self::Tcpretrans(args) => (&args.common, boxed(tcpretrans::Tcpretrans::new(args))),
            Self::Tcptop(args) => (&args.common, boxed(tcptop::Tcptop::new(args))),
            Self::Sockets(args) => (&args.common, boxed(sockets::Sockets::new(args))),
            Self::Schema(_) | Self::Doctor(_) => return None,
        })
    }
}

/// Each view by its name, and what it needs without any options.
fn views() -> impl Iterator<Item = (&'static str, Needs)> {
    schema::VIEWS.into_iter().filter_map(|name| {
        let matches = definition()
            .try_get_matches_from(["tcp-tools", name])
            .ok()?;
        let cli = Cli::from_arg_matches(&matches).ok()?;
        let (_, view) = cli.command.view()?;
        Some((name, view.ok()?.needs()))
    })
}

fn run(args: &common::Args, view: &mut dyn View) -> anyhow::Result<u8> {
    let level = args.kernel.start_log();
    let needs = view.needs();
    let hierarchy = Hierarchy::find();
    let mut filter = args
        .filter
        .to_filter(&needs, hierarchy.as_ref())
        .unwrap_or_else(|problem| usage(&problem));
    let ready = args.bounds.ready_fd.map(|fd| {
        command::inherited(fd).with_context(|| format!("--ready-fd {fd}: no such descriptor"))
    });
    let ready = ready.transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let (losses, status) = runtime.block_on(async {
        let clock = Clock::start();
        let waiting = args.command.start(&mut filter)?;
        let (source, by_process) = (needs.source, filter.is_by_process());
        let options = args.kernel.to_options(needs, filter, level);
        let tracer = Tracer::start(&options)?;
        if level > log::LevelFilter::Warn {
            log_programs(&tracer);
        }
        // Before any other thread is started: privilege belongs to threads.
        confine(Later {
            snapshot: options.points.iter().any(|point| point.is_for_later()),
            command: waiting.is_some(),
        });
        let command = waiting
            .map(Waiting::release)
            .transpose()
            .context("cannot start the command")?;
        let context = ViewContext {
            clock,
            containers: Containers::new(hierarchy.ok()),
            names: args
                .output
                .resolve
                .then(Names::start)
                .transpose()
                .context("cannot resolve names")?,
        };
        let bounds = Bounds {
            duration: args.bounds.duration,
            max_events: args.bounds.max_events,
            comm: args.filter.comm.clone(),
            command,
            ready,
        };
        let ended = match source {
            Source::Events => trace::run(tracer, view, context, bounds).await?,
            Source::Snapshots { every } => {
                let holders = Holders::new(by_process, bounds.comm.clone());
                trace::snapshot::run(tracer, view, context, bounds, holders, every).await?
            }
        };
        report(&ended.losses);
        let status = match ended.command {
            Some(command) => Some(
                command
                    .finish(args.command.kill)
                    .await
                    .context("cannot wait for the command")?,
            ),
            None => None,
        };
        anyhow::Ok((ended.losses, status))
    })?;
    Ok(match status {
        _ if args.bounds.strict && losses.total() > 0 => LOST,
        Some(status) => command::exit_code(status),
        None => OK,
    })
}

/// Writes text to standard output; a closed pipe is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind::BrokenPipe, Write as _};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Reads the programs' log as long as the runtime lives.
fn log_programs(tracer: &Tracer) {
    use tokio::io::{Interest, unix::AsyncFd};
    let Some(logger) = tracer.logger() else {
        return;
    };
    // SAFETY: the logger owns its ring buffer's descriptor, and the `AsyncFd` owns the logger.
    let Ok(mut logger) = (unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) })
    else {
        return;
    };
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
}

fn report(losses: &Losses) {
    if losses.total() == 0 {
        return;
    }
    let total = losses.total();
    let events = if total == 1 { "event" } else { "events" };
    let causes: Vec<_> = losses
        .causes()
        .map(|(cause, count)| format!("{} {count}", cause.total))
        .collect();
    eprint!("tcp-tools: lost {total} {events} ({})", causes.join(", "));
    if losses.ring_full > 0 {
        eprint!("; a larger --buffer-size helps against ring_full");
    }
    if losses.map_full > 0 {
        eprint!("; a larger --max-sockets helps against map_full");
    }
    if losses.missed > 0 {
        eprint!("; missed: the kernel did not run a probe");
    }
    eprintln!();
}
