//! What is counted together, and what comes first.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    rc::Rc,
};

use super::tally::Throughput;
use crate::event::Flow;

/// What a row is the throughput of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// One end of a connection
    Conn,
    /// A process
    Process,
    /// A remote address
    Remote,
    /// A local port
    Lport,
    /// A container
    Container,
}

/// What the rows are in order of, biggest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Bytes received
    Rx,
    /// Bytes sent and acknowledged
    Tx,
    /// Bytes both ways
    Sum,
    /// Round-trip time
    Rtt,
    /// Segments retransmitted
    Retrans,
}

impl By {
    /// As the option and the rows call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Conn => "conn",
            Self::Process => "process",
            Self::Remote => "remote",
            Self::Lport => "lport",
            Self::Container => "container",
        }
    }

    /// The one after it, and after the last one the first.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Conn => Self::Process,
            Self::Process => Self::Remote,
            Self::Remote => Self::Lport,
            Self::Lport => Self::Container,
            Self::Container => Self::Conn,
        }
    }
}

impl Sort {
    /// As the option calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
            Self::Sum => "sum",
            Self::Rtt => "rtt",
            Self::Retrans => "retrans",
        }
    }

    /// The one after it, and after the last one the first.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Rx => Self::Tx,
            Self::Tx => Self::Sum,
            Self::Sum => Self::Rtt,
            Self::Rtt => Self::Retrans,
            Self::Retrans => Self::Rx,
        }
    }

    fn measure(self, row: &Throughput) -> u64 {
        match self {
            Self::Rx => row.rx_bytes,
            Self::Tx => row.tx_bytes,
            Self::Sum => row.bytes(),
            Self::Rtt => row.srtt_us.unwrap_or(0).into(),
            Self::Retrans => row.retransmits,
        }
    }
}

/// The sums of `rows` by `by`, in any order; `None` if they are not to be added up. `container_of` knows cgroups.
pub(super) fn grouped(
    rows: &[Throughput],
    by: By,
    mut container_of: impl FnMut(u64) -> Option<Rc<str>>,
) -> Option<Vec<Throughput>> {
    Some(match by {
        By::Conn => return None,
        By::Process => sums(
            rows,
            |flow| flow.owner.as_ref().map(|it| (it.pid, it.comm().to_vec())),
            |sum, flow, _| sum.flow.owner = flow.owner.clone(),
        ),
        By::Remote => sums(
            rows,
            |flow| flow.raddr,
            |sum, _, raddr| sum.flow.raddr = *raddr,
        ),
        By::Lport => sums(
            rows,
            |flow| flow.lport,
            |sum, _, lport| sum.flow.lport = *lport,
        ),
        By::Container => sums(
            rows,
            |flow| container_of(flow.owner.as_ref()?.cgroup_id?),
            |sum, _, container| sum.container = container.clone(),
        ),
    })
}

/// Sums of the rows that have the same key; `keep` takes over what they share.
fn sums<K: Eq + Hash>(
    rows: &[Throughput],
    mut key: impl FnMut(&Flow) -> K,
    keep: impl Fn(&mut Throughput, &Flow, &K),
) -> Vec<Throughput> {
    let mut groups: HashMap<K, Throughput> = HashMap::new();
    for row in rows {
        let sum = match groups.entry(key(&row.flow)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let mut sum = Throughput::nothing();
                sum.flow.ts_ns = row.flow.ts_ns;
                keep(&mut sum, &row.flow, entry.key());
                entry.insert(sum)
            }
        };
        sum.add(row);
    }
    groups.into_values().collect()
}

/// Puts the biggest first. Equals keep their order from one interval to the next.
pub(super) fn rank(rows: &mut [Throughput], sort: Sort) {
    rows.sort_unstable_by_key(|row| {
        let Flow {
            laddr,
            lport,
            raddr,
            rport,
            netns,
            ..
        } = row.flow;
        let pid = row.flow.owner.as_ref().map(|owner| owner.pid);
        (
            Reverse((sort.measure(row), row.bytes())),
            (laddr, lport, raddr, rport, netns, pid),
        )
    });
}
