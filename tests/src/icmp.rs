//! Routers' answers, forged: loopback has no router that could give them.

use std::io::{self, Read};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sock::V4;

const DESTINATION_UNREACHABLE: u8 = 3;
const HOST_UNREACHABLE: u8 = 1;
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
        let mut message = vec![DESTINATION_UNREACHABLE, HOST_UNREACHABLE, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&packet);
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.send_to(&message, &V4.into()).map(drop)
    }
}

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
