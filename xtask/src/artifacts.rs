//! Builds the workspace's programs with the cargo that runs xtask, and says where they are.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::root;

/// How programs are built.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// Quickly.
    Dev,
    /// To be fast.
    Release,
    /// For an emulated machine: there, what is not optimised takes more time to run than it saves
    /// to build.
    Guest,
}

impl Profile {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &["--profile=dev"],
            Self::Release => &["--profile=release"],
            Self::Guest => &[
                "--profile=guest",
                "--config=profile.guest.inherits='dev'",
                "--config=profile.guest.opt-level=1",
                // Started hundreds of times.
                "--config=profile.guest.package.tcp-tools.opt-level=3",
            ],
        }
    }
}

/// The end-to-end tests, built.
pub(crate) struct EndToEnd {
    /// The test executables.
    pub(crate) tests: Vec<PathBuf>,
    /// Programs that the tests start, besides tcp-tools.
    pub(crate) helpers: Vec<PathBuf>,
}

/// A command of the cargo that runs xtask, in the checkout.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root());
    command
}

/// Builds `tcp-tools` and returns its path.
///
/// # Errors
/// When the build fails; the compiler has said why on standard error.
pub(crate) fn tcp_tools(profile: Profile) -> Result<PathBuf> {
    let arguments = ["build", "--package=tcp-tools", "--bin=tcp-tools"];
    let mut built = executables(cargo().args(arguments).args(profile.arguments()))?;
    let (_, path) = built.pop().context("cargo built no tcp-tools executable")?;
    Ok(path)
}

/// Builds the end-to-end tests and the programs that they start.
///
/// # Errors
/// When the build fails; the compiler has said why on standard error.
pub(crate) fn end_to_end(profile: Profile) -> Result<EndToEnd> {
    let arguments = ["test", "--no-run", "--package=tcp-tools-tests"];
    let built = executables(cargo().args(arguments).args(profile.arguments()))?;
    let (helpers, tests): (Vec<_>, Vec<_>) = built.into_iter().partition(|(kind, _)| kind == "bin");
    let paths = |built: Vec<(String, PathBuf)>| built.into_iter().map(|(_, path)| path).collect();
    Ok(EndToEnd {
        tests: paths(tests),
        helpers: paths(helpers),
    })
}

/// The executables that a cargo command makes, each with its target's kind (`bin`, `test`).
fn executables(cargo: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    cargo
        .args(["--quiet", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit());
    let output = cargo.output().context("cannot start cargo")?;
    if !output.status.success() {
        let arguments: Vec<_> = cargo.get_args().map(OsStr::to_string_lossy).collect();
        bail!("cargo {} failed: {}", arguments.join(" "), output.status);
    }
    let mut built = Vec::new();
    for line in output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let message: Value =
            serde_json::from_slice(line).context("cannot read cargo's messages")?;
        if let Some(path) = message["executable"].as_str() {
            let kind = message["target"]["kind"][0].as_str().unwrap_or_default();
            built.push((kind.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(built)
}
