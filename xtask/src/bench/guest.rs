//! The bench in a virtual machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::vm;

use super::tool::PORTABLE;
use super::{Options, What};

/// What is measured in a guest unless something else is asked for: what this machine's kernel may not
/// offer. Size is none of the guest's business, and its processor too slow for a web server.
const MEASURED: [What; 2] = [What::Kernel, What::Top];

/// All of them, for the cost of each.
const TIERS: &str = "tracepoint,fentry,kprobe";

/// Boots `kernel` with a clock that counts instructions, and runs this program there on the peers that this machine has.
pub(super) fn run(options: &Options, kernel: &str, tool: PathBuf) -> Result<ExitCode> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let mut others = vec![(this, "bin/xtask".to_owned())];
    let peers = PORTABLE.iter().filter(|peer| Path::new(peer).is_file());
    others.extend(peers.map(|peer| (PathBuf::from(peer), (*peer).to_owned())));
    vm::run_with(kernel, tool, others, command(options))
}

fn command(options: &Options) -> Vec<String> {
    let mut command = vec!["xtask", "bench", "--tool", "/bin/tcp-tools"];
    command.extend(options.smoke.then_some("--smoke"));
    let mut command: Vec<String> = command.into_iter().map(String::from).collect();
    let only = if options.only.is_empty() {
        &MEASURED[..]
    } else {
        &options.only
    };
    let only: Vec<_> = only.iter().map(|what| what.name()).collect();
    let tiers = if options.tiers.is_empty() {
        TIERS.to_owned()
    } else {
        options.tiers.join(",")
    };
    for (option, value) in [
        ("--only", only.join(",")),
        ("--tiers", tiers),
        ("--rounds", options.rounds.to_string()),
        ("--sessions", options.sessions.to_string()),
        ("--seconds", options.seconds.to_string()),
    ] {
        command.extend([option.to_owned(), value]);
    }
    command
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_guest_understands_what_it_is_told() {
        let asked = ["bench", "--vm", "6.12", "--smoke", "--only", "cost,top"];
        let told = command(&Line::parse_from(asked).options);
        let understood = Line::parse_from(&told[1..]).options;
        assert!(understood.smoke && understood.vm.is_none());
        assert!(understood.only == [What::Cost, What::Top]);
        assert_eq!(
            (understood.rounds, understood.sessions, understood.seconds),
            (3, 5000, 2)
        );
        assert_eq!(understood.tiers, ["tracepoint", "fentry", "kprobe"]);
    }
}
