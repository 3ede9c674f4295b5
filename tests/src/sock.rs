//! What both the tests and the actor do with sockets.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::PATIENCE;

/// The loopback address of IPv4, any port.
pub const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The loopback address of IPv6, any port.
pub const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
/// Every address of both families, any port.
pub const DUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Between two looks at something that there is no event for, by a test with many threads.
const LOOK: Duration = Duration::from_millis(1);

/// The two ends of a session as one socket sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The socket's own address.
    pub local: SocketAddr,
    /// Its peer's.
    pub remote: SocketAddr,
}

impl Ends {
    /// As `socket` sees them.
    pub fn of(socket: &Socket) -> io::Result<Self> {
        let remote = inet(socket.peer_addr()?)?;
        Ok(Self {
            local: local(socket)?,
            remote,
        })
    }

    /// As the peer sees them.
    pub fn swapped(self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
        }
    }
}

/// The address that `socket` is bound to.
pub fn local(socket: &Socket) -> io::Result<SocketAddr> {
    inet(socket.local_addr()?)
}

fn inet(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| io::Error::other("not an internet address"))
}

/// A TCP socket of the family of `address`; an IPv6 one speaks IPv4 as well.
pub fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Listens on `address` with an accept queue of `backlog`.
pub fn listen(address: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let socket = tcp(address)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// Connects and waits until the session is established.
pub fn connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(address)?;
    socket.connect(&address.into())?;
    Ok(socket)
}

/// Connects and sends `count` bytes in one call; with Fast Open the SYN carries them.
pub fn connect_and_send(address: SocketAddr, count: usize) -> io::Result<Socket> {
    let socket = tcp(address)?;
    let sent =
        socket.send_to_with_flags(&vec![b'x'; count], &address.into(), libc::MSG_FASTOPEN)?;
    if sent == count {
        Ok(socket)
    } else {
        Err(io::Error::other(format!("sent {sent} bytes")))
    }
}

