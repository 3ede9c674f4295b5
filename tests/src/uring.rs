//! Sockets through io_uring instead of system calls of their own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd};

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types::Fd};
use socket2::{SockAddr, Socket};

use crate::sock;

/// A ring with room for one request at a time; none where this kernel has no io_uring, or forbids it.
pub struct Ring(IoUring);

impl Ring {
    /// Makes one.
    pub fn new() -> Option<Self> {
        IoUring::new(1).ok().map(Self)
    }

    /// As [`sock::connect`].
    pub fn connect(&mut self, address: SocketAddr) -> io::Result<Socket> {
        let socket = sock::tcp(address)?;
        let address = SockAddr::from(address);
        let request = opcode::Connect::new(
            Fd(socket.as_raw_fd()),
            address.as_ptr().cast(),
            address.len(),
        );
        // SAFETY: the address outlives the request, which has ended afterwards.
        unsafe { self.run(&request.build()) }.map(|_| socket)
    }

    /// As [`sock::accept`].
    pub fn accept(&mut self, listener: &Socket) -> io::Result<Socket> {
        let nowhere = (std::ptr::null_mut(), std::ptr::null_mut());
        let request = opcode::Accept::new(Fd(listener.as_raw_fd()), nowhere.0, nowhere.1);
        // SAFETY: null pointers ask for no address; a new descriptor has no other owner.
        unsafe { self.run(&request.build()).map(|fd| Socket::from_raw_fd(fd)) }
    }

    /// # Safety
    /// What the request points to must be valid during the call.
    unsafe fn run(&mut self, request: &Entry) -> io::Result<i32> {
        // SAFETY: as the caller promises.
        unsafe { self.0.submission().push(request) }.map_err(io::Error::other)?;
        self.0.submit_and_wait(1)?;
        let done = self.0.completion().next();
        let result = done.ok_or(io::ErrorKind::UnexpectedEof)?.result();
        if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else {
            Ok(result)
        }
    }
}
