//! The command line: from arguments to a trace, from its end to an exit code.

pub mod common;
mod doctor;
mod parse;

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use crate::{
    kernel::{Losses, Tracer},
    trace::{self, Bounds},
    views::{View, tcplife},
};

/// Everything went well.
const OK: u8 = 0;
/// It could not run, or broke.
const FAILED: u8 = 1;
/// Something was lost, under `--strict`.
const LOST: u8 = 3;

/// TCP on this host, live: who talks to whom, how long, how much
///
/// Exit codes: 0 fine (also after Ctrl-C or when the reader of a pipe leaves), 1 it could not run, 2 wrong
/// options, 3 events were lost under --strict.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// TCP sessions with their duration and bytes, as they end
    Tcplife(tcplife::Args),
    /// What this kernel offers, and what is in the way
    Doctor(doctor::Args),
}

/// Runs the command that the process's arguments ask for.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments(std::env::args_os()));
    let done = match &cli.command {
        Command::Tcplife(args) => {
            let mut view = tcplife::Tcplife::new(args).unwrap_or_else(|error| usage(&error));
            let filter = args.common.filter.to_filter(args.new_only);
            run(&args.common, filter, &mut view)
        }
        Command::Doctor(args) => doctor::run(args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tcp-tools: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// A view's name as the program's own name (through a link) stands for the command.
fn arguments(mut given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let Some(program) = given.next() else {
        return Vec::new();
    };
    let name = Path::new(&program)
        .file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned);
    let command = name.filter(|name| Cli::command().find_subcommand(name).is_some());
    std::iter::once(program)
        .chain(command.map(OsString::from))
        .chain(given)
        .collect()
}

/// Ends the process as clap does for options that make no sense.
fn usage(problem: &dyn std::fmt::Display) -> ! {
    Cli::command()
        .error(ErrorKind::ValueValidation, problem)
        .exit()
}

fn run(
    args: &common::Args,
    filter: crate::kernel::Filter,
    view: &mut dyn View,
) -> anyhow::Result<u8> {
    let level = args.kernel.start_log();
    let options = args.kernel.to_options(view.points(), filter, level);
    let bounds = Bounds {
        duration: args.bounds.duration,
        max_events: args.bounds.max_events,
        ready: args.bounds.ready_fd.map(ready_file).transpose()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let losses = runtime.block_on(async {
        let tracer = Tracer::start(&options)?;
        if level > log::LevelFilter::Warn {
            log_programs(&tracer);
        }
        anyhow::Ok(trace::run(tracer, view, bounds).await?)
    })?;
    report(&losses);
    Ok(if args.bounds.strict && losses.total() > 0 {
        LOST
    } else {
        OK
    })
}

/// The descriptor is ours from here on: it was passed for this purpose.
fn ready_file(fd: i32) -> anyhow::Result<std::fs::File> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: takes an integer.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("--ready-fd {fd}: no such descriptor"));
    }
    // SAFETY: it is open, nothing else in this process knows of it, and the parser let no standard stream
    // through.
    Ok(unsafe { std::fs::File::from_raw_fd(fd) })
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
    let causes: Vec<_> = losses
        .causes()
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    eprint!(
        "tcp-tools: lost {} events ({})",
        losses.total(),
        causes.join(", ")
    );
    if losses.ring_full > 0 {
        eprint!("; a larger --buffer-size helps against ring_full");
    }
    if losses.map_full > 0 {
        eprint!("; a larger --max-sockets helps against map_full");
    }
    eprintln!();
}
