//! From bytes to events.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf as _, TryGetError};
use tcp_ebpf::{
    tcp,
    wire::{self, kind},
};

use super::{
    Accept, Connect, Event, Flow, Holder, Owner, OwnerBy, Reset, Retransmit, Session, Socket,
    SocketId,
};

/// A record that makes no sense: programs and user space are not of one version, or it is damaged.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ends too early.
    #[error("record of {0} bytes is too short")]
    Short(usize),
    /// Nobody knows this kind.
    #[error("unknown record kind {0}")]
    Kind(u8),
    /// A field holds what it cannot.
    #[error("record field {field} holds {value}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

impl DecodeError {
    pub(super) fn field(field: &'static str, value: impl Into<u64>) -> Self {
        Self::Field {
            field,
            value: value.into(),
        }
    }
}

/// Decodes the record that `bytes` begin with. Bytes behind it are no concern: the ring pads to eight.
///
/// # Errors
///
/// When it is too short, of unknown kind, or holds a value that has no meaning.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let kind = *bytes.first().ok_or(DecodeError::Short(0))?;
    let short = |_: TryGetError| DecodeError::Short(bytes.len());
    let mut reader = Reader(bytes);
    match kind {
        kind::SESSION | kind::OPEN => {
            let record = reader.session().map_err(short)?;
            Session::new(&record).map(Event::Session)
        }
        kind::IDLE => {
            let record = reader.idle().map_err(short)?;
            Ok(Event::Idle(SocketId {
                address: record.id,
                born_ns: record.born_ns,
            }))
        }
        kind::RESET => {
            let record = reader.reset().map_err(short)?;
            Ok(Event::Reset(Reset::new(&record)))
        }
        kind::ATTEMPT | kind::OUTCOME => {
            let record = reader.connect().map_err(short)?;
            Connect::new(&record).map(Event::Connect)
        }
        kind::ACCEPT => {
            let record = reader.accept().map_err(short)?;
            Accept::new(&record).map(Event::Accept)
        }
        kind::RETRANSMIT | kind::SYNACK | kind::LOSS_PROBE => {
            let record = reader.retransmit().map_err(short)?;
            Retransmit::new(&record).map(Event::Retransmit)
        }
        kind::SOCKET => {
            let record = reader.socket().map_err(short)?;
            Socket::new(&record).map(Event::Socket)
        }
        kind => Err(DecodeError::Kind(kind)),
    }
}

/// Decodes records of holders, which follow one another without padding.
pub(super) fn decode_holders(bytes: &[u8]) -> impl Iterator<Item = Result<Holder, DecodeError>> {
    bytes.chunks(size_of::<wire::Holder>()).map(|bytes| {
        let record = Reader(bytes).holder();
        let record = record.map_err(|_| DecodeError::Short(bytes.len()))?;
        match record.kind {
            kind::HOLDER => Ok(Holder::new(&record)),
            kind => Err(DecodeError::Kind(kind)),
        }
    })
}

/// Decodes records that follow one another without padding, as iterators write them.
pub fn decode_all(mut bytes: &[u8]) -> impl Iterator<Item = Result<Event, DecodeError>> {
    std::iter::from_fn(move || {
        let length = match *bytes.first()? {
            kind::SESSION | kind::OPEN => size_of::<wire::Session>(),
            kind::IDLE => size_of::<wire::Idle>(),
            kind::ATTEMPT | kind::OUTCOME => size_of::<wire::Connect>(),
            kind::SOCKET => size_of::<wire::Socket>(),
            // Nothing else is known to be written so: what is left makes one error.
            _ => bytes.len(),
        };
        let event = decode(bytes);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(event)
    })
}

/// Reads the fields of a record in their order.
struct Reader<'a>(&'a [u8]);

type Read<T> = Result<T, TryGetError>;

