//! What the programs let through.

use std::ops::RangeInclusive;

use tcp_ebpf::config::{Config, PortSet};

/// Which events are wanted; the default wants all. Kept in the kernel: what it keeps out never reaches
/// the ring buffer.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only IPv4 (4, IPv4-mapped addresses included) or only IPv6 (6).
    pub ip: Option<u8>,
    /// Only sockets of this network namespace, by inode number.
    pub netns: Option<u32>,
    /// Only sockets of these processes; all if empty.
    pub pids: Vec<u32>,
    /// Only these local ports; all if empty.
    pub local_ports: Vec<RangeInclusive<u16>>,
    /// Only these remote ports; all if empty.
    pub remote_ports: Vec<RangeInclusive<u16>>,
    /// Leave out sessions that were opened before the trace.
    pub new_only: bool,
}

impl Filter {
    /// The programs' `.rodata` globals, by name.
    pub(super) fn globals(&self) -> Vec<(&'static str, Vec<u8>)> {
        let config = Config {
            ip: self.ip.map_or(0, u32::from),
            netns: self.netns.unwrap_or(0),
            by_pid: u32::from(!self.pids.is_empty()),
            by_local_port: u32::from(!self.local_ports.is_empty()),
            by_remote_port: u32::from(!self.remote_ports.is_empty()),
            new_only: u32::from(self.new_only),
        };
        vec![
            ("CONFIG", config.to_bytes().to_vec()),
            ("LOCAL_PORTS", port_set(&self.local_ports)),
            ("REMOTE_PORTS", port_set(&self.remote_ports)),
        ]
    }
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
}
