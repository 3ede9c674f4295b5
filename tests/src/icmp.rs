//! Routers' answers, forged: loopback has no router that could give them. And how a socket sees them.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, Socket, Type};

use crate::PATIENCE;
use crate::segment::Segment;
use crate::sock::{V4, V6, set_option};

const FRAGMENTATION_NEEDED: u8 = 4;
/// The IPv4 header without options and the ports and sequence number behind it (RFC 792).
const QUOTED: usize = 28;

/// What a router says: the codes of "destination unreachable" of each family.
#[derive(Clone, Copy, Debug)]
pub enum Unreachable {
    /// No route to the network.
    Net,
    /// No route to the host.
    Host,
    /// No such port.
    Port,
    /// A firewall forbids it.
    Prohibited,
}

impl Unreachable {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Net, Self::Host, Self::Port, Self::Prohibited];

    /// Of RFC 792 and RFC 1812.
    fn v4(self) -> u8 {
        match self {
            Self::Net => 0,
            Self::Host => 1,
            Self::Port => 3,
            Self::Prohibited => 13,
        }
    }

    /// Of RFC 4443.
    fn v6(self) -> u8 {
        match self {
            Self::Net => 0,
            Self::Host => 3,
            Self::Port => 4,
            Self::Prohibited => 1,
        }
    }
}

/// Sees the TCP packets of one family in the calling thread's network namespace, from now on.
#[derive(Debug)]
pub struct Router {
    tcp: Socket,
    is_v6: bool,
}

impl Router {
    /// Of IPv4. Needs CAP_NET_RAW.
    pub fn new() -> io::Result<Self> {
        Self::of(V4)
    }

    /// Of the family of `address`.
    pub fn of(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        Ok(Self {
            tcp: Socket::new(domain, Type::RAW, Some(Protocol::TCP))?,
            is_v6: address.is_ipv6(),
        })
    }

    /// Tells the sender of the first packet that the host cannot be reached.
    pub fn refuse_first(self) -> io::Result<()> {
        self.refuse_first_with(Unreachable::Host)
    }

    /// Answers the sender of the first packet.
    pub fn refuse_first_with(self, why: Unreachable) -> io::Result<()> {
        if self.is_v6 {
            self.refuse_v6(why)
        } else {
            self.refuse_v4(why)
        }
    }

    fn refuse_v4(&self, why: Unreachable) -> io::Result<()> {
        let mut packet = [0; QUOTED];
        (&self.tcp).read_exact(&mut packet)?;
        unreachable(why.v4(), 0, &packet, V4)
    }

    /// The kernel shows packets without their IPv6 header, and sums up what is sent.
    fn refuse_v6(&self, why: Unreachable) -> io::Result<()> {
        const DESTINATION_UNREACHABLE: u8 = 1;
        const TCP: u8 = 6;
        /// A TCP header without options.
        const SEGMENT: usize = 20;
        const LOOPBACK: [u8; 16] = std::net::Ipv6Addr::LOCALHOST.octets();
        let mut segment = [0; SEGMENT];
        (&self.tcp).read_exact(&mut segment)?;
        let mut message = vec![DESTINATION_UNREACHABLE, why.v6(), 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&[0x60, 0, 0, 0, 0, SEGMENT as u8, TCP, 64]);
        message.extend_from_slice(&LOOPBACK);
        message.extend_from_slice(&LOOPBACK);
        message.extend_from_slice(&segment);
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.send_to(&message, &V6.into()).map(drop)
    }
}

/// Has ICMP errors queued, so that [`wait_error`] sees each.
pub fn queue_errors(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
}

/// Waits until a socket has got an ICMP error.
pub fn wait_error(socket: &Socket) -> io::Result<()> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    let millis = i32::try_from(PATIENCE.as_millis()).map_err(io::Error::other)?;
    // SAFETY: one valid pollfd, as the count says.
    match unsafe { libc::poll(&mut poll, 1, millis) } {
        1 => Ok(()),
        0 => Err(io::Error::other("there was no ICMP error")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Answers a segment: it does not fit through a link of this MTU (RFC 1191).
pub fn too_big(segment: &Segment, mtu: u16) -> io::Result<()> {
    let quoted = &segment.bytes()[..QUOTED];
    unreachable(FRAGMENTATION_NEEDED, mtu, quoted, segment.source())
}

/// Destination unreachable, of IPv4.
fn unreachable(code: u8, mtu: u16, quoted: &[u8], to: SocketAddr) -> io::Result<()> {
    const DESTINATION_UNREACHABLE: u8 = 3;
    let mut message = vec![DESTINATION_UNREACHABLE, code, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend_from_slice(quoted);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.send_to(&message, &to.into()).map(drop)
}

/// The internet checksum (RFC 1071) of an even number of bytes.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
