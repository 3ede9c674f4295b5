//! What the kernel itself says of the sockets in a network namespace: `/proc/net/tcp` and `tcp6`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// States by the number that they have in the kernel, less one.
pub const STATES: [&str; 11] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
];

/// A socket, as far as every source tells the same of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Of [`STATES`].
    pub state: String,
    /// Local address; an IPv4-mapped one as IPv4.
    pub laddr: IpAddr,
    /// Local port.
    pub lport: u16,
    /// Remote address, likewise; none of a listener.
    pub raddr: Option<IpAddr>,
    /// Remote port.
    pub rport: Option<u16>,
    /// Bytes to read, or connections to accept.
    pub recv_q: u64,
    /// Bytes not acknowledged; none of a listener, of which sources differ.
    pub send_q: Option<u64>,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// What others tell, too.
    pub entry: Entry,
    /// Name of its timer, as `ss` has it.
    pub timer: Option<&'static str>,
    /// Inode number, if it has one.
    pub inode: Option<u64>,
}

/// The sockets in the namespace of the calling thread, in order.
pub fn sockets() -> Vec<Line> {
    let mut lines: Vec<Line> = ["tcp", "tcp6"].iter().flat_map(|file| read(file)).collect();
    lines.sort();
    lines
}

/// Waits until all sockets of the namespace have reached CLOSE. There is no event for this that every kernel shows.
///
/// # Panics
/// After [`PATIENCE`].
pub fn wait_until_closed() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut open = sockets();
        open.retain(|line| line.entry.state != "TIME_WAIT");
        if open.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still open: {open:#?}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn read(file: &str) -> Vec<Line> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
    text.lines().skip(1).map(parse).collect()
}

/// `sl local rem st tx:rx tr:when retrnsmt uid timeout inode …`, see `get_tcp4_sock`, net/ipv4/tcp_ipv4.c.
fn parse(line: &str) -> Line {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (laddr, lport) = endpoint(words[1]);
    let (raddr, rport) = endpoint(words[2]);
    let state = usize::from_str_radix(words[3], 16).unwrap();
    let (tx, rx) = words[4].split_once(':').unwrap();
    let number = |text| u64::from_str_radix(text, 16).unwrap();
    let timer = match words[5].split_once(':').unwrap().0 {
        "00" => None,
        "01" => Some("on"),
        "02" => Some("keepalive"),
        "03" => Some("timewait"),
        "04" => Some("persist"),
        other => panic!("timer {other}: {line}"),
    };
    let state = STATES[state - 1];
    let is_connection = state != "LISTEN";
    Line {
        entry: Entry {
            state: state.into(),
            laddr,
            lport,
            raddr: is_connection.then_some(raddr),
            rport: is_connection.then_some(rport),
            recv_q: number(rx),
            send_q: is_connection.then(|| number(tx)),
        },
        timer,
        inode: words[9].parse().ok().filter(|inode| *inode != 0),
    }
}

/// `0100007F:1F90`: words in the byte order of the machine, and a port.
fn endpoint(text: &str) -> (IpAddr, u16) {
    let (address, port) = text.split_once(':').unwrap();
    let words: Vec<[u8; 4]> = (0..address.len())
        .step_by(8)
        .map(|at| {
            u32::from_str_radix(&address[at..at + 8], 16)
                .unwrap()
                .to_ne_bytes()
        })
        .collect();
    let address = match words.as_slice() {
        [v4] => IpAddr::from(Ipv4Addr::from(*v4)),
        words => {
            let bytes: [u8; 16] = words.concat().try_into().unwrap();
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
    };
    (address, u16::from_str_radix(port, 16).unwrap())
}
