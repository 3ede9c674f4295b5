//! What happened, in types: records of the kernel programs, decoded.
//!
//! Knows neither how the records got here nor what will be shown of them. Bytes are parsed, never cast:
//! a record that makes no sense is an error, whatever it holds.

mod accept;
mod connect;
mod decode;
mod ends;
mod holders;
mod names;
mod progress;
mod reset;
mod retransmit;
mod session;
mod socket;

use std::net::IpAddr;

pub use self::{
    accept::Accept,
    connect::{Cause, Connect, Outcome},
    decode::{DecodeError, decode, decode_all},
    ends::{Close, Side},
    holders::{Holder, Holders},
    names::{errno_name, state_name, state_named},
    reset::Reset,
    retransmit::{Reason, Retransmit, Segment},
    session::{Moved, Role, Session, SocketId},
    socket::{Socket, Stream, Timer},
};

/// Anything that the kernel programs report.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A TCP session has ended, or is open at this moment.
    Session(Session),
    /// A TCP session is open, and nothing has moved on it since the last snapshot showed it.
    Idle(SocketId),
    /// A socket has sent a RST after it was closed.
    Reset(Reset),
    /// A process has asked for a connection.
    Connect(Connect),
    /// A connection was handed to a process.
    Accept(Accept),
    /// A segment was sent again.
    Retransmit(Retransmit),
    /// A socket as it is at this moment.
    Socket(Socket),
}

/// What all events about a socket have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// When it happened: `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// Local address; an IPv4-mapped one as IPv4.
    pub laddr: IpAddr,
    /// Local port.
    pub lport: u16,
    /// Remote address; an IPv4-mapped one as IPv4.
    pub raddr: IpAddr,
    /// Remote port.
    pub rport: u16,
    /// The addresses are IPv4-mapped IPv6 addresses.
    pub mapped: bool,
    /// Network namespace, by inode number.
    pub netns: u32,
    /// The process that the socket belongs to, where known.
    pub owner: Option<Owner>,
}

impl Event {
    /// When, between whom, whose; not where it was told before.
    #[must_use]
    pub fn flow(&self) -> Option<&Flow> {
        match self {
            Self::Session(it) => Some(&it.flow),
            Self::Idle(_) | Self::Reset(_) => None,
            Self::Connect(it) => Some(&it.flow),
            Self::Accept(it) => Some(&it.flow),
            Self::Retransmit(it) => Some(&it.flow),
            Self::Socket(it) => Some(&it.flow),
        }
    }
}

/// The process that a socket belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// How it is known.
    pub by: OwnerBy,
    /// Process id, in the initial pid namespace.
    pub pid: u32,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// cgroup v2 id, where known.
    pub cgroup_id: Option<u64>,
    comm: [u8; 16],
}

impl Owner {
    /// Name of the process (not of a thread): any bytes but NUL.
    #[must_use]
    pub fn comm(&self) -> &[u8] {
        self.comm
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default()
    }
}

/// How the owner of a socket is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerBy {
    /// It called connect().
    Connect,
    /// It called accept().
    Accept,
    /// It held a descriptor when the trace began, or it called listen().
    Fd,
}

impl OwnerBy {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Fd => "fd",
        }
    }
}
