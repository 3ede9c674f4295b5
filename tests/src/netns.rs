//! Network namespaces.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::sock::{Ends, allow_descriptors};

/// Ports that the kernel chooses from in a test's namespace. They and those of [`crate::ktrace`] are below the kernel's
/// default: a trace by `.ci/run` leaves out all other traffic of the machine by these numbers.
const PORTS: [u16; 2] = [10_000, 30_999];

/// The port that the kernel gives to every client after [`one_client_port`].
const CLIENT_PORT: u16 = 30_000;

/// A network namespace with nothing but a loopback device that is up.
#[derive(Debug)]
pub struct Netns {
    /// Inode number, as in the `netns` field of the rows.
    pub inode: u64,
    // Held open: an inode number that the kernel gives away again would mix the rows of two tests.
    _file: File,
}

impl Netns {
    /// Puts the calling thread into a new namespace. Threads and processes that it starts from
    /// now on are born there.
    pub fn enter_new() -> Self {
        allow_descriptors().unwrap();
        // SAFETY: changes the calling thread's namespace; no memory is involved.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert!(done == 0, "unshare: {}", io::Error::last_os_error());
        loopback_up();
        set_port_range(PORTS);
        let file = File::open("/proc/thread-self/ns/net").unwrap();
        let inode = file.metadata().unwrap().ino();
        Self { inode, _file: file }
    }

    /// Addresses that no other namespace has, made of the number of this one: IPv4, which all of 127.0.0.0/8 is local for,
    /// and IPv6, once [`Netns::add_addresses`] has added it.
    pub fn addresses(&self) -> [IpAddr; 2] {
        let [_, b, c, d] = (self.inode as u32).to_be_bytes();
        let [high, low] = [self.inode >> 16, self.inode].map(|word| word as u16);
        [
            Ipv4Addr::new(127, b, c, d).into(),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, high, low).into(),
        ]
    }

    /// Gives the loopback device of the calling thread's namespace, which must be this, its [addresses](Self::addresses).
    pub fn add_addresses(&self) {
        let [_, IpAddr::V6(address)] = self.addresses() else {
            unreachable!("IPv6 comes second");
        };
        let request = libc::in6_ifreq {
            ifr6_addr: libc::in6_addr {
                s6_addr: address.octets(),
            },
            ifr6_prefixlen: 128,
            // The first device of each namespace.
            ifr6_ifindex: 1,
        };
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        // SAFETY: SIOCSIFADDR of an IPv6 socket reads an in6_ifreq that outlives the call.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &request) };
        assert!(done == 0, "{address}: {}", io::Error::last_os_error());
    }

    /// Runs `body` in a new namespace and leaves the calling thread where it is.
    pub fn elsewhere<T: Send>(body: impl FnOnce() -> T + Send) -> (Self, T) {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let netns = Self::enter_new();
                (netns, body())
            });
            thread.join().unwrap()
        })
    }
}

/// Sets `net.ipv4.NAME` of the calling thread's namespace.
pub fn set_ipv4(name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap();
}

/// A socket that failed to connect has forgotten its port: leave the kernel a single choice.
pub fn one_client_port() {
    set_port_range([CLIENT_PORT; 2]);
}

/// Has the kernel choose ports from `first` to `last`, both included.
pub(crate) fn set_port_range([first, last]: [u16; 2]) {
    set_ipv4("ip_local_port_range", &format!("{first} {last}"));
}

/// The ends as a client sees them after [`one_client_port`].
pub fn client_ends(remote: SocketAddr) -> Ends {
    Ends {
        local: SocketAddr::new(remote.ip(), CLIENT_PORT),
        remote,
    }
}

fn loopback_up() {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq that outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    assert!(done == 0, "lo up: {}", io::Error::last_os_error());
}
