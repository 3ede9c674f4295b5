//! The machine: what the bench changes for itself, and what the report says of it.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::ptr;

use anyhow::{Context, Result};

use crate::netns;
use crate::workspace::output;

use super::Bench;

/// Gives this process, which has a single thread yet, a network namespace and a mount namespace of its
/// own. In the latter tracefs is mounted, which some peers cannot do without.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn set_apart() -> Result<()> {
    netns::enter_new()?;
    // The load goes through more client ports than the default gives before the first is free again.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 65000")
        .context("cannot widen the range of client ports")?;
    if Path::new("/sys/kernel/tracing/events").exists() {
        return Ok(());
    }
    // SAFETY: changes the namespace of the calling thread; no memory is involved.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot make a mount namespace");
    }
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)
        .and_then(|()| mount(c"tracefs", c"/sys/kernel/tracing", 0))
        .and_then(|()| mount(c"debugfs", c"/sys/kernel/debug", 0))
        .context("cannot mount tracefs for the peers")
}

fn mount(kind: &CStr, target: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: three strings that outlive the call, and no data.
    let done = unsafe {
        libc::mount(
            kind.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            ptr::null(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Prints what the figures depend on.
pub(super) fn describe(bench: &Bench) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let version = output(Command::new(&bench.tool).arg("--version")).unwrap_or_default();
    println!(
        "- Linux {}, {} × {}",
        kernel.trim(),
        bench.processors(),
        model.map_or("unknown", |(_, model)| model)
    );
    println!("- {version}, release build");
    for note in &bench.peers.notes {
        println!("- {note}");
    }
    println!(
        "- {} rounds, {} sessions each, {} s for HTTP and tcptop",
        bench.rounds,
        bench.sessions,
        bench.time.as_secs()
    );
}
