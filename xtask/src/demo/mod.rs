//! `demo`: tcplife over a handful of sessions that the demo makes itself, in a network namespace
//! of its own, so that nothing else shows and nothing is left behind.

mod traffic;

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::artifacts::{self, Profile};
use crate::netns;
use crate::privilege::{as_root, is_root};
use crate::ready;
use crate::workspace::check;

/// Options of `demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The tcp-tools to show, when it is built already
    #[arg(long, value_name = "FILE", hide = true)]
    tool: Option<PathBuf>,
}

/// Shows the rows of the demo's sessions.
///
/// # Errors
/// When tcplife does not start, or does not print a row for each end of each session.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let tool = match &options.tool {
        Some(tool) => tool.clone(),
        None => artifacts::tcp_tools(Profile::Dev)?,
    };
    if is_root() {
        show(&tool)?;
    } else {
        // Built as this user; only the rest is done as root.
        let demo = std::env::current_exe().context("cannot find this program")?;
        check(
            as_root(demo, &[])?
                .args([OsStr::new("demo"), OsStr::new("--tool")])
                .arg(tool),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(tool: &Path) -> Result<()> {
    netns::enter_new()?;
    let mut tcplife = start(tool)?;
    traffic::make().context("cannot make the demo's own traffic")?;
    let rows = print_rows(&mut tcplife)?;
    let status = tcplife.wait()?;
    if !status.success() {
        bail!("tcplife failed: {status}");
    }
    if rows != traffic::ROWS {
        bail!(
            "tcplife printed {rows} rows where {} were expected",
            traffic::ROWS
        );
    }
    eprintln!("\nThat was tcplife. On real traffic: cargo xtask run -- tcplife");
    Ok(())
}

/// Starts tcplife and returns when it is attached.
fn start(tool: &Path) -> Result<Child> {
    let mut command = Command::new(tool);
    command
        .args(["tcplife", "--netns", &std::process::id().to_string()])
        .args(["--max-events", &traffic::ROWS.to_string()])
        .args(["--duration", "20s"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    ready::start(command)
}

/// Passes tcplife's table on and returns the number of rows below its header.
fn print_rows(tcplife: &mut Child) -> Result<usize> {
    let output = tcplife
        .stdout
        .take()
        .context("tcplife has no standard output")?;
    let mut stdout = io::stdout().lock();
    let mut lines = 0_usize;
    for line in BufReader::new(output).lines() {
        writeln!(stdout, "{}", line?)?;
        lines += 1;
    }
    Ok(lines.saturating_sub(1))
}
