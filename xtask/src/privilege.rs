//! Programs that need root: started directly by root, through sudo by anyone else.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Result, bail};

use crate::programs;

/// A command that runs `program` as root, with these variables in its environment.
///
/// # Errors
/// When this user is not root and there is no sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>, variables: &[(&str, &OsStr)]) -> Result<Command> {
    let program = program.as_ref();
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Ok(command);
    }
    let Some(sudo) = programs::find("sudo") else {
        bail!(
            "{} needs root, and there is no sudo: run this as root, or install sudo",
            program.display()
        );
    };
    eprintln!("running {} with sudo", program.display());
    let mut command = Command::new(sudo);
    // sudo may drop the environment whatever -E asks for; `env` sets these after it.
    command.args(["-E", "env"]);
    for (name, value) in variables {
        let mut variable = OsStr::new(name).to_owned();
        variable.push("=");
        variable.push(value);
        command.arg(variable);
    }
    command.arg(program);
    Ok(command)
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid only returns a number.
    unsafe { libc::geteuid() == 0 }
}