impl Reader<'_> {
    fn u8(&mut self) -> Read<u8> {
        self.0.try_get_u8()
    }

    fn u16(&mut self) -> Read<u16> {
        self.0.try_get_u16_ne()
    }

    fn i16(&mut self) -> Read<i16> {
        self.0.try_get_i16_ne()
    }

    fn u32(&mut self) -> Read<u32> {
        self.0.try_get_u32_ne()
    }

    fn u64(&mut self) -> Read<u64> {
        self.0.try_get_u64_ne()
    }

    fn pair(&mut self) -> Read<[u64; 2]> {
        Ok([self.u64()?, self.u64()?])
    }

    fn head(&mut self) -> Read<wire::Head> {
        Ok(wire::Head {
            kind: self.u8()?,
            owner_by: self.u8()?,
            family: self.u16()?,
            lport: self.u16()?,
            rport: self.u16()?,
            netns: self.u32()?,
            pad: self.u32()?,
            laddr: self.pair()?,
            raddr: self.pair()?,
            ts_ns: self.u64()?,
            owner: self.owner()?,
        })
    }

    fn owner(&mut self) -> Read<wire::Owner> {
        Ok(wire::Owner {
            cgroup_id: self.u64()?,
            comm: self.pair()?,
            pid: self.u32()?,
            uid: self.u32()?,
        })
    }

    fn session(&mut self) -> Read<wire::Session> {
        Ok(wire::Session {
            head: self.head()?,
            id: self.u64()?,
            opened_ns: self.u64()?,
            syn_ns: self.u64()?,
            established_ns: self.u64()?,
            now: self.progress()?,
            base: self.progress()?,
            bytes_sent: self.u64()?,
            bytes_retrans: self.u64()?,
            unacked: self.u32()?,
            srtt_us8: self.u32()?,
            handshake_us8: self.u32()?,
            min_rtt_us: self.u32()?,
            holders: self.u32()?,
            error: self.u16()?,
            role: self.u8()?,
            partial: self.u8()?,
        })
    }

    fn idle(&mut self) -> Read<wire::Idle> {
        let mut pad = [0; 7];
        let kind = self.u8()?;
        self.0.try_copy_to_slice(&mut pad)?;
        Ok(wire::Idle {
            kind,
            pad,
            id: self.u64()?,
            born_ns: self.u64()?,
        })
    }

    fn reset(&mut self) -> Read<wire::Reset> {
        Ok(wire::Reset {
            kind: self.u8()?,
            pad8: self.u8()?,
            lport: self.u16()?,
            rport: self.u16()?,
            pad16: self.u16()?,
            id: self.u64()?,
            ts_ns: self.u64()?,
        })
    }

    fn progress(&mut self) -> Read<wire::Progress> {
        Ok(wire::Progress {
            bytes_acked: self.u64()?,
            bytes_received: self.u64()?,
            state: self.u8()?,
            flags: self.u8()?,
            pad: self.u16()?,
            retransmits: self.u32()?,
        })
    }

    fn connect(&mut self) -> Read<wire::Connect> {
        Ok(wire::Connect {
            head: self.head()?,
            syn_ns: self.u64()?,
            error: self.u16()?,
            established: self.u8()?,
            flags: self.u8()?,
            retransmits: self.u32()?,
        })
    }

    fn accept(&mut self) -> Read<wire::Accept> {
        Ok(wire::Accept {
            head: self.head()?,
            established_ns: self.u64()?,
            backlog: self.u32()?,
            max_backlog: self.u32()?,
        })
    }

    fn socket(&mut self) -> Read<wire::Socket> {
        Ok(wire::Socket {
            head: self.head()?,
            now: self.progress()?,
            bytes_sent: self.u64()?,
            bytes_retrans: self.u64()?,
            inode: self.u64()?,
            cgroup_id: self.u64()?,
            recv_q: self.u32()?,
            send_q: self.u32()?,
            unacked: self.u32()?,
            srtt_us8: self.u32()?,
            mdev_us4: self.u32()?,
            min_rtt_us: self.u32()?,
            cwnd: self.u32()?,
            retransmits: self.u32()?,
            mss: self.u32()?,
            uid: self.u32()?,
            cookie: self.u64()?,
            timer_us: self.u64()?,
            timer: self.u8()?,
            timer_retransmits: self.u8()?,
            form: self.u8()?,
            selected: self.u8()?,
            pad: self.u32()?,
        })
    }

    fn holder(&mut self) -> Read<wire::Holder> {
        Ok(wire::Holder {
            kind: self.u8()?,
            wanted: self.u8()?,
            pad: self.u16()?,
            fd: self.u32()?,
            inode: self.u64()?,
            started_ns: self.u64()?,
            process: self.owner()?,
        })
    }

    fn retransmit(&mut self) -> Read<wire::Retransmit> {
        Ok(wire::Retransmit {
            head: self.head()?,
            seq: self.u32()?,
            length: self.u32()?,
            srtt_us8: self.u32()?,
            cwnd: self.u32()?,
            nth: self.u32()?,
            state: self.u8()?,
            ca_state: self.u8()?,
            timer: self.u8()?,
            flags: self.u8()?,
            error: self.i16()?,
            segments: self.u16()?,
            pad: self.u32()?,
        })
    }
}

