//! Options that all views share.

use std::{ffi::OsString, ops::RangeInclusive, path::PathBuf, time::Duration};

use anyhow::Context as _;
use ipnet::IpNet;
use log::LevelFilter;
use wildmatch::WildMatch;

use super::parse;
use crate::{
    command::Waiting,
    enrich::{CgroupError, Hierarchy, find_container},
    kernel::{
        Filter, Options, Tier, namespace,
        pseudo::{self, NO_PROC},
    },
    output::Format,
    views::Needs,
};

pub(crate) use super::parse::{milliseconds, seconds, state};

/// Options that all views share.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) bounds: BoundsArgs,
    #[command(flatten)]
    pub(crate) kernel: KernelArgs,
    #[command(flatten)]
    pub(crate) command: CommandArgs,
}

/// What to run during the trace.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Command")]
pub(crate) struct CommandArgs {
    /// Run this command, trace it and its children until it ends, and exit with its status
    ///
    /// The command's standard output goes to standard error. Ctrl-C reaches the command, and SIGINT, SIGTERM and
    /// SIGHUP that are sent to the tool are passed on to it: the trace goes on until the command ends. A bound
    /// (--duration, -n) or a closed pipe ends only the trace: the command runs on, and the tool waits for it.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
    /// With a command: trace all processes, not only it and its children
    #[arg(long, requires = "command")]
    all: bool,
    /// With a command: end it (SIGTERM) when the trace ends before it, at a bound or when the reader of a pipe
    /// leaves
    #[arg(long, requires = "command")]
    pub(crate) kill: bool,
}

impl CommandArgs {
    /// Starts the command, if there is one, up to the point where it waits for the trace to begin.
    pub(crate) fn start(&self, filter: &mut Filter) -> anyhow::Result<Option<Waiting>> {
        if self.command.is_empty() {
            return Ok(None);
        }
        // The stand-in is this program itself, by its name there.
        anyhow::ensure!(pseudo::has_proc(), "cannot start the command: {NO_PROC}");
        anyhow::ensure!(
            self.all || namespace::has_host_pids(),
            "-- COMMAND cannot be identified in this PID namespace: the kernel uses the PIDs of the initial one; use \
             that (docker run --pid=host), or trace all processes (--all)"
        );
        let waiting = Waiting::new(&self.command).context("cannot start the command")?;
        if !self.all {
            filter.pids.extend(waiting.pid());
            filter.follow = true;
        }
        Ok(Some(waiting))
    }
}

/// What to trace.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Filters (all in the kernel, but --comm)")]
pub(crate) struct FilterArgs {
    /// Only sockets of these processes
    #[arg(short, long, value_name = "PID,...", value_delimiter = ',', value_parser = parse::pid)]
    pid: Vec<u32>,
    /// With --pid: also follow children forked during the trace
    #[arg(long, requires = "pid")]
    follow: bool,
    /// Only sockets of processes of these users
    #[arg(short, long, value_name = "UID,...", value_delimiter = ',')]
    uid: Vec<u32>,
    /// Only sockets of processes with this name; * and ? stand for any text, any character
    #[arg(long, value_name = "NAME", value_parser = parse::glob)]
    pub(crate) comm: Option<WildMatch>,
    /// Only sockets of processes in this cgroup, or below it
    #[arg(long, value_name = "PATH|ID")]
    cgroup: Vec<String>,
    /// Only sockets of processes in this container
    #[arg(long, value_name = "ID-PREFIX|NAME")]
    container: Vec<String>,
    /// Only this network namespace
    #[arg(long, value_name = "PID|PATH|INODE", value_parser = parse::netns)]
    netns: Option<u32>,
    /// IPv4 only, including IPv4-mapped IPv6 sockets
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Only these local addresses or networks (CIDR); an IPv4 network also matches mapped addresses
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = parse::net)]
    local: Vec<IpNet>,
    /// Only these remote addresses or networks (CIDR)
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = parse::net)]
    remote: Vec<IpNet>,
    /// Only these local ports
    #[arg(long, value_name = "PORT|A-B,...", value_delimiter = ',', value_parser = parse::ports)]
    local_port: Vec<RangeInclusive<u16>>,
    /// Only these remote ports
    #[arg(long, value_name = "PORT|A-B,...", value_delimiter = ',', value_parser = parse::ports)]
    remote_port: Vec<RangeInclusive<u16>>,
}

impl FilterArgs {
    /// The filter, if it can match anything.
    pub(crate) fn to_filter(
        &self,
        needs: &Needs,
        hierarchy: Result<&Hierarchy, &CgroupError>,
    ) -> Result<Filter, String> {
        let ip = match (self.ipv4, self.ipv6) {
            (true, _) => Some(4),
            (_, true) => Some(6),
            _ => None,
        };
        if ![4, 6].into_iter().any(|version| {
            ip.is_none_or(|ip| ip == version)
                && has_version(&self.local, version)
                && has_version(&self.remote, version)
        }) {
            return Err("--local, --remote and the IP version leave nothing to match".into());
        }
        if !self.pid.is_empty() && !namespace::has_host_pids() {
            log::warn!(
                "--pid takes PIDs of the initial PID namespace, as the views show them; this is another namespace"
            );
        }
        Ok(Filter {
            ip,
            netns: self.netns,
            pids: self.pid.clone(),
            follow: self.follow,
            uids: self.uid.clone(),
            cgroups: self.cgroups(hierarchy)?,
            local_ports: self.local_port.clone(),
            remote_ports: self.remote_port.clone(),
            local_nets: self.local.clone(),
            remote_nets: self.remote.clone(),
            new_only: needs.new_only,
            states: needs.states,
        })
    }

