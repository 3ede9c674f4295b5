//! Sockets in every state that TCP has.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::thread;
use std::time::Instant;

use socket2::Socket;

use crate::PATIENCE;
use crate::pair::Pair;
use crate::proc_net;
use crate::sock::{self, DUAL, Ends, V4, V6};

/// Bytes in the queues of [`Every::new`], all different.
const UNREAD: usize = 1234;
const UNSENT: usize = 4321;

/// Sockets in each state but CLOSE, over one address; they stay as they are for as long as this value lives.
#[derive(Debug)]
pub struct Every {
    sockets: Vec<Socket>,
}

impl Every {
    /// Over IPv4, IPv6, and IPv4 between IPv6 sockets.
    pub fn of_all_families() -> [Self; 3] {
        [V4, V6, DUAL].map(Self::new)
    }

    /// `address` must be a loopback address, or [`DUAL`] for IPv4 between IPv6 sockets.
    pub fn new(address: SocketAddr) -> Self {
        let listener = sock::listen(address, 16).unwrap();
        let mut target = sock::local(&listener).unwrap();
        if address == DUAL {
            target.set_ip(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
        }
        let pair = || {
            let client = sock::connect(target).unwrap();
            Pair {
                client,
                server: sock::accept(&listener).unwrap(),
            }
        };
        let mut sockets = Vec::new();
        for make in [
            unread,
            unsent,
            closed_window,
            kept_alive,
            fin_wait1,
            fin_wait2,
            last_ack,
            closing,
        ] {
            let pair = pair();
            make(&pair);
            sockets.extend([pair.client, pair.server]);
        }
        // TIME_WAIT, and FIN_WAIT2 that nobody holds.
        let Pair { client, server } = pair();
        drop(client);
        sock::drain(&server).unwrap();
        drop(server);
        let Pair { client, server } = pair();
        drop(client);
        sock::drain(&server).unwrap();
        sockets.push(server);
        // SYN_SENT and SYN_RECV.
        let deaf = sock::tcp(target).unwrap();
        sock::deafen(&deaf).unwrap();
        deaf.set_nonblocking(true).unwrap();
        let error = deaf.connect(&target.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
        sockets.push(deaf);
        // A connection that waits to be accepted.
        sockets.push(sock::connect(target).unwrap());
        sockets.push(listener);
        Self { sockets }
    }

    /// How many sockets of these have a descriptor.
    pub fn held(&self) -> usize {
        self.sockets.len()
    }
}

/// ESTABLISHED, with bytes to read.
fn unread(pair: &Pair) {
    sock::send(&pair.client, UNREAD).unwrap();
    sock::wait_acked(&pair.client).unwrap();
}

/// ESTABLISHED, with bytes that are not acknowledged.
fn unsent(pair: &Pair) {
    sock::deafen(&pair.server).unwrap();
    sock::send(&pair.client, UNSENT).unwrap();
}

/// A peer that does not read until nothing more fits.
fn closed_window(pair: &Pair) {
    let client = &pair.client;
    client.set_nonblocking(true).unwrap();
    while client.send(&[b'x'; 4096]).is_ok() {}
    // Sockets to different peers may have the same port.
    let Ends { local, remote } = Ends::of(client).unwrap();
    wait_until("the window to close", || {
        let lines = proc_net::sockets();
        let line = lines
            .iter()
            .map(|it| (&it.entry, it.timer))
            .find(|(it, _)| {
                (it.laddr, it.lport) == (local.ip().to_canonical(), local.port())
                    && (it.raddr, it.rport)
                        == (Some(remote.ip().to_canonical()), Some(remote.port()))
            });
        line.is_some_and(|(_, timer)| timer == Some("persist"))
    });
}

fn kept_alive(pair: &Pair) {
    pair.client.set_keepalive(true).unwrap();
}

/// FIN_WAIT1: the FIN does not arrive.
fn fin_wait1(pair: &Pair) {
    sock::deafen(&pair.server).unwrap();
    pair.client.shutdown(Shutdown::Write).unwrap();
}

/// FIN_WAIT2 and CLOSE_WAIT.
fn fin_wait2(pair: &Pair) {
    pair.client.shutdown(Shutdown::Write).unwrap();
    wait_state(&pair.client, "FIN_WAIT2");
}

/// FIN_WAIT2 and LAST_ACK, of which the FIN does not arrive.
fn last_ack(pair: &Pair) {
    pair.client.shutdown(Shutdown::Write).unwrap();
    wait_state(&pair.client, "FIN_WAIT2");
    sock::deafen(&pair.client).unwrap();
    pair.server.shutdown(Shutdown::Write).unwrap();
}

/// CLOSING and FIN_WAIT1: the peer's FIN arrives, our own does not.
fn closing(pair: &Pair) {
    sock::deafen(&pair.server).unwrap();
    sock::deafen(&pair.client).unwrap();
    pair.client.shutdown(Shutdown::Write).unwrap();
    pair.server.shutdown(Shutdown::Write).unwrap();
    pair.client.detach_filter().unwrap();
    wait_state(&pair.client, "CLOSING");
}

/// Waits until `socket` is in this state.
pub fn wait_state(socket: &Socket, state: &str) {
    wait_until(state, || {
        proc_net::STATES[usize::from(self::state(socket).unwrap()) - 1] == state
    });
}

/// Waits for something that has no event; every look gives way to whoever else wants to run.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for {what}");
        thread::yield_now();
    }
}

/// `tcpi_state`, the first byte of `struct tcp_info`.
fn state(socket: &Socket) -> io::Result<u8> {
    use std::os::fd::AsRawFd;
    let mut state = 0_u8;
    let mut length: libc::socklen_t = 1;
    // SAFETY: writes no more than `length` bytes.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &mut length,
        )
    };
    match done {
        0 => Ok(state),
        _ => Err(io::Error::last_os_error()),
    }
}
