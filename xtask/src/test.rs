//! `test`: everything that runs on this machine.

use std::process::ExitCode;

use anyhow::Result;

use crate::artifacts::{self, Profile, cargo};
use crate::privilege::as_root;
use crate::workspace::check;

/// Options of `test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

/// Runs the unit tests as this user and the end-to-end tests as root.
///
/// # Errors
/// When something does not build or a test fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let tests = ["test", "--workspace", "--exclude=tcp-tools-tests"];
    check(cargo().args(tests).args(&options.filter))?;

    let tool = artifacts::tcp_tools(Profile::Dev)?;
    for test in artifacts::end_to_end(Profile::Dev)?.tests {
        let mut variables = vec![("TCP_TOOLS_BIN", tool.as_os_str())];
        // What the harness understands besides; sudo would drop it.
        let asked = [
            "TCP_TOOLS_REQUIRE",
            "TCP_TOOLS_HOOKS",
            "TCP_TOOLS_SEED",
            "RUST_BACKTRACE",
        ]
        .map(|name| (name, std::env::var_os(name)));
        variables.extend(
            asked
                .iter()
                .filter_map(|(name, value)| Some((*name, value.as_deref()?))),
        );
        check(as_root(&test, &variables)?.args(&options.filter))?;
    }
    Ok(ExitCode::SUCCESS)
}
