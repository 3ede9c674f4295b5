//! Which processes hold which sockets.

use tcp_ebpf::wire;
use wildmatch::WildMatch;

use super::{Owner, OwnerBy, Socket, decode::decode_holders};

/// A process that holds a descriptor of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    inode: u64,
    started_ns: u64,
    fd: u32,
    wanted: bool,
    owner: Owner,
}

impl Holder {
    pub(super) fn new(record: &wire::Holder) -> Self {
        Self {
            inode: record.inode,
            started_ns: record.started_ns,
            fd: record.fd,
            wanted: record.wanted != 0,
            owner: Owner::new(OwnerBy::Fd, &record.process),
        }
    }
}

/// The holders of all sockets at one moment, and what is wanted of them.
#[derive(Debug, Default)]
pub struct Holders {
    /// By socket, the oldest process first; one entry for each.
    all: Vec<Holder>,
    /// Sockets that no wanted process holds are of no interest.
    by_process: bool,
    /// Only processes with such a name are wanted.
    comm: Option<WildMatch>,
}

impl Holders {
    /// None yet. `by_process`: the kernel's side marks those that are wanted, by whatever filter.
    #[must_use]
    pub fn new(by_process: bool, comm: Option<WildMatch>) -> Self {
        Self {
            all: Vec::new(),
            by_process: by_process || comm.is_some(),
            comm,
        }
    }

    /// Takes in the records of one moment, instead of those before. Returns how many make no sense.
    pub fn replace(&mut self, records: &[u8]) -> u64 {
        let mut undecoded = 0;
        self.set(decode_holders(records).filter_map(|holder| {
            holder
                .inspect_err(|error| {
                    undecoded += 1;
                    log::warn!("{error}");
                })
                .ok()
        }));
        undecoded
    }

    fn set(&mut self, holders: impl Iterator<Item = Holder>) {
        let Self { all, comm, .. } = self;
        let is_named = |owner: &Owner| {
            comm.as_ref()
                .is_none_or(|comm| comm.matches(&String::from_utf8_lossy(owner.comm())))
        };
        all.clear();
        all.extend(holders.map(|it| Holder {
            wanted: it.wanted && is_named(&it.owner),
            ..it
        }));
        all.sort_unstable_by_key(|it| (it.inode, it.started_ns, it.owner.pid, it.fd));
        all.dedup_by_key(|it| (it.inode, it.started_ns, it.owner.pid));
    }

    /// Gives `socket` its owner: the oldest process that holds it and is wanted, which is as a rule the one
    /// that has passed it on to the others. False if wanted processes are asked for, and none holds it.
    pub fn give_owner(&self, socket: &mut Socket) -> bool {
        let Some(inode) = socket.inode else {
            return !self.by_process;
        };
        let rest = &self.all[self.all.partition_point(|it| it.inode < inode)..];
        let holders = &rest[..rest.partition_point(|it| it.inode == inode)];
        let Some(owner) = holders.iter().find(|it| it.wanted) else {
            return !self.by_process;
        };
        socket.flow.owner = Some(owner.owner.clone());
        socket.fd = Some(owner.fd);
        socket.others = u32::try_from(holders.len() - 1).ok();
        true
    }
}

#[cfg(test)]
mod tests {
    use tcp_ebpf::{
        tcp::{AF_INET, ESTABLISHED},
        wire::{Progress, form},
    };

    use super::*;

    fn socket(inode: u64) -> Socket {
        Socket::new(&wire::Socket {
            head: wire::Head {
                family: AF_INET,
                ..wire::Head::default()
            },
            now: Progress {
                state: ESTABLISHED,
                ..Progress::default()
            },
            form: form::FULL,
            inode,
            ..wire::Socket::default()
        })
        .unwrap()
    }

    fn holder(inode: u64, started_ns: u64, pid: u32, fd: u32, wanted: bool) -> Holder {
        Holder::new(&wire::Holder {
            inode,
            started_ns,
            fd,
            wanted: u8::from(wanted),
            process: wire::Owner {
                pid,
                ..wire::Owner::default()
            },
            ..wire::Holder::default()
        })
    }

    fn holders(by_process: bool, all: Vec<Holder>) -> Holders {
        let mut holders = Holders::new(by_process, None);
        holders.set(all.into_iter());
        holders
    }

    fn found(holders: &Holders, inode: u64) -> Option<(Option<u32>, Option<u32>, Option<u32>)> {
        let mut socket = socket(inode);
        let wanted = holders.give_owner(&mut socket);
        let pid = socket.flow.owner.map(|owner| owner.pid);
        wanted.then_some((pid, socket.fd, socket.others))
    }

    #[test]
    fn the_owner_is_the_oldest_holder_and_processes_count_once() {
        let all = vec![
            holder(7, 20, 3, 4, true),
            holder(7, 10, 900, 6, true),
            holder(7, 10, 900, 5, true),
            holder(7, 30, 4, 4, true),
            holder(8, 1, 1, 9, true),
        ];
        let holders = holders(false, all);
        assert_eq!(found(&holders, 7), Some((Some(900), Some(5), Some(2))));
        assert_eq!(found(&holders, 8), Some((Some(1), Some(9), Some(0))));
        for unheld in [0, 6, 9] {
            assert_eq!(found(&holders, unheld), Some((None, None, None)));
        }
    }

    #[test]
    fn a_filter_by_process_is_for_any_holder() {
        let all = vec![
            holder(7, 10, 1, 4, false),
            holder(7, 20, 2, 5, true),
            holder(8, 10, 1, 6, false),
        ];
        let holders = holders(true, all);
        assert_eq!(found(&holders, 7), Some((Some(2), Some(5), Some(1))));
        for unwanted in [8, 9, 0] {
            assert_eq!(found(&holders, unwanted), None);
        }
    }

    #[test]
    fn damaged_records_are_counted() {
        let mut holders = Holders::default();
        assert_eq!(holders.replace(&[0; 60]), 2);
        assert_eq!(found(&holders, 0), Some((None, None, None)));
    }
}