    /// Ids of the cgroups that are asked for by path, id or container.
    fn cgroups(&self, hierarchy: Result<&Hierarchy, &CgroupError>) -> Result<Vec<u64>, String> {
        if self.cgroup.is_empty() && self.container.is_empty() {
            return Ok(Vec::new());
        }
        let hierarchy = hierarchy.map_err(ToString::to_string)?;
        let mut ids = Vec::new();
        for text in &self.cgroup {
            ids.push(
                hierarchy
                    .cgroup(text)
                    .map_err(|error| format!("--cgroup: {error}"))?
                    .id,
            );
        }
        for text in &self.container {
            let found = find_container(hierarchy, text);
            let found = found.map_err(|error| format!("--container: {error}"))?;
            ids.extend(found.iter().map(|cgroup| cgroup.id));
        }
        Ok(ids)
    }
}

/// Whether networks, if there are any, let addresses of this IP version through.
fn has_version(nets: &[IpNet], version: u8) -> bool {
    nets.is_empty()
        || nets
            .iter()
            .any(|net| matches!(net, IpNet::V4(_)) == (version == 4))
}

/// How to show it.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Put the time of day before each row
    #[arg(short = 'T', long)]
    time: bool,
    /// Put the seconds since the trace began before each row
    #[arg(short = 't', long)]
    timestamp: bool,
    /// Make room for full IPv6 addresses, and show the IP version
    #[arg(short, long)]
    pub(crate) wide: bool,
    /// Comma-separated values, with a header
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Show these fields, in this order; the names are those of the JSON objects
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) fields: Option<Vec<String>>,
    /// Resolve addresses to host names (asynchronously; the first rows show addresses)
    #[arg(long)]
    pub(crate) resolve: bool,
}

impl OutputArgs {
    pub(crate) fn format(&self) -> Format {
        match (self.csv, self.json) {
            (true, _) => Format::Csv,
            (_, true) => Format::Json,
            _ => Format::Table { wide: self.wide },
        }
    }

    /// Names of the columns that `-T` and `-t` put first.
    pub(crate) fn time_columns(&self) -> Vec<&'static str> {
        let asked = [(self.time, "time"), (self.timestamp, "time_s")];
        asked
            .into_iter()
            .filter(|(asked, _)| *asked)
            .map(|(_, name)| name)
            .collect()
    }
}

/// When to end.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Bounds")]
pub(crate) struct BoundsArgs {
    /// End after this time, like 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// End after this many rows
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_events: Option<u64>,
    /// Exit with status 3 if events were lost
    #[arg(long)]
    pub(crate) strict: bool,
    /// Write the line "ready" to this descriptor when everything is attached
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(3..))]
    pub(crate) ready_fd: Option<i32>,
}

/// How to get at the kernel.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Kernel")]
pub(crate) struct KernelArgs {
    /// Force one kind of hook instead of the best available
    #[arg(long, value_name = "TIER", default_value = "auto", value_parser = parse::tier())]
    hooks: parse::Hooks,
    /// Kernel type information from this file, instead of the running kernel's
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,
    /// Bytes of the ring buffer, like 512k or 4m; rounded up to a power of two
    #[arg(long, value_name = "SIZE", default_value = "1m", value_parser = parse::buffer_size)]
    buffer_size: u32,
    /// Track at most this many open sockets
    #[arg(long, value_name = "N", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1..))]
    max_sockets: u32,
    /// Say more on standard error, also what the kernel programs log; twice for all state changes
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl KernelArgs {
    /// Starts logging to standard error: `RUST_LOG`, else what `-v` asks for.
    pub(crate) fn start_log(&self) -> LevelFilter {
        let level = match self.verbose {
            0 => LevelFilter::Warn,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        };
        env_logger::Builder::new()
            .filter_level(LevelFilter::Warn)
            .filter_module("tcp_tools", level)
            .filter_module("tcp_ebpf", level)
            .parse_default_env()
            .format(|out, record| {
                use std::io::Write as _;
                match record.level() {
                    log::Level::Warn => writeln!(out, "tcp-tools: warning: {}", record.args()),
                    level => writeln!(
                        out,
                        "tcp-tools: {level} {}: {}",
                        record.target(),
                        record.args()
                    ),
                }
            })
            .init();
        log::max_level()
    }

    pub(crate) fn tier(&self) -> Option<Tier> {
        self.hooks.0
    }

    pub(crate) fn to_options(&self, needs: Needs, filter: Filter, log: LevelFilter) -> Options {
        Options {
            points: needs.points,
            events: needs.events,
            tier: self.tier(),
            btf: self.btf.clone(),
            buffer_bytes: self.buffer_size,
            max_sockets: self.max_sockets,
            filter,
            log,
        }
    }
}
