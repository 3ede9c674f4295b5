//! A network namespace for this process.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

/// Moves this process, which has a single thread yet, into a new network namespace with nothing
/// but a loopback device that is up. It goes with its last process.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn enter_new() -> Result<()> {
    // SAFETY: changes the namespace of the calling thread; no memory is involved.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot make a network namespace");
    }
    loopback_up().context("cannot bring the loopback device up")
}

fn loopback_up() -> io::Result<()> {
    // Any socket of the namespace will do to configure its devices.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
