//! Routers' answers, forged: loopback has no router that could give them.

use std::io::{self, Read};
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::segment::Segment;
use crate::sock::V4;

const DESTINATION_UNREACHABLE: u8 = 3;
const HOST_UNREACHABLE: u8 = 1;
const FRAGMENTATION_NEEDED: u8 = 4;
/// The IPv4 header without options and the ports and sequence number behind it (RFC 792).
const QUOTED: usize = 28;

/// Sees the IPv4 TCP packets of the calling thread's network namespace, from now on.
#[derive(Debug)]
pub struct Router(Socket);

impl Router {
    /// Needs CAP_NET_RAW.
    pub fn new() -> io::Result<Self> {
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).map(Self)
    }

    /// Tells the sender of the first packet that the host cannot be reached.
    pub fn refuse_first(self) -> io::Result<()> {
        let mut packet = [0; QUOTED];
        (&self.0).read_exact(&mut packet)?;
        unreachable(HOST_UNREACHABLE, 0, &packet, V4)
    }
}

/// Answers a segment: it does not fit through a link of this MTU (RFC 1191).
pub fn too_big(segment: &Segment, mtu: u16) -> io::Result<()> {
    let quoted = &segment.bytes()[..QUOTED];
    unreachable(FRAGMENTATION_NEEDED, mtu, quoted, segment.source())
}

fn unreachable(code: u8, mtu: u16, quoted: &[u8], to: SocketAddr) -> io::Result<()> {
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
