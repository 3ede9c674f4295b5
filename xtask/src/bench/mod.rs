//! `bench`: tcp-tools and its peers on the same work, alternating, in one run.
//!
//! It installs nothing and leaves nothing behind: its traffic stays in a network namespace of its own,
//! and what peers need mounted is mounted where only they see it.

mod guest;
mod host;
mod http;
mod load;
mod proc;
mod report;
mod running;
mod sessions;
mod size;
mod snapshot;
mod startup;
mod stats;
mod tool;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use clap::builder::ArgPredicate;
use tempfile::TempDir;

use crate::artifacts::{self, Profile};
use crate::privilege::{as_root, is_root};
use crate::workspace::check;

use report::Report;
use running::Running;
use tool::{Peers, Tool};

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measure in a virtual machine with Debian's cloud kernel of that series, or a path as of `vm`:
    /// what peers need kprobes for, and the cost of each tier. One processor is emulated, and its clock
    /// counts instructions, one a nanosecond: ratios are exact, but blind to caches and memory
    #[arg(long, value_name = "6.1|6.12|PATH")]
    vm: Option<String>,

    /// See that everything works, with next to no work; the figures mean nothing
    #[arg(long)]
    smoke: bool,

    /// Measure these things only
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<What>,

    /// How often each thing is measured [default: 5; with --vm 3]
    #[arg(long, value_name = "N", hide_default_value = true, default_value = "5")]
    #[arg(default_value_if("vm", ArgPredicate::IsPresent, "3"))]
    rounds: usize,

    /// Sessions in each round [default: 300000; with --vm 5000]
    #[arg(
        long,
        value_name = "N",
        hide_default_value = true,
        default_value = "300000"
    )]
    #[arg(default_value_if("vm", ArgPredicate::IsPresent, "5000"))]
    sessions: u64,

    /// Seconds that each round of HTTP, ping-pong and streams takes [default: 5; with --vm 2]
    #[arg(long, value_name = "N", hide_default_value = true, default_value = "5")]
    #[arg(default_value_if("vm", ArgPredicate::IsPresent, "2"))]
    seconds: u64,

    /// Measure the kernel's cost on each of these tiers
    #[arg(long, value_name = "TIER,...", value_delimiter = ',')]
    tiers: Vec<String>,

    /// The tcp-tools to measure, when it is built already
    #[arg(long, value_name = "FILE", hide = true)]
    tool: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// CPU per event, slow-down and memory of tcplife
    Cost,
    /// Time in tcplife's BPF programs
    Kernel,
    /// Events that tcplife loses
    Loss,
    /// Start-up, and the delay of a row
    Startup,
    /// What tcplife costs a web server
    Http,
    /// What tcptop costs the data that it counts
    Top,
    /// What tcptop's look at many sockets costs
    Snapshot,
    /// Size of the binary, and packages that go into it
    Size,
}

/// What all measures work with.
struct Bench {
    tool: PathBuf,
    peers: Peers,
    directory: TempDir,
    rounds: usize,
    sessions: u64,
    time: Duration,
    tiers: Vec<String>,
}

/// Builds tcp-tools, measures it as root, and prints a report on standard output.
///
/// # Errors
/// When tcp-tools does not build or does not work. A peer that is missing is a line in the report.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let tool = match &options.tool {
        Some(tool) => tool.clone(),
        // As the virtual machines have it, in less than half the time to build: nothing is measured.
        None if options.smoke => artifacts::tcp_tools(Profile::Guest)?,
        None => artifacts::tcp_tools(Profile::Release)?,
    };
    if let Some(kernel) = &options.vm {
        return guest::run(options, kernel, tool);
    }
    if is_root() {
        measure(options, tool)?;
    } else {
        // Built as this user; only the rest is done as root.
        let bench = std::env::current_exe().context("cannot find this program")?;
        let arguments = std::env::args_os().skip(1);
        check(as_root(bench, &[])?.args(arguments).arg("--tool").arg(tool))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(options: &Options, tool: PathBuf) -> Result<()> {
    host::set_apart()?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    eprintln!("trying what is installed");
    let wanted = match options.only.as_slice() {
        [] => What::value_variants(),
        only => only,
    };
    let peers = Peers::find(wanted, directory.path());
    let bench = Bench {
        tool,
        peers,
        directory,
        rounds: if options.smoke { 1 } else { options.rounds },
        sessions: if options.smoke { 500 } else { options.sessions },
        time: Duration::from_secs(if options.smoke { 1 } else { options.seconds }),
        tiers: options.tiers.clone(),
    };
    host::describe(&bench);
    let mut report = Report::header();
    for what in wanted {
        eprintln!("measuring: {}", what.name());
        what.measure(&bench, &mut report)?;
    }
    report.finish();
    Ok(())
}

impl What {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn measure(self, bench: &Bench, report: &mut Report) -> Result<()> {
        match self {
            Self::Cost => sessions::cost(bench, report),
            Self::Kernel => sessions::kernel(bench, report),
            Self::Loss => sessions::loss(bench, report),
            Self::Startup => startup::measure(bench, report),
            Self::Http => http::measure(bench, report),
            Self::Top => top::measure(bench, report),
            Self::Snapshot => snapshot::measure(bench, report),
            Self::Size => size::measure(bench, report),
        }
    }
}

impl Bench {
    /// tcp-tools with these arguments.
    fn ours(&self, arguments: &[&str]) -> Tool {
        self.ours_named("tcp-tools", arguments)
    }

    fn ours_named(&self, name: &str, arguments: &[&str]) -> Tool {
        Tool::new(name, &self.tool, arguments)
    }

    fn processors(&self) -> usize {
        thread::available_parallelism().map_or(1, Into::into)
    }

    /// Pairs of a client and a server that keep the processors busy, one thread each.
    fn pairs(&self) -> usize {
        (self.processors() / 2).max(1)
    }
}

/// Calls `run` with each number below `subjects`, once a round, there and back again: what drifts over
/// the run does not favour one of them.
fn alternate(
    rounds: usize,
    subjects: usize,
    mut run: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    for round in 0..rounds {
        for at in 0..subjects {
            // A machine that says nothing for minutes would be taken for dead.
            eprintln!("round {} of {rounds}, {} of {subjects}", round + 1, at + 1);
            run(if round % 2 == 0 {
                at
            } else {
                subjects - 1 - at
            })?;
        }
    }
    Ok(())
}

/// What `load` gives without a tracer, and under each of `tools`.
fn rates(
    bench: &Bench,
    tools: &[&Tool],
    load: impl Fn() -> Result<f64>,
) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let (mut untraced, mut traced) = (Vec::new(), vec![Vec::new(); tools.len()]);
    alternate(bench.rounds, tools.len() + 1, |at| {
        let Some(tool) = at.checked_sub(1) else {
            untraced.push(load()?);
            return Ok(());
        };
        let tracer = Running::start(tools[tool], bench.directory.path())?;
        traced[tool].push(load()?);
        tracer.stop().map(drop)
    })?;
    Ok((untraced, traced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_there_and_back_again() {
        let mut order = Vec::new();
        alternate(2, 3, |at| {
            order.push(at);
            Ok(())
        })
        .unwrap();
        assert_eq!(order, [0, 1, 2, 2, 1, 0]);
    }
}
