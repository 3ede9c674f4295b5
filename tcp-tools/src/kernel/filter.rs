//! What the programs let through.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::{IpNet, Ipv4Net};
use tcp_ebpf::config::{Config, Net, PortSet};

/// Room for the children of traced processes.
const MAX_FOLLOWED: usize = 65_536;

/// Which events are wanted; the default wants all. Kept in the kernel: what it keeps out never reaches
/// the ring buffer. An empty list lets all through.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only IPv4 (4, IPv4-mapped addresses included) or only IPv6 (6).
    pub ip: Option<u8>,
    /// Only sockets of this network namespace, by inode number.
    pub netns: Option<u32>,
    /// Only sockets of these processes.
    pub pids: Vec<u32>,
    /// Also of the children that they have during the trace.
    pub follow: bool,
    /// Only sockets of processes of these users.
    pub uids: Vec<u32>,
    /// Only sockets of processes in these cgroups, by id, or below them.
    pub cgroups: Vec<u64>,
    /// Only these local ports.
    pub local_ports: Vec<RangeInclusive<u16>>,
    /// Only these remote ports.
    pub remote_ports: Vec<RangeInclusive<u16>>,
    /// Only these local addresses; an IPv4 network also matches mapped ones.
    pub local_nets: Vec<IpNet>,
    /// Only these remote addresses, likewise.
    pub remote_nets: Vec<IpNet>,
    /// Leave out sessions that were opened before the trace.
    pub new_only: bool,
    /// Only sockets in these states, bit `1 << state` for each; 0 for all. Of no effect on events.
    pub states: u32,
}

/// A map of the programs that is used as a set.
pub(super) struct Set {
    pub(super) map: &'static str,
    /// Most that it can hold.
    pub(super) size: u32,
    /// What it holds at first; 0 means that the key is not in the set after all.
    pub(super) entries: Vec<(Vec<u8>, u8)>,
}

impl Filter {
    /// The programs' `.rodata` globals, by name; `events` says which records are to be written.
    pub(super) fn globals(&self, events: u32) -> Vec<(&'static str, Vec<u8>)> {
        let config = Config {
            events,
            ip: self.ip.map_or(0, u32::from),
            netns: self.netns.unwrap_or(0),
            by_pid: u32::from(!self.pids.is_empty()),
            by_uid: u32::from(!self.uids.is_empty()),
            by_cgroup: u32::from(!self.cgroups.is_empty()),
            by_local_port: u32::from(!self.local_ports.is_empty()),
            by_remote_port: u32::from(!self.remote_ports.is_empty()),
            by_local_net: u32::from(!self.local_nets.is_empty()),
            by_remote_net: u32::from(!self.remote_nets.is_empty()),
            new_only: u32::from(self.new_only),
            states: self.states,
            tick_ns: tick_ns(),
        };
        vec![
            ("CONFIG", config.to_bytes().to_vec()),
            ("LOCAL_PORTS", port_set(&self.local_ports)),
            ("REMOTE_PORTS", port_set(&self.remote_ports)),
        ]
    }

    /// Whether only sockets of certain processes are wanted.
    #[must_use]
    pub fn is_by_process(&self) -> bool {
        !self.pids.is_empty() || !self.uids.is_empty() || !self.cgroups.is_empty()
    }

    pub(super) fn sets(&self) -> [Set; 5] {
        let mut pids = set(
            "PIDS",
            self.pids.iter().map(|pid| pid.to_ne_bytes().to_vec()),
        );
        if self.follow {
            pids.size = MAX_FOLLOWED as u32;
        }
        [
            pids,
            set(
                "UIDS",
                self.uids.iter().map(|uid| uid.to_ne_bytes().to_vec()),
            ),
            set(
                "CGROUPS",
                self.cgroups.iter().map(|id| id.to_ne_bytes().to_vec()),
            ),
            nets("LOCAL_NETS", &self.local_nets),
            nets("REMOTE_NETS", &self.remote_nets),
        ]
    }
}

/// Length of a jiffy: what the coarse clock counts in (`posix_get_coarse_res`, kernel/time/posix-timers.c).
fn tick_ns() -> u32 {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    u32::try_from(tick.tv_nsec).unwrap_or(0)
}

fn set(map: &'static str, keys: impl Iterator<Item = Vec<u8>>) -> Set {
    with_entries(map, keys.map(|key| (key, 1)).collect())
}

fn with_entries(map: &'static str, entries: Vec<(Vec<u8>, u8)>) -> Set {
    // A map of no entries cannot be made.
    let size = u32::try_from(entries.len()).unwrap_or(u32::MAX).max(1);
    Set { map, size, entries }
}

/// The longest prefix decides, so a wide IPv6 network is kept from matching what is shown as IPv4.
fn nets(map: &'static str, nets: &[IpNet]) -> Set {
    let all_ipv4 = IpNet::from(Ipv4Net::default());
    let mut entries: Vec<_> = nets.iter().map(|net| (key(*net), 1)).collect();
    if !nets.is_empty() && !nets.contains(&all_ipv4) {
        entries.push((key(all_ipv4), 0));
    }
    with_entries(map, entries)
}

fn key(net: IpNet) -> Vec<u8> {
    let (address, shift) = match net.network() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 96),
        IpAddr::V6(v6) => (v6, 0),
    };
    let bytes = address.octets();
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    Net {
        prefix_len: u32::from(net.prefix_len()) + shift,
        address: words,
    }
    .to_bytes()
    .to_vec()
}

fn port_set(ranges: &[RangeInclusive<u16>]) -> Vec<u8> {
    let mut set: PortSet = [0; 1024];
    for port in ranges.iter().cloned().flatten() {
        set[usize::from(port) / 64] |= 1 << (port % 64);
    }
    set.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_set_holds_its_ranges_and_nothing_else() {
        let set = port_set(&[80..=80, 65_535..=65_535, 62..=65]);
        let ports: Vec<usize> = (0..65_536)
            .filter(|p| set[p / 8] >> (p % 8) & 1 != 0)
            .collect();
        assert_eq!(ports, [62, 63, 64, 65, 80, 65_535]);
    }

    #[test]
    fn an_ipv4_network_is_written_as_mapped() {
        let bytes = key("10.1.0.0/16".parse().unwrap());
        assert_eq!(bytes[..4], 112_u32.to_ne_bytes());
        assert_eq!(
            bytes[4..],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 0]
        );
    }
}