/// Begins to connect, and does not wait for the outcome.
pub fn start_connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(address)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Takes one session from the accept queue of `listener`.
pub fn accept(listener: &Socket) -> io::Result<Socket> {
    let (socket, _) = listener.accept()?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// The same by the older system call, accept(2) instead of accept4(2).
pub fn accept_by_old_call(listener: &Socket) -> io::Result<Socket> {
    // SAFETY: null pointers ask for no address; the descriptor, once checked, has no other owner.
    unsafe {
        match libc::accept(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        ) {
            fd if fd < 0 => Err(io::Error::last_os_error()),
            fd => Ok(Socket::from_raw_fd(fd)),
        }
    }
}

/// Sends `count` bytes.
pub fn send(socket: &Socket, count: usize) -> io::Result<()> {
    let mut socket = socket;
    io::copy(&mut io::repeat(b'x').take(count as u64), &mut socket)?;
    socket.flush()
}

/// Sends `count` bytes with sendfile(2).
pub fn send_file(socket: &Socket, count: usize) -> io::Result<()> {
    // SAFETY: a literal C string; the descriptor, once checked, has no other owner.
    let file = unsafe {
        let fd = libc::memfd_create(c"data".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    file.set_len(count as u64)?;
    let mut left = count;
    while left > 0 {
        // SAFETY: two open descriptors; no offset pointer.
        let sent = unsafe {
            libc::sendfile(
                socket.as_raw_fd(),
                file.as_raw_fd(),
                std::ptr::null_mut(),
                left,
            )
        };
        left -= usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
    }
    Ok(())
}

/// Sends `count` bytes with splice(2), through a pipe.
pub fn send_spliced(socket: &Socket, count: usize) -> io::Result<()> {
    const CHUNK: usize = 4096;
    let (reader, mut writer) = io::pipe()?;
    let mut left = count;
    while left > 0 {
        let chunk = left.min(CHUNK);
        writer.write_all(&[b'x'; CHUNK][..chunk])?;
        let mut queued = chunk;
        while queued > 0 {
            // SAFETY: two open descriptors; no offset pointers.
            let sent = unsafe {
                libc::splice(
                    reader.as_raw_fd(),
                    std::ptr::null_mut(),
                    socket.as_raw_fd(),
                    std::ptr::null_mut(),
                    queued,
                    0,
                )
            };
            queued -= usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        }
        left -= chunk;
    }
    Ok(())
}

/// Lets this process have as many descriptors as all tests that run at once take, or as many as it may. By default it
/// is a thousand.
pub(crate) fn allow_descriptors() -> io::Result<()> {
    const ENOUGH: libc::rlim_t = 1 << 16;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes a valid rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // More than the hard limit takes CAP_SYS_RESOURCE, which not every root has.
    for count in [ENOUGH.max(limit.rlim_max), limit.rlim_max] {
        let limit = libc::rlimit {
            rlim_cur: count,
            rlim_max: count,
        };
        // SAFETY: reads a valid rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0 {
            return Ok(());
        }
    }
    Err(io::Error::last_os_error())
}

/// Receives exactly `count` bytes and has them acknowledged at once.
pub fn recv(socket: &Socket, count: usize) -> io::Result<()> {
    let got = io::copy(&mut socket.take(count as u64), &mut io::sink())?;
    if got != count as u64 {
        return Err(io::Error::other(format!(
            "the peer ended after {got} of {count} bytes"
        )));
    }
    socket.set_tcp_quickack(true)
}

/// Receives until the peer's end of data; gives the number of bytes.
pub fn drain(socket: &Socket) -> io::Result<u64> {
    let mut socket = socket;
    io::copy(&mut socket, &mut io::sink())
}

/// Waits until the peer has acknowledged all that was sent. There is no event for this; every
/// look gives way to whoever else wants to run.
pub fn wait_acked(socket: &Socket) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut queued: libc::c_int = 0;
        // SAFETY: TIOCOUTQ (SIOCOUTQ) writes one int.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut queued) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if queued == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "{queued} bytes were never acknowledged"
            )));
        }
        thread::yield_now();
    }
}

/// Closes with a reset instead of a FIN.
pub fn reset(socket: Socket) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}

/// Sets an option of IPPROTO_TCP that socket2 does not know to 1.
pub fn set_tcp_flag(socket: &Socket, option: libc::c_int) -> io::Result<()> {
    set_tcp_option(socket, option, 1)
}

/// How long close() leaves the socket in FIN_WAIT2 at most; -1 for not at all.
pub fn set_linger2(socket: &Socket, seconds: libc::c_int) -> io::Result<()> {
    set_tcp_option(socket, libc::TCP_LINGER2, seconds)
}

fn set_tcp_option(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, option, value)
}

pub(crate) fn set_option(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: reads one int.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a socket deaf: the kernel drops every segment that arrives for it, until
/// [`Socket::detach_filter`].
pub fn deafen(socket: &Socket) -> io::Result<()> {
    socket.attach_filter(&[statement(libc::BPF_RET | libc::BPF_K, 0)])
}

/// Makes a socket deaf to FINs only.
pub fn deafen_to_fins(socket: &Socket) -> io::Result<()> {
    // The filter is given the segment from its TCP header on.
    const FLAGS: u32 = 13;
    const FIN: u32 = 1;
    socket.attach_filter(&[
        statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, FLAGS),
        SockFilter::new(
            (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16,
            0,
            1,
            FIN,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX),
    ])
}

/// Makes a socket deaf to segments without payload: acknowledgements and FINs.
pub fn deafen_to_empty(socket: &Socket) -> io::Result<()> {
    const LONGEST_HEADER: u32 = 60;
    socket.attach_filter(&[
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0),
        SockFilter::new(
            (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16,
            1,
            0,
            LONGEST_HEADER,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX),
    ])
}

fn statement(code: u32, value: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, value)
}

