//! Parsers of option values.

use std::{net::IpAddr, ops::RangeInclusive, path::Path, time::Duration};

use clap::{
    ValueEnum as _,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use ipnet::IpNet;
use tcp_ebpf::tcp::{CLOSING, ESTABLISHED, State};
use wildmatch::WildMatch;

use crate::{
    event::{state_name, state_named},
    kernel::{
        Tier, namespace, netns_exists, netns_inode,
        pseudo::{self, NO_PROC},
    },
};

/// `--hooks`: a tier, or the best.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hooks(pub(crate) Option<Tier>);

pub(super) fn tier() -> impl TypedValueParser<Value = Hooks> {
    let auto = PossibleValue::new("auto").help("The best of these that attaches, for each hook");
    let tiers = Tier::value_variants()
        .iter()
        .filter_map(Tier::to_possible_value);
    PossibleValuesParser::new(std::iter::once(auto).chain(tiers))
        .map(|name| Hooks(Tier::from_str(&name, false).ok()))
}

/// A process that exists, as far as can be seen from this PID namespace.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    let pid = text.parse().ok().filter(|pid| *pid > 0);
    let pid: u32 = pid.ok_or_else(|| format!("not a process id: {text:?}"))?;
    check_proc()?;
    if !namespace::has_host_pids() || Path::new("/proc").join(pid.to_string()).exists() {
        Ok(pid)
    } else {
        Err(format!("there is no process {pid}"))
    }
}

/// Whether processes can be looked for.
fn check_proc() -> Result<(), String> {
    match pseudo::has_proc() {
        true => Ok(()),
        false => Err(format!("cannot look for processes: {NO_PROC}")),
    }
}

/// A network in CIDR notation, or a single address.
pub(super) fn net(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text:?} is no address or network, like 10.0.0.0/8 or 2001:db8::/32"))
}

/// A name in which `*` and `?` stand for any text, any character.
pub(super) fn glob(text: &str) -> Result<WildMatch, String> {
    // `TASK_COMM_LEN` with its NUL, include/linux/sched.h.
    const LONGEST: usize = 15;
    if text.is_empty() || text.len() > LONGEST && !text.contains('*') {
        return Err(format!(
            "not a process name: {text:?} (1 to {LONGEST} bytes)"
        ));
    }
    Ok(WildMatch::new(text))
}

/// A number of milliseconds, which may have decimals.
pub(crate) fn milliseconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok();
    number
        .and_then(|number| Duration::try_from_secs_f64(number / 1000.0).ok())
        .ok_or_else(|| format!("not a number of milliseconds: {text:?}"))
}

/// A number of seconds to wait again and again, which may have decimals.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(10);
    const MOST: Duration = Duration::from_hours(24);
    let number = text.parse::<f64>().ok();
    number
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .filter(|time| (LEAST..=MOST).contains(time))
        .ok_or_else(|| format!("not a number of seconds: {text:?} (0.01-86400)"))
}

/// A port or a range of ports.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("not a port number: {text:?} (1-65535)")),
        Ok(port) => Ok(port),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range {text} is empty"));
    }
    Ok(first..=last)
}

/// The name of a state.
pub(crate) fn state(text: &str) -> Result<State, String> {
    state_named(text).ok_or_else(|| {
        let names = (ESTABLISHED..=CLOSING).filter_map(state_name);
        let names: Vec<_> = names.map(str::to_ascii_lowercase).collect();
        format!("unknown state {text:?}; one of: {}", names.join(", "))
    })
}

/// A size in bytes with a binary suffix, rounded up to what a ring buffer can have.
pub(super) fn buffer_size(text: &str) -> Result<u32, String> {
    // A power of two, and a multiple of the page size (`ringbuf_map_alloc`, kernel/bpf/ringbuf.c).
    const LARGEST: u32 = 1 << 30;
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        _ => (lower.as_str(), 0),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| (1..=LARGEST).contains(bytes))
        .map(|bytes| bytes.max(page_size()).next_power_of_two())
        .ok_or_else(|| format!("{text:?} is no size from 1 to 1g, like 512k or 4m"))
}

fn page_size() -> u32 {
    // SAFETY: takes an integer.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(bytes).unwrap_or(4096)
}

/// A network namespace: of a process, by the path of its file, or by its inode number.
pub(super) fn netns(text: &str) -> Result<u32, String> {
    // Numbers of namespaces start at 0xf0000000 (`PROC_DYNAMIC_FIRST`, fs/proc/generic.c), far above any
    // process id.
    const LARGEST_PID: u32 = 1 << 22;
    let of = |path: &Path| {
        netns_inode(path)
            .map_err(|error| format!("no network namespace at {}: {error}", path.display()))
    };
    match text.parse::<u32>() {
        Ok(pid) if pid <= LARGEST_PID => {
            check_proc()?;
            of(&Path::new("/proc").join(pid.to_string()).join("ns/net"))
        }
        Ok(inode) if netns_exists(inode) => Ok(inode),
        Ok(inode) => Err(check_proc()
            .err()
            .unwrap_or_else(|| format!("no process is in a network namespace {inode}"))),
        Err(_) => of(Path::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_and_ranges() {
        assert_eq!(ports("80"), Ok(80..=80));
        assert_eq!(ports("1-65535"), Ok(1..=65_535));
        for wrong in ["", "0", "65536", "http", "9-8", "1-", "-1", "1-2-3", "0-5"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn buffer_sizes_are_rounded_up() {
        assert_eq!(buffer_size("1"), Ok(page_size()));
        assert_eq!(buffer_size("4k"), Ok(4096));
        assert_eq!(buffer_size("5K"), Ok(8192));
        assert_eq!(buffer_size("1g"), Ok(1 << 30));
        for wrong in ["", "0", "k", "2g", "-1", "1.5m", "99999999999", "4kb"] {
            assert!(buffer_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_namespace_has_many_names() {
        let own = netns("/proc/self/ns/net").unwrap();
        assert_eq!(netns(&std::process::id().to_string()), Ok(own));
        assert_eq!(netns(&own.to_string()), Ok(own));
        assert!(netns("/no/such/namespace").is_err());
    }
}
