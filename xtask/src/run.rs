//! `run`: builds tcp-tools and becomes it, as root.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::artifacts::{self, Profile};
use crate::privilege::as_root;

/// Options of `run`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build with optimisation, which takes longer
    #[arg(long)]
    release: bool,

    /// Arguments of tcp-tools
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    arguments: Vec<String>,
}

/// Builds tcp-tools and runs it in place of this process: signals, standard output and the exit
/// status are the tool's own.
///
/// # Errors
/// When the build fails, there is no way to become root, or the tool cannot be started.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let profile = if options.release {
        Profile::Release
    } else {
        Profile::Dev
    };
    let tool = artifacts::tcp_tools(profile)?;
    let error = as_root(&tool, &[])?.args(&options.arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", tool.display()))
}