/// Makes a socket deaf for segments that carry `payload` bytes, and for those alone.
pub fn deafen_for(socket: &Socket, payload: u32) -> io::Result<()> {
    // A filter of a TCP socket sees the segment from its header on; the data offset is in units of four bytes.
    const DATA_OFFSET: u32 = 12;
    const ALL: u32 = u32::MAX;
    let code = |code: u32| code as u16;
    let filter = [
        SockFilter::new(
            code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS),
            0,
            0,
            DATA_OFFSET,
        ),
        SockFilter::new(code(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K), 0, 0, 4),
        SockFilter::new(code(libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K), 0, 0, 2),
        SockFilter::new(
            code(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K),
            0,
            0,
            payload,
        ),
        SockFilter::new(code(libc::BPF_MISC | libc::BPF_TAX), 0, 0, 0),
        SockFilter::new(code(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN), 0, 0, 0),
        SockFilter::new(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_X), 0, 1, 0),
        SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, 0),
        SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, ALL),
    ];
    socket.attach_filter(&filter)
}

/// Segments that were dropped on their way to a socket.
fn drops(socket: &Socket) -> io::Result<u32> {
    // SK_MEMINFO_DROPS of SK_MEMINFO_VARS, linux/sock_diag.h.
    const DROPS: usize = 8;
    let info: [u32; 9] = option_words(socket, libc::SOL_SOCKET, libc::SO_MEMINFO)?;
    Ok(info[DROPS])
}

/// Segments that a socket has sent again: when the machine is slow, also where nothing was lost.
pub fn retransmits(socket: &Socket) -> io::Result<u32> {
    // tcpi_total_retrans of struct tcp_info, linux/tcp.h: after eight bytes, the 24th number.
    const TOTAL_RETRANS: usize = 2 + 23;
    let info: [u32; TOTAL_RETRANS + 1] = option_words(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(info[TOTAL_RETRANS])
}

/// Whether an attempt to connect goes on.
pub fn is_connecting(socket: &Socket) -> io::Result<bool> {
    // TCP_SYN_SENT; tcpi_state is the first byte of struct tcp_info.
    const SYN_SENT: u8 = 2;
    let [word] = option_words(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(word.to_ne_bytes()[0] == SYN_SENT)
}

/// Waits until a socket has sent so many segments again; gives the number.
pub fn wait_retransmits(socket: &Socket, count: u32) -> io::Result<u32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sent = retransmits(socket)?;
        if sent >= count {
            return Ok(sent);
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("nothing was sent again"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn option_words<const N: usize>(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<[u32; N]> {
    let mut words = [0_u32; N];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: writes no more than `length` bytes.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            words.as_mut_ptr().cast(),
            &mut length,
        )
    };
    match done {
        0 => Ok(words),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until a deaf socket has missed something that was sent to it, and has it hear again.
pub fn hear_after_loss(socket: &Socket) -> io::Result<()> {
    hear_after_losses(socket, 1)
}

/// The same, when it has missed so many segments. There is no event for this.
pub fn hear_after_losses(socket: &Socket, count: u32) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while drops(socket)? < count {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("fewer than {count} were lost")));
        }
        thread::sleep(LOOK);
    }
    socket.detach_filter()
}

/// A socket of another process, by its descriptor there.
pub fn take(pid: libc::pid_t, fd: libc::c_int) -> io::Result<Socket> {
    let owned = |fd: libc::c_long| match fd {
        0.. => {
            // SAFETY: a new descriptor that has no other owner.
            Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
        }
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: no memory is involved.
    let pidfd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: likewise.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) };
    owned(fd).map(Socket::from)
}

/// Moves `count` bytes from one socket to another, acknowledged to the last one.
pub fn transfer(from: &Socket, to: &Socket, count: usize) -> io::Result<()> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(from, count));
        recv(to, count)?;
        sender
            .join()
            .map_err(|_| io::Error::other("the sender panicked"))?
    })?;
    wait_acked(from)
}