impl Flow {
    pub(super) fn new(head: &wire::Head) -> Result<Self, DecodeError> {
        let (laddr, local_mapped) = address(head.family, head.laddr)?;
        let (raddr, remote_mapped) = address(head.family, head.raddr)?;
        Ok(Self {
            ts_ns: head.ts_ns,
            laddr,
            lport: head.lport,
            raddr,
            rport: head.rport,
            mapped: local_mapped || remote_mapped,
            netns: head.netns,
            owner: owner(head.owner_by, &head.owner)?,
        })
    }
}

fn bytes_of([first, second]: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_ne_bytes());
    bytes[8..].copy_from_slice(&second.to_ne_bytes());
    bytes
}

/// The address, and whether it was IPv4-mapped.
fn address(family: u16, words: [u64; 2]) -> Result<(IpAddr, bool), DecodeError> {
    let bytes = bytes_of(words);
    match family {
        tcp::AF_INET => Ok((
            IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
            false,
        )),
        tcp::AF_INET6 => {
            let v6 = Ipv6Addr::from(bytes);
            let v4 = v6.to_ipv4_mapped();
            Ok((v4.map_or(IpAddr::V6(v6), IpAddr::V4), v4.is_some()))
        }
        _ => Err(DecodeError::field("family", family)),
    }
}

fn owner(by: u8, owner: &wire::Owner) -> Result<Option<Owner>, DecodeError> {
    let by = match by {
        wire::owner::NONE => return Ok(None),
        wire::owner::CONNECT => OwnerBy::Connect,
        wire::owner::ACCEPT => OwnerBy::Accept,
        wire::owner::FD => OwnerBy::Fd,
        _ => return Err(DecodeError::field("owner_by", by)),
    };
    Ok(Some(Owner::new(by, owner)))
}

impl Owner {
    pub(super) fn new(by: OwnerBy, owner: &wire::Owner) -> Self {
        Self {
            by,
            pid: owner.pid,
            uid: owner.uid,
            cgroup_id: Some(owner.cgroup_id).filter(|id| *id != 0),
            comm: bytes_of(owner.comm),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_kind_and_bytes_come_to_an_end(
            kind in 0..16_u8,
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let bytes: Vec<u8> = std::iter::once(kind).chain(bytes).collect();
            prop_assert!(decode_all(&bytes).count() <= bytes.len());
            prop_assert!(decode_holders(&bytes).count() <= bytes.len());
        }

        #[test]
        fn a_short_session_says_how_short(length in 1..size_of::<wire::Session>()) {
            let mut bytes = vec![0; length];
            bytes[0] = kind::SESSION;
            prop_assert_eq!(decode(&bytes), Err(DecodeError::Short(length)));
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        assert_eq!(decode(&[99; 400]), Err(DecodeError::Kind(99)));
        assert_eq!(decode(&[]), Err(DecodeError::Short(0)));
    }
}
