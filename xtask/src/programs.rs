//! Programs of the system that a command needs.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// The path of `name`, looked up in `PATH`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Checks that programs are there, given with the Debian packages that they come from.
///
/// # Errors
/// When some are missing; the message names them and the command that installs them.
pub(crate) fn require(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(name, _)| find(name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    bail!(
        "not installed: {}; on Debian: apt-get install {}",
        names.join(", "),
        packages.join(" ")
    )
}
