//! From bytes to events.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf as _, TryGetError};
use tcp_ebpf::{tcp, wire};

use super::{Event, Flow, Owner, OwnerBy, Session};

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

/// Decodes the record that `bytes` begin with. Bytes behind it are no concern: the ring pads to eight.
///
/// # Errors
///
/// When it is too short, of unknown kind, or holds a value that has no meaning.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let short = |_: TryGetError| DecodeError::Short(bytes.len());
    match bytes.first() {
        None => Err(DecodeError::Short(0)),
        Some(&(wire::kind::SESSION | wire::kind::OPEN)) => {
            let record = Reader(bytes).session().map_err(short)?;
            Session::new(&record).map(Event::Session)
        }
        Some(kind) => Err(DecodeError::Kind(*kind)),
    }
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

    fn u32(&mut self) -> Read<u32> {
        self.0.try_get_u32_ne()
    }

    fn u64(&mut self) -> Read<u64> {
        self.0.try_get_u64_ne()
    }

    fn bytes<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut bytes = [0; N];
        self.0.try_copy_to_slice(&mut bytes)?;
        Ok(bytes)
    }

    fn session(&mut self) -> Read<wire::Session> {
        Ok(wire::Session {
            kind: self.u8()?,
            owner_by: self.u8()?,
            role: self.u8()?,
            partial: self.u8()?,
            family: self.u16()?,
            lport: self.u16()?,
            rport: self.u16()?,
            error: self.u16()?,
            netns: self.u32()?,
            laddr: self.bytes()?,
            raddr: self.bytes()?,
            ts_ns: self.u64()?,
            opened_ns: self.u64()?,
            syn_ns: self.u64()?,
            established_ns: self.u64()?,
            owner: wire::Owner {
                cgroup_id: self.u64()?,
                comm: [self.u64()?, self.u64()?],
                pid: self.u32()?,
                uid: self.u32()?,
            },
            now: self.progress()?,
            base: self.progress()?,
            bytes_sent: self.u64()?,
            bytes_retrans: self.u64()?,
            unacked: self.u32()?,
            srtt_us8: self.u32()?,
            handshake_us8: self.u32()?,
            min_rtt_us: self.u32()?,
            retransmits: self.u32()?,
            pad: self.u32()?,
        })
    }

    fn progress(&mut self) -> Read<wire::Progress> {
        Ok(wire::Progress {
            bytes_acked: self.u64()?,
            bytes_received: self.u64()?,
            state: self.u8()?,
            flags: self.u8()?,
            pad: self.bytes()?,
        })
    }
}

impl Flow {
    pub(super) fn new(record: &wire::Session) -> Result<Self, DecodeError> {
        let (laddr, local_mapped) = address(record.family, record.laddr)?;
        let (raddr, remote_mapped) = address(record.family, record.raddr)?;
        Ok(Self {
            ts_ns: record.ts_ns,
            laddr,
            lport: record.lport,
            raddr,
            rport: record.rport,
            mapped: local_mapped || remote_mapped,
            netns: record.netns,
            owner: owner(record.owner_by, &record.owner)?,
        })
    }
}

/// The address, and whether it was IPv4-mapped.
fn address(family: u16, bytes: [u8; 16]) -> Result<(IpAddr, bool), DecodeError> {
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
        _ => Err(DecodeError::Field {
            field: "family",
            value: u64::from(family),
        }),
    }
}

fn owner(by: u8, owner: &wire::Owner) -> Result<Option<Owner>, DecodeError> {
    let by = match by {
        wire::owner::NONE => return Ok(None),
        wire::owner::CONNECT => OwnerBy::Connect,
        wire::owner::ACCEPT => OwnerBy::Accept,
        wire::owner::FD => OwnerBy::Fd,
        _ => {
            return Err(DecodeError::Field {
                field: "owner_by",
                value: u64::from(by),
            });
        }
    };
    let mut comm = [0; 16];
    comm[..8].copy_from_slice(&owner.comm[0].to_ne_bytes());
    comm[8..].copy_from_slice(&owner.comm[1].to_ne_bytes());
    Ok(Some(Owner {
        by,
        pid: owner.pid,
        uid: owner.uid,
        cgroup_id: Some(owner.cgroup_id).filter(|id| *id != 0),
        comm,
    }))
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
        fn a_short_session_says_how_short(length in 1..size_of::<wire::Session>()) {
            let mut bytes = vec![0; length];
            bytes[0] = wire::kind::SESSION;
            prop_assert_eq!(decode(&bytes), Err(DecodeError::Short(length)));
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        assert_eq!(decode(&[99; 400]), Err(DecodeError::Kind(99)));
        assert_eq!(decode(&[]), Err(DecodeError::Short(0)));
    }
}
