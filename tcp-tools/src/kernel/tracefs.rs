//! Ids of tracepoints, which only tracefs tells.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::{self, Read as _},
    os::fd::AsFd as _,
};

use super::sys;

const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The id of the tracepoint `category/name`.
pub(super) fn tracepoint_id(target: &str) -> Result<u64, String> {
    let path = format!("events/{target}/id");
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("this kernel has no tracepoint {target}"));
        }
        Err(error) => return Err(format!("cannot read {path} of tracefs: {error}")),
    };
    text.trim()
        .parse()
        .map_err(|error| format!("{path} of tracefs holds {text:?}: {error}"))
}

/// Reads a file of tracefs, also where nobody has mounted it: in containers and minimal systems.
fn read(path: &str) -> io::Result<String> {
    let mounted = MOUNTS
        .iter()
        .find(|mount| fs::exists(format!("{mount}/events")).unwrap_or(false));
    if let Some(mount) = mounted {
        return fs::read_to_string(format!("{mount}/{path}"));
    }
    const TRACEFS: &CStr = c"tracefs";
    let mut text = String::new();
    let mount = sys::private_mount(TRACEFS)?;
    File::from(sys::open_at(mount.as_fd(), path)?).read_to_string(&mut text)?;
    Ok(text)
}
