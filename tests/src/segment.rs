//! TCP segments over IPv4 as they are on the wire: seen, sent a second time, and forged.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

use crate::PATIENCE;
use crate::icmp::checksum;

/// Sees the IPv4 TCP segments of the calling thread's network namespace, from now on. It sees them before the socket
/// that they are for, and its filter.
#[derive(Debug)]
pub struct Tap(Socket);

impl Tap {
    /// Needs CAP_NET_RAW.
    pub fn new() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// The next segment that `is_it`.
    pub fn next(&self, is_it: impl Fn(&Segment) -> bool) -> io::Result<Segment> {
        loop {
            let mut bytes = vec![0; 1 << 16];
            let length = (&self.0).read(&mut bytes)?;
            bytes.truncate(length);
            let segment = Segment(bytes);
            if is_it(&segment) {
                return Ok(segment);
            }
        }
    }
}

/// A packet: an IPv4 header without options, and what is behind it.
#[derive(Clone, Debug)]
pub struct Segment(Vec<u8>);

const IP: usize = 20;
const TCP: usize = 20;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

impl Segment {
    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::new(self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3])
    }

    /// Where it comes from.
    pub fn source(&self) -> SocketAddr {
        SocketAddrV4::new(self.address(12), self.word(IP)).into()
    }

    /// Whether it asks for a connection.
    pub fn is_syn(&self) -> bool {
        self.0[IP + 13] & (SYN | ACK) == SYN
    }

    /// Bytes of data.
    pub fn payload(&self) -> usize {
        self.0.len() - IP - usize::from(self.0[IP + 12] >> 4) * 4
    }

    /// The packet, from its IP header on.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The answer of its receiver, that has none of its data and no room for any.
    pub fn closed_window(&self) -> Self {
        let mut bytes = self.0[..IP + TCP].to_vec();
        // Total length; addresses, ports, sequence numbers: the other way round.
        bytes[2..4].copy_from_slice(&((IP + TCP) as u16).to_be_bytes());
        for (at, length) in [(12, 4), (IP, 2), (IP + 4, 4)] {
            let (one, other) = bytes[at..at + 2 * length].split_at_mut(length);
            one.swap_with_slice(other);
        }
        bytes[IP + 12] = ((TCP / 4) << 4) as u8;
        bytes[IP + 13] = ACK;
        bytes[IP + 14..IP + 16].fill(0);
        Self(bytes)
    }

    /// Sends it to where it says that it goes. Needs CAP_NET_RAW.
    pub fn send(&self) -> io::Result<()> {
        let mut bytes = self.0.clone();
        // What loopback hands over has no checksum yet.
        bytes[IP + 16..IP + 18].fill(0);
        let mut summed = bytes[12..IP].to_vec();
        summed.extend([0, libc::IPPROTO_TCP as u8]);
        summed.extend(((bytes.len() - IP) as u16).to_be_bytes());
        summed.extend(&bytes[IP..]);
        summed.resize(summed.len().next_multiple_of(2), 0);
        bytes[IP + 16..IP + 18].copy_from_slice(&checksum(&summed).to_be_bytes());
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(raw))?;
        let to: SocketAddr = SocketAddrV4::new(self.address(16), 0).into();
        socket.send_to(&bytes, &to.into()).map(drop)
    }
}
